/* SPDX-License-Identifier: MIT */
/*
 * Pausing a proclet. The flag is set under the proclet's lock; every enqueue looks at it under a run-queue lock, so
 * once the pauser has gone through every queue no thread of the proclet is in one or comes into one. What is left
 * runs, or is on its way between two places; it is waited for and interrupted. A thread is still when it is BLOCKED,
 * PARKED or DONE with its registers saved; from there it can only become PARKED, and nothing in flight does that
 * unseen: a wake-up that has been claimed counts as motion.
 */
#include "sched/sched_int.h"

#include <sched.h>

#define POLL_NS	 5000  /* before the first signal */
#define RETRY_NS 20000 /* between signals */

enum { SEEN_NOT, SEEN_RUNNING, SEEN_STILL };

static bool is_still(struct nu_thread *t)
{
	/* In this order: a thread that runs has `running` set before it changes its state. */
	uint32_t state = nu_thread_state(t);

	if (atomic_load_explicit(&t->running, memory_order_acquire))
		return false;
	switch (state) {
	case NU_THREAD_PARKED:
		nu_timer_cancel(t); /* woken before its deadline, and has not got round to this itself */
		return true;
	case NU_THREAD_DONE:
		return true;
	case NU_THREAD_BLOCKED:
		nu_timer_cancel(t); /* the deadline is kept; if the timer has just won, that shows now */
		if (!t->claimable)
			return true;
		/* Claimed, it is about to run: nu_runq_skip(). And it may have run since we looked, and wait for another. */
		return atomic_load_explicit(&t->wake, memory_order_seq_cst) &&
		       !atomic_load_explicit(&t->running, memory_order_acquire);
	default:
		return false;
	}
}

static void count(struct nu_thread *t)
{
	enum nu_stat which;

	if (t->pause_seen == SEEN_RUNNING && t->state != NU_THREAD_DONE)
		which = NU_STAT_PAUSE_RUNNING;
	else if (t->state == NU_THREAD_PARKED)
		which = NU_STAT_PAUSE_RUNNABLE;
	else if (t->state != NU_THREAD_BLOCKED)
		return;
	else if (t->wait == NU_WAIT_SLEEP)
		which = NU_STAT_PAUSE_SLEEP;
	else if (t->wait == NU_WAIT_SYNC)
		which = NU_STAT_PAUSE_SYNC;
	else if (t->wait == NU_WAIT_REPLY_LOCAL)
		which = NU_STAT_PAUSE_REPLY_LOCAL;
	else if (t->wait == NU_WAIT_REPLY_REMOTE)
		which = NU_STAT_PAUSE_REPLY_REMOTE;
	else
		return;
	nu_stat_add_shared(which, 1);
}

/* Takes p's threads out of @c's queue. p->lock held. */
static void clear_queue(struct nu_core *c, struct nu_proclet *p)
{
	struct nu_list *e, *n;

	nu_lock_acquire(&c->lock);
	nu_list_for_each_safe (e, n, &c->queue) {
		struct nu_thread *t = nu_list_entry(e, struct nu_thread, link);

		if (t->proclet != p)
			continue;
		nu_list_del(e);
		atomic_fetch_sub(&c->nqueued, 1);
		nu_thread_set_state(t, NU_THREAD_PARKED);
		nu_list_add_tail(&p->parked, e);
	}
	nu_lock_release(&c->lock);
}

enum { LOOK, ASK, ASK_AND_SIGNAL };

static void ask(struct nu_thread *t, int how)
{
	struct nu_core *c = nu_core_at(nu_thread_core(t));

	if (nu_thread_state(t) != NU_THREAD_RUNNING || !c)
		return;
	t->pause_seen = SEEN_RUNNING;
	if (atomic_load_explicit(&c->current, memory_order_relaxed) != t)
		return;
	atomic_store_explicit(&c->preempt_req, 1, memory_order_relaxed);
	if (how == ASK_AND_SIGNAL)
		nu_preempt_signal(c);
}

/*
 * One look at the threads that are not known to be still. Those that are go to the list's end, so that the next look
 * costs only what still moves; new ones are linked at its front. Return: how many move. p->lock held.
 */
static unsigned look(struct nu_proclet *p, int how)
{
	struct nu_list *e, *n;
	unsigned moving = 0;

	nu_list_for_each_safe (e, n, &p->threads) {
		struct nu_thread *t = nu_list_entry(e, struct nu_thread, proclet_link);

		if (t->pause_seen == SEEN_STILL)
			break;
		if (!is_still(t)) {
			moving++;
			if (how != LOOK)
				ask(t, how);
			continue;
		}
		count(t);
		t->pause_seen = SEEN_STILL;
		nu_list_del(e);
		nu_list_add_tail(&p->threads, e);
	}
	return moving;
}

