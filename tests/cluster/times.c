/* SPDX-License-Identifier: MIT */
/*
 * Every time of the interface at 0, 1, 2^63 and UINT64_MAX: what is for ever neither ends at once nor never lets go of what has
 * come; near, far, and while the proclet that waits is moved.
 */
#include "check.h"

static const uint64_t for_ever[] = {UINT64_MAX,	       UINT64_MAX - 1,
				    UINT64_MAX / 1000, UINT64_MAX / 1000 + 1,
				    (uint64_t)1 << 63, ((uint64_t)1 << 63) / 1000,
				    (uint64_t)1 << 54};
#define FOR_EVERS (sizeof(for_ever) / sizeof(for_ever[0]))
#define STEP_US	  500u

struct clock {
	struct nu_mutex mutex;
	struct nu_cond cond;
	struct nu_sem sem, go, back;
	_Atomic unsigned begun, sleeping, woken;
	bool said;
};
NU_CLASS(clock);
NU_METHOD(clock, seven, val(int));
NU_METHOD(clock, late, val(int), val(uint64_t, us));
NU_METHOD(clock, call, val(int), ref(clock, c), val(uint64_t, us), val(uint64_t, late_us));
NU_METHOD(clock, wait, val(int), val(unsigned, what), val(uint64_t, us));
NU_METHOD(clock, begun, val(unsigned));
NU_METHOD(clock, release, none, val(unsigned, what));
NU_METHOD(clock, short_ones, val(unsigned));
NU_METHOD(clock, sleep, none, val(uint64_t, us), val(bool, until));
NU_METHOD(clock, asleep, val(unsigned));
NU_METHOD(clock, left, val(uint64_t), val(uint64_t, us));

int clock_init(struct clock *c)
{
	return 0;
}

int clock_do_seven(struct clock *c)
{
	return 7;
}

int clock_do_late(struct clock *c, uint64_t us)
{
	nu_sleep_us(us);
	return 7;
}

/* With a deadline of @us, another proclet's answer after @late_us: its value or the call's error. */
int clock_do_call(struct clock *c, struct clock_ref other, uint64_t us, uint64_t late_us)
{
	int v = 0, ret;

	nu_deadline_set_us(us);
	c->begun++;
	ret = late_us ? clock_late(other, late_us, &v) : clock_seven(other, &v);
	nu_deadline_set_us(0);
	return ret ? ret : v;
}

enum { MUTEX, COND, SEM, WAITS };

/* Waits with a time-out of @us for what release() gives. */
int clock_do_wait(struct clock *c, unsigned what, uint64_t us)
{
	int ret = 0;

	if (what == MUTEX) {
		c->begun++;
		ret = nu_mutex_timedlock(&c->mutex, us);
		if (!ret)
			nu_mutex_unlock(&c->mutex);
	} else if (what == COND) {
		nu_mutex_lock(&c->mutex);
		c->begun++;
		while (!c->said && !ret)
			ret = nu_cond_timedwait(&c->cond, &c->mutex, us);
		nu_mutex_unlock(&c->mutex);
	} else {
		c->begun++;
		ret = nu_sem_timedwait(&c->sem, us);
	}
	return ret;
}

unsigned clock_do_begun(struct clock *c)
{
	return c->begun;
}

/* MUTEX: called twice: who holds it first lets it go at the second call. */
void clock_do_release(struct clock *c, unsigned what)
{
	if (what == MUTEX) {
		nu_mutex_lock(&c->mutex);
		nu_sem_post(&c->back);
		nu_sem_wait(&c->go);
		nu_mutex_unlock(&c->mutex);
	} else if (what == COND) {
		nu_mutex_lock(&c->mutex);
		c->said = true;
		nu_cond_signal(&c->cond);
		nu_mutex_unlock(&c->mutex);
	} else {
		nu_sem_post(&c->sem);
	}
}

NU_METHOD(clock, held, none);
NU_METHOD(clock, let_go, none);

void clock_do_held(struct clock *c)
{
	nu_sem_wait(&c->back);
}

void clock_do_let_go(struct clock *c)
{
	nu_sem_post(&c->go);
}

