/* SPDX-License-Identifier: MIT */
/* Threads: their life, the switch, stealing, hand-offs. */
#include "sched_test.h"

#include <fenv.h>

static atomic_int ran;

static void count_one(void *arg)
{
	atomic_fetch_add(&ran, 1);
}

static void spawn_join_many(void)
{
	for (int i = 0; i < 100000; i++) {
		struct nu_thread *t;

		spawn(count_one, NULL, &t);
		cr_assert_eq(nu_thread_join(t), 0);
	}
	cr_assert_eq(ran, 100000);
	cr_assert_eq(user_proclet.nthreads, 1);
}

Test(threads, spawn_join_one_core)
{
	run(1, spawn_join_many);
}

Test(threads, spawn_join_two_cores)
{
	run(2, spawn_join_many);
}

static void many_alive(void)
{
	enum { N = 5000 };
	struct nu_thread **t = calloc(N, sizeof(*t));

	for (int round = 0; round < 4; round++) {
		atomic_store(&ran, 0);
		for (int i = 0; i < N; i++)
			spawn(count_one, NULL, &t[i]);
		for (int i = 0; i < N; i++)
			cr_assert_eq(nu_thread_join(t[i]), 0);
		cr_assert_eq(ran, N);
	}
	free(t);
}

Test(threads, thousands_alive)
{
	run(4, many_alive);
}

static void detached(void)
{
	struct nu_thread *t;

	for (int i = 0; i < 20000; i++) {
		spawn(count_one, NULL, NULL);
		spawn(count_one, NULL, &t);
		if (i % 2)
			nu_yield(); /* ended or not: both ways */
		cr_assert_eq(nu_thread_detach(t), 0);
	}
	await_at_least(&ran, 40000);
	while (peek(&user_proclet.nthreads) > 1)
		nu_yield();
}

Test(threads, detach)
{
	run(2, detached);
}

static struct nu_sem gate;
static struct nu_thread *gated;

static void wait_gate(void *arg)
{
	nu_sem_wait(&gate);
}

static void join_gated(void *arg)
{
	*(int *)arg = nu_thread_join(gated);
}

static bool has_joiner(struct nu_thread *t)
{
	bool has;

	nu_lock_acquire(&t->join_lock);
	has = t->joiner;
	nu_lock_release(&t->join_lock);
	return has;
}

static void join_errors(void)
{
	struct nu_thread *self = nu_thread_self(), *joiner;
	int status = 1;

	cr_assert_eq(nu_thread_join(self), -EDEADLK);
	spawn(wait_gate, NULL, &gated);
	spawn(join_gated, &status, &joiner);
	while (!has_joiner(gated))
		nu_yield();
	cr_assert_eq(nu_thread_join(gated), -EINVAL, "joined by another");
	cr_assert_eq(nu_thread_detach(gated), -EINVAL);
	nu_sem_post(&gate);
	cr_assert_eq(nu_thread_join(joiner), 0);
	cr_assert_eq(status, 0);
	spawn(wait_gate, NULL, &gated);
	cr_assert_eq(nu_thread_detach(gated), 0);
	cr_assert_eq(nu_thread_join(gated), -EINVAL, "detached");
	cr_assert_eq(nu_thread_detach(gated), -EINVAL);
	nu_sem_post(&gate);
}

Test(threads, join_errors)
{
	run(2, join_errors);
}

/* ---- threads that a poller's handler runs in between ---- */

static struct nu_sem later;
static atomic_int begun, ended, others, posts_done;
static int order[3], norder;

static void note(void *arg)
{
	order[norder++] = (int)(intptr_t)arg;
}

static void goes_on_later(void *arg)
{
	atomic_fetch_add(&begun, 1);
	nu_yield();
	nu_sem_wait(&later);
	nu_sleep_us(100);
	atomic_fetch_add(&ended, 1);
}

static void other(void *arg)
{
	atomic_fetch_add(&others, 1);
}

static void spawns_other(void *arg)
{
	spawn(other, NULL, NULL);
	nu_yield();
	atomic_fetch_add(&ended, 1);
}

