/* SPDX-License-Identifier: MIT */
/*
 * Checks of cluster programs. A program is a row of named tests that run in the main proclet; each passes if it made
 * checks and none failed. The last line is the one that tests/run reads.
 *
 * The counters are the main proclet's node's own: code of other proclets reports what it saw through its results.
 */
#pragma once

#include <nu/nu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For a function that looks at what others write at the same time, and waits until it is as it wants it. */
#define CHECK_PEEK __attribute__((noinline, no_sanitize("thread")))

#define CHECK_FREED_US_MAX (10u * 1000 * 1000)
#define CHECK_RETRY_US	   2000u
#define CHECK_RETRY_MAX	   5000u

static const char *check_name; /* of the test that runs */
static unsigned check_made, check_failed;
static unsigned check_tests_passed, check_tests_failed, check_tests_skipped;

#define CHECK_MSG(cond, ...)                                                                                 \
	do {                                                                                                 \
		check_made++;                                                                                \
		if (!(cond)) {                                                                               \
			check_failed++;                                                                      \
			printf("%s:%d: ", __FILE__, __LINE__);                                               \
			printf(__VA_ARGS__);                                                                 \
			printf("\n");                                                                        \
			fflush(stdout);                                                                      \
		}                                                                                            \
	} while (0)
#define CHECK(cond) CHECK_MSG(cond, "%s", #cond)
/* A status that must be @want. */
#define CHECK_IS(expr, want)                                                                                 \
	do {                                                                                                 \
		long check_got = (long)(expr), check_want = (long)(want);                                    \
		CHECK_MSG(check_got == check_want, "%s is %ld (%s), want %ld", #expr, check_got,             \
			  check_got < 0 ? nu_strerror((int)check_got) : "", check_want);                     \
	} while (0)

/* Proclets of the whole job, without the controller and the main one; -1 if a node did not answer. */
static inline __attribute__((unused)) long check_proclets(void)
{
	long sum = 0;

	for (unsigned n = 0; n < nu_node_count(); n++) {
		struct nu_stats s;

		if (nu_stats(n, &s))
			return -1;
		sum += (long)s.proclets_now;
	}
	return sum - 2;
}

/* Proclets are freed in the background after their last reference went: waits until @want are left, with a bound. */
static inline __attribute__((unused)) void check_left(long want)
{
	uint64_t end = nu_now_us() + CHECK_FREED_US_MAX;
	long left = check_proclets();

	while (left != want && nu_now_us() < end) {
		nu_sleep_us(CHECK_RETRY_US);
		left = check_proclets();
	}
	CHECK_MSG(left == want, "%ld proclets are left, want %ld", left, want);
}

/* Moves @ref to @node, again while somebody else moves it or its threads cannot be paused just then. */
static inline __attribute__((unused)) int check_move(struct nu_ref ref, unsigned node)
{
	int ret = -EBUSY;

	for (unsigned tries = 0; (ret == -EBUSY || ret == -ETIMEDOUT) && tries < CHECK_RETRY_MAX; tries++)
		ret = nu_migrate(ref, node);
	return ret;
}

/* Moves @ref @times times, each time to the node after the one where it is. Return: moves that failed. */
static inline __attribute__((unused)) unsigned check_shuttle(struct nu_ref ref, unsigned times)
{
	unsigned failed = 0;

	for (unsigned i = 0; i < times; i++) {
		int at = nu_locate(ref);

		if (at < 0 || check_move(ref, ((unsigned)at + 1) % nu_node_count()))
			failed++;
	}
	return failed;
}

/* How the bytes of moves were read, in the whole job: "read: cma 0, verbs 4096, am 0 bytes". */
static inline __attribute__((unused)) void check_print_reads(void)
{
	uint64_t cma = 0, verbs = 0, am = 0;

	for (unsigned n = 0; n < nu_node_count(); n++) {
		struct nu_stats s;

		CHECK_IS(nu_stats(n, &s), 0);
		cma += s.read_bytes_cma;
		verbs += s.read_bytes_verbs;
		am += s.read_bytes_am;
	}
	printf("read: cma %lu, verbs %lu, am %lu bytes\n", (unsigned long)cma, (unsigned long)verbs,
	       (unsigned long)am);
	CHECK(cma + verbs + am > 0);
}

static inline void check_end(uint64_t begin_us)
{
	bool ok = check_made && !check_failed;

	printf("%-4s %-32s %6u checks %8.1f ms\n", ok ? "ok" : "FAIL", check_name, check_made,
	       (double)(nu_now_us() - begin_us) / 1e3);
	fflush(stdout);
	if (ok)
		check_tests_passed++;
	else
		check_tests_failed++;
}

static inline __attribute__((unused)) void check_run(const char *name, void (*test)(void))
{
	uint64_t begin = nu_now_us();

	check_name = name;
	check_made = check_failed = 0;
	test();
	check_end(begin);
}
#define CHECK_RUN(fn) check_run(#fn, fn)

/* A test that cannot run here, and why. */
#define CHECK_SKIP(name, why)                                                                                \
	do {                                                                                                 \
		printf("SKIP %s: %s\n", name, why);                                                          \
		check_tests_skipped++;                                                                       \
	} while (0)

static inline int check_done(void)
{
	printf("%u passed, %u failed, %u skipped\n", check_tests_passed, check_tests_failed,
	       check_tests_skipped);
	return check_tests_failed || !check_tests_passed ? 1 : 0;
}

/* Tests count in globals of the main proclet's node, so these must stay writable. */
#define CHECK_PROGRAM(main_fn)                                                                               \
	int main(int argc, char **argv)                                                                      \
	{                                                                                                    \
		return nu_run(argc, argv, main_fn,                                                           \
			      &(const struct nu_run_options){.writable_globals = true});                     \
	}
