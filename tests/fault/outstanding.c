/* SPDX-License-Identifier: MIT */
/*
 * A node is killed with many calls outstanding to it, from several proclets on two nodes, straight and by way of a node
 * that the callee has left: each returns -EHOSTDOWN, soon, and what they took is given back. Four nodes; the last dies.
 * And references that the dead node's proclets held are dropped, also of proclets that are moving all the while.
 */
#include "../cluster/check.h"
#include "core/nu_testing.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define DOOMED	   3u
#define CALLERS	   4u	 /* proclets on nodes 0 and 1 */
#define CALLS	   2500u /* of each */
#define BOUND_US   20000000u
#define PROMPT_US  8000000u /* 10,000 threads on a loaded machine; a time-out would take longer */
#define ROAMERS	   24u
#define ROUNDS_MIN 3u
#define IDLE_US	   400000u

NU_STRUCT(outcome, val(uint64_t, down), val(uint64_t, other), val(int, example));
NU_STRUCT(census, val(uint64_t, present), val(uint64_t, notes), val(uint64_t, held), val(uint64_t, stacks),
	  val(uint64_t, lent), val(uint64_t, pool_bytes), val(uint64_t, cpu_us));

struct target {
	struct nu_sem gate;
	_Atomic uint64_t waiting;
	struct nu_ref kept[ROAMERS];
	unsigned nkept;
};
NU_CLASS(target);
NU_METHOD(target, wait, none);
NU_METHOD(target, waiting, val(uint64_t));
NU_METHOD(target, keep, val(int), ref(target, other));
NU_METHOD(target, die, none);

int target_init(struct target *t)
{
	return 0;
}

void target_do_wait(struct target *t)
{
	t->waiting++;
	nu_sem_wait(&t->gate);
}

uint64_t target_do_waiting(struct target *t)
{
	return t->waiting;
}

int target_do_keep(struct target *t, struct target_ref other)
{
	t->kept[t->nkept++ % ROAMERS] = other.ref;
	return target_ref_get(other);
}

void target_do_die(struct target *t)
{
	kill(getpid(), SIGKILL);
	nu_sem_wait(&t->gate);
}

struct caller {
	struct target_ref to[2];
	_Atomic uint64_t returned, down, other;
	_Atomic int example;
};
NU_CLASS(caller);
NU_METHOD(caller, begin, val(int), ref(target, a), ref(target, b), val(unsigned, calls));
NU_METHOD(caller, returned, val(uint64_t));
NU_METHOD(caller, end, obj(outcome));
NU_METHOD(caller, census, obj(census));

int caller_init(struct caller *c)
{
	return 0;
}

static void call_and_note(struct caller *c, struct target_ref to)
{
	int ret = target_wait(to);

	if (ret == -EHOSTDOWN)
		c->down++;
	else
		c->other++;
	if (ret != -EHOSTDOWN)
		c->example = ret;
	c->returned++;
}

static void call_first(void *arg)
{
	struct caller *c = arg;

	call_and_note(c, c->to[0]);
}

static void call_second(void *arg)
{
	struct caller *c = arg;

	call_and_note(c, c->to[1]);
}

int caller_do_begin(struct caller *c, struct target_ref a, struct target_ref b, unsigned calls)
{
	int ret = target_ref_get(a);

	if (!ret)
		ret = target_ref_get(b);
	c->to[0] = a;
	c->to[1] = b;
	for (unsigned i = 0; i < calls && !ret; i++)
		ret = nu_thread_spawn(i % 2 ? call_second : call_first, c, NULL);
	return ret;
}

uint64_t caller_do_returned(struct caller *c)
{
	return c->returned;
}

struct outcome caller_do_end(struct caller *c)
{
	target_ref_put(&c->to[0]);
	target_ref_put(&c->to[1]);
	return (struct outcome){c->down, c->other, c->example};
}

struct census caller_do_census(struct caller *c)
{
	struct nu_testing_census s;
	struct rusage u;

	nu_testing_census(&s);
	getrusage(RUSAGE_SELF, &u);
	return (struct census){s.present,
			       s.notes,
			       s.held,
			       s.stacks,
			       s.lent,
			       s.pool_bytes,
			       (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
				       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec)};
}

