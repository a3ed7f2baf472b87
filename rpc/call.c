/* SPDX-License-Identifier: MIT */
/*
 * Calls as their caller sees them: find the proclet, hand off to it if it is here, send to it if not, start over when
 * it has moved.
 */
#include "core/fault.h"
#include "rpc/rpc_int.h"

#define AGAIN_US	 2000u
#define AGAIN_MAX	 5000u
#define BACKOFF_US_MIN	 10u
#define BACKOFF_US_MAX	 2000u
#define EXPECT_US	 100u /* a peer's step of a move, while a proclet stands still */
#define EXPECT_US_MAX	 3000u
#define DUE_US_SPIN	 2000u		     /* whoever guesses more does not know it well enough */
#define UNREACHED_US_MAX (10u * 1000 * 1000) /* a call that nobody takes for so long is given up */

struct call {
	uint64_t id;
	const struct nu_method *m;
	const void *args;
	void *result;
	uint64_t call_id;
	uint64_t started_ns; /* first refusal */
	unsigned backoff_us;
	bool redirected; /* the cache was wrong: ask the controller */
};

enum { TRY_AGAIN = 1 }; /* beside 0 and -errno */

struct nu_call_seq nu_call_seqs[NU_MAX_CORES];

void nu_call_init(void)
{
	for (uint64_t core = 0; core < NU_MAX_CORES; core++)
		nu_call_seqs[core].n = (uint64_t)nu_node.self << 56 | core << 48;
}

static void arm_call(struct nu_thread *t, const struct call *c)
{
	nu_wake_arm(t);
	nu_wait_arm(t, c->id, c->m, c->result, nu_call_next_seq(t));
}

static bool answered(void *arg)
{
	return __atomic_load_n(&((struct nu_thread *)arg)->wait_done, __ATOMIC_ACQUIRE);
}

/* Asleep until shortly before the answer is expected, then awake for it: a sleeper must be woken first. */
static void sleep_till_due(struct nu_thread *t)
{
	struct nu_proclet *p = t->proclet;

	nu_lock_acquire(&p->lock);
	if (!t->wait_done) {
		t->call_deadline_ns =
			nu_mono_ns() + t->due_us * 1000ull; /* who answers then competes with the timer */
		nu_core_rest();
		nu_thread_block_until(NU_WAIT_REPLY_REMOTE, &p->lock, t->call_deadline_ns);
		nu_lock_acquire(&p->lock);
		t->call_deadline_ns = 0;
		nu_wake_arm(t);
	}
	nu_lock_release(&p->lock);
}

/* How long the core is kept for the answer alone. */
static unsigned alone_us(const struct nu_thread *t)
{
	if (t->patient || t->due_us > DUE_US_SPIN)
		return 0;
	return t->due_us > EXPECT_US ? t->due_us : EXPECT_US;
}

/* Waits for the answer to what arm() announced. */
static int wait_answer(struct nu_thread *t, enum nu_wait wait)
{
	struct nu_proclet *p = t->proclet;

	if (unlikely(t->due_us) && !p->heap)
		sleep_till_due(t);
	if (!p->heap && wait == NU_WAIT_REPLY_REMOTE) /* the runtime's own threads: steps of a move */
		nu_rpc_expect(answered, t, alone_us(t), EXPECT_US_MAX);
	nu_lock_acquire(&p->lock);
	if (!t->wait_done) {
		nu_thread_block_until(wait, &p->lock, t->call_deadline_ns);
		p = t->proclet; /* it may be another node's by now */
		nu_lock_acquire(&p->lock);
		if (!t->wait_done)
			t->wait_status = -ETIMEDOUT; /* whether it ran, nobody knows */
	}
	nu_wait_seq_set(t, 0);
	nu_lock_release(&p->lock);
	return t->wait_status;
}

static void back_off(struct nu_thread *t, struct call *c)
{
	if (!c->started_ns)
		c->started_ns = nu_mono_ns();
	c->backoff_us = c->backoff_us ? c->backoff_us * 2 : BACKOFF_US_MIN;
	if (c->backoff_us > BACKOFF_US_MAX)
		c->backoff_us = BACKOFF_US_MAX;
	nu_sleep_us(c->backoff_us);
}

