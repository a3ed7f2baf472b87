/* SPDX-License-Identifier: MIT */
/*
 * Credits: how many calls may be on their way to a node before it has accepted them, how many bytes of them may wait
 * here, and who waits for that.
 */
#include "rpc/rpc_int.h"

#include <limits.h>

#define CREDITS_DEFAULT 4096u
#define NESTED_RESERVE	256u

/*
 * What nu_thread.wait_status says about a thread inside nu_wire_credit(). It lies in the thread and so moves with it:
 * after a wait the thread may be on another node, where nothing of this file's memory on the old one may be touched.
 */
#define WAITING INT_MIN	      /* it is in a queue of this node */
#define GRANTED (INT_MIN + 1) /* it has been given a credit of this node and has not run since */

/* Found by the thread's address, not kept on its stack: the stack may leave. */
struct waiter {
	struct nu_list link;
	struct nu_thread *thread;
	size_t len_bytes;
	bool nested;
};

/* One per peer node, shared by all cores. */
struct pool {
	atomic_uint in_use;  /* our calls that the peer has not accepted */
	atomic_size_t bytes; /* of our calls that have not left this node */
	atomic_uint nwaiting;
	atomic_uint due;     /* its calls that we have accepted and not yet told it */
	struct nu_lock lock; /* the queue; wait_status of those in it */
	struct nu_list waiters;
	bool dead;
} __attribute__((aligned(NU_CACHE_LINE)));

static struct pool *pools;
static unsigned window, quarter;

int nu_credit_init(unsigned wanted)
{
	window = wanted ? wanted : CREDITS_DEFAULT;
	if (window > UINT_MAX / 2) {
		nu_err("%u credits per connection are too many: at most %u", window, UINT_MAX / 2);
		return -EINVAL;
	}
	quarter = window / 4 ? window / 4 : 1;
	pools = aligned_alloc(NU_CACHE_LINE, nu_node.count * sizeof(*pools));
	if (!pools)
		return -ENOMEM;
	memset(pools, 0, nu_node.count * sizeof(*pools));
	for (unsigned n = 0; n < nu_node.count; n++)
		nu_list_init(&pools[n].waiters);
	return 0;
}

void nu_credit_fini(void)
{
	for (unsigned n = 0; pools && n < nu_node.count; n++) {
		while (!nu_list_empty(&pools[n].waiters)) {
			struct waiter *w = nu_list_entry(pools[n].waiters.next, struct waiter, link);

			nu_list_del(&w->link);
			free(w);
		}
	}
	free(pools);
	pools = NULL;
}

static bool is_counted(size_t len_bytes)
{
	return len_bytes > NU_QUEUED_BYTES_FREE;
}

static bool is_full(struct pool *p)
{
	return atomic_load_explicit(&p->bytes, memory_order_seq_cst) >= NU_QUEUED_BYTES_MAX;
}

static bool take(struct pool *p, bool nested, size_t len_bytes)
{
	unsigned limit = window + (nested ? NESTED_RESERVE : 0);
	unsigned used = atomic_load_explicit(&p->in_use, memory_order_relaxed);

	/* No reserve of bytes for nested calls: the peer's poll takes them, whatever its threads wait for. */
	if (unlikely(is_counted(len_bytes) && is_full(p)))
		return false;
	while (used < limit) {
		if (atomic_compare_exchange_weak_explicit(&p->in_use, &used, used + 1, memory_order_seq_cst,
							  memory_order_relaxed)) {
			if (is_counted(len_bytes))
				atomic_fetch_add_explicit(&p->bytes, len_bytes, memory_order_relaxed);
			return true;
		}
	}
	return false;
}

/* Lowers the bytes by as much as was counted. True if others may go on now. */
static bool lower_bytes(struct pool *p, size_t bytes)
{
	size_t was = atomic_load_explicit(&p->bytes, memory_order_relaxed), left;

	do {
		left = was > bytes ? was - bytes : 0;
	} while (!atomic_compare_exchange_weak_explicit(&p->bytes, &was, left, memory_order_seq_cst,
							memory_order_relaxed));
	return was >= NU_QUEUED_BYTES_MAX && left < NU_QUEUED_BYTES_MAX;
}

