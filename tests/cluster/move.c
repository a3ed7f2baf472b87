/* SPDX-License-Identifier: MIT */
/*
 * Moves themselves: what they refuse, from inside, with heaps of all sizes, without room, with a thread that cannot be
 * stopped in time, draining and restoring nodes under load. Run with two cores and little memory.
 *
 * usage: move [MIB]    the largest heap of those that are filled, grown and moved (64)
 */
#include "check.h"

#include <math.h>

#define MIB	 ((size_t)1 << 20)
#define PULSE_US 2000

/* ---- a proclet with a heap that can be filled and a thread that lives ---- */

struct block {
	uint64_t *words;
	size_t n;
};
struct body {
	struct block blocks[64];
	unsigned nblocks;
	_Atomic uint64_t beats;
	_Atomic bool stop, inside;
	struct nu_waitgroup out;
};
NU_CLASS(body);
NU_METHOD(body, fill, val(int), val(size_t, bytes), val(uint64_t, seed));
NU_METHOD(body, verify, val(uint64_t), val(uint64_t, seed));
NU_METHOD(body, drop, none, val(bool, odd_only));
NU_METHOD(body, hop, val(int), val(unsigned, node));
NU_METHOD(body, where, val(unsigned));
NU_METHOD(body, start, val(int));
NU_METHOD(body, beats, val(uint64_t));
NU_METHOD(body, stop, none);
NU_METHOD(body, long_call, val(uint64_t), val(unsigned, order));
NU_METHOD(body, is_inside, val(bool));
NU_METHOD(body, move_when_inside, val(int), ref(body, other), val(unsigned, node));

int body_init(struct body *b)
{
	return 0;
}

int body_do_fill(struct body *b, size_t bytes, uint64_t seed)
{
	struct block *k = &b->blocks[b->nblocks];

	if (b->nblocks == 64)
		return -ENOSPC;
	k->n = bytes / sizeof(*k->words);
	k->words = malloc(bytes);
	if (!k->words)
		return -ENOMEM;
	for (size_t i = 0; i < k->n; i++)
		k->words[i] = (seed + b->nblocks) * 0x9e3779b97f4a7c15ull + i;
	b->nblocks++;
	return 0;
}

/* Return: words that are not what they should be. */
uint64_t body_do_verify(struct body *b, uint64_t seed)
{
	uint64_t wrong = 0;

	for (unsigned k = 0; k < b->nblocks; k++) {
		for (size_t i = 0; b->blocks[k].words && i < b->blocks[k].n; i++)
			wrong += b->blocks[k].words[i] != (seed + k) * 0x9e3779b97f4a7c15ull + i;
	}
	return wrong;
}

void body_do_drop(struct body *b, bool odd_only)
{
	for (unsigned k = 0; k < b->nblocks; k++) {
		if (odd_only && k % 2 == 0)
			continue;
		free(b->blocks[k].words);
		b->blocks[k].words = NULL;
	}
	if (!odd_only)
		b->nblocks = 0;
}

/* Moves the proclet that it runs in, and goes on at the other node. */
int body_do_hop(struct body *b, unsigned node)
{
	char mark[512];
	int ret;

	memset(mark, 0x5a, sizeof(mark));
	ret = nu_migrate(nu_self(), node);
	for (size_t i = 0; i < sizeof(mark); i++) {
		if (mark[i] != 0x5a)
			return -EIO;
	}
	return ret ? ret : nu_node_self() == node ? 0 : -EXDEV;
}

unsigned body_do_where(struct body *b)
{
	return nu_node_self();
}

static void beat_body(void *arg)
{
	struct body *b = arg;

	while (!b->stop) {
		b->beats++;
		nu_sleep_us(PULSE_US);
	}
	nu_waitgroup_done(&b->out);
}

int body_do_start(struct body *b)
{
	nu_waitgroup_add(&b->out, 1);
	return nu_thread_spawn(beat_body, b, NULL);
}

uint64_t body_do_beats(struct body *b)
{
	return b->beats;
}

void body_do_stop(struct body *b)
{
	b->stop = true;
	nu_waitgroup_wait(&b->out);
}

/*
 * One call into a library that computes for a long time (a recurrence over the order), and where it cannot be
 * interrupted for a move. Return: how long it took, in us.
 */
