/* SPDX-License-Identifier: MIT */
/* Where valgrind's header is missing at build time: memcheck then calls what is on user-level stacks uninitialised. */
#include "sched/sched_int.h"

bool nu_valgrind_runs_us(void)
{
	return false;
}

void nu_valgrind_stack(void *low, size_t len_bytes)
{
}

void nu_valgrind_stack_free(void *low, size_t len_bytes)
{
}