static void drop_waiter(struct pool *p, struct waiter *w)
{
	nu_list_del(&w->link);
	atomic_fetch_sub_explicit(&p->nwaiting, 1, memory_order_relaxed);
	free(w);
}

/* Lock held. */
static struct waiter *find_waiter(struct pool *p, const struct nu_thread *t)
{
	struct nu_list *pos;

	nu_list_for_each (pos, &p->waiters) {
		struct waiter *w = nu_list_entry(pos, struct waiter, link);

		if (w->thread == t)
			return w;
	}
	return NULL;
}

/* Ends a wait with @status; false if a time-out was first. Lock held: the thread is in the queue, so it is here. */
static bool end_wait(struct pool *p, struct waiter *w, int32_t status)
{
	struct nu_thread *t = w->thread;
	bool won = nu_wake_claim(t);

	t->wait_status = won ? status : -ETIMEDOUT;
	drop_waiter(p, w);
	return won;
}

/* Hands free credits to those who wait, first come first served. A nested call does not wait behind others. */
static void serve_waiters(struct pool *p)
{
	struct nu_list *pos, *next;

	/* Pairs with the fence in wait_for(): either we see the waiter or it sees the credit. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&p->nwaiting, memory_order_relaxed))
		return;
	nu_lock_acquire(&p->lock);
	nu_list_for_each_safe (pos, next, &p->waiters) {
		struct waiter *w = nu_list_entry(pos, struct waiter, link);
		struct nu_thread *t = w->thread;
		size_t len;

		if (!take(p, w->nested, w->len_bytes)) {
			if (w->nested && !is_counted(w->len_bytes))
				break;
			continue;
		}
		len = w->len_bytes;
		if (end_wait(p, w, GRANTED)) {
			nu_thread_ready(t);
		} else {
			atomic_fetch_sub_explicit(&p->in_use, 1, memory_order_relaxed);
			if (is_counted(len))
				(void)lower_bytes(p, len); /* the loop goes on to the others */
		}
	}
	nu_lock_release(&p->lock);
}

