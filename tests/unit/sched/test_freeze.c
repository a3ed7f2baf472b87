/* SPDX-License-Identifier: MIT */
/* Pausing a proclet in whatever its threads are doing, and letting it go on. */
#include "sched_test.h"

static atomic_bool halt;
static atomic_int ended, bad;
static atomic_ulong work;

static struct nu_mutex mutex;
static struct nu_cond cond;
static struct nu_sem sem, ring;
static struct nu_rwlock rw;
static struct nu_barrier barrier;
static struct nu_spin spin;
static volatile long in_mutex, in_spin, in_rw;

static void end_one(void)
{
	atomic_fetch_add(&ended, 1);
}

static USER void computes(void *arg)
{
	double a = 1, b = 2;
	unsigned long n = 0;

	while (!atomic_load_explicit(&halt, memory_order_relaxed)) {
		a += 1;
		b += 2;
		n++;
		if ((unsigned long)a != n + 1 || b != 2 * a)
			atomic_fetch_add(&bad, 1);
		if (!(n & 0xfff))
			atomic_fetch_add_explicit(&work, 1, memory_order_relaxed);
	}
	end_one();
}

static void yields(void *arg)
{
	while (!halt) {
		atomic_fetch_add(&work, 1);
		nu_yield();
	}
	end_one();
}

static void sleeps(void *arg)
{
	while (!halt) {
		uint64_t us = 20 + (uintptr_t)arg * 7 % 200, begin = nu_now_ns();

		nu_sleep_us(us);
		if (nu_now_ns() - begin < us * 1000)
			atomic_fetch_add(&bad, 1);
		atomic_fetch_add(&work, 1);
	}
	end_one();
}

static void sleeps_long(void *arg)
{
	while (!halt)
		nu_sleep_us(30000);
	end_one();
}

static void locks(void *arg)
{
	while (!halt) {
		if ((uintptr_t)arg % 2) {
			nu_mutex_lock(&mutex);
		} else if (nu_mutex_timedlock(&mutex, 50)) {
			continue;
		}
		long v = in_mutex;
		if (v % 8 == 0)
			nu_yield();
		in_mutex = v + 1;
		atomic_fetch_add(&work, 1);
		nu_mutex_unlock(&mutex);
	}
	end_one();
}

static void spins(void *arg)
{
	while (!halt) {
		nu_spin_lock(&spin);
		long v = in_spin;
		if (v % 8 == 0)
			nu_yield();
		in_spin = v + 1;
		nu_spin_unlock(&spin);
		nu_yield();
	}
	end_one();
}

static void reads_writes(void *arg)
{
	while (!halt) {
		bool write = (uintptr_t)arg % 4 == 0;

		if (write)
			nu_rwlock_wrlock(&rw);
		else
			nu_rwlock_rdlock(&rw);
		long v = in_rw;
		nu_yield();
		if (in_rw != v)
			atomic_fetch_add(&bad, 1);
		if (write)
			in_rw = v + 1;
		nu_rwlock_unlock(&rw);
	}
	end_one();
}

static void waits_cond(void *arg)
{
	nu_mutex_lock(&mutex);
	while (!halt) {
		if ((uintptr_t)arg % 2)
			nu_cond_wait(&cond, &mutex);
		else
			nu_cond_timedwait(&cond, &mutex, 300);
		if ((uintptr_t)arg % 5 == 0)
			nu_cond_signal(&cond);
	}
	nu_cond_broadcast(&cond);
	nu_mutex_unlock(&mutex);
	end_one();
}

static void posts_sem(void *arg)
{
	while (!halt) {
		nu_sem_post(&sem);
		if (nu_sem_timedwait(&sem, 40) == 0)
			nu_yield();
		else
			atomic_fetch_add(&work, 1);
	}
	end_one();
}

/* Tokens that go round: none may be lost. */
static void passes_token(void *arg)
{
	while (!halt) {
		nu_sem_wait(&ring);
		nu_yield();
		nu_sem_post(&ring);
		atomic_fetch_add(&work, 1);
	}
	nu_sem_post(&ring); /* one more for each that still waits */
	end_one();
}

