/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram of times: exact below 32 ns, then 32 buckets an octave (3 %) up to 68 s. Plain counters, so
 * that histograms are added and subtracted bucket by bucket.
 */
#pragma once

#include <stdint.h>

#define KV_HIST_SUB_BITS 5
#define KV_HIST_SUB	 (1u << KV_HIST_SUB_BITS)
#define KV_HIST_MAX_BITS 36
#define KV_HIST_BUCKETS	 ((KV_HIST_MAX_BITS - KV_HIST_SUB_BITS + 1) * KV_HIST_SUB)

struct kv_hist {
	uint64_t n[KV_HIST_BUCKETS];
};

static inline unsigned kv_hist_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns < KV_HIST_SUB)
		return (unsigned)ns;
	if (ns >> KV_HIST_MAX_BITS)
		return KV_HIST_BUCKETS - 1;
	shift = 63 - (unsigned)__builtin_clzll(ns) - KV_HIST_SUB_BITS;
	return (shift << KV_HIST_SUB_BITS) + (unsigned)(ns >> shift);
}

/* By the only writer; others may read the counters meanwhile. */
static inline void kv_hist_add(struct kv_hist *h, uint64_t ns)
{
	uint64_t *n = &h->n[kv_hist_bucket(ns)];

	__atomic_store_n(n, *n + 1, __ATOMIC_RELAXED);
}

/* The highest time that falls into bucket @i. */
uint64_t kv_hist_upper_ns(unsigned i);
/* Adds what @from holds now. @from may be written meanwhile. */
void kv_hist_merge(struct kv_hist *to, const struct kv_hist *from);
/* Adds what came between two readings of one histogram. */
void kv_hist_merge_delta(struct kv_hist *to, const struct kv_hist *now, const struct kv_hist *before);
uint64_t kv_hist_count(const struct kv_hist *h);
/* The time that @quantile (0..1) of the samples do not exceed, to the precision of a bucket; 0 without samples. */
uint64_t kv_hist_quantile_ns(const struct kv_hist *h, double quantile);
/* The same for the runtime's blackout histogram: two buckets an octave, clipped to @max_ns. */
uint64_t kv_half_octaves_quantile_ns(const uint64_t *n, unsigned buckets, uint64_t max_ns, double quantile);
