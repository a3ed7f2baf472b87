/* SPDX-License-Identifier: MIT */
/* What qsort.c and qsort_inplace.c share. */
#pragma once

#include <stddef.h>

typedef int (*nu_compare_fn)(const void *, const void *, void *);

struct nu_sort {
	char *base;
	size_t width;
	nu_compare_fn compare;
	void *arg;
	char *temp; /* the temporary array; not for nu_sort_in_place() */
};

/* Sorts @n elements without a temporary array, stable: for want of memory. Slower by log2(n). */
void nu_sort_in_place(const struct nu_sort *s, size_t n);
