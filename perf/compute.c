/* SPDX-License-Identifier: MIT */
/* Computation of a given length, the same in a proclet's method and in a plain function, and calls that do it. */
#include "perf.h"
#include "ticks.h"

#include <stdlib.h>

#define CALIBRATE  200000  /* iterations */
#define SAMPLE_NS  20000.0 /* under one clock reading, where calls are shorter */
#define PER_SAMPLE 1000

/* A chain of dependent operations that no compiler shortens. */
uint64_t __attribute__((noinline)) perf_compute(uint64_t iterations)
{
	uint64_t x = iterations | 1;

	for (uint64_t i = 0; i < iterations; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

uint64_t perf_iterations(double compute_us)
{
	double best = 0;

	if (compute_us <= 0)
		return 0;
	for (unsigned i = 0; i < 7; i++) {
		uint64_t start = nu_testing_mono_ns(), ns;

		perf_compute(CALIBRATE);
		ns = nu_testing_mono_ns() - start;
		if (ns && CALIBRATE / (double)ns > best)
			best = CALIBRATE / (double)ns;
	}
	return (uint64_t)(compute_us * 1e3 * best);
}

double perf_tick_ns(void)
{
	uint64_t ns = nu_testing_mono_ns(), ticks = perf_ticks();

	nu_sleep_us(20000);
	ticks = perf_ticks() - ticks;
	return (double)(nu_testing_mono_ns() - ns) / (double)ticks;
}

/* ---- calls that compute ---- */

struct computer {
	uint64_t sum;
};

NU_CLASS(computer);
NU_METHOD(computer, work, none, val(uint64_t, iterations));

int computer_init(struct computer *self)
{
	return 0;
}

void __attribute__((noinline)) computer_do_work(struct computer *self, uint64_t iterations)
{
	self->sum += perf_compute(iterations);
}

struct pairs {
	struct computer_ref p;
	void (*volatile plain)(struct computer *self, uint64_t iterations);
	struct computer object;
	uint64_t iterations;
	unsigned per_sample;
};

static int one_pair(struct pairs *s, uint64_t *call_p, uint64_t *plain_p)
{
	uint64_t start = nu_testing_mono_ns(), middle;
	int ret = 0;

	for (unsigned k = 0; k < s->per_sample && !ret; k++)
		ret = computer_work(s->p, s->iterations);
	middle = nu_testing_mono_ns();
	for (unsigned k = 0; k < s->per_sample; k++)
		s->plain(&s->object, s->iterations);
	*plain_p = nu_testing_mono_ns() - middle;
	*call_p = middle - start;
	return ret;
}

struct context {
	const char *test;
	unsigned node;
};
static const struct context *context; /* perf_each() has no room for it */

static int compute_case(const struct perf_options *o, const struct perf_case *c)
{
	bool remote = context->node != nu_node_self();
	struct nu_options where = {.node = NU_NODE(context->node)};
	struct pairs s = {.plain = computer_do_work, .iterations = perf_iterations(c->compute_us)};
	uint64_t *calls = perf_samples(c->count), *plain = perf_samples(c->count), a, b;
	char transport[64];
	int ret;
	NU_SCOPED(computer, p);

	s.per_sample = remote ? 1
		       : c->compute_us * 1e3 * PER_SAMPLE < SAMPLE_NS
			       ? PER_SAMPLE
			       : (unsigned)(SAMPLE_NS / (c->compute_us * 1e3)) + 1;
	ret = calls && plain ? computer_create(&where, &p) : -ENOMEM;
	s.p = p;
	for (size_t i = 0; i < c->count + c->warmup && !ret; i++) {
		ret = one_pair(&s, &a, &b);
		if (i >= c->warmup) {
			calls[i - c->warmup] = a;
			plain[i - c->warmup] = b;
		}
	}
	if (!ret) {
		struct perf_row row = {.test = context->test,
				       .compute_us = c->compute_us,
				       .unit = remote ? "us" : "ns",
				       .samples = calls,
				       .count = c->count,
				       .scale = (remote ? 1e-3 : 1.0) / s.per_sample,
				       .limit_name = "plain call",
				       .limit_samples = plain,
				       .transport = remote ? perf_transport(context->node, transport,
									    sizeof(transport))
							   : NULL};
		perf_report(o, &row);
	}
	free(calls);
	free(plain);
	return ret;
}

int perf_compute_calls(const struct perf_options *o, const char *test, unsigned node)
{
	struct perf_case base = {.count = 2000};
	struct context here = {test, node};

	context = &here;
	return perf_each(o, base, compute_case);
}
