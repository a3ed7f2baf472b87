/* SPDX-License-Identifier: MIT */
/* Sleeps, timers, pollers, posted functions; what an idle node costs. */
#include "sched_test.h"
#include "tests/unit/emulator.h"

#include <sys/eventfd.h>
#include <unistd.h>

static atomic_int woken;
static int wake_order[32];
#define SLEEP_TRIES 10u
static uint64_t sleep_base_us;
static atomic_bool sleep_late;
static struct nu_sem sleep_gate;

static void sleep_in_turn(void *arg)
{
	int me = (int)(intptr_t)arg;

	nu_sem_wait(&sleep_gate); /* all from one moment on */
	uint64_t when = sleep_base_us + 4000 * (uint64_t)(31 - me), now = nu_now_us();

	if (now >= when)
		sleep_late = true;
	else
		nu_sleep_us(when - now);
	cr_assert_geq(nu_now_us(), when, "never too early");
	wake_order[atomic_fetch_add(&woken, 1)] = me;
}

/* False: this process stood still, and somebody came too late to sleep. */
static bool sleep_all(uint64_t lead_us)
{
	struct nu_thread *t[32];

	woken = 0;
	sleep_late = false;
	for (intptr_t i = 0; i < 32; i++)
		spawn(sleep_in_turn, (void *)i, &t[i]);
	sleep_base_us = nu_now_us() + lead_us;
	for (int i = 0; i < 32; i++)
		nu_sem_post(&sleep_gate);
	for (int i = 0; i < 32; i++)
		nu_thread_join(t[i]);
	return !sleep_late;
}

static void sleeps(void)
{
	unsigned tries = 0;

	while (!sleep_all(5000u << tries))
		cr_assert_lt(tries++, SLEEP_TRIES);
	for (int i = 0; i < 32 && nu_node.cores == 1; i++) /* two cores may overtake each other */
		cr_assert_eq(wake_order[i], 31 - i);
	uint64_t when = nu_now_us() + 3000;
	nu_sleep_until_us(when);
	cr_assert_geq(nu_now_us(), when);
	nu_sleep_until_us(when - 10000); /* past: at once */
	nu_sleep_us(0);
}

Test(time, sleeps_end_in_order)
{
	run(1, sleeps);
}

Test(time, sleeps_two_cores)
{
	run(2, sleeps);
}

static void sleep_often(void *arg)
{
	for (int i = 0; i < 200; i++)
		nu_sleep_us((uint64_t)(rand() % 300));
	atomic_fetch_add(&woken, 1);
}

static void many_sleepers(void)
{
	struct nu_thread *t[500];

	for (int i = 0; i < 500; i++)
		spawn(sleep_often, NULL, &t[i]);
	for (int i = 0; i < 500; i++)
		nu_thread_join(t[i]);
	cr_assert_eq(woken, 500);
}

Test(time, many_sleepers)
{
	run(2, many_sleepers);
}

/* The proclet's clock is the node's plus an offset. */
static void shifted(void)
{
	struct nu_proclet_head head = {.clock_offset_ns = 5000000000};
	uint64_t before = nu_mono_ns(), begin;

	user_proclet.head = &head;
	cr_assert(nu_now_ns() - before >= 5000000000u && nu_now_ns() - before < 15000000000u);
	begin = nu_mono_ns();
	nu_sleep_until_us(nu_now_us() + 2000);
	cr_assert(nu_mono_ns() - begin >= 1999000 && nu_mono_ns() - begin < 2000000000);
	head.clock_offset_ns = -1000000000;
	cr_assert_lt(nu_now_ns(), nu_mono_ns() - 999000000);
	user_proclet.head = NULL;
}

Test(time, proclet_clock)
{
	run(1, shifted);
}

/* ---- idle ---- */

static void nothing(void)
{
}

Test(time, idle_costs_nothing)
{
	uint64_t before, used;

	start_in(&user_proclet, 2, nothing);
	wait_main();
	usleep(50000);
	before = cpu_us();
	usleep(2000000);
	used = cpu_us() - before;
	cr_assert_lt(used, 2000, "%lu us of processor in 2 s: more than 10 ms in 10 s", used);
	nu_sched_stop();
}

static uint64_t ticks_us;

/* The node's start is not what is measured: a sanitizer's takes longer than all of this. */
static void tick(void)
{
	uint64_t before = cpu_us();

	for (int i = 0; i < 40; i++)
		nu_sleep_us(50000);
	ticks_us = cpu_us() - before;
}

Test(time, twenty_wakeups_a_second_are_cheap)
{
	SKIP_UNDER_EMULATOR(); /* the time is the translator's */
	run(2, tick);
	cr_assert_lt(ticks_us, 20000, "%lu us of processor for 40 wake-ups in 2 s", ticks_us);
}

