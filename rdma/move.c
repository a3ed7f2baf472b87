/* SPDX-License-Identifier: MIT */
/*
 * A move as its source sees it: prepare, pause, hand over, let go. Until the destination is told that it may keep the
 * proclet ("relinquish"), nothing has left it there, so any failure before that goes on here as if nothing had been.
 */
#include "core/fault.h"
#include "rdma/move_int.h"

#define PAUSE_US_MAX  20000u
#define TELL_RETRY_US 1000u
#define PACE_BYTES    ((uint64_t)256 << 10) /* what is less says little of how fast a peer reads */
#define WAKE_US	      40u		    /* that a timer may be late */
#define DOZE_US_MIN   60u		    /* less is not worth going to sleep */
#define GUESS_US_MAX  2000u		    /* a longer guess is too far off to be awake for the end */

struct nu_move_ops nu_move_ops;

void nu_move_set_ops(const struct nu_move_ops *ops)
{
	nu_move_ops = *ops;
}

int nu_node_call(unsigned node, const struct nu_method *m, const void *args)
{
	int ret = 0, err = nu_call((struct nu_ref){nu_id_of_node(node)}, m, args, &ret);

	return err ? err : ret;
}

/* Marks the proclet as being moved by us; calls go on. */
static int claim(uint64_t id, struct nu_proclet **p_p)
{
	struct nu_proclet *p = nu_proclet_lookup(id);
	int ret = 0;

	if (!p)
		return -EREMCHG;
	nu_lock_acquire(&p->lock);
	if (p->id != id || p->state == NU_PROCLET_MOVED || p->state == NU_PROCLET_NONE)
		ret = -EREMCHG; /* not here any more: the caller looks again */
	else if (p->state == NU_PROCLET_DYING)
		ret = -ESTALE;
	else if (p->state != NU_PROCLET_PRESENT || p->move_claimed || p->hold_output || p->frozen)
		ret = -EBUSY;
	else if (!p->head || p->head->pinned)
		ret = -EPERM;
	else
		p->move_claimed = true;
	nu_lock_release(&p->lock);
	*p_p = p;
	return ret;
}

static void unclaim(struct nu_proclet *p, uint64_t id)
{
	nu_lock_acquire(&p->lock);
	if (p->id == id) /* else it has ended meanwhile */
		p->move_claimed = false;
	nu_lock_release(&p->lock);
}

/* The proclet goes on here. */
static void undo(struct nu_proclet *p)
{
	nu_lock_acquire(&p->lock);
	p->state = NU_PROCLET_PRESENT;
	p->move_claimed = false;
	p->head->look = 0;
	nu_lock_release(&p->lock);
	nu_thaw(p);
	nu_held_release(p);
	nu_lost_recheck(p);
	nu_move_check_refs(p);
	nu_stat_add(nu_core_self(), NU_STAT_MOVES_UNDONE, 1);
}

/* Threads that wait for a credit of this node's connections start their call over at the new place. */
void nu_move_forget_waiters(struct nu_proclet *p)
{
	struct nu_list *l, *next;

	nu_list_for_each_safe (l, next, &p->threads) {
		struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if (nu_wire_forget_waiter(t))
			nu_thread_ready(t); /* frozen: it is parked */
	}
}

static void count_serving(struct nu_thread *t)
{
	struct nu_proclet *caller = t->reply_proclet ? nu_proclet_lookup(t->reply_proclet) : NULL;

	if (t->reply_proclet && (!caller || caller->state == NU_PROCLET_MOVED) &&
	    t->reply_node == nu_node.self)
		nu_stat_add(nu_core_self(), NU_STAT_PAUSE_SERVING_MOVED_CALLER, 1);
}

/* Everything that the destination must know: built when the threads have stopped. malloc'ed. */
static int describe(struct nu_proclet *p, uint64_t location, uint64_t paused_at_ns, struct nu_offer *offer,
		    struct nu_bytes *blob_p)
{
	struct nu_handover_thread *threads = malloc((p->nthreads ? p->nthreads : 1) * sizeof(*threads)),
				  *r = threads;
	struct nu_handover h;
	struct nu_list *l;
	int ret;

	if (!threads)
		return -ENOMEM;
	/* Cached blocks may hold its end high; to give them back takes time for each. Else they go along. */
	if (nu_heap_live_bytes(p->heap) < nu_heap_used_end(p->heap) / 2)
		nu_heap_settle(p->heap);
	h = (struct nu_handover){
		.id = p->id,
		.location = location,
		.from = nu_node.self,
		.used_bytes = nu_heap_used_end(p->heap),
		.source_now_ns = nu_mono_ns(),
		.paused_at_ns = paused_at_ns,
		.calls_active = p->calls_active,
		.nthreads = p->nthreads,
	};
	h.proclet_now_ns = h.source_now_ns + (uint64_t)p->head->clock_offset_ns;
	nu_list_for_each (l, &p->threads) {
		struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);
		void *low;
		size_t live;

