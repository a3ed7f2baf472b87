/* SPDX-License-Identifier: MIT */
/*
 * Random numbers for the load: a small generator, and ranks 0..n-1 by Zipf's law, where rank k comes up in proportion
 * to 1 / (k + 1)^theta. Needs no table and no sum over all ranks, so a million keys cost nothing to set up.
 */
#pragma once

#include <stdint.h>

struct kv_rng {
	uint64_t state;
};

static inline uint64_t kv_rng_next(struct kv_rng *r)
{
	/* A Weyl sequence through two rounds of multiply and shift: every seed is a good one. */
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* In [0, 1). */
static inline double kv_rng_unit(struct kv_rng *r)
{
	return (double)(kv_rng_next(r) >> 11) * 0x1p-53;
}

struct kv_zipf {
	uint64_t n;
	double theta;
	double low, high; /* the area under the curve up to rank 1 and up to rank n */
	double sure;	  /* so near above a rank no test is needed */
};

/* @n >= 1; @theta >= 0, where 0 is uniform. */
void kv_zipf_init(struct kv_zipf *z, uint64_t n, double theta);
uint64_t kv_zipf_next(const struct kv_zipf *z, struct kv_rng *r);
