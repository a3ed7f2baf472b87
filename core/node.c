/* SPDX-License-Identifier: MIT */
/*
 * This node: who it is and what it has.
 */
#include "core/core.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct nu_node nu_node = {.count = 1, .cores = 1};

static struct nu_proclet *no_proclet(void)
{
	return NULL;
}

static unsigned first_core(void)
{
	return 0;
}

__thread struct nu_here *nu_here;
/* Here, since tests have an image.c of their own. */
uintptr_t nu_image_code_start, nu_image_code_bytes;
const struct nu_class nu_node_class = {.name = "node"};

/* Until sched/ fills them in: no proclet runs, and everybody counts as core 0. */
struct nu_proclet *(*nu_current_proclet_fn)(void) = no_proclet;
unsigned (*nu_current_core_fn)(void) = first_core;

static unsigned count_cores(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	/* A container or taskset may give us fewer than are online. */
	if (!sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) < n)
		n = CPU_COUNT(&set);
	if (n < 1)
		return 1;
	return n > NU_MAX_CORES ? NU_MAX_CORES : (unsigned)n;
}

/* A small file's text, or false. */
static bool read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	return true;
}

/* The smallest limit of the group and its ancestors; in a container only the mount's root may be there to see. */
static uint64_t group_limit(const char *mount, const char *group, const char *file)
{
	char path[PATH_MAX], dir[PATH_MAX], text[64];
	uint64_t least = UINT64_MAX;
	char *slash;

	if ((size_t)snprintf(dir, sizeof(dir), "%s", group) >= sizeof(dir))
		return least;
	for (;;) {
		int n = snprintf(path, sizeof(path), "%s%s/%s", mount, dir, file);
		/* "max" is no number: no limit. */
		if (n > 0 && (size_t)n < sizeof(path) && read_text(path, text, sizeof(text)) &&
		    text[0] != 'm') {
			uint64_t v = strtoull(text, NULL, 10);
			if (v < least)
				least = v;
		}
		slash = strrchr(dir, '/');
		if (!slash)
			return least;
		*slash = '\0';
	}
}

/* The controllers field of a v1 line names memory, alone or among others. */
static bool names_memory(const char *controllers)
{
	size_t len = strlen("memory");

	for (const char *s = controllers; (s = strstr(s, "memory")); s += len) {
		if ((s == controllers || s[-1] == ',') && (s[len] == ',' || !s[len]))
			return true;
	}
	return false;
}

/* What control groups of either version leave us. */
static uint64_t cgroup_limit(void)
{
	static const char mount[] = "/sys/fs/cgroup";
	uint64_t least = UINT64_MAX, v;
	char text[4096], *line, *save = NULL;

	if (!read_text("/proc/self/cgroup", text, sizeof(text)))
		return least;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		/* id:controllers:path, with no controllers in version 2 */
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path)
			continue;
		controllers++;
		*path++ = '\0';
		if (!*controllers) {
			v = group_limit(mount, path, "memory.max");
			least = v < least ? v : least;
			v = group_limit("/sys/fs/cgroup/unified", path, "memory.max");
		} else if (names_memory(controllers)) {
			v = group_limit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes");
		} else {
			continue;
		}
		least = v < least ? v : least;
	}
	return least;
}

void nu_node_defaults(struct nu_node *n)
{
	uint64_t mem = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t limit = cgroup_limit();

	memset(n, 0, sizeof(*n));
	n->count = 1;
	n->cores = count_cores();
	n->mem_bytes = (size_t)((limit < mem ? limit : mem) / 2);
	n->pids[0] = getpid();
	n->cores_of[0] = (uint8_t)n->cores;
	n->hosts = 1;
	n->incarnation = 1;
}

static void __attribute__((constructor(102))) node_set_defaults(void)
{
	nu_node_defaults(&nu_node);
}
