/* SPDX-License-Identifier: MIT */
/* The way to the controller: typed calls whose two outcomes, the transport's and the operation's, become one. */
#include "ctrl/controller.h"
#include "ctrl/ctrl.h"

#include <stdlib.h>
#include <string.h>

#define ctrl ((struct nu_controller_ref){{NU_ID_CTRL}})

static int outcome(int err, const struct nu_ctrl_answer *a)
{
	return err ? err : a->status;
}

int nu_controller_start(void)
{
	const struct nu_class *cls = &nu_controller_class;
	struct {
		unsigned incarnation;
	} args = {0};
	struct nu_proclet *p;
	int status = 0;
	int ret = nu_instance_make(NU_ID_CTRL, cls, NU_SEG_DEFAULT_BYTES, true, 0, &p);

	if (!ret)
		ret = nu_call((struct nu_ref){NU_ID_CTRL}, cls->init, &args, &status);
	return ret ? ret : status;
}

int nu_client_new(const struct nu_options *o, unsigned node, struct nu_place *place_p)
{
	struct nu_ctrl_answer a;
	int ret = outcome(nu_controller_proclet_new(ctrl, o->capacity_bytes, o->pinned, node,
						    nu_thread_self()->proclet_id, &a),
			  &a);

	if (!ret)
		*place_p = (struct nu_place){a.a, (unsigned)a.b};
	return ret;
}

int nu_client_main(uint64_t capacity_bytes, uint64_t *id_p)
{
	struct nu_ctrl_answer a;
	int ret = outcome(nu_controller_proclet_main(ctrl, 0, capacity_bytes, &a), &a);

	if (!ret)
		*id_p = a.a;
	return ret;
}

int nu_client_locate(uint64_t id, unsigned *node_p, uint64_t *location_p)
{
	struct nu_ctrl_answer a;
	int ret;

	/* -EAGAIN: one of a move's nodes has died and the other has not been asked yet. */
	for (unsigned tries = 0; tries < 2000; tries++) {
		ret = outcome(nu_controller_locate(ctrl, id, &a), &a);
		if (ret != -EAGAIN)
			break;
		nu_sleep_us(1000);
	}
	if (!ret) {
		*node_p = (unsigned)a.a;
		*location_p = a.b;
	}
	return ret;
}

int nu_client_ready(uint64_t id)
{
	struct nu_ctrl_answer a;
	unsigned tries = 0;
	int ret;

	do
		ret = outcome(nu_controller_ready(ctrl, id, &a), &a);
	while (nu_rpc_again(ret, &tries));
	return ret;
}

/* Notes elsewhere of where it went: gone before the segment is used again. */
static void forget_at(uint64_t id, const struct nu_ctrl_holders *h)
{
	struct nu_ctrl_answer a;

	for (unsigned n = 0; n < nu_node.count; n++) {
		unsigned tries = 0;
		int err;

		if (!(h->nodes[n / 64] >> n % 64 & 1))
			continue;
		while (nu_rpc_again(err = nu_service_forget(n, id), &tries))
			;
		for (tries = 0;
		     !err && nu_rpc_again(outcome(nu_controller_forgot(ctrl, id, n, &a), &a), &tries);)
			;
	}
}

int nu_client_free(uint64_t id, unsigned node)
{
	struct nu_ctrl_holders h;
	unsigned tries = 0;
	int ret;

	do {
		ret = nu_controller_free(ctrl, id, node, &h);
		if (!ret)
			ret = h.status;
	} while (nu_rpc_again(ret, &tries));
	if (!ret)
		forget_at(id, &h);
	return ret;
}

void nu_client_forget(uint64_t id)
{
	struct nu_ctrl_holders h;

	if (!nu_controller_holders(ctrl, id, &h) && !h.status)
		forget_at(id, &h);
}

int nu_client_move_begin(uint64_t id, unsigned to, uint64_t *location_p)
{
	struct nu_ctrl_answer a;
	int ret = outcome(nu_controller_move_begin(ctrl, id, to, &a), &a);

	if (!ret)
		*location_p = a.a;
	return ret;
}

