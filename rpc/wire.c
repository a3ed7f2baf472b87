/* SPDX-License-Identifier: MIT */
/*
 * The wire: messages to a node are gathered in batches, on a connection of their own per core. A connection (core, node)
 * is touched by its core alone, so nothing here takes a lock.
 */
#include "rpc/wire_int.h"

#include <sched.h>

#define BATCH_DEFAULT	     (8192u - 128u) /* with UCX's headers still one fragment of every transport */
#define BATCH_MIN	     1024u
#define BATCH_MAX	     (1u << 20)
#define FREE_BUFFERS_MAX     256u
#define CLOSE_TIMEOUT_NS     500000000ull
#define CLOSE_TIMEOUT_MAX_NS 5000000000ull
#define AHEAD_BYTES	     256u
#define LOOK_EACH	     8u
#define BAD_LOGGED_MAX	     8u

struct wire_core *nu_wire_cores;
struct nu_peer *nu_peers;
static uint64_t job_key;
static size_t batch_bytes;
static nu_msg_fn handlers[NU_MSG_TYPES];
static atomic_uint bad_logged, strangers_logged;

void nu_wire_set_handler(enum nu_msg_type type, nu_msg_fn fn)
{
	NU_ASSERT(type > 0 && type < NU_MSG_TYPES);
	handlers[type] = fn;
}

bool nu_wire_is_dead(unsigned node)
{
	return atomic_load_explicit(&nu_peers[node].dead, memory_order_relaxed);
}

/* ---- buffers ---- */

struct nu_buf *nu_buf_get(struct wire_core *wc, size_t cap_bytes)
{
	struct nu_buf *b = wc->free;

	if (likely(b && cap_bytes <= batch_bytes)) {
		wc->free = b->next;
		wc->nfree--;
	} else {
		if (cap_bytes < batch_bytes)
			cap_bytes = batch_bytes;
		/* What is small is mostly an answer or a refusal: it must not be lost. */
		b = cap_bytes > batch_bytes ? malloc(sizeof(*b) + cap_bytes)
					    : nu_alloc_patiently(sizeof(*b) + cap_bytes);
		if (!b)
			return NULL;
		b->cap_bytes = cap_bytes;
	}
	b->next = NULL;
	b->busy = b->dropped = b->sent = false;
	b->core = (unsigned)(wc - nu_wire_cores);
	b->len_bytes = sizeof(struct nu_batch);
	b->call_bytes = 0;
	b->nmsgs = 0;
	return b;
}

void nu_buf_put(struct wire_core *wc, struct nu_buf *b)
{
	if (unlikely(b->busy)) {
		b->dropped = true;
		return;
	}
	if (b->call_bytes)
		nu_credit_bytes_gone(b->conn->node, b->call_bytes);
	if (b->cap_bytes != batch_bytes || wc->nfree >= FREE_BUFFERS_MAX) {
		free(b);
		return;
	}
	b->next = wc->free;
	wc->free = b;
	wc->nfree++;
}

/* ---- sending ---- */

void nu_batch_head(struct nu_conn *c, struct nu_buf *b, uint32_t flags)
{
	*(struct nu_batch *)b->data = (struct nu_batch){
		.magic = NU_BATCH_MAGIC,
		.len_bytes = (uint32_t)b->len_bytes,
		.key = job_key,
		.node = (uint16_t)nu_node.self,
		.core = c->core,
		.flags = flags,
	};
}

/* Completes the open batch and sends or queues it. */
static void post(struct wire_core *wc, struct nu_conn *c)
{
	struct nu_buf *b = c->open;

	c->open = NULL;
	c->touched = false;
	nu_batch_head(c, b, wc->batch_flags | (wc->batch_flags && c->lasting ? NU_BATCH_ASK : 0));
	((struct nu_batch *)b->data)->credits = nu_credit_take_due(c->node);
	nu_stat_add(c->core, NU_STAT_BATCHES_SENT, 1);
	nu_stat_add(c->core, NU_STAT_BYTES_SENT, b->len_bytes);
	if (c->node == nu_node.self) {
		*wc->own_tail = b;
		wc->own_tail = &b->next;
	} else {
		nu_conn_post(wc, c, b);
	}
}

