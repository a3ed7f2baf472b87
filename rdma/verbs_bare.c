/* SPDX-License-Identifier: MIT */
/*
 * What the device does when nothing stands between, for benchmarks: READs of equal size posted one by one to one queue
 * pair, so many at a time, each signalled, its completion polled for: as ib_read_bw does it, on our own connection.
 */
#include "rdma/verbs_int.h"

#define POLL_BATCH 16

struct bare {
	struct nu_lane *lane;
	struct nu_piece piece;
	struct ibv_mr *mr;
	size_t each, n;
	size_t posted, completed;
};

static int post_next(struct bare *b)
{
	size_t off = b->posted * b->each;
	struct ibv_sge sge = {(uint64_t)b->piece.local + off, (uint32_t)b->each, b->mr->lkey};
	struct ibv_send_wr wr = {.sg_list = &sge,
				 .num_sge = 1,
				 .opcode = IBV_WR_RDMA_READ,
				 .send_flags = IBV_SEND_SIGNALED},
			   *bad;

	wr.wr.rdma.remote_addr = b->piece.remote + off;
	wr.wr.rdma.rkey = b->piece.rkey;
	if (ibv_post_send(b->lane->qp, &wr, &bad))
		return -EIO;
	b->posted++;
	return 0;
}

/* Looks for completions once. Return: -EIO one of them, or the queue itself, has failed. */
static int collect(struct bare *b)
{
	struct ibv_wc wc[POLL_BATCH];
	int ret = 0, n = ibv_poll_cq(b->lane->cq, POLL_BATCH, wc);

	for (int i = 0; i < n; i++) {
		b->completed++;
		if (wc[i].status != IBV_WC_SUCCESS)
			ret = -EIO;
	}
	return n < 0 ? -EIO : ret;
}

/* The device's own time-outs (options timeout and retry) bound the waiting. */
static int stream(struct bare *b, unsigned depth)
{
	int ret = 0;

	while (!ret && (b->posted < b->n || b->completed < b->posted)) {
		while (!ret && b->posted < b->n && b->posted - b->completed < depth)
			ret = post_next(b);
		ret = ret ? ret : collect(b);
	}
	return ret;
}

/* Breaks the lane, and takes what is given back: else it would be taken for somebody else's, and memory be written late. */
static void give_up(struct bare *b)
{
	uint64_t end = nu_mono_ns() + NU_LANE_FLUSH_NS;

	nu_lane_break(b->lane, -EIO);
	while (b->completed < b->posted && nu_mono_ns() < end)
		(void)!collect(b);
	if (b->completed < b->posted)
		nu_lane_cut(b->lane, -EIO);
}

int nu_verbs_read_bare(unsigned peer, const struct nu_piece *piece, size_t each_bytes, unsigned depth)
{
	struct nu_verbs_peer *p = nu_verbs_peer(peer);
	unsigned index = piece->lane == NU_LANE_ANY ? 0 : piece->lane & 0xff;
	struct bare b = {.piece = *piece, .each = each_bytes, .n = piece->len_bytes / each_bytes};
	int ret = nu_region_find(piece->local, piece->len_bytes, &b.mr);

	if (ret || !p || index >= nu_verbs.o.queue_pairs || !b.n)
		return ret ? ret : -EINVAL;
	ret = nu_verbs_connect(peer);
	if (ret)
		return ret;
	b.lane = &p->out[index];
	nu_lock_acquire(&b.lane->lock);
	if (b.lane->state != NU_LANE_UP)
		ret = -EIO;
	else if (b.lane->head != b.lane->tail || depth > b.lane->sq)
		ret = -EBUSY;
	else
		ret = stream(&b, depth);
	if (ret == -EIO && b.posted)
		give_up(&b);
	nu_lock_release(&b.lane->lock);
	return ret;
}
