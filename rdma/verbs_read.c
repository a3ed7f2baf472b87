/* SPDX-License-Identifier: MIT */
/*
 * The reader: pieces become READs, neither too large nor too small, spread over the lanes to the peer and kept posted
 * until all have come. The device keeps as many under way as the two sides have agreed on; what is posted beyond that is
 * there when it has finished one.
 */
#include "rdma/verbs_int.h"

#include <stdio.h>

#define REMAKE_NS                                                                                            \
	1000000000ull /* a lane that could not be connected is left alone for so long if there is another */

struct item {
	struct ibv_send_wr wr;
	struct ibv_sge sge[NU_LANE_SGE_MAX];
	uint32_t lane; /* index | attempt << 8 if the offer names it */
	bool named, posted;
};

/* One call, on the stack of its thread. */
struct reading {
	struct nu_lane_wait wait;
	struct nu_verbs_peer *peer;
	struct nu_lane *room; /* in whose `room` we are */
	const struct nu_piece *pieces;
	unsigned npieces, at; /* the next one ... */
	size_t off;	      /* ... from here */
	struct nu_lane *lanes[NU_LANES_MAX];
	unsigned nlanes;
	uint64_t planned[NU_LANES_MAX]; /* bytes of items that are not posted */
	unsigned nitems, nposted;
	struct item items[NU_LANE_CHAIN];
};

/* ---- waiting ---- */

void nu_lanes_progress(struct nu_lane *const *lanes, unsigned n, struct nu_lane_wait *w, uint32_t seen)
{
	uint64_t until = nu_mono_ns() + nu_verbs.o.spin_us * 1000ull;

	do {
		for (unsigned i = 0; i < n; i++) {
			if (!nu_lock_try(&lanes[i]->lock))
				continue;
			nu_lane_poll(lanes[i]);
			nu_lock_release(&lanes[i]->lock);
		}
		if (nu_lane_events(w) != seen)
			return;
		nu_cpu_relax();
	} while (nu_mono_ns() < until);
	for (unsigned i = 0; i < n; i++) {
		nu_lock_acquire(&lanes[i]->lock);
		nu_lane_arm(lanes[i]);
		nu_lane_poll(lanes[i]); /* what came before that is not told */
		nu_lock_release(&lanes[i]->lock);
	}
	if (nu_lane_events(w) == seen)
		nu_lane_sleep(w, seen, NU_LANE_LOOK_NS);
}

/* ---- lanes ---- */

static bool is_up(struct nu_lane *l)
{
	return __atomic_load_n(&l->state, __ATOMIC_RELAXED) == NU_LANE_UP;
}

/* Has the lanes that are down made anew, beside what goes on. */
static void want(struct nu_verbs_peer *p)
{
	bool poke = false;

	for (unsigned i = 0; i < nu_verbs.o.queue_pairs; i++) {
		struct nu_lane *l = &p->out[i];

		if (is_up(l))
			continue;
		nu_lock_acquire(&l->lock);
		if (l->state == NU_LANE_IDLE && !l->wanted &&
		    (!l->failed_at_ns || nu_mono_ns() - l->failed_at_ns > REMAKE_NS))
			l->wanted = poke = true;
		nu_lock_release(&l->lock);
	}
	if (poke)
		nu_cm_poke();
}

static bool any_up(struct nu_verbs_peer *p)
{
	for (unsigned i = 0; i < nu_verbs.o.queue_pairs; i++) {
		if (is_up(&p->out[i]))
			return true;
	}
	return false;
}

static int check_peer(unsigned node, struct nu_verbs_peer **p_p)
{
	struct nu_verbs_peer *p = nu_verbs_peer(node);

	if (!nu_verbs.open || !p || !p->known || p->why[0] || atomic_load(&nu_verbs.removed))
		return -ENODEV;
	*p_p = p;
	return nu_verbs_is_dead(node) ? -EHOSTDOWN : 0;
}

