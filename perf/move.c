/* SPDX-License-Identifier: MIT */
/*
 * read and migrate. The blackout is what a thread of the moved proclet sees: the longest time between two of its
 * increments, the last at the source and the first at the destination. It reads the time stamp counter, which the nodes
 * of one host share, in its own code: a thread that is always inside the runtime can seldom be interrupted.
 */
#include "perf.h"
#include "ticks.h"

#include <stdlib.h>
#include <string.h>

struct mover {
	char *memory;
	size_t size_bytes;
	volatile bool stop;
	volatile uint64_t count, gap, last; /* in ticks of the processor's clock */
	struct nu_thread *thread;
};

NU_CLASS(mover, val(uint64_t, size_bytes), val(bool, run));
NU_METHOD(mover, stop, val(uint64_t));
NU_METHOD(mover, reset, none);
NU_METHOD(mover, gap, val(uint64_t));
NU_METHOD(mover, memory, val(uint64_t));

static void run(void *arg)
{
	struct mover *m = arg;

	m->last = perf_ticks();
	while (!m->stop) {
		uint64_t now = perf_ticks(), gap = now - m->last;

		m->count++;
		if (gap > m->gap)
			m->gap = gap;
		m->last = now;
	}
}

int mover_init(struct mover *self, uint64_t size_bytes, bool running)
{
	self->size_bytes = size_bytes;
	self->memory = malloc(size_bytes);
	if (!self->memory)
		return -ENOMEM;
	memset(self->memory, 0x5a, size_bytes);
	return running ? nu_thread_spawn(run, self, &self->thread) : 0;
}

uint64_t mover_do_stop(struct mover *self)
{
	self->stop = true;
	if (self->thread)
		nu_thread_join(self->thread);
	self->thread = NULL;
	return self->count;
}

void mover_do_reset(struct mover *self)
{
	self->gap = 0;
}

uint64_t mover_do_gap(struct mover *self)
{
	return self->gap;
}

uint64_t mover_do_memory(struct mover *self)
{
	return (uint64_t)self->memory;
}

/* ---- read ---- */

static int read_size(const struct perf_options *o, size_t size)
{
	size_t n = o->count ? o->count : 200, warm = o->warmup ? o->warmup : n / 10;
	struct perf_row row = {.test = "read",
			       .unit = "us",
			       .samples = perf_samples(n),
			       .count = n,
			       .scale = 1e-3,
			       .size_bytes = size,
			       .limit_name = "memcpy",
			       .reader = nu_testing_reader(1)};
	struct nu_options there = {.node = NU_NODE(1)};
	uint64_t *copies = perf_samples(n), address;
	char *to = malloc(size), *from = malloc(size);
	int ret;
	NU_SCOPED(mover, p);

	ret = to && from && copies && row.samples ? mover_create(&there, size, false, &p) : -ENOMEM;
	if (!ret)
		ret = mover_memory(p, &address);
	if (!ret) {
		memset(to, 1, size);
		memset(from, 2, size);
	}
	for (size_t i = 0; i < n + warm && !ret; i++) {
		uint64_t start = nu_testing_mono_ns(), middle;

		ret = nu_testing_read(1, to, (void *)address, size);
		middle = nu_testing_mono_ns();
		memcpy(to, from, size);
		if (i >= warm) {
			row.samples[i - warm] = middle - start;
			copies[i - warm] = nu_testing_mono_ns() - middle;
		}
	}
	if (!ret) {
		row.limit_p50 = perf_median(copies, n) * 1e-3;
		perf_report(o, &row);
	}
	free(to);
	free(from);
	free(copies);
	free(row.samples);
	return ret;
}

static int need_two(const char *test)
{
	if (nu_node_count() >= 2)
		return 0;
	fprintf(stderr, "nu_perf: %s needs two nodes: nu_launch -n 2 nu_perf -t %s\n", test, test);
	return -EINVAL;
}

