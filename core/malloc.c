/* SPDX-License-Identifier: MIT */
/*
 * The malloc family: called by the program's code in a proclet it means that proclet's heap, else the C library's.
 *
 * The caller's return address decides, so that stdio, ld.so or UCX never leave a buffer in a heap that moves away.
 * Freeing decides by address. Functions of the C library that return memory of its own making to the program (realpath,
 * getcwd, open_memstream, scandir, getaddrinfo, wcsdup, scanf's %ms) are not covered, but for those wrapped below:
 * such a block stays on the node where it was made.
 *
 * A sanitizer brings a malloc of its own, which stays in front of the C library. Programs are then linked so that their
 * calls, and nobody else's, come here (ld --wrap, in the dependency `nu`).
 */
#include "core/core.h"
#include "core/fault.h"
#include "core/heap_int.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES ((size_t)NU_PAGE_BYTES)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ENTRY(name)	__wrap_##name
#define __libc_malloc	malloc
#define __libc_calloc	calloc
#define __libc_realloc	realloc
#define __libc_memalign memalign
#define __libc_free	free
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#else
#define ENTRY(name) name
extern void *__libc_malloc(size_t len);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *ptr, size_t len);
extern void *__libc_memalign(size_t align, size_t len);
extern void __libc_free(void *ptr);
/* What the name means here, if another object does not stand before. */
static __typeof__(malloc) own_malloc __attribute__((alias("malloc"), malloc, nothrow));
#endif

/* Entry points that headers call under other names: fortified, and as inline functions. */
NU_API int __asprintf_chk(char **str_p, int flag, const char *fmt, ...);
NU_API int __vasprintf_chk(char **str_p, int flag, const char *fmt, va_list ap);
NU_API ssize_t __getdelim(char **line_p, size_t *len_p, int delim, FILE *f);

/* The proclet whose thread runs here, if it has a heap, and on which core. Safe before anything is set up. */
static inline struct nu_proclet *current(unsigned *core_p)
{
	struct nu_proclet *(*fn)(void) = nu_current_proclet_fn;
	struct nu_here *here;
	struct nu_runs *t;

	NU_TLS_LOAD(here, nu_here);
	if (likely(here)) {
		*core_p = here->index;
		t = (struct nu_runs *)atomic_load_explicit(&here->current, memory_order_relaxed);
		return likely(t && t->proclet->heap) ? t->proclet : NULL;
	}
	*core_p = nu_current_core_fn();
	return fn ? fn() : NULL;
}

/* The proclet that code at @pc allocates for; NULL: the C library. */
static inline struct nu_proclet *proclet_for(const void *pc, unsigned *core_p)
{
	struct nu_proclet *p = current(core_p);

	return likely(p && p->heap && nu_image_has(pc)) ? p : NULL;
}

/* Names the proclet whose segment holds @ptr; 0: it is not here. */
static uint64_t owner_of(const void *ptr)
{
	struct nu_proclet *p = nu_proclet_around(ptr);

	return p && p->head ? atomic_load_explicit(&p->id, memory_order_relaxed) : 0;
}

static __attribute__((noreturn, cold, noinline)) void foreign_block(const struct nu_proclet *p,
								    const void *ptr)
{
	nu_err("proclet %#lx frees, resizes or measures %p, a block of proclet %#lx",
	       p ? (unsigned long)atomic_load_explicit(&p->id, memory_order_relaxed) : 0ul, ptr,
	       (unsigned long)owner_of(ptr));
	nu_assert_failed("a block is used by the proclet whose heap it is of", __FILE__, __LINE__);
}

/* The heap of the current proclet, which @ptr (in the segment region) must be of. */
static inline struct nu_heap *heap_of(const void *ptr, unsigned *core_p)
{
	struct nu_proclet *p = current(core_p);

	if (likely(p && p->heap && (uintptr_t)ptr - (uintptr_t)p->head < p->head->capacity_bytes))
		return p->heap;
	foreign_block(p, ptr);
}

static __attribute__((cold, noinline)) void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

/* libnu's own allocation is about to be made, at fault point ALLOC. */
static bool fails(const void *pc)
{
	return unlikely(nu_fault_armed) && nu_track_is_own(pc) && nu_fault_reached_from(NU_FAULT_ALLOC, pc);
}

/* A block of the C library's for code at @pc. */
static inline void *tracked(void *ptr, const void *pc)
{
	if (unlikely(nu_track_on) && nu_track_is_own(pc))
		nu_track_add(ptr, pc);
	return ptr;
}

