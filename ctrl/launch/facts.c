/* SPDX-License-Identifier: MIT */
/* What an agent says of its host: "KEY VALUE" lines, from which the launcher takes what it needs. */
#include "agent.h"
#include "hosts.h"
#include "launch.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static void print_file(FILE *f, const char *key, const char *path)
{
	char line[128] = "";
	FILE *from = fopen(path, "re");
	if (from && fgets(line, sizeof(line), from))
		fprintf(f, "%s %.*s\n", key, (int)strcspn(line, "\n"), line);
	if (from)
		fclose(from);
}

static unsigned mask_bits(const struct sockaddr *mask)
{
	const unsigned char *p = (const unsigned char *)&((const struct sockaddr_in *)mask)->sin_addr;
	unsigned n = 4, bits = 0;
	if (mask->sa_family == AF_INET6) {
		p = (const unsigned char *)&((const struct sockaddr_in6 *)mask)->sin6_addr;
		n = 16;
	}
	while (n--)
		bits += (unsigned)__builtin_popcount(*p++);
	return bits;
}

/* Those that others may know this host by: not what is valid on one link only. */
static void print_addresses(FILE *f)
{
	struct ifaddrs *all = NULL;
	char text[INET6_ADDRSTRLEN];
	if (getifaddrs(&all))
		return;
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		const void *addr;
		if (!i->ifa_addr || !i->ifa_netmask || !(i->ifa_flags & IFF_UP))
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			addr = &((struct sockaddr_in *)i->ifa_addr)->sin_addr;
		else if (i->ifa_addr->sa_family == AF_INET6)
			addr = &((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr;
		else
			continue;
		if (i->ifa_addr->sa_family == AF_INET6 &&
		    IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)addr))
			continue;
		if (inet_ntop(i->ifa_addr->sa_family, addr, text, sizeof(text)))
			fprintf(f, "address %s %s/%u\n", i->ifa_name, text, mask_bits(i->ifa_netmask));
	}
	freeifaddrs(all);
}

static void print_rdma(FILE *f)
{
	DIR *d = opendir("/sys/class/infiniband");
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (e->d_name[0] != '.')
			fprintf(f, "rdma %s\n", e->d_name);
	}
	if (d)
		closedir(d);
}

char *agent_facts(void)
{
	const char *ssh = getenv("SSH_CONNECTION");
	struct utsname u;
	struct stat net;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return NULL;
	uname(&u);
	fprintf(f, "name %s\narch %s\nkernel %s\ncores %u\n", u.nodename, u.machine, u.release,
		launch_processors());
	print_file(f, "boot", "/proc/sys/kernel/random/boot_id");
	if (!stat("/proc/self/ns/net", &net))
		fprintf(f, "net %lu\n", (unsigned long)net.st_ino);
	if (ssh)
		fprintf(f, "ssh %s\n", ssh);
	print_addresses(f);
	print_rdma(f);
	return fclose(f) ? NULL : text;
}
