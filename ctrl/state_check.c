/* SPDX-License-Identifier: MIT */
/* Checks the controller's state against itself: every list, count and booking is derived a second time. */
#include "ctrl/state_int.h"

#include <string.h>

struct sums {
	uint64_t reserved[NU_MAX_NODES], live[NU_MAX_NODES], pending[NU_MAX_NODES];
	uint64_t counts[NU_CTRL_GONE + 1];
	uint64_t on_list[NU_CTRL_LISTS];
	uint64_t used_units, main_taken;
};

static int fault(const struct nu_ctrl_proclet *e, const char *what)
{
	nu_err("controller: proclet %llx (state %u, node %u, moving to %u): %s", (unsigned long long)e->id,
	       e->life, e->node, e->moving_to, what);
	return -EIO;
}

static bool dead(const struct nu_ctrl *c, unsigned node)
{
	return c->nodes[node].state == NU_NODE_DEAD;
}

/* Which lists it has to be on. */
static unsigned lists_of(const struct nu_ctrl *c, const struct nu_ctrl_proclet *e)
{
	unsigned lists = 0;

	if (e->life == NU_CTRL_GONE)
		return 1u << NU_CTRL_LIMBO;
	if (e->life == NU_CTRL_LOST)
		return (unsigned)e->has_segment << NU_CTRL_LIMBO;
	if (!dead(c, e->node))
		lists |= 1u << NU_CTRL_AT;
	if (e->moving_to != NU_CTRL_NO_NODE16 && !dead(c, e->moving_to))
		lists |= 1u << NU_CTRL_IN;
	if (e->home != NU_CTRL_NO_NODE16)
		lists |= 1u << NU_CTRL_AWAY;
	if (e->life == NU_CTRL_DOUBT)
		lists |= 1u << NU_CTRL_LIMBO;
	return lists;
}

static int check_proclet(const struct nu_ctrl *c, const struct nu_ctrl_proclet *e, struct sums *s)
{
	bool moving = e->moving_to != NU_CTRL_NO_NODE16;
	unsigned alive = !dead(c, e->node) + (moving && !dead(c, e->moving_to));

	if (nu_ctrl_find(c, e->id) != e || nu_ctrl_at(c, e->slot) != e)
		return fault(e, "not found by its id");
	if (e->on_lists != lists_of(c, e))
		return fault(e, "on the wrong lists");
	if (e->life <= NU_CTRL_LIVE && alive != 1u + moving)
		return fault(e, "settled on a dead node");
	if (e->life == NU_CTRL_DOUBT && (!moving || alive != 1))
		return fault(e, "nothing to doubt");
	if (e->booked != (e->life == NU_CTRL_NEW || e->on_lists >> NU_CTRL_IN & 1))
		return fault(e, "booking is wrong");
	if (e->life <= NU_CTRL_DOUBT &&
	    (!nu_ctrl_holds(e, e->node) || (moving && !nu_ctrl_holds(e, e->moving_to))))
		return fault(e, "not held where it is");
	if (e->life != NU_CTRL_LOST && !e->has_segment)
		return fault(e, "without a segment");
	s->counts[e->life]++;
	for (unsigned k = 0; k < NU_CTRL_LISTS; k++)
		s->on_list[k] += e->on_lists >> k & 1;
	if (e->booked) {
		s->reserved[e->life == NU_CTRL_NEW ? e->node : e->moving_to] += e->reserved_bytes;
		s->pending[e->life == NU_CTRL_NEW ? e->node : e->moving_to]++;
	}
	s->live[e->node] += e->life != NU_CTRL_NEW && e->on_lists >> NU_CTRL_AT & 1;
	if (e->has_segment && c->main_taken && nu_id_seg(e->id) == c->main_seg)
		s->main_taken++;
	if (e->has_segment && nu_id_seg(e->id) != NU_SEG_MAIN)
		s->used_units += 1u << e->order;
	return 0;
}

/* Members of one list; a broken back link gives a number that cannot be right. */
static uint64_t walk(const struct nu_ctrl *c, uint32_t head, enum nu_ctrl_list which)
{
	uint64_t count = 0;
	uint32_t prev = NU_CTRL_NONE;

	for (uint32_t i = head; i != NU_CTRL_NONE && count <= c->by_id.count; count++) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, i);

		if (e->links[which].prev != prev || !(e->on_lists & 1u << which))
			return ~(uint64_t)0;
		prev = i;
		i = e->links[which].next;
	}
	return count;
}

static int check_nodes(const struct nu_ctrl *c, const struct sums *s)
{
	uint64_t on_list[NU_CTRL_LIMBO] = {0};

	for (unsigned i = 0; i < NU_MAX_NODES; i++) {
		const struct nu_ctrl_node *n = &c->nodes[i];

		if (n->reserved_bytes != s->reserved[i] || n->live != s->live[i] ||
		    n->pending != s->pending[i]) {
			nu_err("controller: node %u: %llu/%llu proclets, %llu/%llu pending, %llu/%llu bytes "
			       "booked",
			       i, (unsigned long long)n->live, (unsigned long long)s->live[i],
			       (unsigned long long)n->pending, (unsigned long long)s->pending[i],
			       (unsigned long long)n->reserved_bytes, (unsigned long long)s->reserved[i]);
			return -EIO;
		}
		for (unsigned k = 0; k < NU_CTRL_LIMBO; k++)
			on_list[k] += walk(c, n->heads[k], k);
		if ((c->alive[i / 64] >> i % 64 & 1) !=
		    (n->state == NU_NODE_UP || n->state == NU_NODE_DRAINING))
			return -EIO;
	}
	if (memcmp(on_list, s->on_list, sizeof(on_list))) {
		nu_err("controller: a node's list has lost somebody");
		return -EIO;
	}
	return 0;
}

int nu_ctrl_check(const struct nu_ctrl *c)
{
	static const struct sums zero;
	struct sums s = zero;
	uint64_t total = 0;
	int ret;

	for (uint32_t i = 0; i < c->proclets.fresh; i++) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, i);

		ret = e->life ? check_proclet(c, e, &s) : 0;
		if (ret)
			return ret;
	}
	for (unsigned i = NU_CTRL_NEW; i <= NU_CTRL_GONE; i++) {
		total += s.counts[i];
		if (s.counts[i] != c->counts[i]) {
			nu_err("controller: %llu/%llu proclets in state %u", (unsigned long long)s.counts[i],
			       (unsigned long long)c->counts[i], i);
			return -EIO;
		}
	}
	if (total != c->by_id.count || s.main_taken != c->main_taken ||
	    walk(c, c->doubt_head, NU_CTRL_LIMBO) != s.counts[NU_CTRL_DOUBT] ||
	    walk(c, c->wait_head, NU_CTRL_LIMBO) != c->waiting ||
	    s.on_list[NU_CTRL_LIMBO] != s.counts[NU_CTRL_DOUBT] + c->waiting) {
		nu_err("controller: its totals are off");
		return -EIO;
	}
	ret = check_nodes(c, &s);
	if (!ret && s.used_units + c->segments.free_units != c->segments.units) {
		nu_err("controller: %llu MiB of segments are used, %llu free",
		       (unsigned long long)s.used_units, (unsigned long long)c->segments.free_units);
		return -EIO;
	}
	return ret ? ret : nu_segments_check(&c->segments);
}
