/* SPDX-License-Identifier: MIT */
/* spawn, sync: threads of one proclet on one core, beside what the C library or a bare switch takes. */
#include "perf.h"

#include <pthread.h>
#include <stdlib.h>

#define PER_SAMPLE 1000

/* Each of two things PER_SAMPLE times, ours and the limit, by turns. */
struct pair {
	const char *test, *limit;
	void (*ours)(void *arg);
	void (*other)(void *arg);
	double scale, limit_scale;
};

static int measure(const struct perf_options *o, const struct pair *p, void *arg)
{
	size_t n = o->count ? o->count : 2000, warm = o->warmup ? o->warmup : n / 10;
	struct perf_row row = {.test = p->test,
			       .unit = "ns",
			       .samples = perf_samples(n),
			       .count = n,
			       .scale = p->scale,
			       .limit_name = p->limit,
			       .limit_scale = p->limit_scale};
	uint64_t *limit = perf_samples(n);

	if (!row.samples || !limit)
		return -ENOMEM;
	for (size_t i = 0; i < n + warm; i++) {
		uint64_t start = nu_testing_mono_ns(), middle;

		p->ours(arg);
		middle = nu_testing_mono_ns();
		p->other(arg);
		if (i >= warm) {
			row.samples[i - warm] = middle - start;
			limit[i - warm] = nu_testing_mono_ns() - middle;
		}
	}
	row.limit_samples = limit;
	perf_report(o, &row);
	free(row.samples);
	free(limit);
	return 0;
}

/* A second thread to yield to, and to hand a mutex to. */
struct partner {
	bool stop;
	struct nu_mutex mutex;
	struct nu_sem go, done;
	pthread_mutex_t plain;
	struct nu_thread *thread;
};

static void yield_body(void *arg)
{
	struct partner *y = arg;

	while (!__atomic_load_n(&y->stop, __ATOMIC_RELAXED))
		nu_yield();
}

/* ---- spawn ---- */

static void nothing(void *arg)
{
}

static void spawn_join(void *arg)
{
	for (unsigned k = 0; k < PER_SAMPLE; k++) {
		struct nu_thread *t;

		if (nu_thread_spawn(nothing, NULL, &t))
			abort();
		nu_thread_join(t);
	}
}

static void yields(void *arg)
{
	struct partner *y = arg;

	y->stop = false;
	if (nu_thread_spawn(yield_body, y, &y->thread))
		abort();
	for (unsigned k = 0; k < PER_SAMPLE; k++)
		nu_yield();
	__atomic_store_n(&y->stop, true, __ATOMIC_RELAXED);
	nu_thread_join(y->thread);
}

int perf_spawn(const struct perf_options *o)
{
	/* There and back is what creating and joining cannot do without. */
	static const struct pair pair = {"spawn", "switch both ways", spawn_join,
					 yields,  1.0 / PER_SAMPLE,   1.0 / PER_SAMPLE};
	struct partner *y = calloc(1, sizeof(*y));
	int ret = y ? measure(o, &pair, y) : -ENOMEM;

	free(y);
	return ret;
}

/* ---- sync ---- */

static void lock_unlock(void *arg)
{
	struct partner *y = arg;

	for (unsigned k = 0; k < PER_SAMPLE; k++) {
		nu_mutex_lock(&y->mutex);
		nu_mutex_unlock(&y->mutex);
	}
}

static void plain_lock_unlock(void *arg)
{
	struct partner *y = arg;

	for (unsigned k = 0; k < PER_SAMPLE; k++) {
		pthread_mutex_lock(&y->plain);
		pthread_mutex_unlock(&y->plain);
	}
}

/* Each yields with the mutex held, so that the other finds it so, waits, and is handed it by the unlock. */
static void contend(struct partner *y)
{
	for (unsigned k = 0; k < PER_SAMPLE / 2; k++) {
		nu_mutex_lock(&y->mutex);
		nu_yield();
		nu_mutex_unlock(&y->mutex);
	}
}

static void contend_body(void *arg)
{
	contend(arg);
}

static void hand_over(void *arg)
{
	struct partner *y = arg;

	if (nu_thread_spawn(contend_body, y, &y->thread))
		abort();
	contend(y);
	nu_thread_join(y->thread);
}

int perf_sync(const struct perf_options *o)
{
	static const struct pair free_one = {"sync mutex",	"pthread mutex",  lock_unlock,
					     plain_lock_unlock, 1.0 / PER_SAMPLE, 1.0 / PER_SAMPLE},
				 held_one = {"sync hand-over", "switch",	 hand_over,
					     yields,	       1.0 / PER_SAMPLE, 0.5 / PER_SAMPLE};
	struct partner *y = calloc(1, sizeof(*y));
	int ret;

	if (!y)
		return -ENOMEM;
	pthread_mutex_init(&y->plain, NULL);
	ret = measure(o, &free_one, y);
	if (!ret)
		ret = measure(o, &held_one, y);
	free(y);
	return ret;
}
