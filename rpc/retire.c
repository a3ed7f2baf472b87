/* SPDX-License-Identifier: MIT */
/*
 * Proclets whose last reference has gone queue here for the few threads of the node that end them. One each would take a
 * stack and a mapping for every proclet that is freed at once, which is just when there may be none left.
 */
#include "rpc/rpc_int.h"

#define REAPERS	 16
#define WATCH_NS (20ul * 1000 * 1000)

static struct {
	struct nu_lock lock;
	struct nu_proclet *first, *last; /* by next_free, which is theirs until they leave the table */
	unsigned reapers;
	uint64_t begun, begun_at_look;
	bool watched;
} queue;

static struct nu_proclet *take(void)
{
	struct nu_proclet *p;

	nu_lock_acquire(&queue.lock);
	p = queue.first;
	if (p) {
		queue.first = p->next_free;
		queue.begun++;
	} else {
		queue.reapers--;
	}
	nu_lock_release(&queue.lock);
	return p;
}

static void reaper_body(void *arg)
{
	struct nu_proclet *p;

	while ((p = take()))
		nu_rpc_ops.retire(p);
}

/* One more reaper; the caller has counted it. */
static void add_reaper(void)
{
	if (!nu_node_spawn(reaper_body, NULL))
		return;
	nu_lock_acquire(&queue.lock);
	queue.reapers--;
	nu_lock_release(&queue.lock);
}

static void watch(void *arg);

static void rearm(void)
{
	if (nu_timer_call(WATCH_NS, watch, NULL)) {
		nu_lock_acquire(&queue.lock);
		queue.watched = false; /* the next that comes to the queue tries again */
		nu_lock_release(&queue.lock);
	}
}

/* Destructors may wait, even for the end of one that is still queued; and there may have been no stack for a reaper. */
static void watch(void *arg)
{
	bool more, stuck;

	nu_lock_acquire(&queue.lock);
	more = queue.first;
	stuck = more && queue.begun == queue.begun_at_look;
	queue.begun_at_look = queue.begun;
	queue.watched = more;
	queue.reapers += stuck;
	nu_lock_release(&queue.lock);
	if (stuck)
		add_reaper();
	if (more)
		rearm();
}

void nu_rpc_retire(struct nu_proclet *p)
{
	bool add, arm;

	nu_lock_acquire(&queue.lock);
	p->next_free = NULL;
	if (queue.first)
		queue.last->next_free = p;
	else
		queue.first = p;
	queue.last = p;
	add = queue.reapers < REAPERS;
	queue.reapers += add;
	arm = !queue.watched;
	queue.watched = true;
	nu_lock_release(&queue.lock);
	if (add)
		add_reaper();
	if (arm)
		rearm();
}
