/* SPDX-License-Identifier: MIT */
/* The controller's state: each error and each ending on its own, placement, lists, speed. */
#include "ctrl/state.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Books only, nothing is mapped: the whole region, where a sanitizer leaves less, too. */
static void __attribute__((constructor)) whole_region(void)
{
	nu_layout.seg_region_bytes = (size_t)NU_SEG_UNIT_BYTES << NU_SEG_INDEX_BITS;
}

#define NONE	    NU_CTRL_NO_NODE
#define OK(x)	    cr_assert_eq((x), 0)
#define IS(x, want) cr_assert_eq((x), (want), "%s is %d, not %d", #x, (int)(x), (int)(want))

static struct nu_ctrl c;
static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1d >> 11) % below;
}

static void start(unsigned nodes)
{
	nu_log_level = NU_LOG_ERROR;
	OK(nu_ctrl_init(&c, 0));
	for (unsigned i = 0; i < nodes; i++)
		OK(nu_ctrl_node_join(&c, i, 2, NU_GIB));
}

static void stop(void)
{
	OK(nu_ctrl_check(&c));
	nu_ctrl_fini(&c);
}

static uint64_t make(unsigned node)
{
	uint64_t id = 0;
	unsigned at = 77;

	OK(nu_ctrl_proclet_new(&c, NU_MIB, false, node, 0, &id, &at));
	OK(nu_ctrl_proclet_ready(&c, id));
	cr_assert(node == NONE || at == node);
	return id;
}

static void move(uint64_t id, unsigned to)
{
	uint64_t location, bytes;

	OK(nu_ctrl_move_begin(&c, id, to, &location, &bytes));
	OK(nu_ctrl_move_end(&c, id, to, location, true));
}

static void expect_at(uint64_t id, unsigned node, uint64_t location)
{
	unsigned at = 77;
	uint64_t l = 0;

	OK(nu_ctrl_locate(&c, id, &at, &l));
	cr_assert(at == node && l == location, "at %u with %llu", at, (unsigned long long)l);
}

static int locate(uint64_t id)
{
	unsigned at = 77;
	uint64_t l = 99;
	int ret = nu_ctrl_locate(&c, id, &at, &l);

	cr_assert(!ret || (at == 77 && l == 99), "outputs are touched on failure");
	return ret;
}

/* ---- nodes ---- */

Test(nodes, join_report_die)
{
	struct nu_node_info infos[4];

	start(0);
	IS(nu_ctrl_node_report(&c, 0, 1), -EINVAL);
	IS(nu_ctrl_node_dead(&c, 0), -EINVAL);
	IS(nu_ctrl_node_join(&c, NU_MAX_NODES, 1, 1), -EINVAL);
	OK(nu_ctrl_node_join(&c, 0, 3, NU_GIB));
	OK(nu_ctrl_node_join(&c, 2, 4, 2 * NU_GIB));
	IS(nu_ctrl_node_join(&c, 2, 4, 2 * NU_GIB), -EEXIST);
	IS(nu_ctrl_node_report(&c, 1, 1), -EINVAL);
	IS(nu_ctrl_node_report(&c, ~0u, 1), -EINVAL);
	OK(nu_ctrl_node_report(&c, 2, 12345));
	make(2);
	IS(nu_ctrl_nodes(&c, infos, 4), 2);
	cr_assert(infos[1].node == 2 && infos[1].state == NU_NODE_UP && infos[1].cores == 4 &&
		  infos[1].proclets == 1 && infos[1].mem_total_bytes == 2 * NU_GIB &&
		  infos[1].mem_used_bytes == 12345);
	OK(nu_ctrl_set_state(&c, 2, NU_NODE_DRAINING));
	IS(nu_ctrl_set_state(&c, 0, NU_NODE_DRAINING), -EINVAL);
	OK(nu_ctrl_set_state(&c, 2, NU_NODE_UP));
	IS(nu_ctrl_set_state(&c, 2, NU_NODE_DEAD), -EINVAL);
	IS(nu_ctrl_set_state(&c, 1, NU_NODE_DRAINING), -EINVAL);
	OK(nu_ctrl_node_dead(&c, 2));
	OK(nu_ctrl_node_dead(&c, 2));
	IS(nu_ctrl_node_join(&c, 2, 4, NU_GIB), -EHOSTDOWN);
	IS(nu_ctrl_node_report(&c, 2, 1), -EHOSTDOWN);
	IS(nu_ctrl_set_state(&c, 2, NU_NODE_UP), -EHOSTDOWN);
	IS(nu_ctrl_nodes(&c, infos, 1), 2);
	IS(nu_ctrl_nodes(&c, infos, 4), 2);
	cr_assert(infos[1].state == NU_NODE_DEAD && infos[1].proclets == 0);
	stop();
}