uint64_t body_do_long_call(struct body *b, unsigned order)
{
	double (*volatile bessel)(int, double) = jn; /* a pure function would be moved about */
	uint64_t begin = nu_now_us();
	double y;

	b->inside = true;
	y = bessel((int)order, 2.0 * order);
	b->inside = false;
	return y == y ? nu_now_us() - begin : 0;
}

/* Called on its node: messages for the processor that is stuck there would wait. */
int body_do_move_when_inside(struct body *b, struct body_ref other, unsigned node)
{
	uint64_t end = nu_now_us() + 5000000;
	bool inside = false;
	int ret;

	while (!inside && nu_now_us() < end) {
		ret = body_is_inside(other, &inside);
		if (ret)
			return ret;
		nu_yield();
	}
	ret = nu_migrate(other.ref, node);
	if (!inside || body_is_inside(other, &inside) || !inside)
		return -ETIME; /* the call was over before the move gave up */
	return ret;
}

bool body_do_is_inside(struct body *b)
{
	return b->inside;
}

/* ---- tests ---- */

static struct body_ref make(unsigned node, bool pinned, size_t capacity)
{
	struct body_ref b = {{0}};
	struct nu_options o = {.node = NU_NODE(node), .pinned = pinned, .capacity_bytes = capacity};

	CHECK_IS(body_create(&o, &b), 0);
	return b;
}

static void refused(void)
{
	struct body_ref b = make(0, false, 0), pin = make(0, true, 0), gone;
	unsigned at = 99;

	CHECK_IS(nu_migrate(pin.ref, 1), -EPERM);
	CHECK_IS(nu_migrate(pin.ref, 0), 0);
	CHECK_IS(nu_migrate(b.ref, nu_node_count()), -EINVAL);
	CHECK_IS(nu_migrate(b.ref, 4000000000u), -EINVAL);
	CHECK_IS(nu_migrate(nu_self(), 1), -EPERM); /* the main proclet */
	CHECK_IS(nu_migrate((struct nu_ref){0}, 1), -ESTALE);
	CHECK_IS(nu_migrate(b.ref, 0), 0);
	CHECK_IS(nu_migrate(b.ref, 1), 0);
	CHECK_IS(nu_locate(b.ref), 1);
	CHECK_IS(nu_migrate(b.ref, 1), 0);
	CHECK_IS(body_where(b, &at), 0);
	CHECK_IS(at, 1);
	CHECK_IS(nu_locate(pin.ref), 0);
	gone = b;
	body_ref_put(&b);
	body_ref_put(&pin);
	check_left(0);
	CHECK_IS(nu_migrate(gone.ref, 0), -ESTALE);
	CHECK_IS(nu_migrate(gone.ref, 1), -ESTALE);
}

static void from_inside(void)
{
	struct body_ref b = make(0, false, 0);

	for (unsigned i = 1; i <= 40; i++) {
		int ret = -1;

		CHECK_IS(body_hop(b, i % nu_node_count(), &ret), 0);
		CHECK_IS(ret, 0);
		CHECK_IS(nu_locate(b.ref), i % nu_node_count());
	}
	body_ref_put(&b);
	check_left(0);
}

static void created_where_asked(void)
{
	for (unsigned n = 0; n < nu_node_count(); n++) {
		struct body_ref b = make(n, false, 0);
		unsigned at = 99;

		CHECK_IS(nu_locate(b.ref), n);
		CHECK_IS(body_where(b, &at), 0);
		CHECK_IS(at, n);
		body_ref_put(&b);
	}
	check_left(0);
}

static size_t largest_bytes = 64 * MIB;

/* Grown before, between and after moves; holes freed at another node than they were made at. */
static void heaps_of_all_sizes(void)
{
	static const size_t sizes[] = {1 << 10, 5000,	 64 << 10, 300000,  1 << 20,
				       3 << 20, 8 << 20, 20 << 20, 64 << 20};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]) && sizes[s] <= largest_bytes; s++) {
		struct body_ref b = make(s % nu_node_count(), false, 0);
		uint64_t wrong;
		int ret = -1;

		for (unsigned round = 0; round < 3; round++) {
			for (unsigned k = 0; k < 4; k++) {
				CHECK_IS(body_fill(b, sizes[s] / 4, s * 100, &ret), 0);
				CHECK_IS(ret, 0);
				if (k % 2)
					CHECK_IS(check_shuttle(b.ref, 1), 0);
			}
			CHECK_IS(body_verify(b, s * 100, &wrong), 0);
			CHECK_MSG(!wrong, "%lu words of %zu bytes are wrong", (unsigned long)wrong, sizes[s]);
			CHECK_IS(body_drop(b, true), 0);
			CHECK_IS(check_shuttle(b.ref, 1), 0);
			CHECK_IS(body_verify(b, s * 100, &wrong), 0);
			CHECK_MSG(!wrong, "%lu words of %zu bytes are wrong after half were freed",
				  (unsigned long)wrong, sizes[s]);
			CHECK_IS(body_drop(b, false), 0);
		}
		body_ref_put(&b);
		check_left(0);
	}
}