static void meets(void *arg)
{
	/* Ends by agreement: everybody sees the same round as the last. */
	static atomic_bool last;

	for (;;) {
		if (nu_barrier_wait(&barrier))
			last = halt;
		nu_barrier_wait(&barrier);
		if (last)
			break;
	}
	end_one();
}

static void child(void *arg)
{
	nu_yield();
	atomic_fetch_add(&work, 1);
}

static void spawns(void *arg)
{
	while (!halt) {
		struct nu_thread *t;

		if (nu_thread_spawn(child, NULL, &t) == 0)
			nu_thread_join(t);
		if (nu_thread_spawn(child, NULL, NULL))
			atomic_fetch_add(&bad, 1);
		nu_sleep_us(50);
	}
	end_one();
}

struct kind {
	nu_thread_fn fn;
	int n;
};

static int start_kinds(const struct kind *kinds, int nkinds)
{
	int n = 0;

	for (int k = 0; k < nkinds; k++)
		for (intptr_t i = 0; i < kinds[k].n; i++, n++)
			user_thread(kinds[k].fn, (void *)i, true);
	return n;
}

/* Nothing of the proclet moves while it is frozen. */
static void check_still(void)
{
	struct nu_list *e;
	unsigned parked = 0, n = 0;
	unsigned long before = work;

	cr_assert(user_proclet.frozen);
	nu_list_for_each (e, &user_proclet.parked)
		parked++;
	nu_list_for_each (e, &user_proclet.threads) {
		struct nu_thread *t = nu_list_entry(e, struct nu_thread, proclet_link);

		cr_assert_eq(t->running, 0);
		cr_assert_eq(t->timer_index, 0);
		cr_assert(t->state == NU_THREAD_BLOCKED || t->state == NU_THREAD_PARKED ||
				  t->state == NU_THREAD_DONE,
			  "state %u", t->state);
		parked -= t->state == NU_THREAD_PARKED;
		n++;
	}
	cr_assert_eq(parked, 0);
	cr_assert_eq(n, user_proclet.nthreads);
	cr_assert_eq(work, before);
}

/* NU_TEST_ROUNDS for a long run. */
static int rounds_wanted(void)
{
	const char *env = getenv("NU_TEST_ROUNDS");

	return env ? atoi(env) : 500;
}

static void freeze_rounds(int rounds)
{
	for (int i = 0; i < rounds; i++) {
		cr_assert_eq(nu_freeze(&user_proclet, 20000000), 0, "round %d", i);
		check_still();
		if (i % 50 == 0) {
			unsigned long before = work;

			nu_sleep_us(3000); /* long enough for timers to pass */
			cr_assert_eq(work, before, "somebody ran");
			check_still();
		}
		nu_thaw(&user_proclet);
		if (i % 4 == 0)
			nu_sleep_us((uint64_t)(rand() % 300));
		else if (i % 4 == 1)
			nu_yield();
	}
}

static void finish(int n)
{
	unsigned long before = work;

	while (work == before)
		nu_sleep_us(100); /* it goes on */
	halt = true;
	await_at_least(&ended, n);
	while (peek(&user_proclet.nthreads))
		nu_yield();
	cr_assert_eq(bad, 0);
}

/* ---- local calls, which mostly take no lock: handoff.c ---- */

static const struct nu_method adds = {.result_bytes = 8, .result_kind = NU_RESULT_FIXED};

struct request {
	struct nu_thread *caller;
	uint64_t n;
};

static __attribute__((noreturn)) void answer_slowly(struct nu_thread *t)
{
	struct nu_thread *caller = t->reply_thread;

	memcpy(caller->wait_result, t->serve_result, 8);
	nu_thread_ready(caller);
	nu_lock_acquire(&user_proclet.lock);
	user_proclet.calls_active--;
	nu_thread_unlink(t);
	nu_lock_release(&user_proclet.lock);
	nu_thread_exit();
}

