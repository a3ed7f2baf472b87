/* SPDX-License-Identifier: MIT */
/* Threads in foreign code, that of libraries: their cores go on without them, and they are caught when they return. */
#include "sched/carrier.h"
#include "sched/foreign.h"
#include "sched_test.h"

#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define TEXT_BYTES (4u << 20)

static atomic_bool halt;
static atomic_int inside, done, bad;
static atomic_ulong rounds;
static int fds[2];
static char text[TEXT_BYTES];

static unsigned poll_nothing(unsigned core)
{
	return 0;
}

/* With ThreadSanitizer threads are not interrupted; each sanitizer stands between the program and the C library. */
#define NEEDS_SIGNALS                                                                                        \
	do {                                                                                                 \
		if (NU_SAN_IN_PROGRAM)                                                                       \
			cr_skip_test("threads are not interrupted in this sanitizer's builds");              \
		if (!IS_X86)                                                                                 \
			cr_skip_test(                                                                        \
				"under emulation frames are looked at more slowly than cores are left");     \
	} while (0)
#ifdef __x86_64__
#define IS_X86 1
#else
#define IS_X86 0
#endif
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NEEDS_CATCHING (void)0
#else
#define NEEDS_CATCHING cr_skip_test("threads are caught on x86-64 and without sanitizers only")
#endif

/* With a poller each core is wanted always, as in a job of several nodes; without, one that others do the work of is not. */
static void prepare(void)
{
	static const struct nu_poller poller = {.poll = poll_nothing};

	memset(text, 'a', sizeof(text) - 1);
	if (pipe(fds) || nu_poller_add(&poller))
		abort();
}

/* ---- the core goes on ---- */

static USER void reader(void *arg)
{
	char b = 0;

	atomic_fetch_add(&inside, 1);
	if (read(fds[0], &b, 1) != 1 || b != 'x')
		atomic_fetch_add(&bad, 1);
	atomic_fetch_add(&done, 1);
}

/* The only core: no thread could run, and no timer fire, as long as it waited with the reader. */
static void beside_readers(void)
{
	for (int i = 0; i < 3; i++)
		spawn(reader, NULL, NULL);
	await_at_least(&inside, 3);
	for (int i = 0; i < 20; i++)
		nu_sleep_us(1000);
	cr_assert_eq(done, 0);
	cr_assert_geq(nu_stat_sum(NU_STAT_CORES_LEFT), 3);
	cr_assert_eq(write(fds[1], "xxx", 3), 3);
	await_at_least(&done, 3);
	cr_assert_eq(bad, 0);
}

Test(foreign, a_core_goes_on_while_threads_read, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run(1, beside_readers);
}

/* The same core is left again and again; each stray thread comes back to a core when the runtime is called. */
static USER void ping(void *arg)
{
	char b;

	for (int i = 0; i < 30; i++) {
		atomic_fetch_add(&inside, 1);
		if (read(fds[0], &b, 1) != 1)
			atomic_fetch_add(&bad, 1);
		nu_yield();
		if (nu_core_is_side(nu_core_get()))
			atomic_fetch_add(&bad, 1);
		free(malloc(100));
		atomic_fetch_add(&done, 1);
	}
}

static void again_and_again(void)
{
	uint64_t left = 0;

	spawn(ping, NULL, NULL);
	for (int i = 1; i <= 30; i++) {
		await_at_least(&inside, i);
		while (nu_stat_sum(NU_STAT_CORES_LEFT) == left && i % 3)
			nu_sleep_us(500);
		left = nu_stat_sum(NU_STAT_CORES_LEFT);
		cr_assert_eq(write(fds[1], "x", 1), 1);
		await_at_least(&done, i);
	}
	cr_assert_eq(bad, 0);
}

Test(foreign, a_core_is_left_again_and_again, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run(1, again_and_again);
}

Test(foreign, two_cores_are_left_again_and_again, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run(2, again_and_again);
}

/* Without the kernel threads for it a core waits, and says so; others do its work. */
static void two_readers_one_carrier(void)
{
	spawn(reader, NULL, NULL);
	await_at_least(&inside, 1);
	while (!nu_stat_sum(NU_STAT_CORES_LEFT))
		nu_sleep_us(500);
	spawn(reader, NULL, NULL);
	await_at_least(&inside, 2);
	nu_sleep_us(10000);
	cr_assert_eq(nu_stat_sum(NU_STAT_CORES_LEFT), 1);
	cr_assert_eq(write(fds[1], "xx", 2), 2);
	await_at_least(&done, 2);
}

