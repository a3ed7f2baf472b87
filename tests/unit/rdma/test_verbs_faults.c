/* SPDX-License-Identifier: MIT */
/* Reads that must not work, and what goes wrong: bad keys, strangers, failing calls, deaths. */
#include "tests/unit/rdma/verbs_rig.h"

/* ---- what must not work ---- */

/* Of what was withdrawn nothing can be read by its window, and the queue pair that it breaks is made anew. */
static void withdrawn(void *arg)
{
	struct nu_verbs_counts before;
	struct nu_piece piece;
	struct nu_extent e;
	struct answer a;

	CHECK(!nu_extent_get(128 * NU_KIB, true, true, &e));
	for (unsigned i = 0; i < 2; i++) {
		pull_once();
		before = counts_here();
		a = ask(.op = OFFER, .slot = i, .len = 128 * NU_KIB, .tag = 3);
		CHECK(!a.ret);
		ask(.op = WITHDRAW, .piece = a.piece);
		piece = piece_of(&a.piece, 0, 4096, e.home);
		CHECK(nu_reader_verbs.read(1, &piece, 1) == -EPERM);
		CHECK(!((char *)e.home)[0] && !((char *)e.home)[4095]);
		CHECK(counts_here().broken > before.broken);
		/* What was offered on that connection is not good for the next. */
		CHECK(!nu_verbs_connect(1));
		CHECK(nu_reader_verbs.read(1, &piece, 1) < 0);
	}
	pull_once();
	nu_extent_put(&e);
}
VERBS_TEST(withdrawn_offers, .options = "windows=on", .reader = withdrawn)

static void wrong_rkey(void *arg)
{
	struct answer a;
	struct nu_piece piece;
	struct nu_extent e;

	pull_once();
	CHECK(!nu_extent_get(128 * NU_KIB, true, true, &e));
	a = ask(.op = OFFER, .slot = 0, .len = 128 * NU_KIB, .tag = 3);
	a.piece.rkey ^= 0x5a5a5a;
	piece = piece_of(&a.piece, 0, 128 * NU_KIB, e.home);
	CHECK(nu_reader_verbs.read(1, &piece, 1) == -EPERM);
	piece.local = (char *)&piece; /* not the pool's */
	CHECK(nu_reader_verbs.read(1, &piece, 1) == -EFAULT);
	pull_once();
	nu_extent_put(&e);
}
VERBS_TEST(a_wrong_key_of_memory, .options = "", .reader = wrong_rkey)

static void stranger(void *arg)
{
	CHECK(nu_verbs_connect(1) == -EACCES);
	CHECK(ask(.op = COUNTS).counts.refused == 2);
	CHECK(ask(.op = CONNECT).ret == -EACCES);
	CHECK(counts_here().refused == 2);
	expect_queue_pairs(0);
}
VERBS_TEST(another_secret_is_refused, .options = "qps=2", .reader = stranger, .other_key = KEY + 1)
VERBS_TEST(another_job_is_refused, .options = "qps=2", .reader = stranger, .other_job = true)

/* ---- what goes wrong ---- */

static void completions_fail(void *arg)
{
	struct nu_extent e;
	struct answer a;
	struct nu_piece piece;

	CHECK(!nu_extent_get(NU_MIB, true, true, &e));
	for (unsigned nth = 1; nth <= 4; nth++) {
		char rule[64];

		pull_once();
		a = ask(.op = OFFER, .slot = nth, .len = NU_MIB, .tag = nth);
		CHECK(!a.ret);
		piece = piece_of(&a.piece, 0, NU_MIB, e.home);
		/* The first is always reached; later ones only if there are so many completions. */
		snprintf(rule, sizeof(rule), "%s#1:error=%d", nth & 1 ? "rdma.complete" : "rdma.post", EIO);
		CHECK(!nu_fault_arm(rule));
		CHECK(nu_reader_verbs.read(1, &piece, 1) == -EIO);
		CHECK(!nu_fault_arm(NULL));
		ask(.op = WITHDRAW, .piece = a.piece);
		CHECK(!nu_verbs_connect(1));
		pull(10 + nth, NU_MIB, nth, &e);
	}
	CHECK(counts_here().broken == 4);
	nu_extent_put(&e);
}
VERBS_TEST(reads_that_fail, .options = "windows=off,read=64K", .reader = completions_fail)
VERBS_TEST(reads_that_fail_by_windows, .options = "windows=on,read=64K", .reader = completions_fail)

static void connections_fail(void *arg)
{
	CHECK(!ask(.op = FAULT, .text = "rdma.connect:error=1").ret);
	CHECK(nu_verbs_connect(1) == -EACCES);
	CHECK(!ask(.op = FAULT).ret);
	pull_once();
	/* One of two is enough, and the other is made when it can be. */
	CHECK(!ask(.op = FAULT, .text = "rdma.bind#1:error=5").ret);
	CHECK(ask(.op = OFFER, .slot = 0, .len = 4096, .tag = 1).ret == -EIO);
	CHECK(!ask(.op = FAULT).ret);
	pull_once();
}
VERBS_TEST(connections_and_windows_that_fail, .options = "windows=on", .reader = connections_fail)

static void registration_fails(void *arg)
{
	struct nu_extent e;

	CHECK(!nu_fault_arm("rdma.register#1:error=12"));
	CHECK(nu_extent_get(4 * NU_MIB, false, true, &e) == -ENOMEM);
	CHECK(!nu_fault_arm(NULL));
	CHECK(!nu_extent_get(4 * NU_MIB, false, true, &e));
	nu_extent_put(&e);
	pull_once();
}
VERBS_TEST(a_registration_that_fails, .options = "", .reader = registration_fails)