static void served_by_queue(void *arg)
{
	answer_slowly(arg);
}

static void *served(struct nu_thread *t, void *arg)
{
	struct request r = *(struct request *)arg;
	void *back;

	t->reply_thread = r.caller;
	*(uint64_t *)t->serve_result = r.n + 1;
	nu_thread_begun(r.caller);
	if (r.n % 7 == 0)
		nu_yield(); /* it may go on elsewhere, or stop */
	back = nu_thread_handback(t, r.caller, user_proclet.id, 8);
	if (!back)
		answer_slowly(t);
	return back;
}

/* A thread that may become spare, made as rpc/ does it; NULL: not now. */
static struct nu_thread *fresh(const struct request *r)
{
	struct nu_thread *t = nu_thread_alloc(&user_proclet);

	t->serve_result = nu_thread_prepare(t, served_by_queue, t, NU_SPARE_ARGS_MAX + NU_SPARE_RESULT_MAX);
	*(uint64_t *)t->serve_result = r->n + 1;
	t->serve_method = &adds;
	t->reply_thread = r->caller;
	t->detached = 1;
	nu_lock_acquire(&user_proclet.lock);
	if (user_proclet.frozen) {
		nu_lock_release(&user_proclet.lock);
		nu_thread_free(t);
		return NULL;
	}
	nu_thread_link(t);
	user_proclet.calls_active++;
	nu_thread_claim(t);
	nu_quick_open(&user_proclet);
	nu_lock_release(&user_proclet.lock);
	return t;
}

static void calls(void *arg)
{
	for (uint64_t n = 0; !halt; n++) {
		struct request r = {nu_thread_self(), n};
		uint64_t result = 0;
		struct nu_thread *t;

		r.caller->wait_result = &result;
		if (nu_spare_handoff(user_proclet.id, &adds, served, &r) == -EAGAIN) {
			while (!(t = fresh(&r)))
				nu_yield();
			nu_thread_handoff(t, served, &r);
		}
		bad += result != n + 1;
		work++;
	}
	ended++;
}

static void calls_body(void)
{
	static const struct kind kinds[] = {{calls, 4}, {yields, 2}};
	int n = start_kinds(kinds, 2);

	freeze_rounds(rounds_wanted());
	halt = true;
	await_at_least(&ended, n);
	cr_assert_eq(bad, 0);
	cr_assert_eq(nu_freeze(&user_proclet, 20000000), 0);
	cr_assert_eq(user_proclet.calls_active, 0, "spare threads are left");
	nu_thaw(&user_proclet);
	if (nu_sched.has_barrier)
		cr_assert_gt(nu_stat_sum(NU_STAT_CALLS_QUICK), 100);
}

Test(freeze, calls_one_core, .timeout = 100)
{
	run_node(1, calls_body);
}

Test(freeze, calls_two_cores, .timeout = 100)
{
	run_node(2, calls_body);
}

static const struct kind everything[] = {
	{computes, 2},	    {yields, 10},      {sleeps, 30},	{sleeps_long, 10},  {locks, 30}, {spins, 6},
	{reads_writes, 16}, {waits_cond, 100}, {posts_sem, 20}, {passes_token, 20}, {meets, 8},	 {spawns, 4},
};

