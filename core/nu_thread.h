/* SPDX-License-Identifier: MIT */
/*
 * Threads, time and synchronisation inside a proclet. Included by nu.h.
 *
 * Objects here lie in a proclet's heap (or on a thread's stack) and are shared by that proclet's threads only; the
 * program owns their memory. They need no end: an object may be freed when no thread holds it or is in a call with it.
 * All zero bytes are a valid initial state of each type, but of a barrier. The words of `Context:` are nu.h's.
 *
 * A foreign kernel thread must not touch such an object, since the proclet may be moved away meanwhile. In node_init an
 * object works as long as nobody need wait; a kernel thread that runs no proclet and would have to wait ends its node
 * with a line that says so.
 */
#pragma once

#include <stdatomic.h>

/* ---- threads ---- */

struct nu_thread;
typedef void (*nu_thread_fn)(void *arg);

/*
 * Starts a thread in the calling proclet that runs fn(arg); @arg is handed on as it is. @thread_p: NULL starts
 * it detached, else it gets the thread before that runs, which must be joined or detached. The thread moves
 * with its proclet and dies with it. Its stack has the size that NU_STACK_KIB sets. It has no deadline
 * (nu_deadline_set_us()).
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -ENOMEM no stack is left, or no memory or mapping for one; -EINVAL no proclet's thread.
 * Source: 3.
 */
NU_API int __must_check nu_thread_spawn(nu_thread_fn fn, void *arg, struct nu_thread **thread_p);

/*
 * Waits until @thread, one of the calling proclet's, has ended, and frees it: @thread is used up.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -EDEADLK @thread is the calling one, or NULL where no proclet's thread calls; -EINVAL it is detached,
 * joined already or being joined by another, of another proclet, or NULL, or no proclet's thread calls.
 */
NU_API int nu_thread_join(struct nu_thread *thread);

/*
 * Lets @thread, one of the calling proclet's, be freed when it ends, or now if it has: @thread is used up.
 * Context: proclet's thread, that of @thread itself too, callbacks included; may switch. node_init: there is
 * none to detach. Foreign kernel thread: must not, since @thread may be moved away meanwhile.
 * Errors: -EINVAL it is detached already, joined or being joined, or NULL.
 */
NU_API int nu_thread_detach(struct nu_thread *thread);

/*
 * Lets other threads that can run on the core run first; returns at once if there are none.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: does nothing.
 */
NU_API void nu_yield(void);

/* ---- time: the proclet's clock, which never runs backwards when it moves ---- */

/*
 * The proclet's clock, in nanoseconds: monotonic, with an origin of no meaning. It never runs backwards when
 * the proclet is moved. Clocks of different proclets are not to be compared.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: the node's
 * CLOCK_MONOTONIC.
 */
NU_API uint64_t nu_now_ns(void);
/* The same in microseconds, rounded down. Context: as nu_now_ns(). */
static inline uint64_t nu_now_us(void)
{
	return nu_now_ns() / 1000;
}
/*
 * Sleeps for at least @us microseconds of the proclet's clock; 0 is nu_yield().
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: the kernel
 * thread sleeps.
 */
NU_API void nu_sleep_us(uint64_t us);

/*
 * Sleeps until nu_now_us() >= @when_us, a time of the proclet's clock in microseconds; one that has passed
 * returns at once.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: the kernel
 * thread sleeps, until the node's CLOCK_MONOTONIC says so.
 */
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
/*
 * Makes *@m a free mutex. So do zero bytes.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_mutex_init(struct nu_mutex *m);

/*
 * Locks @m, waiting until the threads that asked before have had it. It would wait for ever if the calling
 * thread holds it already, or if the holder waits for the call that the calling thread serves (as far as that
 * is known on this node): then the node ends, with a line that names both threads.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API void nu_mutex_lock(struct nu_mutex *m);

/*
 * Locks @m if it is free. Return: whether it did; false, too, if the calling thread holds it.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API bool __must_check nu_mutex_trylock(struct nu_mutex *m);

/*
 * Locks @m unless that takes longer than @timeout_us from now on; 0 does not wait. A thread that holds it
 * already just times out.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 * Errors: -ETIMEDOUT not free within @timeout_us.
 */
