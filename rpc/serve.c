/* SPDX-License-Identifier: MIT */
/* Calls that arrive: a thread of the callee for each, or hold, forward, refuse. */
#include "core/fault.h"
#include "rpc/rpc_int.h"

#include <sched.h>

struct nu_rpc_ops nu_rpc_ops;

static struct {
	uint64_t n; /* calls to the node's own proclet that came to this core */
} __attribute__((aligned(NU_CACHE_LINE))) control_calls[NU_MAX_CORES];

/*
 * How long calls of a method take, by core: those that are over before long run at once, one after the other, each on the
 * stack that is still warm from the one before. The others are queued, where idle cores find them.
 */
#define SHORT_NS  1500u
#define COSTS	  64u
#define LOOK_EACH 16u /* time is taken of one call in so many */
#define TRY_EACH                                                                                             \
	64u /* one in so many of a method whose calls take long runs at once, to see whether they still do */

struct cost {
	const struct nu_method *m;
	unsigned calls;
	uint64_t ns;
};
static struct {
	struct cost of[COSTS];
} __attribute__((aligned(NU_CACHE_LINE))) costs[NU_MAX_CORES];

void nu_rpc_set_ops(const struct nu_rpc_ops *ops)
{
	nu_rpc_ops = *ops;
}

/* A call that this node's proclet waits for was sent on, or a proclet is elsewhere. */
static void on_hint(const struct nu_msg *msg, const void *payload, size_t len, unsigned from)
{
	struct nu_thread *t = (struct nu_thread *)msg->thread;
	struct nu_proclet *caller = nu_proclet_lookup(msg->caller);

	if (msg->node >= nu_node.count)
		return;
	nu_route_learn(msg->target, (unsigned)msg->node, msg->location);
	if (!caller)
		return;
	nu_lock_acquire(&caller->lock);
	if (caller->state == NU_PROCLET_PRESENT && !caller->frozen && nu_thread_is_here(t) &&
	    t->proclet == caller && nu_wait_seq(t) == msg->seq)
		t->wait_dest = (uint32_t)msg->node; /* whose death would be the call's */
	nu_lock_release(&caller->lock);
}

/* A stack of ours has ended elsewhere. */
static void on_stack(const struct nu_msg *msg, const void *payload, size_t len, unsigned from)
{
	nu_stack_returned((void *)msg->thread, msg->target);
}

static void stack_home(unsigned home, void *stack_top, uint64_t proclet)
{
	struct nu_msg msg = {.len_bytes = sizeof(msg),
			     .type = NU_MSG_STACK,
			     .cls = NU_CLASS_CONTROL,
			     .target = proclet,
			     .thread = (uint64_t)stack_top};

	(void)!nu_wire_send(home, &msg, NULL, 0); /* its home may be dead: then nobody needs it */
}

int nu_rpc_init(void)
{
	const struct nu_sched_ops ops = {.stack_home = stack_home, .is_waited_for = nu_chain_reaches};

	nu_call_init();
	nu_sched_set_ops(&ops);
	nu_wire_set_handler(NU_MSG_HINT, on_hint);
	nu_wire_set_handler(NU_MSG_STACK, on_stack);
	nu_wire_set_handler(NU_MSG_CALL, nu_serve_on_call);
	nu_wire_set_handler(NU_MSG_REPLY, nu_reply_on_message);
	nu_wire_set_handler(NU_MSG_REFUSED, nu_reply_on_message);
	return 0;
}

void *nu_proclet_alloc(struct nu_proclet *p, size_t len_bytes)
{
	if (!p->heap)
		return malloc(len_bytes);
	if (unlikely(nu_fault_armed) && nu_fault_reached_from(NU_FAULT_ALLOC, __builtin_return_address(0)))
		return NULL;
	return nu_heap_alloc(p->heap, len_bytes, nu_core_self());
}

void nu_proclet_free(struct nu_proclet *p, void *ptr)
{
	if (ptr && p->heap && nu_addr_in_segments(ptr))
		nu_heap_free(p->heap, ptr, nu_core_self());
	else
		free(ptr);
}

static inline int run(struct nu_thread *t, struct nu_proclet *p, const struct nu_method *m)
{
	struct nu_out out = {t};

	if (unlikely(p->invoke))
		return p->invoke(p, t);
	m->run(p->root, t->serve_args, t->serve_result, &out);
	return 0;
}

/* Runs the method and answers, by any way. */
static void serve_body(void *arg)
{
	struct nu_thread *t = arg; /* its address is the same wherever it has moved */
	const struct nu_method *m = t->serve_method;
	int status = run(t, t->proclet, m);

	nu_thread_come_back(t);
	nu_stat_add(t->core, NU_STAT_CALLS_SERVED, 1); /* where it runs by now */
	if (m->result_kind == NU_RESULT_REF && !status && t->reply_proclet) {
		struct nu_ref *ref = t->serve_result;

		/* The caller gets a reference of its own, counted before the answer leaves. */
		if (ref->id)
			status = nu_ref_change(ref->id, t->reply_proclet, 1);
	}
	nu_reply_and_exit(t, status);
}

