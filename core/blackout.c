/* SPDX-License-Identifier: MIT */
/* How long proclets that came here stood still: count, sum, maximum and a histogram in half octaves. */
#include "core/core.h"

static _Atomic(uint64_t) count, sum, max;
static _Atomic(uint64_t) hist[64];

/* Bucket i holds [2^(i/2), 2^((i+1)/2)) ns: even i begin at a power of two, odd i at its 1.5-fold. */
static unsigned bucket(uint64_t ns)
{
	unsigned log2 = ns ? 63u - (unsigned)__builtin_clzll(ns) : 0;
	unsigned half = log2 ? (unsigned)(ns >> (log2 - 1)) & 1u : 0;
	unsigned i = 2 * log2 + half;

	return i < 64 ? i : 63;
}

void nu_blackout_add(uint64_t ns)
{
	uint64_t seen = atomic_load_explicit(&max, memory_order_relaxed);

	atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&sum, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&hist[bucket(ns)], 1, memory_order_relaxed);
	while (ns > seen && !atomic_compare_exchange_weak(&max, &seen, ns))
		;
}

void nu_blackout_read(struct nu_stats *s)
{
	s->blackout_ns_count = atomic_load(&count);
	s->blackout_ns_sum = atomic_load(&sum);
	s->blackout_ns_max = atomic_load(&max);
	for (unsigned i = 0; i < 64; i++)
		s->blackout_ns_hist[i] = atomic_load(&hist[i]);
}
