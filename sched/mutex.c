/* SPDX-License-Identifier: MIT */
/* Mutexes. Handed over to the first waiter, so nobody starves. */
#include "sched/sched_int.h"

enum { FREE, HELD, HELD_WAITED };

/* One that is seen to be held is not written to: a locked instruction that fails costs as much as one that does not. */
static inline bool take(struct nu_mutex *m)
{
	uint32_t state = atomic_load_explicit(&m->state, memory_order_relaxed);

	if (state != FREE ||
	    !atomic_compare_exchange_strong_explicit(&m->state, &state, HELD, memory_order_acquire,
						     memory_order_relaxed))
		return false;
	m->owner = nu_running();
	return true;
}

/* Under the list's lock: 0 it is ours, else the calling thread must wait and the state says so. */
static bool take_or_mark(struct nu_mutex *m)
{
	uint32_t state = atomic_load_explicit(&m->state, memory_order_relaxed);

	for (;;) {
		if (state == HELD_WAITED)
			return false;
		if (atomic_compare_exchange_weak_explicit(&m->state, &state,
							  state == FREE ? HELD : HELD_WAITED,
							  memory_order_acquire, memory_order_relaxed))
			return state == FREE;
	}
}

static __attribute__((noinline)) int lock_slow(struct nu_mutex *m, uint64_t deadline_ns)
{
	struct nu_lock *lock = nu_waitq_lock(&m->waiters);
	struct nu_thread *self = nu_thread_self();

	nu_lock_acquire(lock);
	if (take_or_mark(m)) {
		m->owner = self;
		nu_lock_release(lock);
		return 0;
	}
	nu_waitq_push(&m->waiters, self);
	return nu_waitq_wait(&m->waiters, lock, deadline_ns); /* 0: it was handed to us */
}

void nu_mutex_init(struct nu_mutex *m)
{
	*m = (struct nu_mutex){0};
}

void nu_mutex_lock(struct nu_mutex *m)
{
	nu_point();
	if (unlikely(!take(m)))
		lock_slow(m, 0);
}

bool nu_mutex_trylock(struct nu_mutex *m)
{
	nu_point();
	return take(m);
}

int nu_mutex_timedlock(struct nu_mutex *m, uint64_t timeout_us)
{
	nu_preempt_point();
	if (take(m))
		return 0;
	return timeout_us ? lock_slow(m, nu_deadline_after_us(timeout_us)) : -ETIMEDOUT;
}

static __attribute__((noinline)) void unlock_slow(struct nu_mutex *m)
{
	struct nu_lock *lock = nu_waitq_lock(&m->waiters);
	struct nu_thread *t;

	nu_lock_acquire(lock);
	t = nu_waitq_pop(&m->waiters);
	m->owner = t;
	/* Nobody changes HELD_WAITED without the list's lock. */
	if (!t)
		atomic_store_explicit(&m->state, FREE, memory_order_release);
	else if (!m->waiters.head)
		atomic_store_explicit(&m->state, HELD, memory_order_relaxed);
	nu_lock_release(lock);
	if (t)
		nu_thread_ready(t);
}

/* One that is held by another thread may be handed on on purpose: it works, and is said once. */
static __attribute__((cold, noinline)) void odd_unlock(const struct nu_mutex *m)
{
	static atomic_bool said;

	if (!atomic_load_explicit(&m->state, memory_order_relaxed))
		nu_misuse("the mutex at %p is unlocked, but nobody holds it", (const void *)m);
	if (!atomic_exchange(&said, true))
		nu_warn("the mutex at %p is unlocked by another thread than the one that holds it, %p",
			(const void *)m, (const void *)m->owner);
}

void nu_mutex_unlock(struct nu_mutex *m)
{
	uint32_t state = atomic_load_explicit(&m->state, memory_order_relaxed);

	if (unlikely(m->owner != nu_running() || !state))
		odd_unlock(m);
	m->owner = NULL;
	if (unlikely(state == HELD_WAITED ||
		     !atomic_compare_exchange_strong_explicit(&m->state, &state, FREE, memory_order_release,
							      memory_order_relaxed)))
		unlock_slow(m);
}
