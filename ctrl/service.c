/* SPDX-License-Identifier: MIT */
/* What a node does for others beside moves: internal methods of its own proclet; stacks that come home; counters. */
#include "core/fault.h"
#include "ctrl/ctrl.h"

#include <string.h>

#define CLEAR_US    100u
#define CLEAR_TRIES 20000u

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

struct word_args {
	uint64_t word;
};

static int node_call(unsigned node, const struct nu_method *m, uint64_t word, void *result)
{
	struct word_args a = {word};

	return nu_call((struct nu_ref){nu_id_of_node(node)}, m, &a, result);
}

/* ---- forget: a proclet has been freed; drop the note where it went ---- */

/* 0: nothing of it is here any more; -EBUSY: somebody clears it away just now; else it lives here. */
static int forget(uint64_t id)
{
	struct nu_proclet *p = nu_proclet_lookup(id);
	bool note = false;
	int ret = 0;

	nu_route_forget(id);
	if (!p)
		return 0;
	nu_lock_acquire(&p->lock);
	if (p->id != id)
		ret = 0;
	else if (p->move_claimed || p->arriving_busy || p->state == NU_PROCLET_ARRIVING)
		ret = -EBUSY;
	else if (p->state == NU_PROCLET_MOVED)
		note = true;
	else if (p->state != NU_PROCLET_NONE)
		ret = -EEXIST;
	if (note)
		p->state = NU_PROCLET_NONE;
	nu_lock_release(&p->lock);
	if (note)
		nu_proclet_leave(p);
	return ret;
}

static void forget_run(void *self, void *args, void *result, struct nu_out *out)
{
	uint64_t id = ((struct word_args *)args)->word;
	int ret = forget(id);

	for (unsigned i = 0; ret == -EBUSY && i < CLEAR_TRIES; i++) {
		nu_sleep_us(CLEAR_US);
		ret = forget(id);
	}
	*(int *)result = ret;
}
NODE_METHOD(forget_method, "forget", forget_run, struct word_args, NU_RESULT_FIXED, sizeof(int));

int nu_service_forget(unsigned node, uint64_t id)
{
	int ret = 0, err = node_call(node, &forget_method, id, &ret);

	return err ? err : ret;
}

/* ---- counters ---- */

static void count_one(struct nu_proclet *p, void *arg)
{
	struct nu_stats *s = arg;

	nu_lock_acquire(&p->lock); /* its heap may just be going */
	if (p->head && p->state != NU_PROCLET_MOVED) {
		s->proclets_now++;
		s->heap_bytes_now += __atomic_load_n(&p->mapped_bytes, __ATOMIC_RELAXED);
	}
	nu_lock_release(&p->lock);
}

