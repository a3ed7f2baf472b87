/* SPDX-License-Identifier: MIT */
/* Counting semaphores. A post goes to the first waiter, if there is one. */
#include "sched/sched_int.h"

void nu_sem_init(struct nu_sem *s, int64_t value)
{
	*s = (struct nu_sem){.value = value};
}

static int wait(struct nu_sem *s, bool forever, uint64_t timeout_us)
{
	struct nu_lock *lock = nu_waitq_lock(&s->waiters);
	bool ok;

	nu_preempt_point();
	nu_lock_acquire(lock);
	ok = s->value > 0;
	if (ok)
		s->value--;
	if (ok || (!forever && !timeout_us)) {
		nu_lock_release(lock);
		return ok ? 0 : -ETIMEDOUT;
	}
	nu_waitq_push(&s->waiters, nu_thread_self(), NU_ON_SEM);
	return nu_waitq_wait(&s->waiters, lock, forever ? 0 : nu_deadline_after_us(timeout_us));
}

void nu_sem_wait(struct nu_sem *s)
{
	wait(s, true, 0);
}

bool nu_sem_trywait(struct nu_sem *s)
{
	return !wait(s, false, 0);
}

int nu_sem_timedwait(struct nu_sem *s, uint64_t timeout_us)
{
	return wait(s, false, timeout_us);
}

void nu_sem_post(struct nu_sem *s)
{
	struct nu_lock *lock = nu_waitq_lock(&s->waiters);
	struct nu_thread *t = NULL;

	nu_preempt_point();
	nu_lock_acquire(lock);
	/* A negative start value takes posts of its own first. */
	if (s->value >= 0)
		t = nu_waitq_pop(&s->waiters);
	if (!t)
		s->value++;
	nu_lock_release(lock);
	if (t)
		nu_thread_ready(t);
}