/*
 * Whether the open batch should go although more may come for it: while we go on filling batches the peer would idle, which has
 * done all that it had. Looked at once in a while, since to look takes a cache line from the peer.
 */
static inline bool is_waited_for(const struct nu_conn *c)
{
	return unlikely(c->open->nmsgs % LOOK_EACH == 0) && c->open->nmsgs && c->state == CONN_UP &&
	       !c->stalled && c->link && c->link->has_drained && c->link->has_drained(c->ep);
}

/* Room for @bytes, a multiple of 8, in the open batch or a new one. NULL: no memory. */
static inline char *place(struct wire_core *wc, struct nu_conn *c, size_t bytes)
{
	char *at;

	if (c->open && (c->open->len_bytes + bytes > c->open->cap_bytes || is_waited_for(c)))
		post(wc, c);
	if (!c->open) {
		c->open = nu_buf_get(wc, sizeof(struct nu_batch) + bytes);
		if (unlikely(!c->open))
			return NULL;
		c->open->conn = c;
		nu_conn_dirty(c);
	}
	at = c->open->data + c->open->len_bytes;
	*(uint64_t *)(at + bytes - 8) = 0; /* padding: never old bytes of somebody else's message */
	c->open->len_bytes += bytes;
	c->open->nmsgs++;
	return at;
}

void *nu_wire_room(unsigned node, size_t len_bytes)
{
	struct wire_core *wc = &nu_wire_cores[nu_core_self()];
	struct nu_conn *c = &wc->conns[node];

	if (unlikely(c->state == CONN_LOST))
		return NULL;
	return place(wc, c, NU_ALIGN_UP(len_bytes, 8));
}

int nu_wire_send(unsigned node, const struct nu_msg *msg, const struct iovec *parts, unsigned nparts)
{
	struct wire_core *wc = &nu_wire_cores[nu_core_self()];
	struct nu_conn *c;
	size_t len = sizeof(*msg);
	char *to;

	if (unlikely(node >= nu_node.count))
		return -EINVAL;
	if (unlikely(nu_wire_is_dead(node)))
		return -EHOSTDOWN;
	for (unsigned i = 0; i < nparts; i++) {
		if (unlikely(parts[i].iov_len > NU_MESSAGE_MAX_BYTES))
			return -EMSGSIZE;
		len += parts[i].iov_len;
	}
	if (unlikely(len > sizeof(*msg) + NU_MESSAGE_MAX_BYTES))
		return -EMSGSIZE;
	c = &wc->conns[node];
	if (unlikely(c->state == CONN_LOST))
		goto lost;
	to = place(wc, c, NU_ALIGN_UP(len, 8));
	if (unlikely(!to))
		return -ENOMEM;
	memcpy(to, msg, sizeof(*msg));
	((struct nu_msg *)to)->len_bytes = (uint32_t)len;
	to += sizeof(*msg);
	for (unsigned i = 0; i < nparts; i++) {
		if (parts[i].iov_len)
			memcpy(to, parts[i].iov_base, parts[i].iov_len);
		to += parts[i].iov_len;
	}
	if (msg->cls == NU_CLASS_CALL && len - sizeof(*msg) > NU_QUEUED_BYTES_FREE)
		c->open->call_bytes += len - sizeof(*msg);
	if (c->open->len_bytes + sizeof(*msg) > c->open->cap_bytes)
		post(wc, c);
	return 0;

lost: /* what a cut wire does */
	if (msg->cls == NU_CLASS_CALL && len - sizeof(*msg) > NU_QUEUED_BYTES_FREE)
		nu_credit_bytes_gone(node, len - sizeof(*msg));
	return 0;
}

