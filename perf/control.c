/* SPDX-License-Identifier: MIT */
/* locate and create: what the controller on node 0 answers. */
#include "perf.h"
#include "ticks.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PER_SAMPLE  20
#define WINDOW_NS   100000000
#define SAMPLES_MAX 200000
#define PAGE_BYTES  65536 /* what a small heap begins with */

struct thing {
	uint64_t calls;
};

NU_CLASS(thing);
NU_METHOD(thing, empty, none);

int thing_init(struct thing *self)
{
	return 0;
}

void thing_do_empty(struct thing *self)
{
	self->calls++;
}

/* ---- locate ---- */

struct seeker {
	struct nu_ref what;
};

NU_STRUCT(lookup, val(uint64_t, locate_ns), val(uint64_t, call_ns), val(int, error));

NU_CLASS(seeker);
NU_METHOD(seeker, look, obj(lookup), ref(thing, what), val(uint64_t, times));

int seeker_init(struct seeker *self)
{
	return 0;
}

struct lookup seeker_do_look(struct seeker *self, struct thing_ref what, uint64_t times)
{
	uint64_t start = nu_testing_mono_ns(), middle;
	struct lookup l = {0};

	for (uint64_t i = 0; i < times && !l.error; i++) {
		int node = nu_locate(what.ref);

		l.error = node < 0 ? node : 0;
	}
	middle = nu_testing_mono_ns();
	for (uint64_t i = 0; i < times && !l.error; i++)
		l.error = thing_empty(what);
	l.call_ns = nu_testing_mono_ns() - middle;
	l.locate_ns = middle - start;
	return l;
}

struct seek {
	struct seeker_ref seeker;
	struct thing_ref what;
	uint64_t *locates, *calls;
	size_t at, max;
};

/* Also by several threads at once: each counts for so many. */
static int seek_op(void *arg)
{
	struct seek *s = arg;
	struct lookup l;
	int ret = seeker_look(s->seeker, s->what, PER_SAMPLE, &l);
	size_t i;

	if (ret || l.error)
		return ret ? ret : l.error;
	i = __atomic_fetch_add(&s->at, 1, __ATOMIC_RELAXED);
	if (i < s->max) {
		s->locates[i] = l.locate_ns;
		s->calls[i] = l.call_ns;
	}
	return 0;
}

static int seek(struct seek *s, const struct perf_case *c)
{
	struct perf_load l = {.op = seek_op,
			      .arg = s,
			      .outstanding = c->outstanding,
			      .window_ns = WINDOW_NS / 10};
	double rate;
	int ret = 0;

	for (size_t i = 0; i < c->warmup / PER_SAMPLE + 1 && !ret; i++)
		ret = seek_op(s);
	s->at = 0;
	while (s->at < s->max && !ret)
		ret = perf_window(&l, &rate);
	return ret;
}

static int locate_case(const struct perf_options *o, const struct perf_case *c)
{
	struct nu_options here = {.node = NU_NODE(0)}, there = {.node = NU_NODE(nu_node_count() > 1)};
	size_t n = c->count / PER_SAMPLE + 1;
	struct seek s = {.locates = perf_samples(n), .calls = perf_samples(n), .max = n};
	char transport[64];
	int ret;
	NU_SCOPED(thing, what);
	NU_SCOPED(seeker, seeker);

	ret = s.locates && s.calls ? thing_create(&here, &what) : -ENOMEM;
	if (!ret)
		ret = seeker_create(&there, &seeker);
	s.seeker = seeker;
	s.what = what;
	if (!ret)
		ret = seek(&s, c);
	if (!ret) {
		struct perf_row row = {.test = "locate",
				       .outstanding = c->outstanding,
				       .unit = "us",
				       .samples = s.locates,
				       .count = n,
				       .scale = 1e-3 / PER_SAMPLE,
				       .limit_name = "empty call to node 0",
				       .limit_samples = s.calls,
				       .transport = nu_node_count() > 1
							    ? perf_transport(1, transport, sizeof(transport))
							    : "local"};
		row.rate = c->outstanding > 1 ? 1e9 * c->outstanding * PER_SAMPLE / perf_median(s.locates, n)
					      : 0;
		perf_report(o, &row);
	}
	free(s.locates);
	free(s.calls);
	return ret;
}

int perf_locate(const struct perf_options *o)
{
	struct perf_case base = {.outstanding = 1, .count = 20000};

	return perf_each(o, base, locate_case);
}

/* ---- create ---- */

struct maker {
	unsigned node;
};

static int create_op(void *arg)
{
	const struct maker *m = arg;
	struct nu_options where = {.node = NU_NODE(m->node), .capacity_bytes = 1 << 20};
	NU_SCOPED(thing, p);

	return thing_create(&where, &p);
}

/* Memory of a heap's size from the system, touched once, and given back. */
static int map_op(void *arg)
{
	char *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	*(volatile char *)p = 1;
	munmap(p, PAGE_BYTES);
	return 0;
}

static int create_on(const struct perf_options *o, const struct perf_case *c, unsigned node)
{
	struct maker m = {node};
	struct perf_load ours = {.op = create_op,
				 .arg = &m,
				 .outstanding = c->outstanding,
				 .window_ns = WINDOW_NS},
			 limit = {.op = map_op, .outstanding = 1, .window_ns = WINDOW_NS / 10};
	double *rates = calloc(c->count, sizeof(*rates)), *limits = calloc(c->count, sizeof(*limits)),
	       *ratios = calloc(c->count, sizeof(*ratios));
	char transport[64];
	int ret = rates && limits && ratios ? 0 : -ENOMEM;

	ours.samples = perf_samples(SAMPLES_MAX);
	ours.max_samples = ours.samples ? SAMPLES_MAX : 0;
	for (size_t i = 0; i < c->count + 1 && !ret; i++) {
		double a, b;

		if (i == 1)
			ours.nsamples = 0; /* the first window warms up */
		ret = perf_window(&ours, &a);
		if (!ret)
			ret = perf_window(&limit, &b);
		if (!ret && i) {
			rates[i - 1] = a;
			limits[i - 1] = b;
			ratios[i - 1] = a / b;
		}
	}
	if (!ret) {
		struct perf_row row = {.test = "create",
				       .outstanding = c->outstanding,
				       .unit = "us",
				       .samples = ours.samples,
				       .count = ours.nsamples,
				       .scale = perf_tick_ns() * 1e-3,
				       .rate = perf_median_double(rates, c->count),
				       .limit_name = "mmap, touch, munmap",
				       .limit_rate = perf_median_double(limits, c->count),
				       .ratio = perf_median_double(ratios, c->count),
				       .transport = node ? perf_transport(node, transport, sizeof(transport))
							 : "local"};
		row.limit_p50 = row.limit_rate > 0 ? 1e6 / row.limit_rate : 0;
		perf_report(o, &row);
	}
	free(ours.samples);
	free(rates);
	free(limits);
	free(ratios);
	return ret;
}

static int create_case(const struct perf_options *o, const struct perf_case *c)
{
	int ret = create_on(o, c, 0);

	return ret || nu_node_count() < 2 ? ret : create_on(o, c, 1);
}

int perf_create(const struct perf_options *o)
{
	struct perf_case base = {.outstanding = 1, .count = 5};

	return perf_each(o, base, create_case);
}
