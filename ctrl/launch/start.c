/* SPDX-License-Identifier: MIT */
/* What each host of a job is given, once all of them have said what they have. */
#include "buildid.h"
#include "remote.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

bool remote_fact(const struct remote *r, const char *key, unsigned nth, char *value, size_t size)
{
	size_t key_len = strlen(key);
	for (const char *p = r->facts; p && *p; p += strcspn(p, "\n"), p += *p == '\n') {
		if (strncmp(p, key, key_len) != 0 || p[key_len] != ' ' || nth--)
			continue;
		p += key_len + 1;
		snprintf(value, size, "%.*s", (int)strcspn(p, "\n"), p);
		return true;
	}
	*value = '\0';
	return false;
}

static bool same_fact(const struct remote *a, const struct remote *b, const char *key)
{
	char here[256], there[256];
	return remote_fact(a, key, 0, here, sizeof(here)) && remote_fact(b, key, 0, there, sizeof(there)) &&
	       !strcmp(here, there);
}

/* ---- addresses ---- */

struct network {
	int family;
	unsigned char bytes[16];
	unsigned bits;
};

/* "10.0.0.2/24", or without a length. */
static bool parse_network(const char *text, struct network *n)
{
	char addr[INET6_ADDRSTRLEN];
	size_t len = strcspn(text, "/");
	if (len >= sizeof(addr))
		return false;
	memcpy(addr, text, len);
	addr[len] = '\0';
	*n = (struct network){.family = strchr(addr, ':') ? AF_INET6 : AF_INET};
	if (inet_pton(n->family, addr, n->bytes) != 1)
		return false;
	n->bits = n->family == AF_INET ? 32 : 128;
	if (text[len]) {
		char *end;
		unsigned long bits = strtoul(text + len + 1, &end, 10);
		if (!text[len + 1] || *end || bits > n->bits)
			return false;
		n->bits = (unsigned)bits;
	}
	return true;
}

static bool contains(const struct network *net, const struct network *addr)
{
	if (net->family != addr->family)
		return false;
	for (unsigned bit = 0; bit < net->bits; bit++) {
		unsigned char mask = (unsigned char)(0x80 >> bit % 8);
		if ((net->bytes[bit / 8] ^ addr->bytes[bit / 8]) & mask)
			return false;
	}
	return true;
}

/* Its nth address: "IF ADDRESS/LENGTH" cut in two. */
static bool nth_address(const struct remote *r, unsigned nth, char *name, char *addr, struct network *n)
{
	char line[128];
	if (!remote_fact(r, "address", nth, line, sizeof(line)) ||
	    sscanf(line, "%31s %63s", name, addr) != 2 || !parse_network(addr, n))
		return false;
	addr[strcspn(addr, "/")] = '\0';
	return true;
}

/* The one that is @wanted, an interface's name, an address, or a network. Version 4 before 6. */
static bool address_wanted(const struct remote *r, const char *wanted, char *to, size_t size)
{
	char name[32], addr[64];
	struct network net, n;
	bool is_net = parse_network(wanted, &net), found = false;
	for (unsigned i = 0; nth_address(r, i, name, addr, &n); i++) {
		if (is_net ? !contains(&net, &n) : strcmp(wanted, name) != 0)
			continue;
		if (!found || n.family == AF_INET)
			snprintf(to, size, "%s", addr);
		if (n.family == AF_INET)
			return true;
		found = true;
	}
	return found;
}

static bool is_loopback(const char *addr)
{
	return !strncmp(addr, "127.", 4) || !strcmp(addr, "::1");
}

static bool has_address(const struct remote *r, const char *wanted)
{
	char name[32], addr[64];
	struct network n;
	for (unsigned i = 0; nth_address(r, i, name, addr, &n); i++) {
		if (!strcmp(addr, wanted))
			return true;
	}
	return false;
}

/* By which ssh came to it; or, for this machine, what the others saw ssh come from. */
static bool address_of_ssh(struct job *job, const struct remote *r, char *to, size_t size)
{
	char line[256], client[64], server[64];
	if (remote_fact(r, "ssh", 0, line, sizeof(line)) && sscanf(line, "%*s %*s %63s", server) == 1 &&
	    !is_loopback(server) && has_address(r, server)) {
		snprintf(to, size, "%s", server);
		return true;
	}
	for (unsigned i = 0; i < job->nhosts; i++) {
		const struct remote *other = remote_of(job->hosts[i]);
		if (other != r && remote_fact(other, "ssh", 0, line, sizeof(line)) &&
		    sscanf(line, "%63s", client) == 1 && !is_loopback(client) && has_address(r, client)) {
			snprintf(to, size, "%s", client);
			return true;
		}
	}
	return false;
}

