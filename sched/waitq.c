/* SPDX-License-Identifier: MIT */
/*
 * Waiter lists of the synchronisation objects: first come first served. They lie in a proclet's heap and only its own
 * threads touch them, so they stand still with it. A waker takes a waiter out of the list, then claims its wake-up; if
 * a time-out has won that, the waiter finds itself out of the list and the waker goes on to the next.
 */
#include "sched/sched_int.h"

void nu_waitq_push(struct nu_waitq *q, struct nu_thread *self, enum nu_wait_on on)
{
	if (unlikely(!self))
		nu_misuse("a mutex, condition or its like is waited for by a kernel thread that runs no "
			  "proclet: "
			  "before nu_run(), in node_init, or in a thread of pthread_create()");
	nu_wake_arm(self);
	self->wait_on = (uint8_t)on;
	self->waitq = q;
	self->wait_next = NULL;
	self->wait_prev = q->tail;
	if (q->tail)
		q->tail->wait_next = self;
	else
		q->head = self;
	q->tail = self;
	q->count++;
}

static void cut(struct nu_waitq *q, struct nu_thread *t)
{
	if (t->wait_prev)
		t->wait_prev->wait_next = t->wait_next;
	else
		q->head = t->wait_next;
	if (t->wait_next)
		t->wait_next->wait_prev = t->wait_prev;
	else
		q->tail = t->wait_prev;
	t->waitq = NULL;
	q->count--;
}

struct nu_thread *nu_waitq_pop(struct nu_waitq *q)
{
	struct nu_thread *t;

	while ((t = q->head)) {
		cut(q, t);
		if (likely(nu_wake_claim(t)))
			return t;
	}
	return NULL;
}

struct nu_thread *nu_waitq_pop_all(struct nu_waitq *q, uint32_t *n_p)
{
	struct nu_thread *first = NULL, *last = NULL, *t;

	*n_p = 0;
	while ((t = nu_waitq_pop(q))) {
		t->wait_next = NULL;
		if (last)
			last->wait_next = t;
		else
			first = t;
		last = t;
		++*n_p;
	}
	return first;
}

void nu_waitq_ready_all(struct nu_thread *t)
{
	while (t) {
		struct nu_thread *next = t->wait_next; /* once it is ready it may wait elsewhere */

		nu_thread_ready(t);
		t = next;
	}
}

/* Both are the proclet's threads. One that has ended as an owner is not looked at. */
bool nu_wait_is_circle(const struct nu_thread *self, const struct nu_thread *owner, uint32_t owner_life)
{
	return self && nu_sched.ops.is_waited_for && owner && owner != self && nu_thread_is_here(owner) &&
	       nu_thread_state(owner) == NU_THREAD_BLOCKED && nu_thread_life(owner) == owner_life &&
	       nu_sched.ops.is_waited_for(self, owner);
}

int nu_waitq_wait(struct nu_waitq *q, struct nu_lock *lock, uint64_t deadline_ns)
{
	int err = nu_thread_block_until(NU_WAIT_SYNC, lock, deadline_ns);
	struct nu_thread *self;

	if (likely(!err))
		return 0;
	self = nu_thread_self();
	nu_lock_acquire(lock);
	if (self->waitq)
		cut(q, self);
	nu_lock_release(lock);
	return err;
}