/* Both ends are made and broken again and again: what there is stays what it was. */
static void no_leaks(void *arg)
{
	struct nu_verbs_counts here = {0}, there = {0}, now;
	unsigned fds = 0;

	for (unsigned i = 0; i < 8; i++) {
		struct answer a;
		struct nu_piece piece;
		struct nu_extent e;

		pull_once();
		expect_queue_pairs(2);
		if (i == 1) {
			here = counts_here();
			there = ask(.op = COUNTS).counts;
			fds = open_fds();
		}
		CHECK(!nu_extent_get(128 * NU_KIB, true, true, &e));
		a = ask(.op = OFFER, .slot = 0, .len = 128 * NU_KIB, .tag = 1);
		CHECK(!a.ret);
		if (i & 1)
			a.piece.rkey ^= 0x5a5a5a;
		else
			CHECK(!nu_fault_arm("rdma.complete#1:error=5"));
		piece = piece_of(&a.piece, 0, 128 * NU_KIB, e.home);
		CHECK(nu_reader_verbs.read(1, &piece, 1) < 0);
		CHECK(!nu_fault_arm(NULL));
		a.piece.rkey ^= i & 1 ? 0x5a5a5a : 0;
		ask(.op = WITHDRAW, .piece = a.piece);
		nu_extent_put(&e);
	}
	pull_once();
	expect_queue_pairs(2);
	now = counts_here();
	CHECK(now.regions == here.regions && now.windows == here.windows && open_fds() == fds);
	CHECK(now.broken >= 8);
	for (unsigned tries = 0; (now = ask(.op = COUNTS).counts).queue_pairs != 2 && tries < 2000; tries++)
		nu_sleep_us(5000);
	CHECK(now.queue_pairs == 2 && now.regions == there.regions);
}
VERBS_TEST(nothing_leaks, .options = "windows=on", .reader = no_leaks)

static void kill_body(void *arg)
{
	uint64_t before = counts_here().completions;

	while (counts_here().completions < before + 3) /* in the middle of it */
		nu_yield();
	CHECK(!kill(other_pid, SIGKILL));
}

static void peer_killed(void *arg)
{
	struct nu_piece pieces[4];
	struct nu_extent to[4];
	struct nu_thread *t;
	int ret = 0;

	pull_once();
	for (unsigned i = 0; i < 4; i++) {
		struct answer a = ask(.op = OFFER, .slot = i, .len = 2 * NU_MIB, .tag = 1);

		CHECK(!a.ret);
		CHECK(!nu_extent_get(2 * NU_MIB, true, true, &to[i]));
		pieces[i] = piece_of(&a.piece, 0, 2 * NU_MIB, to[i].home);
	}
	CHECK(!nu_thread_spawn(kill_body, NULL, &t));
	while (!ret)
		ret = nu_reader_verbs.read(1, pieces, 4);
	CHECK(ret == -EIO);
	CHECK(!nu_thread_join(t));
	/* Nothing arrives any more. */
	for (unsigned i = 0; i < 4; i++)
		memset(to[i].home, 0x77, to[i].len_bytes);
	atomic_store(&nu_node.dead[1], true);
	nu_verbs_peer_dead(1);
	CHECK(nu_reader_verbs.read(1, pieces, 4) == -EHOSTDOWN);
	CHECK(nu_verbs_connect(1) == -EHOSTDOWN);
	expect_queue_pairs(0);
	for (unsigned i = 0; i < 4; i++) {
		for (size_t at = 0; at < to[i].len_bytes; at += 512)
			CHECK(((unsigned char *)to[i].home)[at] == 0x77);
		nu_extent_put(&to[i]);
	}
}
VERBS_TEST(a_peer_that_is_killed, .options = "read=64K", .reader = peer_killed, .dies = true)

/* The source is told that the reader is dead while it reads: when that returns, nothing more is read. */
static void cut_off_body(void *arg)
{
	uint64_t before = counts_here().completions;

	while (counts_here().completions < before + 1)
		nu_yield();
	ask(.op = DEAD);
	ask(.op = FILL, .slot = 0, .len = 2 * NU_MIB, .tag = 2);
}

static void cut_off(void *arg)
{
	struct nu_piece piece;
	struct nu_extent e;
	struct nu_thread *t;
	struct answer a;
	size_t n = 0;

	CHECK(!nu_verbs_connect(1));
	a = ask(.op = OFFER, .slot = 0, .len = 2 * NU_MIB, .tag = 1);
	CHECK(!a.ret);
	CHECK(!nu_extent_get(2 * NU_MIB, true, true, &e));
	piece = piece_of(&a.piece, 0, 2 * NU_MIB, e.home);
	CHECK(!nu_thread_spawn(cut_off_body, NULL, &t));
	CHECK(nu_reader_verbs.read(1, &piece, 1) < 0);
	CHECK(!nu_thread_join(t));
	/* Every byte is as it was before, or was not read. */
	for (size_t at = 0; at < e.len_bytes; at++) {
		unsigned char b = ((unsigned char *)e.home)[at];

		CHECK(b == byte_of(1, at) || !b);
		n += b != 0;
	}
	CHECK(n);
	pull_once(); /* it lives after all */
	nu_extent_put(&e);
}
VERBS_TEST(a_reader_that_is_cut_off, .options = "windows=off,read=64K,qps=1", .reader = cut_off)
VERBS_TEST(a_reader_that_is_cut_off_by_windows, .options = "windows=on,read=64K,qps=1", .reader = cut_off)
