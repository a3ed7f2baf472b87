/* SPDX-License-Identifier: MIT */
/* switch, call_local, call_lat. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

struct target {
	uint64_t calls;
};

NU_CLASS(target);
NU_METHOD(target, empty, none);
NU_METHOD(target, echo, bytes, bytes(data));

int target_init(struct target *self)
{
	return 0;
}

void target_do_empty(struct target *self)
{
	self->calls++;
}

void target_do_echo(struct target *self, struct nu_bytes data, struct nu_out *out)
{
	nu_out_bytes(out, data.data, data.len_bytes);
}

#define PER_SAMPLE 1000 /* operations under one clock reading, where one takes nanoseconds */

/* ---- switch ---- */

struct yielder {
	bool stop;
};

static void yield_body(void *arg)
{
	struct yielder *y = arg;

	while (!__atomic_load_n(&y->stop, __ATOMIC_RELAXED))
		nu_yield();
}

int perf_switch(const struct perf_options *o)
{
	size_t n = o->count ? o->count : 2000, warm = o->warmup ? o->warmup : n / 10;
	struct perf_row row = {.test = "switch",
			       .unit = "ns",
			       .samples = perf_samples(n),
			       .count = n,
			       .scale = 1.0 / (2 * PER_SAMPLE)};
	struct yielder *y = calloc(1, sizeof(*y));
	struct nu_thread *other;
	int ret = nu_thread_spawn(yield_body, y, &other);

	if (ret)
		return ret;
	for (size_t i = 0; i < n + warm; i++) {
		uint64_t start = nu_testing_mono_ns();

		for (unsigned k = 0; k < PER_SAMPLE; k++)
			nu_yield();
		if (i >= warm)
			row.samples[i - warm] = nu_testing_mono_ns() - start;
	}
	__atomic_store_n(&y->stop, true, __ATOMIC_RELAXED);
	nu_thread_join(other);
	perf_report(o, &row);
	return 0;
}

/* ---- call_local ---- */

typedef void (*plain_fn)(struct target *);

static int empty_calls(const struct perf_options *o)
{
	size_t n = o->count ? o->count : 2000, warm = o->warmup ? o->warmup : n / 10;
	struct perf_row row = {.test = "call_local",
			       .unit = "ns",
			       .samples = perf_samples(n),
			       .count = n,
			       .scale = 1.0 / PER_SAMPLE,
			       .limit_name = "plain call"};
	struct nu_options here = {.node = NU_NODE(nu_node_self())};
	uint64_t *plain = perf_samples(n);
	volatile plain_fn f = target_do_empty;
	struct target object = {0};
	int ret;
	NU_SCOPED(target, p);

	ret = target_create(&here, &p);
	for (size_t i = 0; !ret && i < n + warm; i++) {
		uint64_t start = nu_testing_mono_ns(), middle;

		for (unsigned k = 0; k < PER_SAMPLE && !ret; k++)
			ret = target_empty(p);
		middle = nu_testing_mono_ns();
		for (unsigned k = 0; k < PER_SAMPLE; k++)
			f(&object);
		if (i >= warm) {
			row.samples[i - warm] = middle - start;
			plain[i - warm] = nu_testing_mono_ns() - middle;
		}
	}
	if (ret)
		return ret;
	row.limit_samples = plain;
	perf_report(o, &row);
	return 0;
}

int perf_call_local(const struct perf_options *o)
{
	return o->ncomputes ? perf_compute_calls(o, "call_local", nu_node_self()) : empty_calls(o);
}

/* ---- call_lat ---- */

static int call_lat(const struct perf_options *o, struct target_ref p, size_t size, const char *transport)
{
	size_t n = o->count ? o->count : 20000, warm = o->warmup ? o->warmup : n / 10;
	struct perf_row row = {.test = "call_lat",
			       .unit = "us",
			       .samples = perf_samples(n),
			       .count = n,
			       .scale = 1e-3,
			       .size_bytes = size,
			       .transport = transport};
	char *data = calloc(1, size);
	int ret = 0;

	for (size_t i = 0; i < n + warm && !ret; i++) {
		struct nu_bytes answer;
		uint64_t start = nu_testing_mono_ns();

		ret = target_echo(p, nu_bytes(data, size), &answer);
		if (ret)
			break;
		if (i >= warm)
			row.samples[i - warm] = nu_testing_mono_ns() - start;
		free((void *)answer.data);
	}
	free(data);
	if (!ret) {
		row.limit_p50 = perf_raw_am(transport, false, size, n) * row.scale;
		row.limit_name = row.limit_p50 > 0 ? "UCX's own messages" : NULL;
		perf_report(o, &row);
	}
	free(row.samples);
	return ret;
}

int perf_call_lat(const struct perf_options *o)
{
	struct nu_options there = {.node = NU_NODE(1)};
	size_t min = o->size_min ? o->size_min : 8, max = o->size_max ? o->size_max : 8;
	char transport[64] = "?";
	int ret = perf_need_two("call_lat");
	NU_SCOPED(target, p);

	if (ret)
		return ret;
	if (o->ncomputes)
		return perf_compute_calls(o, "call_lat", 1);
	ret = target_create(&there, &p);
	if (!ret)
		ret = target_empty(p);
	if (!ret && nu_testing_transport(1, transport, sizeof(transport)))
		snprintf(transport, sizeof(transport), "unknown");
	for (size_t s = min; s <= max && !ret; s *= 2)
		ret = call_lat(o, p, s, transport);
	return ret;
}
