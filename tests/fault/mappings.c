/* SPDX-License-Identifier: MIT */
/*
 * A node whose mappings are used up by what creates: proclets, then threads. What is there goes on to serve calls, all of it
 * can be given back, and then there is room again. The limit is lowered first, so that it is reached soon.
 */
#include "../cluster/check.h"
#include "core/nu_testing.h"

#include <limits.h>

#define LEAVE	   4600u
#define PROCLETS   6000u
#define THREADS	   6000u
#define CALLERS	   200u
#define ROUNDS	   20u
#define CALLERS_US 100u

struct thing {
	unsigned x;
};
NU_CLASS(thing, val(unsigned, x));
NU_METHOD(thing, get, val(unsigned));
NU_METHOD(thing, leave, val(int), val(unsigned, maps));

int thing_init(struct thing *t, unsigned x)
{
	t->x = x;
	return 0;
}

unsigned thing_do_get(struct thing *t)
{
	return t->x;
}

int thing_do_leave(struct thing *t, unsigned maps)
{
	return nu_testing_maps_leave(maps);
}

/* ---- threads that a proclet starts until it gets no more, and calls beside them ---- */

struct crowd {
	struct nu_sem go, went;
	struct nu_waitgroup all;
	struct thing_ref thing;
	_Atomic unsigned failed, called;
	unsigned n;
	bool call;
};
NU_CLASS(crowd, ref(thing, t));
NU_METHOD(crowd, gather, val(unsigned));
NU_METHOD(crowd, call, val(unsigned), val(unsigned, n));
NU_METHOD(crowd, leave, val(unsigned));
NU_METHOD(crowd, linger, none, val(uint64_t, us));

int crowd_init(struct crowd *c, struct thing_ref t)
{
	c->thing = t;
	return thing_ref_get(t);
}

static void member(void *arg)
{
	struct crowd *c = arg;

	for (;;) {
		unsigned x;

		nu_sem_wait(&c->go);
		if (!c->call)
			break;
		c->failed += thing_get(c->thing, &x) != 0 ||
			     crowd_linger((struct crowd_ref){nu_self()}, CALLERS_US) != 0;
		nu_sem_post(&c->went);
	}
	nu_waitgroup_done(&c->all);
}

/* Starts as many as there may be. Return: how many more. */
unsigned crowd_do_gather(struct crowd *c)
{
	unsigned before = c->n;

	while (c->n < THREADS && !nu_thread_spawn(member, c, NULL)) {
		nu_waitgroup_add(&c->all, 1);
		c->n++;
	}
	return c->n - before;
}

/* @n of them call at once, the other proclet and this one. Return: how many calls failed. */
unsigned crowd_do_call(struct crowd *c, unsigned n)
{
	c->call = true;
	for (unsigned i = 0; i < n; i++)
		nu_sem_post(&c->go);
	for (unsigned i = 0; i < n; i++)
		nu_sem_wait(&c->went);
	return c->failed;
}

unsigned crowd_do_leave(struct crowd *c)
{
	c->call = false;
	for (unsigned i = 0; i < c->n; i++)
		nu_sem_post(&c->go);
	nu_waitgroup_wait(&c->all);
	return c->n;
}

void crowd_do_linger(struct crowd *c, uint64_t us)
{
	nu_sleep_us(us);
}

/* ---- */

static struct nu_options there;

static struct thing_ref limited(void)
{
	struct thing_ref t = {{0}};
	int ret = -1;

	CHECK_IS(thing_create(&there, 7, &t), 0);
	CHECK_IS(thing_leave(t, LEAVE, &ret), 0);
	CHECK_IS(ret, 0);
	return t;
}

static void unlimited(struct thing_ref *t)
{
	int ret = -1;

	CHECK_IS(thing_leave(*t, UINT_MAX, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(thing_ref_put(t), 0);
	check_left(0);
}

static unsigned fill(struct thing_ref *t)
{
	unsigned n = 0;
	int err = 0;

	while (n < PROCLETS && !(err = thing_create(&there, n, &t[n])))
		n++;
	CHECK_IS(err, -ENOMEM);
	return n;
}

static void full_of_proclets(void)
{
	static struct thing_ref all[PROCLETS];
	struct thing_ref agent = limited();
	unsigned n = fill(all), again, failed = 0, x;

	CHECK_MSG(n > 50, "%u proclets", n);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < n; i++)
			failed += thing_get(all[i], &x) != 0 || x != i;
	CHECK_MSG(!failed, "%u calls of %u proclets failed", failed, n);
	for (unsigned i = 0; i < n; i++)
		failed += thing_ref_put(&all[i]) != 0;
	CHECK_MSG(!failed, "%u references of %u were not given back", failed, n);
	check_left(1);
	again = fill(all); /* fewer: some stacks stay mapped */
	CHECK_MSG(again > n / 2, "%u proclets, and then %u", n, again);
	for (unsigned i = 0; i < again; i++)
		failed += thing_ref_put(&all[i]) != 0;
	CHECK_MSG(!failed, "%u references of %u were not given back", failed, again);
	unlimited(&agent);
}

static void full_of_threads(void)
{
	struct thing_ref agent = limited(), other = {{0}};
	struct crowd_ref c = {{0}};
	unsigned n = 0, more, failed = 0, x = 0;

	CHECK_IS(thing_create(&there, 8, &other), 0);
	CHECK_IS(crowd_create(&there, other, &c), 0);
	CHECK_IS(crowd_gather(c, &n), 0);
	CHECK_MSG(n > CALLERS && n < THREADS, "%u threads", n);
	/* Calls take stacks that are left to them, and those that they give back are not had by threads. */
	for (unsigned i = 0; i < ROUNDS; i++) {
		CHECK_IS(crowd_call(c, CALLERS, &failed), 0);
		CHECK_IS(failed, 0);
		CHECK_IS(crowd_gather(c, &more), 0);
		n += more;
	}
	CHECK_IS(thing_get(other, &x), 0);
	CHECK_IS(x, 8);
	CHECK_IS(thing_ref_put(&other), 0);
	CHECK_IS(crowd_leave(c, &x), 0);
	CHECK_IS(x, n);
	CHECK_IS(crowd_ref_put(&c), 0);
	unlimited(&agent);
}

static int mappings_main(int argc, char **argv)
{
	there.node = NU_NODE(0);
	there.capacity_bytes = 1 << 20;
	CHECK_RUN(full_of_proclets);
	CHECK_RUN(full_of_threads);
	if (nu_node_count() > 1) {
		there.node = NU_NODE(nu_node_count() - 1);
		CHECK_RUN(full_of_proclets);
		CHECK_RUN(full_of_threads);
	}
	return check_done();
}

CHECK_PROGRAM(mappings_main)
