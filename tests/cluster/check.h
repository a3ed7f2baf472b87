/* SPDX-License-Identifier: MIT */
/* Checks of cluster programs: they run in the main proclet, count, and end with the line that tests/run reads. */
#pragma once

#include <nu/nu.h>

#include <stdio.h>

static unsigned check_passed, check_failed;

#define CHECK_MSG(cond, ...)                                                                                           \
	do {                                                                                                           \
		if (cond) {                                                                                            \
			check_passed++;                                                                                \
		} else {                                                                                               \
			check_failed++;                                                                                \
			printf("%s:%d: ", __FILE__, __LINE__);                                                         \
			printf(__VA_ARGS__);                                                                           \
			printf("\n");                                                                                  \
		}                                                                                                      \
	} while (0)
#define CHECK(cond) CHECK_MSG(cond, "%s", #cond)

static inline int check_done(void)
{
	printf("%u passed, %u failed\n", check_passed ? 1 : 0, check_failed);
	return check_failed ? 1 : 0;
}
