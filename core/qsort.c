/* SPDX-License-Identifier: MIT */
/*
 * qsort and qsort_r in place of the C library's: glibc's keeps a temporary array in its own heap while the program's
 * comparison function runs, and a thread that is moved in that function would leave it behind. This one works in place
 * and keeps nothing outside the caller's stack and array: heap sort, with insertion sort for short arrays.
 */
#include "core/core.h"

#include <string.h>

typedef int (*compare_fn)(const void *, const void *, void *);

struct array {
	char *base;
	size_t width;
	compare_fn compare;
	void *arg;
};

static char *at(const struct array *a, size_t i)
{
	return a->base + i * a->width;
}

static void swap(const struct array *a, size_t i, size_t j)
{
	char *x = at(a, i), *y = at(a, j);

	for (size_t left = a->width; left;) {
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

static bool less(const struct array *a, size_t i, size_t j)
{
	return a->compare(at(a, i), at(a, j), a->arg) < 0;
}

static void sift_down(const struct array *a, size_t first, size_t root, size_t n)
{
	for (;;) {
		size_t child = 2 * root + 1;

		if (child >= n)
			return;
		if (child + 1 < n && less(a, first + child, first + child + 1))
			child++;
		if (!less(a, first + root, first + child))
			return;
		swap(a, first + root, first + child);
		root = child;
	}
}

static void heap_sort(const struct array *a, size_t first, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift_down(a, first, i, n);
	for (size_t end = n; end-- > 1;) {
		swap(a, first, first + end);
		sift_down(a, first, 0, end);
	}
}

static void insertion_sort(const struct array *a, size_t first, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		for (size_t j = i; j > 0 && less(a, first + j, first + j - 1); j--)
			swap(a, first + j, first + j - 1);
	}
}

/* Median of three to the front, then partition; deep recursion falls back to heap sort. */
static void sort(const struct array *a, size_t first, size_t n, unsigned depth)
{
	while (n > 16) {
		size_t i = 0, j = n, mid = n / 2;

		if (!depth--) {
			heap_sort(a, first, n);
			return;
		}
		if (less(a, first + mid, first + n - 1))
			mid = less(a, first, first + mid) ? mid : less(a, first, first + n - 1) ? 0 : n - 1;
		else
			mid = less(a, first + mid, first) ? mid : less(a, first, first + n - 1) ? n - 1 : 0;
		swap(a, first, first + mid);
		for (;;) {
			do
				i++;
			while (i < n && less(a, first + i, first));
			do
				j--;
			while (less(a, first, first + j));
			if (i >= j)
				break;
			swap(a, first + i, first + j);
		}
		swap(a, first, first + j);
		if (j < n - j - 1) {
			sort(a, first, j, depth);
			first += j + 1;
			n -= j + 1;
		} else {
			sort(a, first + j + 1, n - j - 1, depth);
			n = j;
		}
	}
	insertion_sort(a, first, n);
}

NU_API void qsort_r(void *base, size_t n, size_t width, compare_fn compare, void *arg)
{
	struct array a = {base, width, compare, arg};

	if (n > 1 && width)
		sort(&a, 0, n, 2 * (64 - (unsigned)__builtin_clzll(n)));
}

static int without_arg(const void *x, const void *y, void *arg)
{
	int (*compare)(const void *, const void *) = (int (*)(const void *, const void *))arg;

	return compare(x, y);
}

NU_API void qsort(void *base, size_t n, size_t width, int (*compare)(const void *, const void *))
{
	qsort_r(base, n, width, without_arg, (void *)compare);
}
