/* SPDX-License-Identifier: MIT */
/*
 * Counters: a line of plain words per core, added to by that core alone, and one line of atomic words for kernel
 * threads that are no core.
 */
#include "core/core.h"

struct nu_stat_core nu_stat_cores[NU_STAT_CORES];

/* Not core 0's line: its plain additions would lose ours and ours theirs. */
static _Atomic(uint64_t) shared[NU_STAT_COUNT];

void nu_stat_add_shared(enum nu_stat which, uint64_t n)
{
	atomic_fetch_add_explicit(&shared[which], n, memory_order_relaxed);
}

static uint64_t sum_of(enum nu_stat which)
{
	uint64_t sum = atomic_load_explicit(&shared[which], memory_order_relaxed);

	for (unsigned core = 0; core < NU_STAT_CORES; core++)
		sum += __atomic_load_n(&nu_stat_cores[core].v[which], __ATOMIC_RELAXED);
	return sum;
}

uint64_t nu_stat_sum(enum nu_stat which)
{
	switch (which) {
	case NU_STAT_CALLS_LOCAL:
	case NU_STAT_CALLS_SERVED:
		return sum_of(which) + sum_of(NU_STAT_CALLS_QUICK);
	case NU_STAT_SWITCHES:
		return sum_of(which) + 2 * sum_of(NU_STAT_CALLS_QUICK);
	default:
		return sum_of(which);
	}
}