		nu_stack_live(t, &low, &live);
		*r++ = (struct nu_handover_thread){(uint64_t)t, (uint64_t)low, live};
		count_serving(t);
	}
	nu_stat_add(nu_core_self(), NU_STAT_MOVE_BYTES, h.used_bytes);
	ret = nu_offer_make(offer, p, &h, threads, blob_p);
	free(threads);
	return ret;
}

/* Takes the threads out of the books: first of all, since one may end at the destination and its stack come home. */
static void drop_threads(struct nu_proclet *p)
{
	struct nu_list gone, *l, *next;

	nu_lock_acquire(&p->lock);
	nu_list_init(&gone);
	if (!nu_list_empty(&p->threads)) {
		gone = p->threads;
		gone.next->prev = gone.prev->next = &gone;
	}
	nu_list_init(&p->threads);
	nu_list_init(&p->parked);
	p->nthreads = p->calls_active = 0;
	nu_lock_release(&p->lock);
	nu_list_for_each_safe (l, next, &gone)
		nu_stack_depart(nu_list_entry(l, struct nu_thread, proclet_link));
}

/* Tells the destination, which may have no thread to hear it with just then. */
static int tell(unsigned node, const struct nu_method *m, uint64_t id)
{
	struct nu_move_id_args args = {id};
	int err;

	while ((err = nu_node_call(node, m, &args)) == -ENOMEM)
		nu_sleep_us(TELL_RETRY_US);
	return err;
}

/* From here on it is the destination's, unless that is known to have died: then nobody has seen anything of it there. */
static bool commit(struct nu_proclet *p, unsigned to, uint64_t location)
{
	bool alive;

	nu_lock_acquire(&p->lock);
	alive = !atomic_load(&nu_node.dead[to]);
	if (alive) {
		p->moved_to = to;
		p->moved_location = location;
		p->state = NU_PROCLET_MOVED;
	}
	nu_lock_release(&p->lock);
	return alive;
}

/*
 * The destination runs it: what is left of it here is a note where it went. Return: 0 when the controller knows, which the
 * destination has told; 1 if that is not sure; -errno.
 */
static int let_go(struct nu_proclet *p, uint64_t id, unsigned to, uint64_t location, struct nu_offer *offer)
{
	int err;

	drop_threads(p);
	(void)nu_fault(NU_FAULT_MOVE_NOTED);
	err = tell(to, &nu_relinquish_method, id);
	if (err < 0) /* it died after it had pulled: the proclet died with it */
		nu_warn("proclet %#lx moved to node %u, which did not confirm: %s", (unsigned long)id, to,
			nu_strerror(err));
	(void)nu_fault(NU_FAULT_MOVE_CONFIRMED);
	nu_offer_end(offer, false);
	nu_lock_acquire(&p->lock);
	p->head = NULL;
	p->root = NULL;
	p->heap = NULL;
	atomic_store(&p->frozen, false);
	nu_lock_release(&p->lock);
	nu_proclet_unmap(p);
	(void)nu_fault(NU_FAULT_MOVE_RELEASED);
	nu_route_learn(id, to, location);
	nu_held_release(p);
	nu_lock_acquire(&p->lock);
	p->move_claimed = false; /* from here on it may come back, or be forgotten */
	nu_lock_release(&p->lock);
	return err;
}

/*
 * How long the last hand-overs to each node took, and so how long the source may sleep through this one. It had better be
 * awake at its end: to wake it takes a system call and an interrupt of the destination, and that before the proclet goes
 * on there. For long ones this matters less than the processor's time.
 */
static _Atomic uint32_t ns_per_kib[NU_MAX_NODES];

static uint32_t doze_us(unsigned to, uint64_t bytes)
{
	uint64_t us = (bytes >> 10) * atomic_load_explicit(&ns_per_kib[to], memory_order_relaxed) / 1000;

	if (us > GUESS_US_MAX)
		return (uint32_t)(us < UINT32_MAX / 2 ? 2 * us : UINT32_MAX);
	us -= us / 4;
	return us > DOZE_US_MIN + WAKE_US ? (uint32_t)us - WAKE_US : 0;
}