int nu_verbs_connect(unsigned node)
{
	uint32_t failures[NU_RDMA_QUEUE_PAIRS_MAX];
	struct nu_verbs_peer *p;
	int ret = check_peer(node, &p), err = 0;

	if (ret)
		return ret;
	for (unsigned i = 0; i < nu_verbs.o.queue_pairs; i++)
		failures[i] = nu_cm_failures(&p->out[i]);
	want(p);
	for (unsigned i = 0; i < nu_verbs.o.queue_pairs; i++) {
		ret = nu_cm_await(&p->out[i], failures[i]);
		err = ret ? ret : err;
	}
	return any_up(p) ? 0 : err;
}

/* ---- pieces to READs ---- */

/* The lane that has least to do. */
static uint32_t pick(struct reading *r)
{
	uint64_t least = UINT64_MAX;
	uint32_t best = 0;

	for (unsigned i = 0; i < nu_verbs.o.queue_pairs; i++) {
		struct nu_lane *l = &r->peer->out[i];
		uint64_t n = __atomic_load_n(&l->bytes, __ATOMIC_RELAXED) + r->planned[i];

		if (is_up(l) && n < least) {
			least = n;
			best = i;
		}
	}
	return best;
}

static void skip_empty(struct reading *r)
{
	while (r->at < r->npieces && r->pieces[r->at].len_bytes == r->off) {
		r->at++;
		r->off = 0;
	}
}

/* Takes up to @most bytes of the piece we are at. */
static int take(struct reading *r, struct item *it, size_t most, size_t *len_p)
{
	const struct nu_piece *p = &r->pieces[r->at];
	char *local = (char *)p->local + r->off;
	size_t len = p->len_bytes - r->off;
	struct ibv_mr *mr;

	if (len > most)
		len = most;
	if (nu_region_find(local, len, &mr)) {
		nu_err("%zu bytes at %p are to be read into, but are not the pool's", len, (void *)local);
		return -EFAULT;
	}
	it->sge[it->wr.num_sge++] = (struct ibv_sge){(uint64_t)local, (uint32_t)len, mr->lkey};
	r->off += len;
	skip_empty(r);
	*len_p = len;
	return 0;
}

/* The next READ: what lies together at the peer, though it may not here. */
static int next_item(struct reading *r, struct item *it)
{
	const struct nu_piece *p = &r->pieces[r->at];
	size_t sum = 0, len;
	int ret;

	it->wr = (struct ibv_send_wr){.sg_list = it->sge, .opcode = IBV_WR_RDMA_READ};
	it->wr.wr.rdma.remote_addr = p->remote + r->off;
	it->wr.wr.rdma.rkey = p->rkey;
	it->posted = false;
	it->named = p->lane != NU_LANE_ANY;
	it->lane = it->named ? p->lane : pick(r);
	if ((it->lane & 0xff) >= nu_verbs.o.queue_pairs)
		return -EINVAL;
	do {
		ret = take(r, it, nu_verbs.o.read_bytes - sum, &len);
		if (ret)
			return ret;
		sum += len;
		if (r->at == r->npieces || sum == nu_verbs.o.read_bytes)
			break;
	} while (it->wr.num_sge < (int)nu_verbs.sge && r->pieces[r->at].rkey == p->rkey &&
		 r->pieces[r->at].lane == p->lane &&
		 r->pieces[r->at].remote + r->off == it->wr.wr.rdma.remote_addr + sum);
	r->planned[it->lane & 0xff] += sum;
	nu_count(&nu_verbs_count.read_bytes, sum);
	return 0;
}

static int plan(struct reading *r)
{
	int ret = 0;

	r->nitems = r->nposted = 0;
	for (unsigned i = 0; i < NU_LANES_MAX; i++)
		r->planned[i] = 0;
	while (r->nitems < NU_LANE_CHAIN && r->at < r->npieces && !ret) {
		ret = next_item(r, &r->items[r->nitems]);
		r->nitems += !ret;
	}
	return ret;
}

/* ---- posting ---- */