static uint64_t undone(void)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < nu_node_count(); n++) {
		struct nu_stats s;

		CHECK_IS(nu_stats(n, &s), 0);
		sum += s.moves_undone;
	}
	return sum;
}

/* It lives: its thread has gone on beating, its heap is whole. */
static void check_alive(struct body_ref b, unsigned node, uint64_t seed)
{
	uint64_t before = 0, now = 0, wrong = 1, end = nu_now_us() + 5000000;

	CHECK_IS(nu_locate(b.ref), node);
	CHECK_IS(body_beats(b, &before), 0);
	do {
		nu_sleep_us(PULSE_US);
		CHECK_IS(body_beats(b, &now), 0);
	} while (now <= before && nu_now_us() < end);
	CHECK_MSG(now > before, "its thread has stopped");
	CHECK_IS(body_verify(b, seed, &wrong), 0);
	CHECK_IS(wrong, 0);
}

static void without_room(void)
{
	struct body_ref b = make(0, false, 0), hogs[64];
	unsigned nhogs = 0;
	int ret = -1;

	CHECK_IS(body_fill(b, 40 * MIB, 5, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(body_start(b, &ret), 0);
	for (ret = 0; !ret && nhogs < 64;) { /* node 1 is filled up */
		hogs[nhogs++] = make(1, true, 0);
		CHECK_IS(body_fill(hogs[nhogs - 1], 16 * MIB, 0, &ret), 0);
	}
	CHECK_IS(ret, -ENOMEM);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_IS(check_move(b.ref, 1), -ENOMEM);
		check_alive(b, 0, 5);
	}
	while (nhogs)
		body_ref_put(&hogs[--nhogs]);
	check_left(1);
	CHECK_IS(check_move(b.ref, 1), 0);
	check_alive(b, 1, 5);
	CHECK_IS(body_stop(b), 0);
	body_ref_put(&b);
	check_left(0);
}

static void not_stopped_in_time(void)
{
	struct body_ref b = make(1, false, 0), mover = make(1, true, 0);
	uint64_t took = 0, before = undone();
	unsigned order = 1 << 20;
	int ret = -1;

	CHECK_IS(body_start(b, &ret), 0);
	CHECK_IS(body_fill(b, 100000, 9, &ret), 0);
	while (took < 250000 && order < 1 << 26) { /* as much as it takes here */
		order *= 2;
		CHECK_IS(body_long_call(b, order, &took), 0);
	}
	/* On a busy machine the mover may have had no processor for as long: then again, with twice as much. */
	for (ret = -ETIME; ret == -ETIME && order < 1 << 29; order *= 2) {
		NU_SCOPED_FUTURE(body, move_when_inside, moving);
		NU_SCOPED_FUTURE(body, long_call, f);

		CHECK_IS(check_move(b.ref, 1), 0);
		CHECK_IS(body_move_when_inside_async(mover, b, 0, &moving), 0);
		CHECK_IS(body_long_call_async(b, order, &f), 0);
		CHECK_IS(body_move_when_inside_wait(&moving, &ret), 0);
		if (ret != -ETIME)
			check_alive(b, 1, 9);
		CHECK_IS(body_long_call_wait(&f, &took), 0);
		CHECK(took);
	}
	CHECK_IS(ret, -ETIMEDOUT);
	CHECK_MSG(undone() > before, "no move was undone");
	CHECK_IS(check_move(b.ref, 0), 0);
	check_alive(b, 0, 9);
	CHECK_IS(body_stop(b), 0);
	body_ref_put(&b);
	body_ref_put(&mover);
	check_left(0);
}

#define CROWD 10

static void check_state(unsigned node, enum nu_node_state want, long proclets)
{
	struct nu_node_info infos[16];
	int n = nu_nodes(infos, 16);

	CHECK_IS(n, nu_node_count());
	CHECK_IS(infos[node].node, node);
	CHECK_IS(infos[node].state, want);
	CHECK(infos[node].cores > 0 && infos[node].mem_total_bytes > 0 &&
	      infos[node].mem_used_bytes <= infos[node].mem_total_bytes);
	CHECK_MSG((long)infos[node].proclets == proclets,
		  "node %u has %lu proclets by the controller, want %ld", node,
		  (unsigned long)infos[node].proclets, proclets);
}

static void drained_under_load(void)
{
	struct body_ref b[CROWD], pin = make(1, true, 0), other = {{0}};
	unsigned moved = 0;
	uint64_t wrong;
	int ret = -1;

	for (unsigned i = 0; i < CROWD; i++) {
		b[i] = make(1, false, 0);
		CHECK_IS(body_fill(b[i], 100000 * (i + 1), i, &ret), 0);
		CHECK_IS(body_start(b[i], &ret), 0);
	}
	check_state(1, NU_NODE_UP, CROWD + 1);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_IS(nu_node_drain(1, &moved), 0);
		CHECK_IS(moved, CROWD);
		check_state(1, NU_NODE_DRAINING, 1);
		CHECK_IS(nu_locate(pin.ref), 1);
		CHECK_IS(body_create(NULL, &other), 0);
		CHECK(nu_locate(other.ref) != 1);
		body_ref_put(&other);
		for (unsigned i = 0; i < CROWD; i++) {
			CHECK(nu_locate(b[i].ref) != 1);
			CHECK_IS(body_verify(b[i], i, &wrong), 0);
			CHECK_IS(wrong, 0);
		}
		CHECK_IS(nu_node_restore(1, &moved), 0);
		CHECK_IS(moved, CROWD);
		for (unsigned i = 0; i < CROWD; i++)
			check_alive(b[i], 1, i);
		check_state(1, NU_NODE_UP, CROWD + 1);
	}
	CHECK_IS(nu_node_drain(nu_node_count(), &moved), -EINVAL);
	CHECK_IS(nu_node_restore(nu_node_count(), &moved), -EINVAL);
	for (unsigned i = 0; i < CROWD; i++) {
		CHECK_IS(body_stop(b[i]), 0);
		body_ref_put(&b[i]);
	}
	body_ref_put(&pin);
	check_left(0);
	check_state(1, NU_NODE_UP, 0);
}

