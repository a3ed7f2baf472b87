/* SPDX-License-Identifier: MIT */
/*
 * A heap's insides, shared by heap.c (slabs, caches), heap_pages.c (runs of pages) and heap_check.c.
 *
 * Everything lies in [base, base + mapped) of the segment. Every page of 4 KiB below `top` has a descriptor, found
 * from its index: area a of the page numbers ([0, 128), then doubling: [128, 256), [256, 512) ...) has a map of its
 * own, area 0's in the header and the others in page runs. So the map grows with the heap, lookups need no lock, and
 * nothing has to be moved when it grows. Pages from `top` on are untouched: no descriptor there means anything, and
 * no free run ever ends at `top` (it is given back to the rest), so `top` is all that a migration must read.
 *
 * Locks: a class's lock, then the heap's (pages). Caches belong to one core each and need none.
 */
#pragma once

#include "core/core.h"

#include <assert.h>

#define NU_HEAP_PAGE_SHIFT  12
#define NU_HEAP_PAGE_BYTES  ((size_t)1 << NU_HEAP_PAGE_SHIFT)
#define NU_HEAP_AREA0_SHIFT 7 /* area 0 has 128 pages: its map fills the header's second page */
#define NU_HEAP_AREA0_PAGES (1u << NU_HEAP_AREA0_SHIFT)
#define NU_HEAP_AREAS	    22 /* 2^28 pages: NU_SEG_MAX_BYTES */
#define NU_HEAP_HEAD_PAGES  2
#define NU_HEAP_CLASSES	    40
#define NU_HEAP_SMALL_MAX   ((size_t)32 << 10)

/* Sizes: 16 to 128 in steps of 16, then four to a doubling. All are multiples of 16, so a slab aligns its blocks. */
#define NU_HEAP_CLASS_BYTES(c) ((c) < 8 ? ((c) + 1u) * 16u : (5u + (c) % 4u) << ((c) / 4u + 3u))

enum nu_heap_kind {
	NU_PAGE_NONE, /* inside a large block or a free run */
	NU_PAGE_META, /* first page of the header or of a map */
	NU_PAGE_FREE, /* first and last page of a free run */
	NU_PAGE_SLAB, /* every page of a slab */
	NU_PAGE_LARGE /* first page of a large block */
};

#define NU_HEAP_NIL UINT32_MAX

/* One page, or by its first page one run. Page 0 is the header, so index 0 serves as "none" in links. */
struct nu_heap_page {
	uint8_t kind;
	uint8_t cls;	 /* SLAB */
	uint16_t nobjs;	 /* SLAB: blocks that fit */
	uint32_t head;	 /* SLAB, FREE: first page of the run */
	uint32_t npages; /* first page of any run */
	union {
		uint32_t next; /* SLAB with free blocks: ring of its class */
		uint32_t left; /* FREE: tree by address */
	};
	union {
		uint32_t prev;
		uint32_t right;
	};
	union {
		uint32_t free_off; /* SLAB: first free block, in bytes from the slab's start; NU_HEAP_NIL */
		uint32_t max;	   /* FREE: longest run in this subtree */
	};
	uint16_t nused;	  /* SLAB: blocks in caches or with the program */
	uint16_t ncarved; /* SLAB: blocks from here on were never used and are in no list */
	uint32_t spare;
};
static_assert(sizeof(struct nu_heap_page) == 32, "a map takes 1/128 of what it describes");

/* A block that is free, in a slab's list or in a cache. */
struct nu_heap_obj {
	struct nu_heap_obj *next;
	uintptr_t key; /* NU_HEAP_KEY while free: a second free is noticed */
};
#define NU_HEAP_KEY(h) ((uintptr_t)(h) ^ 0x9e3779b97f4a7c15u)

/* The free blocks of one class that a core holds. */
struct nu_heap_bin {
	struct nu_heap_obj *first;
	uint32_t count;
	uint16_t
		limit; /* flushed beyond; starts low and doubles while it is hit, so that idle caches stay small */
	uint16_t fill; /* fetched at once when empty; the same */
};

