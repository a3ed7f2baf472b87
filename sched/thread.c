/* SPDX-License-Identifier: MIT */
/* Threads: their life, and how one leaves its core for another. */
#include "sched/sanitize.h"
#include "sched/sched_int.h"

#include <time.h>

#define RUN_NOW_QUEUED 64u   /* threads that a round of the scheduler's loop may run from within its polls */
#define RUN_NOW_MAX    1024u /* ... if nobody else waits */
#define MIN_STACK_LEFT 4096  /* what a thread must have below the bytes reserved for its arguments */

void nu_thread_wait_saved(struct nu_thread *t)
{
	unsigned spins = 0;

	while (unlikely(atomic_load_explicit(&t->running, memory_order_acquire))) {
		nu_cpu_relax();
		if (++spins > 200) {
			extern int sched_yield(void);
			sched_yield();
			spins = 0;
		}
	}
}

static inline void switched(void)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t = atomic_load_explicit(&c->current, memory_order_relaxed);
	struct nu_thread *dead = c->dead;

	if (dead) {
		c->dead = NULL;
		nu_thread_free(dead);
	}
	if (t)
		*c->errno_p = t->saved_errno;
}

/* First thing in every context that goes on, perhaps on another core or node: nothing from before may be used. */
__attribute__((noinline)) void nu_thread_switched(void)
{
	switched();
}

static inline void leave(struct nu_core *c, struct nu_thread *t, struct nu_thread *next, bool ends)
{
	void *fake = NULL;

	t->saved_errno = *c->errno_p;
	/* After what it did to proclets that it had marked: handoff.c. */
	atomic_store_explicit(&c->current, next, memory_order_release);
	c->heap_cache = NULL;
	nu_san_leave(c, ends ? NULL : &fake, t, next);
	nu_switch(&t->sp, next ? next->sp : c->sched_sp, &t->running);
	nu_san_arrive(fake);
	switched();
}

void nu_thread_switch(struct nu_core *c, struct nu_thread *t, struct nu_thread *next)
{
	if (next)
		nu_thread_turn_to(c, next);
	leave(c, t, next, false);
}

void nu_thread_run(struct nu_core *c, struct nu_thread *t)
{
	nu_thread_wait_saved(t);
	nu_thread_turn_to(c, t);
	/* Ordered before the look at the monitor's state: either it sees a thread run or we see it asleep. */
	atomic_store_explicit(&c->current, t, memory_order_seq_cst);
	c->heap_cache = NULL;
	nu_preempt_awake();
	nu_san_leave(c, &c->fake_stack, NULL, t);
	nu_switch(&c->sched_sp, t->sp, &c->sched_running);
	nu_san_arrive(c->fake_stack);
	nu_thread_switched();
}

bool nu_may_run_now(void)
{
	struct nu_core *c = nu_core_get();

	if (!c || atomic_load_explicit(&c->current, memory_order_relaxed) || c->next)
		return false;
	/* Those in the queue, timers and posts have their turn; and none begins any more when the node stops. */
	return c->ran_within < (atomic_load_explicit(&c->nqueued, memory_order_relaxed) ? RUN_NOW_QUEUED
											: RUN_NOW_MAX) &&
	       !atomic_load_explicit(&nu_sched.stop, memory_order_relaxed);
}

void nu_thread_pick(struct nu_thread *t)
{
	nu_thread_set_state(t, NU_THREAD_RUNNING);
}

void nu_thread_run_now(struct nu_thread *t)
{
	struct nu_core *c = nu_core_get();

	c->ticks = 0;
	c->ran_within++;
	c->within = true;
	nu_thread_run(c, t);
	c->within = false;
	t = c->next;
	if (likely(!t))
		return;
	c->next = NULL; /* the loop's, which may run others first by now */
	nu_ready_on(c, t, true);
}