NU_API int __must_check nu_mutex_timedlock(struct nu_mutex *m, uint64_t timeout_us);

/*
 * Unlocks @m: the thread that has waited longest holds it then. If nobody holds it the node ends, with a line
 * that names it. Another thread than the one that holds it may unlock it, which is said once in the log.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_mutex_unlock(struct nu_mutex *m);

/* Condition variable, used with one mutex at a time. */
struct nu_cond {
	struct nu_waitq waiters;
};
/*
 * Makes *@c a condition that nobody waits for. So do zero bytes.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_cond_init(struct nu_cond *c);

/*
 * Unlocks @m, which the calling thread holds, waits for a signal or broadcast of @c, and locks @m again. One
 * that comes after @m was unlocked is not missed. The thread may have to wait for @m, and others may have
 * changed what it guards: look again.
 * Context: proclet's thread, callbacks included; may switch. node_init: no, since it always waits. Foreign
 * kernel thread: no.
 */
NU_API void nu_cond_wait(struct nu_cond *c, struct nu_mutex *m);

/*
 * As nu_cond_wait(), but waits for a signal for at most @timeout_us from now on. Then it waits for @m as long
 * as that takes: the mutex is held again in any case.
 * Context: proclet's thread, callbacks included; may switch. node_init: no, since it always waits. Foreign
 * kernel thread: no.
 * Errors: -ETIMEDOUT no signal came within @timeout_us.
 */
NU_API int nu_cond_timedwait(struct nu_cond *c, struct nu_mutex *m, uint64_t timeout_us);

/*
 * Wakes the thread that has waited longest for @c, if there is one. The mutex need not be held.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API void nu_cond_signal(struct nu_cond *c);

/*
 * Wakes all threads that wait for @c. The mutex need not be held.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API void nu_cond_broadcast(struct nu_cond *c);

/* Readers and writers; a waiting writer keeps new readers out. */
struct nu_rwlock {
	_Atomic uint32_t lock;
	int32_t held; /* readers, or -1 for a writer */
	struct nu_waitq readers, writers;
	struct nu_thread *owner; /* the writer, or the reader that came last if none has left since */
	uint32_t owner_life, spare;
};
/*
 * Makes *@l a free lock. So do zero bytes.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_rwlock_init(struct nu_rwlock *l);

/*
 * Locks @l for reading, beside other readers, once no writer holds it or waits for it. A thread that is known
 * to hold it already and would wait for itself (it holds it for writing, or a writer waits), and one whose end
 * the holder waits for, end the node, with a line that names both threads. Of several readers the last that
 * came is known, if none has left since.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API void nu_rwlock_rdlock(struct nu_rwlock *l);

/*
 * Locks @l for writing, alone. A thread that is known to hold it already, for reading or writing, and one whose
 * end the holder waits for, end the node as in nu_rwlock_rdlock().
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API void nu_rwlock_wrlock(struct nu_rwlock *l);

/*
 * Locks @l for reading if no writer holds it or waits for it. Return: whether it did.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API bool __must_check nu_rwlock_tryrdlock(struct nu_rwlock *l);

/*
 * Locks @l for writing if nobody holds it. Return: whether it did.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API bool __must_check nu_rwlock_trywrlock(struct nu_rwlock *l);

/*
 * Unlocks @l, which is held for reading or writing. After a writer all readers that wait have it, else the
 * writer that has waited longest, and after the last reader that writer. If nobody holds it the node ends, with
 * a line that names it.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_rwlock_unlock(struct nu_rwlock *l);

/* Counting semaphore. */
struct nu_sem {
	struct nu_waitq waiters;
	int64_t value;
};
/*
 * Makes *@s a semaphore that @value waits take at once; a negative @value takes that many posts first. Zero
 * bytes are one of 0.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_sem_init(struct nu_sem *s, int64_t value);

/*
 * Takes 1 from @s, waiting while it is 0 or less; first come, first served.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API void nu_sem_wait(struct nu_sem *s);

/*
 * Takes 1 from @s if it is above 0. Return: whether it did.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API bool __must_check nu_sem_trywait(struct nu_sem *s);

/*
 * As nu_sem_wait(), but waits for at most @timeout_us from now on; 0 does not wait.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 * Errors: -ETIMEDOUT nothing was to be taken within @timeout_us.
 */