struct nu_heap_cache {
	struct nu_heap_bin bins[NU_HEAP_CLASSES];
};
static_assert(sizeof(struct nu_heap_cache) % NU_CACHE_LINE == 0, "caches of two cores share no line");

struct nu_heap_class {
	struct nu_lock lock;
	uint32_t partial; /* ring of the slabs with free blocks, the lowest known first; 0: none */
	uint32_t nslabs;
	uint32_t spare;
	uint64_t nout; /* blocks out of slabs: with the program or in caches */
};

struct nu_heap {
	/* Read by every operation; written when the heap grows or a core comes in for the first time. */
	uintptr_t base;
	uintptr_t maps[NU_HEAP_AREAS]; /* address that page 0's descriptor would have, were it in this map */
	struct nu_heap_cache *caches[NU_MAX_CORES];

	/* Pages, under lock (top: also read without). */
	struct nu_lock lock;
	uint32_t top;
	uint32_t mapped_pages;
	uint32_t capacity_pages;
	uint32_t free_root; /* tree of the free runs; 0: none */
	uint32_t nareas;
	uint64_t large_pages;
	uint32_t map_at[NU_HEAP_AREAS]; /* first page of each area's map */
	nu_heap_grow_fn grow;
	void *grow_arg;

	struct nu_heap_class classes[NU_HEAP_CLASSES];
	struct nu_heap_page area0[NU_HEAP_AREA0_PAGES];
} __attribute__((aligned(NU_CACHE_LINE)));
static_assert(NU_HEAP_HEAD_BYTES + sizeof(struct nu_heap) <= NU_HEAP_HEAD_PAGES * NU_HEAP_PAGE_BYTES,
	      "the header fits its pages");

static inline unsigned nu_heap_area(uint32_t page)
{
	return nu_cpu_log2(page | (NU_HEAP_AREA0_PAGES - 1)) - (NU_HEAP_AREA0_SHIFT - 1);
}
static inline uint32_t nu_heap_area_end(unsigned area)
{
	return NU_HEAP_AREA0_PAGES << area;
}
static inline uint32_t nu_heap_map_pages(unsigned area)
{
	return 1u << (area - 1); /* not for area 0 */
}
static inline struct nu_heap_page *nu_heap_page(const struct nu_heap *h, uint32_t page)
{
	return (struct nu_heap_page *)(h->maps[nu_heap_area(page)] + page * sizeof(struct nu_heap_page));
}
static inline char *nu_heap_page_addr(const struct nu_heap *h, uint32_t page)
{
	return (char *)h - NU_HEAP_HEAD_BYTES + ((uintptr_t)page << NU_HEAP_PAGE_SHIFT);
}
/* The page that holds @ptr; NU_HEAP_NIL if it is no address of this heap. */
static inline uint32_t nu_heap_page_of(const struct nu_heap *h, const void *ptr)
{
	/* From the header's own address: h->base would be one more load to wait for. */
	uintptr_t page = ((uintptr_t)ptr - ((uintptr_t)h - NU_HEAP_HEAD_BYTES)) >> NU_HEAP_PAGE_SHIFT;
	return likely(page < __atomic_load_n(&h->top, __ATOMIC_RELAXED)) ? (uint32_t)page : NU_HEAP_NIL;
}

/* A free run's place in the tree: a hash, so that the tree is the same on every replica. */
static inline uint32_t nu_heap_prio(uint32_t page)
{
	uint32_t x = page * 0x9e3779b1u;
	x ^= x >> 15;
	x *= 0x85ebca77u;
	return x ^ x >> 13;
}

/*
 * Takes @npages pages at a multiple of @align_pages (of the address), lowest first, growing the heap if it must, and
 * enters them as a run of @kind (and @cls). Return: its first page; 0: the heap or the node's pool is full.
 */
uint32_t nu_heap_run_alloc(struct nu_heap *h, uint32_t npages, uint32_t align_pages, enum nu_heap_kind kind,
			   unsigned cls);
/* Gives the run that starts at @page back. */
void nu_heap_run_free(struct nu_heap *h, uint32_t page);
/* Sets up the pages of an empty heap. */
void nu_heap_pages_init(struct nu_heap *h);

