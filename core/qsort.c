/* SPDX-License-Identifier: MIT */
/*
 * qsort and qsort_r in place of the C library's: glibc's keeps a temporary array in its own heap while the program's
 * comparison function runs, and a thread that is moved in that function would leave it behind. Here that array lies on the
 * thread's stack if it is short, else in the proclet's heap: both move. If there is none, the sort is done in place.
 *
 * A merge sort, stable. Positions follow from the lengths of the parts alone, and an answer of the comparison only chooses
 * between two elements, so whatever it says nothing outside the array is touched, and the number of questions is bounded.
 * Whenever it is called the array holds each of its elements once: it may leave by longjmp().
 */
#include "core/core.h"
#include "core/qsort_int.h"

#include <string.h>

#define ON_STACK_BYTES	   1024 /* stacks are small */
#define INDIRECT_MIN_BYTES 33	/* from here on pointers are sorted, then elements are put in their places */

static inline bool sort_after(const struct nu_sort *s, const char *x, const char *y, bool indirect)
{
	if (!indirect)
		return s->compare(x, y, s->arg) > 0;
	return s->compare(*(char *const *)x, *(char *const *)y, s->arg) > 0;
}

/* Merges two sorted neighbours, of @n1 elements from @base on and of @n2, by way of the temporary array. */
static inline __attribute__((always_inline)) void sort_merge(const struct nu_sort *s, char *base, size_t n1,
							     size_t n2, size_t width, bool indirect)
{
	char *x = base, *y = base + n1 * width, *to = s->temp;

	/* In order already. */
	if (!sort_after(s, y - width, y, indirect))
		return;
	while (n1 && n2) {
		if (sort_after(s, x, y, indirect)) {
			memcpy(to, y, width);
			y += width;
			n2--;
		} else {
			memcpy(to, x, width);
			x += width;
			n1--;
		}
		to += width;
	}
	/* What is left of the second part stays where it is. */
	memmove(y - n1 * width, x, n1 * width);
	memcpy(base, s->temp, (size_t)(to - s->temp));
}

static inline __attribute__((always_inline)) void sort_two(const struct nu_sort *s, char *base, size_t width,
							   bool indirect)
{
	char *y = base + width;

	if (!sort_after(s, base, y, indirect))
		return;
	memcpy(s->temp, base, width);
	memcpy(base, y, width);
	memcpy(y, s->temp, width);
}

/* One for each width that is common, so that the compiler knows how much it copies. */
#define SORT_BY(name, width, indirect)                                                                       \
	static void sort_##name(const struct nu_sort *s, char *base, size_t n)                               \
	{                                                                                                    \
		size_t n1 = n / 2, n2 = n - n1;                                                              \
                                                                                                             \
		if (n == 2) {                                                                                \
			sort_two(s, base, width, indirect);                                                  \
			return;                                                                              \
		}                                                                                            \
		if (n1 > 1)                                                                                  \
			sort_##name(s, base, n1);                                                            \
		if (n2 > 1)                                                                                  \
			sort_##name(s, base + n1 * (width), n2);                                             \
		sort_merge(s, base, n1, n2, width, indirect);                                                \
	}

SORT_BY(4, 4, false)
SORT_BY(8, 8, false)
SORT_BY(16, 16, false)
SORT_BY(24, 24, false)
SORT_BY(32, 32, false)
SORT_BY(any, s->width, false)
SORT_BY(pointers, sizeof(char *), true)

static void sort_direct(const struct nu_sort *s, size_t n)
{
	switch (s->width) {
	case 4:
		sort_4(s, s->base, n);
		break;
	case 8:
		sort_8(s, s->base, n);
		break;
	case 16:
		sort_16(s, s->base, n);
		break;
	case 24:
		sort_24(s, s->base, n);
		break;
	case 32:
		sort_32(s, s->base, n);
		break;
	default:
		sort_any(s, s->base, n);
		break;
	}
}

/* Puts the element that where[i] points at into place i, for all i, round by round. */
static void sort_place(const struct nu_sort *s, char **where, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char *place = s->base + i * s->width;
		size_t j = i;

		if (where[i] == place)
			continue;
		memcpy(s->temp, place, s->width);
		for (;;) {
			char *from = where[j], *to = s->base + j * s->width;

			where[j] = to;
			if (from == place) {
				memcpy(to, s->temp, s->width);
				break;
			}
			memcpy(to, from, s->width);
			j = (size_t)(from - s->base) / s->width;
		}
	}
}

/* @temp: room for @n pointers twice, then for an element. */
static void sort_indirect(struct nu_sort *s, size_t n)
{
	char **where = (char **)s->temp;

	for (size_t i = 0; i < n; i++)
		where[i] = s->base + i * s->width;
	s->temp = (char *)(where + n);
	sort_pointers(s, (char *)where, n);
	/* Behind the pointers: the second half has become free. */
	sort_place(s, where, n);
}

/* 0: more than there can be. */
static size_t sort_temp_bytes(size_t n, size_t width)
{
	size_t bytes;

	if (width < INDIRECT_MIN_BYTES)
		return __builtin_mul_overflow(n, width, &bytes) ? 0 : bytes;
	if (__builtin_mul_overflow(n, 2 * sizeof(char *), &bytes) ||
	    __builtin_add_overflow(bytes, width, &bytes))
		return 0;
	return bytes;
}

static void sort_with(struct nu_sort *s, size_t n)
{
	if (s->width < INDIRECT_MIN_BYTES)
		sort_direct(s, n);
	else
		sort_indirect(s, n);
}

static __attribute__((noinline)) void sort_with_heap(struct nu_sort *s, size_t n, size_t bytes)
{
	char *temp = bytes ? nu_scratch_alloc(bytes) : NULL;

	if (!temp) {
		nu_sort_in_place(s, n);
		return;
	}
	s->temp = temp;
	sort_with(s, n);
	nu_scratch_free(temp);
}

static __attribute__((noinline)) void sort_with_stack(struct nu_sort *s, size_t n)
{
	char temp[ON_STACK_BYTES] __attribute__((aligned(16)));

	s->temp = temp;
	sort_with(s, n);
}

NU_API void qsort_r(void *base, size_t n, size_t width, nu_compare_fn compare, void *arg)
{
	struct nu_sort s = {.base = base, .width = width, .compare = compare, .arg = arg};
	size_t bytes = sort_temp_bytes(n, width);

	if (n < 2 || !width)
		return;
	if (bytes && bytes <= ON_STACK_BYTES)
		sort_with_stack(&s, n);
	else
		sort_with_heap(&s, n, bytes);
}

/* A function that takes two arguments does not see a third, as the C library relies on, too: no detour for each question. */
NU_API void qsort(void *base, size_t n, size_t width, int (*compare)(const void *, const void *))
{
	qsort_r(base, n, width, (nu_compare_fn)(void (*)(void))compare, NULL);
}
