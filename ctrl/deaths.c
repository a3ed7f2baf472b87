/* SPDX-License-Identifier: MIT */
/*
 * Deaths. The launcher tells every node. Each looks after what it shared with the dead one; node 0 tells the controller,
 * settles what that leaves in doubt, then has every node settle its calls and references, and when all have heard of the
 * death, look for what went away with it.
 */
#include "ctrl/ctrl.h"

#include <stdlib.h>
#include <time.h>

#define SPAWN_RETRY_NS 5000000
#define SPAWN_TRIES    1000u
#define RETRY_US       1000u
#define ARRIVAL_TRIES  10000u
#define LIST	       64

#define NODE_METHOD(sym, text, fn, args_type, kind, bytes)                                                   \
	__attribute__((section("nu_methods"), used)) static const struct nu_method sym = {                   \
		.class_name = "node",                                                                        \
		.name = text,                                                                                \
		.run = fn,                                                                                   \
		.args_bytes = sizeof(args_type),                                                             \
		.result_bytes = bytes,                                                                       \
		.result_kind = kind,                                                                         \
		.magic = NU_METHOD_MAGIC,                                                                    \
		.cls = &nu_node_class,                                                                       \
	}

static int node_call(unsigned node, const struct nu_method *m, const void *args, void *result)
{
	return nu_call((struct nu_ref){nu_id_of_node(node)}, m, args, result);
}

static bool is_dead(uint64_t node)
{
	return node >= nu_node.count || atomic_load(&nu_node.dead[node]);
}

/* ---- on each node ---- */

/* Stacks of ours that lost proclets had. */
static void take_stacks_back(void)
{
	uint64_t proclet, last = 0;
	size_t cursor = 0;

	while (nu_stacks_next_lent(&cursor, &proclet)) {
		uint64_t location;
		unsigned node;

		/* Neighbours went with the same proclet, mostly. */
		if (proclet != last && nu_client_locate(proclet, &node, &location) == -EHOSTDOWN)
			nu_stacks_take_back(proclet);
		last = proclet;
	}
}

struct died_args {
	uint64_t dead, done; /* done: 0: settle; else look, after so many deaths */
};

static void died_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct died_args *a = args;

	if (a->dead >= nu_node.count || a->dead == nu_node.self)
		return;
	if (a->done) {
		nu_lost_look(a->done);
		return;
	}
	nu_death_note((unsigned)a->dead);
	nu_move_node_dead((unsigned)a->dead);
	nu_lost_settle();
	take_stacks_back();
}
NODE_METHOD(died_method, "died", died_run, struct died_args, NU_RESULT_NONE, 0);

struct holds_args {
	uint64_t id, dead;
};

static bool location_of(uint64_t id, int64_t *location_p)
{
	struct nu_proclet *p = nu_proclet_lookup(id);
	bool arriving = false;

	*location_p = -1;
	if (!p)
		return true;
	nu_lock_acquire(&p->lock);
	if (p->id == id) {
		arriving = p->state == NU_PROCLET_ARRIVING;
		if (p->head && (p->state == NU_PROCLET_PRESENT || p->state == NU_PROCLET_MOVING ||
				p->state == NU_PROCLET_DYING))
			*location_p = (int64_t)p->head->location;
	}
	nu_lock_release(&p->lock);
	return !arriving;
}

/* Where a move was in flight: the answer is final, since from here on the dead node's part in it is over. */
static void holds_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct holds_args *a = args;

	*(int64_t *)result = -1;
	if (a->dead >= nu_node.count || a->dead == nu_node.self)
		return;
	nu_death_note((unsigned)a->dead);
	nu_move_node_dead((unsigned)a->dead);
	/* One that is being pulled just now may have all of it already. */
	for (unsigned i = 0; !location_of(a->id, result) && i < ARRIVAL_TRIES; i++)
		nu_sleep_us(RETRY_US);
}
NODE_METHOD(holds_method, "holds", holds_run, struct holds_args, NU_RESULT_FIXED, sizeof(int64_t));

/* ---- at node 0: moves in doubt ---- */

/* A move was in flight when one of its nodes died; the other knows how far it had come. False: ask again. */
static bool resolve(const struct nu_ctrl_doubt *d)
{
	unsigned alive = d->from_alive ? d->from : d->to;
	struct holds_args a = {d->id, d->from_alive ? d->to : d->from};
	int64_t location = -1;
	int err;

	if (is_dead(alive))
		return true; /* lost, when the controller hears of that */
	err = node_call(alive, &holds_method, &a, &location);
	if (!err)
		err = nu_client_resolve(d->id, location < 0 ? NU_CTRL_NO_NODE : alive,
					location < 0 ? d->location : (uint64_t)location);
	if (err && err != -ESTALE && err != -EHOSTDOWN && err != -EINVAL)
		nu_warn("proclet %#lx is in doubt still: %s", (unsigned long)d->id, nu_strerror(err));
	return !err || is_dead(alive);
}

