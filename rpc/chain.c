/* SPDX-License-Identifier: MIT */
/*
 * Who waits for a thread's end: the caller of the call that it serves, or who joins it; then who waits for that one. Looked at
 * where somebody is about to wait for a lock that is held, since its holder may be among them. Only as far as the callers are
 * on this node, and not past one that a deadline will let go.
 */
#include "rpc/rpc_int.h"

#define CHAIN_MAX 4096u /* calls, one within the other */

/* What is known of a thread that cannot end before the next one below has. */
struct link {
	const struct nu_thread *thread;
	uint64_t proclet;
	/* Whom it answers, and who joins it. */
	uint64_t caller_proclet, caller_seq;
	const struct nu_thread *caller, *joiner;
};

static struct link link_of(const struct nu_thread *t)
{
	return (struct link){t,
			     t->proclet_id,
			     __atomic_load_n(&t->reply_proclet, __ATOMIC_RELAXED),
			     __atomic_load_n(&t->reply_seq, __ATOMIC_RELAXED),
			     __atomic_load_n(&t->reply_thread, __ATOMIC_RELAXED),
			     __atomic_load_n(&t->joiner, __ATOMIC_ACQUIRE)};
}

/* The lock of @t's proclet keeps it here meanwhile. @seq: the call that it waits for; 0: it joins. */
static bool link_climb(struct link *l, uint64_t proclet, const struct nu_thread *t, uint64_t seq)
{
	struct nu_proclet *p = nu_proclet_lookup(proclet);
	bool waits = false;

	if (!p)
		return false;
	nu_lock_acquire(&p->lock);
	if (atomic_load_explicit(&p->id, memory_order_relaxed) == proclet && p->state == NU_PROCLET_PRESENT &&
	    !p->frozen && nu_thread_is_here(t) && t->proclet == p)
		waits = !seq || (nu_wait_seq(t) == seq && !t->call_deadline_ns);
	if (waits)
		*l = link_of(t);
	nu_lock_release(&p->lock);
	return waits;
}

bool nu_chain_reaches(const struct nu_thread *t, const struct nu_thread *owner)
{
	struct link l = link_of(t);

	for (unsigned i = 0; i < CHAIN_MAX; i++) {
		bool serves = l.caller_proclet != 0;
		const struct nu_thread *next = serves ? l.caller : l.joiner;

		if (!next ||
		    !link_climb(&l, serves ? l.caller_proclet : l.proclet, next, serves ? l.caller_seq : 0))
			return false;
		if (next == owner)
			return true;
	}
	return false;
}