#define ON_CORES(what)                                                                                       \
	Test(freeze, what##_one_core, .timeout = 100)                                                        \
	{                                                                                                    \
		run_node(1, what##_body);                                                                    \
	}                                                                                                    \
	Test(freeze, what##_two_cores, .timeout = 100)                                                       \
	{                                                                                                    \
		run_node(2, what##_body);                                                                    \
	}                                                                                                    \
	Test(freeze, what##_four_cores, .timeout = 100)                                                      \
	{                                                                                                    \
		run_node(4, what##_body);                                                                    \
	}

/* Who ends wakes the one that joins it past the queue: runq.c, nu_runq_skip(). */
static void ends(void *arg)
{
	if ((uintptr_t)arg % 3 == 0)
		nu_yield();
	atomic_fetch_add(&work, 1);
}

static void joins(void *arg)
{
	for (uintptr_t n = (uintptr_t)arg; !halt; n++) {
		struct nu_thread *t;

		if (nu_thread_spawn(ends, (void *)n, &t) || nu_thread_join(t))
			atomic_fetch_add(&bad, 1);
	}
	end_one();
}

static void joins_body(void)
{
	static const struct kind kinds[] = {{joins, 6}, {yields, 1}};
	int n = start_kinds(kinds, 2);

	freeze_rounds(rounds_wanted());
	finish(n);
}

ON_CORES(joins)

static void everything_body(void)
{
	int n;

	nu_barrier_init(&barrier, 8);
	nu_sem_init(&ring, 3);
	n = start_kinds(everything, sizeof(everything) / sizeof(everything[0]));
	freeze_rounds(rounds_wanted());
	finish(n);
	if (nu_node.cores > 1) /* else it is us who runs */
		cr_assert_gt(nu_stat_sum(NU_STAT_PAUSE_RUNNING), 0);
	cr_assert_gt(nu_stat_sum(NU_STAT_PAUSE_RUNNABLE), 0);
	cr_assert_gt(nu_stat_sum(NU_STAT_PAUSE_SLEEP), 0);
	cr_assert_gt(nu_stat_sum(NU_STAT_PAUSE_SYNC), 0);
}

ON_CORES(everything)

/* From a kernel thread that is no core. */
Test(freeze, from_a_foreign_kernel_thread, .timeout = 100)
{
	static const struct kind kinds[] = {{computes, 2}, {yields, 4}, {sleeps, 8}, {locks, 20}};
	int n;

	start_in(&node_proclet, 2, NULL);
	n = start_kinds(kinds, 4);
	for (int i = 0; i < 1000; i++) {
		cr_assert_eq(nu_freeze(&user_proclet, 20000000), 0);
		check_still();
		nu_thaw(&user_proclet);
		if (i % 3 == 0)
			nanosleep(&(struct timespec){0, 50000}, NULL);
	}
	halt = true;
	while (ended < n)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	cr_assert_eq(bad, 0);
	nu_sched_stop();
}

/* ---- a hundred waiters on each primitive, nobody else ---- */

static struct nu_waitgroup group;
static struct nu_mutex held_mutex;
static struct nu_sem empty_sem;
static struct nu_rwlock held_rw;
static struct nu_cond quiet_cond;
static atomic_int waiting;

static void wait_kind(void *arg)
{
	atomic_fetch_add(&waiting, 1);
	switch ((uintptr_t)arg % 6) {
	case 0:
		nu_mutex_lock(&held_mutex);
		nu_mutex_unlock(&held_mutex);
		break;
	case 1:
		nu_sem_wait(&empty_sem);
		break;
	case 2:
		nu_rwlock_rdlock(&held_rw);
		nu_rwlock_unlock(&held_rw);
		break;
	case 3:
		nu_rwlock_wrlock(&held_rw);
		nu_rwlock_unlock(&held_rw);
		break;
	case 4:
		nu_mutex_lock(&mutex);
		while (!halt)
			nu_cond_wait(&quiet_cond, &mutex);
		nu_mutex_unlock(&mutex);
		break;
	case 5:
		nu_waitgroup_wait(&group);
		break;
	}
	end_one();
}

static void release_all(void *arg)
{
	halt = true;
	nu_mutex_unlock(&held_mutex);
	nu_rwlock_unlock(&held_rw);
	for (int i = 0; i < 100; i++)
		nu_sem_post(&empty_sem);
	nu_waitgroup_done(&group);
	nu_mutex_lock(&mutex);
	nu_cond_broadcast(&quiet_cond);
	nu_mutex_unlock(&mutex);
	end_one();
}

static void take_all(void *arg)
{
	nu_mutex_lock(&held_mutex);
	nu_rwlock_wrlock(&held_rw);
	nu_waitgroup_add(&group, 1);
	end_one();
}

static void waiters_body(void)
{
	user_thread(take_all, NULL, true);
	await_at_least(&ended, 1);
	for (intptr_t i = 0; i < 600; i++)
		user_thread(wait_kind, (void *)i, true);
	await_at_least(&waiting, 600);
	for (int i = 0; i < 2000; i++) {
		cr_assert_eq(nu_freeze(&user_proclet, 10000000), 0);
		if (i % 100 == 0)
			check_still();
		/* Woken or not, all in the middle of it. */
		if (i == 1990)
			user_thread(release_all, NULL, true);
		nu_thaw(&user_proclet);
		nu_yield();
	}
	await_at_least(&ended, 602);
}

Test(freeze, a_hundred_waiters_on_each, .timeout = 60)
{
	run_node(2, waiters_body);
}

/* ---- deadlines over a freeze ---- */

static atomic_int timed_out;

static void timed_waiter(void *arg)
{
	timed_out += nu_sem_timedwait(&empty_sem, 3000) == -ETIMEDOUT;
	end_one();
}

static void deadlines_body(void)
{
	for (int i = 0; i < 20; i++)
		user_thread(timed_waiter, NULL, true);
	nu_sleep_us(500);
	cr_assert_eq(nu_freeze(&user_proclet, 1000000), 0);
	nu_sleep_us(20000); /* the deadline passes */
	cr_assert_eq(ended, 0);
	check_still();
	nu_thaw(&user_proclet);
	await_at_least(&ended, 20);
	cr_assert_eq(timed_out, 20);
}

Test(freeze, deadlines_pass_while_frozen)
{
	run_node(1, deadlines_body);
}

/* ---- time-out ---- */

static atomic_int stubborn_rounds;

static USER void stubborn_loop(void)
{
	while (!atomic_load_explicit(&halt, memory_order_relaxed))
		atomic_fetch_add_explicit(&stubborn_rounds, 1, memory_order_relaxed);
}

static void stubborn(void *arg)
{
	nu_preempt_disable();
	stubborn_loop();
	nu_preempt_enable();
	end_one();
}

static void timeout_body(void)
{
	static const struct kind kinds[] = {{stubborn, 1}, {yields, 4}, {sleeps, 10}, {sleeps_long, 2}};
	int n = start_kinds(kinds, 4);

	await_at_least(&stubborn_rounds, 1);
	for (int i = 0; i < 20; i++) {
		uint64_t begin = nu_mono_ns();
		unsigned long before;

		cr_assert_eq(nu_freeze(&user_proclet, 5000), -ETIMEDOUT);
		cr_assert_geq(nu_mono_ns() - begin, 5000000);
		cr_assert_not(user_proclet.frozen);
		before = work;
		while (work < before + 20)
			nu_sleep_us(100); /* the others go on */
	}
	halt = true;
	await_at_least(&ended, n);
	cr_assert_eq(nu_freeze(&user_proclet, 1000000), 0);
	nu_thaw(&user_proclet);
}

Test(freeze, timeout_is_undone, .timeout = 60)
{
	run_node(2, timeout_body);
}

/* ---- the end of a frozen proclet ---- */

static void discard_body(void)
{
	static const struct kind kinds[] = {{computes, 1}, {yields, 4}, {sleeps, 10}, {locks, 20}};

	for (int i = 0; i < 100; i++) {
		memset(&mutex, 0, sizeof(mutex)); /* as with a new heap */
		start_kinds(kinds, 4);
		nu_sleep_us(300);
		cr_assert_eq(nu_freeze(&user_proclet, 10000000), 0);
		nu_threads_discard(&user_proclet);
		cr_assert_eq(user_proclet.nthreads, 0);
		cr_assert(nu_list_empty(&user_proclet.threads));
		nu_thaw(&user_proclet);
	}
}

Test(freeze, discard, .timeout = 60)
{
	run_node(2, discard_body);
}