/* ---- creation ---- */

Test(create, errors)
{
	uint64_t id = 5;
	unsigned node = 77;

	start(0);
	IS(nu_ctrl_proclet_new(&c, 0, false, NONE, 0, &id, &node), -EHOSTDOWN);
	for (unsigned i = 0; i < 4; i++)
		OK(nu_ctrl_node_join(&c, i, 2, NU_GIB));
	IS(nu_ctrl_proclet_new(&c, NU_SEG_MAX_BYTES + 1, false, NONE, 0, &id, &node), -EINVAL);
	IS(nu_ctrl_proclet_new(&c, 0, false, 4, 0, &id, &node), -EINVAL);
	OK(nu_ctrl_node_dead(&c, 3));
	IS(nu_ctrl_proclet_new(&c, 0, false, 3, 0, &id, &node), -EHOSTDOWN);
	OK(nu_ctrl_set_state(&c, 1, NU_NODE_DRAINING));
	IS(nu_ctrl_proclet_new(&c, 0, false, 1, 0, &id, &node), -EBUSY);
	for (unsigned i = 0; i < 10; i++) {
		OK(nu_ctrl_proclet_new(&c, 0, false, NONE, 0, &id, &node));
		cr_assert(node == 0 || node == 2);
	}
	OK(nu_ctrl_node_dead(&c, 0));
	OK(nu_ctrl_node_dead(&c, 2));
	id = 5, node = 77;
	IS(nu_ctrl_proclet_new(&c, 0, false, NONE, 0, &id, &node), -EBUSY);
	cr_assert(id == 5 && node == 77, "outputs are touched on failure");
	stop();
}

Test(create, segments_used_up)
{
	uint64_t id, last = 0;
	unsigned node, n = 0;
	struct nu_ctrl_totals t;

	start(1);
	while (!nu_ctrl_proclet_new(&c, NU_SEG_MAX_BYTES, false, NONE, 0, &id, &node)) {
		last = id;
		n++;
	}
	IS(n, 30);
	IS(nu_ctrl_proclet_new(&c, NU_SEG_MAX_BYTES, false, NONE, 0, &id, &node), -ENOMEM);
	OK(nu_ctrl_check(&c));
	OK(nu_ctrl_proclet_new(&c, NU_MIB, false, NONE, 0, &id, &node));
	OK(nu_ctrl_proclet_free(&c, last, 0));
	OK(nu_ctrl_proclet_new(&c, NU_SEG_MAX_BYTES, false, NONE, 0, &id, &node));
	cr_assert(nu_id_seg(id) == nu_id_seg(last) && id != last);
	IS(locate(last), -ESTALE);
	nu_ctrl_totals(&c, &t);
	cr_assert(t.fresh == 31 && t.live == 0 && t.created == 32 && t.waiting == 0);
	stop();
}

Test(create, generations)
{
	uint64_t id;
	unsigned node;

	IS(nu_ctrl_init(&c, 128), -EINVAL);
	OK(nu_ctrl_init(&c, 127));
	OK(nu_ctrl_node_join(&c, 0, 1, NU_GIB));
	id = make(0);
	IS(nu_id_gen(id) >> 32, 127);
	IS(nu_id_gen(id) & 0xffffffff, 1);
	IS(nu_id_gen(make(0)) & 0xffffffff, 2);
	IS(nu_ctrl_incarnation(&c), 127);
	c.next_generation = ((uint64_t)1 << NU_GEN_BITS) - 1;
	make(0);
	IS(nu_ctrl_proclet_new(&c, 0, false, NONE, 0, &id, &node), -EOVERFLOW);
	nu_ctrl_fini(&c);
	/* More creations than one incarnation's share: the successor must begin later. */
	OK(nu_ctrl_init(&c, 3));
	OK(nu_ctrl_node_join(&c, 0, 1, NU_GIB));
	c.next_generation = ((uint64_t)4 << 32) - 1;
	make(0);
	make(0);
	IS(nu_ctrl_incarnation(&c), 4);
	stop();
}

