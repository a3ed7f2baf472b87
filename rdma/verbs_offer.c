/* SPDX-License-Identifier: MIT */
/*
 * Offers: what a peer may read, and for how long.
 *
 * With memory windows of type 2 an offer is a window over just its bytes, bound on the one queue pair that will read
 * them, and gone when it is withdrawn; the chunks' own keys allow nothing. So a destination that was given up, or is slow,
 * or has a wrong idea of where things lie, reads nothing that was not meant for it, nor what the memory is used for next.
 * Without windows an offer is the key of the whole chunk (32 MiB), which is good for reading anything in it, by all nodes
 * that have been told it, until the chunk is deregistered: there, order is kept by the protocol alone (no extent is given
 * back while its reader may still read) and by tearing queue pairs down. Neither lets anybody write, and no queue pair is
 * there for who is not of the job.
 */
#include "rdma/verbs_int.h"

#include <stdlib.h>
#include <string.h>

#define TRIES 3u

static struct {
	struct nu_lock lock; /* leaf */
	struct nu_list free;
	bool ready;
} windows;

/* ---- windows ---- */

static struct nu_window *window_get(void)
{
	struct nu_window *w = NULL;

	nu_lock_acquire(&windows.lock);
	if (!windows.ready) {
		nu_list_init(&windows.free);
		windows.ready = true;
	}
	if (!nu_list_empty(&windows.free)) {
		w = nu_list_entry(windows.free.next, struct nu_window, link);
		nu_list_del(&w->link);
	}
	nu_lock_release(&windows.lock);
	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	nu_list_init(&w->link);
	w->mw = ibv_alloc_mw(nu_verbs.pd, IBV_MW_TYPE_2);
	if (!w->mw) {
		nu_err("no memory window: %s (device %s has %d, %lu are in use)", strerror(nu_sys_errno),
		       nu_verbs.device, nu_verbs.attr.max_mw, atomic_load(&nu_verbs_count.windows));
		free(w);
		return NULL;
	}
	w->rkey = w->mw->rkey;
	nu_count(&nu_verbs_count.windows, 1);
	return w;
}

/* It is bound to nothing. */
static void window_put(struct nu_window *w)
{
	nu_lock_acquire(&windows.lock);
	nu_list_add_tail(&windows.free, &w->link);
	nu_lock_release(&windows.lock);
}

static void window_destroy(struct nu_window *w)
{
	int err = ibv_dealloc_mw(w->mw);

	if (err && !atomic_load(&nu_verbs.removed))
		nu_err("a memory window cannot be given back: %s", strerror(err));
	atomic_fetch_sub_explicit(&nu_verbs_count.windows, 1, memory_order_relaxed);
	free(w);
}

void nu_windows_drop(struct nu_lane *l)
{
	while (!nu_list_empty(&l->windows)) {
		struct nu_window *w = nu_list_entry(l->windows.next, struct nu_window, link);

		nu_list_del(&w->link);
		window_destroy(w);
	}
}

void nu_windows_close(void)
{
	if (!windows.ready)
		return;
	while (!nu_list_empty(&windows.free)) {
		struct nu_window *w = nu_list_entry(windows.free.next, struct nu_window, link);

		nu_list_del(&w->link);
		window_destroy(w);
	}
}

/* Lock held. */
static struct nu_window *window_of(struct nu_lane *l, const struct nu_offer_piece *piece)
{
	struct nu_list *pos;

	if (nu_offer_lane(l) != piece->lane)
		return NULL;
	nu_list_for_each (pos, &l->windows) {
		struct nu_window *w = nu_list_entry(pos, struct nu_window, link);

		if (w->rkey == piece->rkey)
			return w;
	}
	return NULL;
}

/* ---- a work request of our own, on a lane that the peer reads by ---- */

/* Posts @wr and waits for its completion. @claim, with the lock held, may refuse. */
static int do_local(struct nu_lane *l, struct ibv_send_wr *wr, int (*claim)(struct nu_lane *l, void *arg),
		    void *arg)
{
	struct nu_lane_wait w;
	bool posted = false, idle;
	uint32_t seen;
	int ret = 0;

	nu_lane_wait_init(&w);
	for (;;) {
		seen = nu_lane_events(&w);
		nu_lock_acquire(&l->lock);
		nu_list_del(&w.link);
		nu_lane_poll(l);
		if (!posted && l->state != NU_LANE_UP) {
			ret = -EHOSTUNREACH;
		} else if (!posted && l->head - l->tail == l->sq) {
			nu_list_add_tail(&l->room, &w.link);
		} else if (!posted) {
			ret = claim(l, arg);
			posted = true;
			if (!ret && !nu_lane_post(l, &w, wr, 1))
				ret = -EHOSTUNREACH;
		}
		nu_lock_release(&l->lock);
		nu_lock_acquire(&w.lock);
		idle = !w.pending;
		ret = ret ? ret : w.error;
		nu_lock_release(&w.lock);
		if (idle && (posted || ret))
			return ret;
		nu_lanes_progress(&l, 1, &w, seen);
	}
}