/* What the answer means for the caller: a refused call was not run, so it may be sent again. */
static int after_answer(struct nu_thread *t, struct call *c, int status)
{
	if (status != -NU_REFUSED_MOVED && status != -NU_REFUSED_BUSY)
		return status;
	if (status == -NU_REFUSED_MOVED && t->wait_hint[0] < nu_node.count && !c->redirected) {
		nu_route_learn(c->id, (unsigned)t->wait_hint[0], t->wait_hint[1]);
		c->redirected = true;
		return TRY_AGAIN;
	}
	if (status == -NU_REFUSED_MOVED)
		nu_route_forget(c->id);
	back_off(t, c);
	c->redirected = false;
	return TRY_AGAIN;
}

/* Bytes that the arguments take in a message, or -errno. */
static ssize_t packed_bytes(const struct nu_method *m, const void *args)
{
	ssize_t extra;

	if (likely(!m->nfields))
		return m->args_bytes;
	extra = nu_codec_args_bytes(m, args);
	return extra < 0 ? extra : (ssize_t)NU_ALIGN_UP((size_t)m->args_bytes, 8) + extra;
}

/* Packs the arguments; large ones into the caller's heap, since the caller may move while it waits. */
static void *pack(struct nu_proclet *caller, struct call *c, void *room, size_t room_bytes, size_t len)
{
	void *to = room;

	if (likely(!c->m->nfields)) /* plain bytes: as they are, on the caller's stack */
		return (void *)c->args;
	if (len > room_bytes)
		to = nu_proclet_alloc(caller, len);
	if (to)
		nu_codec_args_pack(c->m, c->args, to);
	return to;
}

static void fill_msg(struct nu_msg *msg, struct nu_thread *t, struct call *c, size_t len, unsigned node)
{
	unsigned ignored;

	*msg = (struct nu_msg){
		.len_bytes = (uint32_t)(sizeof(*msg) + len),
		.type = NU_MSG_CALL,
		.cls = nu_id_is_node(c->id, &ignored) || c->id == NU_ID_CTRL ? NU_CLASS_CONTROL
									     : NU_CLASS_CALL,
		.target = c->id,
		.method = (uint64_t)c->m,
		.caller = t->proclet_id,
		.thread = (uint64_t)t,
		.seq = t->wait_seq,
		.call_id = c->call_id,
		.origin = nu_node.self,
	};
	t->wait_dest = node;
}

/* The next call from here to there may do without locks, as far as the caller's proclet is concerned. */
static void open_caller(struct nu_thread *t)
{
	struct nu_proclet *p = t->proclet;

	if (likely(atomic_load_explicit(&p->quick, memory_order_relaxed)))
		return;
	nu_lock_acquire(&p->lock);
	nu_quick_open(p);
	nu_lock_release(&p->lock);
}

/* The proclet is here. p->lock is held and released; it is present and not frozen. */
static int call_here(struct nu_thread *t, struct call *c, struct nu_proclet *p, const void *packed,
		     size_t len)
{
	int err;
	struct nu_thread *callee = nu_serve_prepare(p, c->m, packed, len, &err);

	if (!callee) {
		nu_lock_release(&p->lock);
		return err;
	}
	nu_wake_arm(t);
	callee->reply_node = nu_node.self; /* for its further calls, too */
	nu_call_introduce(t, callee, c->id, c->m, c->result, nu_call_next_seq(t));
	nu_stat_add(t->core, NU_STAT_CALLS_LOCAL, 1);
	if (t->call_deadline_ns) {
		nu_lock_release(&p->lock);
		nu_thread_ready_first(callee);
		return after_answer(t, c, wait_answer(t, NU_WAIT_REPLY_LOCAL));
	}
	nu_thread_claim(callee);
	if (callee->may_spare && c->m->cls && !c->m->constructor)
		nu_quick_open(p);
	nu_lock_release(&p->lock);
	if (callee->may_spare)
		open_caller(t);
	if (nu_thread_handoff(callee, nu_serve_handed, NULL))
		return 0;
	nu_wait_seq_set(t, 0);
	return after_answer(t, c, t->wait_status);
}

/* It is here, but on its way: the call waits with it. p->lock is held and released. */
static int call_held(struct nu_thread *t, struct call *c, struct nu_proclet *p, const void *packed,
		     size_t len)
{
	struct nu_msg msg;
	int err;

	arm_call(t, c);
	fill_msg(&msg, t, c, len, nu_node.self);
	err = nu_held_add(p, &msg, packed, len, nu_node.self);
	nu_lock_release(&p->lock);
	if (err) {
		nu_wait_seq_set(t, 0);
		if (err != -EAGAIN)
			return err;
		back_off(t, c);
		return TRY_AGAIN;
	}
	return after_answer(t, c, wait_answer(t, NU_WAIT_REPLY_LOCAL));
}

