/* SPDX-License-Identifier: MIT */
/*
 * Segments of the address space: a buddy allocator of power-of-two runs of 1 MiB units. A block is split when somebody
 * needs a part of it and merged with its buddy as soon as both are free, so the books grow with the segments in use.
 * Used blocks have a record too: giving one back then needs no memory and cannot fail.
 */
#include "ctrl/state.h"

#define UNITS	   (1u << NU_SEG_INDEX_BITS)
#define FIRST_UNIT (NU_SEG_MAIN + (uint32_t)(NU_GIB >> NU_SEG_UNIT_SHIFT))

/* The region is smaller than the indices allow where a sanitizer owns most of the address space. */
static uint32_t end_unit(void)
{
	size_t units = nu_layout.seg_region_bytes >> NU_SEG_UNIT_SHIFT;

	return units < NU_SEG_NODE(0) ? (uint32_t)units : NU_SEG_NODE(0);
}

struct nu_seg_block {
	uint32_t slot_link; /* of the slab */
	uint32_t start;
	uint32_t next, prev; /* free blocks of this order */
	uint8_t order;
	bool used;
};

static struct nu_seg_block *block_at(const struct nu_segments *s, uint32_t slot)
{
	return nu_ctrl_slab_at(&s->blocks, slot);
}

/* Unit 0 is a valid start, key 0 is not. */
static uint64_t key_of(uint32_t start)
{
	return (uint64_t)start + 1;
}

static void list_add(struct nu_segments *s, uint32_t slot)
{
	struct nu_seg_block *b = block_at(s, slot);
	uint32_t *head = &s->free_heads[b->order];

	b->next = *head;
	b->prev = NU_CTRL_NONE;
	if (*head != NU_CTRL_NONE)
		block_at(s, *head)->prev = slot;
	*head = slot;
	s->orders_free |= 1u << b->order;
}

static void list_del(struct nu_segments *s, uint32_t slot)
{
	struct nu_seg_block *b = block_at(s, slot);

	if (b->next != NU_CTRL_NONE)
		block_at(s, b->next)->prev = b->prev;
	if (b->prev != NU_CTRL_NONE)
		block_at(s, b->prev)->next = b->next;
	else
		s->free_heads[b->order] = b->next;
	if (s->free_heads[b->order] == NU_CTRL_NONE)
		s->orders_free &= ~(1u << b->order);
}

/* A new free block; room for it was reserved. */
static void block_add(struct nu_segments *s, uint32_t start, unsigned order)
{
	uint32_t slot = nu_ctrl_slab_get(&s->blocks);
	struct nu_seg_block *b = block_at(s, slot);

	b->start = start;
	b->order = (uint8_t)order;
	nu_ctrl_map_insert(&s->by_start, key_of(start), slot);
	list_add(s, slot);
	s->nblocks++;
}

static void block_drop(struct nu_segments *s, uint32_t slot)
{
	nu_ctrl_map_remove(&s->by_start, key_of(block_at(s, slot)->start));
	nu_ctrl_slab_put(&s->blocks, slot);
	s->nblocks--;
}

static int reserve(struct nu_segments *s, uint32_t more)
{
	int ret = nu_ctrl_slab_reserve(&s->blocks, more);

	if (!ret)
		ret = nu_ctrl_map_reserve(&s->by_start, more);
	if (ret)
		nu_err("controller: its heap has no memory for %u more segments", more);
	return ret;
}

int nu_segments_init(struct nu_segments *s)
{
	int ret;

	*s = (struct nu_segments){0};
	nu_ctrl_slab_init(&s->blocks, sizeof(struct nu_seg_block));
	for (unsigned k = 0; k <= NU_SEG_MAX_ORDER; k++)
		s->free_heads[k] = NU_CTRL_NONE;
	/* At most two blocks of each order at the ragged ends, and the large ones between. */
	ret = reserve(s, 2 * NU_SEG_MAX_ORDER + (UNITS >> NU_SEG_MAX_ORDER));
	if (ret) {
		nu_segments_fini(s);
		return ret;
	}
	for (uint32_t at = FIRST_UNIT; at < end_unit();) {
		unsigned order = (unsigned)__builtin_ctz(at);

		if (order > NU_SEG_MAX_ORDER)
			order = NU_SEG_MAX_ORDER;
		while (at + (1u << order) > end_unit())
			order--;
		block_add(s, at, order);
		s->free_units += 1u << order;
		at += 1u << order;
	}
	s->units = s->free_units;
	return 0;
}

void nu_segments_fini(struct nu_segments *s)
{
	nu_ctrl_map_fini(&s->by_start);
	nu_ctrl_slab_fini(&s->blocks);
}

