/* SPDX-License-Identifier: MIT */
/*
 * Whose malloc the program calls. Another one that stands before libnu's, preloaded or linked first, would give out blocks
 * that are in no proclet's heap and stay behind when it moves: seen before anything begins, not by a crash after a move.
 */
#include "core/core.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

extern void *__libc_malloc(size_t len);

static const char *const family[] = {
	"malloc",
	"free",
	"calloc",
	"realloc",
	"reallocarray",
	"posix_memalign",
	"aligned_alloc",
	"memalign",
	"valloc",
	"pvalloc",
	"strdup",
	"strndup",
	"asprintf",
	"vasprintf",
	"getline",
	"getdelim",
	"malloc_usable_size",
};

static const struct {
	const char *symbol, *name, *option;
} sanitizers[] = {
	{"__asan_init", "AddressSanitizer", "address"}, {"__tsan_init", "ThreadSanitizer", "thread"},
	{"__lsan_init", "LeakSanitizer", "address"},	{"__hwasan_init", "HWAddressSanitizer", NULL},
	{"__msan_init", "MemorySanitizer", NULL},
};

static const struct link_map *check_object(const void *addr)
{
	struct dl_find_object where;

	return addr && !_dl_find_object((void *)addr, &where) ? where.dlfo_link_map : NULL;
}

static const char *check_path(const struct link_map *object)
{
	return *object->l_name ? object->l_name : "the program";
}

static const char *check_remedy(const struct link_map *object)
{
	const char *preload = getenv("LD_PRELOAD"), *path = object->l_name, *slash = strrchr(path, '/');

	if (!*path)
		return "leave it out";
	if (preload && strstr(preload, slash ? slash + 1 : path))
		return "take it out of LD_PRELOAD, or link the program with libnu.a";
	return "link the program without it, or with libnu.a";
}

static int check_sanitizers(char *why, size_t why_bytes)
{
	for (size_t i = 0; i < sizeof(sanitizers) / sizeof(sanitizers[0]); i++) {
		const char *option = sanitizers[i].option;

		if (!dlsym(RTLD_DEFAULT, sanitizers[i].symbol))
			continue;
		snprintf(
			why, why_bytes,
			"the program runs under %s, which does not know the stacks and heaps of a libnu that "
			"was built without: %s%s",
			sanitizers[i].name,
			option ? "build libnu, too, with meson's -Db_sanitize=" : "build it without, too",
			option ? option : "");
		return -ELIBBAD;
	}
	return 0;
}

/* Linked into the program, libnu's malloc is the libraries', too. malloc_check_so.c knows more. */
__attribute__((weak)) const void *nu_malloc_of_libraries(void)
{
	return NULL;
}

/* Libraries ask for the C library's version of the name, which another object may have, too. */
static int check_libraries(const struct link_map *ours, char *why, size_t why_bytes)
{
	const struct link_map *below = check_object((const void *)__libc_malloc);
	const struct link_map *theirs = check_object(nu_malloc_of_libraries());

	if (!theirs || theirs == ours || theirs == below)
		return 0;
	snprintf(why, why_bytes,
		 "malloc() in libraries is that of %s, whose blocks libnu's free() does not know: %s",
		 check_path(theirs), check_remedy(theirs));
	return -ELIBBAD;
}

int nu_malloc_check(char *why, size_t why_bytes)
{
	const struct link_map *ours = check_object((const void *)nu_malloc_check);
	int ret = check_sanitizers(why, why_bytes);

	for (size_t i = 0; i < sizeof(family) / sizeof(family[0]) && !ret; i++) {
		const struct link_map *object = check_object(dlsym(RTLD_DEFAULT, family[i]));

		if (!object || object == ours)
			continue;
		snprintf(why, why_bytes,
			 "%s() is that of %s, not libnu's, and what it gives out would not move with "
			 "proclets: %s",
			 family[i], check_path(object), check_remedy(object));
		ret = -ELIBBAD;
	}
	return ret ? ret : check_libraries(ours, why, why_bytes);
}

#else

/* The sanitizer's stands first, and the program comes here by ld's --wrap. */
int nu_malloc_check(char *why, size_t why_bytes)
{
	(void)why, (void)why_bytes;
	return 0;
}

#endif
