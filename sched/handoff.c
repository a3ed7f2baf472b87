/* SPDX-License-Identifier: MIT */
/*
 * Local calls: the core is handed from caller to callee and back, through no queue, and mostly through no lock either.
 *
 * Spare threads. A thread that has served a local call stays linked in its proclet, and the core keeps it for the next
 * call to the same one: its constant fields are set, its stack is hot. A pauser finds it in the proclet's list like any
 * other. Each core has a few places for them, found by proclet id; it alone takes from them and puts into them.
 *
 * Marks. What a core does to a proclet without its lock (a spare thread becomes a running one; a callee becomes spare, its
 * caller goes on) it does while it has entered the proclet in its own `marks` and has then found `quick` set. These
 * are plain stores and loads, that the processor may exchange. Whoever wants the proclet for himself (to pause it, to
 * end it) clears `quick` under the lock, has all processors of this process pass a barrier (membarrier), and waits until no
 * core has the proclet marked: what was begun is over and visible, and nothing more begins. Then he takes spare
 * threads out of the list. The cores that keep them find out when they look for them next.
 *
 * From then on calls go by the lock, as they always do if there is no membarrier; the first one that finds the proclet at
 * rest there sets `quick` again.
 */
#include "sched/sanitize.h"
#include "sched/sched_int.h"

#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPARE_DEPTH 8 /* of one proclet on one core, at rest: calls that come back to it, nested */

static struct nu_spares *place_of(struct nu_core *c, uint64_t id)
{
	uint32_t seg = nu_id_seg(id);

	return &c->spares[(seg ^ seg >> 10) % NU_SPARE_PLACES];
}

/* ---- marks ---- */

static inline void enter(struct nu_core *c, struct nu_proclet *p, struct nu_proclet *q)
{
	atomic_store_explicit(&c->marks[0], p, memory_order_release);
	atomic_store_explicit(&c->marks[1], q, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst); /* for the processor, wait_unmarked() has the barrier */
}

static inline void depart(struct nu_core *c)
{
	atomic_store_explicit(&c->marks[0], NULL, memory_order_release);
	atomic_store_explicit(&c->marks[1], NULL, memory_order_release);
}

static inline bool is_quick(struct nu_proclet *p)
{
	return atomic_load_explicit(&p->quick, memory_order_acquire);
}

/* A core without a thread has entered nothing, and sets `current` with a barrier of its own before it runs one. */
static bool others_rest(void)
{
	const struct nu_core *self = nu_core_get();

	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < nu_sched.ncores; i++)
		if (nu_sched.cores[i] != self && atomic_load(&nu_sched.cores[i]->current))
			return false;
	return true;
}

static void wait_unmarked(const struct nu_core *c, const struct nu_proclet *p)
{
	unsigned spins = 0;

	while (atomic_load_explicit(&c->marks[0], memory_order_acquire) == p ||
	       atomic_load_explicit(&c->marks[1], memory_order_acquire) == p) {
		nu_cpu_relax();
		if (++spins > 200) { /* the processor may be needed there */
			extern int sched_yield(void);
			sched_yield();
			spins = 0;
		}
	}
}

void nu_quick_init(void)
{
#ifdef __SANITIZE_THREAD__
	return; /* it does not see what a membarrier orders, and counts the frames that a spare thread never returns from */
#endif
	nu_sched.has_barrier = !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
	if (!nu_sched.has_barrier)
		nu_info("no membarrier (kernel, or a filter of system calls): local calls take locks");
}

void nu_quick_open(struct nu_proclet *p)
{
	if (nu_sched.has_barrier && p->state == NU_PROCLET_PRESENT && !p->frozen && !p->hold_output &&
	    !p->invoke)
		atomic_store_explicit(&p->quick, true, memory_order_release);
}