static void flush_conn(struct wire_core *wc, struct nu_conn *c)
{
	nu_list_del(&c->dirty_link); /* before: a connection that breaks in here is to be looked at again */
	if (!c->open && c->touched && c->state < CONN_LOST && nu_credit_is_due(c->node)) {
		c->open = nu_buf_get(wc, 0);
		if (c->open)
			c->open->conn = c;
	}
	c->touched = false;
	if (c->open)
		post(wc, c);
	if (c->node != nu_node.self && nu_conn_has_work(c))
		nu_conn_flush(wc, c);
	if (unlikely(c->urgent)) {
		c->urgent = false;
		if (c->state == CONN_UP && !c->stalled && c->link->nudge)
			c->link->nudge(c->ep);
	}
}

static void wire_flush(unsigned core)
{
	struct wire_core *wc = &nu_wire_cores[core];

	/* Each once: one that cannot get on comes back to the end of the list. */
	for (unsigned i = 0; i < nu_node.count && !nu_list_empty(&wc->dirty); i++)
		flush_conn(wc, nu_list_entry(wc->dirty.next, struct nu_conn, dirty_link));
}

void nu_wire_flush(void)
{
	struct wire_core *wc = &nu_wire_cores[nu_core_self()];
	struct nu_list *pos, *next;

	if (!nu_thread_self()) {
		wire_flush(nu_core_self());
		return;
	}
	/* A thread leaves new connections to the scheduler. */
	nu_list_for_each_safe (pos, next, &wc->dirty) {
		struct nu_conn *c = nu_list_entry(pos, struct nu_conn, dirty_link);

		if (c->state != CONN_UP && c->node != nu_node.self)
			continue;
		flush_conn(wc, c);
	}
}

void nu_wire_urge(unsigned node)
{
	struct wire_core *wc = &nu_wire_cores[nu_core_self()];
	struct nu_conn *c;

	if (node >= nu_node.count || node == nu_node.self)
		return;
	c = &wc->conns[node];
	c->urgent = true;
	nu_conn_dirty(c);
}

static void touch_on_core_0(void *arg)
{
	nu_wire_touch((unsigned)(uintptr_t)arg);
}

void nu_wire_touch(unsigned node)
{
	struct wire_core *wc = &nu_wire_cores[nu_core_self()];

	if (!nu_on_core()) {
		if (nu_core_post(0, touch_on_core_0, (void *)(uintptr_t)node))
			nu_err("credits of node %u are late: no memory", node);
		return;
	}
	wc->conns[node].touched = true;
	nu_conn_dirty(&wc->conns[node]);
}

/* ---- receiving ---- */

/* A peer's bad bytes: an error and a counter, never a crash, and no flood of lines. */
int __attribute__((cold)) nu_wire_bad(unsigned core, unsigned from, const char *what, uint64_t value)
{
	nu_stat_add(core, NU_STAT_BAD_MESSAGES, 1);
	if (atomic_fetch_add_explicit(&bad_logged, 1, memory_order_relaxed) < BAD_LOGGED_MAX)
		nu_warn("bad batch, said to be from node %u: %s (%lu)", from, what, (unsigned long)value);
	return -EBADMSG;
}

/* No node of this job has sent this: nothing in it is looked at, nothing of it is printed. */
static bool __attribute__((cold)) stranger(unsigned core)
{
	nu_stat_add(core, NU_STAT_BAD_MESSAGES, 1);
	if (!atomic_fetch_add_explicit(&strangers_logged, 1, memory_order_relaxed))
		nu_warn("bytes without this job's key came from a stranger: dropped, as all that follow");
	return false;
}

uint64_t nu_wire_key(void)
{
	return job_key;
}

bool nu_wire_knows(unsigned core, uint64_t key)
{
	return likely(key == job_key) || stranger(core); /* one word: compared at once, whatever its bytes */
}

