/* SPDX-License-Identifier: MIT */
/* The controller's state: nodes, and the life of a proclet from its creation to the reuse of its segment. */
#include "ctrl/state_int.h"

#include <string.h>

#define INCARNATION_MAX ((1u << (NU_GEN_BITS - 32)) - 1)

/* ---- lists, bookings, counts ---- */

static uint32_t *head_of(struct nu_ctrl *c, const struct nu_ctrl_proclet *e, enum nu_ctrl_list which)
{
	switch (which) {
	case NU_CTRL_AT:
		return &c->nodes[e->node].heads[NU_CTRL_AT];
	case NU_CTRL_IN:
		return &c->nodes[e->moving_to].heads[NU_CTRL_IN];
	case NU_CTRL_AWAY:
		return &c->nodes[e->home].heads[NU_CTRL_AWAY];
	default:
		return e->life == NU_CTRL_DOUBT ? &c->doubt_head : &c->wait_head;
	}
}

void nu_ctrl_list_add(struct nu_ctrl *c, struct nu_ctrl_proclet *e, enum nu_ctrl_list which)
{
	uint32_t *head = head_of(c, e, which);

	NU_DEBUG_ASSERT(!(e->on_lists & 1u << which));
	e->links[which] = (struct nu_ctrl_link){.next = *head, .prev = NU_CTRL_NONE};
	if (*head != NU_CTRL_NONE)
		nu_ctrl_at(c, *head)->links[which].prev = e->slot;
	*head = e->slot;
	e->on_lists |= (uint8_t)(1u << which);
}

void nu_ctrl_list_del(struct nu_ctrl *c, struct nu_ctrl_proclet *e, enum nu_ctrl_list which)
{
	struct nu_ctrl_link l = e->links[which];

	if (!(e->on_lists & 1u << which))
		return;
	if (l.next != NU_CTRL_NONE)
		nu_ctrl_at(c, l.next)->links[which].prev = l.prev;
	if (l.prev != NU_CTRL_NONE)
		nu_ctrl_at(c, l.prev)->links[which].next = l.next;
	else
		*head_of(c, e, which) = l.next;
	e->on_lists &= (uint8_t) ~(1u << which);
}

void nu_ctrl_set_life(struct nu_ctrl *c, struct nu_ctrl_proclet *e, enum nu_ctrl_life life)
{
	c->counts[e->life]--;
	c->counts[life]++;
	e->life = (uint8_t)life;
}

static struct nu_ctrl_node *booked_at(struct nu_ctrl *c, const struct nu_ctrl_proclet *e)
{
	return &c->nodes[e->life == NU_CTRL_NEW ? e->node : e->moving_to];
}

void nu_ctrl_book(struct nu_ctrl *c, struct nu_ctrl_proclet *e, uint64_t bytes)
{
	struct nu_ctrl_node *n = booked_at(c, e);

	e->booked = true;
	e->reserved_bytes = bytes > NU_CTRL_MIN_BYTES ? bytes : NU_CTRL_MIN_BYTES;
	n->reserved_bytes += e->reserved_bytes;
	n->pending++;
}

void nu_ctrl_unbook(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	struct nu_ctrl_node *n;

	if (!e->booked)
		return;
	n = booked_at(c, e);
	n->reserved_bytes -= e->reserved_bytes;
	n->pending--;
	e->booked = false;
	e->reserved_bytes = 0;
}

void nu_ctrl_leave(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	if (!(e->on_lists & 1u << NU_CTRL_AT))
		return;
	nu_ctrl_list_del(c, e, NU_CTRL_AT);
	if (e->life != NU_CTRL_NEW)
		c->nodes[e->node].live--;
}

/* ---- ends of a proclet ---- */

static bool held_by_any(const struct nu_ctrl *c, const struct nu_ctrl_proclet *e)
{
	for (unsigned i = 0; i < NU_CTRL_NODE_WORDS; i++)
		if (e->holders[i] & c->alive[i])
			return true;
	return false;
}