Test(create, main_proclet)
{
	uint64_t id = 0, again = 9;

	start(2);
	IS(nu_ctrl_proclet_main(&c, 0, NU_SEG_MAX_BYTES + 1, &id), -EINVAL);
	IS(nu_ctrl_proclet_main(&c, 7, 0, &id), -EINVAL);
	OK(nu_ctrl_proclet_main(&c, 0, 0, &id));
	IS(nu_id_seg(id), NU_SEG_MAIN);
	expect_at(id, 0, 1);
	IS(nu_ctrl_proclet_main(&c, 0, 0, &again), -EEXIST);
	cr_assert_eq(again, 9);
	move(id, 1);
	expect_at(id, 1, 2);
	OK(nu_ctrl_check(&c));
	OK(nu_ctrl_proclet_free(&c, id, 1));
	IS(nu_ctrl_proclet_main(&c, 0, 0, &again), -EEXIST);
	OK(nu_ctrl_forgot(&c, id, 0));
	OK(nu_ctrl_proclet_main(&c, 0, 0, &again));
	cr_assert_neq(again, id);
	stop();
}

Test(create, ready_and_undo)
{
	struct nu_node_info info[2];
	uint64_t id, location, bytes;
	unsigned node;

	start(2);
	OK(nu_ctrl_proclet_new(&c, NU_MIB, false, 1, 0, &id, &node));
	expect_at(id, 1, 1);
	nu_ctrl_nodes(&c, info, 2);
	IS(info[1].proclets, 0);
	IS(nu_ctrl_move_begin(&c, id, 0, &location, &bytes), -EBUSY);
	IS(nu_ctrl_proclet_free(&c, id, 0), -EINVAL);
	OK(nu_ctrl_proclet_free(&c, id, 1));
	IS(nu_ctrl_proclet_free(&c, id, 1), -ESTALE);
	IS(nu_ctrl_proclet_ready(&c, id), -ESTALE);
	OK(nu_ctrl_proclet_new(&c, NU_MIB, false, 1, 0, &id, &node));
	OK(nu_ctrl_proclet_ready(&c, id));
	OK(nu_ctrl_proclet_ready(&c, id));
	nu_ctrl_nodes(&c, info, 2);
	IS(info[1].proclets, 1);
	OK(nu_ctrl_proclet_new(&c, NU_MIB, false, 1, 0, &id, &node));
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_proclet_ready(&c, id), -EHOSTDOWN);
	/* The creator gives up: the record goes. */
	OK(nu_ctrl_proclet_free(&c, id, 1));
	IS(nu_ctrl_proclet_ready(&c, id), -ESTALE);
	stop();
}

/* ---- locating ---- */

Test(create, asked_for_by_whom)
{
	struct nu_ctrl_fresh fresh[4];
	uint64_t ids[3], asker;
	unsigned node;

	start(3);
	asker = make(1);
	for (unsigned i = 0; i < 3; i++) {
		OK(nu_ctrl_proclet_new(&c, NU_MIB, false, 2, 0, &ids[i], &node));
		OK(nu_ctrl_proclet_asker(&c, ids[i], i ? asker : 0));
	}
	IS(nu_ctrl_fresh(&c, fresh, 4), 2);
	IS(nu_ctrl_fresh(&c, fresh, 1), 1);
	cr_assert(fresh[0].id == ids[1] && fresh[0].asker == asker && fresh[0].node == 2);
	/* The asker's death is no concern of what it asked for until it is freed; the node's is. */
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_fresh(&c, fresh, 4), 2);
	OK(nu_ctrl_proclet_free(&c, ids[1], 2));
	IS(nu_ctrl_fresh(&c, fresh, 4), 1);
	IS(nu_ctrl_proclet_ready(&c, ids[1]), -ESTALE);
	IS(nu_ctrl_proclet_asker(&c, ids[1], asker), -ESTALE);
	OK(nu_ctrl_proclet_ready(&c, ids[2]));
	IS(nu_ctrl_fresh(&c, fresh, 4), 0);
	stop();
}