static int call_remote(struct nu_thread *t, struct call *c, unsigned node, const void *packed, size_t len)
{
	struct iovec part = {(void *)packed, len};
	struct nu_msg msg;
	unsigned ignored;
	int err;

	if (!nu_id_is_node(c->id, &ignored) && c->id != NU_ID_CTRL) {
		err = nu_wire_credit(node, len, t->reply_proclet != 0, t->call_deadline_ns);
		if (err) /* a dead node: it was not sent, and the next attempt looks where the proclet is now */
			return err == -EAGAIN || err == -EHOSTDOWN ? TRY_AGAIN : err;
	}
	arm_call(t, c);
	fill_msg(&msg, t, c, len, node);
	err = nu_wire_send(node, &msg, &part, len ? 1 : 0);
	if (err) {
		nu_wait_seq_set(t, 0);
		if (msg.cls == NU_CLASS_CALL)
			nu_wire_uncredit(node, len);
		return err == -EHOSTDOWN && msg.cls == NU_CLASS_CALL ? TRY_AGAIN : err;
	}
	if (nu_is_step(c->id, c->m))
		nu_wire_urge(node);
	nu_stat_add(nu_core_self(), NU_STAT_CALLS_SENT, 1);
	(void)nu_fault(NU_FAULT_CALL_SENT);
	return after_answer(t, c, wait_answer(t, NU_WAIT_REPLY_REMOTE));
}

int nu_rpc_locate_anew(uint64_t id, unsigned *node_p, uint64_t *location_p)
{
	int ret = nu_rpc_ops.locate ? nu_rpc_ops.locate(id, node_p, location_p) : -ESTALE;

	if (!ret)
		nu_route_learn(id, *node_p, *location_p);
	return ret;
}

int nu_rpc_locate(uint64_t id, unsigned *node_p, uint64_t *location_p)
{
	return nu_route_lookup(id, node_p, location_p) ? 0 : nu_rpc_locate_anew(id, node_p, location_p);
}

/* What is known of it here leads to a node that has died; it may live elsewhere. */
static int __attribute__((noinline, cold)) call_past_the_dead(struct nu_thread *t, struct call *c)
{
	uint64_t location;
	unsigned node;
	int err = nu_rpc_locate_anew(c->id, &node, &location);

	if (err)
		return err;
	if (atomic_load_explicit(&nu_node.dead[node],
				 memory_order_relaxed)) { /* the controller will hear of it */
		nu_route_forget(c->id);
		back_off(t, c);
	}
	return TRY_AGAIN;
}

/* One attempt at the place where the proclet is thought to be. */
static int attempt(struct nu_thread *t, struct call *c, const void *packed, size_t len)
{
	struct nu_proclet *p = nu_proclet_lookup(c->id);
	uint64_t location;
	unsigned node;
	int err;

	if (p) {
		nu_lock_acquire(&p->lock);
		switch (atomic_load_explicit(&p->id, memory_order_relaxed) == c->id ? p->state
										    : NU_PROCLET_NONE) {
		case NU_PROCLET_PRESENT:
			if (likely(!p->frozen))
				return call_here(t, c, p, packed, len);
			/* fallthrough */
		case NU_PROCLET_MOVING:
		case NU_PROCLET_ARRIVING:
			return call_held(t, c, p, packed, len);
		case NU_PROCLET_MOVED:
			nu_route_learn(c->id, p->moved_to, p->moved_location);
			nu_lock_release(&p->lock);
			break;
		case NU_PROCLET_DYING:
			nu_lock_release(&p->lock);
			return -ESTALE;
		default:
			nu_lock_release(&p->lock);
		}
	}
	err = nu_rpc_locate(c->id, &node, &location);
	if (err)
		return err;
	if (unlikely(atomic_load_explicit(&nu_node.dead[node], memory_order_relaxed)) &&
	    !nu_id_is_node(c->id, &node))
		return call_past_the_dead(t, c);
	if (node == nu_node.self) { /* it is said to be here and is not: just leaving, arriving, or gone */
		nu_route_forget(c->id);
		back_off(t, c);
		return TRY_AGAIN;
	}
	return call_remote(t, c, node, packed, len);
}

