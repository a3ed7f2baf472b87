/* SPDX-License-Identifier: MIT */
/* Synchronisation: each primitive contended from many threads, and time-outs that race with wakers. */
#include "sched_test.h"

enum { THREADS = 64 };

static void crowd(nu_thread_fn fn, int n)
{
	struct nu_thread *t[THREADS];

	for (intptr_t i = 0; i < n; i++)
		spawn(fn, (void *)i, &t[i]);
	for (int i = 0; i < n; i++)
		cr_assert_eq(nu_thread_join(t[i]), 0);
}

/* ---- mutex ---- */

static struct nu_mutex mutex;
static long counter, timeouts;
static volatile int inside;

static void enter(void)
{
	cr_assert_eq(inside, 0);
	inside = 1;
	counter++;
	if (counter % 7 == 0)
		nu_yield();
	cr_assert_eq(inside, 1);
	inside = 0;
}

static void use_mutex(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		if (i % 5 == 4 && nu_mutex_trylock(&mutex)) {
			enter();
		} else {
			nu_mutex_lock(&mutex);
			enter();
		}
		nu_mutex_unlock(&mutex);
	}
}

static void mutexes(void)
{
	crowd(use_mutex, THREADS);
	cr_assert_eq(counter, THREADS * 2000);
	cr_assert_eq(mutex.state, 0);
	cr_assert_null(mutex.waiters.head);
}

Test(sync, mutex)
{
	run(2, mutexes);
}

/* Time-outs of about the time that the lock is held: both outcomes, thousands of times. */
static void use_timed(void *arg)
{
	intptr_t me = (intptr_t)arg;

	for (int i = 0; i < 1500; i++) {
		int err = nu_mutex_timedlock(&mutex, (uint64_t)(i * 7 + me * 13) % 60);

		if (err) {
			cr_assert_eq(err, -ETIMEDOUT);
			__atomic_fetch_add(&timeouts, 1, __ATOMIC_RELAXED);
			continue;
		}
		enter();
		if (i % 64 == 0)
			nu_sleep_us(10);
		nu_mutex_unlock(&mutex);
	}
}

static void timed_mutexes(void)
{
	crowd(use_timed, 16);
	cr_assert_eq(counter + timeouts, 16 * 1500);
	cr_assert_gt(timeouts, 100);
	cr_assert_gt(counter, 100);
	cr_assert_null(mutex.waiters.head);
	cr_assert_null(mutex.waiters.tail);
	cr_assert_eq(mutex.waiters.count, 0);
	cr_assert(nu_mutex_trylock(&mutex));
	cr_assert_not(nu_mutex_trylock(&mutex));
	cr_assert_eq(nu_mutex_timedlock(&mutex, 0), -ETIMEDOUT);
	nu_mutex_unlock(&mutex);
}

Test(sync, mutex_timeouts_race)
{
	run(2, timed_mutexes);
}

static int order[8], norder;

static void in_order(void *arg)
{
	nu_mutex_lock(&mutex);
	order[norder++] = (int)(intptr_t)arg;
	nu_mutex_unlock(&mutex);
}

static void fifo(void)
{
	struct nu_thread *t[8];

	nu_mutex_lock(&mutex);
	for (intptr_t i = 0; i < 8; i++) {
		spawn(in_order, (void *)i, &t[i]);
		while (peek(&mutex.waiters.count) != i + 1)
			nu_yield();
	}
	nu_mutex_unlock(&mutex);
	for (int i = 0; i < 8; i++)
		nu_thread_join(t[i]);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(order[i], i);
}

Test(sync, mutex_is_fifo)
{
	run(2, fifo);
}

/* ---- condition ---- */

static struct nu_cond not_empty, not_full;
static int queue[16], qhead, qlen;
static long produced, consumed;

static void produce(void *arg)
{
	for (int i = 1; i <= 3000; i++) {
		nu_mutex_lock(&mutex);
		while (qlen == 16)
			nu_cond_wait(&not_full, &mutex);
		queue[(qhead + qlen++) % 16] = i;
		produced += i;
		nu_cond_signal(&not_empty);
		nu_mutex_unlock(&mutex);
	}
}

static void consume(void *arg)
{
	for (int i = 0; i < 3000; i++) {
		nu_mutex_lock(&mutex);
		while (!qlen) {
			/* Half of them with time-outs that mostly do not matter. */
			if ((intptr_t)arg % 4 == 1)
				timeouts += nu_cond_timedwait(&not_empty, &mutex, 30) == -ETIMEDOUT;
			else
				nu_cond_wait(&not_empty, &mutex);
		}
		consumed += queue[qhead];
		qhead = (qhead + 1) % 16;
		qlen--;
		nu_cond_signal(&not_full);
		nu_mutex_unlock(&mutex);
	}
}

