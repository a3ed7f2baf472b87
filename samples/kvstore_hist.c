/* SPDX-License-Identifier: MIT */
/*
 * Histograms of latency.
 */
#include "kvstore_hist.h"

#include <math.h>

uint64_t kv_hist_upper_ns(unsigned i)
{
	unsigned shift;

	if (i < KV_HIST_SUB)
		return i;
	shift = (i >> KV_HIST_SUB_BITS) - 1;
	return (((uint64_t)(i - (shift << KV_HIST_SUB_BITS)) + 1) << shift) - 1;
}

void kv_hist_merge(struct kv_hist *to, const struct kv_hist *from)
{
	for (unsigned i = 0; i < KV_HIST_BUCKETS; i++)
		to->n[i] += __atomic_load_n(&from->n[i], __ATOMIC_RELAXED);
}

void kv_hist_merge_delta(struct kv_hist *to, const struct kv_hist *now, const struct kv_hist *before)
{
	for (unsigned i = 0; i < KV_HIST_BUCKETS; i++)
		to->n[i] += now->n[i] - before->n[i];
}

uint64_t kv_hist_count(const struct kv_hist *h)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < KV_HIST_BUCKETS; i++)
		count += h->n[i];
	return count;
}

/* How many samples from the lowest on make up @quantile of @count; at least one. */
static uint64_t kv_rank(uint64_t count, double quantile)
{
	uint64_t rank = (uint64_t)ceil((double)count * quantile);

	return rank < 1 ? 1 : rank > count ? count : rank;
}

uint64_t kv_hist_quantile_ns(const struct kv_hist *h, double quantile)
{
	uint64_t count = kv_hist_count(h), rank, seen = 0;
	unsigned i;

	if (!count)
		return 0;
	rank = kv_rank(count, quantile);
	for (i = 0; i < KV_HIST_BUCKETS - 1; i++) {
		seen += h->n[i];
		if (seen >= rank)
			break;
	}
	return kv_hist_upper_ns(i);
}

/* Where half-octave @i begins: 2^(i/2) for even i, one and a half times the power below for odd. */
static uint64_t kv_half_octave_ns(unsigned i)
{
	return i % 2 ? 3ull << (i / 2) >> 1 : 1ull << (i / 2);
}

uint64_t kv_half_octaves_quantile_ns(const uint64_t *n, unsigned buckets, uint64_t max_ns, double quantile)
{
	uint64_t count = 0, rank, seen = 0, upper;
	unsigned i;

	for (i = 0; i < buckets; i++)
		count += n[i];
	if (!count)
		return 0;
	rank = kv_rank(count, quantile);
	for (i = 0; i < buckets - 1; i++) {
		seen += n[i];
		if (seen >= rank)
			break;
	}
	upper = kv_half_octave_ns(i + 1);
	return upper < max_ns ? upper : max_ns;
}
