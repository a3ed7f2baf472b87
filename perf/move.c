/* SPDX-License-Identifier: MIT */
/*
 * pull and migrate. The blackout is what the threads of the moved proclet see: the time in which none of them made a
 * step, from the last at the source to the first at the destination. They read the time stamp counter, which the
 * nodes of one host share, in their own code: a thread that is always inside the runtime can seldom be interrupted. The
 * longest time without a step from before the move until after it, whatever it was that stopped them (other work of
 * their core's, the machine), is reported beside it.
 */
#include "perf.h"
#include "ticks.h"

#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 4096

struct mover {
	char *memory;
	size_t size_bytes;
	volatile bool stop;
	volatile uint64_t count, gap, blackout, last; /* in ticks of the processor's clock */
	volatile unsigned at;			      /* the node of the last step */
	unsigned nthreads;
	struct nu_thread **threads; /* few bytes for few: they move with the rest */
};

NU_CLASS(mover, val(uint64_t, size_bytes), val(uint64_t, threads));
NU_METHOD(mover, stop, val(uint64_t));
NU_METHOD(mover, reset, none);
NU_METHOD(mover, gap, val(uint64_t));
NU_METHOD(mover, blackout, val(uint64_t));
NU_STRUCT(load, val(uint64_t, low), val(uint64_t, len_bytes));
NU_METHOD(mover, load, obj(load));

static void run(void *arg)
{
	struct mover *m = arg;

	while (!m->stop) {
		unsigned at = perf_node;
		uint64_t now = perf_ticks();
		int64_t gap = (int64_t)(now - m->last); /* below 0: another thread was quicker */

		if (at != perf_node)
			continue; /* moved just here: the next step counts */
		m->count++;
		if (gap > (int64_t)m->gap)
			m->gap = gap;
		if (at != m->at) {
			m->at = at;
			m->blackout = gap > 0 ? gap : 1;
		}
		m->last = now;
	}
}

int mover_init(struct mover *self, uint64_t size_bytes, uint64_t threads)
{
	int ret = 0;

	self->size_bytes = size_bytes;
	self->memory = malloc(size_bytes);
	if (!self->memory)
		return -ENOMEM;
	memset(self->memory, 0x5a, size_bytes);
	self->threads = calloc(threads + 1, sizeof(struct nu_thread *));
	if (!self->threads)
		return -ENOMEM;
	self->at = perf_node;
	self->last = perf_ticks();
	for (; self->nthreads < threads && !ret; self->nthreads += !ret)
		ret = nu_thread_spawn(run, self, &self->threads[self->nthreads]);
	return ret;
}

uint64_t mover_do_stop(struct mover *self)
{
	self->stop = true;
	while (self->nthreads)
		nu_thread_join(self->threads[--self->nthreads]);
	return self->count;
}

void mover_do_reset(struct mover *self)
{
	self->gap = self->blackout = 0;
	self->last = perf_ticks();
}

uint64_t mover_do_gap(struct mover *self)
{
	return self->gap;
}

/* Of the move that has been; its first step may be still to come. */
uint64_t mover_do_blackout(struct mover *self)
{
	while (self->nthreads && !self->blackout)
		nu_yield();
	return self->blackout;
}

struct load mover_do_load(struct mover *self)
{
	size_t used = 0;
	void *low = NULL;

	(void)!nu_testing_heap(&low, &used);
	return (struct load){(uint64_t)low, used};
}

struct move_samples {
	uint64_t *blackout, *longest, *total, *raw;
	struct nu_testing_source source; /* on node 1, of as many bytes as the heap has to carry */
	struct load load;
};

/* Move @i; what its threads saw of it and what the caller waited. */
static int one_way(struct mover_ref p, unsigned to, struct move_samples *s, size_t i)
{
	uint64_t start;
	int ret = mover_reset(p);

	if (ret)
		return ret;
	start = nu_testing_mono_ns();
	ret = nu_migrate(p.ref, to);
	s->total[i] = nu_testing_mono_ns() - start;
	if (!ret)
		ret = mover_blackout(p, &s->blackout[i]);
	return ret ? ret : mover_gap(p, &s->longest[i]);
}

/* There and back; between the two, a raw read of the same bytes from where they are. */
static int round_trip(struct mover_ref p, struct move_samples *s, size_t i)
{
	uint64_t start;
	int ret = one_way(p, 1, s, 2 * i);

	if (ret)
		return ret;
	start = nu_testing_mono_ns();
	ret = nu_testing_source_read(&s->source, (void *)s->load.low);
	s->raw[2 * i] = s->raw[2 * i + 1] = nu_testing_mono_ns() - start;
	return ret ? ret : one_way(p, 0, s, 2 * i + 1);
}

static void report(const struct perf_options *o, const struct perf_case *c, struct move_samples *s,
		   size_t warm)
{
	struct perf_row row = {.unit = "us",
			       .count = c->count,
			       .size_bytes = c->size_bytes,
			       .threads = c->threads,
			       .limit_name = "raw read",
			       .limit_samples = s->raw + warm,
			       .limit_scale = 1e-3,
			       .reader = nu_testing_reader(1)};

	if (c->threads) {
		row.test = "migrate blackout";
		row.samples = s->blackout + warm;
		row.scale = perf_tick_ns() * 1e-3;
		perf_report(o, &row);
		row.test = "migrate longest stop";
		row.samples = s->longest + warm;
		perf_report(o, &row);
	}
	row.scale = 1e-3;
	row.test = c->threads ? "migrate total" : "pull";
	row.samples = s->total + warm;
	perf_report(o, &row);
}

static int move_case(const struct perf_options *o, const struct perf_case *c)
{
	size_t trips = (c->count + c->warmup + 1) / 2 + 1, warm = c->warmup & ~(size_t)1;
	struct move_samples s = {.blackout = perf_samples(2 * trips),
				 .longest = perf_samples(2 * trips),
				 .total = perf_samples(2 * trips),
				 .raw = perf_samples(2 * trips)};
	struct nu_options here = {.node = NU_NODE(0)};
	uint64_t count;
	int ret;
	NU_SCOPED(mover, p);

	ret = s.blackout && s.longest && s.total && s.raw ? 0 : -ENOMEM;
	if (!ret)
		ret = mover_create(&here, c->size_bytes, c->threads, &p);
	if (!ret)
		ret = mover_load(p, &s.load);
	if (!ret)
		ret = nu_testing_source_open(1, s.load.len_bytes, &s.source);
	for (size_t i = 0; i < trips && !ret; i++)
		ret = round_trip(p, &s, i);
	if (!ret)
		ret = mover_stop(p, &count);
	if (!ret)
		report(o, c, &s, warm);
	nu_testing_source_close(&s.source);
	free(s.blackout);
	free(s.longest);
	free(s.total);
	free(s.raw);
	return ret;
}

int perf_pull(const struct perf_options *o)
{
	struct perf_case base = {.size_bytes = 65536, .count = 200};
	struct perf_options without = *o;
	int ret = perf_need_two("pull");

	without.threads_min = without.threads_max = 0;
	return ret ? ret : perf_each(&without, base, move_case);
}

int perf_migrate(const struct perf_options *o)
{
	struct perf_case base = {.size_bytes = 65536, .count = 200, .threads = 1};
	int ret = perf_need_two("migrate");

	if (!ret && o->threads_max > THREADS_MAX) {
		fprintf(stderr, "nu_perf: -T takes at most %u threads\n", THREADS_MAX);
		ret = -EINVAL;
	}
	return ret ? ret : perf_each(o, base, move_case);
}