/* Posts what is for lane @index, as much as it has room for; lock held. */
static int post_locked(struct reading *r, struct nu_lane *l, unsigned index)
{
	unsigned room = l->sq - (l->head - l->tail), n = 0, left = 0;
	struct item *these[NU_LANE_CHAIN];

	for (unsigned i = 0; i < r->nitems; i++) {
		struct item *it = &r->items[i];

		if (it->posted || (it->lane & 0xff) != index)
			continue;
		if (l->state != NU_LANE_UP || (it->named && it->lane != nu_offer_lane(l)))
			return -EIO;
		if (n == room) {
			left++;
			continue;
		}
		it->wr.next = NULL;
		if (n)
			these[n - 1]->wr.next = &it->wr;
		these[n++] = it;
	}
	if (left && !r->room) {
		nu_list_add_tail(&l->room, &r->wait.link);
		r->room = l;
	}
	if (!n)
		return 0;
	for (unsigned i = 0; i < n; i++)
		these[i]->posted = true;
	r->nposted += n;
	nu_count(&nu_verbs_count.reads_posted, n);
	return nu_lane_post(l, &r->wait, &these[0]->wr, n) < n ? -EIO : 0;
}

static void leave_room(struct reading *r)
{
	if (!r->room)
		return;
	nu_lock_acquire(&r->room->lock);
	nu_list_del(&r->wait.link);
	nu_lock_release(&r->room->lock);
	r->room = NULL;
}

static int post(struct reading *r)
{
	int ret = 0;

	leave_room(r);
	for (unsigned i = 0; i < nu_verbs.o.queue_pairs && !ret; i++) {
		struct nu_lane *l = &r->peer->out[i];
		unsigned known = 0;

		if (!r->planned[i])
			continue;
		nu_lock_acquire(&l->lock);
		nu_lane_poll(l);
		ret = post_locked(r, l, i);
		nu_lock_release(&l->lock);
		while (known < r->nlanes && r->lanes[known] != l)
			known++;
		if (known == r->nlanes)
			r->lanes[r->nlanes++] = l;
	}
	return ret;
}

/* All that is posted has come back when this returns, whatever becomes of it. */
static int run(struct reading *r)
{
	uint32_t seen;
	bool idle;
	int ret = 0;

	for (;;) {
		seen = nu_lane_events(&r->wait);
		if (!ret && r->nposted == r->nitems && r->at < r->npieces)
			ret = plan(r);
		if (!ret && r->nposted < r->nitems)
			ret = post(r);
		if (!ret && r->nposted == r->nitems && r->at < r->npieces)
			continue;
		nu_lock_acquire(&r->wait.lock);
		ret = ret ? ret : r->wait.error;
		idle = !r->wait.pending;
		nu_lock_release(&r->wait.lock);
		if (idle && (ret || r->nposted == r->nitems))
			break;
		nu_lanes_progress(r->lanes, r->nlanes, &r->wait, seen);
	}
	leave_room(r);
	return ret;
}

static int verbs_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	struct reading r = {.pieces = pieces, .npieces = npieces};
	int ret = check_peer(peer, &r.peer);

	if (ret)
		return ret;
	nu_lane_wait_init(&r.wait);
	skip_empty(&r);
	want(r.peer);
	if (!any_up(r.peer))
		ret = nu_verbs_connect(peer);
	if (!ret)
		ret = run(&r);
	return ret && nu_verbs_is_dead(peer) ? -EHOSTDOWN : ret;
}

static int verbs_probe(unsigned peer, char *why, size_t why_len)
{
	struct nu_verbs_peer *p = nu_verbs_peer(peer);

	if (!nu_verbs.open) {
		snprintf(why, why_len, "this node has no RDMA device that can be used");
		return -ENODEV;
	}
	if (!p || !p->known || p->why[0]) {
		snprintf(why, why_len, "%s",
			 p && p->why[0] ? p->why : "it has no RDMA device that can be used");
		return -ENODEV;
	}
	return 0;
}

const struct nu_reader_ops nu_reader_verbs = {
	.name = "verbs",
	.bytes = NU_STAT_READ_BYTES_VERBS,
	.by_offer = true,
	.probe = verbs_probe,
	.connect = nu_verbs_connect,
	.read = verbs_read,
	.offer = nu_verbs_offer,
	.withdraw = nu_verbs_withdraw,
	.cut = nu_verbs_peer_dead,
};