static int call_run(struct nu_thread *t, struct call *c)
{
	char room[512] __attribute__((aligned(16)));
	ssize_t len = packed_bytes(c->m, c->args);
	void *packed = len < 0 ? NULL : pack(t->proclet, c, room, sizeof(room), (size_t)len);
	int ret;

	if (unlikely(!packed))
		return len < 0 ? (int)len : -ENOMEM;
	nu_thread_come_back(t);
	do {
		nu_output_wait(t->proclet);
		ret = attempt(t, c, packed, (size_t)len);
		if (ret == TRY_AGAIN && c->started_ns &&
		    (nu_mono_ns() - c->started_ns) / 1000 > UNREACHED_US_MAX) {
			nu_err("call %s.%s on proclet %#lx given up: no node has taken it for 10 s",
			       c->m->class_name, c->m->name, (unsigned long)c->id);
			ret = -EHOSTUNREACH;
		}
	} while (ret == TRY_AGAIN);
	if (packed != room && packed != c->args)
		nu_proclet_free(t->proclet, packed);
	return ret;
}

bool nu_rpc_again(int err, unsigned *tries_p)
{
	if (likely(err != -ENOMEM))
		return false;
	if (++*tries_p > AGAIN_MAX) {
		nu_err("a step of the runtime is given up: no memory for it in %u s",
		       AGAIN_US * AGAIN_MAX / 1000000);
		return false;
	}
	nu_sleep_us(AGAIN_US);
	return true;
}

static __attribute__((noinline)) int call(struct nu_thread *t, struct call *c)
{
	bool is_ref = c->m->result_kind == NU_RESULT_REF;
	struct nu_ref unwanted = {0}, *ref;
	int ret;

	if (unlikely(is_ref && !c->result))
		c->result = &unwanted; /* cppcheck-suppress autoVariables ; as long as the call */
	ret = call_run(t, c);
	if (ret || !is_ref)
		return ret;
	ref = c->result;
	if (ref != &unwanted)
		ret = nu_ref_note_held_by(t->proclet, ref->id);
	if (unlikely(ret || unwanted.id)) { /* counted there as ours: not ours after all */
		(void)!nu_ref_change(ref->id, t->proclet_id, -1);
		ref->id = 0;
	}
	return ret;
}

static __attribute__((noinline)) int call_slowly(const struct nu_quick *q)
{
	struct nu_thread *t = nu_thread_self();
	struct call c = {.id = q->id, .m = q->m, .args = q->args, .result = q->result};

	if (!q->id)
		return -ESTALE;
	c.call_id = nu_mix(nu_call_identity(t), ++t->call_index);
	return call(t, &c);
}

/* It was begun quickly, but answered as any other. */
static __attribute__((noinline)) int call_answered(const struct nu_quick *q)
{
	struct nu_thread *t = nu_thread_self();
	struct call c = {.id = q->id, .m = q->m, .args = q->args, .result = q->result};
	int ret;

	nu_wait_seq_set(t, 0);
	c.call_id = nu_mix(nu_call_identity(t), t->call_index);
	ret = after_answer(t, &c, t->wait_status);
	return ret == TRY_AGAIN ? call(t, &c) : ret;
}

/* Where a proclet is that is surely not here, nor one of the runtime's; NU_NODE_UNKNOWN: perhaps it is. */
static unsigned far_away(uint64_t id)
{
	uint64_t location;
	unsigned node;

	if (!id || nu_id_seg(id) >= NU_SEG_NODE(0) || id == NU_ID_CTRL || nu_proclet_lookup(id) ||
	    !nu_route_lookup(id, &node, &location) || node == nu_node.self)
		return NU_NODE_UNKNOWN;
	return node;
}

/*
 * No need to wait. The lock of the caller's proclet is held, and released here: whoever looks for those that wait for a dead node
 * has found this one under it, or had looked before, and then the node's death is seen here. Return: as call_far().
 */
static int far_at_once(struct nu_thread *t)
{
	int ret = t->wait_status ? TRY_AGAIN : 0;

	if (!t->wait_done) {
		nu_wait_seq_set(t, 0);
		t->call_index--;
		ret = -EAGAIN; /* what was to be sent goes nowhere */
	}
	nu_lock_release(&t->proclet->lock);
	return ret;
}

/*
 * A call with short arguments to a proclet that lives elsewhere, with nothing in its way. What many threads do that wait for as
 * many answers: the fewer frames each has on its stack the more of them fit the cache.
 * Return: 0; TRY_AGAIN answered otherwise; -EAGAIN nothing was done; -EMSGSIZE its arguments are too large.
 */