struct binding {
	struct nu_window *window;
	struct ibv_send_wr wr;
	uint32_t rkey, lane;
};

static int claim_bind(struct nu_lane *l, void *arg)
{
	struct binding *b = arg;
	int err = -nu_fault(NU_FAULT_RDMA_BIND);

	if (err)
		return -err;
	b->lane = nu_offer_lane(l);
	/* Some providers tell the device which window it is by the key that it has now. */
	b->window->mw->rkey = b->window->rkey;
	b->window->rkey = b->rkey;
	nu_list_add_tail(&l->windows, &b->window->link);
	return 0;
}

static int bind_on(struct nu_lane *l, struct ibv_mr *mr, uint64_t address, size_t len,
		   struct nu_offer_piece *piece_p)
{
	struct binding b = {.window = window_get()};
	int ret;

	if (!b.window)
		return -ENOMEM;
	b.rkey = ibv_inc_rkey(b.window->rkey);
	b.wr = (struct ibv_send_wr){.opcode = IBV_WR_BIND_MW};
	b.wr.bind_mw.mw = b.window->mw;
	b.wr.bind_mw.rkey = b.rkey;
	b.wr.bind_mw.bind_info = (struct ibv_mw_bind_info){mr, address, len, IBV_ACCESS_REMOTE_READ};
	ret = do_local(l, &b.wr, claim_bind, &b);
	if (!ret) {
		nu_count(&nu_verbs_count.windows_bound, 1);
		*piece_p = (struct nu_offer_piece){address, len, b.rkey, b.lane};
	} else if (!b.lane) {
		window_put(b.window); /* never posted; else it goes with the lane, which broke */
	}
	return ret;
}

/* One that the peer has connected, in turn; or the first that it connects. */
static struct nu_lane *pick(struct nu_verbs_peer *p)
{
	unsigned turn = atomic_fetch_add_explicit(&p->turn, 1, memory_order_relaxed), n = 0, k;

	/* The turn is among those that are up: how many the peer makes is its affair. */
	for (unsigned i = 0; i < NU_LANES_MAX; i++)
		n += __atomic_load_n(&p->in[i].state, __ATOMIC_RELAXED) == NU_LANE_UP;
	k = n ? turn % n : 0;
	for (unsigned i = 0; i < NU_LANES_MAX && n; i++) {
		if (__atomic_load_n(&p->in[i].state, __ATOMIC_RELAXED) == NU_LANE_UP && !k--)
			return &p->in[i];
	}
	return &p->in[0];
}

int nu_verbs_offer(unsigned to, const struct nu_extent *e, size_t len_bytes, struct nu_offer_piece *piece_p)
{
	struct nu_verbs_peer *p = nu_verbs_peer(to);
	struct ibv_mr *mr;
	int ret = -EHOSTUNREACH;

	if (!nu_verbs.open || !p || !p->known || p->why[0] || atomic_load(&nu_verbs.removed))
		return -ENODEV;
	if (nu_verbs_is_dead(to))
		return -EHOSTDOWN;
	if (!len_bytes || len_bytes > e->len_bytes || nu_region_find(e->home, len_bytes, &mr))
		return -EINVAL;
	if (!nu_verbs.windows) {
		*piece_p = (struct nu_offer_piece){(uint64_t)e->home, len_bytes, mr->rkey, NU_LANE_ANY};
		return 0;
	}
	/* A lane may break under us; another may be there, or the peer connects it anew. */
	for (unsigned tries = 0; ret == -EHOSTUNREACH && tries < TRIES; tries++) {
		struct nu_lane *l = pick(p);

		ret = nu_cm_await(l, nu_cm_failures(l));
		if (!ret)
			ret = bind_on(l, mr, (uint64_t)e->home, len_bytes, piece_p);
		else
			break;
	}
	return ret;
}

struct ending {
	const struct nu_offer_piece *piece;
};

static int claim_end(struct nu_lane *l, void *arg)
{
	struct ending *e = arg;

	return window_of(l, e->piece) ? 0 : -ENOENT;
}

void nu_verbs_withdraw(unsigned to, const struct nu_offer_piece *piece)
{
	struct nu_verbs_peer *p = nu_verbs_peer(to);
	struct ibv_send_wr wr = {.opcode = IBV_WR_LOCAL_INV, .invalidate_rkey = piece->rkey};
	struct ending e = {piece};
	struct nu_window *w;
	struct nu_lane *l;

	if (!p || piece->lane == NU_LANE_ANY || (piece->lane & 0xff) >= NU_LANES_MAX)
		return;
	l = &p->in[piece->lane & 0xff];
	/* If that fails the lane has broken: its windows go with it. */
	if (do_local(l, &wr, claim_end, &e))
		return;
	nu_lock_acquire(&l->lock);
	w = window_of(l, piece);
	if (w)
		nu_list_del(&w->link);
	nu_lock_release(&l->lock);
	if (w)
		window_put(w);
}