static inline void *hand_back(struct nu_thread *t, const struct nu_method *m)
{
	void *back = nu_thread_handback(t, t->reply_thread, t->reply_proclet, m->result_bytes);

	if (unlikely(!back))
		nu_reply_and_exit(t, 0);
	return back;
}

void *nu_serve_handed(struct nu_thread *t, void *ignored)
{
	const struct nu_method *m = t->serve_method;
	int status;

	nu_thread_begun(t->reply_thread);
	if (!t->may_spare)
		serve_body(t);
	status = run(t, t->proclet, m);
	nu_stat_add(t->core, NU_STAT_CALLS_SERVED, 1);
	if (status)
		nu_reply_and_exit(t, status);
	return hand_back(t, m);
}

void *nu_serve_quick(struct nu_thread *t, void *quick)
{
	const struct nu_quick *q =
		quick; /* on the caller's stack: it stays as it is until nu_thread_begun() */
	const struct nu_method *m = q->m;
	struct nu_thread *caller = t->reply_thread;

	t->serve_method = m;
	t->call_deadline_ns = 0;
	nu_copy_small(t->serve_args, q->args, m->args_bytes);
	caller->call_index++;
	nu_call_introduce(caller, t, q->id, m, q->result, nu_call_next_seq(caller));
	nu_thread_begun(caller);
	m->run(t->proclet->root, t->serve_args, t->serve_result,
	       NULL); /* results of fixed size need no `out` */
	return hand_back(t, m);
}

/* A reference that was cast, or a peer's bad word: the method would take one root object for another. */
static void __attribute__((cold)) say_other_class(const struct nu_proclet *p, const struct nu_method *m)
{
	nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
	nu_warn("call %s.%s refused: proclet %#lx is %s%s", m->class_name, m->name, (unsigned long)p->id,
		p->cls ? "a " : "of no class", p->cls ? p->cls->name : "");
}

/* The program and each of its shared objects that declare a class have a descriptor of it. */
static bool __attribute__((cold)) is_same_class(const struct nu_class *a, const struct nu_class *b)
{
	return a && b && a->root_bytes == b->root_bytes && !strcmp(a->name, b->name);
}

struct nu_thread *nu_serve_prepare(struct nu_proclet *p, const struct nu_method *m, const void *packed,
				   size_t len, int *err_p)
{
	bool may_spare = nu_spare_can(m, p->cls);
	size_t result_bytes = may_spare ? NU_SPARE_RESULT_MAX : NU_ALIGN_UP((size_t)m->result_bytes + 16, 16);
	size_t args_bytes = may_spare ? NU_SPARE_ARGS_MAX : NU_ALIGN_UP(len, 16);
	bool big = args_bytes > NU_STACK_ARGS_MAX;
	struct nu_thread *t;
	char *room;

	if (unlikely(m->cls != p->cls) && m->cls && !is_same_class(m->cls, p->cls)) {
		say_other_class(p, m);
		*err_p = -EINVAL;
		return NULL;
	}
	t = likely(m->cls) ? nu_thread_alloc(p) : nu_thread_alloc_step(p); /* references: how proclets end */
	*err_p = -ENOMEM;
	if (!t)
		return NULL;
	room = nu_thread_prepare(t, serve_body, t, result_bytes + (big ? 0 : args_bytes));
	if (!room)
		goto free_thread;
	t->serve_buffer = NULL;
	t->serve_result = room;
	t->serve_args = room + result_bytes;
	if (big) {
		t->serve_buffer = nu_proclet_alloc(p, args_bytes);
		if (!t->serve_buffer)
			goto free_thread;
		t->serve_args = t->serve_buffer;
	}
	memcpy(t->serve_args, packed, len);
	memset(t->serve_result, 0, m->result_bytes);
	if (m->nfields || unlikely(len != m->args_bytes)) {
		*err_p = nu_codec_args_unpack(m, t->serve_args, len);
		if (*err_p)
			goto free_buffer;
	}
	t->serve_method = m;
	t->may_spare = may_spare;
	t->serve_out = (struct nu_bytes){NULL, 0};
	t->detached = 1;
	nu_thread_link(t);
	p->calls_active++;
	return t;

free_buffer:
	nu_proclet_free(p, t->serve_buffer);
free_thread:
	nu_thread_free(t);
	return NULL;
}

struct nu_held *nu_held_get(const struct nu_msg *msg, const void *payload, size_t len)
{
	struct nu_held *h = malloc(sizeof(*h) + len);
	bool cut = false;