Test(locate, errors_and_fixed_ids)
{
	uint64_t id;

	start(2);
	IS(locate(0), -ESTALE);
	IS(locate(NU_ID_CTRL), -EINVAL);
	IS(locate(nu_id_make(5000, 77)), -ESTALE);
	IS(locate(~(uint64_t)0), -ESTALE);
	expect_at(nu_id_of_node(1), 1, 1);
	IS(locate(nu_id_of_node(9)), -ESTALE);
	IS(locate(nu_id_of_node(1) + 1), -ESTALE);
	id = make(1);
	expect_at(id, 1, 1);
	IS(locate(id + 1), -ESTALE);
	OK(nu_ctrl_node_dead(&c, 1));
	IS(locate(id), -EHOSTDOWN);
	IS(locate(nu_id_of_node(1)), -EHOSTDOWN);
	/* Its segment goes to another, and still the reference tells the two apart. */
	cr_assert_eq(nu_id_seg(make(0)), nu_id_seg(id));
	IS(locate(id), -EHOSTDOWN);
	stop();
}

/* ---- moves ---- */

Test(move, begin_errors)
{
	uint64_t id, pinned, location = 9, bytes = 9;
	unsigned node;

	start(5);
	id = make(0);
	OK(nu_ctrl_proclet_new(&c, NU_MIB, true, 0, 0, &pinned, &node));
	OK(nu_ctrl_proclet_ready(&c, pinned));
	OK(nu_ctrl_set_state(&c, 2, NU_NODE_DRAINING));
	OK(nu_ctrl_node_dead(&c, 3));
	IS(nu_ctrl_move_begin(&c, pinned, 1, &location, &bytes), -EPERM);
	IS(nu_ctrl_move_begin(&c, pinned, 0, &location, &bytes), 1);
	IS(nu_ctrl_move_begin(&c, id, 0, &location, &bytes), 1);
	IS(nu_ctrl_move_begin(&c, id, 2, &location, &bytes), -EBUSY);
	IS(nu_ctrl_move_begin(&c, id, 3, &location, &bytes), -EHOSTDOWN);
	IS(nu_ctrl_move_begin(&c, id, 5, &location, &bytes), -EINVAL);
	IS(nu_ctrl_move_begin(&c, id, NONE, &location, &bytes), -EINVAL);
	IS(nu_ctrl_move_begin(&c, id + 1, 1, &location, &bytes), -ESTALE);
	cr_assert(location == 9 && bytes == 9, "outputs are touched on failure");
	OK(nu_ctrl_proclet_sized(&c, id, 5 * NU_MIB));
	OK(nu_ctrl_move_begin(&c, id, 1, &location, &bytes));
	cr_assert(location == 2 && bytes == 5 * NU_MIB);
	expect_at(id, 0, 1);
	IS(nu_ctrl_move_begin(&c, id, 4, &location, &bytes), -EBUSY);
	IS(nu_ctrl_move_begin(&c, id, 0, &location, &bytes), -EBUSY);
	IS(nu_ctrl_proclet_free(&c, id, 0), -EBUSY);
	IS(nu_ctrl_proclet_free(&c, id, 4), -EINVAL);
	IS(nu_ctrl_forgot(&c, id, 1), -EBUSY);
	OK(nu_ctrl_move_end(&c, id, 1, 2, true));
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_move_begin(&c, id, 0, &location, &bytes), -EHOSTDOWN);
	IS(nu_ctrl_proclet_sized(&c, id, 1), -EHOSTDOWN);
	stop();
}