void nu_thread_main(void)
{
	struct nu_thread *t;

	nu_san_arrive(NULL);
	switched();
	t = nu_running();
	t->fn(t->arg);
	nu_thread_come_back(t);
	nu_thread_exit();
}

struct nu_thread *nu_thread_self(void)
{
	struct nu_core *c = nu_core_get();

	return c ? atomic_load_explicit(&c->current, memory_order_relaxed) : NULL;
}

/* ---- making and ending ---- */

void nu_thread_link(struct nu_thread *t)
{
	/* At the front: a pauser keeps those that it has seen at the end. */
	nu_list_add_tail(t->proclet->threads.next, &t->proclet_link);
	t->proclet->nthreads++;
}

void nu_thread_unlink(struct nu_thread *t)
{
	nu_list_del(&t->proclet_link);
	t->proclet->nthreads--;
}

void *nu_thread_prepare(struct nu_thread *t, nu_thread_fn fn, void *arg, size_t reserve_bytes)
{
	uintptr_t top = (uintptr_t)t, low = (uintptr_t)t->stack_low, room;

	if (reserve_bytes > top - low || top - low - reserve_bytes < MIN_STACK_LEFT)
		return NULL;
	room = (top - reserve_bytes) & ~(uintptr_t)15;
	t->fn = fn;
	t->arg = arg;
	t->room = (void *)room;
	t->sp = nu_switch_prepare((void *)room);
	return (void *)room;
}

int nu_thread_spawn(nu_thread_fn fn, void *arg, struct nu_thread **thread_p)
{
	struct nu_proclet *p;
	struct nu_thread *t;

	nu_point();
	t = nu_running();
	if (unlikely(!t))
		return nu_outside("nu_thread_spawn", "");
	p = t->proclet;
	t = nu_thread_alloc_start(p);
	if (!t)
		return -ENOMEM;
	nu_thread_prepare(t, fn, arg, 0);
	t->detached = !thread_p;
	if (thread_p)
		*thread_p = t; /* before it runs: the new thread may look at it */
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	nu_stat_add(nu_core_get()->index, NU_STAT_THREADS_SPAWNED, 1);
	nu_thread_ready(t);
	return 0;
}

/* An ended thread that nobody else may join: takes its stack back. */
static void reap(struct nu_thread *t)
{
	struct nu_proclet *p = t->proclet;

	nu_thread_wait_saved(t);
	nu_lock_acquire(&p->lock);
	nu_thread_unlink(t);
	nu_lock_release(&p->lock);
	nu_thread_free(t);
}

int nu_thread_join(struct nu_thread *t)
{
	struct nu_thread *self = nu_running();

	if (t == self)
		return -EDEADLK;
	/* One that was joined has given its stack back: it may be anybody's. The node joins the destructors of others. */
	if (!self || !nu_thread_is_here(t) || (t->proclet != self->proclet && self->proclet->heap))
		return -EINVAL;
	nu_point();
	nu_lock_acquire(&t->join_lock);
	if (t->detached || t->joiner) {
		nu_lock_release(&t->join_lock);
		return -EINVAL;
	}
	__atomic_store_n(&t->joiner, self, __ATOMIC_RELEASE); /* its end looks without the lock first */
	if (nu_thread_state(t) != NU_THREAD_DONE) {
		nu_wake_arm(self);
		self->waitq = NULL;
		self->wait_on = NU_ON_JOIN;
		self->joins = t;
		nu_thread_block_until(NU_WAIT_SYNC, &t->join_lock, 0);
	} else {
		nu_lock_release(&t->join_lock);
	}
	reap(t);
	return 0;
}

int nu_thread_detach(struct nu_thread *t)
{
	bool done;

	if (!nu_thread_is_here(t)) /* NULL, or it has given its stack back */
		return -EINVAL;
	nu_point();
	nu_lock_acquire(&t->join_lock);
	if (t->detached || t->joiner) {
		nu_lock_release(&t->join_lock);
		return -EINVAL;
	}
	__atomic_store_n(&t->detached, 1, __ATOMIC_RELEASE); /* its end looks without the lock first */
	done = nu_thread_state(t) == NU_THREAD_DONE;
	nu_lock_release(&t->join_lock);
	if (done)
		reap(t);
	return 0;
}