static inline void libc_free(void *ptr)
{
	if (unlikely(nu_track_on))
		nu_track_del(ptr);
	__libc_free(ptr);
}

static __attribute__((noinline)) void *libc_alloc(const void *pc, size_t len)
{
	return unlikely(fails(pc)) ? no_memory() : tracked(__libc_malloc(len), pc);
}

/* Notes the running thread's heap for the calls to come, until another thread runs. */
static inline void remember(struct nu_heap *h)
{
	struct nu_here *here;

	NU_TLS_LOAD(here, nu_here);
	if (here) {
		here->heap = h;
		here->cache = nu_heap_cache_of(h, here->index);
	}
}

static __attribute__((noinline)) void *alloc_slowly(const void *pc, size_t len)
{
	unsigned core;
	struct nu_proclet *p = proclet_for(pc, &core);
	void *ptr;

	if (!p)
		return libc_alloc(pc, len);
	ptr = nu_heap_alloc(p->heap, len, core);
	remember(p->heap);
	return likely(ptr != NULL) ? ptr : no_memory();
}

/* All that is not quick is a jump away, so that what is saves no registers. */
static inline __attribute__((always_inline)) void *alloc_for(const void *pc, size_t len)
{
	struct nu_here *here;
	void *ptr;

	NU_TLS_LOAD(here, nu_here);
	if (likely(here && here->cache && nu_image_has_surely(pc))) {
		ptr = nu_heap_alloc_quickly(here->heap, here->cache, len);
		if (likely(ptr))
			return ptr;
	}
	return alloc_slowly(pc, len);
}

static __attribute__((noinline)) void free_slowly(void *ptr)
{
	unsigned core;
	struct nu_heap *h;

	if (!nu_addr_in_segments(ptr)) {
		libc_free(ptr);
		return;
	}
	h = heap_of(ptr, &core);
	nu_heap_free(h, ptr, core);
	remember(h);
}

static void *aligned_for(const void *pc, size_t align, size_t len)
{
	unsigned core;
	struct nu_proclet *p = proclet_for(pc, &core);
	void *ptr;

	if (!p)
		return fails(pc) ? no_memory() : tracked(__libc_memalign(align, len), pc);
	ptr = nu_heap_alloc_aligned(p->heap, align, len, core);
	return ptr ? ptr : no_memory();
}

void *nu_scratch_alloc(size_t len_bytes)
{
	const void *pc = __builtin_return_address(0);
	unsigned core;
	struct nu_proclet *p = current(&core);

	if (fails(pc))
		return NULL;
	return p && p->heap ? nu_heap_alloc(p->heap, len_bytes, core) : tracked(__libc_malloc(len_bytes), pc);
}

void nu_scratch_free(void *ptr)
{
	free_slowly(ptr);
}

typedef size_t (*usable_fn)(void *ptr);

/* It has no other name. Another object may stand in for it alone, so the one that the blocks are from is asked. */
static usable_fn find_libc_usable(void)
{
	usable_fn fn = NULL;
	void *object;
	Dl_info info;

	if (dladdr((void *)__libc_malloc, &info) &&
	    (object = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD))) {
		fn = (usable_fn)dlsym(object, "malloc_usable_size");
		dlclose(object);
	}
	return fn ? fn : (usable_fn)dlsym(RTLD_NEXT, "malloc_usable_size");
}

static size_t libc_usable(void *ptr)
{
	static _Atomic(usable_fn) libc_fn;
	usable_fn fn = atomic_load_explicit(&libc_fn, memory_order_relaxed);

	if (!fn) {
		fn = find_libc_usable();
		NU_ASSERT(fn);
		atomic_store_explicit(&libc_fn, fn, memory_order_relaxed);
	}
	return fn(ptr);
}

static void *heap_realloc(void *ptr, size_t len)
{
	unsigned core;
	struct nu_heap *h = heap_of(ptr, &core);
	size_t old = nu_heap_usable(h, ptr);
	void *to;

	if (!len) {
		nu_heap_free(h, ptr, core);
		return NULL;
	}
	/* Stay where that wastes less than half. */
	if (len <= old && len >= old / 2)
		return ptr;
	to = nu_heap_alloc(h, len, core);
	if (!to)
		return len <= old ? ptr : no_memory();
	memcpy(to, ptr, len < old ? len : old);
	nu_heap_free(h, ptr, core);
	return to;
}

