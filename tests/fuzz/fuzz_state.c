/* SPDX-License-Identifier: MIT */
/*
 * The controller's state machine: any operation with any arguments in any order, as its methods' callers may give them.
 * Input: operations, each a byte and its arguments. After each the state is checked against itself.
 */
#include "ctrl/state.h"

#include "fuzz.h"

#define OPS_MAX 400
#define IDS_MAX 64

static struct nu_ctrl c;
static uint64_t ids[IDS_MAX];
static unsigned nids;

static unsigned node(struct in *in)
{
	uint8_t v = in_u8(in);

	return v < 240 ? v % 6 : v < 250 ? v : v < 253 ? NU_CTRL_NO_NODE : in_u32(in);
}

static uint64_t id(struct in *in)
{
	uint8_t v = in_u8(in);

	if (v >= 248)
		return in_u64(in);
	if (v >= 240)
		return nu_id_of_node(v - 240);
	return nids ? ids[v % nids] : v;
}

static void add(uint64_t new_id)
{
	for (unsigned i = 0; i < nids; i++)
		FUZZ_CHECK(ids[i] != new_id); /* ids never come again */
	if (nids < IDS_MAX)
		ids[nids++] = new_id;
}

static void lists(struct in *in)
{
	static struct nu_ctrl_doubt doubts[8];
	static struct nu_node_info nodes[NU_MAX_NODES];
	static struct nu_ctrl_info infos[16];
	static uint64_t out[8];
	uint64_t cursor = in_number(in), before;
	unsigned count = 0;

	(void)nu_ctrl_doubts(&c, doubts, in_u8(in) % 9);
	(void)nu_ctrl_nodes(&c, nodes, NU_MAX_NODES);
	(void)nu_ctrl_waiting(&c, out, in_u8(in) % 9);
	if (!nu_ctrl_victims(&c, node(in), id(in), out, in_u8(in) % 9, &count))
		FUZZ_CHECK(count <= 8);
	if (!nu_ctrl_away(&c, node(in), id(in), out, in_u8(in) % 9, &count))
		FUZZ_CHECK(count <= 8);
	for (unsigned pages = 0; cursor != UINT64_MAX; pages++) {
		before = cursor;
		FUZZ_CHECK(nu_ctrl_list(&c, &cursor, infos, 16) <= 16);
		FUZZ_CHECK(cursor > before && pages < 100);
	}
}

static void operate_on_nodes(struct in *in)
{
	unsigned n;

	switch (in_u8(in) % 4) {
	case 0:
		n = node(in);
		(void)!nu_ctrl_node_join(&c, n, in_u8(in), in_number(in) * NU_MIB);
		break;
	case 1:
		n = node(in);
		(void)!nu_ctrl_node_report(&c, n, in_number(in) * NU_MIB);
		break;
	case 2:
		if (in_u8(in) < 64)
			(void)!nu_ctrl_node_dead(&c, node(in));
		break;
	default:
		n = node(in);
		(void)!nu_ctrl_set_state(&c, n, (enum nu_node_state)(in_u8(in) % 5));
	}
}

static void operate(struct in *in)
{
	uint64_t new_id = 0, location = 0, bytes, holders[NU_CTRL_NODE_WORDS], which;
	unsigned at = 0, n;

	switch (in_u8(in) % 18) {
	case 0 ... 3:
		operate_on_nodes(in);
		break;
	case 4 ... 6:
		bytes = in_number(in);
		n = in_u8(in) & 1 ? NU_CTRL_NO_NODE : node(in);
		at = in_u8(in);
		if (!nu_ctrl_proclet_new(&c, bytes << 20, at & 1, n, in_number(in), &new_id, &at))
			add(new_id);
		break;
	case 7:
		n = node(in);
		if (!nu_ctrl_proclet_main(&c, n, in_number(in) << 20, &new_id))
			add(new_id);
		break;
	case 8:
		(void)!nu_ctrl_proclet_ready(&c, id(in));
		break;
	case 9:
		which = id(in);
		(void)!nu_ctrl_proclet_sized(&c, which, in_number(in));
		break;
	case 10:
		(void)!nu_ctrl_locate(&c, id(in), &at, &location);
		break;
	case 11:
		which = id(in);
		(void)!nu_ctrl_proclet_free(&c, which, node(in));
		break;
	case 12:
		which = id(in);
		(void)!nu_ctrl_forgot(&c, which, node(in));
		break;
	case 13:
		(void)!nu_ctrl_holders(&c, id(in), holders);
		break;
	case 14:
		which = id(in);
		(void)!nu_ctrl_move_begin(&c, which, node(in), &location, &bytes);
		break;
	case 15:
		which = id(in);
		at = node(in);
		location = in_number(in);
		(void)!nu_ctrl_move_end(&c, which, at, location, in_u8(in) & 1);
		break;
	case 16:
		which = id(in);
		at = node(in);
		if (!(in_u8(in) & 1))
			(void)!nu_ctrl_resolve(&c, which, at, in_number(in));
		else
			(void)!nu_ctrl_place(&c, which, &at);
		break;
	default:
		lists(in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct in in = {data, len};

	nids = 0;
	if (nu_ctrl_init(&c, in_u8(&in)))
		return 0;
	for (unsigned i = 0; in.left && i < OPS_MAX; i++) {
		operate(&in);
		FUZZ_CHECK(!nu_ctrl_check(&c));
	}
	nu_ctrl_fini(&c);
	return 0;
}