NU_API int __must_check nu_sem_timedwait(struct nu_sem *s, uint64_t timeout_us);

/*
 * Hands 1 to the thread that has waited longest, or adds it to @s if none waits.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API void nu_sem_post(struct nu_sem *s);

/* Barrier for @parties threads; reusable. */
struct nu_barrier {
	struct nu_waitq waiters;
	uint32_t parties, arrived;
};
/*
 * Makes *@b a barrier for @parties threads; with 0 or 1, as with zero bytes, nobody waits at it.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_barrier_init(struct nu_barrier *b, unsigned parties);

/*
 * Waits until as many threads as the barrier is for have come; then all go on, and the next round begins.
 * Return: true in exactly one of the threads of each round, the last that came.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API bool nu_barrier_wait(struct nu_barrier *b);

/* Runs a function once; later callers wait until it has returned. */
struct nu_once {
	struct nu_mutex mutex;
	_Atomic uint32_t done;
};
/*
 * Calls fn(arg) on the calling thread, if it is the first to come to @o; later callers wait until @fn has
 * returned, then do nothing. @fn may switch and call anything but nu_once() of the same @o, which ends the node
 * as a mutex that is locked twice.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API void nu_once(struct nu_once *o, void (*fn)(void *arg), void *arg);

/* Waits for a number of things to finish. */
struct nu_waitgroup {
	struct nu_waitq waiters;
	int64_t count;
};
/*
 * Adds @n, which may be negative, to the number of things that are not finished; all waiting threads go on when
 * it comes to 0 or less. From then on @g itself is not touched, so that it may lie on a waiting thread's stack.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API void nu_waitgroup_add(struct nu_waitgroup *g, int64_t n);

/*
 * One thing is finished: nu_waitgroup_add() of -1.
 * Context: proclet's thread, callbacks included; may switch, but does not wait. node_init: yes. Foreign kernel
 * thread: no.
 */
NU_API void nu_waitgroup_done(struct nu_waitgroup *g);

/*
 * Waits until everything is finished; returns at once if nothing was added.
 * Context: proclet's thread, callbacks included; may switch. node_init: only if it need not wait. Foreign
 * kernel thread: no.
 */
NU_API void nu_waitgroup_wait(struct nu_waitgroup *g);

/*
 * Spin lock for a few instructions. Its holder may be interrupted and moved like any thread: lock and holder move
 * together; a spinner yields after a while.
 */
struct nu_spin {
	_Atomic uint32_t held;
};
/*
 * Locks @s, spinning until it is free, with a nu_yield() every 100 looks. Not recursive: a thread that holds it
 * spins for ever.
 * Context: proclet's thread, callbacks included; may switch. node_init: yes, it only spins. Foreign kernel
 * thread: no.
 */
NU_API void nu_spin_lock(struct nu_spin *s);

/*
 * Locks @s if it is free. Return: whether it did.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API bool __must_check nu_spin_trylock(struct nu_spin *s);

/*
 * Unlocks @s; whether it was locked, and by which thread, is not looked at.
 * Context: proclet's thread, callbacks included; does not switch. node_init: yes. Foreign kernel thread: no.
 */
NU_API void nu_spin_unlock(struct nu_spin *s);
