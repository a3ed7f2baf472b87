/* SPDX-License-Identifier: MIT */
/*
 * read: what the chosen reader makes of -s bytes at a time, beside the limit: by verbs, READs posted by hand on the same queue
 * pair; else memcpy. With -O so many are outstanding, in a stream that is long beside them.
 */
#include "perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_BYTES ((size_t)64 << 20)
#define STREAM_LONG  16 /* times what is outstanding; 2 at least */

/* What is read where the reader takes no offers: on node 1. */
struct shelf {
	char *memory;
};
NU_CLASS(shelf, val(uint64_t, len_bytes));
NU_METHOD(shelf, memory, val(uint64_t));

int shelf_init(struct shelf *self, uint64_t len_bytes)
{
	self->memory = malloc(len_bytes);
	if (!self->memory)
		return -ENOMEM;
	memset(self->memory, 0x5a, len_bytes);
	return 0;
}

uint64_t shelf_do_memory(struct shelf *self)
{
	return (uint64_t)self->memory;
}

struct reads {
	struct nu_testing_source source;
	uint64_t address;
	size_t size, n;
	unsigned depth;
	char *from; /* for memcpy; NULL: READs by hand */
};

static size_t reads_in_a_sample(size_t size, size_t depth)
{
	size_t n = STREAM_BYTES / size;

	if (depth == 1)
		return 1;
	if (n > STREAM_LONG * depth)
		return STREAM_LONG * depth;
	return n > 2 * depth ? n : 2 * depth;
}

static int limit(const struct reads *r)
{
	if (!r->from)
		return nu_testing_source_reads_bare(&r->source, r->size, r->depth);
	for (size_t i = 0; i < r->n; i++)
		memcpy((char *)r->source.local + i * r->size, r->from + i * r->size, r->size);
	return 0;
}

static int one_pair(const struct reads *r, uint64_t *ours_p, uint64_t *limit_p)
{
	uint64_t start = nu_testing_mono_ns(), middle;
	int ret = nu_testing_source_reads(&r->source, (void *)r->address, r->size);

	middle = nu_testing_mono_ns();
	*ours_p = middle - start;
	if (!ret)
		ret = limit(r);
	*limit_p = nu_testing_mono_ns() - middle;
	return ret;
}

static int open_reads(struct reads *r, struct shelf_ref *shelf_p)
{
	size_t all = r->n * r->size;
	struct nu_options there = {.node = NU_NODE(1)};
	int ret = nu_testing_source_open(1, all, &r->source);

	if (!ret && !r->source.by_offer) {
		ret = shelf_create(&there, all, shelf_p);
		ret = ret ? ret : shelf_memory(*shelf_p, &r->address);
	}
	if (ret || nu_testing_source_reads_bare(&r->source, r->size, 1) != -ENODEV)
		return ret;
	r->from = malloc(all);
	if (!r->from)
		return -ENOMEM;
	memset(r->from, 2, all);
	return 0;
}

static double rate(const struct reads *r, const struct perf_row *row)
{
	double ns = 0;

	for (size_t i = 0; i < row->count; i++)
		ns += (double)row->samples[i];
	return ns > 0 ? 1e9 * (double)(r->n * row->count) / ns : 0;
}

static int read_case(const struct perf_options *o, const struct perf_case *c)
{
	struct reads r = {.size = c->size_bytes,
			  .depth = c->outstanding,
			  .n = reads_in_a_sample(c->size_bytes, c->outstanding)};
	struct perf_row row = {.test = "read",
			       .unit = "us",
			       .outstanding = c->outstanding,
			       .samples = perf_samples(c->count),
			       .count = c->count,
			       .scale = 1e-3 / (double)r.n,
			       .size_bytes = r.size,
			       .reader = nu_testing_reader(1)};
	uint64_t *limits = perf_samples(c->count);
	int ret = limits && row.samples ? 0 : -ENOMEM;
	NU_SCOPED(shelf, p);

	ret = ret ? ret : open_reads(&r, &p);
	for (size_t i = 0; i < c->count + c->warmup && !ret; i++) {
		size_t at = i < c->warmup ? 0 : i - c->warmup;

		ret = one_pair(&r, &row.samples[at], &limits[at]);
	}
	if (!ret) {
		row.limit_name = r.from ? "memcpy" : "bare READ";
		row.limit_samples = limits;
		row.rate = rate(&r, &row);
		perf_report(o, &row);
	}
	nu_testing_source_close(&r.source);
	free(r.from);
	free(limits);
	free(row.samples);
	return ret;
}

int perf_read(const struct perf_options *o)
{
	struct perf_case base = {.size_bytes = 65536, .outstanding = 1, .count = 200};
	int ret = perf_need_two("read");

	return ret ? ret : perf_each(o, base, read_case);
}
