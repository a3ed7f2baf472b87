/* SPDX-License-Identifier: MIT */
/*
 * A move as its destination sees it: room first, then pull, install, resume; what would leave the proclet waits until
 * the source has let go.
 */
#include "core/fault.h"
#include "rdma/move_int.h"

#define EXPECT_US     300u
#define EXPECT_US_MAX 3000u
#define CLEAR_US      20u
#define CLEAR_TRIES   5000u

/* ---- prepare ---- */

/* Everything in it is a peer's word. */
static int prepare_check(const struct nu_prepare_args *a)
{
	const struct nu_class *cls = nu_image_class_of((const struct nu_method *)a->init);

	if (a->from < nu_node.count && a->from != nu_node.self && cls && nu_id_is_mobile(a->id) &&
	    nu_id_may_hold(a->id, a->capacity_bytes) && a->used_bytes <= a->capacity_bytes &&
	    a->threads.len_bytes % sizeof(uint64_t) == 0 &&
	    a->threads.len_bytes / sizeof(uint64_t) <= NU_PREPARE_THREADS_MAX)
		return atomic_load(&nu_node.dead[a->from]) ? -EHOSTDOWN : 0;
	nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
	nu_warn("move of proclet %#lx from node %lu refused: %lu of %lu bytes, constructor %#lx, %zu bytes "
		"of threads",
		(unsigned long)a->id, (unsigned long)a->from, (unsigned long)a->used_bytes,
		(unsigned long)a->capacity_bytes, (unsigned long)a->init, a->threads.len_bytes);
	return -EBADMSG;
}

/* The control block for what will arrive: new, or the note that it was here before. It is busy. */
static int enter(const struct nu_prepare_args *a, struct nu_proclet **p_p)
{
	struct nu_proclet *p = nu_proclet_lookup(a->id);
	int ret = 0;

	if (!p) {
		ret = nu_proclet_enter(a->id, &p);
		if (ret)
			return ret;
	}
	/* It left us and comes back already: what is left of it here is being cleared away. */
	for (unsigned tries = 0; p->state == NU_PROCLET_MOVED && p->move_claimed && tries < CLEAR_TRIES;
	     tries++)
		nu_sleep_us(CLEAR_US);
	nu_lock_acquire(&p->lock);
	if (p->move_claimed) {
		ret = -EBUSY;
	} else if (p->state == NU_PROCLET_NONE || p->state == NU_PROCLET_MOVED) {
		p->was_note = p->state == NU_PROCLET_MOVED;
		p->moved_from = (unsigned)a->from;
		p->arriving_busy = true;
		p->state = NU_PROCLET_ARRIVING;
	} else {
		ret = -EBUSY;
	}
	nu_lock_release(&p->lock);
	*p_p = p;
	return ret;
}

/* What was announced; stacks that have been mapped ahead. An entry is 0 once its thread has come. */
struct nu_arrival {
	const struct nu_class *cls;
	uint64_t capacity_bytes, location;
	unsigned n;
	uint64_t threads[];
};

#define STACK_GUESS_BYTES                                                                                    \
	4096u /* of a live stack, beside its control block: more is faulted in by the read */

static int adopt_ahead(struct nu_proclet *p, const struct nu_prepare_args *a)
{
	const uint64_t *threads = a->threads.data;
	size_t n = a->threads.len_bytes / sizeof(*threads);
	struct nu_arrival *ar = malloc(sizeof(*ar) + n * sizeof(ar->threads[0]));

	if (!ar)
		return -ENOMEM;
	*ar = (struct nu_arrival){.cls = nu_image_class_of((const struct nu_method *)a->init),
				  .capacity_bytes = a->capacity_bytes,
				  .location = a->location};
	for (size_t i = 0; i < n; i++) {
		/* Those that cannot be mapped now are tried again at the hand-over. */
		if (!nu_stack_adopt((struct nu_thread *)threads[i], STACK_GUESS_BYTES))
			ar->threads[ar->n++] = threads[i];
	}
	p->arrival = ar;
	return 0;
}

/* True if the stack of @thread has been mapped ahead; it is the thread's from now on. @hint: where it probably stands. */
static bool taken_ahead(struct nu_proclet *p, uint64_t thread, unsigned hint)
{
	struct nu_arrival *ar = p->arrival;

	for (unsigned i = 0; ar && i < ar->n; i++) {
		unsigned at = (hint + i) % ar->n;

		if (ar->threads[at] == thread) {
			ar->threads[at] = 0;
			return true;
		}
	}
	return false;
}