Test(move, end_is_idempotent_and_refuses_old_numbers)
{
	uint64_t id, location, bytes;

	start(4);
	id = make(0);
	OK(nu_ctrl_move_begin(&c, id, 1, &location, &bytes));
	IS(nu_ctrl_move_end(&c, id, 2, 2, true), -ESTALE);
	IS(nu_ctrl_move_end(&c, id, 1, 1, true), -ESTALE);
	IS(nu_ctrl_move_end(&c, id, 1, 3, true), -ESTALE);
	IS(nu_ctrl_move_end(&c, id, 1, 2, false), -ESTALE);
	OK(nu_ctrl_move_end(&c, id, 1, 2, true));
	OK(nu_ctrl_move_end(&c, id, 1, 2, true));
	expect_at(id, 1, 2);
	IS(nu_ctrl_move_end(&c, id, 0, 1, false), -ESTALE);
	OK(nu_ctrl_move_begin(&c, id, 2, &location, &bytes));
	/* The report of the move before comes again. */
	OK(nu_ctrl_move_end(&c, id, 1, 2, true));
	IS(nu_ctrl_move_begin(&c, id, 2, &location, &bytes), -EBUSY);
	OK(nu_ctrl_move_end(&c, id, 1, 2, false));
	OK(nu_ctrl_move_end(&c, id, 1, 3, false));
	expect_at(id, 1, 2);
	OK(nu_ctrl_move_begin(&c, id, 3, &location, &bytes));
	OK(nu_ctrl_move_end(&c, id, 1, 3, false));
	IS(nu_ctrl_move_end(&c, id, 3, 3, true), -ESTALE);
	IS(nu_ctrl_move_end(&c, id + 1, 3, 3, true), -ESTALE);
	/* Nodes 2 and 3 never got it and hold nothing; 0 keeps a note. */
	OK(nu_ctrl_proclet_free(&c, id, 1));
	uint64_t holders[NU_CTRL_NODE_WORDS];
	OK(nu_ctrl_holders(&c, id, holders));
	IS(holders[0], 1);
	stop();
}

/* Each way that one or both nodes of a move can die, and what is said of the proclet after it. */
Test(move, deaths)
{
	struct nu_ctrl_doubt d[2];
	uint64_t id, location, bytes;

	for (unsigned way = 0; way < 9; way++) {
		start(3);
		id = make(0);
		OK(nu_ctrl_move_begin(&c, id, 1, &location, &bytes));
		OK(nu_ctrl_node_dead(&c, way < 5 ? 0 : 1));
		OK(nu_ctrl_check(&c));
		IS(nu_ctrl_doubts(&c, d, 0), 1);
		IS(nu_ctrl_doubts(&c, d, 2), 1);
		cr_assert(d[0].id == id && d[0].location == 1 && d[0].from == 0 && d[0].to == 1 &&
			  d[0].from_alive == (way >= 5));
		IS(locate(id), way < 5 ? -EAGAIN : 0);
		IS(nu_ctrl_move_begin(&c, id, 2, &location, &bytes), -EBUSY);
		IS(nu_ctrl_resolve(&c, id, 2, 2), -EINVAL);
		IS(nu_ctrl_resolve(&c, id, way < 5 ? 0 : 1, way < 5 ? 1 : 2), -EHOSTDOWN);
		IS(nu_ctrl_resolve(&c, id, way < 5 ? 1 : 0, 7), -ESTALE);
		if (way == 0 || way == 5)
			OK(nu_ctrl_resolve(&c, id, way ? 0 : 1, way ? 1 : 2));
		else if (way == 1 || way == 6)
			OK(nu_ctrl_move_end(&c, id, way == 1 ? 1 : 0, way == 1 ? 2 : 1, way == 1));
		else if (way == 2 || way == 7)
			OK(nu_ctrl_resolve(&c, id, NONE, 0));
		else if (way == 3 || way == 8)
			OK(nu_ctrl_node_dead(&c, way == 3 ? 1 : 0));
		else
			OK(nu_ctrl_proclet_free(&c, id, 1));
		IS(nu_ctrl_doubts(&c, d, 2), 0);
		OK(nu_ctrl_check(&c));
		if (way == 0 || way == 1) {
			expect_at(id, 1, 2);
			OK(nu_ctrl_resolve(&c, id, 1, 2));
			IS(nu_ctrl_resolve(&c, id, 1, 1), -EINVAL);
		} else if (way == 5 || way == 6) {
			expect_at(id, 0, 1);
			move(id, 2);
		} else if (way == 4) {
			IS(locate(id), -ESTALE);
		} else {
			IS(locate(id), -EHOSTDOWN);
			OK(nu_ctrl_resolve(&c, id, NONE, 0));
			IS(nu_ctrl_resolve(&c, id, 2, 2), -EHOSTDOWN);
			IS(nu_ctrl_move_end(&c, id, 1, 2, true), -EHOSTDOWN);
		}
		stop();
	}
}