/* ---- */

static struct target_ref make(unsigned node)
{
	struct target_ref t = {{0}};

	CHECK_IS(target_create(&(struct nu_options){.node = NU_NODE(node)}, &t), 0);
	return t;
}

/* What was freed goes in the background: waits, with the bound. */
static void check_as_before(struct caller_ref agent, const struct census *b, unsigned node)
{
	uint64_t end = nu_now_us() + BOUND_US;
	struct census c = {0};
	bool ok = false;

	while (!ok && nu_now_us() < end) {
		ok = !caller_census(agent, &c) && c.present == b->present && !c.notes && !c.held &&
		     c.stacks <= b->stacks + 1 && c.lent <= b->lent && c.pool_bytes <= b->pool_bytes;
		if (!ok)
			nu_sleep_us(2000);
	}
	CHECK_MSG(ok,
		  "node %u: %lu proclets (had %lu), %lu notes, %lu held, %lu stacks (%lu), %lu lent (%lu), "
		  "%lu bytes",
		  node, c.present, b->present, c.notes, c.held, c.stacks, b->stacks, c.lent, b->lent,
		  c.pool_bytes);
}

static uint64_t sum_returned(struct caller_ref *callers)
{
	uint64_t sum = 0, n = 0;

	for (unsigned i = 0; i < CALLERS; i++)
		sum += caller_returned(callers[i], &n) ? 0 : n;
	return sum;
}

static uint64_t waiting_in(struct target_ref t)
{
	uint64_t n = 0;

	return target_waiting(t, &n) ? 0 : n;
}

static _Atomic bool stop;
static struct target_ref roamers[ROAMERS];
static _Atomic unsigned rounds;
static struct nu_waitgroup roaming;

/* All that @holder keeps goes with it, and only then: our own references are given back before. */
static void keep_roaming(struct target_ref holder)
{
	int err = -1;

	for (unsigned i = 0; i < ROAMERS; i++) {
		roamers[i] = make(i % DOOMED);
		CHECK_IS(target_keep(holder, roamers[i], &err), 0);
		CHECK_IS(err, 0);
	}
	for (unsigned i = 0; i < ROAMERS; i++) {
		struct target_ref ours = roamers[i];

		CHECK_IS(target_ref_put(&ours), 0);
	}
	nu_waitgroup_add(&roaming, 1);
}

static void roam_until_gone(void *arg)
{
	for (unsigned left = ROAMERS; left && !stop;) {
		left = 0;
		for (unsigned i = 0; i < ROAMERS; i++) {
			int at = nu_locate(roamers[i].ref);

			left += at >= 0;
			if (at >= 0)
				(void)!nu_migrate(roamers[i].ref, ((unsigned)at + 1) % DOOMED);
		}
		rounds++;
	}
	nu_waitgroup_done(&roaming);
}

/* Nobody spins for what can never be sent: with nothing to do, little processor time goes by. */
static void check_idle(struct caller_ref *agents)
{
	struct census a[DOOMED], b[DOOMED];

	for (unsigned n = 0; n < DOOMED; n++)
		CHECK_IS(caller_census(agents[n], &a[n]), 0);
	nu_sleep_us(IDLE_US);
	for (unsigned n = 0; n < DOOMED; n++) {
		CHECK_IS(caller_census(agents[n], &b[n]), 0);
		CHECK_MSG(b[n].cpu_us - a[n].cpu_us < IDLE_US / 4, "node %u, idle, used %lu us in %u", n,
			  b[n].cpu_us - a[n].cpu_us, IDLE_US);
	}
}