/* Without the lock: neighbours that leave the list write our link, but none makes it point to itself. */
static NU_NO_TSAN bool has_left(const struct nu_thread *t)
{
	return t->proclet_link.next == &t->proclet_link;
}

/* The joiner, if it is known to wait: who holds the lock may be the joiner on its way there. Nobody else can join then. */
static struct nu_thread *waiting_joiner(struct nu_thread *t)
{
	struct nu_thread *joiner = __atomic_load_n(&t->joiner, __ATOMIC_ACQUIRE);

	return joiner && !atomic_load_explicit(&t->join_lock.held, memory_order_acquire) ? joiner : NULL;
}

/* The running thread's end, but for leaving its stack. Return: who was picked to run instead (@may_pick), or NULL. */
static struct nu_thread *end(struct nu_core *c, struct nu_thread *t, bool may_pick)
{
	struct nu_proclet *p = t->proclet;
	struct nu_thread *joiner;

	/* Detached is for good: then nobody else looks at it. A thread that served a call has left the list already. */
	if (likely(__atomic_load_n(&t->detached, __ATOMIC_ACQUIRE)) && has_left(t)) {
		nu_thread_set_state(t, NU_THREAD_DONE);
		c->dead = t;
		return NULL;
	}
	joiner = waiting_joiner(t);
	if (likely(joiner)) {
		nu_thread_set_state(t, NU_THREAD_DONE);
		goto wake;
	}
	nu_lock_acquire(&t->join_lock);
	if (t->detached) {
		nu_lock_release(&t->join_lock);
		nu_lock_acquire(&p->lock);
		nu_thread_set_state(t, NU_THREAD_DONE);
		nu_thread_unlink(t);
		nu_lock_release(&p->lock);
		c->dead = t;
		return NULL;
	}
	joiner = t->joiner;
	nu_thread_set_state(t, NU_THREAD_DONE);
	/* From here a joiner or detacher may take the stack back as soon as we have left it. */
	nu_lock_release(&t->join_lock);
wake:
	if (!joiner || !nu_wake_claim(joiner))
		return NULL;
	/* It came by the queue and let others run before us, so it need not wait for them again. */
	if (may_pick && nu_runq_skip(c, joiner))
		return joiner;
	nu_thread_ready(joiner);
	return NULL;
}

static __attribute__((noreturn)) void exit_to(struct nu_thread *to)
{
	struct nu_thread *t = nu_running(), *joiner;
	struct nu_core *c = nu_core_get();

	joiner = end(c, t, !to);
	if (joiner) {
		to = joiner;
	} else if (!to && !c->next) {
		to = nu_runq_next(c, t);
		if (to)
			nu_thread_turn_to(c, to);
	}
	leave(c, t, to, true);
	__builtin_unreachable();
}

void nu_thread_exit(void)
{
	exit_to(NULL);
}

/* ---- leaving and coming back ---- */

/* In its callers: what waits in large numbers shall have few frames. */
static inline __attribute__((always_inline)) void
block(struct nu_core *c, struct nu_thread *t, enum nu_wait wait, struct nu_lock *unlock, uint64_t deadline_ns)
{
	struct nu_thread *next;

	t->wait = (uint8_t)wait;
	nu_thread_set_state(t, NU_THREAD_BLOCKED);
	/* After the state: should we be held up here, another core may fire it. */
	if (deadline_ns)
		nu_timer_arm(c, t, deadline_ns);
	if (unlock)
		nu_lock_release(unlock);
	next = nu_runq_next(c, t);
	if (next == t) /* somebody has made us ready already */
		return;
	if (next)
		nu_thread_turn_to(c, next);
	leave(c, t, next, false);
}

