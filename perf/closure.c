/* SPDX-License-Identifier: MIT */
/* closure: code shipped to a proclet with what it captured, beside a call of a method of the proclet's class. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

struct place {
	uint64_t visits;
};

NU_CLASS(place);
NU_METHOD(place, visit, val(uint64_t), bytes(data), val(uint64_t, number));

int place_init(struct place *self)
{
	return 0;
}

uint64_t place_do_visit(struct place *self, struct nu_bytes data, uint64_t number)
{
	self->visits++;
	return number + data.len_bytes;
}

NU_CLOSURE(place, shipped, val(uint64_t), bytes(captured), val(uint64_t, number), ref(place, home));

uint64_t place_do_shipped(struct place *self, struct nu_bytes captured, uint64_t number,
			  struct place_ref home)
{
	self->visits++;
	return number + captured.len_bytes;
}

static int one_pair(struct place_ref p, struct place_ref home, struct nu_bytes data, unsigned times,
		    uint64_t *closure_p, uint64_t *method_p)
{
	uint64_t start = nu_testing_mono_ns(), middle, result;
	int ret = 0;

	for (unsigned i = 0; i < times && !ret; i++)
		ret = place_shipped(p, data, i, home, &result);
	middle = nu_testing_mono_ns();
	for (unsigned i = 0; i < times && !ret; i++)
		ret = place_visit(p, data, i, &result);
	*method_p = nu_testing_mono_ns() - middle;
	*closure_p = middle - start;
	return ret;
}

static int closure_to(const struct perf_options *o, const struct perf_case *c, unsigned node)
{
	struct nu_options where = {.node = NU_NODE(node)}, here = {.node = NU_NODE(nu_node_self())};
	bool remote = node != nu_node_self();
	unsigned times = remote ? 1 : 100;
	uint64_t *closures = perf_samples(c->count), *methods = perf_samples(c->count), a, b;
	char *data = calloc(1, c->size_bytes + 1), transport[64];
	int ret;
	NU_SCOPED(place, p);
	NU_SCOPED(place, home);

	ret = closures && methods && data ? place_create(&where, &p) : -ENOMEM;
	if (!ret)
		ret = place_create(&here, &home);
	for (size_t i = 0; i < c->count + c->warmup && !ret; i++) {
		ret = one_pair(p, home, nu_bytes(data, c->size_bytes), times, &a, &b);
		if (i >= c->warmup) {
			closures[i - c->warmup] = a;
			methods[i - c->warmup] = b;
		}
	}
	if (!ret) {
		struct perf_row row = {.test = "closure",
				       .size_bytes = c->size_bytes,
				       .unit = "us",
				       .samples = closures,
				       .count = c->count,
				       .scale = 1e-3 / times,
				       .limit_name = "method call",
				       .limit_samples = methods,
				       .transport =
					       remote ? perf_transport(node, transport, sizeof(transport))
						      : "local"};
		perf_report(o, &row);
	}
	free(closures);
	free(methods);
	free(data);
	return ret;
}

static int closure_case(const struct perf_options *o, const struct perf_case *c)
{
	int ret = closure_to(o, c, 0);

	return ret || nu_node_count() < 2 ? ret : closure_to(o, c, 1);
}

int perf_closure(const struct perf_options *o)
{
	struct perf_case base = {.size_bytes = 8, .count = 5000};

	return perf_each(o, base, closure_case);
}