/* The source says after the destination's death that it had let go. */
Test(move, reported_at_a_dead_node)
{
	uint64_t id, location, bytes;

	start(3);
	id = make(0);
	OK(nu_ctrl_move_begin(&c, id, 1, &location, &bytes));
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_move_end(&c, id, 1, 2, true), -EHOSTDOWN);
	IS(locate(id), -EHOSTDOWN);
	id = make(0);
	OK(nu_ctrl_move_begin(&c, id, 2, &location, &bytes));
	OK(nu_ctrl_node_dead(&c, 0));
	IS(nu_ctrl_move_end(&c, id, 0, 1, false), -EHOSTDOWN);
	IS(locate(id), -EHOSTDOWN);
	stop();
}

/* ---- reuse ---- */

Test(reuse, waits_for_every_holder)
{
	uint64_t id, next, ids[2], holders[NU_CTRL_NODE_WORDS];
	uint32_t seg;

	start(4);
	id = make(0);
	seg = nu_id_seg(id);
	move(id, 1);
	move(id, 2);
	IS(nu_ctrl_forgot(&c, id, 2), -EBUSY);
	IS(nu_ctrl_forgot(&c, id, 9), -EINVAL);
	OK(nu_ctrl_forgot(&c, id, 3));
	OK(nu_ctrl_proclet_free(&c, id, 2));
	IS(locate(id), -ESTALE);
	IS(nu_ctrl_proclet_free(&c, id, 2), -ESTALE);
	OK(nu_ctrl_holders(&c, id, holders));
	IS(holders[0], 3);
	IS(nu_ctrl_waiting(&c, ids, 2), 1);
	cr_assert_eq(ids[0], id);
	next = make(3);
	cr_assert_neq(nu_id_seg(next), seg);
	OK(nu_ctrl_forgot(&c, id, 0));
	OK(nu_ctrl_forgot(&c, id, 0));
	next = make(3);
	cr_assert_neq(nu_id_seg(next), seg);
	OK(nu_ctrl_check(&c));
	/* The death of the last one counts as its confirmation. */
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_waiting(&c, ids, 2), 0);
	IS(nu_ctrl_holders(&c, id, holders), -ESTALE);
	IS(nu_ctrl_forgot(&c, id, 0), -ESTALE);
	IS(nu_ctrl_forgot(&c, id, 1), -EHOSTDOWN);
	next = make(3);
	cr_assert_eq(nu_id_seg(next), seg);
	cr_assert_neq(next, id);
	stop();
}

Test(reuse, lost_ones_wait_for_forwarding_notes)
{
	uint64_t id, ids[2];
	uint32_t seg;

	start(3);
	id = make(0);
	seg = nu_id_seg(id);
	move(id, 1);
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_waiting(&c, ids, 2), 1);
	cr_assert_neq(nu_id_seg(make(2)), seg);
	OK(nu_ctrl_forgot(&c, id, 0));
	cr_assert_eq(nu_id_seg(make(2)), seg);
	IS(locate(id), -EHOSTDOWN);
	OK(nu_ctrl_proclet_free(&c, id, 1));
	IS(locate(id), -ESTALE);
	stop();
}

/* ---- placement ---- */

Test(place, most_free_memory_then_fewest_then_turns)
{
	unsigned node, seen[4] = {0}, last;
	uint64_t id;

	start(4);
	/* All equal: by turns, as each newcomer is counted at once. */
	for (unsigned i = 0; i < 8; i++) {
		OK(nu_ctrl_proclet_new(&c, NU_MIB, false, NONE, 0, &id, &node));
		seen[node]++;
	}
	for (unsigned i = 0; i < 4; i++)
		IS(seen[i], 2);
	/* A large one there counts before any report. */
	OK(nu_ctrl_proclet_new(&c, NU_GIB, false, 3, 512 * NU_MIB, &id, &node));
	OK(nu_ctrl_proclet_ready(&c, id));
	for (unsigned i = 0; i < 30; i++) {
		OK(nu_ctrl_proclet_new(&c, NU_MIB, false, NONE, 0, &id, &node));
		cr_assert_neq(node, 3);
	}
	for (unsigned i = 0; i < 4; i++)
		OK(nu_ctrl_node_report(&c, i, i == 1 ? NU_MIB : 100 * NU_MIB));
	OK(nu_ctrl_proclet_new(&c, NU_MIB, false, NONE, 0, &id, &node));
	IS(node, 1);
	stop();
	/* Equal memory: fewer proclets first; equal in both: the next in turn. */
	start(3);
	make(0);
	make(0);
	make(1);
	for (unsigned i = 0; i < 3; i++)
		OK(nu_ctrl_node_report(&c, i, 0));
	OK(nu_ctrl_pick(&c, NONE, 0, &node));
	IS(node, 2);
	OK(nu_ctrl_pick(&c, 2, 0, &node));
	IS(node, 1);
	make(2), make(2), make(1);
	for (unsigned i = 0; i < 3; i++)
		OK(nu_ctrl_node_report(&c, i, 0));
	OK(nu_ctrl_pick(&c, NONE, 0, &last));
	for (unsigned i = 0; i < 6; i++, last = node) {
		OK(nu_ctrl_pick(&c, NONE, 0, &node));
		IS(node, (last + 1) % 3);
	}
	stop();
}

