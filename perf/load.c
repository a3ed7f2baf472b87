/* SPDX-License-Identifier: MIT */
/* Operations by many threads at once for a while: their rate, and how long each took. */
#include "perf.h"
#include "ticks.h"

#include <stdlib.h>

#define LOOK_EVERY 8 /* operations between two looks at the clock that ends the window */

struct lane {
	struct perf_load *load;
	uint64_t end_ns, ops;
	uint64_t *samples;
	size_t nsamples, max;
	int ret;
	struct nu_thread *thread;
};

static void lane_body(void *arg)
{
	struct lane *l = arg;
	unsigned k = 0;

	do {
		uint64_t start = perf_ticks();

		l->ret = l->load->op(l->load->arg);
		if (l->ret)
			return;
		l->ops++;
		if (l->nsamples < l->max)
			l->samples[l->nsamples++] = perf_ticks() - start;
	} while (++k % LOOK_EVERY || nu_testing_mono_ns() < l->end_ns);
}

/* Each lane has a part of what is left of the samples. */
static struct lane *prepare(struct perf_load *l)
{
	struct lane *lanes = calloc(l->outstanding, sizeof(*lanes));
	size_t part = (l->max_samples - l->nsamples) / l->outstanding;

	for (unsigned i = 0; lanes && i < l->outstanding; i++)
		lanes[i] =
			(struct lane){.load = l, .samples = l->samples + l->nsamples + i * part, .max = part};
	return lanes;
}

static void gather(struct perf_load *l, const struct lane *lane)
{
	for (size_t i = 0; i < lane->nsamples; i++)
		l->samples[l->nsamples++] = lane->samples[i];
}

int perf_window(struct perf_load *l, double *rate_p)
{
	struct lane *lanes = prepare(l);
	uint64_t start = nu_testing_mono_ns(), ops = 0;
	unsigned n = 0;
	int ret = lanes ? 0 : -ENOMEM;

	for (; n < l->outstanding && !ret; n++) {
		lanes[n].end_ns = start + l->window_ns;
		ret = nu_thread_spawn(lane_body, &lanes[n], &lanes[n].thread);
		if (ret)
			break;
	}
	for (unsigned i = 0; i < n; i++) {
		nu_thread_join(lanes[i].thread);
		ops += lanes[i].ops;
		ret = ret ? ret : lanes[i].ret;
	}
	*rate_p = (double)ops * 1e9 / (double)(nu_testing_mono_ns() - start);
	for (unsigned i = 0; i < n; i++)
		gather(l, &lanes[i]);
	free(lanes);
	return ret;
}
