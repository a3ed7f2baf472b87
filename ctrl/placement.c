/* SPDX-License-Identifier: MIT */
/* Where proclets go: the choice of a node, and the lists that drains, restores and tools work from. */
#include "ctrl/state_int.h"

/* ---- the choice ---- */

/* What a newcomer may count on: memory as reported, less what is on its way and what came since. */
static uint64_t free_bytes(const struct nu_ctrl_node *n)
{
	uint64_t taken = n->mem_used + n->reserved_bytes + n->recent_bytes;

	return taken < n->mem_total ? n->mem_total - taken : 0;
}

static bool better(const struct nu_ctrl_node *a, const struct nu_ctrl_node *b)
{
	/* In sixteenths of what they have: a small difference is no reason to crowd one node. */
	uint64_t free_a = free_bytes(a) / (a->mem_total / 16 + 1),
		 free_b = free_bytes(b) / (b->mem_total / 16 + 1);

	return free_a != free_b ? free_a > free_b : a->live + a->pending < b->live + b->pending;
}

int nu_ctrl_pick(struct nu_ctrl *c, unsigned not, uint64_t fit_bytes, unsigned *node_p)
{
	unsigned best = NU_CTRL_NO_NODE, draining = 0;

	/* Beginning after the last choice, so that equals take turns. */
	for (unsigned i = 1; i <= c->nnodes; i++) {
		unsigned at = (c->last_placed + i) % c->nnodes;
		const struct nu_ctrl_node *n = &c->nodes[at];

		if (at == not )
			continue;
		draining += n->state == NU_NODE_DRAINING;
		if (n->state == NU_NODE_UP && (best == NU_CTRL_NO_NODE || better(n, &c->nodes[best])))
			best = at;
	}
	if (best == NU_CTRL_NO_NODE)
		return draining ? -EBUSY : -EHOSTDOWN;
	if (free_bytes(&c->nodes[best]) < fit_bytes)
		return -ENOMEM;
	c->last_placed = best;
	*node_p = best;
	return 0;
}

int nu_ctrl_place(struct nu_ctrl *c, uint64_t id, unsigned *node_p)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);

	if (ret)
		return ret;
	if (e->pinned)
		return -EPERM;
	ret = nu_ctrl_pick(c, e->node, e->bytes, node_p);
	if (ret == -ENOMEM)
		nu_warn("controller: no node has %llu KiB free for proclet %llx",
			(unsigned long long)(e->bytes / NU_KIB), (unsigned long long)id);
	return ret == -EBUSY || ret == -EHOSTDOWN ? -EINVAL : ret;
}

/* ---- lists by id ---- */

/* The smallest @max of the ids offered: a heap with the largest on top. */
struct smallest {
	uint64_t *ids;
	unsigned max, count;
};

static void sift_down(uint64_t *ids, unsigned count, unsigned at)
{
	for (unsigned child; (child = 2 * at + 1) < count; at = child) {
		uint64_t id = ids[at];

		if (child + 1 < count && ids[child + 1] > ids[child])
			child++;
		if (ids[child] <= id)
			return;
		ids[at] = ids[child];
		ids[child] = id;
	}
}

static void make_heap(struct smallest *s)
{
	for (unsigned i = s->count / 2; i-- > 0;)
		sift_down(s->ids, s->count, i);
}

static void offer(struct smallest *s, uint64_t id)
{
	if (s->count < s->max) {
		s->ids[s->count++] = id;
		/* Before it is full there is nothing to compare with. */
		if (s->count == s->max)
			make_heap(s);
	} else if (s->max && id < s->ids[0]) {
		s->ids[0] = id;
		sift_down(s->ids, s->count, 0);
	}
}

/* In place and without memory: the largest goes to the end, and so on. */
static void sort_ids(struct smallest *s)
{
	if (s->count < s->max)
		make_heap(s);
	for (unsigned left = s->count; left > 1; left--) {
		uint64_t largest = s->ids[0];

		s->ids[0] = s->ids[left - 1];
		s->ids[left - 1] = largest;
		sift_down(s->ids, left - 1, 0);
	}
}

