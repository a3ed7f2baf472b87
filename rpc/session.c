/* SPDX-License-Identifier: MIT */
/*
 * Sessions: the batches of a lasting connection are numbered, taken in order and once, and kept until they have been
 * acknowledged, so that calls are neither lost nor run twice when an endpoint breaks and another takes its place.
 *
 * Acknowledgements ride on batches of the other direction; one of their own is sent only when much is due, or when the
 * sender asks because a batch has waited for a second.
 *
 * What is kept is bounded by what credit.c lets out: a call's credit comes back with the acknowledgement of its batch or
 * later, and replies and control are bounded by the calls that cause them.
 */
#include "rpc/wire_int.h"

#define ACK_BATCHES	32u
#define ACK_BYTES	(256u << 10)
#define TICK_NS		1000000000ull
#define PROBE_TICKS_MAX 64u

/* ---- receiving ---- */

static bool is_due(const struct nu_rx *r)
{
	return r->told != r->last || r->flags;
}

static bool is_urgent(const struct nu_rx *r)
{
	return r->last - r->told >= ACK_BATCHES || r->bytes >= ACK_BYTES || r->flags;
}

static void want_ack(unsigned core, unsigned node)
{
	struct nu_conn *c = &nu_wire_cores[core].conns[node];

	c->ack_wanted = true;
	nu_conn_dirty(c);
}

/* With as many cores here as there a core receives one session of the node; else several, which take turns. */
void nu_session_stamp(struct nu_conn *c, struct nu_batch *h)
{
	struct nu_peer *p = &nu_peers[c->node];
	unsigned step = nu_node.cores, n = c->core < p->ncores ? (p->ncores - c->core + step - 1) / step : 0;
	bool urgent = false;

	h->flags &= ~(NU_BATCH_ACK | NU_BATCH_AGAIN | NU_BATCH_ANSWER);
	for (unsigned i = 0; i < n; i++) {
		unsigned turn = n == 1 ? 0 : (c->ack_next + i) % n;
		struct nu_rx *r = &p->rx[c->core + turn * step];

		if (h->flags & NU_BATCH_ACK) {
			urgent |= is_urgent(r);
		} else if (is_due(r)) {
			h->ack_core = (uint16_t)(c->core + turn * step);
			h->ack = r->told = r->last;
			h->flags |= NU_BATCH_ACK | r->flags;
			r->flags = r->bytes = 0;
			c->ack_next = turn + 1;
		}
	}
	c->ack_wanted = urgent;
}

static struct nu_rx *rx_of(unsigned core, const struct nu_batch *h)
{
	struct nu_peer *p = &nu_peers[h->node];

	if (likely(h->core < p->ncores && h->core % nu_node.cores == core))
		return &p->rx[h->core];
	nu_wire_bad(core, h->node, "core of a session", h->core);
	return NULL;
}

static int __attribute__((cold)) refuse(unsigned core, const struct nu_batch *h, struct nu_rx *r)
{
	if (h->seq > r->last)
		r->flags |= NU_BATCH_AGAIN;
	else
		r->flags |= NU_BATCH_ANSWER; /* it does not know that we have it */
	nu_stat_add(core, NU_STAT_BATCHES_REFUSED, 1);
	want_ack(core, h->node);
	return 0;
}

int nu_session_take(unsigned core, const struct nu_batch *h)
{
	struct nu_rx *r = rx_of(core, h);

	if (unlikely(!r))
		return -EBADMSG;
	if (unlikely(h->seq != r->last + 1))
		return refuse(core, h, r);
	r->last = h->seq;
	r->bytes += h->len_bytes;
	if (unlikely(is_urgent(r)))
		want_ack(core, h->node);
	return 1;
}

void nu_session_asked(unsigned core, const struct nu_batch *h)
{
	struct nu_rx *r = h->node != nu_node.self && nu_peers[h->node].ncores ? rx_of(core, h) : NULL;

	if (!r)
		return;
	r->flags |= NU_BATCH_ANSWER;
	want_ack(core, h->node);
}

void nu_session_broken(struct nu_conn *c)
{
	struct nu_peer *p = &nu_peers[c->node];

	for (unsigned i = c->core; i < p->ncores; i += nu_node.cores) {
		if (p->rx[i].last)
			p->rx[i].told = p->rx[i].last - 1;
	}
}