static void *libc_realloc(const void *pc, void *ptr, size_t len)
{
	bool counted;
	void *to;

	if (len && fails(pc))
		return no_memory();
	/* Before: another kernel thread may be given its address at once. */
	counted = unlikely(nu_track_on) && nu_track_del(ptr);
	to = __libc_realloc(ptr, len);
	if (to)
		tracked(to, pc);
	else if (counted && len)
		nu_track_add(ptr, pc); /* it stays */
	return to;
}

/* A libc block that the program resizes in a proclet (it came from a library) becomes one of the heap. */
static void *realloc_for(const void *pc, void *ptr, size_t len)
{
	unsigned core;
	size_t old;
	void *to;

	if (!ptr)
		return alloc_for(pc, len);
	if (nu_addr_in_segments(ptr))
		return heap_realloc(ptr, len);
	if (!len || !proclet_for(pc, &core))
		return libc_realloc(pc, ptr, len);
	old = libc_usable(ptr);
	to = alloc_for(pc, len);
	if (!to)
		return NULL;
	memcpy(to, ptr, len < old ? len : old);
	libc_free(ptr);
	return to;
}

/* ---- the family ---- */

NU_API void *ENTRY(malloc)(size_t len)
{
	return alloc_for(__builtin_return_address(0), len);
}

NU_API void ENTRY(free)(void *ptr)
{
	struct nu_here *here;

	NU_TLS_LOAD(here, nu_here);
	if (unlikely(!here || !here->cache || !nu_heap_free_quickly(here->heap, here->cache, ptr)))
		free_slowly(ptr);
}

NU_API void *ENTRY(calloc)(size_t n, size_t size)
{
	const void *pc = __builtin_return_address(0);
	unsigned core;
	struct nu_proclet *p = proclet_for(pc, &core);
	size_t len;
	void *ptr;

	if (!p)
		return fails(pc) ? no_memory() : tracked(__libc_calloc(n, size), pc);
	if (__builtin_mul_overflow(n, size, &len))
		return no_memory();
	ptr = nu_heap_alloc(p->heap, len, core);
	return ptr ? memset(ptr, 0, len) : no_memory();
}

NU_API void *ENTRY(realloc)(void *ptr, size_t len)
{
	return realloc_for(__builtin_return_address(0), ptr, len);
}

NU_API void *ENTRY(reallocarray)(void *ptr, size_t n, size_t size)
{
	size_t len;

	if (__builtin_mul_overflow(n, size, &len))
		return no_memory();
	return realloc_for(__builtin_return_address(0), ptr, len);
}

static bool power_of_two(size_t x)
{
	return x && !(x & (x - 1));
}

NU_API int ENTRY(posix_memalign)(void **ptr_p, size_t align, size_t len)
{
	int saved = errno;
	void *ptr;

	if (!power_of_two(align) || align % sizeof(void *))
		return EINVAL;
	ptr = aligned_for(__builtin_return_address(0), align, len);
	errno = saved; /* POSIX leaves it alone */
	if (!ptr)
		return ENOMEM;
	*ptr_p = ptr;
	return 0;
}

NU_API void *ENTRY(aligned_alloc)(size_t align, size_t len)
{
	if (!power_of_two(align)) {
		errno = EINVAL;
		return NULL;
	}
	return aligned_for(__builtin_return_address(0), align, len);
}

NU_API void *ENTRY(memalign)(size_t align, size_t len)
{
	size_t up = 16;

	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	while (up < align)
		up *= 2;
	return aligned_for(__builtin_return_address(0), up, len);
}

NU_API void *ENTRY(valloc)(size_t len)
{
	return aligned_for(__builtin_return_address(0), PAGE_BYTES, len);
}

NU_API void *ENTRY(pvalloc)(size_t len)
{
	if (len > SIZE_MAX - PAGE_BYTES)
		return no_memory();
	return aligned_for(__builtin_return_address(0), PAGE_BYTES, NU_ALIGN_UP(len ? len : 1, PAGE_BYTES));
}

NU_API size_t ENTRY(malloc_usable_size)(void *ptr)
{
	unsigned core;

	if (!ptr)
		return 0;
	return nu_addr_in_segments(ptr) ? nu_heap_usable(heap_of(ptr, &core), ptr) : libc_usable(ptr);
}

/* ---- what the C library would allocate for itself ---- */

/*
 * Another object's malloc stands before ours, and its free will get what these give out: malloc_check.c refuses the start,
 * but libraries' constructors come before that, and a sanitizer calls these for the C library's.
 */
static bool is_replaced(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return false;
#else
	return unlikely(malloc != own_malloc);
#endif
}

