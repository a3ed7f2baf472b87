/* SPDX-License-Identifier: MIT */
/*
 * What moves cost besides time: processor time of the source and of the destination, messages, and what the reader did, for
 * each move. Proclets go from node 1, which has nothing else to do, to node 0. Processor time is the processes' own
 * (getrusage): what the kernel does for a soft-RoCE device in its interrupts is not in it. A node that does nothing uses
 * some, too (it looks at its memory four times a second, and both looks here are calls): how much in the same time, with
 * the same looks, is the row "source cpu idle".
 */
#include "perf.h"

#include <stdlib.h>

#define MOVES 100

NU_STRUCT(cost, val(uint64_t, cpu_us), val(uint64_t, messages), val(uint64_t, requests),
	  val(uint64_t, completions), val(uint64_t, polls), val(uint64_t, sleeps), val(uint64_t, syscalls),
	  val(uint64_t, windows));

struct meter {
	uint64_t dummy;
};
NU_CLASS(meter);
NU_METHOD(meter, look, obj(cost));
NU_METHOD(meter, settle, none);

struct parcel {
	char *memory;
};
NU_CLASS(parcel, val(uint64_t, size_bytes));

int meter_init(struct meter *self)
{
	return 0;
}

struct cost meter_do_look(struct meter *self)
{
	struct nu_testing_reads r;
	struct nu_stats s;

	nu_testing_reads(&r);
	return (struct cost){
		.cpu_us = nu_testing_cpu_us(),
		.messages = nu_stats(nu_node_self(), &s) ? 0 : s.batches_sent,
		.requests = r.requests,
		.completions = r.completions,
		.polls = r.polls,
		.sleeps = r.sleeps,
		.syscalls = r.syscalls,
		.windows = r.windows,
	};
}

void meter_do_settle(struct meter *self)
{
	nu_testing_settle();
}

int parcel_init(struct parcel *self, uint64_t size_bytes)
{
	self->memory = malloc(size_bytes);
	if (!self->memory)
		return -ENOMEM;
	for (uint64_t i = 0; i < size_bytes; i += 4096)
		self->memory[i] = (char)i;
	return 0;
}

static void line(const struct perf_options *o, const struct perf_case *c, const char *test, const char *unit,
		 uint64_t sum)
{
	struct perf_row row = {.test = test,
			       .unit = unit,
			       .size_bytes = c->size_bytes,
			       .samples = &sum,
			       .count = 1,
			       .scale = 1.0 / (double)c->count,
			       .reader = nu_testing_reader(1)};

	perf_report(o, &row);
}

/* Looks at both nodes, before (0) and after (1). */
struct sums {
	struct cost of[2][2];
	uint64_t idle_us;
};

static void report(const struct perf_options *o, const struct perf_case *c, const struct sums *s)
{
	const struct cost *from = s->of[1], *to = s->of[0];

	line(o, c, "cost source cpu", "us", from[1].cpu_us - from[0].cpu_us);
	line(o, c, "cost source cpu idle", "us", s->idle_us);
	line(o, c, "cost destination cpu", "us", to[1].cpu_us - to[0].cpu_us);
	line(o, c, "cost messages", "count",
	     from[1].messages - from[0].messages + to[1].messages - to[0].messages);
	line(o, c, "cost read requests", "count", to[1].requests - to[0].requests);
	line(o, c, "cost completions", "count", to[1].completions - to[0].completions);
	line(o, c, "cost completion polls", "count", to[1].polls - to[0].polls);
	line(o, c, "cost completion sleeps", "count", to[1].sleeps - to[0].sleeps);
	line(o, c, "cost read syscalls", "count", to[1].syscalls - to[0].syscalls);
	line(o, c, "cost windows bound", "count", from[1].windows - from[0].windows);
}

static int look_at_both(const struct meter_ref *meters, struct cost now[2])
{
	int ret = meter_look(meters[0], &now[0]);

	return ret ? ret : meter_look(meters[1], &now[1]);
}

static void add(struct cost *sum, const struct cost *c)
{
	const uint64_t *from = (const uint64_t *)c;
	uint64_t *to = (uint64_t *)sum;

	for (unsigned i = 0; i < sizeof(*c) / sizeof(*from); i++)
		to[i] += from[i];
}

static int idle_for(uint64_t ns, const struct meter_ref *meters, uint64_t *us_p)
{
	struct cost before[2], after[2];
	int ret = look_at_both(meters, before);

	if (ret)
		return ret;
	nu_sleep_us(ns / 1000);
	ret = look_at_both(meters, after);
	*us_p += after[1].cpu_us - before[1].cpu_us;
	return ret;
}

/*
 * One proclet at a time, so that any size fits; made and ended outside of what is counted, and so is what that brings about:
 * both nodes fill up their reserves before.
 */
static int move_one(const struct perf_case *c, const struct meter_ref *meters, struct sums *s)
{
	struct nu_options there = {.node = NU_NODE(1)};
	struct cost before[2], after[2];
	uint64_t start, took;
	int ret;
	NU_SCOPED(parcel, p);

	ret = parcel_create(&there, c->size_bytes, &p);
	for (unsigned n = 0; n < 2 && !ret; n++)
		ret = meter_settle(meters[n]);
	if (!ret)
		ret = look_at_both(meters, before);
	start = nu_testing_mono_ns();
	if (!ret)
		ret = nu_migrate(p.ref, 0);
	took = nu_testing_mono_ns() - start;
	if (!ret)
		ret = look_at_both(meters, after);
	if (ret)
		return ret;
	for (unsigned n = 0; n < 2; n++) {
		add(&s->of[n][0], &before[n]);
		add(&s->of[n][1], &after[n]);
	}
	return idle_for(took, meters, &s->idle_us);
}

static int cost_case(const struct perf_options *o, const struct perf_case *c)
{
	struct sums sums = {0};
	int ret = 0;
	NU_SCOPED(meter, at0);
	NU_SCOPED(meter, at1);

	ret = meter_create(&(struct nu_options){.node = NU_NODE(0), .pinned = true}, &at0);
	if (!ret)
		ret = meter_create(&(struct nu_options){.node = NU_NODE(1), .pinned = true}, &at1);
	for (size_t i = 0; i < c->count && !ret; i++)
		ret = move_one(c, (struct meter_ref[]){at0, at1}, &sums);
	if (!ret)
		report(o, c, &sums);
	return ret;
}

int perf_cost(const struct perf_options *o)
{
	struct perf_case base = {.size_bytes = 65536, .count = MOVES};
	int ret = perf_need_two("cost");

	return ret ? ret : perf_each(o, base, cost_case);
}
