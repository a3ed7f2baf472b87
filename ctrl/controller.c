/* SPDX-License-Identifier: MIT */
/* The controller proclet: each method is one operation of the state machine, one at a time. */
#include "ctrl/controller.h"

#include <stdlib.h>
#include <string.h>

struct nu_controller {
	struct nu_mutex mutex;
	struct nu_ctrl ctrl;
};

NU_CLASS_DEFINE(nu_controller);

#define LIST_MAX 512u

int nu_controller_init(struct nu_controller *self, unsigned incarnation)
{
	return nu_ctrl_init(&self->ctrl, incarnation);
}

/* The body of a method: runs one operation under the mutex. */
#define OPERATION(self, answer, call)                                                                        \
	do {                                                                                                 \
		nu_mutex_lock(&(self)->mutex);                                                               \
		(answer).status = (call);                                                                    \
		nu_mutex_unlock(&(self)->mutex);                                                             \
	} while (0)

struct nu_ctrl_answer nu_controller_do_node_join(struct nu_controller *self, unsigned node, unsigned cores,
						 uint64_t mem)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_node_join(&self->ctrl, node, cores, mem));
	return a;
}

struct nu_ctrl_answer nu_controller_do_node_report(struct nu_controller *self, unsigned node, uint64_t used)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_node_report(&self->ctrl, node, used));
	return a;
}

struct nu_ctrl_answer nu_controller_do_node_dead(struct nu_controller *self, unsigned node)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_node_dead(&self->ctrl, node));
	return a;
}

struct nu_ctrl_answer nu_controller_do_set_state(struct nu_controller *self, unsigned node, unsigned state)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_set_state(&self->ctrl, node, (enum nu_node_state)state));
	return a;
}

struct nu_ctrl_answer nu_controller_do_proclet_new(struct nu_controller *self, uint64_t capacity, bool pinned,
						   unsigned wanted, uint64_t asker)
{
	struct nu_ctrl_answer a = {0};
	unsigned node = 0;

	nu_mutex_lock(&self->mutex);
	a.status = nu_ctrl_proclet_new(&self->ctrl, capacity, pinned, wanted, 0, &a.a, &node);
	if (!a.status)
		a.status = nu_ctrl_proclet_asker(&self->ctrl, a.a, asker);
	nu_mutex_unlock(&self->mutex);
	a.b = node;
	return a;
}

struct nu_ctrl_answer nu_controller_do_proclet_main(struct nu_controller *self, unsigned node,
						    uint64_t capacity)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_proclet_main(&self->ctrl, node, capacity, &a.a));
	return a;
}

struct nu_ctrl_answer nu_controller_do_ready(struct nu_controller *self, uint64_t id)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_proclet_ready(&self->ctrl, id));
	return a;
}

struct nu_ctrl_answer nu_controller_do_sized(struct nu_controller *self, uint64_t id, uint64_t bytes)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_proclet_sized(&self->ctrl, id, bytes));
	return a;
}

struct nu_ctrl_answer nu_controller_do_locate(struct nu_controller *self, uint64_t id)
{
	struct nu_ctrl_answer a = {0};
	unsigned node = 0;

	OPERATION(self, a, nu_ctrl_locate(&self->ctrl, id, &node, &a.b));
	a.a = node;
	return a;
}

struct nu_ctrl_holders nu_controller_do_free(struct nu_controller *self, uint64_t id, unsigned node)
{
	struct nu_ctrl_holders h = {0};
	struct nu_ctrl_proclet *p;

	nu_mutex_lock(&self->mutex);
	p = nu_ctrl_find(&self->ctrl, id);
	if (p)
		memcpy(h.nodes, p->holders, sizeof(h.nodes));
	h.status = nu_ctrl_proclet_free(&self->ctrl, id, node);
	nu_mutex_unlock(&self->mutex);
	if (node < NU_MAX_NODES)
		h.nodes[node / 64] &= ~((uint64_t)1 << node % 64);
	return h;
}

struct nu_ctrl_holders nu_controller_do_holders(struct nu_controller *self, uint64_t id)
{
	struct nu_ctrl_holders h = {0};

	OPERATION(self, h, nu_ctrl_holders(&self->ctrl, id, h.nodes));
	return h;
}

struct nu_ctrl_answer nu_controller_do_forgot(struct nu_controller *self, uint64_t id, unsigned node)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_forgot(&self->ctrl, id, node));
	return a;
}

struct nu_ctrl_answer nu_controller_do_move_begin(struct nu_controller *self, uint64_t id, unsigned to)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_move_begin(&self->ctrl, id, to, &a.a, &a.b));
	return a;
}

