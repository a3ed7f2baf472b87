/* SPDX-License-Identifier: MIT */
/*
 * Threads, time and synchronisation inside a proclet. Included by nu.h.
 *
 * Objects here lie in a proclet's heap (or on a thread's stack) and are shared by that proclet's threads only. All
 * zero bytes are a valid initial state of each type that has no initialiser. Unless said otherwise a function may be
 * called from any thread of a proclet, may switch threads, and not from node_init or a foreign kernel thread.
 */
#pragma once

#include <stdatomic.h>

/* ---- threads ---- */

struct nu_thread;
typedef void (*nu_thread_fn)(void *arg);

/*
 * Starts a thread in the calling proclet that runs fn(arg). @thread_p: NULL starts it detached, else it must be joined
 * or detached. It dies with its proclet. Errors: -ENOMEM no stack is left (NU_STACK_KIB sets their size).
 */
NU_API int __must_check nu_thread_spawn(nu_thread_fn fn, void *arg, struct nu_thread **thread_p);
/* Waits until @thread ends and frees it. Errors: -EDEADLK oneself; -EINVAL detached or joined by another, or NULL. */
NU_API int nu_thread_join(struct nu_thread *thread);
/* Lets @thread be freed when it ends. Errors: -EINVAL already detached or being joined, or NULL. */
NU_API int nu_thread_detach(struct nu_thread *thread);
/* Lets others run first. */
NU_API void nu_yield(void);

/* ---- time: the proclet's clock, which never runs backwards when it moves ---- */

NU_API uint64_t nu_now_ns(void);
static inline uint64_t nu_now_us(void)
{
	return nu_now_ns() / 1000;
}
NU_API void nu_sleep_us(uint64_t us);
/* Sleeps until nu_now_us() >= @when_us. */
NU_API void nu_sleep_until_us(uint64_t when_us);

/* ---- synchronisation ---- */

/* Internal: waiting threads, first come first served, guarded by `lock` (0 free). */
struct nu_waitq {
	_Atomic uint32_t lock;
	uint32_t count;
	struct nu_thread *head, *tail;
};

/* Mutual exclusion; FIFO hand-over; not recursive. */
struct nu_mutex {
	_Atomic uint32_t state; /* 0 free, 1 held, 2 held and somebody waits */
	uint32_t owner_life;	/* tells the owner from a later thread that has its address */
	struct nu_thread *owner;
	struct nu_waitq waiters;
};
NU_API void nu_mutex_init(struct nu_mutex *m);
NU_API void nu_mutex_lock(struct nu_mutex *m);
NU_API bool __must_check nu_mutex_trylock(struct nu_mutex *m);
/* Errors: -ETIMEDOUT not free within @timeout_us. */
NU_API int __must_check nu_mutex_timedlock(struct nu_mutex *m, uint64_t timeout_us);
NU_API void nu_mutex_unlock(struct nu_mutex *m);

/* Condition variable, used with one mutex at a time. */
struct nu_cond {
	struct nu_waitq waiters;
};
NU_API void nu_cond_init(struct nu_cond *c);
NU_API void nu_cond_wait(struct nu_cond *c, struct nu_mutex *m);
/* Errors: -ETIMEDOUT (the mutex is held again in any case). */
NU_API int nu_cond_timedwait(struct nu_cond *c, struct nu_mutex *m, uint64_t timeout_us);
NU_API void nu_cond_signal(struct nu_cond *c);
NU_API void nu_cond_broadcast(struct nu_cond *c);

/* Readers and writers; a waiting writer keeps new readers out. */
struct nu_rwlock {
	_Atomic uint32_t lock;
	int32_t held; /* readers, or -1 for a writer */
	struct nu_waitq readers, writers;
	struct nu_thread *owner; /* the writer, or the reader that came last if none has left since */
	uint32_t owner_life, spare;
};
NU_API void nu_rwlock_init(struct nu_rwlock *l);
NU_API void nu_rwlock_rdlock(struct nu_rwlock *l);
NU_API void nu_rwlock_wrlock(struct nu_rwlock *l);
NU_API bool __must_check nu_rwlock_tryrdlock(struct nu_rwlock *l);
NU_API bool __must_check nu_rwlock_trywrlock(struct nu_rwlock *l);
NU_API void nu_rwlock_unlock(struct nu_rwlock *l);

/* Counting semaphore. */
struct nu_sem {
	struct nu_waitq waiters;
	int64_t value;
};
NU_API void nu_sem_init(struct nu_sem *s, int64_t value);
NU_API void nu_sem_wait(struct nu_sem *s);
NU_API bool __must_check nu_sem_trywait(struct nu_sem *s);
/* Errors: -ETIMEDOUT. */
NU_API int __must_check nu_sem_timedwait(struct nu_sem *s, uint64_t timeout_us);
NU_API void nu_sem_post(struct nu_sem *s);

/* Barrier for @parties threads; reusable. */
struct nu_barrier {
	struct nu_waitq waiters;
	uint32_t parties, arrived;
};
NU_API void nu_barrier_init(struct nu_barrier *b, unsigned parties);
/* Return: true in exactly one of the threads of each round. */
NU_API bool nu_barrier_wait(struct nu_barrier *b);

/* Runs a function once; later callers wait until it has returned. */
struct nu_once {
	struct nu_mutex mutex;
	_Atomic uint32_t done;
};
NU_API void nu_once(struct nu_once *o, void (*fn)(void *arg), void *arg);

/* Waits for a number of things to finish. */
struct nu_waitgroup {
	struct nu_waitq waiters;
	int64_t count;
};
NU_API void nu_waitgroup_add(struct nu_waitgroup *g, int64_t n);
NU_API void nu_waitgroup_done(struct nu_waitgroup *g);
NU_API void nu_waitgroup_wait(struct nu_waitgroup *g);

/*
 * Spin lock for a few instructions. Its holder may be interrupted and moved like any thread: lock and holder move
 * together; a spinner yields after a while.
 */
struct nu_spin {
	_Atomic uint32_t held;
};
NU_API void nu_spin_lock(struct nu_spin *s);
NU_API bool __must_check nu_spin_trylock(struct nu_spin *s);
NU_API void nu_spin_unlock(struct nu_spin *s);