void nu_ctrl_settle(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	if (e->has_segment && held_by_any(c, e)) {
		if (!(e->on_lists & 1u << NU_CTRL_LIMBO)) {
			nu_ctrl_list_add(c, e, NU_CTRL_LIMBO);
			c->waiting++;
		}
		return;
	}
	if (e->on_lists & 1u << NU_CTRL_LIMBO) {
		nu_ctrl_list_del(c, e, NU_CTRL_LIMBO);
		c->waiting--;
	}
	if (e->has_segment && c->main_taken && nu_id_seg(e->id) == c->main_seg)
		c->main_taken = false;
	if (e->has_segment && nu_id_seg(e->id) != NU_SEG_MAIN)
		nu_segments_put(&c->segments, nu_id_seg(e->id), e->order);
	e->has_segment = false;
	if (e->life == NU_CTRL_GONE) {
		nu_ctrl_map_remove(&c->by_id, e->id);
		nu_ctrl_set_life(c, e, NU_CTRL_FREE);
		nu_ctrl_slab_put(&c->proclets, e->slot);
	}
}

/* Takes it off every list but the one of those that wait, and lets go of the move in flight. */
static void strip(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	nu_ctrl_unbook(c, e);
	nu_ctrl_leave(c, e);
	nu_ctrl_list_del(c, e, NU_CTRL_IN);
	nu_ctrl_list_del(c, e, NU_CTRL_AWAY);
	if (e->life == NU_CTRL_DOUBT)
		nu_ctrl_list_del(c, e, NU_CTRL_LIMBO);
	if (e->moving_to != NU_CTRL_NO_NODE16 && !e->dest_held)
		nu_ctrl_unhold(e, e->moving_to);
	e->moving_to = e->home = NU_CTRL_NO_NODE16;
}

void nu_ctrl_lose(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	strip(c, e);
	nu_ctrl_set_life(c, e, NU_CTRL_LOST);
	nu_ctrl_settle(c, e);
}

/* ---- the whole ---- */

int nu_ctrl_init(struct nu_ctrl *c, unsigned incarnation)
{
	int ret;

	memset(c, 0, sizeof(*c));
	if (incarnation > INCARNATION_MAX) {
		nu_err("controller: incarnation %u is above the limit of %u", incarnation, INCARNATION_MAX);
		return -EINVAL;
	}
	for (unsigned i = 0; i < NU_MAX_NODES; i++)
		for (unsigned k = 0; k < NU_CTRL_LIMBO; k++)
			c->nodes[i].heads[k] = NU_CTRL_NONE;
	c->doubt_head = c->wait_head = NU_CTRL_NONE;
	c->last_placed = NU_MAX_NODES - 1;
	c->first_generation = c->next_generation = ((uint64_t)incarnation << 32) + 1;
	nu_ctrl_slab_init(&c->proclets, sizeof(struct nu_ctrl_proclet));
	ret = nu_segments_init(&c->segments);
	return ret;
}

void nu_ctrl_fini(struct nu_ctrl *c)
{
	nu_segments_fini(&c->segments);
	nu_ctrl_map_fini(&c->by_id);
	nu_ctrl_slab_fini(&c->proclets);
}

unsigned nu_ctrl_incarnation(const struct nu_ctrl *c)
{
	return (unsigned)(c->next_generation >> 32);
}

/* ---- nodes ---- */

int nu_ctrl_node_join(struct nu_ctrl *c, unsigned node, unsigned cores, uint64_t mem_total)
{
	struct nu_ctrl_node *n;

	if (node >= NU_MAX_NODES) {
		nu_err("controller: node %u cannot join: the limit is %u nodes", node, NU_MAX_NODES);
		return -EINVAL;
	}
	n = &c->nodes[node];
	if (n->state)
		return n->state == NU_NODE_DEAD ? -EHOSTDOWN : -EEXIST;
	n->state = NU_NODE_UP;
	n->cores = cores;
	n->mem_total = mem_total;
	c->alive[node / 64] |= (uint64_t)1 << node % 64;
	if (node >= c->nnodes)
		c->nnodes = node + 1;
	return 0;
}

int nu_ctrl_node_report(struct nu_ctrl *c, unsigned node, uint64_t mem_used)
{
	int ret = nu_ctrl_node_status(c, node);

	if (ret)
		return ret;
	c->nodes[node].mem_used = mem_used;
	c->nodes[node].recent_bytes = 0;
	return 0;
}

