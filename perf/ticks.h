/* SPDX-License-Identifier: MIT */
/* The processor's clock, read without a call: the nodes of one host share it. */
#pragma once

#include <stdint.h>

#if defined(__x86_64__)
static inline uint64_t perf_ticks(void)
{
	return __builtin_ia32_rdtsc();
}
#elif defined(__aarch64__)
static inline uint64_t perf_ticks(void)
{
	uint64_t ticks;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
}
#else
#error "which register counts this processor's time?"
#endif
