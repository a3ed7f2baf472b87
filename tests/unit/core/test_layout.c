/* SPDX-License-Identifier: MIT */
/* The layout, ids, and what a node has by default; log and counters. */
#include <criterion/criterion.h>

#include "core/core.h"
#include "tests/unit/make_room.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

Test(layout, defaults)
{
	cr_expect_eq(nu_layout.stack_node_bytes * NU_MAX_NODES, nu_layout.stack_region_bytes);
	cr_expect_geq(nu_layout.seg_region_bytes >> NU_SEG_UNIT_SHIFT, 1u << 18);
	cr_expect_leq(nu_layout.stack_base + nu_layout.stack_region_bytes, nu_layout.seg_base);
	cr_expect_not(nu_addr_in_segments(&nu_layout));
	cr_expect(nu_addr_in_segments(nu_seg_addr(5)));
	cr_expect_eq((char *)nu_seg_addr(5) - (char *)nu_seg_addr(4), NU_MIB);
	unsetenv("NU_STACK_KIB");
	make_room();
	cr_assert_eq(nu_layout_init(), 0);
	cr_expect_eq(nu_layout.stack_bytes, 64 * NU_KIB);
}

Test(layout, stack_size_is_checked)
{
	static const char *const bad[] = {"8",	 "16384", "48",
					  "-64", "64k",	  " 64",
					  "x",	 "0",	  "18446744073709551680"};

	make_room();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setenv("NU_STACK_KIB", bad[i], 1);
		cr_expect_eq(nu_layout_init(), -EINVAL, "%s", bad[i]);
		cr_expect_eq(nu_layout.stack_bytes, 64 * NU_KIB);
	}
	setenv("NU_STACK_KIB", "8192", 1);
	cr_expect_eq(nu_layout_init(), 0);
	cr_expect_eq(nu_layout.stack_bytes, 8 * NU_MIB);
	setenv("NU_STACK_KIB", "16", 1);
	cr_expect_eq(nu_layout_init(), 0);
	cr_expect_eq(nu_layout.stack_bytes, 16 * NU_KIB);
}

Test(layout, regions_must_be_empty)
{
	char *at[2];

	make_room();
	cr_assert_eq(nu_layout_init(), 0);
	at[0] = nu_seg_addr(7);
	at[1] = (char *)nu_layout.stack_base + nu_layout.stack_region_bytes - 4096;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(mmap(at[i], 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
				  -1, 0),
			     at[i]);
		cr_expect_eq(nu_layout_init(), -EEXIST);
		munmap(at[i], 4096);
	}
	cr_expect_eq(nu_layout_init(), 0);
}

Test(layout, ids)
{
	uint64_t id = nu_id_make(12345, 678);
	unsigned node = 99;

	cr_expect_eq(nu_id_seg(id), 12345);
	cr_expect_eq(nu_id_gen(id), 678);
	cr_expect_not(nu_id_is_node(id, &node));
	cr_expect(nu_id_is_node(nu_id_of_node(255), &node));
	cr_expect_eq(node, 255);
}

Test(node, defaults)
{
	struct nu_node n;

	nu_node_defaults(&n);
	cr_expect_eq(n.self, 0);
	cr_expect_eq(n.count, 1);
	cr_expect(n.cores >= 1 && n.cores <= NU_MAX_CORES &&
		  n.cores <= (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
	cr_expect_gt(n.mem_bytes, 16 * NU_MIB);
	cr_expect_leq(n.mem_bytes, (size_t)sysconf(_SC_PHYS_PAGES) * 4096 / 2);
	cr_expect_eq(n.pids[0], getpid());
	/* The constructor was there before us. */
	cr_expect_eq(nu_node.mem_bytes > 0 && nu_node.count == 1, true);
}

Test(stat, sums_cores_and_others)
{
	nu_stat_add(0, NU_STAT_STEALS, 2);
	nu_stat_add(NU_MAX_CORES - 1, NU_STAT_STEALS, 3);
	nu_stat_add_shared(NU_STAT_STEALS, 5);
	nu_stat_add_shared(NU_STAT_SWITCHES, 7);
	cr_expect_eq(nu_stat_sum(NU_STAT_STEALS), 10);
	cr_expect_eq(nu_stat_sum(NU_STAT_SWITCHES), 7);
}

/* What a call writes to stderr. */
static size_t captured(void (*fn)(void), char *buf, size_t size)
{
	int fds[2], saved = dup(2);
	ssize_t n;

	cr_assert_eq(pipe(fds), 0);
	dup2(fds[1], 2);
	fn();
	dup2(saved, 2);
	close(fds[1]);
	n = read(fds[0], buf, size - 1);
	close(fds[0]);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static void log_some(void)
{
	nu_log_level = NU_LOG_INFO;
	nu_debug("not this");
	nu_info("this %d\n", 42);
}

static void log_much(void)
{
	char text[3000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	nu_err("%s", text);
}

Test(log, one_line_each)
{
	char buf[4096];
	size_t n;

	nu_node.self = 3;
	captured(log_some, buf, sizeof(buf));
	cr_expect_str_eq(buf, "nu: node 3: this 42\n");
	n = captured(log_much, buf, sizeof(buf));
	cr_expect(n > 500 && n <= 1024);
	cr_expect_str_eq(buf + n - 5, "x...\n");
}

static void fail_assert(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		signal(SIGABRT, SIG_DFL);
		NU_ASSERT(1 == 2);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

Test(log, failed_assertion_names_it_and_aborts)
{
	char buf[4096];

	captured(fail_assert, buf, sizeof(buf));
	cr_expect(strstr(buf, "assertion failed: 1 == 2"), "%s", buf);
}