int nu_segments_order(uint64_t capacity_bytes, unsigned *order_p)
{
	unsigned order = 0;

	if (!capacity_bytes)
		capacity_bytes = NU_SEG_DEFAULT_BYTES;
	if (capacity_bytes > NU_SEG_MAX_BYTES)
		return -EINVAL;
	while ((uint64_t)NU_SEG_UNIT_BYTES << order < capacity_bytes)
		order++;
	*order_p = order;
	return 0;
}

int nu_segments_get(struct nu_segments *s, unsigned order, uint32_t *index_p)
{
	uint32_t fits = s->orders_free & ~((1u << order) - 1), slot;
	struct nu_seg_block *b;
	unsigned from;
	int ret;

	NU_ASSERT(order <= NU_SEG_MAX_ORDER);
	if (!fits)
		return -ENOMEM;
	from = (unsigned)__builtin_ctz(fits);
	ret = reserve(s, from - order);
	if (ret)
		return ret;
	slot = s->free_heads[from];
	b = block_at(s, slot);
	list_del(s, slot);
	while (from-- > order)
		block_add(s, b->start + (1u << from), from);
	b->order = (uint8_t)order;
	b->used = true;
	s->free_units -= 1u << order;
	*index_p = b->start;
	return 0;
}

unsigned nu_segments_used(const struct nu_segments *s)
{
	unsigned nfree = 0;

	for (unsigned k = 0; k <= NU_SEG_MAX_ORDER; k++) {
		for (uint32_t i = s->free_heads[k]; i != NU_CTRL_NONE; i = block_at(s, i)->next)
			nfree++;
	}
	return s->nblocks - nfree;
}

void nu_segments_put(struct nu_segments *s, uint32_t index, unsigned order)
{
	uint32_t slot = nu_ctrl_map_find(&s->by_start, key_of(index));
	struct nu_seg_block *b;

	NU_ASSERT(slot != NU_CTRL_NONE);
	b = block_at(s, slot);
	NU_ASSERT(b->used && b->order == order);
	s->free_units += 1u << order;
	b->used = false;
	while (b->order < NU_SEG_MAX_ORDER) {
		uint32_t buddy = nu_ctrl_map_find(&s->by_start, key_of(b->start ^ (1u << b->order)));

		if (buddy == NU_CTRL_NONE || block_at(s, buddy)->used ||
		    block_at(s, buddy)->order != b->order)
			break;
		list_del(s, buddy);
		/* The lower one stays. */
		if (block_at(s, buddy)->start < b->start) {
			uint32_t lower = buddy;

			buddy = slot;
			slot = lower;
			b = block_at(s, slot);
		}
		block_drop(s, buddy);
		b->order++;
	}
	list_add(s, slot);
}

static int fault(const struct nu_seg_block *b, const char *what)
{
	nu_err("controller: segment block at unit %u, order %u: %s", b->start, b->order, what);
	return -EIO;
}

/* Walks the units in order, from block to block: so nothing overlaps and nothing is missing. */
int nu_segments_check(const struct nu_segments *s)
{
	uint64_t free_units = 0;
	uint32_t nblocks = 0, on_lists = 0, nfree = 0;

	for (uint32_t at = FIRST_UNIT; at < end_unit(); nblocks++) {
		uint32_t slot = nu_ctrl_map_find(&s->by_start, key_of(at)), buddy;
		const struct nu_seg_block *b;

		if (slot == NU_CTRL_NONE) {
			nu_err("controller: no segment block begins at unit %u", at);
			return -EIO;
		}
		b = block_at(s, slot);
		if (b->start != at || b->order > NU_SEG_MAX_ORDER || at & ((1u << b->order) - 1))
			return fault(b, "misplaced");
		buddy = nu_ctrl_map_find(&s->by_start, key_of(at ^ (1u << b->order)));
		if (!b->used && b->order < NU_SEG_MAX_ORDER && buddy != NU_CTRL_NONE &&
		    !block_at(s, buddy)->used && block_at(s, buddy)->order == b->order)
			return fault(b, "not merged with its buddy");
		free_units += b->used ? 0 : 1u << b->order;
		nfree += !b->used;
		at += 1u << b->order;
	}
	for (unsigned k = 0; k <= NU_SEG_MAX_ORDER; k++) {
		if ((s->free_heads[k] != NU_CTRL_NONE) != (s->orders_free >> k & 1))
			return -EIO;
		for (uint32_t i = s->free_heads[k]; i != NU_CTRL_NONE; i = block_at(s, i)->next, on_lists++)
			if (block_at(s, i)->used || block_at(s, i)->order != k)
				return fault(block_at(s, i), "on the wrong list");
	}
	if (nblocks != s->nblocks || s->by_start.count != nblocks || on_lists != nfree ||
	    free_units != s->free_units) {
		nu_err("controller: segment counts are off: %u/%u blocks, %u/%u free", nblocks, s->nblocks,
		       on_lists, nfree);
		return -EIO;
	}
	return 0;
}