/* Queues the calling thread and blocks it. The lock is released inside. */
static int wait_for(struct pool *p, struct nu_thread *t, struct waiter *w, uint64_t deadline_ns)
{
	int err;

	nu_lock_acquire(&p->lock);
	nu_list_add_tail(&p->waiters, &w->link);
	atomic_fetch_add_explicit(&p->nwaiting, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	if (p->dead || take(p, w->nested, w->len_bytes)) {
		err = p->dead ? -EHOSTDOWN : 0;
		drop_waiter(p, w);
		nu_lock_release(&p->lock);
		return err;
	}
	t->wait_status = WAITING;
	t->wait_hint[0] = w->len_bytes;
	nu_wake_arm(t);
	err = nu_thread_block_until(NU_WAIT_CREDIT, &p->lock, deadline_ns);
	/* From here on this may be another node: @p and @w are the old one's, unless the status says WAITING. */
	if (t->wait_status == WAITING) {
		nu_lock_acquire(&p->lock);
		w = find_waiter(p, t);
		if (w)
			drop_waiter(p, w);
		nu_lock_release(&p->lock);
		t->wait_status = -ETIMEDOUT;
	}
	if (t->wait_status == GRANTED)
		t->wait_status = 0;
	return err ? err : t->wait_status;
}

/* Newcomers do not overtake those who wait, except nested calls, which must not wait for outer ones. */
static inline bool take_now(struct pool *p, bool nested, size_t len_bytes)
{
	return likely(nested || !atomic_load_explicit(&p->nwaiting, memory_order_relaxed)) &&
	       likely(take(p, nested, len_bytes));
}

bool nu_wire_credit_now(unsigned node, bool nested)
{
	return !nu_wire_is_dead(node) && take_now(&pools[node], nested, 0);
}

int nu_wire_credit(unsigned node, size_t len_bytes, bool nested, uint64_t deadline_ns)
{
	struct nu_thread *t;
	struct waiter *w;

	if (unlikely(node >= nu_node.count))
		return -EINVAL;
	if (unlikely(nu_wire_is_dead(node)))
		return -EHOSTDOWN;
	if (take_now(&pools[node], nested, len_bytes))
		return 0;
	w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	t = nu_thread_self();
	*w = (struct waiter){.thread = t, .len_bytes = len_bytes, .nested = nested};
	t->wait_dest = node;
	return wait_for(&pools[node], t, w, deadline_ns);
}

/* Lowers in_use by @n; what the peer returned beyond that is not ours. */
static int put(struct pool *p, uint32_t n)
{
	unsigned used = atomic_load_explicit(&p->in_use, memory_order_relaxed), left;

	do {
		left = used > n ? used - n : 0;
	} while (!atomic_compare_exchange_weak_explicit(&p->in_use, &used, left, memory_order_seq_cst,
							memory_order_relaxed));
	serve_waiters(p);
	return n > used ? -EBADMSG : 0;
}

int nu_credit_returned(unsigned node, uint32_t n)
{
	return n ? put(&pools[node], n) : 0;
}

void nu_credit_bytes_gone(unsigned node, size_t bytes)
{
	if (lower_bytes(&pools[node], bytes))
		serve_waiters(&pools[node]);
}

void nu_wire_uncredit(unsigned node, size_t len_bytes)
{
	if (node >= nu_node.count)
		return;
	if (is_counted(len_bytes))
		(void)lower_bytes(&pools[node], len_bytes);
	(void)put(&pools[node], 1);
}

bool nu_wire_forget_waiter(struct nu_thread *t)
{
	struct pool *p;
	struct waiter *w;
	bool blocked = false, granted;

	/* The status alone tells: it stays WAITING when the timer, and GRANTED when a credit, has ended the wait. */
	if ((t->wait_status != WAITING && t->wait_status != GRANTED) || t->wait_dest >= nu_node.count)
		return false;
	p = &pools[t->wait_dest];
	nu_lock_acquire(&p->lock);
	w = find_waiter(p, t);
	if (w)
		blocked = end_wait(p, w, -EAGAIN);
	granted = t->wait_status == GRANTED;
	if (granted)
		t->wait_status = -EAGAIN;
	nu_lock_release(&p->lock);
	if (granted)
		nu_wire_uncredit(t->wait_dest, t->wait_hint[0]);
	return blocked;
}

void nu_credit_peer_dead(unsigned node)
{
	struct pool *p = &pools[node];

	nu_lock_acquire(&p->lock);
	p->dead = true;
	while (!nu_list_empty(&p->waiters)) {
		struct waiter *w = nu_list_entry(p->waiters.next, struct waiter, link);
		struct nu_thread *t = w->thread;

		if (end_wait(p, w, -EHOSTDOWN))
			nu_thread_ready(t);
	}
	nu_lock_release(&p->lock);
}

void nu_wire_accepted(unsigned from)
{
	if (unlikely(from >= nu_node.count))
		return;
	/* Exactly one of those who accept at the same time sees the quarter completed. */
	if (atomic_fetch_add_explicit(&pools[from].due, 1, memory_order_relaxed) + 1 == quarter)
		nu_wire_touch(from);
}

uint32_t nu_credit_take_due(unsigned node)
{
	if (!atomic_load_explicit(&pools[node].due, memory_order_relaxed))
		return 0;
	return atomic_exchange_explicit(&pools[node].due, 0, memory_order_relaxed);
}

bool nu_credit_is_due(unsigned node)
{
	return atomic_load_explicit(&pools[node].due, memory_order_relaxed) >= quarter;
}