/* Of a move between @e's node and its destination, one node has just died. */
static void doubt_or_lose(struct nu_ctrl *c, struct nu_ctrl_proclet *e, unsigned other)
{
	if (e->life != NU_CTRL_LIVE || other == NU_CTRL_NO_NODE16 || c->nodes[other].state == NU_NODE_DEAD) {
		nu_ctrl_lose(c, e);
		return;
	}
	nu_ctrl_set_life(c, e, NU_CTRL_DOUBT);
	nu_ctrl_list_add(c, e, NU_CTRL_LIMBO);
}

int nu_ctrl_node_dead(struct nu_ctrl *c, unsigned node)
{
	int ret = nu_ctrl_node_status(c, node);
	struct nu_ctrl_proclet *e;
	struct nu_ctrl_node *n;

	if (ret)
		return ret == -EHOSTDOWN ? 0 : ret;
	n = &c->nodes[node];
	n->state = NU_NODE_DEAD;
	c->alive[node / 64] &= ~((uint64_t)1 << node % 64);
	while (n->heads[NU_CTRL_AT] != NU_CTRL_NONE) {
		e = nu_ctrl_at(c, n->heads[NU_CTRL_AT]);
		nu_ctrl_leave(c, e);
		doubt_or_lose(c, e, e->moving_to);
	}
	while (n->heads[NU_CTRL_IN] != NU_CTRL_NONE) {
		e = nu_ctrl_at(c, n->heads[NU_CTRL_IN]);
		nu_ctrl_unbook(c, e);
		nu_ctrl_list_del(c, e, NU_CTRL_IN);
		doubt_or_lose(c, e, e->node);
	}
	while (n->heads[NU_CTRL_AWAY] != NU_CTRL_NONE) {
		e = nu_ctrl_at(c, n->heads[NU_CTRL_AWAY]);
		nu_ctrl_list_del(c, e, NU_CTRL_AWAY);
		e->home = NU_CTRL_NO_NODE16;
	}
	n->mem_used = n->recent_bytes = 0;
	/* It counts as having confirmed everything; settling takes some off this list. */
	for (uint32_t i = c->wait_head, next; i != NU_CTRL_NONE; i = next) {
		e = nu_ctrl_at(c, i);
		next = e->links[NU_CTRL_LIMBO].next;
		nu_ctrl_settle(c, e);
	}
	return 0;
}

int nu_ctrl_set_state(struct nu_ctrl *c, unsigned node, enum nu_node_state state)
{
	int ret = nu_ctrl_node_status(c, node);
	unsigned others = 0;

	if (ret)
		return ret;
	if (state != NU_NODE_UP && state != NU_NODE_DRAINING)
		return -EINVAL;
	for (unsigned i = 0; i < c->nnodes; i++)
		others += i != node && c->nodes[i].state == NU_NODE_UP;
	if (state == NU_NODE_DRAINING && !others)
		return -EINVAL;
	c->nodes[node].state = state;
	return 0;
}

unsigned nu_ctrl_nodes(const struct nu_ctrl *c, struct nu_node_info *infos, unsigned max)
{
	unsigned count = 0;

	for (unsigned i = 0; i < c->nnodes; i++) {
		const struct nu_ctrl_node *n = &c->nodes[i];

		if (!n->state)
			continue;
		if (count < max)
			infos[count] = (struct nu_node_info){
				.node = i,
				.state = n->state,
				.cores = n->cores,
				.proclets = n->live,
				.mem_total_bytes = n->mem_total,
				.mem_used_bytes = n->mem_used,
			};
		count++;
	}
	return count;
}

/* ---- the life of a proclet ---- */

/* Room for one more in the books, and a generation. */
static int reserve_one(struct nu_ctrl *c)
{
	int ret;

	if (c->next_generation >> NU_GEN_BITS) {
		nu_err("controller: all 2^%u generations of proclets are used up", NU_GEN_BITS);
		return -EOVERFLOW;
	}
	ret = nu_ctrl_slab_reserve(&c->proclets, 1);
	if (!ret)
		ret = nu_ctrl_map_reserve(&c->by_id, 1);
	if (ret)
		nu_err("controller: its heap has no memory for the record of proclet number %zu",
		       c->by_id.count + 1);
	return ret;
}

