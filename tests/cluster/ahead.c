/* SPDX-License-Identifier: MIT */
/*
 * A heap's memory is offered to the destination before the proclet is paused. What becomes of a heap that grows, shrinks or
 * ends between the two: all of it arrives, and no memory is given back while it is offered.
 *
 * Two nodes of two cores, whose memory is read by offers.
 */
#include "check.h"

#include <nu/nu_testing.h>

#define BLOCKS	      64u
#define ROUNDS	      24u
#define TRIES	      20u
#define GROW_DELAY_US 20000u
#define END_DELAY_US  100000u
#define LOOK_US	      100u
#define WAIT_US_MAX   20000000u

struct block {
	uint64_t *words;
	size_t n;
};
struct body {
	struct block blocks[BLOCKS];
};
NU_CLASS(body);
NU_METHOD(body, set, val(int), val(unsigned, k), val(size_t, bytes));
NU_METHOD(body, wrong, val(uint64_t));

static uint64_t word(unsigned k, size_t i)
{
	return (k + 1) * 0x9e3779b97f4a7c15ull + i;
}

int body_init(struct body *b)
{
	return 0;
}

int body_do_set(struct body *b, unsigned k, size_t bytes)
{
	struct block *at = &b->blocks[k];

	free(at->words);
	*at = (struct block){malloc(bytes), bytes / sizeof(*at->words)};
	if (!at->words)
		return -ENOMEM;
	for (size_t i = 0; i < at->n; i++)
		at->words[i] = word(k, i);
	return 0;
}

uint64_t body_do_wrong(struct body *b)
{
	uint64_t wrong = 0;

	for (unsigned k = 0; k < BLOCKS; k++) {
		for (size_t i = 0; b->blocks[k].words && i < b->blocks[k].n; i++)
			wrong += b->blocks[k].words[i] != word(k, i);
	}
	return wrong;
}

/* On node 1. */
struct watcher {
	bool unused;
};
NU_CLASS(watcher);
NU_METHOD(watcher, left_behind, val(uint64_t));

static uint64_t left_behind(void)
{
	struct nu_testing_census c;

	nu_testing_census(&c);
	return c.arriving + c.held + c.pool_bytes;
}

int watcher_init(struct watcher *w)
{
	return 0;
}

uint64_t watcher_do_left_behind(struct watcher *w)
{
	return left_behind();
}

static void check_nothing_left(struct watcher_ref there)
{
	uint64_t end = nu_now_us() + WAIT_US_MAX, left = 1;

	do { /* the destination hears later that the move was given up */
		CHECK_IS(watcher_left_behind(there, &left), 0);
		left += left_behind();
	} while (left && nu_now_us() < end);
	CHECK_IS(left, 0);
}

/* ---- a move to node 1, which this node's fault point holds up between offer and pause ---- */

struct moving {
	struct nu_ref ref;
	struct nu_thread *thread;
	_Atomic bool over;
	int ret;
};

static void move_body(void *arg)
{
	struct moving *m = arg;

	do
		m->ret = nu_migrate(m->ref, 1);
	while (m->ret == -ETIMEDOUT); /* could not be paused */
	m->over = true;
}

static int64_t hits(const char *point)
{
	return nu_testing_fault_hits(point);
}

/* Returns when it has been offered. */
static void begin_move(struct moving *m, struct nu_ref ref)
{
	int64_t before = hits("move.ahead");

	*m = (struct moving){.ref = ref};
	CHECK_IS(nu_thread_spawn(move_body, m, &m->thread), 0);
	while (hits("move.ahead") == before && !m->over)
		nu_yield();
}

static void hold_up(unsigned us)
{
	char rule[64];

	snprintf(rule, sizeof(rule), "move.ahead:delay=%u", us);
	CHECK_IS(nu_testing_fault(rule), 0);
}

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void grows_and_shrinks(void)
{
	uint64_t x = 88172645463325252u, wrong = 1;
	unsigned between = 0;
	NU_SCOPED(body, b);
	NU_SCOPED(watcher, there);

	CHECK_IS(watcher_create(&(struct nu_options){.node = NU_NODE(1), .pinned = true}, &there), 0);
	CHECK_IS(body_create(&(struct nu_options){.node = NU_NODE(0)}, &b), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct moving m;
		int64_t paused;
		int ret = -1;

		hold_up(GROW_DELAY_US);
		paused = hits("move.paused");
		begin_move(&m, b.ref);
		for (unsigned i = 0; i < 3; i++) {
			size_t most = next_random(&x) % 4 ? 40000 : 1 << 20;

			CHECK_IS(body_set(b, next_random(&x) % BLOCKS, 8 + next_random(&x) % most, &ret), 0);
			CHECK_IS(ret, 0);
		}
		between += hits("move.paused") == paused;
		CHECK_IS(nu_thread_join(m.thread), 0);
		CHECK_IS(m.ret, 0);
		CHECK_IS(nu_testing_fault(NULL), 0);
		CHECK_IS(nu_locate(b.ref), 1);
		CHECK_IS(body_wrong(b, &wrong), 0);
		CHECK_IS(wrong, 0);
		CHECK_IS(check_move(b.ref, 0), 0);
		CHECK_IS(body_wrong(b, &wrong), 0);
		CHECK_IS(wrong, 0);
	}
	printf("     %u of %u times between offer and pause\n", between, ROUNDS);
	CHECK(between > 0);
	check_nothing_left(there);
}

/* True if the end began while the memory was offered. */
static bool end_one(void)
{
	int64_t begun, unmapped, withdrawn;
	bool offered = false;
	struct body_ref b = {{0}};
	struct moving m;
	int ret = -1;

	CHECK_IS(body_create(&(struct nu_options){.node = NU_NODE(0)}, &b), 0);
	CHECK_IS(body_set(b, 0, 300000, &ret), 0);
	CHECK_IS(ret, 0);
	hold_up(END_DELAY_US);
	begun = hits("retire.begun");
	unmapped = hits("retire.unmapped");
	withdrawn = hits("move.withdrawn");
	begin_move(&m, b.ref);
	body_ref_put(&b);
	while (!m.over) {
		bool has_begun = hits("retire.begun") != begun,
		     is_unmapped = hits("retire.unmapped") != unmapped;

		if (hits("move.withdrawn") == withdrawn) {
			CHECK_MSG(!is_unmapped, "memory was given back while it was offered");
			offered |= has_begun;
		}
		nu_sleep_us(LOOK_US);
	}
	CHECK_IS(nu_thread_join(m.thread), 0);
	check_left(1); /* the watcher */
	CHECK_IS(nu_testing_fault(NULL), 0);
	CHECK_MSG(m.ret == -ESTALE || !offered, "the move: %s", nu_strerror(m.ret));
	return offered;
}

static void ends(void)
{
	unsigned tries = 1;
	NU_SCOPED(watcher, there);

	CHECK_IS(watcher_create(&(struct nu_options){.node = NU_NODE(1), .pinned = true}, &there), 0);
	while (!end_one() && tries < TRIES)
		tries++;
	CHECK_MSG(tries < TRIES, "no proclet ended between offer and pause");
	check_nothing_left(there);
}

static int ahead_main(int argc, char **argv)
{
	if (nu_node_count() < 2) {
		CHECK_SKIP("ahead", "it takes two nodes");
		return 0;
	}
	CHECK_RUN(grows_and_shrinks);
	CHECK_RUN(ends);
	return check_done();
}
CHECK_PROGRAM(ahead_main)
