/* SPDX-License-Identifier: MIT */
/*
 * Tells valgrind which stacks there are: it takes a stack pointer that jumps by less than 2 MB for a growing stack, and
 * would call what lies between uninitialised. And when one is free: what a thread has popped is out of bounds to
 * memcheck until it is pushed again, but the next thread begins with a stack pointer set anywhere. A few instructions
 * elsewhere; and since that is too much for each thread, under valgrind stacks are not kept by the cores (cache_max).
 */
#include "sched/sched_int.h"

#include <valgrind/memcheck.h>

bool nu_valgrind_runs_us(void)
{
	return RUNNING_ON_VALGRIND;
}

void nu_valgrind_stack(void *low, size_t len_bytes)
{
	(void)VALGRIND_STACK_REGISTER(low, (char *)low + len_bytes - 1);
}

void nu_valgrind_stack_free(void *low, size_t len_bytes)
{
	(void)VALGRIND_MAKE_MEM_UNDEFINED(low, len_bytes);
}
