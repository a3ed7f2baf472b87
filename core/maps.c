/* SPDX-License-Identifier: MIT */
/*
 * How many mappings the runtime has promised to itself. The kernel refuses more than vm.max_map_count of them with a
 * bare ENOMEM in the middle of something; here they are refused before it begins.
 */
#include "core/fault.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_MAP_COUNT_DEFAULT 65530
/* For the C library, UCX and short-lived splits of ours, beyond what is mapped when we first look. */
#define SLACK_MIN   512
#define SLACK_SHIFT 5 /* of the limit: 1/32 */
/* Parts of the limit that heaps leave to stacks, and started threads to calls. */
#define HEAPS_LEAVE_SHIFT   4
#define THREADS_LEAVE_SHIFT 5

static atomic_uint used;
static atomic_uint limit;	       /* 0: not looked yet */
static atomic_uint system_limit;       /* as the system says it, for messages */
static atomic_bool said[NU_MAPS_USES]; /* that the limit is reached, since enough was given back */

static long count_own(void)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char buf[4096];
	long lines = 0;
	ssize_t n;

	if (fd < 0)
		return 0;
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	}
	close(fd);
	return lines;
}

static unsigned read_system_limit(void)
{
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	char buf[32];
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	if (n <= 0)
		return MAX_MAP_COUNT_DEFAULT;
	buf[n] = '\0';
	unsigned long v = strtoul(buf, NULL, 10);
	return v > 0x7fffffff ? 0x7fffffff : (unsigned)v;
}

static unsigned get_limit(void)
{
	unsigned max = atomic_load_explicit(&limit, memory_order_relaxed);

	if (likely(max))
		return max;
	/* Two callers at once come to nearly the same number. */
	unsigned sys = read_system_limit();
	long slack = count_own() + SLACK_MIN + (sys >> SLACK_SHIFT);
	max = slack < (long)sys ? sys - (unsigned)slack : 1;
	atomic_store_explicit(&system_limit, sys, memory_order_relaxed);
	atomic_store_explicit(&limit, max, memory_order_relaxed);
	return max;
}

/* How many there may be in all when @use asks: what frees or serves still finds some when what creates does not. */
static unsigned limit_of(enum nu_maps_use use)
{
	unsigned max = get_limit();

	switch (use) {
	case NU_MAPS_HEAPS:
		return max - (max >> HEAPS_LEAVE_SHIFT);
	case NU_MAPS_THREADS:
		return max - (max >> THREADS_LEAVE_SHIFT);
	case NU_MAPS_CALLS:
		return max;
	default:
		return max + SLACK_MIN / 2;
	}
}

static void say_full(enum nu_maps_use use, unsigned n, unsigned before)
{
	static const char *const what[] = {"heaps", "threads that are started", "calls",
					   "the runtime's own steps"};

	/* A full node's heaps and stacks ask again and again. */
	if (!atomic_exchange_explicit(&said[use], true, memory_order_relaxed))
		nu_err("vm.max_map_count is %u, which leaves %u mappings for heaps and stacks, %u of them "
		       "for %s: "
		       "%u in use, %u more wanted",
		       atomic_load_explicit(&system_limit, memory_order_relaxed), get_limit(), limit_of(use),
		       what[use], before, n);
}

int nu_maps_reserve(unsigned n, enum nu_maps_use use)
{
	unsigned max = limit_of(use);
	unsigned before = atomic_fetch_add_explicit(&used, n, memory_order_relaxed);

	if (unlikely(nu_fault_armed)) {
		int err = nu_fault(NU_FAULT_MAP);

		if (err) {
			atomic_fetch_sub_explicit(&used, n, memory_order_relaxed);
			return err;
		}
	}
	if (likely(n <= max && before <= max - n))
		return 0;
	atomic_fetch_sub_explicit(&used, n, memory_order_relaxed);
	say_full(use, n, before);
	return -ENOMEM;
}

bool nu_maps_have_room(enum nu_maps_use use)
{
	return atomic_load_explicit(&used, memory_order_relaxed) < limit_of(use);
}

void nu_maps_release(unsigned n)
{
	unsigned before = atomic_fetch_sub_explicit(&used, n, memory_order_relaxed);

	NU_ASSERT(before >= n);
	for (enum nu_maps_use use = 0; use < NU_MAPS_USES; use++)
		if (unlikely(atomic_load_explicit(&said[use], memory_order_relaxed)) &&
		    before - n < limit_of(use) / 8 * 7)
			atomic_store_explicit(&said[use], false, memory_order_relaxed);
}

void nu_maps_stats(unsigned *used_p, unsigned *max_p, unsigned *heaps_p)
{
	*used_p = atomic_load_explicit(&used, memory_order_relaxed);
	*max_p = get_limit();
	*heaps_p = limit_of(NU_MAPS_HEAPS);
}