static void stats_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct nu_stats *s = result;
	struct nu_pool_stats pool;

	nu_pool_stats(&pool);
	*s = (struct nu_stats){
		.calls_local = nu_stat_sum(NU_STAT_CALLS_LOCAL),
		.calls_sent = nu_stat_sum(NU_STAT_CALLS_SENT),
		.calls_served = nu_stat_sum(NU_STAT_CALLS_SERVED),
		.calls_forwarded = nu_stat_sum(NU_STAT_CALLS_FORWARDED),
		.calls_held = nu_stat_sum(NU_STAT_CALLS_HELD),
		.replies_sent = nu_stat_sum(NU_STAT_REPLIES_SENT),
		.bytes_sent = nu_stat_sum(NU_STAT_BYTES_SENT),
		.batches_sent = nu_stat_sum(NU_STAT_BATCHES_SENT),
		.nudges_sent = nu_stat_sum(NU_STAT_NUDGES_SENT),
		.threads_spawned = nu_stat_sum(NU_STAT_THREADS_SPAWNED),
		.switches = nu_stat_sum(NU_STAT_SWITCHES),
		.steals = nu_stat_sum(NU_STAT_STEALS),
		.preemptions = nu_stat_sum(NU_STAT_PREEMPTIONS),
		.proclets_created = nu_stat_sum(NU_STAT_PROCLETS_CREATED),
		.proclets_freed = nu_stat_sum(NU_STAT_PROCLETS_FREED),
		.moves_in = nu_stat_sum(NU_STAT_MOVES_IN),
		.moves_out = nu_stat_sum(NU_STAT_MOVES_OUT),
		.moves_undone = nu_stat_sum(NU_STAT_MOVES_UNDONE),
		.move_bytes = nu_stat_sum(NU_STAT_MOVE_BYTES),
		.read_bytes_cma = nu_stat_sum(NU_STAT_READ_BYTES_CMA),
		.read_bytes_verbs = nu_stat_sum(NU_STAT_READ_BYTES_VERBS),
		.read_bytes_am = nu_stat_sum(NU_STAT_READ_BYTES_AM),
		.pool_bytes_now = pool.used_bytes,
		.bad_messages = nu_stat_sum(NU_STAT_BAD_MESSAGES),
		.stale_calls = nu_stat_sum(NU_STAT_STALE_CALLS),
	};
	nu_proclet_for_each(count_one, s);
	nu_blackout_read(s);
	for (unsigned i = 0; i < NU_STATS_PAUSES; i++)
		s->pauses[i] = nu_stat_sum(NU_STAT_PAUSE_RUNNING + i);
}
NODE_METHOD(stats_method, "stats", stats_run, struct word_args, NU_RESULT_FIXED, sizeof(struct nu_stats));

int nu_service_stats(unsigned node, struct nu_stats *s)
{
	return node_call(node, &stats_method, 0, s);
}

NU_API int nu_stats(unsigned node, struct nu_stats *stats_p)
{
	if (node >= nu_node.count || !stats_p)
		return -EINVAL;
	return nu_service_stats(node, stats_p);
}

/* ---- nodes ---- */

NU_API int nu_nodes(struct nu_node_info *infos, unsigned max)
{
	return infos || !max ? nu_client_nodes(infos, max) : -EINVAL;
}

/* Moves what @list names to where @to says; returns how many moved, *full_p set if one found no room. */
static unsigned move_all(unsigned node, int (*list)(unsigned, uint64_t, uint64_t *, unsigned), bool back,
			 int *err_p)
{
	unsigned moved = 0;
	uint64_t ids[64], after = 0;
	int n;

	do {
		n = list(node, after, ids, 64);
		for (int i = 0; i < n; i++) {
			unsigned to = node;
			int ret = back ? 0 : nu_client_place(ids[i], &to);

			if (!ret)
				ret = nu_fault(NU_FAULT_DRAIN_PLACED);
			if (!ret)
				ret = nu_migrate((struct nu_ref){ids[i]}, to);
			(void)nu_fault(NU_FAULT_DRAIN_MOVED);
			if (!ret)
				moved++;
			else if (ret != -ESTALE && ret != -EPERM) /* freed meanwhile; pinned ones stay */
				*err_p = ret;
			after = ids[i];
		}
	} while (n == 64);
	return moved;
}

NU_API int nu_node_drain(unsigned node, unsigned *moved_p)
{
	unsigned moved = 0;
	int ret = nu_client_set_state(node, NU_NODE_DRAINING), err = 0;

	if (ret)
		return ret;
	(void)nu_fault(NU_FAULT_DRAIN_BEGUN);
	/* A second look: what was busy, or was created just before nothing more was placed there. */
	for (unsigned round = 0; round < 8; round++) {
		unsigned n;

		err = 0;
		n = move_all(node, nu_client_victims, false, &err);
		moved += n;
		if (!n && !err)
			break;
	}
	if (moved_p)
		*moved_p = moved;
	return err;
}

NU_API int nu_node_restore(unsigned node, unsigned *moved_p)
{
	int ret = nu_client_set_state(node, NU_NODE_UP), err = 0;
	unsigned moved;

	if (ret)
		return ret;
	moved = move_all(node, nu_client_away, true, &err);
	if (moved_p)
		*moved_p = moved;
	return err;
}