static void run_now(nu_thread_fn fn, void *arg)
{
	struct nu_thread *t = nu_thread_alloc(&user_proclet);

	cr_assert(t && nu_thread_prepare(t, fn, arg, 0));
	t->detached = 1;
	nu_lock_acquire(&user_proclet.lock);
	nu_thread_link(t);
	nu_thread_pick(t);
	nu_lock_release(&user_proclet.lock);
	nu_thread_run_now(t);
}

/* Scheduler context. */
static void runs_some(void *arg)
{
	int was;

	cr_assert(nu_may_run_now());
	run_now(note, (void *)1);
	cr_assert_eq(norder, 1, "it has run when this returns");
	note((void *)2);
	run_now(note, (void *)3);
	was = atomic_load(&begun);
	for (int i = 0; i < 100; i++)
		run_now(goes_on_later, NULL);
	cr_assert_eq(atomic_load(&begun), was + 100, "and as far as it got");
	was = atomic_load(&others);
	run_now(spawns_other, NULL);
	if (nu_sched.ncores == 1)
		cr_assert_eq(atomic_load(&others), was, "nobody else has");
	atomic_fetch_add(&posts_done, 1);
}

static void run_in_between(void)
{
	cr_assert(!nu_may_run_now(), "a thread waits for its turn");
	cr_assert_eq(nu_core_post(0, runs_some, NULL), 0);
	await_at_least(&posts_done, 1);
	cr_assert_eq(order[0] * 100 + order[1] * 10 + order[2], 123);
	for (int i = 0; i < 100; i++)
		nu_sem_post(&later);
	await_at_least(&ended, 101);
	await_at_least(&others, 1);
	while (peek(&user_proclet.nthreads) > 1)
		nu_yield();
}

Test(threads, run_in_between_one_core)
{
	run(1, run_in_between);
}

Test(threads, run_in_between_four_cores)
{
	run(4, run_in_between);
}

enum { FAIR_THREADS = 8, FAIR_ROUNDS = 3000 };
static int turns[FAIR_THREADS];

static void take_turns(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < FAIR_ROUNDS; i++) {
		turns[me]++;
		nu_yield();
		for (int j = 0; j < FAIR_THREADS; j++)
			cr_assert(abs(turns[j] - turns[me]) <= 1, "%d had %d turns, %d had %d", j, turns[j],
				  me, turns[me]);
	}
}

static void fairness(void)
{
	struct nu_thread *t[FAIR_THREADS];

	for (intptr_t i = 0; i < FAIR_THREADS; i++)
		spawn(take_turns, (void *)i, &t[i]);
	for (int i = 0; i < FAIR_THREADS; i++)
		nu_thread_join(t[i]);
}

Test(threads, yield_is_fair)
{
	run(1, fairness);
}

static void keeps_modes(void *arg)
{
	int mode = arg ? FE_UPWARD : FE_DOWNWARD;
	volatile double one = 1, three = 3, want;

	fesetround(mode);
	want = one / three;
	for (int i = 0; i < 20000; i++) {
		errno = mode + i;
		nu_yield();
		cr_assert_eq(errno, mode + i, "errno is the thread's");
		cr_assert_eq(fegetround(), mode);
		cr_assert_eq(one / three, want);
	}
}

static void modes(void)
{
	struct nu_thread *t[4];
	volatile double one = 1, three = 3;

	for (intptr_t i = 0; i < 4; i++)
		spawn(keeps_modes, (void *)(i % 2), &t[i]);
	for (int i = 0; i < 4; i++)
		nu_thread_join(t[i]);
	cr_assert_eq(fegetround(), FE_TONEAREST);
	cr_assert_eq(one / three, 1.0 / 3.0);
}

Test(threads, float_modes_and_errno_follow)
{
	run(2, modes);
}

static atomic_int on_core[2];

static void note_core(void *arg)
{
	uint64_t end = nu_mono_ns() + 3000000;

	while (nu_mono_ns() < end)
		;
	atomic_fetch_add(&on_core[nu_core_self()], 1);
}

static void stealing(void)
{
	struct nu_thread *t[100];

	for (int i = 0; i < 100; i++)
		spawn(note_core, NULL, &t[i]);
	for (int i = 0; i < 100; i++)
		nu_thread_join(t[i]);
	cr_assert_gt(on_core[0], 10);
	cr_assert_gt(on_core[1], 10);
	cr_assert_gt(nu_stat_sum(NU_STAT_STEALS), 0);
}

