/* SPDX-License-Identifier: MIT */
/* The buddy allocator of segments, and the tables under it, against plain models. */
#include "ctrl/state.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Books only, nothing is mapped: the whole region, where a sanitizer leaves less, too. */
static void __attribute__((constructor)) whole_region(void)
{
	nu_layout.seg_region_bytes = (size_t)NU_SEG_UNIT_BYTES << NU_SEG_INDEX_BITS;
}

#define FIRST (2u * 1024)
#define END   NU_SEG_NODE(0)

static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1d >> 11) % below;
}

/* ---- the tables ---- */

#define KEYS 4096
Test(idmap, random_against_array)
{
	static uint32_t model[KEYS + 1];
	struct nu_ctrl_map m = {0};
	size_t count = 0;
	unsigned max_bits = 0;

	seed = 7;
	memset(model, 0xff, sizeof(model));
	cr_assert_eq(nu_ctrl_map_find(&m, 1), NU_CTRL_NONE);
	for (unsigned i = 0; i < 200000; i++) {
		/* Runs of growing and of shrinking, over keys that differ in high or in low bits. */
		uint64_t k = 1 + rnd(KEYS), key = k & 1 ? k : k << 39;
		bool grow = i / 20000 % 2 == 0 ? rnd(10) < 8 : rnd(10) < 2;

		cr_assert_eq(nu_ctrl_map_find(&m, key), model[k]);
		if (grow && model[k] == NU_CTRL_NONE) {
			cr_assert_eq(nu_ctrl_map_reserve(&m, 1), 0);
			nu_ctrl_map_insert(&m, key, i);
			model[k] = i;
			count++;
		} else if (!grow && model[k] != NU_CTRL_NONE) {
			nu_ctrl_map_remove(&m, key);
			model[k] = NU_CTRL_NONE;
			count--;
		}
		cr_assert_eq(m.count, count);
		max_bits = m.bits > max_bits ? m.bits : max_bits;
	}
	for (uint64_t k = 1; k <= KEYS; k++) {
		cr_assert_eq(nu_ctrl_map_find(&m, k & 1 ? k : k << 39), model[k]);
		if (model[k] != NU_CTRL_NONE)
			nu_ctrl_map_remove(&m, k & 1 ? k : k << 39);
	}
	cr_assert_eq(m.count, 0);
	cr_assert_geq(max_bits, 12);
	cr_assert_leq(m.bits, 7, "an empty map keeps 2^%u cells", m.bits);
	nu_ctrl_map_fini(&m);
}

Test(idmap, slots_are_zero_and_stay_in_place)
{
	struct nu_ctrl_slab s;
	uint64_t *first, *again;
	uint32_t slot;

	nu_ctrl_slab_init(&s, 24);
	cr_assert_eq(nu_ctrl_slab_reserve(&s, 1), 0);
	slot = nu_ctrl_slab_get(&s);
	first = nu_ctrl_slab_at(&s, slot);
	memset(first, 0xa5, 24);
	cr_assert_eq(nu_ctrl_slab_reserve(&s, 100000), 0);
	for (unsigned i = 0; i < 100000; i++)
		cr_assert_neq(nu_ctrl_slab_get(&s), slot);
	cr_assert_eq(nu_ctrl_slab_at(&s, slot), first);
	cr_assert_eq(first[2], 0xa5a5a5a5a5a5a5a5);
	nu_ctrl_slab_put(&s, slot);
	cr_assert_eq(nu_ctrl_slab_get(&s), slot);
	again = nu_ctrl_slab_at(&s, slot);
	cr_assert(again == first && !again[0] && !again[1] && !again[2]);
	nu_ctrl_slab_fini(&s);
}

/* ---- segments ---- */

Test(segments, orders)
{
	unsigned order = 99;

	cr_assert(nu_segments_order(0, &order) == 0 && order == 10);
	cr_assert(nu_segments_order(1, &order) == 0 && order == 0);
	cr_assert(nu_segments_order(NU_MIB, &order) == 0 && order == 0);
	cr_assert(nu_segments_order(NU_MIB + 1, &order) == 0 && order == 1);
	cr_assert(nu_segments_order(NU_SEG_MAX_BYTES, &order) == 0 && order == 20);
	order = 99;
	cr_assert_eq(nu_segments_order(NU_SEG_MAX_BYTES + 1, &order), -EINVAL);
	cr_assert_eq(nu_segments_order(~(uint64_t)0, &order), -EINVAL);
	cr_assert_eq(order, 99);
}

