/* SPDX-License-Identifier: MIT */
/*
 * Moves as the controller sees them: at most one in flight per proclet, recorded before the source does anything, so that
 * when either node dies it is known which nodes to ask.
 */
#include "ctrl/state_int.h"

int nu_ctrl_move_begin(struct nu_ctrl *c, uint64_t id, unsigned to, uint64_t *location_p, uint64_t *bytes_p)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);

	if (!ret)
		ret = nu_ctrl_node_status(c, to);
	if (ret)
		return ret;
	if (e->life != NU_CTRL_LIVE || e->moving_to != NU_CTRL_NO_NODE16)
		return -EBUSY;
	if (to == e->node)
		return 1;
	if (e->pinned)
		return -EPERM;
	if (c->nodes[to].state != NU_NODE_UP)
		return -EBUSY;
	e->moving_to = (uint16_t)to;
	e->dest_held = nu_ctrl_holds(e, to);
	nu_ctrl_hold(e, to);
	nu_ctrl_list_add(c, e, NU_CTRL_IN);
	nu_ctrl_book(c, e, e->bytes);
	*location_p = e->location + 1;
	*bytes_p = e->reserved_bytes;
	return 0;
}

static void end_flight(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	nu_ctrl_unbook(c, e);
	nu_ctrl_list_del(c, e, NU_CTRL_IN);
	if (e->life == NU_CTRL_DOUBT) {
		nu_ctrl_list_del(c, e, NU_CTRL_LIMBO);
		nu_ctrl_set_life(c, e, NU_CTRL_LIVE);
	}
	e->moving_to = NU_CTRL_NO_NODE16;
}

void nu_ctrl_move_undone(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	if (!e->dest_held)
		nu_ctrl_unhold(e, e->moving_to);
	end_flight(c, e);
}

void nu_ctrl_move_done(struct nu_ctrl *c, struct nu_ctrl_proclet *e)
{
	unsigned from = e->node, to = e->moving_to;

	c->nodes[to].recent_bytes += e->reserved_bytes;
	end_flight(c, e);
	nu_ctrl_leave(c, e);
	e->node = (uint16_t)to;
	e->location++;
	nu_ctrl_list_add(c, e, NU_CTRL_AT);
	c->nodes[to].live++;
	if (e->home == to) {
		nu_ctrl_list_del(c, e, NU_CTRL_AWAY);
		e->home = NU_CTRL_NO_NODE16;
	} else if (e->home == NU_CTRL_NO_NODE16 && c->nodes[from].state == NU_NODE_DRAINING) {
		e->home = (uint16_t)from;
		nu_ctrl_list_add(c, e, NU_CTRL_AWAY);
	}
}

int nu_ctrl_move_end(struct nu_ctrl *c, uint64_t id, unsigned at, uint64_t location, bool moved)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);
	bool here;

	if (ret)
		return ret;
	here = at == e->node && (location == e->location || (!moved && location == e->location + 1));
	if (e->moving_to == NU_CTRL_NO_NODE16)
		return here ? 0 : -ESTALE;
	if (moved && at == e->moving_to && location == e->location + 1) {
		if (c->nodes[at].state == NU_NODE_DEAD) {
			nu_ctrl_lose(c, e);
			return -EHOSTDOWN;
		}
		nu_ctrl_move_done(c, e);
		return 0;
	}
	if (!here)
		return -ESTALE;
	/* A second report of the move before this one says `moved`: it changes nothing. */
	if (moved)
		return 0;
	if (c->nodes[at].state == NU_NODE_DEAD) {
		nu_ctrl_lose(c, e);
		return -EHOSTDOWN;
	}
	nu_ctrl_move_undone(c, e);
	return 0;
}

uint64_t nu_ctrl_doubts(const struct nu_ctrl *c, struct nu_ctrl_doubt *doubts, unsigned max)
{
	unsigned count = 0;

	for (uint32_t i = c->doubt_head; i != NU_CTRL_NONE && count < max; count++) {
		const struct nu_ctrl_proclet *e = nu_ctrl_at(c, i);

		doubts[count] = (struct nu_ctrl_doubt){
			.id = e->id,
			.location = e->location,
			.from = e->node,
			.to = e->moving_to,
			.from_alive = c->nodes[e->node].state != NU_NODE_DEAD,
		};
		i = e->links[NU_CTRL_LIMBO].next;
	}
	return c->counts[NU_CTRL_DOUBT];
}

int nu_ctrl_resolve(struct nu_ctrl *c, uint64_t id, unsigned node, uint64_t location)
{
	struct nu_ctrl_proclet *e;
	int ret = nu_ctrl_lookup(c, id, &e);

	if (ret == -EHOSTDOWN && node == NU_CTRL_NO_NODE)
		return 0;
	if (!ret && node != NU_CTRL_NO_NODE)
		ret = nu_ctrl_node_status(c, node);
	if (ret)
		return ret;
	if (e->life != NU_CTRL_DOUBT)
		return node == e->node && location == e->location ? 0 : -EINVAL;
	if (node == NU_CTRL_NO_NODE) {
		nu_ctrl_lose(c, e);
		return 0;
	}
	if (node != e->node && node != e->moving_to)
		return -EINVAL;
	if (location != e->location + (node == e->moving_to))
		return -ESTALE;
	if (node == e->moving_to)
		nu_ctrl_move_done(c, e);
	else
		nu_ctrl_move_undone(c, e);
	return 0;
}
