/* SPDX-License-Identifier: MIT */
/* What the files of the controller's state share: lists, bookings, holders, and a proclet's ends. */
#pragma once

#include "ctrl/state.h"

/* The proclet's own node, destination, home and life say whose list is meant: change them after the del. */
void nu_ctrl_list_add(struct nu_ctrl *c, struct nu_ctrl_proclet *e, enum nu_ctrl_list which);
void nu_ctrl_list_del(struct nu_ctrl *c, struct nu_ctrl_proclet *e, enum nu_ctrl_list which);
void nu_ctrl_set_life(struct nu_ctrl *c, struct nu_ctrl_proclet *e, enum nu_ctrl_life life);
/* Memory and a place for an arrival at `moving_to`, or a creation at `node`. */
void nu_ctrl_book(struct nu_ctrl *c, struct nu_ctrl_proclet *e, uint64_t bytes);
void nu_ctrl_unbook(struct nu_ctrl *c, struct nu_ctrl_proclet *e);
/* It is no longer among those at its node. */
void nu_ctrl_leave(struct nu_ctrl *c, struct nu_ctrl_proclet *e);
/* It is lost with its node; all that the move in flight (if any) booked is given up. */
void nu_ctrl_lose(struct nu_ctrl *c, struct nu_ctrl_proclet *e);
/* GONE or LOST: gives the segment back if every holder has confirmed, else has it wait. A GONE one's slot ends. */
void nu_ctrl_settle(struct nu_ctrl *c, struct nu_ctrl_proclet *e);
/* The two ends of a move, in flight or in doubt. */
void nu_ctrl_move_done(struct nu_ctrl *c, struct nu_ctrl_proclet *e);
void nu_ctrl_move_undone(struct nu_ctrl *c, struct nu_ctrl_proclet *e);

static inline bool nu_ctrl_holds(const struct nu_ctrl_proclet *e, unsigned node)
{
	return e->holders[node / 64] >> node % 64 & 1;
}
static inline void nu_ctrl_hold(struct nu_ctrl_proclet *e, unsigned node)
{
	e->holders[node / 64] |= (uint64_t)1 << node % 64;
}
static inline void nu_ctrl_unhold(struct nu_ctrl_proclet *e, unsigned node)
{
	e->holders[node / 64] &= ~((uint64_t)1 << node % 64);
}
/* 0 for one that is NEW, LIVE or in DOUBT; -ESTALE, -EHOSTDOWN. */
static inline int nu_ctrl_lookup(const struct nu_ctrl *c, uint64_t id, struct nu_ctrl_proclet **e_p)
{
	struct nu_ctrl_proclet *e = nu_ctrl_find(c, id);

	if (!e || e->life == NU_CTRL_GONE)
		return -ESTALE;
	if (e->life == NU_CTRL_LOST)
		return -EHOSTDOWN;
	*e_p = e;
	return 0;
}