/* NEW at @node in segment @seg; room was reserved. */
static struct nu_ctrl_proclet *enter(struct nu_ctrl *c, uint32_t seg, unsigned order, unsigned node,
				     bool pinned, uint64_t bytes)
{
	uint32_t slot = nu_ctrl_slab_get(&c->proclets);
	struct nu_ctrl_proclet *e = nu_ctrl_at(c, slot);

	e->slot = slot;
	e->id = nu_id_make(seg, c->next_generation++);
	e->order = (uint8_t)order;
	e->has_segment = true;
	e->pinned = pinned;
	e->location = 1;
	e->node = (uint16_t)node;
	e->moving_to = e->home = NU_CTRL_NO_NODE16;
	e->bytes = bytes > NU_CTRL_MIN_BYTES ? bytes : NU_CTRL_MIN_BYTES;
	nu_ctrl_map_insert(&c->by_id, e->id, slot);
	/* An empty slot is not counted: there is no end of them. */
	c->counts[NU_CTRL_FREE]++;
	nu_ctrl_set_life(c, e, NU_CTRL_NEW);
	nu_ctrl_hold(e, node);
	nu_ctrl_list_add(c, e, NU_CTRL_AT);
	nu_ctrl_book(c, e, e->bytes);
	return e;
}

static int wanted_node(struct nu_ctrl *c, unsigned wanted, unsigned *node_p)
{
	int ret;

	if (wanted == NU_CTRL_NO_NODE)
		return nu_ctrl_pick(c, NU_CTRL_NO_NODE, 0, node_p);
	ret = nu_ctrl_node_status(c, wanted);
	if (ret)
		return ret;
	if (c->nodes[wanted].state != NU_NODE_UP)
		return -EBUSY;
	*node_p = wanted;
	return 0;
}

int nu_ctrl_proclet_new(struct nu_ctrl *c, uint64_t capacity_bytes, bool pinned, unsigned wanted,
			uint64_t bytes, uint64_t *id_p, unsigned *node_p)
{
	unsigned order, node;
	uint32_t seg;
	int ret = nu_segments_order(capacity_bytes, &order);

	if (!ret)
		ret = reserve_one(c);
	if (!ret)
		ret = wanted_node(c, wanted, &node);
	if (ret)
		return ret;
	ret = nu_segments_get(&c->segments, order, &seg);
	if (ret) {
		nu_warn("controller: no segment of %llu MiB is free: %u segments are in use, %llu of them "
			"freed "
			"ones that wait for nodes to confirm; of %llu MiB of segment space %llu are free in "
			"smaller pieces",
			1ull << order, nu_segments_used(&c->segments), (unsigned long long)c->waiting,
			(unsigned long long)c->segments.units, (unsigned long long)c->segments.free_units);
		return ret;
	}
	*id_p = enter(c, seg, order, node, pinned, bytes)->id;
	*node_p = node;
	return 0;
}

int nu_ctrl_proclet_main(struct nu_ctrl *c, unsigned node, uint64_t capacity_bytes, uint64_t *id_p)
{
	struct nu_ctrl_proclet *e;
	uint32_t seg = NU_SEG_MAIN;
	unsigned order;
	int ret = nu_segments_order(capacity_bytes, &order);

	if (!ret && c->main_taken)
		ret = -EEXIST;
	if (!ret)
		ret = wanted_node(c, node, &node);
	if (!ret)
		ret = reserve_one(c);
	if (!ret && (uint64_t)NU_SEG_UNIT_BYTES << order > NU_GIB) /* what lies at NU_SEG_MAIN */
		ret = nu_segments_get(&c->segments, order, &seg);
	if (ret)
		return ret;
	c->main_taken = true;
	c->main_seg = seg;
	e = enter(c, seg, order, node, false, 0);
	*id_p = e->id;
	return nu_ctrl_proclet_ready(c, e->id);
}

int nu_ctrl_proclet_asker(struct nu_ctrl *c, uint64_t id, uint64_t asker)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);

	if (!ret)
		e->asker = asker;
	return ret;
}

