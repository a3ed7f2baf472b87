/* SPDX-License-Identifier: MIT */
/* Interrupting threads, and the naming of those that crash. */
#include "sched_test.h"

#include <sys/wait.h>
#include <unistd.h>

static atomic_bool halt;
static atomic_int running, bad;
static atomic_ulong rounds;

/* Registers of all kinds live over each interruption. */
static USER void compute(void *arg)
{
	double a = 1, b = 2, c = 3, d = 4;
	unsigned long n = 0;

	atomic_fetch_add(&running, 1);
	while (!atomic_load_explicit(&halt, memory_order_relaxed)) {
		a += 1;
		b += 2;
		c += 3;
		d += 4;
		n++;
		if ((unsigned long)a != n + 1 || b != 2 * a || d != 4 * a || c != 3 * a)
			atomic_fetch_add(&bad, 1);
	}
	atomic_fetch_add(&rounds, n);
}

static void loops(void)
{
	struct nu_thread *t[6];

	for (int i = 0; i < 6; i++)
		spawn(compute, NULL, &t[i]);
	await_at_least(&running, 6);
	nu_sleep_us(300000); /* the loops' time, not somebody's turn */
	halt = true;
	for (int i = 0; i < 6; i++)
		nu_thread_join(t[i]);
	cr_assert_eq(bad, 0);
	cr_assert_gt(nu_stat_sum(NU_STAT_PREEMPTIONS), 20);
}

Test(preempt, loops_share_a_core, .timeout = 60)
{
	run(1, loops);
}

Test(preempt, loops_share_two_cores, .timeout = 60)
{
	run(2, loops);
}

/* Sleepers on the core of a loop are woken in time for it to matter. */
static void sleeper(void)
{
	uint64_t worst = 0;

	spawn(compute, NULL, NULL);
	await_at_least(&running, 1);
	for (int i = 0; i < 50; i++) {
		uint64_t begin = nu_mono_ns();

		nu_sleep_us(2000);
		worst = worst > nu_mono_ns() - begin ? worst : nu_mono_ns() - begin;
	}
	halt = true;
	cr_assert_lt(worst, 5000000000u); /* forever, if nobody interrupts the loop */
	while (!rounds)
		nu_yield();
}

Test(preempt, timers_fire_beside_a_loop, .timeout = 60)
{
	run(1, sleeper);
}

static USER void protected_loop(unsigned long n)
{
	for (volatile unsigned long i = 0; i < n; i++)
		;
}

static atomic_int others;

static void count_other(void *arg)
{
	atomic_fetch_add(&others, 1);
}

static void not_while_disabled(void)
{
	nu_preempt_disable();
	nu_preempt_disable();
	spawn(count_other, NULL, NULL);
	protected_loop(30000000);
	nu_preempt_enable();
	cr_assert_eq(others, 0, "interrupted while it was off");
	protected_loop(30000000);
	cr_assert_eq(others, 0);
	nu_preempt_enable(); /* the request was left: at once */
	cr_assert_eq(others, 1);
}

Test(preempt, disabled)
{
	run(1, not_while_disabled);
}

/* A core that cannot be interrupted keeps its sleepers waiting only while no other core is idle. */
static atomic_int woken;

static void sleep_short(void *arg)
{
	nu_sleep_us(1000);
	atomic_fetch_add(&woken, 1);
}

static USER void until_woken(void)
{
	while (atomic_load(&woken) < 10)
		;
}

static void stuck(void)
{
	for (int i = 0; i < 10; i++)
		spawn(sleep_short, NULL, NULL);
	nu_sleep_us(500); /* they sleep by now, most of them on this core */
	nu_preempt_disable();
	until_woken();
	nu_preempt_enable();
}

Test(preempt, timers_of_a_stuck_core, .timeout = 30)
{
	run(2, stuck);
}

/* The same with the other core busy: it must take over what waits on the stuck one. */
static atomic_bool unstuck;

static void yield_on(void *arg)
{
	while (!unstuck)
		nu_yield();
}

static void stuck_beside_a_busy_one(void)
{
	spawn(yield_on, NULL, NULL);
	spawn(yield_on, NULL, NULL);
	stuck();
	unstuck = true;
}

Test(preempt, work_of_a_stuck_core_beside_a_busy_one, .timeout = 30)
{
	for (int i = 0; i < 20; i++) {
		woken = 0;
		unstuck = false;
		run(2, stuck_beside_a_busy_one);
	}
}

/* ---- crashes, in a child that dies of them ---- */

static volatile int deepest = 1 << 30;

static USER int overflow(int depth)
{
	volatile char frame[512];

	frame[0] = (char)depth;
	return depth == deepest ? 0 : overflow(depth + 1) + frame[0];
}

static void overflow_body(void)
{
	overflow(0);
}

static void null_body(void)
{
	static volatile int *volatile nowhere = (volatile int *)8;

	*nowhere = 1;
}

static void say_crashed(struct nu_thread *t, int signo, void *addr)
{
	const char *s = t->proclet == &user_proclet ? "ops: crashed\n" : "ops: who?\n";

	ssize_t n = write(2, s, strlen(s));
	(void)n;
}

static int die(void (*body)(void), char *text, size_t size)
{
	static const struct nu_sched_ops ops = {.crashed = say_crashed};
	int fds[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		static const struct rlimit no_core = {0, 0};

		setrlimit(RLIMIT_CORE, &no_core);
		dup2(fds[1], 2);
		nu_sched_set_ops(&ops);
		run(2, body);
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(fds[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

Test(preempt, stack_overflow_is_named, .timeout = 30)
{
	char text[8192];
	int status = die(overflow_body, text, sizeof(text));

	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %#x, said: %s", status, text);
	cr_assert_not_null(strstr(text, "stack overflow in thread 0x"), "%s", text);
	cr_assert_not_null(strstr(text, "of proclet 0x1234567"), "%s", text);
	cr_assert_not_null(strstr(text, "ops: crashed"), "%s", text);
}

Test(preempt, crash_is_named, .timeout = 30)
{
	char text[8192];
	int status = die(null_body, text, sizeof(text));

	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %#x, said: %s", status, text);
	cr_assert_not_null(strstr(text, "SIGSEGV at 0x8 in thread 0x"), "%s", text);
	cr_assert_null(strstr(text, "overflow"), "%s", text);
}