/* Threads that were announced and have ended since. */
static void drop_ahead(struct nu_proclet *p)
{
	for (unsigned i = 0; p->arrival && i < p->arrival->n; i++) {
		if (p->arrival->threads[i])
			nu_stack_depart((struct nu_thread *)p->arrival->threads[i]);
	}
	free(p->arrival);
	p->arrival = NULL;
}

/* Two peers' words about one arrival, or a peer's and its node's death: one of them at a time. */
static bool arrival_claim(struct nu_proclet *p, uint64_t from)
{
	bool won;

	nu_lock_acquire(&p->lock);
	won = p->state == NU_PROCLET_ARRIVING && p->moved_from == from && !p->arriving_busy;
	if (won)
		p->arriving_busy = true;
	nu_lock_release(&p->lock);
	return won;
}

/* It will not arrive: what is held goes where it is. The caller has claimed the arrival. */
static void give_up(struct nu_proclet *p)
{
	bool note;

	drop_ahead(p);
	nu_proclet_unmap(p);
	nu_lock_acquire(&p->lock);
	/* Nobody asks us to forget what the controller never knew that we had, or what was lost. */
	note = p->was_note && !atomic_load(&nu_node.dead[p->moved_from]);
	p->moved_to = p->moved_from;
	p->moved_location = 0;
	p->state = note ? NU_PROCLET_MOVED : NU_PROCLET_NONE;
	p->arriving_busy = false;
	atomic_store(&p->frozen, false);
	nu_lock_release(&p->lock);
	nu_held_release(p);
	if (!note)
		nu_proclet_leave(p);
}

/* The hand-over follows within the time that a pause takes: look out for it. */
static bool has_come(void *arg)
{
	return ((struct nu_proclet *)arg)->state != NU_PROCLET_ARRIVING;
}

static void expect_body(void *arg)
{
	nu_rpc_expect(has_come, arg, EXPECT_US, EXPECT_US_MAX);
}

static void prepare_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct nu_prepare_args *a = args;
	struct nu_proclet *p;
	int ret = prepare_check(a);

	if (!ret)
		ret = enter(a, &p);
	if (!ret) {
		ret = nu_fault(NU_FAULT_MOVE_ENTERED);
		if (!ret)
			ret = nu_proclet_reserve(p, a->used_bytes);
		/* Now, while it still runs: this takes longer than the reading of a small heap. */
		if (!ret)
			ret = nu_proclet_install(p);
		if (!ret)
			ret = adopt_ahead(p, a);
		if (!ret)
			ret = nu_reader_connect((unsigned)a->from);
		if (!ret)
			ret = nu_fault(NU_FAULT_MOVE_RESERVED);
		if (ret) {
			give_up(p);
		} else {
			nu_lock_acquire(&p->lock);
			p->arriving_busy = false;
			nu_lock_release(&p->lock);
			(void)!nu_node_spawn(expect_body, p); /* if not, it comes a little later */
			/* Who looked for what came from a dead node may have seen us busy. */
			if (atomic_load(&nu_node.dead[a->from]) && arrival_claim(p, a->from))
				give_up(p);
		}
	}
	*(int *)result = ret ? ret : nu_reader_offer_kind((unsigned)a->from);
}
static const struct nu_field prepare_fields[] = {
	{offsetof(struct nu_prepare_args, threads), NU_FIELD_BYTES, 1},
};
NU_NODE_METHOD(nu_prepare_method, "prepare", prepare_run, struct nu_prepare_args, prepare_fields, 1);

static void abort_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct nu_move_id_args *a = args;
	struct nu_proclet *p = nu_proclet_lookup(a->id);

	*(int *)result = 0;
	(void)nu_fault(NU_FAULT_MOVE_ABORTED);
	if (p && arrival_claim(p, p->moved_from))
		give_up(p);
}
NU_NODE_METHOD(nu_abort_method, "abort", abort_run, struct nu_move_id_args, NULL, 0);

static bool settle(struct nu_proclet *p, uint64_t from);

/* ---- hand-over ---- */

static int adopt_stacks(struct nu_proclet *p, const struct nu_handover *h,
			const struct nu_handover_thread *threads, unsigned *done_p)
{
	for (*done_p = 0; *done_p < h->nthreads; (*done_p)++) {
		const struct nu_handover_thread *t = &threads[*done_p];
		int ret = taken_ahead(p, t->thread, *done_p)
				  ? 0
				  : nu_stack_adopt((struct nu_thread *)t->thread, t->live_bytes);

		if (ret) /* in use: a third node's stack came home and went out again before we had let it depart */
			return ret == -EEXIST ? -EBUSY : ret;
	}
	return 0;
}