void nu_quick_close(struct nu_proclet *p)
{
	struct nu_list *e, *n;

	if (!atomic_load_explicit(&p->quick, memory_order_relaxed))
		return;
	atomic_store_explicit(&p->quick, false, memory_order_relaxed);
	if (!others_rest())
		NU_ASSERT(!syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
	for (unsigned i = 0; i < nu_sched.ncores; i++)
		wait_unmarked(nu_sched.cores[i], p);
	nu_list_for_each_safe (e, n, &p->threads) {
		struct nu_thread *t = nu_list_entry(e, struct nu_thread, proclet_link);

		if (nu_thread_state(t) != NU_THREAD_SPARE)
			continue;
		nu_thread_unlink(t);
		t->proclet = NULL; /* the core that keeps it will see */
		p->calls_active--;
	}
}

/* ---- spare threads ---- */

/* Those from @first on, kept in @s, end. */
static void end_spares(struct nu_spares *s, struct nu_thread *first)
{
	struct nu_thread *t, *next;

	for (t = first; t; t = next) {
		next = t->spare_next;
		nu_lock_acquire(&s->proclet->lock);
		if (t->proclet) { /* else its proclet has been closed meanwhile */
			nu_thread_unlink(t);
			s->proclet->calls_active--;
		}
		nu_lock_release(&s->proclet->lock);
		nu_thread_free(t);
	}
}

/* @s is to keep threads of @t's proclet from now on. */
static __attribute__((noinline)) void make_place(struct nu_spares *s, const struct nu_thread *t)
{
	end_spares(s, s->first);
	*s = (struct nu_spares){t->proclet_id, t->proclet, NULL};
}

void nu_spares_trim(struct nu_core *c)
{
	for (unsigned i = 0; i < NU_SPARE_PLACES; i++) {
		struct nu_thread *t = c->spares[i].first;

		for (unsigned n = 1; t && n < SPARE_DEPTH; n++)
			t = t->spare_next;
		if (likely(!t))
			continue;
		end_spares(&c->spares[i], t->spare_next);
		t->spare_next = NULL;
	}
}

/* ---- there ---- */

void nu_handoff_by_queue(struct nu_core *c, struct nu_thread *to)
{
	atomic_store_explicit(&to->running, 0, memory_order_relaxed);
	if (!atomic_load_explicit(&c->nqueued, memory_order_relaxed)) {
		c->next = to;
		return;
	}
	while (!nu_runq_put(c, to, false))
		if (nu_thread_park(to))
			break;
}

/* The caller @w turns to @to. Return: as nu_thread_handoff(). */
static inline bool hand_off(struct nu_core *c, struct nu_thread *w, struct nu_thread *to, nu_handed_fn body,
			    void *arg)
{
	int *errno_p = c->errno_p;
	void *fake = NULL;
	bool back;

	to->handed_by = w->proclet;
	__atomic_store_n(&to->core, (uint16_t)c->index, __ATOMIC_RELAXED);
	w->claimable = 0;
	w->wait = NU_WAIT_REPLY_LOCAL;
	w->saved_errno = *errno_p;
	*errno_p = 0;
	nu_thread_set_state(w, NU_THREAD_BLOCKED);
	atomic_store_explicit(&c->current, to, memory_order_relaxed);
	c->heap_cache = NULL;
	nu_san_leave(c, &fake, w, to);
	back = nu_switch_call(&w->sp, to->room, to, arg, body);
	nu_san_arrive(fake);
	if (unlikely(!back))
		nu_thread_switched();
	return back;
}

bool nu_thread_handoff(struct nu_thread *to, nu_handed_fn body, void *arg)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t = atomic_load_explicit(&c->current, memory_order_relaxed);

	to->spares = place_of(c, to->proclet_id);
	to->spares_core = c;
	if (nu_handoff_ticks(c)) {
		nu_spares_trim(c);
		t->claimable = 0;
		t->wait = NU_WAIT_REPLY_LOCAL;
		nu_thread_set_state(t, NU_THREAD_BLOCKED);
		nu_handoff_by_queue(c, to);
		nu_thread_switch(c, t, NULL);
		return false;
	}
	nu_stat_add(c->index, NU_STAT_SWITCHES, 1);
	return hand_off(c, t, to, body, arg);
}