Test(foreign, no_more_kernel_threads_than_allowed, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	setenv("NU_CARRIERS", "1", 1);
	run(2, two_readers_one_carrier);
}

static void reader_without_carriers(void)
{
	spawn(reader, NULL, NULL);
	await_at_least(&inside, 1);
	for (int i = 0; i < 20; i++)
		nu_sleep_us(1000);
	cr_assert_eq(nu_stat_sum(NU_STAT_CORES_LEFT), 0);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	await_at_least(&done, 1);
}

Test(foreign, none_at_all, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	setenv("NU_CARRIERS", "0", 1);
	run(2, reader_without_carriers);
}

/* ---- on the way back ---- */

/* Results of all kinds come back, however often their threads are caught. */
static USER void lengths(void *arg)
{
	atomic_fetch_add(&inside, 1);
	while (!atomic_load_explicit(&halt, memory_order_relaxed)) {
		if (strlen(text) != TEXT_BYTES - 1)
			atomic_fetch_add(&bad, 1);
		atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed);
	}
}

static USER void numbers(void *arg)
{
	static const char *volatile s = "1.5";
	volatile double two = 2;
	volatile long double three = 3;
	volatile int seven = 1000000007;

	atomic_fetch_add(&inside, 1);
	while (!atomic_load_explicit(&halt, memory_order_relaxed)) {
		lldiv_t q = lldiv(seven, 10);

		if (pow(two, 10) != 1024 || powl(three, 2) != 9 || strtod(s, NULL) != 1.5 ||
		    strtold(s, NULL) != 1.5L || q.quot != 100000000 || q.rem != 7)
			atomic_fetch_add(&bad, 1);
		atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed);
	}
}

/* The turns of threads that are hardly ever in code of their own. */
static void share(nu_thread_fn fn)
{
	spawn(fn, NULL, NULL);
	spawn(fn, NULL, NULL);
	await_at_least(&inside, 2);
	for (int i = 0; i < 100; i++)
		nu_sleep_us(1000);
	halt = true;
	cr_assert_eq(bad, 0);
	cr_assert_gt(rounds, 0);
	cr_assert_gt(nu_stat_sum(NU_STAT_PREEMPTIONS), 20);
	while (user_proclet.nthreads > 1)
		nu_yield();
}

static void share_lengths(void)
{
	share(lengths);
}

static void share_numbers(void)
{
	share(numbers);
}

Test(foreign, threads_in_strlen_share_a_core, .timeout = 60)
{
	NEEDS_CATCHING;
	prepare();
	setenv("NU_CARRIERS", "0", 1);
	run(1, share_lengths);
}

Test(foreign, threads_in_libm_share_a_core, .timeout = 60)
{
	NEEDS_CATCHING;
	setenv("NU_CARRIERS", "0", 1);
	run(1, share_numbers);
}

Test(foreign, threads_in_libm_share_two_cores_with_carriers, .timeout = 60)
{
	NEEDS_CATCHING;
	run(2, share_numbers);
}

/* A pause ends the thread's stay in the library, too; one in a system call it does not, and the thread goes on. */
static void freeze_lengths(void)
{
	user_thread(lengths, NULL, true);
	await_at_least(&inside, 1);
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(nu_freeze(&user_proclet, 10000000), 0);
		nu_thaw(&user_proclet);
	}
	halt = true;
	while (peek(&user_proclet.nthreads))
		nu_yield();
	cr_assert_eq(bad, 0);
}

Test(foreign, a_pause_catches, .timeout = 60)
{
	NEEDS_CATCHING;
	prepare();
	run_node(2, freeze_lengths);
}

static void freeze_reader(void)
{
	user_thread(reader, NULL, true);
	await_at_least(&inside, 1);
	cr_assert_eq(nu_freeze(&user_proclet, 20000), -ETIMEDOUT);
	while (!nu_stat_sum(NU_STAT_CORES_LEFT))
		nu_sleep_us(500);
	cr_assert_eq(nu_freeze(&user_proclet, 20000), -ETIMEDOUT);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	await_at_least(&done, 1);
	cr_assert_eq(bad, 0);
}

Test(foreign, a_pause_gives_up_on_a_reader, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run_node(2, freeze_reader);
}