int perf_read(const struct perf_options *o)
{
	size_t min = o->size_min ? o->size_min : 65536, max = o->size_max ? o->size_max : min;
	int ret = need_two("read");

	for (size_t s = min; s <= max && !ret; s *= 2)
		ret = read_size(o, s);
	return ret;
}

/* ---- migrate ---- */

struct move_samples {
	uint64_t *blackout, *total, *raw;
	char *buffer;
	uint64_t address;
	size_t size;
};

/* One move; what its thread saw of it and what the caller waited. */
static int one_way(struct mover_ref p, unsigned to, uint64_t *blackout_p, uint64_t *total_p)
{
	uint64_t start;
	int ret = mover_reset(p);

	if (ret)
		return ret;
	start = nu_testing_mono_ns();
	ret = nu_migrate(p.ref, to);
	*total_p = nu_testing_mono_ns() - start;
	return ret ? ret : mover_gap(p, blackout_p);
}

/* There and back; between the two, a raw read of the same bytes from where they are. */
static int round_trip(struct mover_ref p, struct move_samples *s, size_t i)
{
	uint64_t start;
	int ret = one_way(p, 1, &s->blackout[2 * i], &s->total[2 * i]);

	if (ret)
		return ret;
	start = nu_testing_mono_ns();
	ret = nu_testing_read(1, s->buffer, (void *)s->address, s->size);
	s->raw[i] = nu_testing_mono_ns() - start;
	return ret ? ret : one_way(p, 0, &s->blackout[2 * i + 1], &s->total[2 * i + 1]);
}

/* Nanoseconds in a tick of the time stamp counter. */
static double tick_ns(void)
{
	uint64_t ns = nu_testing_mono_ns(), ticks = perf_ticks();

	nu_sleep_us(20000);
	ticks = perf_ticks() - ticks;
	return (double)(nu_testing_mono_ns() - ns) / (double)ticks;
}

static int migrate_size(const struct perf_options *o, size_t size)
{
	size_t n = (o->count ? o->count : 200) / 2 + 1, warm = o->warmup ? o->warmup / 2 + 1 : n / 10 + 1,
	       all = n + warm;
	struct move_samples s = {
		perf_samples(2 * all), perf_samples(2 * all), perf_samples(all), malloc(size), 0, size};
	struct nu_options here = {.node = NU_NODE(0)};
	struct perf_row row = {.unit = "us",
			       .count = 2 * n,
			       .scale = 1e-3,
			       .size_bytes = size,
			       .limit_name = "raw read",
			       .reader = nu_testing_reader(1)};
	uint64_t count;
	int ret;
	NU_SCOPED(mover, p);

	ret = s.buffer ? mover_create(&here, size, true, &p) : -ENOMEM;
	if (!ret) {
		memset(s.buffer, 1, size);
		ret = mover_memory(p, &s.address);
	}
	for (size_t i = 0; i < all && !ret; i++)
		ret = round_trip(p, &s, i);
	if (!ret)
		ret = mover_stop(p, &count);
	if (!ret) {
		row.limit_p50 = perf_median(s.raw + warm, n) * 1e-3;
		row.test = "migrate blackout";
		row.samples = s.blackout + 2 * warm;
		row.scale = tick_ns() * 1e-3;
		perf_report(o, &row);
		row.scale = 1e-3;
		row.test = "migrate total";
		row.samples = s.total + 2 * warm;
		perf_report(o, &row);
	}
	free(s.blackout);
	free(s.total);
	free(s.raw);
	free(s.buffer);
	return ret;
}

int perf_migrate(const struct perf_options *o)
{
	size_t min = o->size_min ? o->size_min : 65536, max = o->size_max ? o->size_max : min;
	int ret = need_two("migrate");

	for (size_t s = min; s <= max && !ret; s *= 2)
		ret = migrate_size(o, s);
	return ret;
}