/* ---- timers, posts, pollers: each wakes a sleeping core ---- */

static atomic_int timer_calls;
static sem_t told;

static void on_timer(void *arg)
{
	cr_assert_null(nu_thread_self());
	cr_assert(nu_on_core());
	timer_calls++;
	if (arg)
		cr_assert_eq(nu_timer_call(1000, on_timer, NULL), 0);
}

static void timers(void)
{
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(nu_timer_call((uint64_t)(rand() % 3000000), on_timer, (void *)(intptr_t)(i % 2)),
			     0);
	while (timer_calls < 1500)
		nu_sleep_us(500);
}

Test(time, timer_calls)
{
	run(2, timers);
	cr_assert_eq(timer_calls, 1500);
	cr_assert_eq(nu_timer_call(1, on_timer, NULL), -EINVAL, "not on a core");
}

static void on_post(void *arg)
{
	cr_assert_null(nu_thread_self());
	cr_assert_eq(nu_core_self(), (unsigned)(intptr_t)arg);
	sem_post(&told);
}

Test(time, posts_wake_a_sleeping_core)
{
	sem_init(&told, 0, 0);
	start_in(&user_proclet, 2, nothing);
	wait_main();
	for (intptr_t i = 0; i < 5000; i++) {
		cr_assert_eq(nu_core_post((unsigned)i % 2, on_post, (void *)(i % 2)), 0);
		if (i % 10 == 0)
			usleep(i % 7 * 10); /* so that it is at different points of falling asleep */
		while (sem_wait(&told))
			;
	}
	cr_assert_eq(nu_core_post(2, on_post, NULL), -EINVAL);
	nu_sched_stop();
}

static int event[2];
static atomic_int events, flushes, stopped;

static unsigned test_poll(unsigned core)
{
	uint64_t v;

	if (read(event[core], &v, sizeof(v)) != sizeof(v))
		return 0;
	events += (int)v;
	sem_post(&told);
	return 1;
}

static void test_flush(unsigned core)
{
	flushes++;
}

static int test_arm(unsigned core)
{
	static atomic_int n;

	return n++ % 3 == 0 ? -EBUSY : event[core];
}

static void test_stop(unsigned core)
{
	cr_assert_eq(nu_core_self(), core);
	stopped++;
}

static const struct nu_poller poller = {test_poll, test_flush, test_arm, test_stop};

Test(time, pollers_wake_a_sleeping_core)
{
	sem_init(&told, 0, 0);
	for (int i = 0; i < 2; i++)
		event[i] = eventfd(0, EFD_NONBLOCK);
	cr_assert_eq(nu_poller_add(&poller), 0);
	start_in(&user_proclet, 2, nothing);
	wait_main();
	for (int i = 0; i < 3000; i++) {
		uint64_t one = 1;

		cr_assert_eq(write(event[i % 2], &one, 8), 8);
		while (sem_wait(&told))
			;
	}
	nu_sched_stop();
	cr_assert_eq(events, 3000);
	cr_assert_gt(flushes, 0);
	cr_assert_eq(stopped, 2);
}

static void slow_stop(unsigned core)
{
	sleep(3); /* longer than a thread may take to leave its core: peers that are slow to say good-bye */
	stopped++;
}

Test(time, a_slow_good_bye_is_waited_for, .timeout = 60)
{
	struct nu_poller p = {.core_stop = slow_stop};

	cr_assert_eq(nu_poller_add(&p), 0);
	start_in(&user_proclet, 2, nothing);
	wait_main();
	cr_assert_eq(nu_sched_stop(), 0);
	cr_assert_eq(stopped, 2);
}

/* Threads that only yield must not keep the pollers from their turn; nor must one that computes. */
static void yield_until_polled(void)
{
	uint64_t one = 1;

	spawn((nu_thread_fn)nu_yield, NULL, NULL);
	for (int i = 1; i <= 1000; i++) {
		cr_assert_eq(write(event[0], &one, 8), 8);
		while (events < i)
			nu_yield();
	}
}

static USER void compute_until_polled_loop(atomic_int *v, int want)
{
	while (atomic_load(v) < want)
		;
}

static void compute_until_polled(void)
{
	uint64_t one = 1;

	for (int i = 1; i <= 50; i++) {
		cr_assert_eq(write(event[0], &one, 8), 8);
		compute_until_polled_loop(&events, i);
	}
}

static void with_poller(void (*body)(void))
{
	sem_init(&told, 0, 0);
	event[0] = eventfd(0, EFD_NONBLOCK);
	cr_assert_eq(nu_poller_add(&poller), 0);
	run(1, body);
}

Test(time, yielding_lets_pollers_run)
{
	with_poller(yield_until_polled);
}

Test(time, computing_lets_pollers_run, .timeout = 30)
{
	with_poller(compute_until_polled);
}
