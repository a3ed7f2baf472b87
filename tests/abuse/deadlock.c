/* SPDX-License-Identifier: MIT */
/* Waits that nobody can end, and such as only look like it: abuse_deadlock HOW. What must come of each is in deadlock.py. */
#include <nu/nu.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONG_US 3000000u

struct knot {
	struct nu_mutex a, b;
	struct nu_rwlock rw;
	struct nu_cond cond;
	struct nu_sem sem;
	struct nu_barrier barrier;
	struct nu_waitgroup group;
	struct nu_once once;
};
NU_CLASS(knot);
NU_METHOD(knot, hold_and_call, val(int), val(int, depth), ref(knot, other));
NU_METHOD(knot, pass_on, val(int), val(int, depth), ref(knot, first), ref(knot, other));
NU_METHOD(knot, hold_for_writing, val(int));
NU_METHOD(knot, needs_read, val(int));
NU_METHOD(knot, hold_and_join, val(int));
NU_METHOD(knot, act, val(int), str(how), ref(knot, other));
NU_METHOD(knot, needs_a, val(int));

int knot_init(struct knot *k)
{
	nu_barrier_init(&k->barrier, 2);
	return 0;
}

int knot_do_needs_a(struct knot *k)
{
	nu_mutex_lock(&k->a);
	nu_mutex_unlock(&k->a);
	return 1;
}

int knot_do_needs_read(struct knot *k)
{
	nu_rwlock_rdlock(&k->rw);
	nu_rwlock_unlock(&k->rw);
	return 1;
}

static struct knot_ref own(void)
{
	return (struct knot_ref){nu_self()};
}

/* By way of @depth calls, to the other one and back, to itself. */
int knot_do_pass_on(struct knot *k, int depth, struct knot_ref first, struct knot_ref other)
{
	int n = 0;

	if (depth)
		return knot_pass_on(depth % 2 ? first : other, depth - 1, first, other, &n) ? -1 : n;
	return knot_needs_a(first, &n) ? -1 : n;
}

int knot_do_hold_and_call(struct knot *k, int depth, struct knot_ref other)
{
	int n = 0, ret;

	nu_mutex_lock(&k->a);
	ret = knot_pass_on(depth % 2 ? own() : other, depth, own(), other, &n);
	nu_mutex_unlock(&k->a);
	return ret ? -1 : n;
}

int knot_do_hold_for_writing(struct knot *k)
{
	int n = 0, ret;

	nu_rwlock_wrlock(&k->rw);
	ret = knot_needs_read(own(), &n);
	nu_rwlock_unlock(&k->rw);
	return ret ? -1 : n;
}

static void locks_a(void *arg)
{
	struct knot *k = arg;

	nu_mutex_lock(&k->a);
	nu_mutex_unlock(&k->a);
}

int knot_do_hold_and_join(struct knot *k)
{
	struct nu_thread *t;

	nu_mutex_lock(&k->a);
	if (nu_thread_spawn(locks_a, k, &t))
		return -1;
	nu_thread_join(t);
	nu_mutex_unlock(&k->a);
	return 0;
}

static void once_again(void *arg)
{
	struct knot *k = arg;

	nu_once(&k->once, once_again, k);
}

static void writes(void *arg)
{
	struct knot *k = arg;

	nu_rwlock_wrlock(&k->rw);
	nu_rwlock_unlock(&k->rw);
}

static __attribute__((noinline)) void lock_it_twice(struct nu_mutex *m)
{
	nu_mutex_lock(m);
	nu_mutex_lock(m);
	nu_mutex_unlock(m); /* so that the above is no jump */
}

/* Locks that the calling thread holds. */
static int by_itself(struct knot *k, const char *how)
{
	if (!strcmp(how, "mutex-twice"))
		lock_it_twice(&k->a);
	if (!strcmp(how, "mutex-timed")) {
		nu_mutex_lock(&k->a);
		return nu_mutex_timedlock(&k->a, 1000) == -ETIMEDOUT && !nu_mutex_trylock(&k->a) ? 0 : -1;
	}
	if (!strcmp(how, "write-twice")) {
		nu_rwlock_wrlock(&k->rw);
		nu_rwlock_wrlock(&k->rw);
	}
	if (!strcmp(how, "write-read")) {
		nu_rwlock_wrlock(&k->rw);
		nu_rwlock_rdlock(&k->rw);
	}
	if (!strcmp(how, "upgrade")) {
		nu_rwlock_rdlock(&k->rw);
		nu_rwlock_wrlock(&k->rw);
	}
	if (!strcmp(how, "read-twice")) {
		nu_rwlock_rdlock(&k->rw);
		nu_rwlock_rdlock(&k->rw);
		nu_rwlock_unlock(&k->rw);
		nu_rwlock_unlock(&k->rw);
		return 0;
	}
	if (!strcmp(how, "read-past-writer")) {
		nu_rwlock_rdlock(&k->rw);
		if (nu_thread_spawn(writes, k, NULL))
			return -1;
		while (!k->rw.writers.count)
			nu_yield();
		nu_rwlock_rdlock(&k->rw);
	}
	if (!strcmp(how, "lock"))
		nu_mutex_lock(&k->a);
	if (!strcmp(how, "waiters"))
		return (int)k->a.waiters.count;
	if (!strcmp(how, "unlock"))
		nu_mutex_unlock(&k->a);
	if (!strcmp(how, "once"))
		nu_once(&k->once, once_again, k);
	return 0;
}

static void waits_for_sem(void *arg)
{
	nu_sem_wait(arg);
	nu_yield(); /* so that the above is no jump */
}

