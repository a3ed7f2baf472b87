/* SPDX-License-Identifier: MIT */
/*
 * Connections: batches leave in order over an endpoint, which is made when there is something to send. When it breaks
 * although the peer has not been declared dead, a lasting connection makes another and sends again what has not been
 * acknowledged (session.c).
 */
#include "rpc/wire_int.h"

#define RETRY_MIN_NS   1000000ull
#define RETRY_SHIFTS   8u /* 256 ms */
#define STEADY_NS      1000000000ull
#define UNREACHABLE_NS 10000000000ull

static bool is_leaving(const struct nu_conn *c)
{
	return atomic_load_explicit(&nu_peers[c->node].leaving, memory_order_relaxed) ||
	       nu_wire_is_dead(c->node);
}

void nu_conn_drop_all(struct wire_core *wc, struct nu_conn *c)
{
	struct nu_buf *b;

	while ((b = c->queue)) {
		c->queue = b->next;
		if (c->lasting)
			nu_stat_add(c->core, NU_STAT_BATCHES_SETTLED, 1);
		nu_buf_put(wc, b);
	}
	c->queue_tail = &c->queue;
	c->unsent = c->current = NULL;
	if (c->open)
		nu_buf_put(wc, c->open);
	c->open = NULL;
	c->touched = c->ack_wanted = c->probe_wanted = false;
}

/* ---- breaking ---- */

static uint64_t retry_delay(const struct nu_conn *c, uint64_t now)
{
	uint64_t base, shift = c->attempts - 1;

	if (!c->attempts)
		return 0;
	base = RETRY_MIN_NS << (shift < RETRY_SHIFTS ? shift : RETRY_SHIFTS);
	return base / 2 + nu_mix(now, (uint64_t)c->core << 32 | c->node) % base;
}

static void __attribute__((cold)) plan_retry(struct nu_conn *c, int err)
{
	uint64_t now = nu_mono_ns();

	if (!c->down_ns || (c->up_ns && now - c->up_ns > STEADY_NS)) {
		c->down_ns = now;
		c->attempts = 0;
		c->warned = false;
		nu_info("connection of core %u to node %u broke and is made anew: %s", c->core, c->node,
			nu_strerror(err));
	}
	if (now - c->down_ns > UNREACHABLE_NS && !c->warned) {
		c->warned = true;
		nu_warn("node %u has not been reached from core %u for %lu s, though nobody has called it "
			"dead (%s): "
			"calls to it wait",
			c->node, c->core, (unsigned long)((now - c->down_ns) / 1000000000u),
			nu_strerror(err));
	}
	c->retry_ns = now + retry_delay(c, now);
	c->attempts++;
	c->up_ns = 0;
}

void __attribute__((cold)) nu_conn_break(struct nu_conn *c, int err)
{
	if (c->state >= CONN_LOST || c->state == CONN_DOWN)
		return;
	c->broken_ep = c->ep;
	c->ep = NULL;
	c->stalled = false;
	c->current = NULL;
	c->unsent = c->queue;
	nu_conn_dirty(c); /* the scheduler closes and connects */
	nu_stat_add(c->core, NU_STAT_CONNS_BROKEN, 1);
	if (is_leaving(c)) {
		c->state = CONN_DEAD;
		nu_conn_drop_all(&nu_wire_cores[c->core], c);
	} else if (c->lasting) {
		c->state = CONN_DOWN;
		nu_session_broken(c);
		plan_retry(c, err);
	} else {
		c->state = CONN_LOST;
		nu_conn_drop_all(&nu_wire_cores[c->core], c);
		nu_warn("connection of core %u to node %u broke: %s", c->core, c->node, nu_strerror(err));
	}
}

void nu_wire_broken(struct nu_conn *c, void *ep, int err)
{
	if (c->ep == ep)
		nu_conn_break(c, err);
}

/* ---- sending ---- */

static void add_queue(struct nu_conn *c, struct nu_buf *b)
{
	*c->queue_tail = b;
	c->queue_tail = &b->next;
	if (!c->unsent)
		c->unsent = b;
}

