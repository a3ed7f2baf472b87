/* SPDX-License-Identifier: MIT */
/*
 * Threads that compute with everything in registers are interrupted and go on in another process, again and again: the
 * signal frame on the stack is all that carries their registers. Two processes forked from one, as nodes are; the bytes
 * of a frozen thread's stack go through a pipe, there and back.
 */
#include "sched_test.h"

#include <fenv.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOVES  100
#define LOOPS  4
#define ROUNDS 20000u
#define NODES  2

/* Chaotic maps: an error in the last bit at any time, or the wrong rounding mode, is never forgotten. */
#define STEP(x, r) ((x) = (r) * (x) * (1 - (x)))
static USER uint64_t compute(double seed)
{
	double a = seed, b = seed / 2, c = seed / 3, d = seed / 5, e = seed / 7, f = seed / 11, g = seed / 13,
	       h = seed / 17, sum;
	uint64_t i = 0x9e3779b97f4a7c15u, j = 3, k = 5, l = 7, bits;

	for (unsigned n = 0; n < ROUNDS; n++) {
		STEP(a, 3.99);
		STEP(b, 3.98);
		STEP(c, 3.97);
		STEP(d, 3.96);
		STEP(e, 3.95);
		STEP(f, 3.94);
		STEP(g, 3.93);
		STEP(h, 3.92);
		i = (i << 13 | i >> 51) + j;
		j = j * 0x2545f4914f6cdd1du + k;
		k = k * 31 + l;
		l ^= i >> 7;
		__asm__ volatile("" : "+r"(i), "+r"(j), "+r"(k), "+r"(l));
	}
	sum = a + b + c + d + e + f + g + h;
	memcpy(&bits, &sum, sizeof(bits));
	return bits ^ i ^ j ^ k ^ l;
}

/* Shared by the two processes, as a heap would come along. */
static struct shared {
	atomic_bool stop;
	atomic_ulong done, wrong, switched_mode;
	atomic_int started, ended;
	double seed[LOOPS]; /* computed once: the rounding mode has a say in that, too */
	uint64_t want[LOOPS];
	int modes[LOOPS];
} * shared;

static int pipes[NODES][2]; /* pipes[n]: to node n */
static unsigned self;
static unsigned long interrupted;

static USER void loop(void *arg)
{
	struct shared *s = shared;
	unsigned i = (unsigned)(uintptr_t)arg;

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		if (compute(s->seed[i]) != s->want[i])
			atomic_fetch_add(&s->wrong, 1);
		atomic_fetch_add(&s->done, 1);
	}
}

/* Of the runtime's side: the rounding mode belongs to the thread and goes where it goes. */
static void body(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;

	fesetround(shared->modes[i]);
	atomic_fetch_add(&shared->started, 1);
	loop(arg);
	if (fegetround() != shared->modes[i])
		atomic_fetch_add(&shared->switched_mode, 1);
	atomic_fetch_add(&shared->ended, 1);
}

static void all(ssize_t (*io)(int, void *, size_t), int fd, void *p, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = io(fd, (char *)p + at, len - at);

		cr_assert_gt(n, 0, "the other process is gone");
		at += (size_t)n;
	}
}

static ssize_t put(int fd, void *p, size_t len)
{
	return write(fd, p, len);
}

struct moved {
	struct nu_thread *t;
	void *low;
	size_t len;
};

/* All threads of the user proclet to the other node. They compute for a while first. */
static void send_all(void)
{
	unsigned long seen = atomic_load(&shared->done);
	uint32_t n;

	while (atomic_load(&shared->done) < seen + LOOPS && !atomic_load(&shared->stop))
		nu_sleep_us(200);
	cr_assert_eq(nu_freeze(&user_proclet, 20000000), 0);
	n = user_proclet.nthreads;
	all(put, pipes[!self][1], &n, sizeof(n));
	while (!nu_list_empty(&user_proclet.threads)) {
		struct nu_thread *t =
			nu_list_entry(user_proclet.threads.next, struct nu_thread, proclet_link);
		struct moved m = {.t = t};

		nu_stack_live(t, &m.low, &m.len);
		nu_thread_unlink(t);
		all(put, pipes[!self][1], &m, sizeof(m));
		all(put, pipes[!self][1], m.low, m.len);
		nu_stack_depart(t);
	}
	interrupted = nu_stat_sum(NU_STAT_PAUSE_RUNNING);
	nu_list_init(&user_proclet.parked);
	nu_thaw(&user_proclet);
}

static void receive_all(void)
{
	uint32_t n;

	all(read, pipes[self][0], &n, sizeof(n));
	cr_assert_eq(nu_freeze(&user_proclet, 20000000), 0);
	while (n--) {
		struct moved m;

		all(read, pipes[self][0], &m, sizeof(m));
		cr_assert_eq(nu_stack_adopt(m.t, m.len), 0);
		all(read, pipes[self][0], m.low, m.len);
		nu_lock_acquire(&user_proclet.lock);
		nu_thread_arrived(m.t, &user_proclet);
		nu_lock_release(&user_proclet.lock);
	}
	nu_thaw(&user_proclet);
}

static void node(void)
{
	if (self == 0) {
		for (unsigned i = 0; i < LOOPS; i++)
			user_thread(body, (void *)(uintptr_t)i, true);
		await_at_least(&shared->started, LOOPS);
	}
	for (unsigned i = 0; i < MOVES; i++) {
		if (i % NODES == self)
			send_all();
		else
			receive_all();
	}
	if (self == MOVES % NODES) {
		atomic_store(&shared->stop, true);
		await_at_least(&shared->ended, LOOPS);
	}
}

Test(move, registers_go_along, .timeout = 120)
{
	static const int modes[LOOPS] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
	int status = 0;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(shared, MAP_FAILED);
	for (unsigned i = 0; i < LOOPS; i++) {
		shared->modes[i] = modes[i];
		shared->seed[i] = 0.3 + 0.1 * i;
		fesetround(modes[i]);
		shared->want[i] = compute(shared->seed[i]);
	}
	fesetround(FE_TONEAREST);
	cr_assert_neq(shared->want[1], compute(shared->seed[1]), "the mode makes no difference");
	cr_assert(!pipe(pipes[0]) && !pipe(pipes[1]));
	pid = fork();
	cr_assert_geq(pid, 0);
	self = start_as = !pid;
	run_node(2, node);
	cr_assert_gt(interrupted, 10);
	if (self) {
		fflush(NULL);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_expect_eq(shared->wrong, 0, "%lu of %lu results are wrong", shared->wrong, shared->done);
	cr_expect_eq(shared->switched_mode, 0);
	cr_expect_gt(shared->done, (unsigned long)MOVES);
}