Test(place, destinations)
{
	uint64_t id, other, location, bytes;
	unsigned node;

	start(3);
	id = make(0), other = make(0);
	OK(nu_ctrl_proclet_sized(&c, id, 600 * NU_MIB));
	OK(nu_ctrl_proclet_sized(&c, other, 600 * NU_MIB));
	OK(nu_ctrl_node_report(&c, 1, 200 * NU_MIB));
	OK(nu_ctrl_place(&c, id, &node));
	IS(node, 2);
	OK(nu_ctrl_move_begin(&c, id, 2, &location, &bytes));
	/* What is on its way counts. */
	OK(nu_ctrl_place(&c, other, &node));
	IS(node, 1);
	OK(nu_ctrl_move_begin(&c, other, 1, &location, &bytes));
	IS(nu_ctrl_place(&c, other, &node), -ENOMEM);
	OK(nu_ctrl_move_end(&c, id, 2, 2, true));
	OK(nu_ctrl_move_end(&c, other, 0, 1, false));
	/* The one did not come: its room is free. The other did, and is counted though nobody reported it. */
	OK(nu_ctrl_place(&c, other, &node));
	IS(node, 1);
	OK(nu_ctrl_node_dead(&c, 1));
	IS(nu_ctrl_place(&c, other, &node), -ENOMEM);
	OK(nu_ctrl_set_state(&c, 2, NU_NODE_DRAINING));
	IS(nu_ctrl_place(&c, other, &node), -EINVAL);
	IS(nu_ctrl_place(&c, 12345, &node), -ESTALE);
	OK(nu_ctrl_proclet_new(&c, NU_MIB, true, 0, 0, &id, &node));
	IS(nu_ctrl_place(&c, id, &node), -EPERM);
	stop();
}

Test(place, drain_and_restore)
{
	uint64_t ids[300], got[300], location, bytes, after = 0;
	unsigned node, n, total = 0;

	start(3);
	OK(nu_ctrl_node_report(&c, 2, NU_MIB));
	for (unsigned i = 0; i < 300; i++) {
		OK(nu_ctrl_proclet_new(&c, NU_MIB << rnd(4), i % 10 == 3, 0, 0, &ids[i], &node));
		if (i != 100)
			OK(nu_ctrl_proclet_ready(&c, ids[i]));
	}
	IS(nu_ctrl_victims(&c, 5, 0, got, 300, &n), -EINVAL);
	OK(nu_ctrl_move_begin(&c, ids[1], 1, &location, &bytes));
	OK(nu_ctrl_set_state(&c, 0, NU_NODE_DRAINING));
	for (;;) {
		OK(nu_ctrl_victims(&c, 0, after, got, 7, &n));
		for (unsigned i = 0; i < n; i++) {
			cr_assert_gt(got[i], after);
			after = got[i];
			OK(nu_ctrl_place(&c, got[i], &node));
			cr_assert_neq(node, 0);
			move(got[i], node);
		}
		total += n;
		if (n < 7)
			break;
	}
	IS(total, 300 - 30 - 2);
	OK(nu_ctrl_move_end(&c, ids[1], 1, 2, true));
	OK(nu_ctrl_check(&c));
	/* One is freed, one lives with a node that dies: 268 - 1 - those of node 2, and the one that left last. */
	OK(nu_ctrl_locate(&c, ids[5], &node, &location));
	OK(nu_ctrl_proclet_free(&c, ids[5], node));
	OK(nu_ctrl_away(&c, 0, 0, got, 300, &n));
	IS(n, 268);
	for (unsigned i = 1; i < n; i++)
		cr_assert_lt(got[i - 1], got[i]);
	OK(nu_ctrl_node_dead(&c, 2));
	OK(nu_ctrl_away(&c, 0, 0, got, 300, &n));
	cr_assert(n > 50 && n < 260);
	OK(nu_ctrl_set_state(&c, 0, NU_NODE_UP));
	for (unsigned i = 0; i < n; i++)
		move(got[i], 0);
	OK(nu_ctrl_away(&c, 0, 0, got, 300, &n));
	IS(n, 0);
	stop();
}