int nu_client_move_end(uint64_t id, unsigned at, uint64_t location, bool moved)
{
	struct nu_ctrl_answer a;
	unsigned tries = 0;
	int ret;

	do
		ret = outcome(nu_controller_move_end(ctrl, id, at, location, moved, &a), &a);
	while (nu_rpc_again(ret, &tries));
	return ret;
}

int nu_client_join(unsigned node, unsigned cores, uint64_t mem_bytes)
{
	struct nu_ctrl_answer a;

	return outcome(nu_controller_node_join(ctrl, node, cores, mem_bytes, &a), &a);
}

int nu_client_report(unsigned node, uint64_t used_bytes)
{
	struct nu_ctrl_answer a;

	return outcome(nu_controller_node_report(ctrl, node, used_bytes, &a), &a);
}

int nu_client_node_dead(unsigned node)
{
	struct nu_ctrl_answer a;
	unsigned tries = 0;
	int ret;

	do
		ret = outcome(nu_controller_node_dead(ctrl, node, &a), &a);
	while (nu_rpc_again(ret, &tries));
	return ret;
}

int nu_client_resolve(uint64_t id, unsigned node, uint64_t location)
{
	struct nu_ctrl_answer a;

	return outcome(nu_controller_resolve(ctrl, id, node, location, &a), &a);
}

int nu_client_set_state(unsigned node, enum nu_node_state state)
{
	struct nu_ctrl_answer a;

	return outcome(nu_controller_set_state(ctrl, node, state, &a), &a);
}

int nu_client_place(uint64_t id, unsigned *node_p)
{
	struct nu_ctrl_answer a;
	int ret = outcome(nu_controller_place(ctrl, id, &a), &a);

	if (!ret)
		*node_p = (unsigned)a.a;
	return ret;
}

/* ---- lists: arrays that the answer carried as bytes. The runtime's threads get them from libc, others from their heap. */

/* Copies out at most @max items of @item_bytes; frees the answer. Return: how many there were, at most @max. */
static int take(int err, struct nu_bytes b, size_t skip, size_t item_bytes, void *items, unsigned max)
{
	size_t n;

	if (err)
		return err;
	n = b.len_bytes >= skip ? (b.len_bytes - skip) / item_bytes : 0;
	if (n > max)
		n = max;
	if (n)
		memcpy(items, (const char *)b.data + skip, n * item_bytes);
	nu_proclet_free(nu_thread_self()->proclet, (void *)b.data);
	return (int)n;
}

int nu_client_victims(unsigned node, uint64_t after, uint64_t *ids, unsigned max)
{
	struct nu_bytes b = {0};

	return take(nu_controller_victims(ctrl, node, after, max, &b), b, 0, sizeof(*ids), ids, max);
}

int nu_client_away(unsigned node, uint64_t after, uint64_t *ids, unsigned max)
{
	struct nu_bytes b = {0};

	return take(nu_controller_away(ctrl, node, after, max, &b), b, 0, sizeof(*ids), ids, max);
}

int nu_client_doubts(struct nu_ctrl_doubt *doubts, unsigned max)
{
	struct nu_bytes b = {0};

	return take(nu_controller_doubts(ctrl, &b), b, 0, sizeof(*doubts), doubts, max);
}

int nu_client_fresh(struct nu_ctrl_fresh *fresh, unsigned max)
{
	struct nu_bytes b = {0};

	return take(nu_controller_fresh(ctrl, &b), b, 0, sizeof(*fresh), fresh, max);
}

int nu_client_waiting(uint64_t *ids, unsigned max)
{
	struct nu_bytes b = {0};

	return take(nu_controller_waiting(ctrl, &b), b, 0, sizeof(*ids), ids, max);
}

int nu_client_nodes(struct nu_node_info *infos, unsigned max)
{
	struct nu_bytes b = {0};

	return take(nu_controller_nodes(ctrl, &b), b, 0, sizeof(*infos), infos, max);
}

int nu_client_list(uint64_t *cursor, struct nu_ctrl_info *infos, unsigned max)
{
	struct nu_bytes b = {0};
	int err = nu_controller_list(ctrl, *cursor, max, &b);

	if (!err && b.len_bytes < sizeof(*cursor))
		err = -ENOMEM;
	if (!err)
		memcpy(cursor, b.data, sizeof(*cursor));
	return take(err, b, sizeof(*cursor), sizeof(*infos), infos, max);
}