static int list_ids(const struct nu_ctrl *c, unsigned node, enum nu_ctrl_list which, uint64_t after,
		    uint64_t *ids, unsigned max, unsigned *count_p)
{
	struct smallest s = {.ids = ids, .max = max};
	int ret = nu_ctrl_node_status(c, node);

	if (ret)
		return ret;
	for (uint32_t i = c->nodes[node].heads[which]; i != NU_CTRL_NONE;) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, i);

		i = e->links[which].next;
		if (e->id > after && e->life == NU_CTRL_LIVE && !e->pinned &&
		    e->moving_to == NU_CTRL_NO_NODE16)
			offer(&s, e->id);
	}
	sort_ids(&s);
	*count_p = s.count;
	return 0;
}

int nu_ctrl_victims(const struct nu_ctrl *c, unsigned node, uint64_t after, uint64_t *ids, unsigned max,
		    unsigned *count_p)
{
	return list_ids(c, node, NU_CTRL_AT, after, ids, max, count_p);
}

int nu_ctrl_away(const struct nu_ctrl *c, unsigned node, uint64_t after, uint64_t *ids, unsigned max,
		 unsigned *count_p)
{
	return list_ids(c, node, NU_CTRL_AWAY, after, ids, max, count_p);
}

/* ---- all of them ---- */

static uint32_t node_or_none(uint16_t node)
{
	return node == NU_CTRL_NO_NODE16 ? NU_CTRL_NO_NODE : node;
}

unsigned nu_ctrl_list(const struct nu_ctrl *c, uint64_t *cursor, struct nu_ctrl_info *infos, unsigned max)
{
	unsigned count = 0;
	uint64_t slot;

	for (slot = *cursor; slot < c->proclets.fresh && count < max; slot++) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, (uint32_t)slot);

		if (e->life == NU_CTRL_FREE || e->life == NU_CTRL_GONE)
			continue;
		infos[count++] = (struct nu_ctrl_info){
			.id = e->id,
			.location = e->location,
			.capacity_bytes = (uint64_t)NU_SEG_UNIT_BYTES << e->order,
			.bytes = e->bytes,
			.node = e->node,
			.moving_to = node_or_none(e->moving_to),
			.home = node_or_none(e->home),
			.life = e->life,
			.pinned = e->pinned,
		};
	}
	*cursor = slot < c->proclets.fresh ? slot : ~(uint64_t)0;
	return count;
}

int nu_ctrl_holders(const struct nu_ctrl *c, uint64_t id, uint64_t holders[NU_CTRL_NODE_WORDS])
{
	const struct nu_ctrl_proclet *e = nu_ctrl_find(c, id);

	if (!e)
		return -ESTALE;
	for (unsigned i = 0; i < NU_CTRL_NODE_WORDS; i++)
		holders[i] = e->holders[i] & c->alive[i];
	return 0;
}

uint64_t nu_ctrl_waiting(const struct nu_ctrl *c, uint64_t *ids, unsigned max)
{
	unsigned count = 0;

	for (uint32_t i = c->wait_head; i != NU_CTRL_NONE && count < max;) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, i);

		ids[count++] = e->id;
		i = e->links[NU_CTRL_LIMBO].next;
	}
	return c->waiting;
}

void nu_ctrl_totals(const struct nu_ctrl *c, struct nu_ctrl_totals *totals_p)
{
	*totals_p = (struct nu_ctrl_totals){
		.fresh = c->counts[NU_CTRL_NEW],
		.live = c->counts[NU_CTRL_LIVE],
		.doubt = c->counts[NU_CTRL_DOUBT],
		.lost = c->counts[NU_CTRL_LOST],
		.waiting = c->waiting,
		.created = c->next_generation - c->first_generation,
		.free_units = c->segments.free_units,
	};
}