static void many_calls(void)
{
	struct caller_ref callers[CALLERS], agents[DOOMED];
	struct target_ref straight, went;
	struct census before[DOOMED];
	uint64_t begin;
	int err = -1;

	for (unsigned n = 0; n < DOOMED; n++) {
		agents[n] = (struct caller_ref){{0}};
		CHECK_IS(caller_create(&(struct nu_options){.node = NU_NODE(n), .pinned = true}, &agents[n]),
			 0);
	}
	for (unsigned n = 0; n < DOOMED; n++)
		CHECK_IS(caller_census(agents[n], &before[n]), 0);
	straight = make(DOOMED);
	went = make(2);
	for (unsigned i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller_ref){{0}};
		CHECK_IS(caller_create(&(struct nu_options){.node = NU_NODE(i % 2)}, &callers[i]), 0);
	}
	/* The first half arrives where it is, and goes with it; the second is sent on, or straight there. */
	for (unsigned i = 0; i < CALLERS; i++) {
		CHECK_IS(caller_begin(callers[i], straight, went, CALLS, &err), 0);
		CHECK_IS(err, 0);
		if (i == CALLERS / 2)
			CHECK_IS(check_move(went.ref, DOOMED), 0);
	}
	begin = nu_now_us();
	while (waiting_in(straight) + waiting_in(went) < CALLERS * CALLS && nu_now_us() - begin < BOUND_US)
		nu_sleep_us(2000);
	CHECK_IS(waiting_in(straight) + waiting_in(went), CALLERS * CALLS);
	begin = nu_now_us();
	CHECK_IS(target_die(straight), -EHOSTDOWN);
	while (sum_returned(callers) < CALLERS * CALLS && nu_now_us() - begin < BOUND_US)
		nu_sleep_us(2000);
	printf("     %u calls returned %.0f ms after the death\n", CALLERS * CALLS,
	       (double)(nu_now_us() - begin) / 1e3);
	CHECK(nu_now_us() - begin < PROMPT_US);
	for (unsigned i = 0; i < CALLERS; i++) {
		struct outcome o = {0};

		CHECK_IS(caller_end(callers[i], &o), 0);
		CHECK_MSG(o.down == CALLS && !o.other, "caller %u: %lu down, %lu not: %d", i, o.down, o.other,
			  o.example);
		CHECK_IS(caller_ref_put(&callers[i]), 0);
	}
	CHECK_IS(target_ref_put(&straight), 0);
	CHECK_IS(target_ref_put(&went), 0);
	for (unsigned n = 0; n < DOOMED; n++)
		check_as_before(agents[n], &before[n], n);
	check_idle(agents);
	for (unsigned n = 0; n < DOOMED; n++)
		CHECK_IS(caller_ref_put(&agents[n]), 0);
}

static void references(void)
{
	struct caller_ref agents[DOOMED];
	struct census before[DOOMED];
	struct target_ref holder;
	uint64_t begin;

	for (unsigned n = 0; n < DOOMED; n++) {
		agents[n] = (struct caller_ref){{0}};
		CHECK_IS(caller_create(&(struct nu_options){.node = NU_NODE(n), .pinned = true}, &agents[n]),
			 0);
	}
	for (unsigned n = 0; n < DOOMED; n++)
		CHECK_IS(caller_census(agents[n], &before[n]), 0);
	holder = make(DOOMED);
	keep_roaming(holder);
	CHECK_IS(nu_thread_spawn(roam_until_gone, NULL, NULL), 0);
	begin = nu_now_us();
	while (rounds < ROUNDS_MIN && nu_now_us() - begin < BOUND_US)
		nu_sleep_us(1000);
	CHECK_IS(target_die(holder), -EHOSTDOWN);
	CHECK_IS(target_ref_put(&holder), 0);
	for (unsigned n = 0; n < DOOMED; n++)
		check_as_before(agents[n], &before[n], n);
	stop = true;
	nu_waitgroup_wait(&roaming);
	for (unsigned n = 0; n < DOOMED; n++)
		CHECK_IS(caller_ref_put(&agents[n]), 0);
}

/* A node dies but once: a run for each. */
static int outstanding_main(int argc, char **argv)
{
	if (nu_node_count() != DOOMED + 1 || argc != 2)
		return 2;
	if (!strcmp(argv[1], "calls"))
		CHECK_RUN(many_calls);
	if (!strcmp(argv[1], "references"))
		CHECK_RUN(references);
	return check_done();
}
CHECK_PROGRAM(outstanding_main)