static void *text_alloc(const void *pc, size_t len)
{
	return is_replaced() ? malloc(len) : alloc_for(pc, len);
}

static void *text_realloc(const void *pc, void *ptr, size_t len)
{
	return is_replaced() ? realloc(ptr, len) : realloc_for(pc, ptr, len);
}

static char *copy_for(const void *pc, const char *s, size_t len)
{
	char *to = text_alloc(pc, len + 1);

	if (!to)
		return NULL;
	memcpy(to, s, len);
	to[len] = '\0';
	return to;
}

#undef strdup
#undef strndup
NU_API char *ENTRY(strdup)(const char *s)
{
	return copy_for(__builtin_return_address(0), s, strlen(s));
}

NU_API char *ENTRY(strndup)(const char *s, size_t max)
{
	return copy_for(__builtin_return_address(0), s, strnlen(s, max));
}

/* The C library's text in a block for @pc. Short texts are formatted once. */
static int format_for(const void *pc, char **str_p, const char *fmt, va_list ap)
{
	char small[256];
	va_list again;
	char *to;
	int n;

	va_copy(again, ap);
	n = vsnprintf(small, sizeof(small), fmt, ap);
	if (n < 0) {
		errno = nu_sys_errno;
		to = NULL;
	} else if ((size_t)n < sizeof(small)) {
		to = copy_for(pc, small, (size_t)n);
	} else {
		to = text_alloc(pc, (size_t)n + 1);
		if (to)
			vsnprintf(to, (size_t)n + 1, fmt, again);
	}
	va_end(again);
	if (!to)
		return -1;
	*str_p = to;
	return n;
}

NU_API int ENTRY(vasprintf)(char **str_p, const char *fmt, va_list ap)
{
	return format_for(__builtin_return_address(0), str_p, fmt, ap);
}

NU_API int ENTRY(asprintf)(char **str_p, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = format_for(__builtin_return_address(0), str_p, fmt, ap);
	va_end(ap);
	return n;
}

int ENTRY(__vasprintf_chk)(char **str_p, int flag, const char *fmt, va_list ap)
{
	(void)flag;
	return format_for(__builtin_return_address(0), str_p, fmt, ap);
}

int ENTRY(__asprintf_chk)(char **str_p, int flag, const char *fmt, ...)
{
	va_list ap;
	int n;

	(void)flag;
	va_start(ap, fmt);
	n = format_for(__builtin_return_address(0), str_p, fmt, ap);
	va_end(ap);
	return n;
}

/* Makes room for @need bytes in a line's buffer; doubles it, so that long lines are copied few times. */
static bool line_room(const void *pc, char **line_p, size_t *len_p, size_t need)
{
	size_t len = *line_p ? *len_p : 0;
	char *to;

	if (need <= len)
		return true;
	len = len * 2 < 120 ? 120 : len * 2;
	to = text_realloc(pc, *line_p, need > len ? need : len);
	if (!to)
		return false;
	*line_p = to;
	*len_p = need > len ? need : len;
	return true;
}

static ssize_t line_read(const void *pc, char **line_p, size_t *len_p, int delim, FILE *f)
{
	size_t n = 0;
	int c = 0;

	while (c != delim || !n) {
		c = getc_unlocked(f);
		if (c == EOF) {
			if (ferror_unlocked(f))
				errno = nu_sys_errno;
			break;
		}
		if (!line_room(pc, line_p, len_p, n + 2))
			return -1;
		(*line_p)[n++] = (char)c;
	}
	if (!n)
		return -1;
	(*line_p)[n] = '\0';
	return (ssize_t)n;
}

static ssize_t line_for(const void *pc, char **line_p, size_t *len_p, int delim, FILE *f)
{
	ssize_t n;

	if (!line_p || !len_p || !f) {
		errno = EINVAL;
		return -1;
	}
	flockfile(f);
	n = line_read(pc, line_p, len_p, (unsigned char)delim, f);
	funlockfile(f);
	return n;
}

NU_API ssize_t ENTRY(getdelim)(char **line_p, size_t *len_p, int delim, FILE *f)
{
	return line_for(__builtin_return_address(0), line_p, len_p, delim, f);
}

ssize_t ENTRY(__getdelim)(char **line_p, size_t *len_p, int delim, FILE *f)
{
	return line_for(__builtin_return_address(0), line_p, len_p, delim, f);
}

#undef getline
NU_API ssize_t ENTRY(getline)(char **line_p, size_t *len_p, FILE *f)
{
	return line_for(__builtin_return_address(0), line_p, len_p, '\n', f);
}
