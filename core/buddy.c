/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator of the pool: blocks of a power of two of units inside chunks, free ones in lists by size. It
 * knows which memory is backed by pages, so that arrivals get that and fresh growth leaves it to them.
 */
#include "core/pool_int.h"

#define SCAN_MAX 64 /* partly backed blocks looked at before settling for any */

void nu_buddy_init(void)
{
	for (unsigned order = 0; order < NU_POOL_ORDERS; order++) {
		nu_list_init(&nu_pool.free[order][false]);
		nu_list_init(&nu_pool.free[order][true]);
	}
	nu_list_init(&nu_pool.idle);
}

static unsigned count_backed(const struct nu_chunk *c, unsigned at, unsigned n)
{
	unsigned count = 0;

	for (unsigned i = at; i < at + n; i++)
		count += c->units[i].backed;
	return count;
}

unsigned nu_buddy_backed(const struct nu_chunk *c)
{
	return count_backed(c, 0, c->nunits);
}

/* Whether [at, at + n) holds an aligned block of @order that is all backed. */
static bool has_backed(const struct nu_chunk *c, unsigned at, unsigned n, unsigned order)
{
	unsigned want = 1u << order;

	for (unsigned i = at; i < at + n; i += want) {
		if (count_backed(c, i, want) == want)
			return true;
	}
	return false;
}

static void list_block(struct nu_chunk *c, unsigned at, unsigned order)
{
	struct nu_unit *u = &c->units[at];
	bool backed = count_backed(c, at, 1u << order) == 1u << order;
	struct nu_list *head = &nu_pool.free[order][backed];

	u->order = (uint8_t)order;
	u->free = true;
	/* At the head: what was used last is warm in caches, too. */
	nu_list_add_tail(head->next, &u->link);
}

static void unlist_block(struct nu_unit *u)
{
	u->free = false;
	nu_list_del(&u->link);
}

static struct nu_block block_of(struct nu_unit *u)
{
	struct nu_unit *first = u - u->index;

	return (struct nu_block){(struct nu_chunk *)((char *)first - offsetof(struct nu_chunk, units)),
				 u->index, 1u << u->order};
}

void nu_buddy_add(struct nu_chunk *c)
{
	nu_pool.free_bytes += c->len_bytes;
	nu_pool.backed_free_bytes += (size_t)count_backed(c, 0, c->nunits) << NU_POOL_UNIT_SHIFT;
	list_block(c, 0, (unsigned)__builtin_ctz(c->nunits));
	nu_list_add_tail(&nu_pool.idle, &c->idle);
}

void nu_buddy_remove(struct nu_chunk *c)
{
	NU_ASSERT(!c->taken && c->units[0].free && 1u << c->units[0].order == c->nunits);
	unlist_block(&c->units[0]);
	nu_list_del(&c->idle);
	nu_pool.free_bytes -= c->len_bytes;
	nu_pool.backed_free_bytes -= (size_t)count_backed(c, 0, c->nunits) << NU_POOL_UNIT_SHIFT;
}

static struct nu_unit *first_free(unsigned order, bool backed)
{
	struct nu_list *head = &nu_pool.free[order][backed];

	return nu_list_empty(head) ? NULL : nu_list_entry(head->next, struct nu_unit, link);
}

/* The smallest block that will do. */
static struct nu_unit *pick(unsigned order, bool backed)
{
	struct nu_unit *u = NULL;

	for (; order < NU_POOL_ORDERS && !u; order++)
		u = first_free(order, backed);
	return u;
}

/* A larger block, not all backed, that holds one of @order that is. */
static struct nu_unit *pick_within(unsigned order)
{
	unsigned scanned = 0;
	struct nu_list *pos;

	for (unsigned o = order + 1; o < NU_POOL_ORDERS; o++) {
		nu_list_for_each (pos, &nu_pool.free[o][false]) {
			struct nu_block b = block_of(nu_list_entry(pos, struct nu_unit, link));
			if (has_backed(b.chunk, b.at, b.n, order))
				return &b.chunk->units[b.at];
			if (++scanned == SCAN_MAX)
				return NULL;
		}
	}
	return NULL;
}

/* Whether the upper half of the 2 * @n units at @at is the better one to go on with. */
static bool prefer_upper(const struct nu_chunk *c, unsigned at, unsigned n, unsigned order, enum nu_take how)
{
	unsigned low = count_backed(c, at, n), high = count_backed(c, at + n, n);
	bool low_has, high_has;

	switch (how) {
	case NU_TAKE_BACKED:
		low_has = has_backed(c, at, n, order);
		high_has = has_backed(c, at + n, n, order);
		if (low_has != high_has)
			return high_has;
		/* Both will do: spare the fuller. Neither: the fuller saves most. */
		return low_has ? high < low : high > low;
	case NU_TAKE_FILL:
		if (low == n || high == n)
			return low == n;
		return high > low;
	case NU_TAKE_ANY:
	default:
		return high < low;
	}
}

bool nu_buddy_take(unsigned order, enum nu_take how, struct nu_block *b_p)
{
	size_t len = (size_t)NU_EXTENT_MIN_BYTES << order;
	/* Backed memory beyond the reserve is better used than left idle. */
	bool spare = nu_pool.backed_free_bytes >= nu_pool.reserve_bytes + len;
	struct nu_unit *u = NULL;
	struct nu_block b;

	if (order >= NU_POOL_ORDERS)
		return false;
	if (how == NU_TAKE_BACKED || (how == NU_TAKE_ANY && spare))
		u = pick(order, true);
	if (!u && how == NU_TAKE_BACKED)
		u = pick_within(order);
	if (!u)
		u = pick(order, false);
	if (!u && how == NU_TAKE_LAST)
		u = pick(order, true);
	if (!u)
		return false;
	b = block_of(u);
	unlist_block(u);
	for (unsigned o = u->order; o > order;) {
		b.n = 1u << --o;
		if (prefer_upper(b.chunk, b.at, b.n, order, how)) {
			list_block(b.chunk, b.at, o);
			b.at += b.n;
		} else {
			list_block(b.chunk, b.at + b.n, o);
		}
	}
	if (!b.chunk->taken)
		nu_list_del(&b.chunk->idle);
	b.chunk->taken += b.n;
	nu_pool.free_bytes -= len;
	nu_pool.backed_free_bytes -= (size_t)count_backed(b.chunk, b.at, b.n) << NU_POOL_UNIT_SHIFT;
	*b_p = b;
	return true;
}

/* @n: a power of two, @at a multiple of it. */
static void give_aligned(struct nu_chunk *c, unsigned at, unsigned n)
{
	nu_pool.free_bytes += (size_t)n << NU_POOL_UNIT_SHIFT;
	nu_pool.backed_free_bytes += (size_t)count_backed(c, at, n) << NU_POOL_UNIT_SHIFT;
	while (n < c->nunits) {
		struct nu_unit *buddy = &c->units[at ^ n];
		if (!buddy->free || 1u << buddy->order != n)
			break;
		unlist_block(buddy);
		at &= ~n;
		n <<= 1;
	}
	list_block(c, at, (unsigned)__builtin_ctz(n));
}

void nu_buddy_give(const struct nu_block *b)
{
	struct nu_chunk *c = b->chunk;
	unsigned at = b->at, end = b->at + b->n, n;

	NU_ASSERT(c->taken >= b->n);
	for (; at < end; at += n) {
		n = at ? at & -at : c->nunits;
		while (n > end - at)
			n /= 2;
		give_aligned(c, at, n);
	}
	c->taken -= b->n;
	if (!c->taken)
		nu_list_add_tail(&nu_pool.idle, &c->idle);
}