/* A header of its own, for what has to be said when no batch is on its way. */
static struct nu_buf *control(struct wire_core *wc, struct nu_conn *c)
{
	struct nu_buf *b = c->ctl;

	if (!b)
		b = c->ctl = nu_buf_get(wc, 0);
	if (!b || b->busy)
		return NULL;
	b->conn = c;
	b->len_bytes = sizeof(struct nu_batch);
	nu_batch_head(c, b, c->probe_wanted ? NU_BATCH_ASK : 0);
	c->probe_wanted = false;
	return b;
}

static struct nu_buf *begin_next(struct wire_core *wc, struct nu_conn *c)
{
	struct nu_buf *b = c->unsent;

	if (b && b->busy)
		return NULL; /* by an endpoint that is being closed: nu_wire_sent() comes back here */
	if (!b && (c->ack_wanted || c->probe_wanted))
		b = control(wc, c);
	if (!b)
		return NULL;
	if (c->lasting || b == c->ctl)
		nu_session_stamp(c, (struct nu_batch *)b->data);
	if (unlikely(b->sent) && b != c->ctl)
		nu_stat_add(c->core, NU_STAT_BATCHES_RESENT, 1);
	b->sent = true;
	b->ep = c->ep;
	return b;
}

/* The link has taken @b. */
static void has_left(struct wire_core *wc, struct nu_conn *c, struct nu_buf *b, bool kept)
{
	b->busy = kept;
	if (b == c->ctl)
		return;
	if (c->unsent == b)
		c->unsent = b->next;
	if (c->lasting)
		return; /* stays until it is acknowledged */
	c->queue = b->next;
	if (!c->queue)
		c->queue_tail = &c->queue;
	nu_buf_put(wc, b);
}

static void pump(struct wire_core *wc, struct nu_conn *c)
{
	while (c->state == CONN_UP && !c->stalled) {
		struct nu_buf *b = c->current ? c->current : begin_next(wc, c);
		int rc;

		if (!b)
			return;
		rc = c->link->send(c->ep, b);
		if (rc == -EAGAIN) {
			c->current = b;
			c->stalled = true;
			return;
		}
		if (unlikely(rc < 0)) {
			nu_conn_break(c, rc);
			return;
		}
		c->current = NULL;
		has_left(wc, c, b, rc > 0);
	}
}

void nu_conn_post(struct wire_core *wc, struct nu_conn *c, struct nu_buf *b)
{
	int rc;

	if (c->state >= CONN_LOST) {
		nu_buf_put(wc, b);
	} else if (c->lasting) {
		((struct nu_batch *)b->data)->seq = ++c->seq;
		nu_stat_add(c->core, NU_STAT_BATCHES_KEPT, 1);
		add_queue(c, b);
		if (unlikely(!wc->ticking))
			nu_session_tick(wc);
		if (likely(c->state == CONN_UP))
			pump(wc, c);
		else
			nu_conn_dirty(c);
	} else if (likely(c->state == CONN_UP && !c->queue)) {
		b->ep = c->ep;
		rc = c->link->send(c->ep, b);
		if (unlikely(rc == -EAGAIN)) {
			add_queue(c, b);
			c->current = b;
			c->stalled = true;
			return;
		}
		b->busy = rc > 0;
		nu_buf_put(wc, b);
		if (unlikely(rc < 0))
			nu_conn_break(c, rc);
	} else {
		add_queue(c, b);
		nu_conn_dirty(c);
	}
}

void nu_wire_sent(struct nu_buf *b, int err)
{
	struct nu_conn *c = b->conn;
	void *ep = b->ep;

	b->busy = false;
	if (b->dropped)
		nu_buf_put(&nu_wire_cores[b->core], b);
	else if (c->state == CONN_UP && c->unsent)
		nu_conn_dirty(c);
	if (unlikely(err) && ep == c->ep)
		nu_conn_break(c, err);
}

void nu_wire_writable(struct nu_conn *c)
{
	c->stalled = false;
	nu_conn_dirty(c);
}