static int check_batch(unsigned core, const struct nu_batch *h, size_t len, bool own)
{
	if (unlikely(len < sizeof(*h)))
		return nu_wire_bad(core, ~0u, "shorter than its header", len);
	if (unlikely(h->magic != NU_BATCH_MAGIC))
		return nu_wire_bad(core, h->node, "wrong magic number", h->magic);
	if (unlikely(!nu_wire_knows(core, h->key)))
		return -EBADMSG;
	if (unlikely(h->len_bytes != len))
		return nu_wire_bad(core, h->node, "length differs from what arrived", h->len_bytes);
	if (unlikely(h->node >= nu_node.count || (h->node == nu_node.self) != own))
		return nu_wire_bad(core, h->node, "no such node", h->node);
	if (unlikely(h->core >= NU_MAX_CORES))
		return nu_wire_bad(core, h->node, "no such core", h->core);
	if (unlikely(h->flags & ~NU_BATCH_FLAGS || h->spare))
		return nu_wire_bad(core, h->node, "unknown flags", h->flags);
	return 0;
}

static int check_msg(unsigned core, unsigned from, const struct nu_msg *m, size_t left)
{
	if (unlikely(left < sizeof(*m)))
		return nu_wire_bad(core, from, "message shorter than its header", left);
	if (unlikely(m->len_bytes < sizeof(*m) || NU_ALIGN_UP((size_t)m->len_bytes, 8) > left))
		return nu_wire_bad(core, from, "message's length", m->len_bytes);
	if (unlikely(m->type == 0 || m->type >= NU_MSG_TYPES || !handlers[m->type]))
		return nu_wire_bad(core, from, "message's type", m->type);
	if (unlikely(m->cls > NU_CLASS_CONTROL))
		return nu_wire_bad(core, from, "message's class", m->cls);
	if (unlikely(m->type == NU_MSG_CALL &&
		     m->hops > NU_MAX_HOPS)) /* answers follow their caller as far as it goes */
		return nu_wire_bad(core, from, "message's hops", m->hops);
	if (unlikely(m->origin >= nu_node.count))
		return nu_wire_bad(core, from, "message's origin", m->origin);
	return 0;
}

int nu_wire_receive(unsigned core, const void *data, size_t len, bool own)
{
	const struct nu_batch *h = data;
	const char *at = data;
	size_t left = len;
	int n = 0;

	if (check_batch(core, h, len, own))
		return -EBADMSG;
	if (unlikely(nu_wire_is_dead(h->node)))
		return 0; /* declared dead: nothing of it counts any more */
	if (h->flags & NU_BATCH_ACK)
		nu_session_acked(core, h);
	if (unlikely(h->flags & NU_BATCH_BYE))
		atomic_store_explicit(&nu_peers[h->node].leaving, true, memory_order_relaxed);
	if (h->seq) {
		n = nu_session_take(core, h);
		if (n <= 0)
			return n;
		n = 0;
	}
	if (unlikely(h->flags & NU_BATCH_ASK))
		nu_session_asked(core, h);
	if (unlikely(nu_credit_returned(h->node, h->credits)))
		(void)nu_wire_bad(core, h->node, "more credits than it ever got", h->credits);
	at += sizeof(*h);
	left -= sizeof(*h);
	while (left) {
		const struct nu_msg *m = (const struct nu_msg *)at;
		size_t step;

		if (check_msg(core, h->node, m, left))
			return -EBADMSG;
		step = NU_ALIGN_UP((size_t)m->len_bytes, 8);
		__builtin_prefetch(at + AHEAD_BYTES);
		__builtin_prefetch(at + AHEAD_BYTES + NU_CACHE_LINE);
		handlers[m->type](m, m + 1, m->len_bytes - sizeof(*m), h->node);
		at += step;
		left -= step;
		n++;
	}
	return n;
}

/* ---- what the scheduler polls ---- */