/* Not while a function of the runtime is under way on the stack, whatever that calls. */
static bool looked_may;

static __attribute__((noinline)) void runtime_function(void)
{
	struct nu_foreign o;

	looked_may = nu_foreign_look(nu_thread_self(), (uintptr_t)__builtin_return_address(0), &o);
	__asm__ volatile("");
}

static USER void look_from_runtime(void *arg)
{
	runtime_function();
	done = 1;
}

static void look(void)
{
	struct nu_foreign o;

	cr_assert_not(nu_foreign_look(nu_thread_self(), (uintptr_t)look, &o));
	spawn(look_from_runtime, NULL, NULL);
	await_at_least(&done, 1);
	cr_assert(looked_may);
}

Test(foreign, the_runtime_is_not_foreign)
{
	NEEDS_SIGNALS;
	run(1, look);
}

/* ---- waits that signals end ---- */

static uint64_t took_ns(struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)(now.tv_sec - begin->tv_sec) * 1000000000u + (uint64_t)now.tv_nsec -
	       (uint64_t)begin->tv_nsec;
}

#define FULL_NS 30000000u
#define TAKES(expr)                                                                                          \
	do {                                                                                                 \
		struct timespec begin;                                                                       \
		clock_gettime(CLOCK_MONOTONIC, &begin);                                                      \
		if ((expr) || took_ns(&begin) < FULL_NS) {                                                   \
			printf("%s took %lu us\n", #expr, (unsigned long)took_ns(&begin) / 1000);            \
			atomic_fetch_add(&bad, 1);                                                           \
		}                                                                                            \
	} while (0)

static uint64_t left; /* cores while they waited for descriptors */

static USER void waits(void *arg)
{
	struct timespec ts = {0, FULL_NS}, abs;
	struct timeval tv = {0, FULL_NS / 1000};
	struct pollfd p = {fds[0], POLLIN, 0};
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(0);
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &e);
	atomic_fetch_add(&inside, 1);
	TAKES(usleep(FULL_NS / 1000));
	TAKES(nanosleep(&ts, NULL));
	TAKES(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL));
	clock_gettime(CLOCK_REALTIME, &abs);
	abs.tv_nsec += FULL_NS;
	abs.tv_sec += abs.tv_nsec / 1000000000;
	abs.tv_nsec %= 1000000000;
	TAKES(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &abs, NULL));
	left = nu_stat_sum(NU_STAT_CORES_LEFT);
	TAKES(poll(&p, 1, FULL_NS / 1000000));
	TAKES(ppoll(&p, 1, &ts, NULL));
	TAKES(select(fds[0] + 1, &set, NULL, NULL, &tv));
	FD_SET(fds[0], &set);
	TAKES(pselect(fds[0] + 1, &set, NULL, NULL, &ts, NULL));
	TAKES(epoll_wait(ep, &e, 1, FULL_NS / 1000000));
	TAKES(epoll_pwait(ep, &e, 1, FULL_NS / 1000000, NULL));
	left = nu_stat_sum(NU_STAT_CORES_LEFT) - left;
	close(ep);
	atomic_fetch_add(&done, 1);
}

static void beside_waits(void)
{
	spawn(waits, NULL, NULL);
	while (atomic_load(&done) < 1) /* wants the core all the time */
		nu_yield();
	cr_assert_eq(bad, 0);
}

Test(foreign, waits_take_their_full_time, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run(1, beside_waits);
	cr_assert_geq(left, 1); /* as often as a busy machine lets the monitor look */
}

Test(foreign, waits_take_their_full_time_without_carriers, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	setenv("NU_CARRIERS", "0", 1);
	run(1, beside_waits);
}

Test(foreign, waits_that_make_no_sense)
{
	struct timespec none = {0, -1};

	cr_assert_eq(nanosleep(&none, NULL), -1);
	cr_assert_eq(nu_sys_errno, EINVAL);
	cr_assert_eq(clock_nanosleep(CLOCK_MONOTONIC, 0, &none, NULL), EINVAL);
	cr_assert_eq(ppoll(NULL, 0, &none, NULL), -1);
	cr_assert_eq(nu_sys_errno, EINVAL);
	cr_assert_eq(sleep(0), 0u);
}

/* ---- what belongs to a kernel thread ---- */

static pthread_mutex_t checked;