struct nu_ctrl_answer nu_controller_do_move_end(struct nu_controller *self, uint64_t id, unsigned at,
						uint64_t location, bool moved)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_move_end(&self->ctrl, id, at, location, moved));
	return a;
}

struct nu_ctrl_answer nu_controller_do_resolve(struct nu_controller *self, uint64_t id, unsigned node,
					       uint64_t location)
{
	struct nu_ctrl_answer a = {0};

	OPERATION(self, a, nu_ctrl_resolve(&self->ctrl, id, node, location));
	return a;
}

struct nu_ctrl_answer nu_controller_do_place(struct nu_controller *self, uint64_t id)
{
	struct nu_ctrl_answer a = {0};
	unsigned node = 0;

	OPERATION(self, a, nu_ctrl_place(&self->ctrl, id, &node));
	a.a = node;
	return a;
}

/* ---- lists ---- */

void nu_controller_do_doubts(struct nu_controller *self, struct nu_out *out)
{
	struct nu_ctrl_doubt doubts[64];
	uint64_t n;

	nu_mutex_lock(&self->mutex);
	n = nu_ctrl_doubts(&self->ctrl, doubts, 64);
	nu_mutex_unlock(&self->mutex);
	nu_out_bytes(out, doubts, (n < 64 ? n : 64) * sizeof(doubts[0]));
}

void nu_controller_do_fresh(struct nu_controller *self, struct nu_out *out)
{
	struct nu_ctrl_fresh fresh[64];
	unsigned n;

	nu_mutex_lock(&self->mutex);
	n = nu_ctrl_fresh(&self->ctrl, fresh, 64);
	nu_mutex_unlock(&self->mutex);
	nu_out_bytes(out, fresh, n * sizeof(fresh[0]));
}

void nu_controller_do_waiting(struct nu_controller *self, struct nu_out *out)
{
	uint64_t ids[64], n;

	nu_mutex_lock(&self->mutex);
	n = nu_ctrl_waiting(&self->ctrl, ids, 64);
	nu_mutex_unlock(&self->mutex);
	nu_out_bytes(out, ids, (n < 64 ? n : 64) * sizeof(ids[0]));
}

typedef int (*ids_fn)(const struct nu_ctrl *, unsigned, uint64_t, uint64_t *, unsigned, unsigned *);

static void give_ids(struct nu_controller *self, ids_fn fn, unsigned node, uint64_t after, unsigned max,
		     struct nu_out *out)
{
	uint64_t ids[LIST_MAX];
	unsigned n = 0;
	int ret;

	nu_mutex_lock(&self->mutex);
	ret = fn(&self->ctrl, node, after, ids, max < LIST_MAX ? max : LIST_MAX, &n);
	nu_mutex_unlock(&self->mutex);
	nu_out_bytes(out, ids, ret ? 0 : n * sizeof(ids[0]));
}

void nu_controller_do_victims(struct nu_controller *self, unsigned node, uint64_t after, unsigned max,
			      struct nu_out *out)
{
	give_ids(self, nu_ctrl_victims, node, after, max, out);
}

void nu_controller_do_away(struct nu_controller *self, unsigned node, uint64_t after, unsigned max,
			   struct nu_out *out)
{
	give_ids(self, nu_ctrl_away, node, after, max, out);
}

void nu_controller_do_nodes(struct nu_controller *self, struct nu_out *out)
{
	struct nu_node_info infos[NU_MAX_NODES];
	unsigned n;

	nu_mutex_lock(&self->mutex);
	n = nu_ctrl_nodes(&self->ctrl, infos, NU_MAX_NODES);
	nu_mutex_unlock(&self->mutex);
	nu_out_bytes(out, infos, n * sizeof(infos[0]));
}

void nu_controller_do_list(struct nu_controller *self, uint64_t cursor, unsigned max, struct nu_out *out)
{
	struct {
		uint64_t cursor;
		struct nu_ctrl_info infos[LIST_MAX / 2];
	} *page = malloc(sizeof(*page));
	unsigned n;

	if (!page)
		return;
	page->cursor = cursor;
	nu_mutex_lock(&self->mutex);
	n = nu_ctrl_list(&self->ctrl, &page->cursor, page->infos, max < LIST_MAX / 2 ? max : LIST_MAX / 2);
	nu_mutex_unlock(&self->mutex);
	nu_out_bytes(out, page, sizeof(page->cursor) + n * sizeof(page->infos[0]));
	free(page);
}