/* ---- connecting ---- */

static void has_endpoint(struct wire_core *wc, struct nu_conn *c, void *ep)
{
	c->ep = ep;
	c->state = CONN_UP;
	c->stalled = false;
	c->current = NULL;
	c->unsent = c->queue;
	c->up_ns = nu_mono_ns();
	if (!c->lasting && c->link->may_break(ep)) {
		c->lasting = true;
		for (struct nu_buf *b = c->queue; b; b = b->next) {
			((struct nu_batch *)b->data)->seq = ++c->seq;
			nu_stat_add(c->core, NU_STAT_BATCHES_KEPT, 1);
		}
	}
	if (c->lasting && c->queue && !wc->ticking)
		nu_session_tick(wc);
}

/* Scheduler context: UCX's stack use while it connects is not for a thread's small stack. */
static void connect_peer(struct wire_core *wc, struct nu_conn *c)
{
	struct nu_peer *p = &nu_peers[c->node];
	unsigned to = p->ncores ? c->core % p->ncores : 0;
	int err = -ENOTCONN;
	void *ep;

	if (p->ncores)
		err = c->link->connect(c->core, p->addresses[to], p->address_lens[to], c, &ep);
	else
		nu_err("a message for node %u, whose address nobody has told", c->node);
	if (!err)
		has_endpoint(wc, c, ep);
	else
		nu_conn_break(c, err);
}

static void retry_due(void *arg)
{
	struct nu_conn *c = arg;

	c->retry_set = false;
	if (c->state == CONN_DOWN)
		nu_conn_dirty(c);
}

static void revive(struct wire_core *wc, struct nu_conn *c)
{
	uint64_t now = nu_mono_ns();

	if (now < c->retry_ns) {
		if (!c->retry_set && !nu_timer_call(c->retry_ns - now, retry_due, c))
			c->retry_set = true;
		if (!c->retry_set)
			nu_conn_dirty(c); /* no memory for a timer */
		return;
	}
	c->state = CONN_NEW;
	connect_peer(wc, c);
}

void nu_conn_flush(struct wire_core *wc, struct nu_conn *c)
{
	void *broken = c->broken_ep;

	if (unlikely(broken)) {
		c->broken_ep = NULL;
		c->link->close(c->core, broken);
	}
	if (unlikely(c->state != CONN_UP) && (c->queue || c->ack_wanted || c->probe_wanted)) {
		if (c->state == CONN_DOWN)
			revive(wc, c);
		else if (c->state == CONN_NEW)
			connect_peer(wc, c);
	}
	pump(wc, c);
}

/*
 * Both ways between two cores share an endpoint. If both have connected at the same time, that of the node with the
 * lower number is kept; either way nothing is lost, since the sessions go on.
 */
struct nu_conn *nu_conn_adopt(unsigned core, unsigned node, unsigned peer_core, void *ep)
{
	struct wire_core *wc = &nu_wire_cores[core];
	struct nu_conn *c = &wc->conns[node];
	const struct nu_peer *p = &nu_peers[node];

	if (!p->ncores || core % p->ncores != peer_core || c->state >= CONN_LOST)
		return NULL;
	if (c->state == CONN_UP) {
		if (node > nu_node.self)
			return NULL;
		c->link->close(core, c->ep);
		nu_session_broken(c);
	}
	if (c->broken_ep) { /* this one may break before the scheduler has closed that */
		c->link->close(core, c->broken_ep);
		c->broken_ep = NULL;
	}
	has_endpoint(wc, c, ep);
	nu_conn_dirty(c);
	return c;
}

void nu_conn_close(struct nu_conn *c)
{
	void *eps[2] = {c->ep, c->broken_ep};

	c->ep = c->broken_ep = NULL;
	c->state = CONN_DEAD;
	nu_conn_drop_all(&nu_wire_cores[c->core], c);
	for (unsigned i = 0; i < 2; i++) {
		if (eps[i])
			c->link->close(c->core, eps[i]);
	}
}
