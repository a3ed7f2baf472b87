/* SPDX-License-Identifier: MIT */
/*
 * The controller as a proclet: the state machine of state.h behind one mutex, an operation a method. What an operation
 * returns is in its answer; what the stub returns is the transport's.
 */
#pragma once

#include "ctrl/state.h"

struct nu_controller;

/* An operation's outcome: its return value and up to two outputs. */
NU_STRUCT(nu_ctrl_answer, val(int, status), val(uint64_t, a), val(uint64_t, b));
/* Who must forget a proclet that was freed: a bit a node. */
NU_STRUCT(nu_ctrl_holders, val(int, status), arr(uint64_t, nodes, NU_CTRL_NODE_WORDS));

NU_CLASS_DECLARE(nu_controller, val(unsigned, incarnation));
NU_METHOD(nu_controller, node_join, obj(nu_ctrl_answer), val(unsigned, node), val(unsigned, cores),
	  val(uint64_t, mem));
NU_METHOD(nu_controller, node_report, obj(nu_ctrl_answer), val(unsigned, node), val(uint64_t, used));
NU_METHOD(nu_controller, node_dead, obj(nu_ctrl_answer), val(unsigned, node));
NU_METHOD(nu_controller, set_state, obj(nu_ctrl_answer), val(unsigned, node), val(unsigned, state));
/* a: id, b: node */
NU_METHOD(nu_controller, proclet_new, obj(nu_ctrl_answer), val(uint64_t, capacity), val(bool, pinned),
	  val(unsigned, wanted), val(uint64_t, asker));
NU_METHOD(nu_controller, proclet_main, obj(nu_ctrl_answer), val(unsigned, node), val(uint64_t, capacity));
NU_METHOD(nu_controller, ready, obj(nu_ctrl_answer), val(uint64_t, id));
NU_METHOD(nu_controller, sized, obj(nu_ctrl_answer), val(uint64_t, id), val(uint64_t, bytes));
/* a: node, b: location number */
NU_METHOD(nu_controller, locate, obj(nu_ctrl_answer), val(uint64_t, id));
NU_METHOD(nu_controller, free, obj(nu_ctrl_holders), val(uint64_t, id), val(unsigned, node));
NU_METHOD(nu_controller, holders, obj(nu_ctrl_holders), val(uint64_t, id));
NU_METHOD(nu_controller, forgot, obj(nu_ctrl_answer), val(uint64_t, id), val(unsigned, node));
/* a: location number; status 1: it is there already */
NU_METHOD(nu_controller, move_begin, obj(nu_ctrl_answer), val(uint64_t, id), val(unsigned, to));
NU_METHOD(nu_controller, move_end, obj(nu_ctrl_answer), val(uint64_t, id), val(unsigned, at),
	  val(uint64_t, location), val(bool, moved));
NU_METHOD(nu_controller, resolve, obj(nu_ctrl_answer), val(uint64_t, id), val(unsigned, node),
	  val(uint64_t, location));
/* a: node */
NU_METHOD(nu_controller, place, obj(nu_ctrl_answer), val(uint64_t, id));
/* Arrays: of struct nu_ctrl_doubt, of struct nu_ctrl_fresh, of ids, of struct nu_node_info, of a cursor followed by struct nu_ctrl_info. */
NU_METHOD(nu_controller, doubts, bytes);
NU_METHOD(nu_controller, fresh, bytes);
NU_METHOD(nu_controller, waiting, bytes);
NU_METHOD(nu_controller, victims, bytes, val(unsigned, node), val(uint64_t, after), val(unsigned, max));
NU_METHOD(nu_controller, away, bytes, val(unsigned, node), val(uint64_t, after), val(unsigned, max));
NU_METHOD(nu_controller, nodes, bytes);
NU_METHOD(nu_controller, list, bytes, val(uint64_t, cursor), val(unsigned, max));
