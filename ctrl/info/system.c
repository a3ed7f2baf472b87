/* SPDX-License-Identifier: MIT */
/* The machine as nodes find it: kernel, processors, memory, cgroup, huge pages. */
#include "info.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define HUGE "/sys/kernel/mm/hugepages/hugepages-2048kB/"

const char *info_line(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, buf, len - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return buf;
}

uint64_t info_file_number(const char *path, uint64_t otherwise)
{
	char buf[64], *end;
	uint64_t v = strtoull(info_line(path, buf, sizeof(buf)), &end, 10);

	return end == buf ? otherwise : v;
}

/* ---- cgroup ---- */

/* This process' folder below the mount of @controller ("" for version 2); false: none. */
static bool cgroup_folder(const char *controller, char *path, size_t len)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[512];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *names = strchr(line, ':'), *folder = names ? strchr(names + 1, ':') : NULL;

		if (!folder)
			continue;
		*folder++ = '\0';
		folder[strcspn(folder, "\n")] = '\0';
		names++;
		if (strcmp(names, controller) != 0)
			continue;
		snprintf(path, len, "/sys/fs/cgroup%s%s%s", *controller ? "/" : "", controller, folder);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

/* The least value of @file from this process' group up to the root; UINT64_MAX: no limit. */
static uint64_t cgroup_least(const char *controller, const char *file)
{
	char folder[600], path[700];
	uint64_t least = UINT64_MAX;

	if (!cgroup_folder(controller, folder, sizeof(folder)))
		return UINT64_MAX;
	for (;;) {
		uint64_t v;

		snprintf(path, sizeof(path), "%s/%s", folder, file);
		v = info_file_number(path, UINT64_MAX);
		least = v < least ? v : least;
		char *slash = strrchr(folder, '/');
		if (!slash || strlen(folder) <= strlen("/sys/fs/cgroup"))
			break;
		*slash = '\0';
	}
	return least >= (uint64_t)1 << 62 ? UINT64_MAX : least; /* version 1 writes "no limit" so */
}

static void cgroups(uint64_t *memory_p)
{
	uint64_t v2 = cgroup_least("", "memory.max"), v1 = cgroup_least("memory", "memory.limit_in_bytes");
	uint64_t pids = cgroup_least("", "pids.max"), pids_v1 = cgroup_least("pids", "pids.max");
	char folder[600], path[700], quota[64] = "";

	*memory_p = v2 < v1 ? v2 : v1;
	pids = pids < pids_v1 ? pids : pids_v1;
	info_open("cgroup");
	info_number("memory_max_bytes", *memory_p);
	info_number("pids_max", pids);
	if (cgroup_folder("", folder, sizeof(folder))) {
		snprintf(path, sizeof(path), "%s/cpu.max", folder);
		info_line(path, quota, sizeof(quota));
	}
	info_string("cpu_max", *quota ? quota : "none");
	info_close();
	if (pids < 64)
		info_warn("",
			  "the cgroup allows %lu processes and threads; nodes of this machine want some tens",
			  (unsigned long)pids);
	if (*quota && strncmp(quota, "max", 3) != 0)
		info_note("",
			  "the cgroup's cpu.max is %s: threads stop when their share of a period is used up",
			  quota);
}

/* ---- memory ---- */

static uint64_t meminfo(const char *key)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long kib = 0;
	size_t len = strlen(key);

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, len) && line[len] == ':')
			kib = strtoull(line + len + 1, NULL, 10);
	}
	if (f)
		fclose(f);
	return kib << 10;
}

static void memory(void)
{
	uint64_t limit, available = meminfo("MemAvailable");
	char thp[64], size[32];

	info_open("memory");
	info_number("total_bytes", meminfo("MemTotal"));
	info_number("available_bytes", available);
	info_number("swap_bytes", meminfo("SwapTotal"));
	cgroups(&limit);
	info_open("huge_pages");
	info_number("size_bytes", 2 << 20);
	info_number("reserved", info_file_number(HUGE "nr_hugepages", 0));
	info_number("free", info_file_number(HUGE "free_hugepages", 0));
	info_string("transparent",
		    info_line("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp)));
	info_close();
	info_close();
	available = limit < available ? limit : available;
	if (available < (uint64_t)512 << 20)
		info_warn("", "only %s of memory are there for heaps, pools and UCX's buffers",
			  info_size(available, size));
}

static void processors(struct info_findings *f)
{
	cpu_set_t set;
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	f->cpus = sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
	info_open("processors");
	info_number("online", online > 0 ? (uint64_t)online : 0);
	info_number("usable", f->cpus);
	info_close();
}

void info_system(struct info_findings *f)
{
	struct utsname u;

	info_open("system");
	if (!uname(&u)) {
		info_string("host", u.nodename);
		info_format("kernel", "%s %s", u.sysname, u.release);
		info_string("machine", u.machine);
	}
	info_number("page_bytes", (uint64_t)sysconf(_SC_PAGESIZE));
	processors(f);
	memory();
	info_close();
}