/* ---- acknowledgements ---- */

/* @ack: the peer has taken all up to here. On the connection's core. */
static void settle(struct nu_conn *c, uint64_t ack, bool again)
{
	struct wire_core *wc = &nu_wire_cores[c->core];
	struct nu_buf *b;

	if (unlikely(!c->lasting))
		return;
	while ((b = c->queue) && ((struct nu_batch *)b->data)->seq <= ack && b != c->current) {
		if (c->unsent == b)
			c->unsent = b->next;
		c->queue = b->next;
		if (!c->queue)
			c->queue_tail = &c->queue;
		nu_stat_add(c->core, NU_STAT_BATCHES_SETTLED, 1);
		nu_buf_put(wc, b);
		c->attempts = 0;
	}
	if (unlikely(again) && c->queue) {
		c->unsent = c->queue;
		nu_conn_dirty(c);
	}
}

static bool check_ack(unsigned core, const struct nu_conn *c, uint64_t ack)
{
	if (likely(ack <= c->seq))
		return true;
	nu_wire_bad(core, c->node, "acknowledges what was never sent", ack);
	return false;
}

static void settle_posted(void *arg)
{
	struct nu_conn *c = arg;
	uint64_t ack;
	bool again;

	atomic_store(&c->ack_posted, false);
	ack = atomic_load(&c->acked);
	again = atomic_exchange(&c->ack_again, false);
	if (check_ack(c->core, c, ack))
		settle(c, ack, again);
}

/* An answer comes behind all that was sent before its question, over whatever endpoint: what it lacks is lost. */
static bool lacks(const struct nu_conn *c, const struct nu_batch *h)
{
	return h->flags & NU_BATCH_AGAIN || (h->flags & NU_BATCH_ANSWER && h->ack < c->probed);
}

void nu_session_acked(unsigned core, const struct nu_batch *h)
{
	const struct nu_peer *p = &nu_peers[h->node];
	struct nu_conn *c;

	if (unlikely(h->ack_core >= nu_node.cores || h->node == nu_node.self || !p->ncores ||
		     h->ack_core % p->ncores != h->core)) {
		nu_wire_bad(core, h->node, "acknowledges another core's batches", h->ack_core);
		return;
	}
	c = &nu_wire_cores[h->ack_core].conns[h->node];
	if (likely(h->ack_core == core)) {
		if (check_ack(core, c, h->ack))
			settle(c, h->ack, lacks(c, h));
		return;
	}
	/* One core of ours receives all of these, so that the number only grows. */
	if (h->ack > atomic_load_explicit(&c->acked, memory_order_relaxed))
		atomic_store(&c->acked, h->ack);
	if (h->flags & (NU_BATCH_AGAIN | NU_BATCH_ANSWER))
		atomic_store(&c->ack_again, true);
	if (!atomic_exchange(&c->ack_posted, true) && nu_core_post(h->ack_core, settle_posted, c))
		atomic_store(&c->ack_posted, false); /* no memory: the next one does */
}

/* ---- what waits too long ---- */

static bool look_after(struct nu_conn *c)
{
	uint64_t head;

	if (!c->lasting || !c->queue)
		return false;
	head = ((struct nu_batch *)c->queue->data)->seq;
	if (head != c->head_seen) {
		c->head_seen = head;
		c->waited = 0;
	} else if (c->state == CONN_UP && !c->unsent) {
		c->waited++;
		if (!(c->waited & (c->waited - 1)) || c->waited % PROBE_TICKS_MAX == 0) {
			c->probed = c->seq;
			c->probe_wanted = true;
			nu_conn_dirty(c);
		}
	}
	return true;
}

static void tick(void *arg)
{
	struct wire_core *wc = arg;
	bool more = false;

	wc->ticking = false;
	for (unsigned n = 0; n < nu_node.count; n++)
		more |= look_after(&wc->conns[n]);
	if (more)
		nu_session_tick(wc);
}

void nu_session_tick(struct wire_core *wc)
{
	wc->ticking = !nu_timer_call(TICK_NS, tick, wc);
}