static void counters_agree(void)
{
	struct nu_stats a[8], z[8];
	unsigned n = nu_node_count();
	struct body_ref b = make(0, false, 0);
	uint64_t in = 0, from = 0;
	unsigned at;

	for (unsigned i = 0; i < n && i < 8; i++)
		CHECK_IS(nu_stats(i, &a[i]), 0);
	CHECK_IS(check_shuttle(b.ref, 10 * n), 0);
	for (unsigned i = 0; i < 100; i++)
		CHECK_IS(body_where(b, &at), 0);
	body_ref_put(&b);
	check_left(0);
	for (unsigned i = 0; i < n && i < 8; i++) {
		CHECK_IS(nu_stats(i, &z[i]), 0);
		in += z[i].moves_in - a[i].moves_in;
		from += z[i].moves_out - a[i].moves_out;
		CHECK_IS(z[i].blackout_ns_count, z[i].moves_in);
		CHECK_IS(z[i].bad_messages, 0);
		CHECK(z[i].moves_in == 0 ||
		      (z[i].blackout_ns_max > 0 && z[i].blackout_ns_sum >= z[i].blackout_ns_max));
	}
	CHECK_IS(in, 10 * n);
	CHECK_IS(from, 10 * n);
	CHECK_IS(nu_stats(n, &a[0]), -EINVAL);
}

static int move_main(int argc, char **argv)
{
	if (nu_node_count() < 2) {
		CHECK_SKIP("move", "it takes two nodes");
		return 0;
	}
	if (argc > 1)
		largest_bytes = strtoul(argv[1], NULL, 0) * MIB;
	CHECK_RUN(refused);
	CHECK_RUN(from_inside);
	CHECK_RUN(created_where_asked);
	CHECK_RUN(heaps_of_all_sizes);
	CHECK_RUN(without_room);
	CHECK_RUN(not_stopped_in_time);
	CHECK_RUN(drained_under_load);
	CHECK_RUN(counters_agree);
	return check_done();
}
CHECK_PROGRAM(move_main)