static __attribute__((noinline)) int call_far(const struct nu_quick *q)
{
	struct nu_thread *t = nu_thread_self();
	const struct nu_method *m = q->m;
	struct nu_proclet *p = t->proclet;
	unsigned node = far_away(q->id);
	ssize_t len = packed_bytes(m, q->args);
	struct nu_msg *msg;

	if (unlikely(len < 0))
		return (int)len;
	nu_thread_come_back(t);
	if (node == NU_NODE_UNKNOWN || m->result_kind == NU_RESULT_REF || t->call_deadline_ns ||
	    len > (ssize_t)NU_QUEUED_BYTES_FREE || unlikely(nu_fault_armed) ||
	    unlikely(__atomic_load_n(&p->hold_output, __ATOMIC_ACQUIRE)) ||
	    !nu_wire_credit_now(node, t->reply_proclet != 0))
		return -EAGAIN;
	msg = nu_wire_room(node, sizeof(*msg) + (size_t)len);
	if (unlikely(!msg)) {
		nu_wire_uncredit(node, 0);
		return -EAGAIN;
	}
	nu_wake_arm(t);
	t->wait_dest = node;
	nu_wait_arm(t, q->id, m, q->result, nu_call_next_seq(t));
	*msg = (struct nu_msg){
		.len_bytes = (uint32_t)(sizeof(*msg) + (size_t)len),
		.type = NU_MSG_CALL,
		.cls = NU_CLASS_CALL,
		.target = q->id,
		.caller = t->proclet_id,
		.thread = (uint64_t)t,
		.seq = t->wait_seq,
		.origin = nu_node.self,
		.method = (uint64_t)m,
		.call_id = nu_mix(nu_call_identity(t), ++t->call_index),
	};
	if (m->nfields)
		nu_codec_args_pack(m, q->args, msg + 1);
	else
		nu_copy_small(msg + 1, q->args, m->args_bytes);
	nu_stat_add(t->core, NU_STAT_CALLS_SENT, 1);
	nu_lock_acquire(&p->lock);
	if (unlikely(t->wait_done || nu_wire_is_dead(node)))
		return far_at_once(t);
	(void)!nu_thread_block_until(NU_WAIT_REPLY_REMOTE, &p->lock, 0);
	return t->wait_status ? TRY_AGAIN : 0;
}

_Static_assert(TRY_AGAIN == (int)NU_HANDED_OFF, "either way it was answered otherwise than quickly");

/* What is left to do after both quick ways, apart: what nu_call() need not keep for it costs each call. */
static __attribute__((noinline)) int call_otherwise(const struct nu_quick *q, int ret)
{
	switch (ret) {
	case TRY_AGAIN:
		return call_answered(q);
	case -EAGAIN:
		return call_slowly(q);
	case -EINVAL:
		return nu_outside(q->m->class_name, q->m->name);
	default:
		return ret;
	}
}

NU_API int nu_call(struct nu_ref target, const struct nu_method *m, const void *args, void *result)
{
	struct nu_quick q = {target.id, m, args, result};
	int ret = nu_spare_handoff(target.id, m, nu_serve_quick, &q);

	if (likely(ret == NU_HANDED_BACK))
		return 0;
	if (ret == -EAGAIN) {
		ret = call_far(&q);
		if (likely(!ret))
			return 0;
	}
	return call_otherwise(&q, ret);
}

NU_API uint64_t nu_deadline_set_us(uint64_t timeout_us)
{
	struct nu_thread *t = nu_thread_self();
	uint64_t now = nu_mono_ns(), left = 0;

	if (!t)
		return 0;
	if (t->call_deadline_ns)
		left = t->call_deadline_ns > now ? (t->call_deadline_ns - now) / 1000 : 1;
	t->call_deadline_ns = timeout_us ? nu_deadline_after_us(timeout_us) : 0;
	return left;
}

int nu_node_spawn(nu_thread_fn fn, void *arg)
{
	struct nu_proclet *p = nu_proclet_lookup(nu_id_of_node(nu_node.self));
	struct nu_thread *t = p ? nu_thread_alloc(p) : NULL;

	if (!t || !nu_thread_prepare(t, fn, arg, 0))
		return -ENOMEM;
	t->detached = 1;
	t->call_id = nu_mix((uint64_t)t, nu_mono_ns());
	t->call_index = 0;
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	if (nu_on_core())
		nu_thread_ready_first(t);
	else
		nu_thread_ready(t);
	return 0;
}
