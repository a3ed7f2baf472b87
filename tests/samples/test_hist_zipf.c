/* SPDX-License-Identifier: MIT */
/*
 * kvstore's histogram and key picker.
 */
#include "samples/kvstore_hist.h"
#include "samples/kvstore_zipf.h"

#include <criterion/criterion.h>
#include <math.h>

Test(hist, buckets_are_contiguous)
{
	uint64_t lower = 0;

	for (unsigned i = 0; i < KV_HIST_BUCKETS; i++) {
		uint64_t upper = kv_hist_upper_ns(i);

		cr_assert_eq(kv_hist_bucket(lower), i);
		cr_assert_eq(kv_hist_bucket(upper), i);
		cr_assert_leq((double)(upper - lower), (double)lower / KV_HIST_SUB);
		lower = upper + 1;
	}
	cr_assert_eq(lower, 1ull << KV_HIST_MAX_BITS);
	cr_assert_eq(kv_hist_bucket(UINT64_MAX), KV_HIST_BUCKETS - 1);
}

Test(hist, quantiles)
{
	static struct kv_hist h;

	cr_assert_eq(kv_hist_quantile_ns(&h, 0.5), 0);
	for (uint64_t us = 1; us <= 1000; us++)
		kv_hist_add(&h, us * 1000);
	cr_assert_eq(kv_hist_count(&h), 1000);
	cr_assert_float_eq((double)kv_hist_quantile_ns(&h, 0.5), 500e3, 500e3 * 0.04);
	cr_assert_float_eq((double)kv_hist_quantile_ns(&h, 0.999), 999e3, 999e3 * 0.04);
	cr_assert_geq(kv_hist_quantile_ns(&h, 1), 1000000);
	cr_assert_float_eq((double)kv_hist_quantile_ns(&h, 0), 1000, 40);
}

Test(hist, delta)
{
	static struct kv_hist before, now, window;

	kv_hist_add(&before, 10);
	kv_hist_merge(&now, &before);
	kv_hist_add(&now, 20);
	kv_hist_merge_delta(&window, &now, &before);
	cr_assert_eq(kv_hist_count(&window), 1);
	cr_assert_eq(kv_hist_quantile_ns(&window, 1), 20);
}

Test(hist, half_octaves)
{
	uint64_t n[64] = {0};

	cr_assert_eq(kv_half_octaves_quantile_ns(n, 64, 0, 0.5), 0);
	n[40] = 99; /* from 2^20 ns to 1.5 * 2^20 */
	n[43] = 1;  /* from 1.5 * 2^21 to 2^22 */
	cr_assert_eq(kv_half_octaves_quantile_ns(n, 64, 1 << 22, 0.5), 3ull << 19);
	cr_assert_eq(kv_half_octaves_quantile_ns(n, 64, 1 << 22, 1), 1 << 22);
	cr_assert_eq(kv_half_octaves_quantile_ns(n, 64, 3300000, 1), 3300000, "never above the largest seen");
}

/* Counts of the first ranks against the law itself. */
static void check_zipf(uint64_t n, double theta)
{
	enum { DRAWS = 400000, RANKS = 12 };
	unsigned counts[RANKS] = {0};
	struct kv_rng rng = {42};
	struct kv_zipf z;
	double sum = 0, p, deviation;

	for (uint64_t k = 1; k <= n; k++)
		sum += pow((double)k, -theta);
	kv_zipf_init(&z, n, theta);
	for (int i = 0; i < DRAWS; i++) {
		uint64_t rank = kv_zipf_next(&z, &rng);

		cr_assert_lt(rank, n);
		if (rank < RANKS)
			counts[rank]++;
	}
	for (unsigned k = 0; k < RANKS && k < n; k++) {
		p = pow(k + 1, -theta) / sum;
		deviation = sqrt(DRAWS * p * (1 - p)) + 1;
		cr_assert_float_eq(counts[k], DRAWS * p, 5 * deviation,
				   "n %lu theta %g rank %u: %u, not %.0f", (unsigned long)n, theta, k,
				   counts[k], DRAWS * p);
	}
}

Test(zipf, follows_the_law)
{
	check_zipf(100000, 0.99);
	check_zipf(100000, 1);
	check_zipf(100000, 0.5);
	check_zipf(1000, 1.5);
	check_zipf(10, 0);
	check_zipf(7, 3);
	check_zipf(2, 0.99);
	check_zipf(1, 0.99);
	check_zipf(1000, 20);
}
