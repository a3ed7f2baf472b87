/* SPDX-License-Identifier: MIT */
/*
 * Answers. A reply is addressed to the calling proclet, its thread and the sequence number of its call, so it follows
 * the caller wherever that has moved: delivered, held or forwarded like a call. A thread's address is unique in the
 * cluster and moves with it, so no slot table has to be translated.
 */
#include "core/fault.h"
#include "rpc/rpc_int.h"

#define ERRNO_MAX      4095
#define ANEW_US	       1000u
#define SPAWN_AGAIN_NS 10000000u
#define REPLY_HAS_DATA 1u /* msg.flags: a span result was given (it may be empty) */
#define REPLY_URGENT   2u /* of a node or the controller: a step of a move or of a creation */

void nu_output_wait(struct nu_proclet *p)
{
	while (unlikely(__atomic_load_n(&p->hold_output, __ATOMIC_ACQUIRE))) {
		struct nu_thread *t = nu_thread_self();

		nu_lock_acquire(&p->lock);
		if (!p->hold_output) {
			nu_lock_release(&p->lock);
			return;
		}
		nu_list_add_tail(&p->output_waiters, &t->link);
		nu_thread_block(NU_WAIT_OUTPUT, &p->lock);
		p = t->proclet;
	}
}

static void __attribute__((cold)) bad(const struct nu_msg *msg, const char *what)
{
	nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
	nu_warn("answer from node %u to proclet %#lx refused: it %s", msg->origin, (unsigned long)msg->target,
		what);
}

/* What an answer may say: a peer's word. A refusal of success would leave the caller without a result. */
static bool status_is_sane(const struct nu_msg *msg)
{
	if (msg->type == NU_MSG_REFUSED)
		return (msg->status < 0 && msg->status >= -ERRNO_MAX) || msg->status == -NU_REFUSED_MOVED ||
		       msg->status == -NU_REFUSED_BUSY;
	return msg->status <= 0 && msg->status >= -ERRNO_MAX;
}

/* Puts a result where the waiting thread wants it. Its proclet's lock is held and it is not frozen. */
static int result_store(struct nu_proclet *caller, struct nu_thread *w, const struct nu_msg *msg,
			const void *data, size_t len)
{
	const struct nu_method *m = w->wait_method;
	struct nu_bytes *span = w->wait_result;
	char *copy;

	switch (m->result_kind) {
	case NU_RESULT_FIXED:
	case NU_RESULT_REF:
		if (len != m->result_bytes)
			return -EBADMSG;
		if (w->wait_result)
			memcpy(w->wait_result, data, len);
		return 0;
	case NU_RESULT_SPAN:
		if (!span)
			return 0;
		*span = (struct nu_bytes){NULL, 0};
		if (!(msg->flags & REPLY_HAS_DATA))
			return 0;
		copy = nu_proclet_alloc(caller, len + 1); /* a string's NUL */
		if (!copy)
			return -ENOMEM;
		memcpy(copy, data, len);
		copy[len] = 0;
		*span = (struct nu_bytes){copy, len};
		return 0;
	default:
		return 0;
	}
}

/*
 * Hands the answer to its thread. The caller's lock is held, it is present and not frozen. Returns the thread if it is
 * blocked and now ours to run; NULL if nobody waits any more or the thread has not gone to sleep yet.
 */
static struct nu_thread *answer(struct nu_proclet *caller, const struct nu_msg *msg, const void *data,
				size_t len)
{
	struct nu_thread *w = (struct nu_thread *)msg->thread;

	if (!msg->seq || !nu_thread_is_here(w) || w->proclet != caller || nu_wait_seq(w) != msg->seq ||
	    w->wait_done)
		return NULL; /* its deadline has passed, or a peer's bad word */
	if (unlikely(msg->type == NU_MSG_REPLY && msg->method != (uint64_t)w->wait_method)) {
		bad(msg, "answers another method than was called");
		return NULL;
	}
	w->wait_status = msg->status;
	if (msg->type == NU_MSG_REFUSED) {
		w->wait_hint[0] = msg->node;
		w->wait_hint[1] = msg->location;
	} else if (!msg->status) {
		w->wait_status = result_store(caller, w, msg, data, len);
	}
	__builtin_prefetch(w->sp);
	__builtin_prefetch((char *)w->sp + NU_CACHE_LINE);
	nu_wait_seq_set(w, 0); /* no second answer, whatever the thread does next */
	__atomic_store_n(&w->wait_done, 1, __ATOMIC_RELEASE); /* who polls for it does so without the lock */
	/* Under this lock `wait_done` admits one answer; only a deadline's timer competes with it. */
	return __atomic_load_n(&w->state, __ATOMIC_ACQUIRE) == NU_THREAD_BLOCKED &&
			       (!w->call_deadline_ns || nu_wake_claim(w))
		       ? w
		       : NULL;
}