/* Time-outs of 0 and 1, and sleeps of 0 and 1, end: how many did not as they should. */
unsigned clock_do_short_ones(struct clock *c)
{
	struct nu_mutex m = {0};
	struct nu_sem s = {0};
	unsigned wrong = 0;

	for (uint64_t us = 0; us <= 1; us++) {
		uint64_t before = nu_now_us();

		nu_mutex_lock(&c->mutex);
		wrong += nu_cond_timedwait(&c->cond, &c->mutex, us) != -ETIMEDOUT;
		nu_mutex_unlock(&c->mutex);
		wrong += nu_sem_timedwait(&s, us) != -ETIMEDOUT;
		wrong += nu_mutex_timedlock(&m, us) != 0; /* it is free */
		wrong += nu_mutex_timedlock(&m, us) != -ETIMEDOUT;
		nu_mutex_unlock(&m);
		nu_sleep_us(us);
		nu_sleep_until_us(us); /* long past */
		wrong += nu_now_us() < before + 3 * us;
	}
	return wrong;
}

struct sleeper {
	struct clock *clock;
	uint64_t us;
	bool until;
};

static void sleeper_body(void *arg)
{
	struct sleeper *s = arg;

	s->clock->sleeping++;
	if (s->until)
		nu_sleep_until_us(s->us);
	else
		nu_sleep_us(s->us);
	s->clock->woken++;
}

/* Starts a thread that sleeps for ever: it ends with its proclet. */
void clock_do_sleep(struct clock *c, uint64_t us, bool until)
{
	struct sleeper *s = malloc(sizeof(*s));

	*s = (struct sleeper){c, us, until};
	if (nu_thread_spawn(sleeper_body, s, NULL))
		c->woken++;
}

/* Those that sleep; more than there are if one has woken. */
unsigned clock_do_asleep(struct clock *c)
{
	return c->woken ? 1000000 : c->sleeping;
}

uint64_t clock_do_left(struct clock *c, uint64_t us)
{
	nu_deadline_set_us(us);
	return nu_deadline_set_us(0);
}

/* ---- where ---- */

static unsigned far_node(void)
{
	return nu_node_count() - 1;
}

static struct clock_ref make(unsigned node)
{
	struct nu_options o = {.node = NU_NODE(node)};
	struct clock_ref c = {{0}};

	CHECK_IS(clock_create(&o, &c), 0);
	return c;
}

static void await_begun(struct clock_ref c, unsigned n)
{
	unsigned now = 0;

	while (!clock_begun(c, &now) && now < n)
		nu_sleep_us(STEP_US);
}

/* ---- tests ---- */

static void deadlines_are_kept(void)
{
	NU_SCOPED(clock, here);
	NU_SCOPED(clock, there);
	int v = 0;

	here = make(0);
	there = make(far_node());
	for (unsigned i = 0; i < FOR_EVERS; i++) {
		CHECK_IS(clock_call(here, there, for_ever[i], 0, &v), 0);
		CHECK_IS(v, 7);
		CHECK_IS(clock_call(there, here, for_ever[i], STEP_US, &v), 0);
		CHECK_IS(v, 7);
		CHECK_IS(clock_call(here, here, for_ever[i], STEP_US, &v), 0);
		CHECK_IS(v, 7);
	}
	CHECK_IS(clock_call(here, there, 0, STEP_US, &v), 0); /* none */
	CHECK_IS(v, 7);
	CHECK_IS(clock_call(here, there, 1, 100 * STEP_US, &v), 0);
	CHECK_IS(v, -ETIMEDOUT);
	CHECK_IS(clock_call(here, here, 1, 100 * STEP_US, &v), 0);
	CHECK_IS(v, -ETIMEDOUT);
}

static void what_is_left(void)
{
	NU_SCOPED(clock, there);
	uint64_t left = 0;

	there = make(far_node());
	CHECK_IS(clock_left(there, 0, &left), 0);
	CHECK(left == 0);
	CHECK_IS(clock_left(there, 1, &left), 0);
	CHECK(left == 1 || left == 0);
	CHECK_IS(clock_left(there, 1000000000, &left), 0);
	CHECK(left > 900000000 && left <= 1000000000);
	for (unsigned i = 0; i < FOR_EVERS; i++) {
		CHECK_IS(clock_left(there, for_ever[i], &left), 0);
		CHECK_MSG(left > 1ull << 52, "of %#lx us %#lx are left", (unsigned long)for_ever[i],
			  (unsigned long)left);
	}
}

