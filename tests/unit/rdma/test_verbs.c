/* SPDX-License-Identifier: MIT */
/* Reads that work: every size, many at once, what is installed, and what others do meanwhile. */
#include "tests/unit/rdma/verbs_rig.h"

static void sizes(void *arg)
{
	static const size_t lens[] = {1,     2,	    63,	   4095,       4096,	   4097,
				      65535, 65536, 65537, NU_MIB - 1, NU_MIB + 17};
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		CHECK(!nu_extent_get(lens[i], false, true, &e));
		pull(i, lens[i], i + 1, &e);
		ask(.op = PUT, .slot = i);
		nu_extent_put(&e);
	}
}
VERBS_TEST(every_size, .options = "windows=off", .reader = sizes)
VERBS_TEST(every_size_by_windows, .options = "windows=on", .reader = sizes)
VERBS_TEST(every_size_by_one_shallow_queue_pair, .options = "qps=1,depth=1,read=64K,mtu=1024,spin=1",
	   .reader = sizes)

static void large(void *arg)
{
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	CHECK(!nu_extent_get(8 * NU_MIB, false, true, &e));
	pull(0, 8 * NU_MIB, 9, &e);
	nu_extent_put(&e);
}
VERBS_TEST(larger_than_a_chunk, .options = "", .reader = large)

#define FAR (256 * NU_KIB)
/* Many extents at once, whose parts lie anywhere; some of what is read together lies apart here. */
static void parts(void *arg)
{
	enum { N = 6 };
	const size_t len = 512 * NU_KIB - 333;
	struct nu_offer_piece offers[N];
	struct nu_extent to[N];
	struct nu_piece pieces[4 * N];
	unsigned n = 0;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < N; i++) {
		struct answer a = ask(.op = OFFER, .slot = i, .len = len, .tag = i);

		CHECK(!a.ret);
		offers[i] = a.piece;
		CHECK(!nu_extent_get(512 * NU_KIB, true, true, &to[i]));
		/* In the source's order, except that the last two change places here. */
		pieces[n++] = piece_of(&offers[i], 0, 777, to[i].home);
		pieces[n++] = piece_of(&offers[i], 777, 0, to[i].home);
		pieces[n++] = piece_of(&offers[i], 777, FAR, (char *)to[i].home + FAR);
		pieces[n++] = piece_of(&offers[i], FAR + 777, 100001, (char *)to[i].home + 1001);
	}
	CHECK(!nu_reader_verbs.read(1, pieces, n));
	for (unsigned i = 0; i < N; i++) {
		CHECK(same(to[i].home, 777, i, 0));
		CHECK(same((unsigned char *)to[i].home + FAR, FAR, i, 777));
		CHECK(same((unsigned char *)to[i].home + 1001, 100001, i, FAR + 777));
		CHECK(!((unsigned char *)to[i].home)[1000] && !((unsigned char *)to[i].home)[1001 + 100001]);
		ask(.op = WITHDRAW, .piece = offers[i]);
		nu_extent_put(&to[i]);
	}
	/* 777 + 256 KiB + 100001 in READs of at most 256 KiB: two each, with local pieces joined. */
	CHECK(counts_here().reads_posted == 2 * N);
}
VERBS_TEST(parts_and_scattered_pieces, .options = "windows=off,read=256K", .reader = parts)
VERBS_TEST(parts_and_scattered_pieces_by_windows, .options = "windows=on,read=256K", .reader = parts)

static struct nu_offer_piece shared_offer;
static atomic_uint reads_left;
#define SHARED_BYTES (512 * NU_KIB)

static void many_body(void *arg)
{
	uint64_t x = (uint64_t)arg * 0x9e3779b97f4a7c15ull;
	struct nu_extent e;

	CHECK(!nu_extent_get(256 * NU_KIB, false, true, &e));
	while (atomic_fetch_sub(&reads_left, 1) - 1 < 1u << 30) {
		struct nu_piece piece;
		size_t from, len;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		from = x >> 33 & (256 * NU_KIB - 1);
		len = 1 + (x >> 13 & (x & 3 ? 0xfff : 0x3ffff));
		piece = piece_of(&shared_offer, from, len, e.home);
		CHECK(!nu_reader_verbs.read(1, &piece, 1));
		CHECK(same(e.home, len, 5, from));
	}
	nu_extent_put(&e);
}