enum outcome { ANSWERED, HELD, NOT_HERE, DROPPED };

/* Tries to deliver on this node. ANSWERED: *run_p is a thread that is ours to run (its lock still held), or NULL. */
static enum outcome deliver(const struct nu_msg *msg, const void *data, size_t len, unsigned from,
			    struct nu_thread **run_p, struct nu_proclet **caller_p, unsigned *to_p)
{
	struct nu_proclet *caller = nu_proclet_lookup(msg->target);
	enum outcome o = ANSWERED;

	if (!caller)
		return NOT_HERE;
	nu_lock_acquire(&caller->lock);
	switch (atomic_load_explicit(&caller->id, memory_order_relaxed) == msg->target ? caller->state
										       : NU_PROCLET_NONE) {
	case NU_PROCLET_PRESENT:
	case NU_PROCLET_DYING:
		if (likely(!caller->frozen)) {
			*run_p = answer(caller, msg, data, len);
			*caller_p = caller;
			return ANSWERED; /* the lock stays held */
		}
		/* fallthrough */
	case NU_PROCLET_MOVING:
	case NU_PROCLET_ARRIVING:
		o = nu_held_add(caller, msg, data, len, from) ? DROPPED : HELD;
		if (o == DROPPED)
			nu_err("reply lost: no memory to hold it while proclet %#lx moves",
			       (unsigned long)msg->target);
		break;
	case NU_PROCLET_MOVED:
		*to_p = caller->moved_to;
		o = NOT_HERE;
		break;
	default:
		o = NOT_HERE;
	}
	nu_lock_release(&caller->lock);
	return o;
}

/*
 * The answer @on cannot be sent, or not as it is, because of @err: its caller must hear of that, whatever it is. There is
 * always room for a bare status.
 */
static int send_status(unsigned to, struct nu_msg *on, int err)
{
	if (unlikely(err != -ENOMEM))
		nu_err("answer of %u bytes to proclet %#lx cannot be sent to node %u: %s", on->len_bytes,
		       (unsigned long)on->target, to, nu_strerror(err));
	on->status = on->status ? on->status : err;
	on->flags &= (uint8_t)~REPLY_HAS_DATA;
	on->len_bytes = sizeof(*on);
	err = nu_wire_send(to, on, NULL, 0);
	if (unlikely(err && err != -EHOSTDOWN))
		nu_err("answer to proclet %#lx lost on its way to node %u: %s", (unsigned long)on->target, to,
		       nu_strerror(err));
	return err;
}

/* Nobody here knows where the caller is, or where it was has died: the controller does, or knows that it has ended. */
static void anew_body(void *arg)
{
	struct nu_held *h = arg;
	uint64_t location;
	unsigned node, tries = 0;
	int ret, err;

	while (!(ret = nu_rpc_locate_anew(h->msg.target, &node, &location))) {
		struct iovec part = {h->payload, h->len_bytes};

		if (node == nu_node.self) {
			nu_reply_on_message(&h->msg, h->payload, h->len_bytes, h->from);
			break;
		}
		err = nu_wire_send(node, &h->msg, &part, h->len_bytes ? 1 : 0);
		if (err == -EHOSTDOWN)
			nu_sleep_us(ANEW_US); /* the controller will hear of it */
		else if (!nu_rpc_again(err, &tries) &&
			 (!err || send_status(node, &h->msg, err) != -EHOSTDOWN))
			break;
	}
	if (ret)
		nu_stat_add(nu_core_self(), NU_STAT_STALE_CALLS, 1);
	free(h);
}