/* Polls first: runtime calls are frequent. Then signals, again and again: the thread may be where it must not stop. */
static int wait_still(struct nu_proclet *p, uint64_t deadline_ns)
{
	uint64_t begin = nu_mono_ns(), next_signal = begin + POLL_NS, now = begin;
	int how = ASK;

	for (;;) {
		unsigned moving;

		nu_lock_acquire(&p->lock);
		moving = look(p, how);
		nu_lock_release(&p->lock);
		if (!moving)
			return 0;
		now = nu_mono_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		how = LOOK;
		if (now >= next_signal) {
			how = ASK_AND_SIGNAL;
			next_signal = now + RETRY_NS;
		}
		/* The one that we wait for may need this very processor. */
		if (now - begin > 2 * RETRY_NS)
			sched_yield();
		else
			nu_cpu_relax();
	}
}

/* The first of those that did not stop. */
static void say_stuck(struct nu_proclet *p)
{
	struct nu_core *c = NULL;
	struct nu_thread *t;
	struct nu_list *e;

	nu_lock_acquire(&p->lock);
	nu_list_for_each (e, &p->threads) {
		t = nu_list_entry(e, struct nu_thread, proclet_link);
		if (t->pause_seen == SEEN_STILL)
			break;
		c = nu_core_at(nu_thread_core(t)); /* it may just be going to another */
		if (c && nu_thread_state(t) == NU_THREAD_RUNNING)
			break;
		c = NULL;
	}
	/* The lock keeps it: a thread unlinks itself under it. */
	if (c)
		nu_preempt_say_stuck(c, t, "its proclet can neither move nor end");
	nu_lock_release(&p->lock);
}

int nu_freeze(struct nu_proclet *p, uint64_t timeout_us)
{
	uint64_t deadline_ns = nu_deadline_after_us(timeout_us);
	int err;

	nu_lock_acquire(&p->lock);
	NU_ASSERT(!p->frozen);
	nu_list_init(&p->parked);
	atomic_store(&p->frozen, true);
	nu_quick_close(p);
	/* Proclet lock, then run-queue lock: a thread that meets the flag under the latter drops it before it parks. */
	for (unsigned i = 0; i < nu_sched.ncores; i++)
		clear_queue(nu_sched.cores[i], p);
	nu_lock_release(&p->lock);
	err = wait_still(p, deadline_ns);
	if (err) {
		say_stuck(p);
		nu_thaw(p);
	}
	return err;
}

/* p->lock held and still frozen: a timer that fires at once parks its thread after us. */
static void restart_timer(struct nu_thread *t)
{
	if (t->pause_seen == SEEN_STILL && t->state == NU_THREAD_BLOCKED && t->deadline_ns && !t->timer_index)
		nu_timer_arm(nu_sched.cores[t->core % nu_sched.ncores], t, t->deadline_ns);
	t->pause_seen = SEEN_NOT;
}

void nu_thaw(struct nu_proclet *p)
{
	struct nu_list parked, *e;

	nu_list_init(&parked);
	nu_lock_acquire(&p->lock);
	nu_list_for_each (e, &p->threads)
		restart_timer(nu_list_entry(e, struct nu_thread, proclet_link));
	while (!nu_list_empty(&p->parked)) {
		e = p->parked.next;
		nu_list_del(e);
		/* On its way to a queue: should it be frozen again before it gets there, that pauser waits for it. */
		nu_thread_set_state(nu_list_entry(e, struct nu_thread, link), NU_THREAD_RUNNABLE);
		nu_list_add_tail(&parked, e);
	}
	atomic_store(&p->frozen, false);
	nu_lock_release(&p->lock);
	while (!nu_list_empty(&parked)) {
		e = parked.next;
		nu_list_del(e);
		nu_thread_ready(nu_list_entry(e, struct nu_thread, link));
	}
}

void nu_threads_discard(struct nu_proclet *p)
{
	struct nu_list *e;

	NU_ASSERT(p->frozen);
	nu_lock_acquire(&p->lock);
	while (!nu_list_empty(&p->threads)) {
		struct nu_thread *t = nu_list_entry(p->threads.next, struct nu_thread, proclet_link);

		nu_thread_unlink(t);
		e = &t->link;
		if (t->state == NU_THREAD_PARKED)
			nu_list_del(e);
		nu_lock_release(&p->lock); /* its stack may go home over the network */
		nu_timer_cancel(t);
		nu_thread_free(t);
		nu_lock_acquire(&p->lock);
	}
	nu_list_init(&p->parked);
	nu_lock_release(&p->lock);
}

void nu_thread_arrived(struct nu_thread *t, struct nu_proclet *p)
{
	t->proclet = p;
	t->core = (uint16_t)nu_core_self();
	t->handed_by = NULL;
	t->moves++;
	t->timer_index = 0; /* armed by nu_thaw() from its deadline */
	t->pause_seen = SEEN_STILL;
	nu_list_init(&t->proclet_link);
	nu_thread_link(t);
	if (t->state == NU_THREAD_PARKED) {
		nu_list_init(&t->link);
		nu_list_add_tail(&p->parked, &t->link);
	}
}