static void *holder(void *arg)
{
	pthread_mutex_lock(&checked);
	while (!atomic_load(&inside))
		usleep(100);
	usleep(20000); /* for long enough that the core is left */
	pthread_mutex_unlock(&checked);
	return NULL;
}

static USER void locker(void *arg)
{
	atomic_fetch_add(&inside, 1);
	if (pthread_mutex_lock(&checked) ||
	    pthread_mutex_unlock(&checked)) /* EPERM on another kernel thread */
		atomic_fetch_add(&bad, 1);
	atomic_fetch_add(&done, 1);
}

static void beside_a_locker(void)
{
	pthread_mutexattr_t attr;
	pthread_t t;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	for (int i = 0; i < 5; i++) {
		pthread_mutex_init(&checked, &attr);
		inside = 0;
		cr_assert_eq(pthread_create(&t, NULL, holder, NULL), 0);
		while (!pthread_mutex_trylock(&checked)) {
			pthread_mutex_unlock(&checked);
			nu_yield();
		}
		spawn(locker, NULL, NULL);
		await_at_least(&done, i + 1);
		pthread_join(t, NULL);
	}
	cr_assert_eq(bad, 0);
	cr_assert_geq(nu_stat_sum(NU_STAT_CORES_LEFT), 1);
}

Test(foreign, a_mutex_is_unlocked_by_who_locked_it, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run(1, beside_a_locker);
}

/* One held over a read() is given back by the kernel thread that took it. */
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static USER void read_locked(void *arg)
{
	char b;

	atomic_fetch_add(&inside, 1);
	if (pthread_mutex_lock(&recursive) || read(fds[0], &b, 1) != 1 || pthread_mutex_unlock(&recursive))
		atomic_fetch_add(&bad, 1);
	atomic_fetch_add(&done, 1);
}

static void beside_read_locked(void)
{
	for (int i = 0; i < 5; i++) {
		uint64_t before = nu_stat_sum(NU_STAT_CORES_LEFT);

		spawn(read_locked, NULL, NULL);
		await_at_least(&inside, i + 1);
		while (nu_stat_sum(NU_STAT_CORES_LEFT) == before && !atomic_load(&done))
			nu_sleep_us(500);
		cr_assert_eq(write(fds[1], "x", 1), 1);
		await_at_least(&done, i + 1);
	}
	cr_assert_eq(bad, 0);
}

Test(foreign, a_mutex_is_held_over_a_read, .timeout = 60)
{
	NEEDS_SIGNALS;
	prepare();
	run(2, beside_read_locked);
}

/* A function that notes where it is to return to must not find where it was diverted to. */
static USER void jumps(void *arg)
{
	jmp_buf here;

	atomic_fetch_add(&inside, 1);
	while (!atomic_load_explicit(&halt, memory_order_relaxed)) {
		volatile int times = 0;

		(void)setjmp(here);
		if (strnlen(text, 1000) != 1000)
			atomic_fetch_add(&bad, 1);
		if (++times < 3)
			longjmp(here, 1);
		atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed);
	}
}

static void share_jumps(void)
{
	share(jumps);
}

Test(foreign, threads_that_jump_share_a_core, .timeout = 60)
{
	NEEDS_CATCHING;
	prepare();
	setenv("NU_CARRIERS", "0", 1);
	run(1, share_jumps);
}

/* ---- tiles ---- */

#ifdef __x86_64__
Test(foreign, live_tiles_are_seen)
{
	static char state[4096] __attribute__((aligned(64)));
	ucontext_t uc = {.uc_mcontext.fpregs = (fpregset_t)(void *)state};
	uint32_t magic = 0x46505853;
	uint64_t with = 1 << 18 | 7, without = 0xe7;

	cr_assert_not(nu_cpu_frame_has_tiles(&uc));
	memcpy(state + 512, &with, sizeof(with));
	cr_assert_not(nu_cpu_frame_has_tiles(&uc)); /* a frame of FXSAVE */
	memcpy(state + 464, &magic, sizeof(magic));
	cr_assert(nu_cpu_frame_has_tiles(&uc));
	memcpy(state + 512, &without, sizeof(without));
	cr_assert_not(nu_cpu_frame_has_tiles(&uc));
	uc.uc_mcontext.fpregs = NULL;
	cr_assert_not(nu_cpu_frame_has_tiles(&uc));
}
#endif
