/* SPDX-License-Identifier: MIT */
/* Run queues: one per core, intrusive, so that a pause can take a thread out of the middle. And stealing from them. */
#include "sched/sched_int.h"

static bool is_frozen(const struct nu_thread *t)
{
	return atomic_load_explicit(&t->proclet->frozen, memory_order_relaxed);
}

/* Lock held. */
static inline void push(struct nu_core *c, struct nu_thread *t, bool first)
{
	nu_thread_set_state(t, NU_THREAD_RUNNABLE);
	nu_list_add_tail(first ? c->queue.next : &c->queue, &t->link);
	atomic_store_explicit(&c->nqueued, atomic_load_explicit(&c->nqueued, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* Lock held. From here on @t counts as running, for the pauser too. */
static void take(struct nu_core *c, struct nu_thread *t)
{
	nu_list_del(&t->link);
	atomic_store_explicit(&c->nqueued, atomic_load_explicit(&c->nqueued, memory_order_relaxed) - 1,
			      memory_order_relaxed);
}

bool nu_runq_put(struct nu_core *c, struct nu_thread *t, bool first)
{
	nu_lock_acquire(&c->lock);
	/* Under this lock: the pauser sets the flag, then goes through every queue. */
	if (unlikely(is_frozen(t))) {
		nu_lock_release(&c->lock);
		return false;
	}
	push(c, t, first);
	nu_lock_release(&c->lock);
	return true;
}

struct nu_thread *nu_runq_pop(struct nu_core *c)
{
	struct nu_thread *t = NULL;

	if (!atomic_load_explicit(&c->nqueued, memory_order_relaxed))
		return NULL;
	nu_lock_acquire(&c->lock);
	if (likely(!nu_list_empty(&c->queue))) {
		t = nu_list_entry(c->queue.next, struct nu_thread, link);
		take(c, t);
		nu_thread_set_state(t, NU_THREAD_RUNNING);
	}
	nu_lock_release(&c->lock);
	return t;
}

struct nu_thread *nu_runq_next(struct nu_core *c, struct nu_thread *self)
{
	struct nu_thread *t;

	c->ticks += NU_HANDOFF_TICKS;
	if (unlikely(c->within || c->ticks >= NU_POLL_TICKS * NU_HANDOFF_TICKS))
		return NULL;
	t = nu_runq_pop(c);
	if (t && t != self && unlikely(atomic_load_explicit(&t->running, memory_order_acquire))) {
		c->next = t; /* it is leaving another core: the scheduler's context waits for that */
		return NULL;
	}
	return t;
}

/*
 * The pauser sets the flag, then looks at the thread: it has either seen that the wake-up is claimed, which counts as
 * motion, and waits, or the flag was set before we claimed it, and we see that. Hence one order of all four.
 */
bool nu_runq_skip(struct nu_core *c, struct nu_thread *t)
{
	if (unlikely(c->next || c->within ||
		     c->ticks + NU_HANDOFF_TICKS >= NU_POLL_TICKS * NU_HANDOFF_TICKS ||
		     atomic_load_explicit(&t->proclet->frozen, memory_order_seq_cst) ||
		     atomic_load_explicit(&t->running, memory_order_acquire)))
		return false;
	c->ticks += NU_HANDOFF_TICKS;
	nu_thread_turn_to(c, t); /* before the state: the pauser looks at that first */
	nu_thread_set_state(t, NU_THREAD_RUNNING);
	return true;
}

bool nu_thread_park(struct nu_thread *t)
{
	struct nu_proclet *p = t->proclet;

	nu_lock_acquire(&p->lock);
	if (!is_frozen(t)) {
		nu_lock_release(&p->lock);
		return false;
	}
	nu_thread_set_state(t, NU_THREAD_PARKED);
	nu_list_add_tail(&p->parked, &t->link);
	nu_lock_release(&p->lock);
	return true;
}

/* The stray thread @self yields: on a side, whose lock is held, nothing would run it again. */
static __attribute__((cold, noinline)) struct nu_thread *runq_come_back(struct nu_core *side,
									struct nu_thread *self)
{
	struct nu_core *c = nu_core_any();

	nu_lock_release(&side->lock);
	nu_ready_on(c, self, false);
	nu_core_kick(c);
	return NULL;
}

struct nu_thread *nu_runq_yield(struct nu_core *c, struct nu_thread *self)
{
	struct nu_thread *next = NULL;

	nu_lock_acquire(&c->lock);
	if (unlikely(is_frozen(self))) {
		nu_lock_release(&c->lock);
		return nu_thread_park(self) ? nu_runq_next(c, self) : self;
	}
	c->ticks += NU_HANDOFF_TICKS;
	if (unlikely(c->within || c->ticks >= NU_POLL_TICKS * NU_HANDOFF_TICKS)) {
		if (unlikely(nu_core_is_side(c)))
			return runq_come_back(c, self);
		push(c, self, false);
	} else if (nu_list_empty(&c->queue)) {
		next = self;
	} else {
		next = nu_list_entry(c->queue.next, struct nu_thread, link);
		nu_list_del(&next->link);
		nu_list_add_tail(&c->queue, &self->link); /* the count stays */
		nu_thread_set_state(self, NU_THREAD_RUNNABLE);
		nu_thread_set_state(next, NU_THREAD_RUNNING);
	}
	nu_lock_release(&c->lock);
	if (next && next != self && unlikely(atomic_load_explicit(&next->running, memory_order_acquire))) {
		c->next = next;
		next = NULL;
	}
	return next;
}

void nu_ready_on(struct nu_core *c, struct nu_thread *t, bool first)
{
	while (unlikely(!nu_runq_put(c, t, first)))
		if (nu_thread_park(t))
			return;
}

static void ready(struct nu_thread *t, bool first)
{
	struct nu_core *c = nu_core_get();

	if (unlikely(!c || nu_core_is_side(c))) {
		c = nu_core_any();
		nu_ready_on(c, t, first);
		nu_core_kick(c);
		return;
	}
	nu_ready_on(c, t, first);
	/* One thread waits for the running one to block, as it often does right after a wake-up; more are a backlog. */
	if (unlikely(atomic_load_explicit(&c->nqueued, memory_order_relaxed) >= 2 &&
		     atomic_load_explicit(&nu_sched.nsleeping, memory_order_relaxed)))
		nu_core_kick_thief(c);
}

void nu_thread_ready(struct nu_thread *t)
{
	ready(t, false);
}

void nu_thread_ready_first(struct nu_thread *t)
{
	ready(t, true);
}

/* Lock of @v held: what may be taken from it. A single thread is left alone until it has waited from one look to the
 * next with the same one running: what was just made ready will mostly run at once where its waker blocks. */
static bool worth(struct nu_core *c, struct nu_core *v)
{
	struct nu_thread *head = nu_list_entry(v->queue.next, struct nu_thread, link);
	uint64_t switches = nu_core_switches(v);
	bool same = v->seen == head && v->seen_switches == switches;

	v->seen = head;
	v->seen_switches = switches;
	return same || atomic_load_explicit(&v->nqueued, memory_order_relaxed) >= 2 ||
	       atomic_load(&c->hungry);
}

/* Takes half of @v's queue; the first is picked, the others wait in @rest. */
static struct nu_thread *steal_from(struct nu_core *c, struct nu_core *v, struct nu_list *rest)
{
	struct nu_thread *got = NULL;
	struct nu_list *e, *n;
	unsigned want;

	if (!atomic_load_explicit(&v->nqueued, memory_order_relaxed) || !nu_lock_try(&v->lock))
		return NULL;
	if (nu_list_empty(&v->queue) || !worth(c, v))
		goto unlock;
	want = (atomic_load_explicit(&v->nqueued, memory_order_relaxed) + 1) / 2;
	nu_list_for_each_safe (e, n, &v->queue) {
		struct nu_thread *t = nu_list_entry(e, struct nu_thread, link);

		if (!want)
			break;
		if (atomic_load_explicit(&t->running, memory_order_relaxed))
			continue; /* still leaving its core */
		take(v, t);
		if (!got) {
			got = t;
			nu_thread_set_state(t, NU_THREAD_RUNNING);
		} else {
			nu_list_add_tail(rest, &t->link); /* RUNNABLE and in no queue: the pauser waits */
		}
		want--;
	}
unlock:
	nu_lock_release(&v->lock);
	return got;
}

struct nu_thread *nu_steal(struct nu_core *c)
{
	struct nu_list rest;

	nu_list_init(&rest);
	for (unsigned i = 0; i < nu_sched.ncores; i++) {
		struct nu_core *v = nu_sched.cores[(c->steal_from + i) % nu_sched.ncores];
		struct nu_thread *t = v == c ? NULL : steal_from(c, v, &rest);

		if (!t)
			continue;
		c->steal_from = v->index;
		atomic_store(&c->hungry, false);
		nu_stat_add(c->index, NU_STAT_STEALS, 1);
		while (!nu_list_empty(&rest)) {
			struct nu_thread *r = nu_list_entry(rest.next, struct nu_thread, link);

			nu_list_del(&r->link);
			nu_ready_on(c, r, false);
		}
		return t;
	}
	return NULL;
}