/* Until there is a stack for it: the caller waits. */
static void anew_begin(void *arg)
{
	struct nu_held *h = arg;

	if (likely(!nu_node_spawn(anew_body, h)) || !nu_timer_call(SPAWN_AGAIN_NS, anew_begin, h))
		return;
	nu_err("answer to proclet %#lx lost: no stack and no timer to look for where it is now",
	       (unsigned long)h->msg.target);
	free(h);
}

static void send_anew(const struct nu_msg *msg, const void *data, size_t len)
{
	struct nu_held *h;
	unsigned ignored;

	if (nu_id_is_node(msg->target, &ignored))
		return;
	h = nu_held_get(msg, data, len);
	if (unlikely(!h))
		return; /* said there */
	h->from = nu_node.self;
	h->msg.hops = 0;
	anew_begin(h);
}

static void send_on(const struct nu_msg *msg, const void *data, size_t len, unsigned to)
{
	struct nu_msg on = *msg;
	struct iovec part = {(void *)data, len};
	int err;

	/* It has ended, or was about to arrive here and did not; or the notes that it left behind lead nowhere. */
	if (unlikely(to >= nu_node.count || to == nu_node.self || on.hops == UINT8_MAX)) {
		send_anew(&on, data, len);
		return;
	}
	on.hops++;
	err = nu_wire_send(to, &on, &part, len ? 1 : 0);
	if (unlikely(err && err != -EHOSTDOWN)) {
		len = 0;
		err = send_status(to, &on, err);
	}
	if (unlikely(err == -EHOSTDOWN))
		send_anew(&on, data, len);
	else if (likely(!err))
		nu_stat_add(nu_core_self(), NU_STAT_REPLIES_SENT, 1);
}

void nu_reply_on_message(const struct nu_msg *msg, const void *payload, size_t len, unsigned from)
{
	struct nu_thread *run = NULL;
	struct nu_proclet *caller;
	unsigned to = NU_NODE_UNKNOWN;

	if (unlikely(!status_is_sane(msg))) {
		bad(msg, "has a status that none can have");
		return;
	}
	switch (deliver(msg, payload, len, from, &run, &caller, &to)) {
	case ANSWERED:
		/* Under the lock: a pause must not find it blocked and let it go while we are about to run it. */
		if (run && caller->heap && !(msg->flags & REPLY_URGENT))
			nu_thread_ready(run);
		else if (run)
			nu_thread_ready_first(run); /* the node's own: steps of a move */
		nu_lock_release(&caller->lock);
		(void)nu_fault(NU_FAULT_CALL_ANSWERED);
		return;
	case NOT_HERE:
		send_on(msg, payload, len, to);
		return;
	default:
		return;
	}
}

void nu_reply_refuse(const struct nu_msg *call, int status, unsigned node, uint64_t location)
{
	struct nu_msg msg = {
		.len_bytes = sizeof(msg),
		.type = NU_MSG_REFUSED,
		.cls = NU_CLASS_REPLY,
		.target = call->caller,
		.thread = call->thread,
		.seq = call->seq,
		.status = status,
		.node = node,
		.location = location,
	};

	if (!call->caller)
		return;
	if (call->origin != nu_node.self)
		send_on(&msg, NULL, 0, call->origin);
	else
		nu_reply_on_message(&msg, NULL, 0, nu_node.self);
}

/* The serving thread's own clean-up, before it ends. */
static void serve_done(struct nu_thread *t)
{
	struct nu_proclet *p = t->proclet;
	bool last;

	if (unlikely(t->serve_buffer))
		nu_proclet_free(p, t->serve_buffer);
	if (t->serve_out.data)
		nu_proclet_free(p, (void *)t->serve_out.data);
	t->reply_proclet = 0;
	nu_lock_acquire(&p->lock);
	last = --p->calls_active == 0 && p->state == NU_PROCLET_DYING;
	nu_thread_unlink(
		t); /* from here on it touches nothing of the proclet: a pause need not wait for it */
	nu_lock_release(&p->lock);
	if (last)
		nu_rpc_retire(p);
}

