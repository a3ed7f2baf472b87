/* SPDX-License-Identifier: MIT */
/*
 * A stable sort that takes no memory: short runs by insertion, then merges by rotation (Kim and Kutzner, "Stable Minimum
 * Storage Merging by Symmetric Comparisons", ESA 2004). Positions are bounded by the lengths of the parts, whatever the
 * comparison says, and at each question the array holds each element once.
 */
#include "core/core.h"
#include "core/qsort_int.h"

#include <string.h>

#define RUN 8

static char *inplace_at(const struct nu_sort *s, size_t i)
{
	return s->base + i * s->width;
}

static bool inplace_less(const struct nu_sort *s, size_t i, size_t j)
{
	return s->compare(inplace_at(s, i), inplace_at(s, j), s->arg) < 0;
}

static void inplace_swap(const struct nu_sort *s, size_t i, size_t j)
{
	char *x = inplace_at(s, i), *y = inplace_at(s, j);

	for (size_t left = s->width; left;) {
		char t[64];
		size_t n = left < sizeof(t) ? left : sizeof(t);

		memcpy(t, x, n);
		memcpy(x, y, n);
		memcpy(y, t, n);
		x += n;
		y += n;
		left -= n;
	}
}

static void inplace_reverse(const struct nu_sort *s, size_t from, size_t end)
{
	while (from + 1 < end)
		inplace_swap(s, from++, --end);
}

/* [from, middle) and [middle, end) change places. */
static void inplace_rotate(const struct nu_sort *s, size_t from, size_t middle, size_t end)
{
	if (from == middle || middle == end)
		return;
	inplace_reverse(s, from, middle);
	inplace_reverse(s, middle, end);
	inplace_reverse(s, from, end);
}

static void inplace_insert(const struct nu_sort *s, size_t from, size_t end)
{
	for (size_t i = from + 1; i < end; i++) {
		for (size_t j = i; j > from && inplace_less(s, j, j - 1); j--)
			inplace_swap(s, j, j - 1);
	}
}

/* The first part is one element: it goes before the first of the others that is not less. */
static void inplace_sink(const struct nu_sort *s, size_t from, size_t end)
{
	size_t low = from + 1, high = end;

	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (inplace_less(s, i, from))
			low = i + 1;
		else
			high = i;
	}
	inplace_rotate(s, from, from + 1, low);
}

/* The second part is one element: it goes behind the last of the others that is not greater. */
static void inplace_rise(const struct nu_sort *s, size_t from, size_t last)
{
	size_t low = from, high = last;

	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (!inplace_less(s, last, i))
			low = i + 1;
		else
			high = i;
	}
	inplace_rotate(s, low, last, last + 1);
}

/*
 * Merges [from, middle) and [middle, end), neither empty: swaps the end of the first part with a start of the second that is
 * as long, so that all of the left half belongs before all of the right one, then merges each half.
 */
static void inplace_merge(const struct nu_sort *s, size_t from, size_t middle, size_t end)
{
	size_t half, sum, low, high, swap_end;

	if (middle - from == 1) {
		inplace_sink(s, from, end);
		return;
	}
	if (end - middle == 1) {
		inplace_rise(s, from, middle);
		return;
	}
	half = from + (end - from) / 2;
	sum = half + middle;
	low = middle > half ? sum - end : from;
	high = middle > half ? half : middle;
	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (!inplace_less(s, sum - 1 - i, i))
			low = i + 1;
		else
			high = i;
	}
	swap_end = sum - low;
	if (low < middle && middle < swap_end)
		inplace_rotate(s, low, middle, swap_end);
	if (from < low && low < half)
		inplace_merge(s, from, low, half);
	if (half < swap_end && swap_end < end)
		inplace_merge(s, half, swap_end, end);
}

void nu_sort_in_place(const struct nu_sort *s, size_t n)
{
	for (size_t i = 0; i < n; i += RUN)
		inplace_insert(s, i, n - i < RUN ? n : i + RUN);
	for (size_t len = RUN; len < n; len *= 2) {
		for (size_t i = 0; i < n && n - i > len; i += 2 * len)
			inplace_merge(s, i, i + len, n - i - len < len ? n : i + 2 * len);
	}
}