Test(list, every_proclet_once)
{
	static struct nu_ctrl_info infos[64];
	static uint64_t ids[5000];
	uint64_t cursor = 0, extra;
	unsigned n, listed = 0;

	start(2);
	for (unsigned i = 0; i < 5000; i++)
		ids[i] = make(i % 2);
	/* Holes, and others that come while we look. */
	for (unsigned i = 0; i < 5000; i += 5)
		OK(nu_ctrl_proclet_free(&c, ids[i], i % 2));
	while (cursor != ~(uint64_t)0) {
		n = nu_ctrl_list(&c, &cursor, infos, 64);
		for (unsigned i = 0; i < n; i++) {
			for (unsigned k = 0; k < 5000; k++) {
				if (ids[k] != infos[i].id)
					continue;
				IS(infos[i].node, k % 2);
				IS(infos[i].capacity_bytes, NU_MIB);
				IS(infos[i].moving_to, NONE);
				ids[k] = 0;
				listed++;
			}
		}
		extra = make(0);
		if (listed % 128 == 0)
			OK(nu_ctrl_proclet_free(&c, extra, 0));
	}
	IS(listed, 4000);
	stop();
}

/* ---- size and speed ---- */

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Reports rates; what it holds is that nothing depends on how many proclets a node has. */
Test(speed, many_proclets_on_a_node, .timeout = 100)
{
	enum { MANY = 40000, FEW = 100, LOOKS = 1000000 };
	static uint64_t ids[MANY], buf[64];
	double t0, create_s, locate_s[2] = {0}, move_s;
	uint64_t location, bytes;
	unsigned node, n;

	start(2);
	seed = 5;
	t0 = now_s();
	for (unsigned i = 0; i < MANY; i++) {
		if (i == FEW) {
			double t1 = now_s();

			for (unsigned k = 0; k < LOOKS; k++)
				OK(nu_ctrl_locate(&c, ids[rnd(FEW)], &node, &location));
			locate_s[0] = now_s() - t1;
			t0 += locate_s[0];
		}
		ids[i] = make(0);
	}
	create_s = now_s() - t0;
	t0 = now_s();
	for (unsigned k = 0; k < LOOKS; k++)
		OK(nu_ctrl_locate(&c, ids[rnd(MANY)], &node, &location));
	locate_s[1] = now_s() - t0;
	t0 = now_s();
	for (unsigned i = 0; i < MANY; i++) {
		OK(nu_ctrl_move_begin(&c, ids[i], 1, &location, &bytes));
		OK(nu_ctrl_move_end(&c, ids[i], 1, location, true));
	}
	move_s = now_s() - t0;
	OK(nu_ctrl_victims(&c, 1, 0, buf, 64, &n));
	IS(n, 64);
	t0 = now_s();
	OK(nu_ctrl_node_dead(&c, 1));
	fprintf(stderr,
		"create %.2f M/s, locate %.2f M/s (%.2f among %d), move %.2f M/s, death of %d proclets "
		"%.1f ms\n",
		MANY / create_s / 1e6, LOOKS / locate_s[1] / 1e6, LOOKS / locate_s[0] / 1e6, FEW,
		MANY / move_s / 1e6, MANY, (now_s() - t0) * 1e3);
	IS(locate(ids[0]), -EHOSTDOWN);
	/* A scan of all would be 400 times slower. */
	cr_assert_lt(locate_s[1], 40 * locate_s[0]);
	stop();
}
