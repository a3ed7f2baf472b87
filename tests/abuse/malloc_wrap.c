/* SPDX-License-Identifier: MIT */
/* A malloc to be preloaded that passes on to the next one, as tools that count allocations do. */
#include <dlfcn.h>
#include <stddef.h>

#define SEEN __attribute__((visibility("default")))

typedef void *(*malloc_fn)(size_t len);

SEEN void *malloc(size_t len)
{
	static malloc_fn next;

	if (!next)
		next = (malloc_fn)dlsym(RTLD_NEXT, "malloc");
	return next(len);
}
