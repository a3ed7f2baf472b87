/* SPDX-License-Identifier: MIT */
/*
 * A node whose core computes without end: steps of moves and of creations interrupt it, calls of its proclets do not, and
 * the computation goes on through all of it. What comes between the monitor's ticks is told by counters, not by time.
 */
#include "check.h"

#define MOVES	     40
#define CREATIONS    200
#define CALLS	     2000
#define TRIES	     20
#define READY_MAX_US 20000000u

/* On node 1, where it stays. */
struct grinder {
	volatile uint64_t steps;
	volatile bool stop;
	struct nu_thread *thread;
};
NU_CLASS(grinder);
NU_METHOD(grinder, steps, val(uint64_t));
NU_METHOD(grinder, finish, none);

/* Goes to and fro. */
struct parcel {
	uint64_t value;
};
NU_CLASS(parcel, val(uint64_t, value));
NU_METHOD(parcel, value, val(uint64_t));

static void grind(void *arg)
{
	struct grinder *g = arg;

	while (!g->stop)
		g->steps++;
}

int grinder_init(struct grinder *g)
{
	return nu_thread_spawn(grind, g, &g->thread);
}

uint64_t grinder_do_steps(struct grinder *g)
{
	return g->steps;
}

void grinder_do_finish(struct grinder *g)
{
	g->stop = true;
	nu_thread_join(g->thread);
}

int parcel_init(struct parcel *p, uint64_t value)
{
	p->value = value;
	return 0;
}

uint64_t parcel_do_value(struct parcel *p)
{
	return p->value;
}

static uint64_t nudges(void)
{
	struct nu_stats s = {0};

	CHECK_IS(nu_stats(0, &s), 0);
	return s.nudges_sent;
}

/* It has computed for so long that the others are told so. */
static void wait_until_busy(struct grinder_ref g)
{
	uint64_t end = nu_now_us() + READY_MAX_US, before = nudges(), n = 0;

	while (nudges() == before && nu_now_us() < end) {
		NU_SCOPED(parcel, p);

		CHECK_IS(parcel_create(&(struct nu_options){.node = NU_NODE(1)}, 1, &p), 0);
		CHECK_IS(grinder_steps(g, &n), 0);
	}
	CHECK(nudges() > before);
}

static void moves_interrupt_it(struct grinder_ref g)
{
	uint64_t before = nudges(), first = 0, last = 0, value = 0;
	NU_SCOPED(parcel, p);

	CHECK_IS(grinder_steps(g, &first), 0);
	CHECK_IS(parcel_create(&(struct nu_options){.node = NU_NODE(0)}, 77, &p), 0);
	for (unsigned i = 0; i < MOVES; i++)
		CHECK_IS(nu_migrate(p.ref, 1 - i % 2), 0);
	CHECK_IS(parcel_value(p, &value), 0);
	CHECK_IS(value, 77);
	CHECK_IS(grinder_steps(g, &last), 0);
	CHECK(last > first);
	/* One each would do; on a crowded machine the other side may be gone for a time slice. */
	CHECK(nudges() >= before + MOVES / 4);
}

static void creations_interrupt_it(void)
{
	uint64_t before = nudges(), value = 0;

	for (unsigned i = 0; i < CREATIONS; i++) {
		NU_SCOPED(parcel, p);

		CHECK_IS(parcel_create(&(struct nu_options){.node = NU_NODE(1)}, i, &p), 0);
		CHECK_IS(parcel_value(p, &value), 0);
		CHECK_IS(value, i);
	}
	CHECK(nudges() > before);
}

/* Reports to the controller and the like may fall into one round, not into all. */
static void calls_do_not(struct grinder_ref g)
{
	bool quiet = false;
	uint64_t n = 0;

	for (unsigned tries = 0; tries < TRIES && !quiet; tries++) {
		uint64_t before = nudges(); /* itself of this node: nothing is sent */

		for (unsigned i = 0; i < CALLS / TRIES; i++)
			CHECK_IS(grinder_steps(g, &n), 0);
		quiet = nudges() == before;
	}
	CHECK(quiet);
}

static void a_computing_node(void)
{
	NU_SCOPED(grinder, g);

	CHECK_IS(grinder_create(&(struct nu_options){.node = NU_NODE(1), .pinned = true}, &g), 0);
	wait_until_busy(g);
	moves_interrupt_it(g);
	creations_interrupt_it();
	calls_do_not(g);
	CHECK_IS(grinder_finish(g), 0);
}

static int busy_main(int argc, char **argv)
{
	CHECK_RUN(a_computing_node);
	return check_done();
}
CHECK_PROGRAM(busy_main)
