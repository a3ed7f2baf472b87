/* SPDX-License-Identifier: MIT */
/*
 * footprint: resident memory. Of -n proclets on this node, each called once with one allocation; and of a node's first
 * call to each of the others, at both ends. What the kernel counts for the process (VmRSS), heaps and runtime alike.
 */
#include "perf.h"

#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#define PROCLETS    32768
#define BOUND_BYTES ((uint64_t)3 << 30) /* for so many */
#define CALL_BYTES  64

struct resident {
	void *kept;
};

NU_CLASS(resident);
NU_METHOD(resident, keep, val(bool), val(uint64_t, size_bytes));
NU_METHOD(resident, rss, val(uint64_t));

int resident_init(struct resident *self)
{
	return 0;
}

bool resident_do_keep(struct resident *self, uint64_t size_bytes)
{
	self->kept = malloc(size_bytes);
	if (self->kept)
		memset(self->kept, 1, size_bytes);
	return self->kept;
}

static uint64_t rss_bytes(void)
{
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	char buf[128], *end;
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	buf[n] = '\0';
	strtoull(buf, &end, 10);
	return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t resident_do_rss(struct resident *self)
{
	return rss_bytes();
}

static void report(const struct perf_options *o, const char *test, size_t count, uint64_t each,
		   uint64_t bound)
{
	struct perf_row row = {.test = test,
			       .size_bytes = CALL_BYTES,
			       .unit = "KiB",
			       .samples = &each,
			       .count = 1,
			       .scale = 1.0 / 1024,
			       .outstanding = (unsigned)count,
			       .limit_name = bound ? "3 GiB / 32768" : NULL,
			       .limit_p50 = (double)bound / 1024};

	perf_report(o, &row);
}

/* ---- proclets ---- */

static int make(struct resident_ref *refs, size_t n)
{
	struct nu_options here = {.node = NU_NODE(0), .capacity_bytes = 1 << 20};
	int ret = 0;

	for (size_t i = 0; i < n && !ret; i++) {
		bool kept;

		ret = resident_create(&here, &refs[i]);
		if (!ret)
			ret = resident_keep(refs[i], CALL_BYTES, &kept);
		if (!ret && !kept)
			ret = -ENOMEM;
		if (ret)
			fprintf(stderr, "nu_perf: proclet %zu of %zu: %s\n", i, n, nu_strerror(ret));
	}
	return ret;
}

static int proclets(const struct perf_options *o, size_t n)
{
	struct resident_ref *refs = calloc(n, sizeof(*refs));
	uint64_t before, after;
	int ret = refs ? 0 : -ENOMEM;

	if (ret)
		return ret;
	memset(refs, 0, n * sizeof(*refs));
	before = rss_bytes();
	ret = make(refs, n);
	after = rss_bytes();
	if (!ret)
		report(o, "footprint proclet", n, after > before ? (after - before) / n : 0,
		       BOUND_BYTES / PROCLETS);
	if (!ret)
		report(o, "footprint node", n, after, 0);
	for (size_t i = 0; i < n; i++) {
		if (refs[i].ref.id)
			nu_ref_put(refs[i].ref);
	}
	free(refs);
	return ret;
}

/* ---- peers ---- */

/* A call to each other node: what this node grew by, and what the last of them has in all. */
static int peers(const struct perf_options *o)
{
	unsigned n = nu_node_count() - 1;
	uint64_t before = rss_bytes(), after, there = 0;
	int ret = 0;

	for (unsigned i = 1; i <= n && !ret; i++) {
		struct nu_options where = {.node = NU_NODE(i)};
		NU_SCOPED(resident, p);

		ret = resident_create(&where, &p);
		if (!ret)
			ret = resident_rss(p, &there);
	}
	after = rss_bytes();
	if (ret)
		return ret;
	report(o, "footprint peer", n, after > before ? (after - before) / n : 0, 0);
	report(o, "footprint idle node", n, there, 0);
	return 0;
}

int perf_footprint(const struct perf_options *o)
{
	int ret = nu_node_count() > 1 ? peers(o) : 0;

	return ret ? ret : proclets(o, o->count ? o->count : PROCLETS);
}
