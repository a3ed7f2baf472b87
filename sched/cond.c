/* SPDX-License-Identifier: MIT */
/* Condition variables. */
#include "sched/sched_int.h"

void nu_cond_init(struct nu_cond *c)
{
	*c = (struct nu_cond){0};
}

static int wait(struct nu_cond *c, struct nu_mutex *m, uint64_t deadline_ns)
{
	struct nu_lock *lock = nu_waitq_lock(&c->waiters);
	int err;

	nu_preempt_point();
	nu_lock_acquire(lock);
	nu_waitq_push(&c->waiters, nu_thread_self(), NU_ON_COND);
	/* In the list before the mutex is free: a signal that follows cannot miss us. */
	nu_mutex_unlock(m);
	err = nu_waitq_wait(&c->waiters, lock, deadline_ns);
	nu_mutex_lock(m);
	return err;
}

void nu_cond_wait(struct nu_cond *c, struct nu_mutex *m)
{
	wait(c, m, 0);
}

int nu_cond_timedwait(struct nu_cond *c, struct nu_mutex *m, uint64_t timeout_us)
{
	return wait(c, m, nu_deadline_after_us(timeout_us));
}

void nu_cond_signal(struct nu_cond *c)
{
	struct nu_lock *lock = nu_waitq_lock(&c->waiters);
	struct nu_thread *t;

	nu_preempt_point();
	nu_lock_acquire(lock);
	t = nu_waitq_pop(&c->waiters);
	nu_lock_release(lock);
	if (t)
		nu_thread_ready(t);
}

void nu_cond_broadcast(struct nu_cond *c)
{
	struct nu_lock *lock = nu_waitq_lock(&c->waiters);
	struct nu_thread *chain;
	uint32_t n;

	nu_preempt_point();
	nu_lock_acquire(lock);
	chain = nu_waitq_pop_all(&c->waiters, &n);
	nu_lock_release(lock);
	nu_waitq_ready_all(chain);
}