/* Pointers in what was read that are followed before the program's own code is. Its other contents are its own affair. */
static int contents_check(const struct nu_proclet *p, const struct nu_handover *h,
			  const struct nu_handover_thread *threads)
{
	const struct nu_proclet_head *head = nu_seg_addr(nu_id_seg(h->id));
	const struct nu_arrival *ar = p->arrival;
	uintptr_t base = (uintptr_t)head;

	if (head->id != h->id || head->cls != ar->cls || head->capacity_bytes != ar->capacity_bytes ||
	    (uintptr_t)head->root - base >= h->used_bytes ||
	    (head->holders && (uintptr_t)head->holders - base >= h->used_bytes) ||
	    (head->held && (uintptr_t)head->held - base >= h->used_bytes) ||
	    !nu_heap_may_arrive(head->heap, head, h->used_bytes, ar->capacity_bytes))
		return -EBADMSG;
	for (unsigned i = 0; i < h->nthreads; i++) {
		const struct nu_thread *t = (const struct nu_thread *)threads[i].thread;
		uintptr_t sp = (uintptr_t)t->sp;

		if (t->proclet_id != h->id || sp < threads[i].low || sp >= (uintptr_t)t ||
		    (uintptr_t)t->stack_low > threads[i].low)
			return -EBADMSG;
	}
	return 0;
}

static int pull(struct nu_proclet *p, const struct nu_handed *d)
{
	const struct nu_handover *h = d->h;
	unsigned adopted;
	int ret = nu_proclet_reserve(p, h->used_bytes); /* it may have grown since */

	if (!ret)
		ret = nu_proclet_install(p);
	if (ret)
		return ret;
	ret = adopt_stacks(p, h, d->threads, &adopted);
	if (!ret)
		ret = nu_fault(NU_FAULT_MOVE_READING);
	if (!ret)
		ret = nu_pull(p, d);
	if (!ret)
		ret = nu_fault(NU_FAULT_MOVE_READ);
	if (!ret)
		ret = contents_check(p, h, d->threads);
	if (!ret)
		return 0;
	while (adopted)
		nu_stack_depart((struct nu_thread *)d->threads[--adopted].thread);
	return ret;
}

/* The bytes are in place: makes a proclet of them that can run. Nothing of it runs yet. */
static void assemble(struct nu_proclet *p, const struct nu_handover *h,
		     const struct nu_handover_thread *threads)
{
	struct nu_proclet_head *head = nu_seg_addr(nu_id_seg(h->id));
	uint64_t now = nu_mono_ns();
	int64_t shift = (int64_t)(now - h->source_now_ns);

	head->location = h->location;
	head->clock_offset_ns = (int64_t)(h->proclet_now_ns - now);
	nu_heap_arrived(head->heap, p->mapped_bytes);
	nu_heap_set_grow(head->heap, nu_proclet_map, p);
	nu_lock_acquire(&p->lock);
	p->head = head;
	p->root = head->root;
	p->heap = head->heap;
	head->look = 0;
	p->cls = head->cls;
	nu_list_init(&p->threads);
	nu_list_init(&p->parked);
	nu_list_init(&p->output_waiters);
	p->nthreads = 0;
	p->calls_active = h->calls_active;
	atomic_store(&p->frozen, true);
	for (unsigned i = 0; i < h->nthreads; i++) {
		struct nu_thread *t = (struct nu_thread *)threads[i].thread;

		/* Deadlines are what is left of them. */
		if (t->deadline_ns)
			t->deadline_ns += (uint64_t)shift;
		if (t->call_deadline_ns)
			t->call_deadline_ns += (uint64_t)shift;
		nu_thread_arrived(t, p);
	}
	__atomic_store_n(&p->hold_output, true, __ATOMIC_RELAXED);
	p->arriving_busy = false;
	nu_lock_release(&p->lock);
}

static void blackout_note(uint64_t ns)
{
	nu_blackout_add(ns);
	nu_stat_add(nu_core_self(), NU_STAT_MOVES_IN, 1);
}

static int __attribute__((cold)) bad_handover(const struct nu_handover *h, size_t len)
{
	bool whole = len >= sizeof(*h);

	nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
	nu_warn("hand-over of %zu bytes makes no sense: proclet %#lx from node %lu, %u threads", len,
		whole ? (unsigned long)h->id : 0, whole ? (unsigned long)h->from : 0,
		whole ? h->nthreads : 0);
	return -EBADMSG;
}