	if (!h && msg->type != NU_MSG_CALL) {
		cut = true;
		len = 0;
		h = nu_alloc_patiently(sizeof(*h));
	}
	if (!h)
		return NULL;
	h->msg = *msg;
	if (cut && !msg->status)
		h->msg.status = -ENOMEM;
	h->len_bytes = len;
	if (len)
		memcpy(h->payload, payload, len);
	return h;
}

int nu_held_add(struct nu_proclet *p, const struct nu_msg *msg, const void *payload, size_t len,
		unsigned from)
{
	struct nu_held *h;

	/* Answers are as many as threads wait, and nobody would send one again. */
	if (msg->type == NU_MSG_CALL && (p->nheld >= NU_HELD_MAX || p->held_bytes + len > NU_HELD_BYTES_MAX))
		return -EAGAIN;
	h = nu_held_get(msg, payload, len);
	if (unlikely(!h))
		return -ENOMEM;
	h->from = from;
	nu_list_add_tail(&p->held, &h->link);
	p->nheld++;
	p->held_bytes += h->len_bytes;
	nu_stat_add(nu_core_self(), NU_STAT_CALLS_HELD, 1);
	return 0;
}

/* It was here and has left: sends it on, bounded, and tells the sender the new place. */
static void forward(const struct nu_msg *msg, const void *payload, size_t len, unsigned node,
		    uint64_t location)
{
	struct nu_msg on = *msg;
	struct iovec part = {(void *)payload, len};

	on.hops++;
	on.cls = NU_CLASS_CONTROL; /* its credit has gone back already */
	if (msg->hops >= NU_MAX_HOPS || nu_wire_send(node, &on, &part, 1)) {
		nu_reply_refuse(msg, -NU_REFUSED_MOVED, node, location);
		return;
	}
	nu_stat_add(nu_core_self(), NU_STAT_CALLS_FORWARDED, 1);
	(void)nu_fault(NU_FAULT_CALL_FORWARDED);
	if (msg->origin != nu_node.self && msg->type == NU_MSG_CALL) {
		struct nu_msg hint = {.len_bytes = sizeof(hint),
				      .type = NU_MSG_HINT,
				      .cls = NU_CLASS_CONTROL,
				      .target = msg->target,
				      .location = location,
				      .thread = msg->thread,
				      .seq = msg->seq,
				      .caller = msg->caller,
				      .node = node};

		(void)!nu_wire_send(msg->origin, &hint, NULL, 0); /* only a hint */
	}
	nu_route_learn(msg->target, node, location);
}

static bool call_is_sane(const struct nu_msg *msg, size_t len)
{
	const struct nu_method *m = (const struct nu_method *)msg->method;

	/* Constructors are called by the node that creates, not over the wire: nothing is constructed twice. */
	return nu_image_is_method(m) && !m->constructor && len >= m->args_bytes &&
	       msg->origin < nu_node.count;
}

static struct cost *cost_of(const struct nu_method *m)
{
	struct cost *c = &costs[nu_core_self()].of[((uintptr_t)m / sizeof(*m)) % COSTS];

	if (unlikely(c->m != m))
		*c = (struct cost){.m = m};
	return c;
}

/* Whether the call runs at once. */
static bool is_short(struct cost *c)
{
	c->calls++;
	return likely(c->ns <= SHORT_NS) || c->calls % TRY_EACH == 0;
}

static void serve_now(struct nu_thread *t, struct cost *c)
{
	uint64_t start, ns;

	if (likely(c->calls % LOOK_EACH != 1 && c->ns <= SHORT_NS)) {
		nu_thread_run_now(t);
		return;
	}
	start = nu_mono_ns();
	nu_thread_run_now(t);
	ns = nu_mono_ns() - start;
	c->ns = c->ns ? (3 * c->ns + ns) / 4 : ns;
}

/* Starts the call in @p (lock held, released here). */
static void serve_here(struct nu_proclet *p, const struct nu_msg *msg, const void *payload, size_t len)
{
	int err;
	struct nu_thread *t = nu_serve_prepare(p, (const struct nu_method *)msg->method, payload, len, &err);
	struct cost *c;

	if (!t) {
		nu_lock_release(&p->lock);
		nu_reply_refuse(msg, err, 0, 0);
		return;
	}
	t->reply_proclet = msg->caller;
	t->reply_thread = (struct nu_thread *)msg->thread;
	t->reply_seq = msg->seq;
	t->reply_node = msg->origin;
	t->call_id = msg->call_id;
	t->call_nth = 0;
	t->call_index = 0;
	c = p->heap && nu_may_run_now() ? cost_of(t->serve_method) : NULL;
	if (c && is_short(c)) {
		nu_thread_pick(t);
		nu_lock_release(&p->lock);
		serve_now(t, c);
		return;
	}
	nu_lock_release(&p->lock);
	if (!nu_is_step(p->id, t->serve_method)) {
		nu_thread_ready(t);
	} else { /* these go first */
		uint64_t *n = &control_calls[nu_core_self()].n;

		__atomic_store_n(n, *n + 1, __ATOMIC_RELAXED); /* this core writes, others look */
		nu_thread_ready_first(t);
	}
}

