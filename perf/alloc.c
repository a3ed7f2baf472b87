/* SPDX-License-Identifier: MIT */
/* alloc: malloc and free in a proclet's heap, one by one and a thousand at a time, beside mimalloc and the C library. */
#include "perf.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define PER_SAMPLE 1000

typedef void *(*malloc_fn)(size_t len);
typedef void (*free_fn)(void *ptr);

struct allocator {
	const char *name;
	malloc_fn alloc;
	free_fn give;
};

static struct allocator limits[2]; /* mimalloc, if it is installed; the C library */

void perf_alloc_load(int argc, char **argv)
{
	static const char *const names[] = {"libmimalloc.so.2.0", "libmimalloc.so.2", "libmimalloc.so"};
	bool wanted = false;
	void *lib = NULL;

	for (int i = 1; i < argc; i++)
		wanted |= strstr(argv[i], "alloc") != NULL;
	if (!wanted)
		return;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !lib; i++)
		lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (lib)
		limits[0] = (struct allocator){"mimalloc", (malloc_fn)dlsym(lib, "mi_malloc"),
					       (free_fn)dlsym(lib, "mi_free")};
	lib = dlopen("libc.so.6", RTLD_NOW | RTLD_LOCAL); /* through it the name means the C library's own */
	if (lib)
		limits[1] = (struct allocator){"libc malloc", (malloc_fn)dlsym(lib, "malloc"),
					       (free_fn)dlsym(lib, "free")};
}

static __attribute__((noinline)) void pairs(const struct allocator *a, size_t size, void **blocks)
{
	for (unsigned k = 0; k < PER_SAMPLE; k++) {
		char *volatile ptr = a->alloc(size);

		ptr[0] = 1;
		a->give(ptr);
	}
}

static __attribute__((noinline)) void batch(const struct allocator *a, size_t size, void **blocks)
{
	for (unsigned k = 0; k < PER_SAMPLE; k++) {
		blocks[k] = a->alloc(size);
		*(char *)blocks[k] = 1;
	}
	for (unsigned k = 0; k < PER_SAMPLE; k++)
		a->give(blocks[k]);
}

static int beside(const struct perf_options *o, const struct perf_case *c, const char *test,
		  const struct allocator *limit,
		  void (*run)(const struct allocator *a, size_t size, void **blocks))
{
	/* The caller's address tells whose heap is meant, and all are called from here. */
	const struct allocator ours = {"proclet", malloc, free};
	struct perf_row row = {.test = test,
			       .size_bytes = c->size_bytes,
			       .unit = "ns",
			       .samples = perf_samples(c->count),
			       .count = c->count,
			       .scale = 1.0 / PER_SAMPLE,
			       .limit_name = limit->name};
	uint64_t *theirs = perf_samples(c->count);
	void **blocks = calloc(PER_SAMPLE, sizeof(*blocks));

	if (!row.samples || !theirs || !blocks)
		return -ENOMEM;
	for (size_t i = 0; i < c->count + c->warmup; i++) {
		uint64_t start = nu_testing_mono_ns(), middle;

		run(&ours, c->size_bytes, blocks);
		middle = nu_testing_mono_ns();
		run(limit, c->size_bytes, blocks);
		if (i >= c->warmup) {
			row.samples[i - c->warmup] = middle - start;
			theirs[i - c->warmup] = nu_testing_mono_ns() - middle;
		}
	}
	row.limit_samples = theirs;
	perf_report(o, &row);
	free(row.samples);
	free(theirs);
	free(blocks);
	return 0;
}

static int alloc_size(const struct perf_options *o, const struct perf_case *c)
{
	int ret = 0;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]) && !ret; i++) {
		if (!limits[i].alloc || !limits[i].give)
			continue;
		ret = beside(o, c, "alloc", &limits[i], pairs);
		if (!ret)
			ret = beside(o, c, "alloc batch", &limits[i], batch);
	}
	return ret;
}

int perf_alloc(const struct perf_options *o)
{
	struct perf_options wide = *o;

	if (!wide.size_min) {
		wide.size_min = 16;
		wide.size_max = 256;
	}
	return perf_each(&wide, (struct perf_case){.count = 1000}, alloc_size);
}