static void resolve_doubts(void)
{
	struct nu_ctrl_doubt doubts[LIST];
	bool again;

	do {
		int n = nu_client_doubts(doubts, LIST);

		again = n == LIST || n == -ENOMEM;
		for (int i = 0; i < n; i++)
			again |= !resolve(&doubts[i]);
		if (again)
			nu_sleep_us(RETRY_US);
	} while (again);
}

/* ---- at node 0: creations whose asker was lost ---- */

static void end_creation(const struct nu_ctrl_fresh *f, unsigned dead)
{
	struct holds_args a = {f->id, dead};
	int64_t location = -1;

	if (!nu_ref_is_lost(f->asker))
		return;
	/* If it has been made there, it ends there: its only holder is gone. */
	if (!is_dead(f->node) && (node_call(f->node, &holds_method, &a, &location) || location >= 0))
		return;
	(void)nu_client_free(f->id, f->node);
}

static void end_creations(unsigned dead)
{
	struct nu_ctrl_fresh fresh[LIST];
	int n = nu_client_fresh(fresh, LIST);

	for (int i = 0; i < n; i++)
		end_creation(&fresh[i], dead);
}

/* ---- at node 0: notes of what is lost ---- */

static void forget_lost(void)
{
	uint64_t ids[LIST], before = 0;
	int n;

	do {
		n = nu_client_waiting(ids, LIST);
		if (n <= 0 || ids[0] == before)
			return; /* somebody else's, who is at it */
		before = ids[0];
		for (int i = 0; i < n; i++)
			nu_client_forget(ids[i]);
	} while (n == LIST);
}

/* ---- at node 0: everybody is told ---- */

struct telling {
	struct died_args args;
	unsigned node;
	struct nu_waitgroup *all;
};

static void tell_body(void *arg)
{
	struct telling *t = arg;
	struct nu_waitgroup *all = t->all;
	int err;

	do {
		err = node_call(t->node, &died_method, &t->args, NULL);
		if (err == -ENOMEM)
			nu_sleep_us(RETRY_US);
	} while (err == -ENOMEM);
	free(t);
	nu_waitgroup_done(all); /* if that node has died too, others hear of it */
}

static void tell_all(unsigned dead, uint64_t done)
{
	struct nu_waitgroup all = {0};

	for (unsigned n = 0; n < nu_node.count; n++) {
		struct telling *t = is_dead(n) ? NULL : malloc(sizeof(*t));

		if (!t)
			continue;
		*t = (struct telling){{dead, done}, n, &all};
		nu_waitgroup_add(&all, 1);
		if (nu_node_spawn(tell_body, t))
			tell_body(t);
	}
	nu_waitgroup_wait(&all);
}

static void death_body(void *arg)
{
	static struct nu_mutex one_at_a_time;
	static uint64_t done;
	unsigned node = (unsigned)(uintptr_t)arg;

	nu_move_node_dead(node);
	if (nu_node.self != 0)
		return;
	while (nu_client_node_dead(node) == -ENOMEM)
		nu_sleep_us(RETRY_US);
	resolve_doubts(); /* at once: what is still done for another death may wait for these */
	nu_mutex_lock(&one_at_a_time);
	end_creations(node);
	tell_all(node, 0);
	tell_all(node, ++done);
	forget_lost();
	nu_mutex_unlock(&one_at_a_time);
}

void nu_death_note(unsigned node)
{
	unsigned tries = 0;
	int err;

	if (node >= nu_node.count || node == nu_node.self || atomic_exchange(&nu_node.dead[node], true))
		return;
	atomic_store(&nu_node.any_dead, true);
	nu_warn("node %u has died", node);
	nu_wire_peer_dead(node);
	nu_calls_node_dead(node);
	/* Somebody may end and leave a stack; a death that is handled late is better than one that is not. */
	while ((err = nu_node_spawn(death_body, (void *)(uintptr_t)node)) && tries++ < SPAWN_TRIES)
		nanosleep(&(struct timespec){.tv_nsec = SPAWN_RETRY_NS}, NULL);
	if (err)
		nu_err("no thread to handle the death of node %u", node);
}