static void produce_or_consume(void *arg)
{
	if ((intptr_t)arg % 2)
		consume(arg);
	else
		produce(arg);
}

static void conditions(void)
{
	crowd(produce_or_consume, 32);
	cr_assert_eq(produced, 16l * 3000 * 3001 / 2);
	cr_assert_eq(consumed, produced);
	cr_assert_null(not_empty.waiters.head);
	cr_assert_null(not_full.waiters.head);
}

Test(sync, condition)
{
	run(2, conditions);
}

static bool go; /* under the mutex */
static atomic_int gone;

static void wait_go(void *arg)
{
	nu_mutex_lock(&mutex);
	while (!go)
		nu_cond_wait(&not_empty, &mutex);
	nu_mutex_unlock(&mutex);
	atomic_fetch_add(&gone, 1);
}

static uint32_t waiting(void)
{
	uint32_t n;

	nu_mutex_lock(&mutex);
	n = not_empty.waiters.count;
	nu_mutex_unlock(&mutex);
	return n;
}

static void broadcast(void)
{
	struct nu_thread *t[THREADS];

	for (int round = 0; round < 50; round++) {
		go = false; /* nobody runs yet */
		for (int i = 0; i < THREADS; i++)
			spawn(wait_go, NULL, &t[i]);
		while (waiting() < THREADS)
			nu_yield();
		nu_mutex_lock(&mutex);
		go = true;
		nu_cond_broadcast(&not_empty);
		nu_mutex_unlock(&mutex);
		for (int i = 0; i < THREADS; i++)
			nu_thread_join(t[i]);
	}
	cr_assert_eq(gone, 50 * THREADS);
	nu_mutex_lock(&mutex);
	cr_assert_eq(nu_cond_timedwait(&not_empty, &mutex, 500), -ETIMEDOUT);
	cr_assert_not(nu_mutex_trylock(&mutex), "held again");
	nu_mutex_unlock(&mutex);
}

Test(sync, broadcast)
{
	run(2, broadcast);
}

/* ---- rwlock ---- */

static struct nu_rwlock rw;
static atomic_int readers, writers, most_readers;
static long rw_a, rw_b;

static void read_some(int i)
{
	if (i % 4 != 3 || !nu_rwlock_tryrdlock(&rw))
		nu_rwlock_rdlock(&rw);
	int n = atomic_fetch_add(&readers, 1) + 1;
	if (n > most_readers)
		most_readers = n;
	cr_assert_eq(writers, 0);
	long a = rw_a;
	if (i % 3 == 0)
		nu_yield();
	cr_assert_eq(a, rw_b);
	atomic_fetch_sub(&readers, 1);
	nu_rwlock_unlock(&rw);
}

static void write_some(int i)
{
	if (i % 4 != 3 || !nu_rwlock_trywrlock(&rw))
		nu_rwlock_wrlock(&rw);
	cr_assert_eq(atomic_fetch_add(&writers, 1), 0);
	cr_assert_eq(readers, 0);
	rw_a++;
	if (i % 3 == 0)
		nu_yield();
	rw_b++;
	atomic_fetch_sub(&writers, 1);
	nu_rwlock_unlock(&rw);
}

static void read_and_write(void *arg)
{
	for (int i = 0; i < 1000; i++) {
		if ((i + (intptr_t)arg) % 4 == 0)
			write_some(i);
		else
			read_some(i);
	}
}

static void rwlocks(void)
{
	crowd(read_and_write, 32);
	cr_assert_eq(rw_a, 32 * 250);
	cr_assert_eq(rw_b, rw_a);
	cr_assert_eq(rw.held, 0);
	cr_assert_gt(most_readers, 1);
	nu_rwlock_rdlock(&rw);
	cr_assert(nu_rwlock_tryrdlock(&rw));
	cr_assert_not(nu_rwlock_trywrlock(&rw));
	nu_rwlock_unlock(&rw);
	nu_rwlock_unlock(&rw);
	cr_assert(nu_rwlock_trywrlock(&rw));
	cr_assert_not(nu_rwlock_tryrdlock(&rw));
	nu_rwlock_unlock(&rw);
}

Test(sync, rwlock)
{
	run(2, rwlocks);
}

/* ---- semaphore ---- */

static struct nu_sem sem;
static atomic_long posts, takes;

