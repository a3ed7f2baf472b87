/* SPDX-License-Identifier: MIT */
/*
 * Zipf's law by rejection from the inverse of its integral (Hoermann and Derflinger, "Rejection-inversion to generate
 * variates from monotone discrete distributions", 1996). It is exact, and rejects a few per cent at most.
 */
#include "kvstore_zipf.h"

#include <math.h>

/* The integral of x^-theta from 1 to x. With theta near 1 the plain quotient would lose all its digits. */
static double kv_zipf_area(double theta, double x)
{
	double log_x = log(x), t = (1 - theta) * log_x;

	return fabs(t) > 1e-8 ? expm1(t) / t * log_x : log_x * (1 + t / 2);
}

/* Its inverse. */
static double kv_zipf_area_inverse(double theta, double area)
{
	double t = area * (1 - theta);

	if (t < -1)
		t = -1; /* rounding, at the far end of a steep curve */
	return exp(fabs(t) > 1e-8 ? log1p(t) / t * area : area * (1 - t / 2));
}

void kv_zipf_init(struct kv_zipf *z, uint64_t n, double theta)
{
	z->n = n;
	z->theta = theta;
	z->low = kv_zipf_area(theta, 1.5) - 1;
	z->high = kv_zipf_area(theta, (double)n + 0.5);
	z->sure = 2 - kv_zipf_area_inverse(theta, kv_zipf_area(theta, 2.5) - pow(2, -theta));
}

uint64_t kv_zipf_next(const struct kv_zipf *z, struct kv_rng *r)
{
	double area, x, k;

	if (z->theta == 0)
		return (uint64_t)((unsigned __int128)kv_rng_next(r) * z->n >> 64);
	for (;;) {
		area = z->high + kv_rng_unit(r) * (z->low - z->high);
		x = kv_zipf_area_inverse(z->theta, area);
		k = floor(x + 0.5);
		if (k < 1)
			k = 1;
		else if (k > (double)z->n)
			k = (double)z->n;
		if (k - x <= z->sure || area >= kv_zipf_area(z->theta, k + 0.5) - pow(k, -z->theta))
			return (uint64_t)k - 1;
	}
}