/* The one that its name stands for. */
static bool address_of_name(const struct remote *r, char *to, size_t size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *a;
	char addr[64];
	bool found = false;
	if (getaddrinfo(r->spec->name, NULL, &hints, &all))
		return false;
	for (a = all; a && !found; a = a->ai_next) {
		if (!getnameinfo(a->ai_addr, a->ai_addrlen, addr, sizeof(addr), NULL, 0, NI_NUMERICHOST) &&
		    !is_loopback(addr) && has_address(r, addr)) {
			snprintf(to, size, "%s", addr);
			found = true;
		}
	}
	freeaddrinfo(all);
	return found;
}

/* One in a network that all others have an address in; else the first that leads outside. */
static bool address_in_common(struct job *job, const struct remote *r, char *to, size_t size)
{
	char name[32], addr[64], name2[32], addr2[64];
	struct network n, n2;
	bool found = false;
	for (unsigned i = 0; nth_address(r, i, name, addr, &n); i++) {
		bool common = true;
		if (is_loopback(addr))
			continue;
		if (!found)
			snprintf(to, size, "%s", addr);
		found = true;
		for (unsigned h = 0; h < job->nhosts && common; h++) {
			common = false;
			for (unsigned j = 0;
			     nth_address(remote_of(job->hosts[h]), j, name2, addr2, &n2) && !common; j++)
				common = contains(&n, &n2);
		}
		if (common) {
			snprintf(to, size, "%s", addr);
			return true;
		}
	}
	return found;
}

/* All are this machine: in one network name space of it. */
static bool all_are_one(struct job *job)
{
	for (unsigned i = 1; i < job->nhosts; i++) {
		const struct remote *a = remote_of(job->hosts[0]), *b = remote_of(job->hosts[i]);
		if (!same_fact(a, b, "boot") || !same_fact(a, b, "net"))
			return false;
	}
	return true;
}

static bool choose_address(struct job *job, struct remote *r, bool one)
{
	const char *wanted = r->spec->interface ? r->spec->interface : r->hosts->interface;
	char have[256] = "", line[128];
	size_t used = 0;
	if (wanted && address_wanted(r, wanted, r->address, sizeof(r->address)))
		return true;
	if (!wanted && one) {
		strcpy(r->address, "127.0.0.1");
		return true;
	}
	if (!wanted && (address_of_ssh(job, r, r->address, sizeof(r->address)) ||
			address_of_name(r, r->address, sizeof(r->address)) ||
			address_in_common(job, r, r->address, sizeof(r->address))))
		return true;
	for (unsigned i = 0; remote_fact(r, "address", i, line, sizeof(line)) && used < sizeof(have); i++)
		used += (size_t)snprintf(have + used, sizeof(have) - used, "%s%s", i ? ", " : "", line);
	launch_say("host %s: no address of it is %s; it has %s", r->spec->name,
		   wanted ? wanted : "of use to other hosts (--interface)", *have ? have : "none");
	return false;
}

/* ---- what goes out ---- */

static unsigned cores_of(const struct remote *r, const struct options *o)
{
	char text[32];
	unsigned have = 1, cores = r->spec->cores ? r->spec->cores : o->cores;
	if (cores)
		return cores;
	if (remote_fact(r, "cores", 0, text, sizeof(text)))
		have = (unsigned)strtoul(text, NULL, 10);
	cores = have / r->host.count;
	return cores < 1 ? 1 : cores > 64 ? 64 : cores;
}

static void fill_common(struct job *job, struct nu_boot_hello *hello)
{
	for (unsigned i = 0; i < job->nhosts; i++) {
		const struct remote *r = remote_of(job->hosts[i]);
		for (unsigned n = 0; n < r->host.count; n++) {
			hello->host_of[r->host.first + n] = (uint8_t)i;
			hello->cores_of[r->host.first + n] = (uint8_t)cores_of(r, job->options);
		}
	}
	hello->hosts = job->nhosts;
}

static size_t put_string(char *to, const char *s)
{
	strcpy(to, s);
	return strlen(s) + 1;
}

