/* SPDX-License-Identifier: MIT */
/* Mutexes. Handed over to the first waiter, so nobody starves. */
#include "sched/sched_int.h"

enum { FREE, HELD, HELD_WAITED };

static inline void mutex_own(struct nu_mutex *m, struct nu_thread *t)
{
	__atomic_store_n(&m->owner, t, __ATOMIC_RELAXED); /* those who wait look */
	if (likely(t))
		__atomic_store_n(&m->owner_life, nu_thread_life(t), __ATOMIC_RELAXED);
}

static struct nu_thread *mutex_owner(const struct nu_mutex *m, uint32_t *life_p)
{
	*life_p = __atomic_load_n(&m->owner_life, __ATOMIC_RELAXED);
	return __atomic_load_n(&m->owner, __ATOMIC_RELAXED);
}

/* Whether @self itself has taken it: its owner's address may be that of a thread which has ended. */
static bool mutex_is_mine(const struct nu_mutex *m, const struct nu_thread *self)
{
	uint32_t life;

	return self && mutex_owner(m, &life) == self && life == nu_thread_life(self);
}

/* One that is seen to be held is not written to: a locked instruction that fails costs as much as one that does not. */
static inline bool take(struct nu_mutex *m, struct nu_thread *self)
{
	uint32_t state = atomic_load_explicit(&m->state, memory_order_relaxed);

	if (state != FREE ||
	    !atomic_compare_exchange_strong_explicit(&m->state, &state, HELD, memory_order_acquire,
						     memory_order_relaxed))
		return false;
	mutex_own(m, self);
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

/*
 * Waiting for ever is said where it begins: the holder is the calling thread, or waits for the call that this serves. What
 * another thread could still unlock on purpose is not thought of: that is no way to use a mutex.
 */
static __attribute__((cold, noinline)) void mutex_never_free(const struct nu_mutex *m,
							     const struct nu_thread *self)
{
	const struct nu_method *called = self->serve_method;

	if (mutex_is_mine(m, self))
		nu_misuse("the mutex at %p is locked by thread %p, which holds it already: it would wait for "
			  "itself "
			  "for ever",
			  (const void *)m, (const void *)self);
	nu_misuse(
		"the mutex at %p is locked by thread %p%s%s%s%s, but thread %p, which holds it, waits until "
		"that has "
		"ended: neither can go on",
		(const void *)m, (const void *)self, called ? ", method " : "",
		called ? called->class_name : "", called ? "." : "", called ? called->name : "",
		(const void *)m->owner);
}

static __attribute__((noinline)) int lock_slow(struct nu_mutex *m, uint64_t deadline_ns)
{
	struct nu_lock *lock = nu_waitq_lock(&m->waiters);
	struct nu_thread *self = nu_thread_self();

	nu_lock_acquire(lock);
	if (take_or_mark(m)) {
		mutex_own(m, self);
		nu_lock_release(lock);
		return 0;
	}
	if (!deadline_ns && mutex_is_mine(m, self)) {
		nu_lock_release(lock);
		mutex_never_free(m, self);
	}
	nu_waitq_push(&m->waiters, self, NU_ON_MUTEX);
	return nu_waitq_wait(&m->waiters, lock, deadline_ns); /* 0: it was handed to us */
}

static __attribute__((noinline)) void lock_for_ever(struct nu_mutex *m)
{
	uint32_t life, again;
	const struct nu_thread *owner = mutex_owner(m, &life);

	/* Looked at again, since it may have been unlocked before its holder began to wait. */
	if (unlikely(nu_wait_is_circle(nu_running(), owner, life) && mutex_owner(m, &again) == owner &&
		     again == life))
		mutex_never_free(m, nu_running());
	lock_slow(m, 0);
}

void nu_mutex_init(struct nu_mutex *m)
{
	*m = (struct nu_mutex){0};
}

void nu_mutex_lock(struct nu_mutex *m)
{
	if (unlikely(!take(m, nu_running_point())))
		lock_for_ever(m);
}

bool nu_mutex_trylock(struct nu_mutex *m)
{
	return take(m, nu_running_point());
}

int nu_mutex_timedlock(struct nu_mutex *m, uint64_t timeout_us)
{
	if (take(m, nu_running_point()))
		return 0;
	return timeout_us ? lock_slow(m, nu_deadline_after_us(timeout_us)) : -ETIMEDOUT;
}

static __attribute__((noinline)) void unlock_slow(struct nu_mutex *m)
{
	struct nu_lock *lock = nu_waitq_lock(&m->waiters);
	struct nu_thread *t;

	nu_lock_acquire(lock);
	t = nu_waitq_pop(&m->waiters);
	mutex_own(m, t);
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

	if (unlikely(__atomic_load_n(&m->owner, __ATOMIC_RELAXED) != nu_running() || !state))
		odd_unlock(m);
	__atomic_store_n(&m->owner, NULL, __ATOMIC_RELAXED);
	if (unlikely(state == HELD_WAITED ||
		     !atomic_compare_exchange_strong_explicit(&m->state, &state, FREE, memory_order_release,
							      memory_order_relaxed)))
		unlock_slow(m);
}