void nu_thread_block(enum nu_wait wait, struct nu_lock *unlock)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t = atomic_load_explicit(&c->current, memory_order_relaxed);

	t->claimable = 0;
	block(c, t, wait, unlock, 0);
}

int nu_thread_block_until(enum nu_wait wait, struct nu_lock *unlock, uint64_t deadline_ns)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t = atomic_load_explicit(&c->current, memory_order_relaxed);

	t->claimable = 1;
	t->timed_out = 0;
	block(c, t, wait, unlock, deadline_ns);
	if (!deadline_ns)
		return 0;
	nu_timer_cancel(t);
	t->deadline_ns = 0;
	return t->timed_out ? -ETIMEDOUT : 0;
}

void nu_thread_claim(struct nu_thread *t)
{
	nu_thread_wait_saved(t);
	nu_thread_set_state(t, NU_THREAD_RUNNING);
	atomic_store_explicit(&t->running, 1, memory_order_relaxed);
}

void nu_thread_exit_to(struct nu_thread *to)
{
	struct nu_core *c = nu_core_get();

	if (nu_handoff_ticks(c)) {
		nu_handoff_by_queue(c, to);
		nu_thread_exit();
	}
	nu_thread_turn_to(c, to);
	exit_to(to);
}

void nu_thread_preempt(struct nu_core *c, struct nu_thread *t)
{
	struct nu_core *to = likely(!nu_core_is_side(c)) ? c : nu_core_any();

	atomic_store_explicit(&c->preempt_req, 0, memory_order_relaxed);
	nu_stat_add(c->index, NU_STAT_PREEMPTIONS, 1);
	nu_ready_on(to, t, false);
	if (to != c)
		nu_core_kick(to);
	nu_thread_switch(c, t, NULL);
}

void nu_yield(void)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t = c ? atomic_load_explicit(&c->current, memory_order_relaxed) : NULL, *next;

	if (unlikely(!t))
		return;
	next = nu_runq_yield(c, t);
	if (next != t)
		nu_thread_switch(c, t, next);
}

/* ---- sleep ---- */

uint64_t nu_now_ns(void)
{
	struct nu_thread *t = nu_running();
	struct nu_proclet_head *head = t ? t->proclet->head : NULL;
	uint64_t now = nu_mono_ns() + (head ? (uint64_t)head->clock_offset_ns : 0);

	/* A loop that looks at the clock is hardly ever in the program's own code, where it would be interrupted. */
	nu_point();
	return now;
}

static void sleep_plainly(uint64_t when_ns)
{
	struct timespec t = {(time_t)(when_ns / 1000000000), (long)(when_ns % 1000000000)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

void nu_sleep_until_us(uint64_t when_us)
{
	struct nu_thread *t = nu_thread_self();
	uint64_t when_ns = when_us > UINT64_MAX / 1000 ? UINT64_MAX : when_us * 1000, now;

	nu_preempt_point();
	if (unlikely(!t)) { /* a kernel thread of the program's own may sleep, too */
		sleep_plainly(when_ns);
		return;
	}
	/* More than once if the proclet was moved meanwhile: its clock and the node's differ by an offset. */
	while ((now = nu_now_ns()) < when_ns) {
		uint64_t mono = nu_mono_ns();

		nu_wake_arm(t);
		nu_thread_block_until(NU_WAIT_SLEEP, NULL,
				      when_ns - now > UINT64_MAX / 2 ? UINT64_MAX / 2
								     : mono + (when_ns - now));
	}
}

void nu_sleep_us(uint64_t us)
{
	uint64_t now = nu_now_ns();

	if (!us) {
		nu_yield();
		return;
	}
	/* Rounded up: never less than asked for. */
	nu_sleep_until_us(us > UINT64_MAX / 2000 ? UINT64_MAX / 1000 : (now + us * 1000 + 999) / 1000);
}