static unsigned poll_own(struct wire_core *wc, unsigned core)
{
	struct nu_buf *b = wc->own, *next;
	unsigned n = 0;

	/* What handlers send meanwhile waits for the next round. */
	wc->own = NULL;
	wc->own_tail = &wc->own;
	for (; b; b = next) {
		next = b->next;
		(void)nu_wire_receive(core, b->data, b->len_bytes, true);
		nu_buf_put(wc, b);
		n++;
	}
	return n;
}

static unsigned wire_poll(unsigned core)
{
	struct wire_core *wc = &nu_wire_cores[core];
	unsigned events;

	wc->polling = true;
	events = nu_links_progress(core);
	if (wc->own)
		events += poll_own(wc, core);
	wc->polling = false;
	return events;
}

bool nu_wire_may_poll(void)
{
	return !nu_wire_cores[nu_core_self()].polling;
}

unsigned nu_wire_poll(void)
{
	unsigned core = nu_core_self();

	if (nu_node.count == 1)
		return 0;
	nu_wire_flush();
	return wire_poll(core);
}

static int wire_arm(unsigned core)
{
	struct wire_core *wc = &nu_wire_cores[core];

	if (wc->own || !nu_list_empty(&wc->dirty))
		return -EBUSY;
	return nu_links_arm(core);
}

/* Whether something is still to be sent, or to be acknowledged by a peer that is there. */
static bool is_owed(struct wire_core *wc)
{
	for (unsigned n = 0; n < nu_node.count; n++) {
		struct nu_conn *c = &wc->conns[n];

		if (!(c->lasting || c->stalled) || !c->queue ||
		    (c->state != CONN_UP && c->state != CONN_DOWN))
			continue;
		if (c->state == CONN_DOWN)
			nu_conn_dirty(c); /* no timer runs any more */
		return true;
	}
	return false;
}

/* As long as it gets on, what was sent is brought to its end. */
static void wait_acknowledged(struct wire_core *wc, unsigned core)
{
	uint64_t begin = nu_mono_ns(), last = begin, now = begin;

	while (is_owed(wc) && now - last < CLOSE_TIMEOUT_NS && now - begin < CLOSE_TIMEOUT_MAX_NS) {
		unsigned events = nu_links_progress(core);

		wire_flush(core);
		now = nu_mono_ns();
		if (events)
			last = now;
		else
			sched_yield();
	}
	if (is_owed(wc))
		nu_info("core %u: not all was acknowledged before the end", core);
}

/* Says good-bye on every connection and closes it; a peer that does not answer is waited for only so long. */
static void wire_core_stop(unsigned core)
{
	struct wire_core *wc = &nu_wire_cores[core];

	wc->batch_flags = NU_BATCH_BYE;
	for (unsigned n = 0; n < nu_node.count; n++) {
		struct nu_conn *c = &wc->conns[n];

		if (c->state == CONN_UP && !c->open) {
			c->open = nu_buf_get(wc, 0);
			if (c->open)
				c->open->conn = c;
		}
		if (c->state == CONN_UP)
			nu_conn_dirty(c);
	}
	wire_flush(core);
	wait_acknowledged(wc, core);
	if (nu_links_drain(core, CLOSE_TIMEOUT_NS))
		nu_info("core %u: not all was sent before the end", core);
	for (unsigned n = 0; n < nu_node.count; n++)
		nu_conn_close(&wc->conns[n]);
	if (nu_links_drain(core, CLOSE_TIMEOUT_NS))
		nu_info("core %u: connections did not close in time", core);
}

static const struct nu_poller wire_poller = {
	.poll = wire_poll,
	.flush = wire_flush,
	.arm = wire_arm,
	.core_stop = wire_core_stop,
	.core_carried = nu_links_carried,
};

/* A core also sleeps on what the second link waits for. */
static const struct nu_poller second_poller = {.arm = nu_second_arm};

/* ---- death of a peer ---- */

static void close_dead(void *arg)
{
	nu_conn_close(&nu_wire_cores[nu_core_self()].conns[(uintptr_t)arg]);
}

