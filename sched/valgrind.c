/* SPDX-License-Identifier: MIT */
/*
 * Tells valgrind which stacks there are: it takes a stack pointer that jumps by less than 2 MB for a growing stack, and
 * would call what lies between uninitialised. A few instructions elsewhere.
 */
#include "sched/sched_int.h"

#include <valgrind/valgrind.h>

void nu_valgrind_stack(void *low, size_t len_bytes)
{
	(void)VALGRIND_STACK_REGISTER(low, (char *)low + len_bytes - 1);
}