static void post_and_take(void *arg)
{
	intptr_t me = (intptr_t)arg;

	for (int i = 0; i < 2000; i++) {
		if (me % 2) {
			atomic_fetch_add(&posts, 1);
			nu_sem_post(&sem);
			if (i % 16 == 0)
				nu_yield();
		} else if (i % 3 == 0) {
			int err = nu_sem_timedwait(&sem, (uint64_t)(i + me) % 40);

			if (!err)
				atomic_fetch_add(&takes, 1);
			else
				__atomic_fetch_add(&timeouts, 1, __ATOMIC_RELAXED);
		} else if (nu_sem_trywait(&sem)) {
			atomic_fetch_add(&takes, 1);
		}
	}
}

static void semaphores(void)
{
	crowd(post_and_take, 32);
	cr_assert_null(sem.waiters.head);
	cr_assert_eq(posts - takes, sem.value, "%ld posted, %ld taken, %ld left", posts, takes, sem.value);
	while (sem.value) {
		nu_sem_wait(&sem);
		takes++;
	}
	cr_assert_not(nu_sem_trywait(&sem));
	cr_assert_eq(nu_sem_timedwait(&sem, 200), -ETIMEDOUT);
	cr_assert_eq(posts, takes);
}

Test(sync, semaphore)
{
	run(2, semaphores);
}

/* One post, one waiter whose time is just up: either gets it, never both, never neither. */
static struct nu_sem ping;
static atomic_int got;

static void take_late(void *arg)
{
	for (int i = 0; i < 5000; i++) {
		nu_sem_wait(&ping);
		got += !nu_sem_timedwait(&sem, 1 + (uint64_t)i % 30);
	}
}

static void sem_race(void)
{
	struct nu_thread *t;
	int left = 0;

	spawn(take_late, NULL, &t);
	for (int i = 0; i < 5000; i++) {
		nu_sem_post(&ping);
		uint64_t end = nu_mono_ns() + (uint64_t)(i * 37 % 30000);
		while (nu_mono_ns() < end)
			nu_yield();
		nu_sem_post(&sem);
	}
	nu_thread_join(t);
	while (nu_sem_trywait(&sem))
		left++;
	cr_assert_eq(got + left, 5000, "%d got, %d left", got, left);
}

Test(sync, semaphore_timeout_race_two_cores)
{
	run(2, sem_race);
}

Test(sync, semaphore_timeout_race_one_core)
{
	run(1, sem_race);
}

/* ---- barrier, once, wait group, spin ---- */

static struct nu_barrier barrier;
static atomic_int arrived, chosen;

static void meet(void *arg)
{
	for (int i = 1; i <= 500; i++) {
		atomic_fetch_add(&arrived, 1);
		if (nu_barrier_wait(&barrier))
			atomic_fetch_add(&chosen, 1);
		int a = arrived;
		cr_assert(a >= i * 24 && a <= (i + 1) * 24, "round %d: %d", i, a);
	}
}

static void barriers(void)
{
	nu_barrier_init(&barrier, 24);
	crowd(meet, 24);
	cr_assert_eq(chosen, 500);
}

Test(sync, barrier)
{
	run(2, barriers);
}

static struct nu_once once[200];
static atomic_int ran_once[200];

static void do_once(void *arg)
{
	nu_yield();
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void try_once(void *arg)
{
	for (int i = 0; i < 200; i++) {
		nu_once(&once[i], do_once, &ran_once[i]);
		cr_assert_eq(ran_once[i], 1);
	}
}

static void onces(void)
{
	crowd(try_once, 32);
}

Test(sync, once)
{
	run(2, onces);
}

static void finish(void *arg)
{
	atomic_fetch_add(&got, 1);
	nu_waitgroup_done(arg);
}

static void waitgroups(void)
{
	for (int round = 1; round <= 500; round++) {
		struct nu_waitgroup g = {0};

		nu_waitgroup_wait(&g); /* nothing to wait for */
		nu_waitgroup_add(&g, 20);
		for (int i = 0; i < 20; i++)
			spawn(finish, &g, NULL);
		nu_waitgroup_wait(&g);
		cr_assert_eq(got, 20 * round);
	}
}

Test(sync, waitgroup)
{
	run(2, waitgroups);
}

static struct nu_spin spin;

static void use_spin(void *arg)
{
	for (int i = 0; i < 5000; i++) {
		nu_spin_lock(&spin);
		enter();
		nu_spin_unlock(&spin);
	}
}

static void spins(void)
{
	crowd(use_spin, 16);
	cr_assert_eq(counter, 16 * 5000);
	cr_assert(nu_spin_trylock(&spin));
	cr_assert_not(nu_spin_trylock(&spin));
	nu_spin_unlock(&spin);
}

Test(sync, spin)
{
	run(2, spins);
}