void nu_reply_and_exit(struct nu_thread *t, int status)
{
	const struct nu_method *m = t->serve_method;
	struct nu_msg msg = {
		.type = NU_MSG_REPLY,
		.cls = NU_CLASS_REPLY,
		.target = t->reply_proclet,
		.method = (uint64_t)m,
		.origin = nu_node.self,
		.thread = (uint64_t)t->reply_thread,
		.seq = t->reply_seq,
		.status = status,
	};
	struct nu_thread *run = NULL;
	struct nu_proclet *caller;
	const void *data = t->serve_result;
	size_t len = m->result_bytes;
	unsigned to = t->reply_node;

	nu_thread_come_back(t);
	if (nu_is_step(t->proclet_id, m))
		msg.flags = REPLY_URGENT;
	if (m->result_kind == NU_RESULT_SPAN) {
		data = t->serve_out.data;
		len = t->serve_out.len_bytes;
		msg.flags |= data ? REPLY_HAS_DATA : 0;
	}
	if (m->result_kind == NU_RESULT_SPAN && !status)
		msg.status = status = -(int)t->serve_flags; /* why nu_out_bytes() could not take it */
	if (status)
		len = 0;
	msg.len_bytes = (uint32_t)(sizeof(msg) + len);
	nu_output_wait(t->proclet);
	msg.origin = nu_node.self;
	if (!msg.target)
		goto done;
	switch (deliver(&msg, data, len, nu_node.self, &run, &caller, &to)) {
	case ANSWERED:
		if (run)
			nu_thread_claim(run);
		nu_lock_release(&caller->lock);
		break;
	case NOT_HERE:
		(void)nu_fault(NU_FAULT_CALL_SERVED);
		send_on(&msg, data, len, to);
		break;
	default:
		break;
	}
done:
	if (msg.flags & REPLY_URGENT && msg.target && to != nu_node.self) {
		nu_wire_urge(to);
		if (nu_sched_has_queued())
			nu_wire_flush(); /* who runs next may run long */
	}
	serve_done(t);
	if (run)
		nu_thread_exit_to(run);
	nu_thread_exit();
}

/* Takes back what was given before; the caller gets @err, if this was the last word. */
static void out_clear(struct nu_thread *t, int err)
{
	nu_proclet_free(t->proclet, (void *)t->serve_out.data);
	t->serve_out = (struct nu_bytes){NULL, 0};
	t->serve_flags = (uint32_t)-err;
}

static void __attribute__((cold)) out_refuse(struct nu_thread *t, int err, size_t len_bytes)
{
	const struct nu_method *m = t->serve_method;

	out_clear(t, err);
	switch (err) {
	case -EMSGSIZE:
		nu_warn("call %s.%s: its result of %zu bytes is larger than the limit of %zu bytes",
			m->class_name, m->name, len_bytes, NU_CALL_MAX_BYTES);
		break;
	case -EINVAL:
		nu_warn("call %s.%s: its result is NULL with a length of %zu bytes", m->class_name, m->name,
			len_bytes);
		break;
	default:
		nu_warn("proclet %#lx: no room in its heap for a result of %zu bytes",
			(unsigned long)t->proclet_id, len_bytes);
	}
}

NU_API void nu_out_bytes(struct nu_out *out, const void *data, size_t len_bytes)
{
	struct nu_thread *t = out->thread;
	char *copy;

	if (unlikely(len_bytes > NU_CALL_MAX_BYTES)) {
		out_refuse(t, -EMSGSIZE, len_bytes);
		return;
	}
	if (unlikely(!data && len_bytes)) {
		out_refuse(t, -EINVAL, len_bytes);
		return;
	}
	copy = nu_proclet_alloc(t->proclet, len_bytes + 1);
	if (unlikely(!copy)) {
		out_refuse(t, -ENOMEM, len_bytes);
		return;
	}
	if (len_bytes)
		memcpy(copy, data,
		       len_bytes); /* before the earlier result is freed: it may be a part of it */
	out_clear(t, 0);
	t->serve_out = (struct nu_bytes){copy, len_bytes};
}

NU_API void nu_out_str(struct nu_out *out, const char *s)
{
	if (s)
		nu_out_bytes(out, s, strlen(s));
	else
		out_clear(out->thread, 0);
}