/* Whether @t, the first of @s, can serve @m; then it is claimed. */
static inline bool claim(struct nu_core *c, struct nu_spares *s, struct nu_thread *t,
			 const struct nu_method *m)
{
	struct nu_proclet *p = s->proclet;

	atomic_store_explicit(&c->marks[0], p, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	if (likely(is_quick(p) && t->proclet == p && (t->serve_method == m || nu_spare_can(m, p->cls)))) {
		nu_thread_set_state(t, NU_THREAD_RUNNING);
		atomic_store_explicit(&t->running, 1, memory_order_relaxed);
		atomic_store_explicit(&c->marks[0], NULL, memory_order_release);
		s->first = t->spare_next;
		nu_san_thread_gone(t); /* what it ran before has not returned */
		nu_san_forget_frames(t);
		return true;
	}
	atomic_store_explicit(&c->marks[0], NULL, memory_order_release);
	return false;
}

int nu_spare_handoff(uint64_t id, const struct nu_method *m, nu_handed_fn body, void *arg)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *self, *t;
	struct nu_spares *s;

	self = likely(c) ? atomic_load_explicit(&c->current, memory_order_relaxed) : NULL;
	if (unlikely(!self))
		return -EINVAL;
	s = place_of(c, id);
	t = s->first;
	if (s->id != id || !t || self->call_deadline_ns || !is_quick(self->proclet) ||
	    c->ticks >= NU_POLL_TICKS * NU_HANDOFF_TICKS - 1 || !claim(c, s, t, m))
		return -EAGAIN;
	c->ticks++;
	__atomic_store_n(&c->stats[NU_STAT_CALLS_QUICK], c->stats[NU_STAT_CALLS_QUICK] + 1, __ATOMIC_RELAXED);
	t->reply_thread = self;
	return hand_off(c, self, t, body, arg) ? NU_HANDED_BACK : NU_HANDED_OFF;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
void nu_thread_landed(void)
{
	nu_san_arrive(NULL);
}
#endif

/* ---- and back ---- */

/* Another proclet's threads have had @t's place. */
static __attribute__((noinline)) void *hand_back_anew(struct nu_thread *t, struct nu_thread *to, uint64_t id,
						      size_t result_bytes)
{
	make_place(t->spares, t);
	return nu_thread_handback(t, to, id, result_bytes);
}

void *nu_thread_handback(struct nu_thread *t, struct nu_thread *to, uint64_t id, size_t result_bytes)
{
	struct nu_core *c = nu_core_get();
	struct nu_proclet *p = t->proclet, *q = t->handed_by;
	struct nu_spares *s = t->spares;

	if (unlikely(!q || t->spares_core != c))
		return NULL;
	if (unlikely(s->id != t->proclet_id))
		return hand_back_anew(t, to, id, result_bytes);
	enter(c, p, q);
	if (unlikely(!is_quick(p) || !is_quick(q) ||
		     atomic_load_explicit(&q->id, memory_order_relaxed) != id)) {
		depart(c);
		return NULL;
	}
	/* It waits still: only we could have answered it, and had it ended, its proclet would not be quick. It no longer waits
	 * before we are no longer found to serve it: rpc/lost.c. */
	if (result_bytes && to->wait_result)
		nu_copy_small(to->wait_result, t->serve_result, result_bytes);
	__atomic_store_n(&to->wait_seq, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&to->core, (uint16_t)c->index, __ATOMIC_RELAXED);
	atomic_store_explicit(&to->running, 1, memory_order_relaxed);
	nu_thread_set_state(to, NU_THREAD_RUNNING);
	nu_thread_set_state(t, NU_THREAD_SPARE);
	/* Our stack is this core's: nobody else touches it, though we still run on it. */
	atomic_store_explicit(&t->running, 0, memory_order_release);
	depart(c);
	t->spare_next = s->first;
	s->first = t;
	*c->errno_p = to->saved_errno;
	atomic_store_explicit(&c->current, to, memory_order_relaxed);
	c->heap_cache = NULL;
	nu_san_leave(c, NULL, t, to);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	nu_switch_back(to->sp); /* not by returning: that would count as one from the other's frames */
#endif
	return to->sp;
}