unsigned nu_ctrl_fresh(const struct nu_ctrl *c, struct nu_ctrl_fresh *fresh, unsigned max)
{
	unsigned count = 0;

	for (uint32_t slot = 0; slot < c->proclets.fresh && count < max && c->counts[NU_CTRL_NEW]; slot++) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, slot);

		if (e->life == NU_CTRL_NEW && e->asker)
			fresh[count++] =
				(struct nu_ctrl_fresh){.id = e->id, .asker = e->asker, .node = e->node};
	}
	return count;
}

int nu_ctrl_proclet_ready(struct nu_ctrl *c, uint64_t id)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);

	if (ret || e->life != NU_CTRL_NEW)
		return ret;
	c->nodes[e->node].recent_bytes += e->reserved_bytes;
	nu_ctrl_unbook(c, e);
	nu_ctrl_set_life(c, e, NU_CTRL_LIVE);
	c->nodes[e->node].live++;
	return 0;
}

int nu_ctrl_proclet_sized(struct nu_ctrl *c, uint64_t id, uint64_t bytes)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);

	if (!ret)
		e->bytes = bytes;
	return ret;
}

int nu_ctrl_locate(const struct nu_ctrl *c, uint64_t id, unsigned *node_p, uint64_t *location_p)
{
	struct nu_ctrl_proclet *e;
	unsigned node;
	int ret;

	if (unlikely(nu_id_seg(id) == NU_SEG_CTRL))
		return id == NU_ID_CTRL ? -EINVAL : -ESTALE;
	if (unlikely(nu_id_is_node(id, &node))) {
		ret = id == nu_id_of_node(node) ? nu_ctrl_node_status(c, node) : -ESTALE;
		if (ret)
			return ret == -EINVAL ? -ESTALE : ret;
		*node_p = node;
		*location_p = 1;
		return 0;
	}
	ret = nu_ctrl_lookup(c, id, &e);
	if (ret)
		return ret;
	if (unlikely(c->nodes[e->node].state == NU_NODE_DEAD))
		return -EAGAIN;
	*node_p = e->node;
	*location_p = e->location;
	return 0;
}

/* Ends the move that is recorded for @e, which @node says it has retired. */
static int free_in_move(struct nu_ctrl *c, struct nu_ctrl_proclet *e, unsigned node)
{
	if (node == e->moving_to) {
		nu_ctrl_move_done(c, e);
		return 0;
	}
	if (e->life != NU_CTRL_DOUBT)
		return -EBUSY;
	nu_ctrl_move_undone(c, e);
	return 0;
}

int nu_ctrl_proclet_free(struct nu_ctrl *c, uint64_t id, unsigned node)
{
	struct nu_ctrl_proclet *e = nu_ctrl_find(c, id);
	int ret;

	if (!e || e->life == NU_CTRL_GONE)
		return -ESTALE;
	if (node != e->node && node != e->moving_to)
		return -EINVAL;
	if (e->life != NU_CTRL_LOST) {
		ret = nu_ctrl_node_status(c, node);
		if (!ret && e->moving_to != NU_CTRL_NO_NODE16)
			ret = free_in_move(c, e, node);
		if (ret)
			return ret;
		strip(c, e);
		nu_ctrl_unhold(e, node);
	}
	nu_ctrl_set_life(c, e, NU_CTRL_GONE);
	nu_ctrl_settle(c, e);
	return 0;
}

int nu_ctrl_forgot(struct nu_ctrl *c, uint64_t id, unsigned node)
{
	struct nu_ctrl_proclet *e = nu_ctrl_find(c, id);
	int ret = nu_ctrl_node_status(c, node);

	if (!e || ret)
		return ret ? ret : -ESTALE;
	if (e->life != NU_CTRL_LOST && e->life != NU_CTRL_GONE && (node == e->node || node == e->moving_to))
		return -EBUSY;
	nu_ctrl_unhold(e, node);
	if (e->on_lists & 1u << NU_CTRL_LIMBO && e->life != NU_CTRL_DOUBT)
		nu_ctrl_settle(c, e);
	return 0;
}
