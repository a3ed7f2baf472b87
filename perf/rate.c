/* SPDX-License-Identifier: MIT */
/*
 * call_rate: how many calls a second a proclet on node 1 answers with so many outstanding, and how long each takes. With
 * computation (-d) the limit is the plain function on node 1's cores, called there by as many threads as it has cores.
 */
#include "perf.h"
#include "ticks.h"

#include <stdlib.h>
#include <string.h>

#define WINDOW_NS   20000000
#define WINDOWS	    20
#define SAMPLES_MAX 400000

struct answerer {
	uint64_t sum;
};

NU_CLASS(answerer);
NU_METHOD(answerer, work, none, val(uint64_t, iterations));
NU_METHOD(answerer, echo, bytes, bytes(data));
NU_METHOD(answerer, plain, val(double), val(uint64_t, iterations), val(uint64_t, window_ns),
	  val(uint64_t, threads));

int answerer_init(struct answerer *self)
{
	return 0;
}

void __attribute__((noinline)) answerer_do_work(struct answerer *self, uint64_t iterations)
{
	self->sum += perf_compute(iterations);
}

void answerer_do_echo(struct answerer *self, struct nu_bytes data, struct nu_out *out)
{
	nu_out_bytes(out, data.data, data.len_bytes);
}

struct plain {
	struct answerer object;
	void (*volatile fn)(struct answerer *self, uint64_t iterations);
	uint64_t iterations;
};

static int plain_op(void *arg)
{
	struct plain *p = arg;

	p->fn(&p->object, p->iterations);
	return 0;
}

/* The same function, called here without proclets: calls a second, negative if it failed. */
double answerer_do_plain(struct answerer *self, uint64_t iterations, uint64_t window_ns, uint64_t threads)
{
	struct plain p = {.fn = answerer_do_work, .iterations = iterations};
	struct perf_load l = {.op = plain_op,
			      .arg = &p,
			      .outstanding = (unsigned)threads,
			      .window_ns = window_ns};
	double rate;

	return perf_window(&l, &rate) ? -1 : rate;
}

struct caller {
	struct answerer_ref p;
	uint64_t iterations;
	const char *data;
	size_t size_bytes;
};

static int work_op(void *arg)
{
	const struct caller *c = arg;

	return answerer_work(c->p, c->iterations);
}

static int echo_op(void *arg)
{
	const struct caller *c = arg;
	struct nu_bytes answer;
	int ret = answerer_echo(c->p, nu_bytes(c->data, c->size_bytes), &answer);

	if (!ret)
		free((void *)answer.data);
	return ret;
}

static unsigned cores_of(unsigned node)
{
	struct nu_node_info infos[16];
	int n = nu_nodes(infos, 16);

	return n > (int)node ? infos[node].cores : 1;
}

#define RAW_MESSAGES 1000000

struct rates {
	double ours[WINDOWS * 8], limit[WINDOWS * 8], ratio[WINDOWS * 8];
	size_t n;
};

/* A window of ours, a window of the limit, and so on. */
static int windows(struct perf_load *l, const struct caller *who, unsigned cores, const struct perf_case *c,
		   struct rates *r)
{
	size_t n = c->count < WINDOWS * 8 ? c->count : WINDOWS * 8, warm = c->warmup < 4 ? c->warmup : 4;
	int ret = 0;

	for (size_t i = 0; i < n + warm && !ret; i++) {
		double rate, limit = 0;

		if (i == warm)
			l->nsamples = 0;
		ret = perf_window(l, &rate);
		if (!ret && who->iterations)
			ret = answerer_plain(who->p, who->iterations, l->window_ns, cores, &limit);
		if (!ret && limit < 0)
			ret = -ENOMEM;
		if (ret || i < warm)
			continue;
		r->ours[r->n] = rate;
		r->limit[r->n] = limit;
		r->ratio[r->n++] = limit > 0 ? rate / limit : 0;
	}
	return ret;
}

static int rate_case(const struct perf_options *o, const struct perf_case *c)
{
	struct nu_options there = {.node = NU_NODE(1)};
	struct caller who = {.iterations = perf_iterations(c->compute_us), .size_bytes = c->size_bytes};
	struct perf_load l = {.op = c->size_bytes ? echo_op : work_op,
			      .arg = &who,
			      .outstanding = c->outstanding,
			      .window_ns = WINDOW_NS,
			      .samples = perf_samples(SAMPLES_MAX),
			      .max_samples = SAMPLES_MAX};
	struct rates *r = calloc(1, sizeof(*r));
	char *data = calloc(1, c->size_bytes + 1), transport[64];
	int ret;
	NU_SCOPED(answerer, p);

	ret = r && data && l.samples ? answerer_create(&there, &p) : -ENOMEM;
	who.p = p;
	who.data = data;
	if (!ret)
		ret = windows(&l, &who, cores_of(1), c, r);
	if (!ret) {
		struct perf_row row = {.test = "call_rate",
				       .size_bytes = c->size_bytes,
				       .outstanding = c->outstanding,
				       .compute_us = c->compute_us,
				       .unit = "us",
				       .samples = l.samples,
				       .count = l.nsamples,
				       .scale = perf_tick_ns() * 1e-3,
				       .rate = perf_median_double(r->ours, r->n),
				       .limit_name = who.iterations ? "plain calls on node 1" : NULL,
				       .limit_rate = perf_median_double(r->limit, r->n),
				       .ratio = perf_median_double(r->ratio, r->n),
				       .transport = perf_transport(1, transport, sizeof(transport))};
		double ns = 0;

		if (!who.iterations)
			ns = perf_raw_am(row.transport, true, c->size_bytes ? c->size_bytes : 8,
					 RAW_MESSAGES * (c->count < WINDOWS ? c->count : WINDOWS) / WINDOWS);
		if (ns > 0) {
			row.limit_name = "UCX's own messages, one way";
			row.limit_rate = 1e9 / ns;
			row.ratio = row.rate / row.limit_rate;
		}
		perf_report(o, &row);
	}
	free(l.samples);
	free(data);
	free(r);
	return ret;
}

int perf_call_rate(const struct perf_options *o)
{
	struct perf_case base = {.outstanding = 64, .count = WINDOWS, .warmup = 2};
	int ret = perf_need_two("call_rate");

	return ret ? ret : perf_each(o, base, rate_case);
}