static void many(void *arg)
{
	struct nu_thread *t[16];
	struct answer a;

	CHECK(!nu_verbs_connect(1));
	a = ask(.op = OFFER, .slot = 0, .len = SHARED_BYTES, .tag = 5);
	CHECK(!a.ret);
	shared_offer = a.piece;
	atomic_store(&reads_left, 160);
	for (uintptr_t i = 0; i < 16; i++)
		CHECK(!nu_thread_spawn(many_body, (void *)(i + 1), &t[i]));
	for (unsigned i = 0; i < 16; i++)
		CHECK(!nu_thread_join(t[i]));
	ask(.op = WITHDRAW, .piece = a.piece);
}
VERBS_TEST(many_threads, .options = "windows=off", .reader = many)
VERBS_TEST(many_threads_by_windows, .options = "windows=on,qps=4", .reader = many)
VERBS_TEST(many_threads_and_no_spinning, .options = "qps=1,depth=4,spin=1", .reader = many)

/* As a migration does it: the source's pages are at a segment, what was read is installed at one and offered in turn. */
static void installed(void *arg)
{
	struct nu_offer_piece back;
	struct nu_piece piece;
	struct nu_extent e;
	struct answer a;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < 2; i++) {
		const size_t len = (128 * NU_KIB << i) - 5;

		a = ask(.op = OFFER, .slot = i, .len = len, .tag = 1);
		CHECK(!a.ret);
		CHECK(!ask(.op = INSTALL, .slot = i).ret);
		ask(.op = FILL, .slot = i, .len = len, .tag = 100 + i); /* written at the segment's address */
		CHECK(!nu_extent_get(len, false, true, &e));
		piece = piece_of(&a.piece, 0, len, e.home);
		CHECK(!nu_reader_verbs.read(1, &piece, 1));
		ask(.op = WITHDRAW, .piece = a.piece);
		CHECK(!nu_extent_install(&e, nu_seg_addr(SEG_FIRST + 64 * i)));
		CHECK(same(e.at, len, 100 + i, 0));
		fill(e.at, len, 200 + i);
		/* The other direction has queue pairs of its own. */
		CHECK(!ask(.op = CONNECT).ret);
		CHECK(!nu_verbs_offer(1, &e, len, &back));
		CHECK(ask(.op = READ, .len = len, .tag = 200 + i, .piece = back).ret == 0);
		nu_verbs_withdraw(1, &back);
		nu_extent_put(&e);
	}
}
VERBS_TEST(installed_by_mremap, .options = "windows=off", .reader = installed)
VERBS_TEST(installed_by_mremap_and_by_windows, .options = "windows=on", .reader = installed)

/* Reading costs nothing while it waits: others' threads run. */
static atomic_bool stop_counting;
static void count_body(void *arg)
{
	unsigned long *n = arg;

	while (!atomic_load(&stop_counting)) {
		(*n)++;
		nu_yield();
	}
}

static void shares(void *arg)
{
	static unsigned long n[2];
	struct nu_thread *t[2];
	struct nu_verbs_counts c;
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < 2; i++)
		CHECK(!nu_thread_spawn(count_body, &n[i], &t[i]));
	CHECK(!nu_extent_get(4 * NU_MIB, false, true, &e));
	pull(0, 4 * NU_MIB, 1, &e);
	atomic_store(&stop_counting, true);
	for (unsigned i = 0; i < 2; i++)
		CHECK(!nu_thread_join(t[i]));
	c = counts_here();
	CHECK(c.sleeps && n[0] && n[1]);
	nu_extent_put(&e);
}
VERBS_TEST(others_run_meanwhile, .options = "spin=1", .reader = shares)

#define BOTH_ROUNDS 12

/* Both nodes connect at the same moment, and what they had is torn down under the two of them at the same moment. */
static void both_at_once(void *arg)
{
	const struct request connect = {.op = CONNECT}, dead = {.op = DEAD};
	struct nu_verbs_counts here, there;
	struct answer a;

	for (unsigned i = 0; i < BOTH_ROUNDS; i++) {
		say(&connect, sizeof(connect));
		CHECK(!nu_verbs_connect(1));
		hear(&a, sizeof(a));
		CHECK(!a.ret);
		pull_once();
		say(&dead, sizeof(dead));
		if (i % 2)
			nu_verbs_peer_dead(1);
		hear(&a, sizeof(a));
	}
	here = counts_here();
	there = ask(.op = COUNTS).counts;
	CHECK(!here.refused && !there.refused);
	pull_once();
}
VERBS_TEST(both_connect_at_once, .options = "windows=on", .reader = both_at_once)