void nu_wire_peer_dead(unsigned node)
{
	if (node >= nu_node.count || node == nu_node.self ||
	    atomic_exchange_explicit(&nu_peers[node].dead, true, memory_order_relaxed))
		return;
	nu_credit_peer_dead(node);
	/* Endpoints belong to their cores. */
	for (unsigned core = 0; core < nu_node.cores; core++) {
		if (nu_core_post(core, close_dead, (void *)(uintptr_t)node))
			nu_err("core %u keeps its connection to dead node %u: no memory", core, node);
	}
}

int nu_wire_transport(unsigned node, char *buf, size_t len)
{
	struct nu_conn *c;

	if (node >= nu_node.count || !nu_on_core())
		return -EINVAL;
	c = &nu_wire_cores[nu_core_self()].conns[node];
	return c->state == CONN_UP ? c->link->transport(c->ep, buf, len) : -ENOTCONN;
}

/* ---- start and end ---- */

static int cores_init(void)
{
	nu_wire_cores = aligned_alloc(NU_CACHE_LINE, nu_node.cores * sizeof(*nu_wire_cores));
	if (!nu_wire_cores)
		return -ENOMEM;
	memset(nu_wire_cores, 0, nu_node.cores * sizeof(*nu_wire_cores));
	for (unsigned core = 0; core < nu_node.cores; core++) {
		struct wire_core *wc = &nu_wire_cores[core];

		nu_list_init(&wc->dirty);
		wc->own_tail = &wc->own;
		wc->conns = calloc(nu_node.count, sizeof(*wc->conns));
		if (!wc->conns)
			return -ENOMEM;
		for (unsigned n = 0; n < nu_node.count; n++) {
			struct nu_conn *c = &wc->conns[n];

			c->core = (uint16_t)core;
			c->node = (uint16_t)n;
			c->queue_tail = &c->queue;
			nu_list_init(&c->dirty_link);
		}
	}
	return 0;
}

static void core_fini(struct wire_core *wc)
{
	struct nu_buf *b;

	for (unsigned n = 0; wc->conns && n < nu_node.count; n++) {
		nu_conn_drop_all(wc, &wc->conns[n]);
		free(wc->conns[n].ctl);
	}
	while ((b = wc->own)) {
		wc->own = b->next;
		free(b);
	}
	while ((b = wc->free)) {
		wc->free = b->next;
		free(b);
	}
	free(wc->conns);
}

int nu_wire_init(const struct nu_wire_options *o)
{
	static const struct nu_wire_options defaults;
	int err;

	job_key = o ? o->key : 0;
	batch_bytes = o && o->batch_bytes ? o->batch_bytes : BATCH_DEFAULT;
	if (batch_bytes < BATCH_MIN || batch_bytes > BATCH_MAX) {
		nu_err("batches of %zu bytes: from %u to %u are possible", batch_bytes, BATCH_MIN, BATCH_MAX);
		return -EINVAL;
	}
	nu_peers = calloc(nu_node.count, sizeof(*nu_peers));
	err = nu_peers ? cores_init() : -ENOMEM;
	if (!err)
		err = nu_credit_init(o ? o->credits : 0);
	if (!err)
		err = nu_links_init(o ? o : &defaults);
	if (!err)
		err = nu_poller_add(&wire_poller);
	if (!err && nu_links[1])
		err = nu_poller_add(&second_poller);
	if (err)
		nu_wire_fini();
	return err;
}

void nu_wire_fini(void)
{
	nu_links_fini();
	for (unsigned core = 0; nu_wire_cores && core < nu_node.cores; core++)
		core_fini(&nu_wire_cores[core]);
	free(nu_wire_cores);
	nu_wire_cores = NULL;
	nu_credit_fini();
	for (unsigned n = 0; nu_peers && n < nu_node.count; n++)
		nu_peer_forget(&nu_peers[n]);
	free(nu_peers);
	nu_peers = NULL;
}