static int arrive(const struct nu_handover *h, size_t len)
{
	struct nu_handed d;
	struct nu_proclet *p;
	int ret;

	if (!nu_handed_parse(h, len, &d))
		return bad_handover(h, len);
	p = nu_proclet_lookup(h->id);
	if (!p || !arrival_claim(p, h->from))
		return -EINVAL;
	if (p->arrival->location != h->location || h->used_bytes > p->arrival->capacity_bytes ||
	    h->used_bytes < NU_HEAP_HEAD_BYTES) {
		give_up(p);
		return bad_handover(h, len);
	}
	ret = nu_fault(NU_FAULT_MOVE_HANDED);
	if (!ret)
		ret = pull(p, &d);
	if (ret) {
		if (ret == -EBADMSG)
			(void)bad_handover(h, len);
		give_up(p);
		return ret;
	}
	assemble(p, h, d.threads);
	nu_lock_acquire(&p->lock);
	p->state = NU_PROCLET_PRESENT;
	nu_lock_release(&p->lock);
	nu_thaw(p);
	blackout_note(nu_mono_ns() - h->paused_at_ns);
	drop_ahead(p);
	nu_held_release(p);
	if (nu_node.dead[h->from])
		settle(p,
		       h->from); /* it has died meanwhile, and who looked for what came from it saw us busy */
	(void)nu_fault(NU_FAULT_MOVE_RESUMED);
	return 0;
}

static void handover_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct nu_handover_args *a = args;

	*(int *)result = arrive(a->blob.data, a->blob.len_bytes);
}
static const struct nu_field handover_fields[] = {
	{offsetof(struct nu_handover_args, blob), NU_FIELD_BYTES, 1},
};
NU_NODE_METHOD(nu_handover_method, "hand-over", handover_run, struct nu_handover_args, handover_fields, 1);

/* ---- relinquished ---- */

/* What is done while the proclet runs freely again; the mover hears when the controller knows. Return: whether it does. */
static bool settle_books(struct nu_proclet *p)
{
	uint64_t id = 0, location = 0;
	bool told;

	nu_lock_acquire(&p->lock);
	if (p->head) {
		id = p->id;
		location = p->head->location;
	}
	nu_lock_release(&p->lock);
	if (!id)
		return false; /* it has gone on already; the next place tells the controller */
	(void)nu_fault(NU_FAULT_MOVE_RELINQUISHED);
	told = !nu_move_ops.end(id, nu_node.self, location,
				true); /* the controller died: it asks the nodes */
	(void)nu_fault(NU_FAULT_MOVE_SETTLED);
	nu_held_release(p);
	nu_lost_recheck(p);
	nu_move_check_refs(p);
	return told;
}

static bool settle(struct nu_proclet *p, uint64_t from)
{
	nu_lock_acquire(&p->lock);
	if (!p->hold_output || p->moved_from != from) {
		nu_lock_release(&p->lock);
		return false;
	}
	__atomic_store_n(&p->hold_output, false, __ATOMIC_RELEASE); /* looked at without the lock first */
	while (!nu_list_empty(&p->output_waiters)) {
		struct nu_thread *t = nu_list_entry(p->output_waiters.next, struct nu_thread, link);

		nu_list_del(&t->link);
		nu_thread_ready(t);
	}
	nu_lock_release(&p->lock);
	return settle_books(p);
}

static void relinquish_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct nu_move_id_args *a = args;
	struct nu_proclet *p = nu_proclet_lookup(a->id);

	*(int *)result = p ? !settle(p, p->moved_from) : -ESTALE;
}
NU_NODE_METHOD(nu_relinquish_method, "relinquish", relinquish_run, struct nu_move_id_args, NULL, 0);

void nu_move_check_refs(struct nu_proclet *p)
{
	bool ends;

	nu_lock_acquire(&p->lock);
	ends = p->state == NU_PROCLET_PRESENT && p->head && !p->head->refs_total;
	if (ends)
		p->state = NU_PROCLET_DYING;
	ends = ends && !p->calls_active;
	nu_lock_release(&p->lock);
	if (ends)
		nu_rpc_retire(p);
}

struct orphans {
	unsigned node;
	struct nu_proclet *p[64];
	unsigned n;
};

static void find_orphan(struct nu_proclet *p, void *arg)
{
	struct orphans *o = arg;

	if (p->moved_from == o->node && o->n < 64 &&
	    (p->hold_output || (p->state == NU_PROCLET_ARRIVING && !p->arriving_busy)))
		o->p[o->n++] = p;
}

void nu_move_node_dead(unsigned node)
{
	struct orphans o;

	nu_reader_peer_dead(node);
	do {
		o = (struct orphans){.node = node};
		nu_proclet_for_each(find_orphan, &o);
		for (unsigned i = 0; i < o.n; i++) {
			if (arrival_claim(o.p[i], node))
				give_up(o.p[i]);
			else
				settle(o.p[i],
				       node); /* the source died after we had pulled: this is the only copy */
		}
	} while (o.n);
}

int nu_move_init(void)
{
	return 0;
}