static void pace_learn(unsigned to, uint64_t bytes, uint64_t took_ns)
{
	uint64_t now = took_ns / (bytes >> 10), old;

	old = atomic_load_explicit(&ns_per_kib[to], memory_order_relaxed);
	/* The quick ones are the reader's doing; what makes others slow, our own late waking among it, is chance. */
	now = !old ? now : now < old ? (old + now) / 2 : old + (now - old) / 32;
	atomic_store_explicit(&ns_per_kib[to], now < UINT32_MAX ? (uint32_t)now : UINT32_MAX,
			      memory_order_relaxed);
}

/* 0 when it has been pulled. */
static int call_destination(struct nu_proclet *p, unsigned to, const struct nu_handover_args *args)
{
	uint64_t bytes = nu_heap_used_end(p->heap), start = nu_mono_ns();
	struct nu_thread *t = nu_thread_self();
	int ret;

	t->due_us = bytes >= PACE_BYTES ? doze_us(to, bytes) : 0;
	ret = nu_node_call(to, &nu_handover_method, args);
	t->due_us = 0;
	if (!ret && bytes >= PACE_BYTES)
		pace_learn(to, bytes, nu_mono_ns() - start);
	return ret;
}

/*
 * A thread that waits on a stack which the program has made (makecontext) cannot be handed over: how much of its own stack
 * is in use then, nobody knows. Frozen.
 */
static int stacks_check(const struct nu_proclet *p)
{
	struct nu_list *l;

	nu_list_for_each (l, &p->threads) {
		const struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if ((uintptr_t)t->sp - (uintptr_t)t->stack_low < (uintptr_t)t - (uintptr_t)t->stack_low)
			continue;
		nu_warn("proclet %#lx stays: its thread %p%s%s%s%s waits with its stack pointer %#lx outside "
			"of "
			"its stack: the program has switched it to a stack of its own (makecontext?)",
			(unsigned long)p->id, (const void *)t, t->serve_method ? ", method " : "",
			t->serve_method ? t->serve_method->class_name : "", t->serve_method ? "." : "",
			t->serve_method ? t->serve_method->name : "", (unsigned long)t->sp);
		return -ETIMEDOUT;
	}
	return 0;
}

/* Pauses, hands over; 0 when the destination has pulled. On failure it goes on here. */
static int hand_over(struct nu_proclet *p, uint64_t id, unsigned to, uint64_t location,
		     struct nu_offer *offer)
{
	struct nu_handover_args args;
	uint64_t start;
	int ret;

	nu_lock_acquire(&p->lock);
	if (p->id != id || p->state != NU_PROCLET_PRESENT) { /* its last reference went meanwhile */
		nu_lock_release(&p->lock);
		nu_offer_end(offer, false);
		unclaim(p, id);
		return -ESTALE;
	}
	p->state = NU_PROCLET_MOVING;
	nu_lock_release(&p->lock);
	nu_thread_self()->patient = 0;
	start = nu_mono_ns();
	ret = nu_freeze(p, PAUSE_US_MAX);
	if (ret) {
		nu_info("proclet %#lx stays: its threads could not be paused within %u us",
			(unsigned long)p->id, PAUSE_US_MAX);
		goto stay;
	}
	ret = stacks_check(p);
	if (ret)
		goto stay;
	nu_move_forget_waiters(p);
	ret = describe(p, location, start, offer, &args.blob);
	if (ret)
		goto stay;
	ret = nu_fault(NU_FAULT_MOVE_PAUSED);
	if (!ret)
		ret = call_destination(p, to, &args);
	free((void *)args.blob.data);
	if (!ret)
		return 0;
stay:
	nu_offer_end(offer, ret == -EHOSTDOWN); /* its other errors come when it has read its last */
	undo(p);
	return ret;
}

/* Has room made for what there is now; by the pause some threads will have ended, others begun. */
static int prepare(struct nu_proclet *p, uint64_t id, unsigned to, uint64_t location)
{
	struct nu_prepare_args args = {.id = id, .location = location, .from = nu_node.self};
	uint64_t *threads = malloc(NU_PREPARE_THREADS_MAX * sizeof(*threads));
	struct nu_list *l;
	size_t n = 0;
	int ret = -ESTALE;

	if (!threads)
		return -ENOMEM;
	nu_lock_acquire(&p->lock);
	if (p->id == id && p->heap) {
		nu_list_for_each (l, &p->threads) {
			struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

			if (n < NU_PREPARE_THREADS_MAX && !nu_thread_is_spare(t))
				threads[n++] = (uint64_t)t;
		}
		args.init = (uint64_t)p->cls->init;
		args.capacity_bytes = p->head->capacity_bytes;
		args.used_bytes = nu_heap_used_end(p->heap);
		ret = 0;
	}
	nu_lock_release(&p->lock);
	args.threads = (struct nu_bytes){threads, n * sizeof(*threads)};
	if (!ret)
		ret = nu_node_call(to, &nu_prepare_method, &args);
	free(threads);
	return ret;
}

