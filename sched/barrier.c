/* SPDX-License-Identifier: MIT */
/* Barriers. */
#include "sched/sched_int.h"

void nu_barrier_init(struct nu_barrier *b, unsigned parties)
{
	*b = (struct nu_barrier){.parties = parties};
}

bool nu_barrier_wait(struct nu_barrier *b)
{
	struct nu_lock *lock = nu_waitq_lock(&b->waiters);
	struct nu_thread *chain;
	uint32_t n;

	nu_preempt_point();
	nu_lock_acquire(lock);
	if (++b->arrived < b->parties) {
		nu_waitq_push(&b->waiters, nu_thread_self(), NU_ON_BARRIER);
		nu_waitq_wait(&b->waiters, lock, 0);
		return false;
	}
	b->arrived = 0;
	chain = nu_waitq_pop_all(&b->waiters, &n);
	nu_lock_release(lock);
	nu_waitq_ready_all(chain);
	return true;
}