Test(threads, idle_cores_steal)
{
	run(2, stealing);
}

/* ---- hand-offs, as local calls use them ---- */

struct call {
	struct nu_thread *caller;
	int depth, sum;
};

static int call_down(int depth);

static void callee(void *arg)
{
	struct call *c = arg;
	struct nu_thread *to = c->caller;
	struct nu_proclet *p = to->proclet;

	c->sum = call_down(c->depth - 1) + c->depth;
	if (c->depth % 3 == 0)
		nu_yield(); /* it may go on elsewhere */
	nu_lock_acquire(&p->lock);
	cr_assert(nu_wake_claim(to));
	nu_thread_claim(to);
	nu_lock_release(&p->lock);
	nu_thread_exit_to(to);
}

static void *callee_handed(struct nu_thread *t, void *caller)
{
	nu_thread_begun(caller);
	callee(t->arg);
	return NULL; /* not reached */
}

static int call_down(int depth)
{
	struct nu_thread *self = nu_thread_self(), *t;
	struct nu_proclet *p = self->proclet;
	struct call *c;

	if (!depth)
		return 0;
	t = nu_thread_alloc(p);
	c = nu_thread_prepare(t, callee, NULL, sizeof(*c));
	*c = (struct call){self, depth, -1};
	t->arg = c;
	t->detached = 1;
	struct call *volatile result = c;
	nu_wake_arm(self);
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_thread_claim(t);
	nu_lock_release(&p->lock);
	int sum = -1;
	/* The callee's stack is gone when it returns: the sum of 1..depth is known without it. */
	(void)result;
	nu_thread_handoff(t, callee_handed, self);
	sum = depth * (depth + 1) / 2;
	return sum;
}

static void call_many(void *arg)
{
	for (int i = 0; i < 3000; i++)
		cr_assert_eq(call_down(i % 12), (i % 12) * (i % 12 + 1) / 2);
	atomic_fetch_add(&ran, 1);
}

static void handoffs(void)
{
	struct nu_thread *t[8];

	for (int i = 0; i < 8; i++)
		spawn(call_many, NULL, &t[i]);
	for (int i = 0; i < 8; i++)
		nu_thread_join(t[i]);
	cr_assert_eq(ran, 8);
	while (peek(&user_proclet.nthreads) > 1)
		nu_yield();
}

Test(threads, handoff_chains)
{
	run(2, handoffs);
}

Test(threads, handoff_chains_one_core)
{
	run(1, handoffs);
}

/* ---- start and stop ---- */

static void foreign_ready(void)
{
	nu_sleep_us(1000);
}

static void from_foreign(void *arg)
{
	sem_post(arg);
}

Test(threads, ready_from_a_foreign_kernel_thread)
{
	sem_t got;

	sem_init(&got, 0, 0);
	start_in(&user_proclet, 2, foreign_ready);
	wait_main();
	for (int i = 0; i < 3000; i++) {
		user_thread(from_foreign, &got, true);
		while (sem_wait(&got))
			;
	}
	nu_sched_stop();
	cr_assert_null(nu_thread_self());
	cr_assert_not(nu_on_core());
}

static USER void forever(void *arg)
{
	atomic_fetch_add(&ran, 1);
	for (volatile unsigned long i = 0;; i++)
		;
}

static void leave_forever(void)
{
	spawn(forever, NULL, NULL);
	spawn(forever, NULL, NULL);
	await_at_least(&ran, 2);
}

Test(threads, stop_ends_a_loop, .timeout = 30)
{
	run(2, leave_forever);
}

Test(threads, start_refuses_nonsense)
{
	layout_make();
	nu_node.cores = 0;
	cr_assert_eq(nu_sched_start(&node_proclet, NULL, NULL), -EINVAL);
	nu_node.cores = NU_MAX_CORES + 1;
	cr_assert_eq(nu_sched_start(&node_proclet, NULL, NULL), -EINVAL);
}

static void nothing(void)
{
}

Test(threads, start_again)
{
	for (int i = 0; i < 20; i++)
		run(2, nothing);
}