/* Two that each hold what the other wants. */
static void locks_b_then_a(void *arg)
{
	struct knot *k = arg;

	nu_mutex_lock(&k->b);
	nu_barrier_wait(&k->barrier);
	nu_mutex_lock(&k->a);
	nu_mutex_unlock(&k->a);
}

/* What nobody will end. */
static void by_others(struct knot *k, const char *how)
{
	struct nu_thread *t;

	if (!strcmp(how, "cond")) {
		nu_mutex_lock(&k->a);
		nu_cond_wait(&k->cond, &k->a);
	}
	if (!strcmp(how, "sem"))
		nu_sem_wait(&k->sem);
	if (!strcmp(how, "barrier"))
		nu_barrier_wait(&k->barrier);
	if (!strcmp(how, "group")) {
		nu_waitgroup_add(&k->group, 3);
		nu_waitgroup_wait(&k->group);
	}
	if (!strcmp(how, "join") && !nu_thread_spawn(waits_for_sem, &k->sem, &t))
		nu_thread_join(t);
	if (!strcmp(how, "crossed") && !nu_thread_spawn(locks_b_then_a, k, NULL)) {
		nu_mutex_lock(&k->a);
		nu_barrier_wait(&k->barrier);
		nu_mutex_lock(&k->b);
	}
	if (!strcmp(how, "upgrade-two") && !nu_thread_spawn(writes, k, NULL)) {
		nu_rwlock_rdlock(&k->rw);
		nu_sem_wait(&k->sem);
	}
}

static void *posts_later(void *sem)
{
	usleep(LONG_US);
	nu_sem_post(sem);
	return NULL;
}

static struct nu_sem *alarmed;

static void on_alarm(int signo)
{
	nu_sem_post(alarmed);
}

/* What takes longer than it does to find a deadlock, and ends. */
static void by_and_by(struct knot *k, const char *how)
{
	uint64_t until = nu_now_us() + LONG_US;
	struct nu_sem sem = {0};
	pthread_t t;

	if (!strcmp(how, "sleeps"))
		nu_sleep_us(LONG_US);
	if (!strcmp(how, "timed"))
		(void)!nu_sem_timedwait(&k->sem, LONG_US);
	if (!strcmp(how, "computes"))
		while (nu_now_us() < until)
			;
	if (!strcmp(how, "computes-silently"))
		for (uint64_t i = 0; i < 10 && nu_now_us() < until; i++)
			for (volatile uint64_t n = 0; n < 400000000; n++)
				;
	if (!strcmp(how, "in-libc"))
		poll(NULL, 0, LONG_US / 1000);
	if (!strcmp(how, "pthread") && !pthread_create(&t, NULL, posts_later, &sem)) {
		nu_sem_wait(&sem);
		pthread_join(t, NULL);
	}
	if (!strcmp(how, "handler")) {
		alarmed = &sem;
		signal(SIGALRM, on_alarm);
		alarm(LONG_US / 1000000);
		nu_sem_wait(&sem);
	}
}

int knot_do_act(struct knot *k, struct nu_str how, struct knot_ref other)
{
	by_others(k, how.s);
	by_and_by(k, how.s);
	return by_itself(k, how.s);
}

static void locks(void *arg)
{
	int got;

	if (knot_act(*(struct knot_ref *)arg, nu_str("lock"), (struct knot_ref){{0}}, &got))
		abort();
}

/* One method locks, another unlocks: threads with the address of the one that locked come and go. */
static int handed_on(struct knot_ref one)
{
	struct nu_thread *t;
	int n = 0;

	for (int i = 0; i < 100; i++) {
		if (knot_act(one, nu_str("lock"), (struct knot_ref){{0}}, &n) ||
		    nu_thread_spawn(locks, &one, &t))
			return -1;
		do {
			nu_yield();
			if (knot_act(one, nu_str("waiters"), (struct knot_ref){{0}}, &n))
				return -1;
		} while (!n);
		if (knot_act(one, nu_str("unlock"), (struct knot_ref){{0}}, &n) || nu_thread_join(t) ||
		    knot_act(one, nu_str("unlock"), (struct knot_ref){{0}}, &n))
			return -1;
	}
	return 0;
}

static int mainfunc(int argc, char **argv)
{
	struct nu_options far = {.node = NU_NODE(nu_node_count() - 1)}, near = {.node = NU_NODE(0)};
	int depth = argc > 2 ? atoi(argv[2]) : 0, got = -1, ret;
	const char *how = argv[1];
	NU_SCOPED(knot, one);
	NU_SCOPED(knot, two);

	if (knot_create(&far, &one) || knot_create(argc > 3 ? &near : &far, &two))
		return 1;
	if (!strcmp(how, "future")) {
		NU_SCOPED_FUTURE(knot, act, f);

		ret = knot_act_async(one, nu_str("sem"), two, &f) || knot_act_wait(&f, &got);
	} else if (!strcmp(how, "call"))
		ret = knot_hold_and_call(one, depth, two, &got);
	else if (!strcmp(how, "write-call"))
		ret = knot_hold_for_writing(one, &got);
	else if (!strcmp(how, "join-call"))
		ret = knot_hold_and_join(one, &got);
	else if (!strcmp(how, "handed-on"))
		ret = got = handed_on(one);
	else
		ret = knot_act(one, nu_str(how), two, &got);
	printf("it returned %d, %s\n", got, nu_strerror(ret));
	return ret || got ? 1 : 0;
}

int main(int argc, char **argv)
{
	/* One handler keeps what it is to do in a global. */
	const struct nu_run_options options = {.writable_globals = argc > 1 && !strcmp(argv[1], "handler")};

	return nu_run(argc, argv, mainfunc, &options);
}
