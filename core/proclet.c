/* SPDX-License-Identifier: MIT */
/* The memory under a proclet: extents of the pool, in a row from the segment's base. */
#include "core/core.h"

/* Counters look without a lock; who offers extents knows those that it covers to be there. */
static void set_mapped(struct nu_proclet *p, size_t len_bytes)
{
	__atomic_store_n(&p->mapped_bytes, len_bytes, __ATOMIC_RELEASE);
}

static void *base_of(const struct nu_proclet *p)
{
	return nu_seg_addr(nu_id_seg(p->id));
}

#define STEP_PART	128u
#define ONE_PIECE_BYTES NU_MIB
#define TABLE_BYTES	(2 * NU_MIB) /* what a page table covers */

/* Room for one more at the end of the row, or NULL. */
static struct nu_extent *next_extent(struct nu_proclet *p)
{
	static atomic_ulong said;

	if (p->nextents < NU_EXTENTS_MAX)
		return &p->extents[p->nextents];
	/* Once for each, as long as no other comes between: its program may ask again and again. */
	if (atomic_exchange_explicit(&said, p->id, memory_order_relaxed) != p->id)
		nu_err("proclet %#lx: its heap is in %u pieces already, the most there can be",
		       (unsigned long)p->id, NU_EXTENTS_MAX);
	return NULL;
}

/*
 * How long the next extent is, of which @left bytes or more are wanted. Growing: one that holds all, so that a heap which
 * doubles has few of them. Arriving: powers of two from the largest down.
 */
static size_t piece_bytes(size_t left, bool growing, size_t room)
{
	size_t piece = NU_EXTENT_MIN_BYTES;

	while (piece * 2 <= left)
		piece *= 2;
	/* A small one in a single piece: each costs a system call while the proclet stands still. */
	if (!growing && piece < left && left <= ONE_PIECE_BYTES)
		piece *= 2;
	if (growing && piece < left && piece * 2 <= room)
		piece *= 2;
	return piece;
}

/* What the node has for heaps. */
static size_t budget_left(void)
{
	struct nu_pool_stats pool;

	nu_pool_stats(&pool);
	return pool.budget_bytes > pool.used_bytes ? pool.budget_bytes - pool.used_bytes : 0;
}

/*
 * What is large shall lie so that mremap moves whole page tables: page by page it takes longer than all the rest of a move at
 * its source. So it begins where one does, and what is before that is filled up by a single extent.
 */
static int get_grown(struct nu_proclet *p, size_t want_bytes, struct nu_extent *e)
{
	size_t at = p->mapped_bytes, left = want_bytes - at;
	size_t room = (p->head ? p->head->capacity_bytes : want_bytes) - at, budget = budget_left();

	if (left >= 2 * TABLE_BYTES && at % TABLE_BYTES)
		return nu_extent_get_tail(TABLE_BYTES, at % TABLE_BYTES, true, e);
	return nu_extent_get(piece_bytes(left, true, room < budget ? room : budget), true, false, e);
}

/*
 * Where the heap shall end: as @want says, or where the node's memory allows. Steps of less than one STEP_PARTth of it are taken only for
 * what is needed now: of small ones a heap would soon have as many pieces as it may.
 */
static size_t end_within(const struct nu_proclet *p, size_t want, size_t enough)
{
	size_t at = p->mapped_bytes, step = want > at ? want - at : 0, room = budget_left();

	if (likely(step <= room))
		return want;
	while (step > room && step > at / STEP_PART && step > enough - at)
		step /= 2;
	step = NU_ALIGN_UP(step, NU_EXTENT_MIN_BYTES);
	return step <= room && at + step >= enough ? at + step : NU_ALIGN_UP(enough, NU_EXTENT_MIN_BYTES);
}

int nu_proclet_map(void *proclet, size_t want_bytes, size_t enough_bytes, size_t *mapped_p)
{
	struct nu_proclet *p = proclet;

	want_bytes = end_within(p, want_bytes, enough_bytes);
	while (p->mapped_bytes < want_bytes) {
		struct nu_extent *e = next_extent(p);
		int ret = e ? get_grown(p, want_bytes, e) : -ENOMEM;

		if (ret)
			return ret;
		p->nextents++;
		ret = nu_extent_install(e, (char *)base_of(p) + p->mapped_bytes);
		if (ret) {
			nu_extent_put(e);
			p->nextents--;
			return ret;
		}
		set_mapped(p, p->mapped_bytes + e->len_bytes);
	}
	*mapped_p = p->mapped_bytes;
	return 0;
}

int nu_proclet_reserve(struct nu_proclet *p, size_t len_bytes)
{
	size_t have = 0;

	for (unsigned i = 0; i < p->nextents; i++)
		have += p->extents[i].len_bytes;
	while (have < len_bytes) {
		struct nu_extent *e = next_extent(p);
		int ret =
			e ? nu_extent_get(piece_bytes(len_bytes - have, false, 0), false, true, e) : -ENOMEM;

		if (ret)
			return ret;
		p->nextents++;
		have += e->len_bytes;
	}
	return 0;
}

int nu_proclet_install(struct nu_proclet *p)
{
	size_t done = 0;

	for (unsigned i = 0; i < p->nextents; i++) {
		struct nu_extent *e = &p->extents[i];
		int ret = e->at == e->home ? nu_extent_install(e, (char *)base_of(p) + done) : 0;

		if (ret)
			return ret;
		done += e->len_bytes;
		set_mapped(p, done);
	}
	return 0;
}

void nu_proclet_unmap(struct nu_proclet *p)
{
	while (p->nextents)
		nu_extent_put(&p->extents[--p->nextents]);
	set_mapped(p, 0);
}