/* The caller is moved while it waits: its deadline goes with it. */
static void deadlines_move(void)
{
	for (unsigned i = 0; i < FOR_EVERS; i++) {
		NU_SCOPED(clock, caller);
		NU_SCOPED(clock, callee);
		NU_SCOPED_FUTURE(clock, call, f);
		int v = 0;

		caller = make(0);
		callee = make(0);
		CHECK_IS(clock_call_async(caller, callee, for_ever[i], 20 * STEP_US, &f), 0);
		await_begun(caller, 1);
		CHECK_IS(check_shuttle(caller.ref, 2), 0);
		CHECK_IS(clock_call_wait(&f, &v), 0);
		CHECK_IS(v, 7);
	}
}

static void wait_one(unsigned what, uint64_t us, unsigned node, bool moves)
{
	NU_SCOPED(clock, c);
	NU_SCOPED_FUTURE(clock, wait, f);
	NU_SCOPED_FUTURE(clock, release, holder);
	int v = 1;

	c = make(node);
	if (what == MUTEX) {
		CHECK_IS(clock_release_async(c, MUTEX, &holder), 0);
		CHECK_IS(clock_held(c), 0);
	}
	CHECK_IS(clock_wait_async(c, what, us, &f), 0);
	await_begun(c, 1);
	if (moves)
		CHECK_IS(check_shuttle(c.ref, 2), 0);
	nu_sleep_us(STEP_US); /* a wait that ends at once would have */
	if (what == MUTEX) {
		CHECK_IS(clock_let_go(c), 0);
	} else {
		CHECK_IS(clock_release(c, what), 0);
	}
	CHECK_IS(clock_wait_wait(&f, &v), 0);
	CHECK_MSG(v == 0, "wait %u of %#lx us on node %u%s: %s", what, (unsigned long)us, node,
		  moves ? ", moved" : "", nu_strerror(v));
}

static void waits_last(void)
{
	for (unsigned what = 0; what < WAITS; what++) {
		for (unsigned i = 0; i < FOR_EVERS; i++) {
			wait_one(what, for_ever[i], 0, false);
			wait_one(what, for_ever[i], far_node(), false);
			wait_one(what, for_ever[i], 0, true);
		}
	}
}

static void short_ones_end(void)
{
	NU_SCOPED(clock, here);
	NU_SCOPED(clock, there);
	unsigned wrong = 1;

	here = make(0);
	there = make(far_node());
	CHECK_IS(clock_short_ones(here, &wrong), 0);
	CHECK_IS(wrong, 0);
	CHECK_IS(clock_short_ones(there, &wrong), 0);
	CHECK_IS(wrong, 0);
}

static void sleeps_last(void)
{
	NU_SCOPED(clock, c);
	unsigned n = 0;

	c = make(0);
	for (unsigned i = 0; i < FOR_EVERS; i++) {
		CHECK_IS(clock_sleep(c, for_ever[i], false), 0);
		CHECK_IS(clock_sleep(c, for_ever[i], true), 0);
	}
	while (!clock_asleep(c, &n) && n < 2 * FOR_EVERS)
		nu_sleep_us(STEP_US);
	CHECK_IS(n, 2 * FOR_EVERS);
	CHECK_IS(check_shuttle(c.ref, 3), 0);
	nu_sleep_us(20 * STEP_US);
	CHECK_IS(clock_asleep(c, &n), 0);
	CHECK_IS(n, 2 * FOR_EVERS);
}

static void all_have_ended(void)
{
	check_left(0);
}

static int times_main(int argc, char **argv)
{
	CHECK_RUN(deadlines_are_kept);
	CHECK_RUN(what_is_left);
	CHECK_RUN(deadlines_move);
	CHECK_RUN(waits_last);
	CHECK_RUN(short_ones_end);
	CHECK_RUN(sleeps_last);
	CHECK_RUN(all_have_ended);
	return check_done();
}

CHECK_PROGRAM(times_main)
