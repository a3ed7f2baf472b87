/* SPDX-License-Identifier: MIT */
/* sort: qsort in a proclet, which may be moved in the comparison, beside the C library's own, on ten kinds of input. */
#include "perf.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define ELEMENTS 10000 /* sorted in one sample, in arrays of one length */

typedef int (*compare_fn)(const void *, const void *);
typedef void (*qsort_fn)(void *base, size_t n, size_t width, compare_fn compare);

static qsort_fn limit; /* the C library's */

void perf_sort_load(int argc, char **argv)
{
	bool wanted = false;
	void *lib;

	for (int i = 1; i < argc; i++)
		wanted |= strstr(argv[i], "sort") != NULL;
	if (!wanted)
		return;
	lib = dlopen("libc.so.6", RTLD_NOW | RTLD_LOCAL); /* through it the name means the C library's own */
	if (lib)
		limit = (qsort_fn)dlsym(lib, "qsort");
}

/* ---- input: the key of element @i of @n ---- */

static uint64_t state = 1;

static uint32_t any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

static uint32_t random_key(uint32_t i, uint32_t n)
{
	return any();
}

static uint32_t sorted_key(uint32_t i, uint32_t n)
{
	return i;
}

static uint32_t reversed_key(uint32_t i, uint32_t n)
{
	return n - i;
}

static uint32_t organ_pipe_key(uint32_t i, uint32_t n)
{
	return i < n / 2 ? i : n - i;
}

static uint32_t equal_key(uint32_t i, uint32_t n)
{
	return 7;
}

static uint32_t few_key(uint32_t i, uint32_t n)
{
	return any() % 4;
}

static uint32_t nearly_key(uint32_t i, uint32_t n)
{
	return any() % 50 ? i : any() % n;
}

static uint32_t sawtooth_key(uint32_t i, uint32_t n)
{
	return i % (n / 8 + 1);
}

static uint32_t interleaved_key(uint32_t i, uint32_t n)
{
	return i % 2 ? i : n - i;
}

static uint32_t appended_key(uint32_t i, uint32_t n)
{
	return i < n - n / 16 ? i : any() % n;
}

static const struct kind {
	const char *name;
	uint32_t (*key)(uint32_t i, uint32_t n);
} kinds[] = {
	{"random", random_key},		{"sorted", sorted_key},	    {"reversed", reversed_key},
	{"organ-pipe", organ_pipe_key}, {"equal", equal_key},	    {"few values", few_key},
	{"nearly sorted", nearly_key},	{"sawtooth", sawtooth_key}, {"interleaved", interleaved_key},
	{"appended", appended_key},
};

/* ---- elements: of one byte the key is that byte, else it comes first ---- */

static int compare_bytes(const void *a, const void *b)
{
	return *(const uint8_t *)a - *(const uint8_t *)b;
}

static int compare_keys(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct arrays {
	unsigned char *original, *work;
	size_t width, length, number;
};

static void fill(const struct arrays *a, const struct kind *kind)
{
	memset(a->original, 0, a->width * a->length * a->number);
	for (size_t i = 0; i < a->length * a->number; i++) {
		uint32_t key = kind->key((uint32_t)(i % a->length), (uint32_t)a->length);

		memcpy(a->original + i * a->width, &key, a->width < sizeof(key) ? a->width : sizeof(key));
	}
}

static uint64_t sort_all(const struct arrays *a, qsort_fn sort)
{
	compare_fn compare = a->width < sizeof(uint32_t) ? compare_bytes : compare_keys;
	uint64_t start;

	memcpy(a->work, a->original, a->width * a->length * a->number);
	start = nu_testing_mono_ns();
	for (size_t i = 0; i < a->number; i++)
		sort(a->work + i * a->length * a->width, a->length, a->width, compare);
	return nu_testing_mono_ns() - start;
}

static int sort_kind(const struct perf_options *o, const struct perf_case *c, const struct arrays *a,
		     const struct kind *kind)
{
	char name[64];
	struct perf_row row = {.test = name,
			       .size_bytes = a->width,
			       .unit = "us",
			       .samples = perf_samples(c->count),
			       .count = c->count,
			       .scale = 1e-3 / (double)a->number,
			       .limit_name = "libc qsort"};
	uint64_t *theirs = perf_samples(c->count);

	if (!row.samples || !theirs) {
		free(row.samples);
		free(theirs);
		return -ENOMEM;
	}
	snprintf(name, sizeof(name), "sort %zu %s", a->length, kind->name);
	fill(a, kind);
	for (size_t i = 0; i < c->count + c->warmup; i++) {
		uint64_t ours = sort_all(a, qsort), other = sort_all(a, limit);

		if (i >= c->warmup) {
			row.samples[i - c->warmup] = ours;
			theirs[i - c->warmup] = other;
		}
	}
	row.limit_samples = theirs;
	perf_report(o, &row);
	free(row.samples);
	free(theirs);
	return 0;
}

static int sort_size(const struct perf_options *o, const struct perf_case *c)
{
	static const size_t lengths[] = {10, 100, ELEMENTS};
	struct arrays a = {.width = c->size_bytes};
	int ret = 0;

	a.original = malloc(a.width * ELEMENTS);
	a.work = malloc(a.width * ELEMENTS);
	if (!a.original || !a.work)
		ret = -ENOMEM;
	for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]) && !ret; l++) {
		a.length = lengths[l];
		a.number = ELEMENTS / lengths[l];
		for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]) && !ret; k++)
			ret = sort_kind(o, c, &a, &kinds[k]);
	}
	free(a.original);
	free(a.work);
	return ret;
}

int perf_sort(const struct perf_options *o)
{
	struct perf_options wide = *o;

	if (!limit)
		return -ENOENT;
	if (!wide.size_min) {
		wide.size_min = 4;
		wide.size_max = 8;
	}
	return perf_each(&wide, (struct perf_case){.count = 20}, sort_size);
}