int nu_move_out(uint64_t id, unsigned to)
{
	struct nu_offer offer;
	struct nu_proclet *p;
	uint64_t location;
	int ret = claim(id, &p);

	if (ret)
		return ret;
	nu_thread_self()->patient = 1; /* the proclet's threads go on until the pause */
	ret = nu_fault(NU_FAULT_MOVE_CLAIMED);
	if (!ret)
		ret = nu_move_ops.begin(id, to, &location);
	if (ret) {
		unclaim(p, id);
		return ret > 0 ? 0 : ret; /* positive: it is there already */
	}
	ret = nu_fault(NU_FAULT_MOVE_BEGUN);
	if (!ret)
		ret = prepare(p, id, to, location);
	if (ret < 0) {
		unclaim(p, id);
		goto end;
	}
	ret = nu_offer_init(&offer, to, ret);
	if (!ret)
		ret = nu_fault(NU_FAULT_MOVE_PREPARED);
	if (!ret)
		ret = nu_offer_ahead(&offer, p, id);
	if (ret) {
		nu_offer_end(&offer, false);
		unclaim(p, id);
		goto abort;
	}
	ret = hand_over(p, id, to, location, &offer);
	if (!ret) {
		(void)nu_fault(NU_FAULT_MOVE_PULLED);
		if (!commit(p, to, location)) {
			nu_offer_end(&offer, true);
			undo(p);
			ret = -EHOSTDOWN;
		}
	}
	if (!ret) {
		ret = let_go(p, id, to, location, &offer);
		nu_stat_add(nu_core_self(), NU_STAT_MOVES_OUT, 1);
		if (ret)
			(void)!nu_move_ops.end(id, to, location, true);
		(void)nu_fault(NU_FAULT_MOVE_ENDED);
		return ret < 0 ? ret : 0;
	}
abort:
	(void)nu_fault(NU_FAULT_MOVE_UNDONE);
	(void)tell(to, &nu_abort_method, id); /* it may be dead */
end:
	(void)!nu_move_ops.end(id, nu_node.self, location, false);
	return ret;
}

static void move_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct nu_move_args *a = args;

	*(int *)result = nu_move_out(a->id, (unsigned)a->to);
}
NU_NODE_METHOD(nu_move_method, "move", move_run, struct nu_move_args, NULL, 0);

/* Where a proclet is by what this node knows, which may be long past: *sure_p false. */
static int guess(uint64_t id, bool *sure_p)
{
	struct nu_proclet *p = nu_proclet_lookup(id);
	uint64_t location;
	unsigned node;
	int ret;

	*sure_p = true;
	if (p && p->state == NU_PROCLET_DYING)
		return -ESTALE;
	if (p && (p->state == NU_PROCLET_PRESENT || p->state == NU_PROCLET_MOVING))
		return (int)nu_node.self;
	*sure_p = false;
	if (p && p->state == NU_PROCLET_MOVED)
		return (int)p->moved_to;
	ret = nu_rpc_locate(id, &node, &location);
	return ret ? ret : (int)node;
}

NU_API int nu_locate(struct nu_ref ref)
{
	uint64_t location;
	unsigned node;
	bool sure;
	int ret;

	if (!nu_thread_self())
		return nu_outside("nu_locate", "");
	if (!ref.id)
		return -ESTALE;
	ret = guess(ref.id, &sure);
	if (sure)
		return ret;
	/* It may have moved on from where we saw it go. */
	ret = nu_rpc_locate_anew(ref.id, &node, &location);
	return ret ? ret : (int)node;
}

NU_API int nu_migrate(struct nu_ref ref, unsigned node)
{
	struct nu_move_args args = {ref.id, node};
	int ret = -EREMCHG;

	if (!nu_thread_self())
		return nu_outside("nu_migrate", "");
	if (node >= nu_node.count)
		return -EINVAL;
	for (unsigned tries = 0; ret == -EREMCHG && tries < 100; tries++) {
		bool sure;
		int at = tries ? nu_locate(ref) : guess(ref.id, &sure);

		if (!tries && (at < 0 || (unsigned)at == node))
			at = nu_locate(ref);
		if (at < 0)
			return at;
		if ((unsigned)at == node)
			return 0;
		ret = nu_node_call((unsigned)at, &nu_move_method, &args);
	}
	return ret == -EREMCHG ? -EBUSY : ret;
}