static void start_one(struct remote *r, const struct nu_boot_hello *hello, const char *id)
{
	const struct options *o = r->host.job->options;
	const struct hosts *h = r->hosts;
	struct agent_start start = {.hello = *hello,
				    .has_stdin = r->host.first == 0,
				    .may_copy = h->copy,
				    .silence_ms = (uint32_t)(h->silence_s * 1000)};
	size_t len = sizeof(start) + strlen(h->wdir) + 1, used = sizeof(start);
	start.hello.first = r->host.first;
	start.hello.here = r->host.count;
	start.hello.cores = cores_of(r, o);
	start.hello.mem_bytes = r->spec->mem_bytes ? r->spec->mem_bytes : o->mem_bytes;
	memcpy(start.hello.address, r->address, sizeof(start.hello.address));
	strcpy(start.id, id);
	for (; o->argv[start.argc]; start.argc++)
		len += strlen(o->argv[start.argc]) + 1;
	for (start.envc = 0; start.envc < h->nenv; start.envc++)
		len += strlen(h->env[start.envc]) + 1;
	struct shared *s = shared_new(len);
	memcpy(s->data, &start, sizeof(start));
	used += put_string((char *)s->data + used, h->wdir);
	for (unsigned i = 0; i < start.argc; i++)
		used += put_string((char *)s->data + used, o->argv[i]);
	for (unsigned i = 0; i < start.envc; i++)
		used += put_string((char *)s->data + used, h->env[i]);
	r->started = true;
	conn_send_node(&r->conn, 0, AGENT_START, 0, 0, s);
	shared_put(s);
	explicit_bzero(&start, sizeof(start));
}

/* Hosts that cannot have one layout, or an address for each other. */
static bool check_hosts(struct job *job)
{
	const struct remote *first = remote_of(job->hosts[0]);
	char here[64], there[64];
	bool one = all_are_one(job);
	for (unsigned i = 0; i < job->nhosts; i++) {
		struct remote *r = remote_of(job->hosts[i]);
		if (!same_fact(first, r, "arch")) {
			remote_fact(first, "arch", 0, here, sizeof(here));
			remote_fact(r, "arch", 0, there, sizeof(there));
			launch_say("host %s is of another architecture (%s) than host %s (%s)", r->spec->name,
				   there, first->spec->name, here);
			return false;
		}
		if (job->nhosts > 1 && !choose_address(job, r, one))
			return false;
	}
	return true;
}

void start_all(struct job *job)
{
	struct nu_boot_hello hello;
	char path[4096], id[sizeof(((struct agent_start *)NULL)->id)] = "";
	int err;
	if (!check_hosts(job)) {
		job_end(job, 1, 0, NULL);
		return;
	}
	/* It need not be here; hosts are held against each other when their nodes join. */
	if (!buildid_find(job->options->argv[0], path, sizeof(path)) && buildid_of(path, id, sizeof(id)))
		*id = '\0';
	spawn_hello(&hello, job->options);
	fill_common(job, &hello);
	err = getrandom(hello.secret, sizeof(hello.secret), 0) != (ssize_t)sizeof(hello.secret) ? -errno : 0;
	if (!err && job->nhosts > 1)
		err = layout_choose(&hello);
	if (err) {
		launch_say("no randomness for the job's secret: %s", strerror(-err));
		job_end(job, 1, 0, NULL);
		return;
	}
	for (unsigned i = 0; i < job->nhosts && !job->ending; i++)
		start_one(remote_of(job->hosts[i]), &hello, id);
	explicit_bzero(hello.secret, sizeof(hello.secret));
	job_expect_program(job);
}

void start_copy(struct remote *r)
{
	char path[4096], *bytes = launch_alloc(AGENT_CHUNK_BYTES);
	int err = buildid_find(r->host.job->options->argv[0], path, sizeof(path));
	int fd = err ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;
	while (fd >= 0 && (n = read(fd, bytes, AGENT_CHUNK_BYTES)) > 0)
		conn_send(&r->conn, AGENT_FILE, 0, 0, bytes, (size_t)n);
	if (n < 0) {
		launch_say("%s cannot be copied to host %s: %s", r->host.job->options->argv[0], r->spec->name,
			   strerror(errno));
		job_end(r->host.job, 1, 0, NULL);
	} else {
		conn_send(&r->conn, AGENT_FILE, 0, 0, NULL, 0);
	}
	if (fd >= 0)
		close(fd);
	free(bytes);
}