/* ---- the hot path, for heap.c and malloc.c ---- */

/* ceil(2^64 / size): n is a multiple of the size if and only if n * this, modulo 2^64, is below this. */
extern const uint64_t nu_heap_class_magic[NU_HEAP_CLASSES] __attribute__((visibility("hidden")));
/* The class of so many 16 bytes. Where the highest bit is takes some processors long to say. */
#define NU_HEAP_TABLED_MAX 1024
extern const uint8_t nu_heap_class_table[NU_HEAP_TABLED_MAX / 16 + 1] __attribute__((visibility("hidden")));

static inline unsigned nu_heap_class_of(size_t len)
{
	unsigned shift;

	if (len <= 128)
		return len ? (unsigned)(len - 1) >> 4 : 0;
	len--;
	shift = 63 - (unsigned)__builtin_clzl(len);
	return 8 + (shift - 7) * 4 + ((unsigned)(len >> (shift - 2)) & 3);
}

static inline struct nu_heap_cache *nu_heap_cache_of(const struct nu_heap *h, unsigned core)
{
	return likely(core < NU_MAX_CORES) ? h->caches[core] : NULL;
}

/* The counts are written by their core alone, and read by whoever adds them up. */
static inline void nu_heap_bin_set(struct nu_heap_bin *b, uint32_t count)
{
	__atomic_store_n(&b->count, count, __ATOMIC_RELAXED);
}

static inline void nu_heap_bin_add(struct nu_heap_bin *b, uint32_t n)
{
#ifdef __SANITIZE_THREAD__
	nu_heap_bin_set(b, b->count + n);
#else
	b->count += n; /* one instruction, where what compilers make of an atomic store is three */
#endif
}

/* NULL: there is none, or the first one's mark is not whole. */
static inline void *nu_heap_bin_pop(const struct nu_heap *h, struct nu_heap_bin *b)
{
	struct nu_heap_obj *o = b->first;

	if (unlikely(!o || o->key != NU_HEAP_KEY(h)))
		return NULL;
	b->first = o->next;
	nu_heap_bin_add(b, UINT32_MAX);
	o->key = 0;
	return o;
}

static inline void nu_heap_bin_push(const struct nu_heap *h, struct nu_heap_bin *b, struct nu_heap_obj *o)
{
	o->next = b->first;
	o->key = NU_HEAP_KEY(h);
	b->first = o;
	nu_heap_bin_add(b, 1);
}

/* NULL: nu_heap_alloc() knows more. */
static inline void *nu_heap_alloc_quickly(const struct nu_heap *h, struct nu_heap_cache *cache,
					  size_t len_bytes)
{
	unsigned cls;

	if (likely(len_bytes <= NU_HEAP_TABLED_MAX))
		cls = nu_heap_class_table[(len_bytes + 15) / 16];
	else if (likely(len_bytes <= NU_HEAP_SMALL_MAX))
		cls = nu_heap_class_of(len_bytes);
	else
		return NULL;
	return nu_heap_bin_pop(h, &cache->bins[cls]);
}

/* False, and nothing was done: nu_heap_free() knows more. */
static inline bool nu_heap_free_quickly(const struct nu_heap *h, struct nu_heap_cache *cache, void *ptr)
{
	uint32_t page = nu_heap_page_of(h, ptr);
	struct nu_heap_obj *o = ptr;
	struct nu_heap_page *pg;
	struct nu_heap_bin *b;
	uint64_t magic;

	if (unlikely(page == NU_HEAP_NIL))
		return false;
	pg = nu_heap_page(h, page);
	if (unlikely(pg->kind != NU_PAGE_SLAB || o->key == NU_HEAP_KEY(h)))
		return false;
	magic = nu_heap_class_magic[pg->cls];
	b = &cache->bins[pg->cls];
	if (unlikely(((uintptr_t)ptr - (uintptr_t)nu_heap_page_addr(h, pg->head)) * magic >= magic ||
		     b->count >= b->limit))
		return false;
	nu_heap_bin_push(h, b, o);
	return true;
}