Test(segments, all_of_the_space_and_not_more)
{
	static uint32_t got[64];
	struct nu_segments s;
	uint64_t units = 0;
	unsigned n = 0, blocks;
	uint32_t index;

	cr_assert_eq(nu_segments_init(&s), 0);
	cr_assert_eq(nu_segments_check(&s), 0);
	blocks = s.nblocks;
	cr_assert_eq(s.free_units, END - FIRST);
	while (!nu_segments_get(&s, NU_SEG_MAX_ORDER, &index)) {
		cr_assert(index >= FIRST && index + (1u << NU_SEG_MAX_ORDER) <= END);
		cr_assert_eq(index & ((1u << NU_SEG_MAX_ORDER) - 1), 0);
		got[n++] = index;
	}
	/* Of 32 TiB the first and the last have something else in them. */
	cr_assert_eq(n, 30);
	for (unsigned i = 0; i < n; i++)
		nu_segments_put(&s, got[i], NU_SEG_MAX_ORDER);
	cr_assert_eq(nu_segments_check(&s), 0);
	/* The default size: all but 2 GiB in front and the last GiB, which the nodes share. */
	for (n = 0; !nu_segments_get(&s, 10, &index); n++)
		cr_assert(index >= FIRST && index + 1024 <= END);
	cr_assert_eq(n, 32 * 1024 - 3);
	for (units = 0; !nu_segments_get(&s, 0, &index); units++)
		cr_assert(index >= END / 1024 * 1024 && index < END);
	cr_assert_eq(units, 1024 - NU_MAX_NODES);
	cr_assert_eq(s.free_units, 0);
	cr_assert_eq(nu_segments_check(&s), 0);
	for (uint32_t at = FIRST; at < END / 1024 * 1024; at += 1024)
		nu_segments_put(&s, at, 10);
	for (uint32_t at = END / 1024 * 1024; at < END; at++)
		nu_segments_put(&s, at, 0);
	cr_assert_eq(nu_segments_check(&s), 0);
	cr_assert_eq(s.nblocks, blocks, "%u blocks, %u at first", s.nblocks, blocks);
	cr_assert_eq(s.free_units, END - FIRST);
	nu_segments_fini(&s);
}

#define LIVE 3000
static struct {
	uint32_t index;
	unsigned order;
} live[LIVE];

/* Small sizes often, large ones now and then. */
static unsigned any_order(void)
{
	return (unsigned)(rnd(3) ? rnd(6) : rnd(NU_SEG_MAX_ORDER + 1));
}

static void random_schedule(uint64_t from_seed)
{
	static uint8_t taken[1u << NU_SEG_INDEX_BITS];
	struct nu_segments s;
	unsigned n = 0, blocks;
	uint64_t used = 0;

	seed = from_seed;
	cr_assert_eq(nu_segments_init(&s), 0);
	blocks = s.nblocks;
	for (unsigned step = 0; step < 60000; step++) {
		unsigned order = any_order(), i;
		uint32_t index;

		if (n < LIVE && rnd(100) < (step / 10000 % 2 ? 45 : 60)) {
			int ret = nu_segments_get(&s, order, &index);

			if (ret) {
				cr_assert_eq(ret, -ENOMEM);
				continue;
			}
			cr_assert(index >= FIRST && index + (1u << order) <= END &&
				  !(index & ((1u << order) - 1)));
			/* Ends and middle tell an overlap of aligned powers of two, with each block's own bytes all marked. */
			for (uint32_t u = 0; u<1u << order; u += order> 8 ? 64 : 1)
				cr_assert(!taken[index + u], "unit %u is taken twice", index + u);
			memset(taken + index, 1, 1u << order);
			live[n].index = index;
			live[n++].order = order;
			used += 1u << order;
		} else if (n) {
			i = (unsigned)rnd(n);
			memset(taken + live[i].index, 0, 1u << live[i].order);
			nu_segments_put(&s, live[i].index, live[i].order);
			used -= 1u << live[i].order;
			live[i] = live[--n];
		}
		cr_assert_eq(s.free_units + used, END - FIRST);
		if (step % 500 == 0)
			cr_assert_eq(nu_segments_check(&s), 0);
	}
	cr_assert_gt(n, 100);
	while (n--)
		nu_segments_put(&s, live[n].index, live[n].order);
	cr_assert_eq(nu_segments_check(&s), 0);
	cr_assert_eq(s.nblocks, blocks, "not merged: %u blocks, %u at first", s.nblocks, blocks);
	nu_segments_fini(&s);
	memset(taken, 0, sizeof(taken));
}

Test(segments, random_schedules, .timeout = 60)
{
	for (uint64_t i = 1; i <= 3; i++)
		random_schedule(i * 1000003);
}

/* The last free run of a size is not broken up while a smaller one fits. */
Test(segments, splits_the_smallest_that_fits)
{
	struct nu_segments s;
	uint32_t index, whole[30];

	cr_assert_eq(nu_segments_init(&s), 0);
	for (unsigned i = 0; i < 200; i++)
		cr_assert_eq(nu_segments_get(&s, i % 10, &index), 0);
	for (unsigned i = 0; i < 30; i++)
		cr_assert_eq(nu_segments_get(&s, NU_SEG_MAX_ORDER, &whole[i]), 0);
	nu_segments_fini(&s);
}