void nu_rpc_expect(bool (*done)(void *arg), void *arg, unsigned alone_us, unsigned for_us)
{
	uint64_t *calls = &control_calls[nu_core_self()].n;
	uint64_t seen = __atomic_load_n(calls, __ATOMIC_RELAXED), start = nu_mono_ns(), now = start;

	if (!nu_wire_may_poll())
		return; /* the calling thread runs within a poll: what it waits for comes when it has left */
	while (__atomic_load_n(calls, __ATOMIC_RELAXED) == seen && !done(arg) &&
	       now - start < for_us * 1000ull) {
		nu_wire_poll();
		if (nu_sched_crowded())
			sched_yield(); /* whoever we wait for may need this processor */
		now = nu_mono_ns();
		if (now - start < alone_us * 1000ull)
			continue;
		if (!nu_sched_has_queued())
			break; /* the core sleeps, and a message wakes it */
		nu_yield();
	}
}

void nu_serve_dispatch(const struct nu_msg *msg, const void *payload, size_t len, unsigned from)
{
	struct nu_proclet *p = nu_proclet_lookup(msg->target);
	unsigned to;
	uint64_t location;
	int err;

	if (!p) {
		nu_reply_refuse(msg, -NU_REFUSED_MOVED, NU_NODE_UNKNOWN, 0);
		return;
	}
	nu_lock_acquire(&p->lock);
	if (unlikely(atomic_load_explicit(&p->id, memory_order_relaxed) != msg->target)) {
		nu_lock_release(&p->lock);
		nu_reply_refuse(msg, -NU_REFUSED_MOVED, NU_NODE_UNKNOWN, 0);
		return;
	}
	switch (atomic_load(&p->state)) {
	case NU_PROCLET_PRESENT:
		if (likely(!p->frozen)) {
			serve_here(p, msg, payload, len);
			return;
		}
		/* fallthrough */
	case NU_PROCLET_MOVING:
	case NU_PROCLET_ARRIVING:
		err = nu_held_add(p, msg, payload, len, from);
		nu_lock_release(&p->lock);
		(void)nu_fault(NU_FAULT_CALL_HELD);
		if (err)
			nu_reply_refuse(msg, -NU_REFUSED_BUSY, 0, 0);
		return;
	case NU_PROCLET_MOVED:
		to = p->moved_to;
		location = p->moved_location;
		nu_lock_release(&p->lock);
		forward(msg, payload, len, to, location);
		return;
	case NU_PROCLET_DYING:
		nu_lock_release(&p->lock);
		nu_stat_add(nu_core_self(), NU_STAT_STALE_CALLS, 1);
		nu_reply_refuse(msg, -ESTALE, 0, 0);
		return;
	default: /* entered, nothing known yet: the controller knows more */
		nu_lock_release(&p->lock);
		nu_reply_refuse(msg, -NU_REFUSED_MOVED, NU_NODE_UNKNOWN, 0);
	}
}

void nu_serve_on_call(const struct nu_msg *msg, const void *payload, size_t len, unsigned from)
{
	if (msg->cls == NU_CLASS_CALL)
		nu_wire_accepted(from);
	if (unlikely(!call_is_sane(msg, len))) {
		nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
		nu_warn("call from node %u refused: method %#lx with %zu bytes of arguments is none of ours",
			from, (unsigned long)msg->method, len);
		return;
	}
	nu_serve_dispatch(msg, payload, len, from);
}

void nu_held_release(struct nu_proclet *p)
{
	struct nu_list all, *l, *next;

	/* Each once: the proclet may be on the move again, and then who ends that move comes here. */
	nu_list_init(&all);
	nu_lock_acquire(&p->lock);
	while (!nu_list_empty(&p->held)) {
		l = p->held.next;
		nu_list_del(l);
		nu_list_add_tail(&all, l);
	}
	p->nheld = 0;
	p->held_bytes = 0;
	nu_lock_release(&p->lock);
	nu_list_for_each_safe (l, next, &all) {
		struct nu_held *h = nu_list_entry(l, struct nu_held, link);

		if (h->msg.type == NU_MSG_CALL)
			nu_serve_dispatch(&h->msg, h->payload, h->len_bytes, h->from);
		else
			nu_reply_on_message(&h->msg, h->payload, h->len_bytes, h->from);
		free(h);
	}
}
