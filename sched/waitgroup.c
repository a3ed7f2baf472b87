/* SPDX-License-Identifier: MIT */
/* Wait groups. */
#include "sched/sched_int.h"

void nu_waitgroup_add(struct nu_waitgroup *g, int64_t n)
{
	struct nu_lock *lock = nu_waitq_lock(&g->waiters);
	struct nu_thread *chain = NULL;
	uint32_t woken;

	nu_preempt_point();
	nu_lock_acquire(lock);
	g->count += n;
	if (g->count <= 0)
		chain = nu_waitq_pop_all(&g->waiters, &woken);
	nu_lock_release(lock);
	/* The group itself may be gone from here on: it often lies on a waiter's stack. */
	nu_waitq_ready_all(chain);
}

void nu_waitgroup_done(struct nu_waitgroup *g)
{
	nu_waitgroup_add(g, -1);
}

void nu_waitgroup_wait(struct nu_waitgroup *g)
{
	struct nu_lock *lock = nu_waitq_lock(&g->waiters);

	nu_preempt_point();
	nu_lock_acquire(lock);
	if (g->count <= 0) {
		nu_lock_release(lock);
		return;
	}
	nu_waitq_push(&g->waiters, nu_thread_self(), NU_ON_WAITGROUP);
	nu_waitq_wait(&g->waiters, lock, 0);
}
