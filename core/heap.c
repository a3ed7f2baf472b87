/* SPDX-License-Identifier: MIT */
/*
 * A proclet's heap: slabs by size class, a cache of free blocks per core in front of them, page runs for large blocks.
 *
 * The hot path takes from and gives to the calling core's cache with plain loads and stores. A block that another core
 * allocated goes into the freeing core's cache like any other and returns to its slab when that cache is flushed, so
 * memory never gets stuck at a core that its proclet has left. A thread is never interrupted and moved inside this
 * code, so a cache needs no guard against its own core.
 */
#include "core/heap_int.h"

#include <string.h>

#define S(c) NU_HEAP_CLASS_BYTES(c)
static const uint16_t class_bytes[NU_HEAP_CLASSES] = {
	S(0),  S(1),  S(2),  S(3),  S(4),  S(5),  S(6),	 S(7),	S(8),  S(9),  S(10), S(11), S(12), S(13),
	S(14), S(15), S(16), S(17), S(18), S(19), S(20), S(21), S(22), S(23), S(24), S(25), S(26), S(27),
	S(28), S(29), S(30), S(31), S(32), S(33), S(34), S(35), S(36), S(37), S(38), S(39),
};
#undef S
/* ceil(2^64 / size): n is a multiple of the size if and only if n * this, modulo 2^64, is below this. */
#define M(c) (UINT64_MAX / NU_HEAP_CLASS_BYTES(c) + 1)
const uint64_t nu_heap_class_magic[NU_HEAP_CLASSES] = {
	M(0),  M(1),  M(2),  M(3),  M(4),  M(5),  M(6),	 M(7),	M(8),  M(9),  M(10), M(11), M(12), M(13),
	M(14), M(15), M(16), M(17), M(18), M(19), M(20), M(21), M(22), M(23), M(24), M(25), M(26), M(27),
	M(28), M(29), M(30), M(31), M(32), M(33), M(34), M(35), M(36), M(37), M(38), M(39),
};
#undef M
const uint8_t nu_heap_class_table[NU_HEAP_TABLED_MAX / 16 + 1] = {
	0,  0,	1,  2,	3,  4,	5,  6,	7,  8,	8,  9,	9,  10, 10, 11, 11, 12, 12, 12, 12, 13,
	13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17,
	17, 17, 17, 17, 17, 18, 18, 18, 18, 18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19,
};
static_assert(NU_HEAP_CLASS_BYTES(NU_HEAP_CLASSES - 1) == NU_HEAP_SMALL_MAX, "the last class is the largest");

#define BIN_BYTES_MIN	((size_t)16 << 10) /* that a core may keep of one class: */
#define BIN_BYTES_MAX	((size_t)64 << 10)
#define BIN_SHARE	128u /* in between, this part of the heap */
#define BIN_COUNT_MAX	1024u
#define BIN_LIMIT_FIRST 8u
#define BIN_FILL_FIRST	2u
#define SLABS_SMALL	4u /* a class starts with this many short slabs, so that a small heap stays small */

static __attribute__((noreturn, cold, noinline)) void bad_free(const struct nu_heap *h, const void *ptr,
							       const char *what)
{
	const struct nu_proclet_head *head = (const void *)h->base;

	nu_err("heap of proclet %#lx at %p: free or use of %p, which is %s", (unsigned long)head->id,
	       (void *)h->base, ptr, what);
	nu_assert_failed("a block given to the heap is one of its live blocks", __FILE__, __LINE__);
}

/* A free block whose mark is gone: found when it is handed out again. */
static __attribute__((noreturn, cold, noinline)) void bad_block(const struct nu_heap *h,
								const struct nu_heap_obj *o)
{
	const struct nu_proclet_head *head = (const void *)h->base;

	nu_err("heap of proclet %#lx at %p: the block %p was written after it was freed, or its neighbour "
	       "overran",
	       (unsigned long)head->id, (void *)h->base, (const void *)o);
	nu_assert_failed("a free block's mark is whole", __FILE__, __LINE__);
}

static inline void check_mark(const struct nu_heap *h, const struct nu_heap_obj *o)
{
	if (unlikely(o->key != NU_HEAP_KEY(h)))
		bad_block(h, o);
}

/* ---- slabs: all of this under the class's lock ---- */

static void partial_del(struct nu_heap *h, struct nu_heap_class *c, uint32_t page)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);

	if (c->partial == page)
		c->partial = pg->next == page ? 0 : pg->next;
	nu_heap_page(h, pg->next)->prev = pg->prev;
	nu_heap_page(h, pg->prev)->next = pg->next;
}

/* The lowest known slab is used first: the upper ones get a chance to run empty. */
static void partial_add(struct nu_heap *h, struct nu_heap_class *c, uint32_t page)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);

	if (!c->partial) {
		pg->next = pg->prev = page;
		c->partial = page;
		return;
	}
	pg->next = c->partial;
	pg->prev = nu_heap_page(h, c->partial)->prev;
	nu_heap_page(h, pg->prev)->next = page;
	nu_heap_page(h, pg->next)->prev = page;
	if (page < c->partial)
		c->partial = page;
}

/* Pages of a short slab: the fewest that waste at most an eighth. */
static uint32_t slab_pages_short(uint32_t size)
{
	size_t bytes = NU_ALIGN_UP((size_t)size, NU_HEAP_PAGE_BYTES);

	while (bytes % size > bytes / 8)
		bytes += NU_HEAP_PAGE_BYTES;
	return (uint32_t)(bytes >> NU_HEAP_PAGE_SHIFT);
}

/* Pages of a full slab: 16 KiB for the small, else at least four blocks. */
static uint32_t slab_pages_full(uint32_t size)
{
	uint32_t one = slab_pages_short(size), n = one;
	size_t want = size <= 256 ? 16 * NU_KIB : size <= 2048 ? 32 * NU_KIB : 4 * (size_t)size;

	while (((size_t)n << NU_HEAP_PAGE_SHIFT) < want)
		n += one;
	return n;
}

static uint32_t slab_create(struct nu_heap *h, unsigned cls)
{
	struct nu_heap_class *c = &h->classes[cls];
	uint32_t size = class_bytes[cls], npages = slab_pages_short(size), page = 0;
	struct nu_heap_page *pg;

	if (c->nslabs >= SLABS_SMALL) {
		npages = slab_pages_full(size);
		page = nu_heap_run_alloc(h, npages, 1, NU_PAGE_SLAB, cls);
		if (!page)
			npages = slab_pages_short(size);
	}
	if (!page)
		page = nu_heap_run_alloc(h, npages, 1, NU_PAGE_SLAB, cls);
	if (!page)
		return 0;
	pg = nu_heap_page(h, page);
	pg->nobjs = (uint16_t)(((size_t)npages << NU_HEAP_PAGE_SHIFT) / size);
	pg->nused = pg->ncarved = 0;
	pg->free_off = NU_HEAP_NIL;
	c->nslabs++;
	partial_add(h, c, page);
	return page;
}

/* Moves up to @want free blocks of a slab onto the list *first_p: first those never used, in ascending order, then
 * those of its list, which are linked already. */
static unsigned slab_take(struct nu_heap *h, uint32_t page, unsigned want, struct nu_heap_obj **first_p)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);
	char *start = nu_heap_page_addr(h, page);
	struct nu_heap_obj *list = *first_p, *o, *last;
	uint32_t size = class_bytes[pg->cls];
	unsigned n = 0, fresh;

	if (pg->free_off != NU_HEAP_NIL) {
		o = last = (struct nu_heap_obj *)(start + pg->free_off);
		check_mark(h, o);
		for (n = 1; n < want && last->next; n++) {
			last = last->next;
			check_mark(h, last);
		}
		pg->free_off = last->next ? (uint32_t)((char *)last->next - start) : NU_HEAP_NIL;
		last->next = list;
		list = o;
	}
	fresh = pg->nobjs - pg->ncarved;
	if (fresh > want - n)
		fresh = want - n;
	for (unsigned i = fresh; i-- > 0;) {
		o = (struct nu_heap_obj *)(start + (size_t)size * (pg->ncarved + i));
		o->next = list;
		o->key = NU_HEAP_KEY(h);
		list = o;
	}
	pg->ncarved = (uint16_t)(pg->ncarved + fresh);
	n += fresh;
	pg->nused = (uint16_t)(pg->nused + n);
	*first_p = list;
	return n;
}

/* Up to @want blocks of a class; at least one unless the heap is full. New memory only for the first. */
static unsigned class_take(struct nu_heap *h, unsigned cls, unsigned want, struct nu_heap_obj **first_p)
{
	struct nu_heap_class *c = &h->classes[cls];
	unsigned n = 0;

	*first_p = NULL;
	nu_lock_acquire(&c->lock);
	while (n < want) {
		struct nu_heap_page *pg;
		uint32_t page = c->partial;

		if (!page) {
			if (n || !(page = slab_create(h, cls)))
				break;
		}
		n += slab_take(h, page, want - n, first_p);
		pg = nu_heap_page(h, page);
		if (pg->nused == pg->nobjs)
			partial_del(h, c, page);
	}
	c->nout += n;
	nu_lock_release(&c->lock);
	return n;
}

/* Where the blocks of the slab that holds @o begin and end. Return: its first page. */
static uint32_t slab_of(const struct nu_heap *h, const struct nu_heap_obj *o, unsigned cls, char **start_p,
			char **end_p)
{
	uint32_t page = nu_heap_page_of(h, o), head;
	struct nu_heap_page *pg;

	if (unlikely(page == NU_HEAP_NIL || nu_heap_page(h, page)->kind != NU_PAGE_SLAB))
		bad_free(h, o, "in no slab");
	head = nu_heap_page(h, page)->head;
	pg = nu_heap_page(h, head);
	*start_p = nu_heap_page_addr(h, head);
	*end_p = *start_p + (size_t)pg->ncarved * class_bytes[cls];
	if (unlikely(pg->cls != cls || (char *)o >= *end_p))
		bad_free(h, o, "not a block that was handed out");
	return head;
}

/*
 * Returns the first blocks of the list, up to @want, to the slab of the first: as many as lie in it. They are linked
 * already and stay so. An empty slab's pages go back at once (the caches are what damps that).
 */
static unsigned slab_give(struct nu_heap *h, unsigned cls, struct nu_heap_obj **list_p, unsigned want)
{
	struct nu_heap_obj *first = *list_p, *last = first, *o;
	struct nu_heap_class *c = &h->classes[cls];
	char *start, *end;
	uint32_t head = slab_of(h, first, cls, &start, &end);
	struct nu_heap_page *pg = nu_heap_page(h, head);
	unsigned n = 1;

	for (o = first->next; n < want && (char *)o >= start && (char *)o < end; o = o->next) {
		last = o;
		n++;
	}
	if (unlikely(n > pg->nused))
		bad_free(h, first, "of a slab that has fewer blocks out: freed twice");
	*list_p = o;
	last->next = pg->free_off == NU_HEAP_NIL ? NULL : (struct nu_heap_obj *)(start + pg->free_off);
	pg->free_off = (uint32_t)((char *)first - start);
	if (pg->nused == pg->nobjs)
		partial_add(h, c, head);
	pg->nused = (uint16_t)(pg->nused - n);
	if (!pg->nused) {
		partial_del(h, c, head);
		c->nslabs--;
		nu_heap_run_free(h, head);
	}
	return n;
}

/* Returns the first @n blocks of the list to their slabs. Return: the rest of the list. */
static struct nu_heap_obj *class_give(struct nu_heap *h, unsigned cls, struct nu_heap_obj *list, unsigned n)
{
	struct nu_heap_class *c = &h->classes[cls];

	nu_lock_acquire(&c->lock);
	c->nout -= n;
	while (n)
		n -= slab_give(h, cls, &list, n);
	nu_lock_release(&c->lock);
	return list;
}

/* ---- caches ---- */

static unsigned bin_max(const struct nu_heap *h, unsigned cls)
{
	size_t bytes = ((size_t)h->capacity_pages << NU_HEAP_PAGE_SHIFT) / BIN_SHARE, n;

	bytes = bytes < BIN_BYTES_MIN ? BIN_BYTES_MIN : bytes > BIN_BYTES_MAX ? BIN_BYTES_MAX : bytes;
	n = bytes / class_bytes[cls];

	return n < 2 ? 2 : n > BIN_COUNT_MAX ? BIN_COUNT_MAX : (unsigned)n;
}

static struct nu_heap_cache *cache_create(struct nu_heap *h, unsigned core)
{
	struct nu_heap_cache *cache;
	struct nu_heap_obj *o;

	if (core >= nu_node.cores || core >= NU_MAX_CORES)
		return NULL;
	if (!class_take(h, nu_heap_class_of(sizeof(*cache)), 1, &o))
		return NULL;
	cache = (struct nu_heap_cache *)o;
	for (unsigned cls = 0; cls < NU_HEAP_CLASSES; cls++) {
		unsigned max = bin_max(h, cls);

		cache->bins[cls] = (struct nu_heap_bin){
			.limit = (uint16_t)(max < BIN_LIMIT_FIRST ? max : BIN_LIMIT_FIRST),
			.fill = (uint16_t)(max <= BIN_FILL_FIRST ? 1 : BIN_FILL_FIRST),
		};
	}
	/* Others read the pointer when they sum up live bytes. */
	__atomic_store_n(&h->caches[core], cache, __ATOMIC_RELEASE);
	return cache;
}

static void cache_drain(struct nu_heap *h, struct nu_heap_cache *cache)
{
	for (unsigned cls = 0; cls < NU_HEAP_CLASSES; cls++) {
		struct nu_heap_bin *b = &cache->bins[cls];
		unsigned n = b->count;

		if (!n)
			continue;
		nu_heap_bin_set(b, 0);
		b->first = class_give(h, cls, b->first, n);
	}
}

/* Only where nobody else runs in the heap. */
static void cache_destroy(struct nu_heap *h, unsigned core)
{
	struct nu_heap_cache *cache = h->caches[core];
	struct nu_heap_obj *o = (struct nu_heap_obj *)cache;
	struct nu_here *here;

	if (!cache)
		return;
	cache_drain(h, cache);
	h->caches[core] = NULL;
	NU_TLS_LOAD(here, nu_here);
	if (here && here->cache == cache)
		here->cache = NULL;
	o->key = NU_HEAP_KEY(h);
	class_give(h, nu_heap_class_of(sizeof(*cache)), o, 1);
}

/* ---- blocks ---- */

static void *large_alloc(struct nu_heap *h, size_t len, size_t align, unsigned core)
{
	size_t npages = (len + NU_HEAP_PAGE_BYTES - 1) >> NU_HEAP_PAGE_SHIFT;
	size_t align_pages = align <= NU_HEAP_PAGE_BYTES ? 1 : align >> NU_HEAP_PAGE_SHIFT;
	struct nu_heap_cache *cache = nu_heap_cache_of(h, core);
	struct nu_heap_obj *o;
	uint32_t page;

	if (len > (size_t)h->capacity_pages << NU_HEAP_PAGE_SHIFT || align_pages > h->capacity_pages)
		return NULL;
	page = nu_heap_run_alloc(h, (uint32_t)npages, (uint32_t)align_pages, NU_PAGE_LARGE, 0);
	if (unlikely(!page && cache)) {
		cache_drain(h, cache);
		page = nu_heap_run_alloc(h, (uint32_t)npages, (uint32_t)align_pages, NU_PAGE_LARGE, 0);
	}
	if (!page)
		return NULL;
	o = (struct nu_heap_obj *)nu_heap_page_addr(h, page);
	o->key = 0; /* a former block's mark; realloc could copy it into a small block */
	return o;
}

static __attribute__((noinline)) void *small_alloc_slow(struct nu_heap *h, unsigned cls, unsigned core)
{
	struct nu_heap_cache *cache = nu_heap_cache_of(h, core);
	struct nu_heap_obj *o;
	struct nu_heap_bin *b;
	unsigned n, max = bin_max(h, cls);

	if (!cache)
		cache = cache_create(h, core);
	if (cache) {
		b = &cache->bins[cls];
		if (unlikely(b->first))
			bad_block(h, b->first);
		n = class_take(h, cls, b->fill, &b->first);
		nu_heap_bin_set(b, n);
		if (n == b->fill && b->fill * 2 <= max)
			b->fill = (uint16_t)(b->fill * 2);
		if (n)
			return nu_heap_bin_pop(h, b);
		cache_drain(h, cache); /* may empty a slab, whose pages will do */
	}
	if (!class_take(h, cls, 1, &o))
		return NULL;
	o->key = 0;
	return o;
}

static inline void *small_alloc(struct nu_heap *h, unsigned cls, unsigned core)
{
	struct nu_heap_cache *cache = nu_heap_cache_of(h, core);
	void *ptr = likely(cache) ? nu_heap_bin_pop(h, &cache->bins[cls]) : NULL;

	return likely(ptr) ? ptr : small_alloc_slow(h, cls, core);
}

void *nu_heap_alloc(struct nu_heap *h, size_t len_bytes, unsigned core)
{
	if (likely(len_bytes <= NU_HEAP_SMALL_MAX))
		return small_alloc(h, nu_heap_class_of(len_bytes), core);
	return large_alloc(h, len_bytes, 1, core);
}

void *nu_heap_alloc_aligned(struct nu_heap *h, size_t align, size_t len_bytes, unsigned core)
{
	unsigned cls;

	NU_ASSERT(align && !(align & (align - 1)));
	if (align <= 16)
		return nu_heap_alloc(h, len_bytes, core);
	if (align > NU_HEAP_PAGE_BYTES || len_bytes > NU_HEAP_SMALL_MAX)
		return large_alloc(h, len_bytes ? len_bytes : 1, align, core);
	/* Slabs begin at a page, so each block is aligned to any power of two that divides its size. */
	cls = nu_heap_class_of(len_bytes < align ? align : len_bytes);
	while (class_bytes[cls] & (align - 1))
		cls++;
	return small_alloc(h, cls, core);
}

static bool list_has(const struct nu_heap_obj *list, const void *ptr)
{
	for (; list; list = list->next)
		if (list == ptr)
			return true;
	return false;
}

/* @ptr carries a free block's mark. The program may have copied that there, so look before judging. */
static __attribute__((cold, noinline)) void check_double_free(struct nu_heap *h, void *ptr, unsigned cls,
							      unsigned core)
{
	struct nu_heap_cache *cache = nu_heap_cache_of(h, core);
	struct nu_heap_class *c = &h->classes[cls];
	uint32_t head = nu_heap_page(h, nu_heap_page_of(h, ptr))->head;
	struct nu_heap_page *pg = nu_heap_page(h, head);
	bool free = cache && list_has(cache->bins[cls].first, ptr);

	nu_lock_acquire(&c->lock);
	if (!free && pg->free_off != NU_HEAP_NIL)
		free = list_has((void *)(nu_heap_page_addr(h, head) + pg->free_off), ptr);
	nu_lock_release(&c->lock);
	if (free)
		bad_free(h, ptr, "free already: freed twice");
}

static __attribute__((noinline)) void small_free_slow(struct nu_heap *h, struct nu_heap_obj *o, unsigned cls,
						      unsigned core)
{
	struct nu_heap_cache *cache = nu_heap_cache_of(h, core);
	unsigned max = bin_max(h, cls), n;
	struct nu_heap_bin *b;

	if (!cache)
		cache = cache_create(h, core);
	if (!cache) {
		o->key = NU_HEAP_KEY(h);
		class_give(h, cls, o, 1);
		return;
	}
	b = &cache->bins[cls];
	if (b->count >= b->limit) { /* not, if it had a free block's mark by chance */
		n = b->count / 2 + 1;
		nu_heap_bin_set(b, b->count - n);
		b->first = class_give(h, cls, b->first, n);
		if (b->limit < max)
			b->limit = (uint16_t)(b->limit * 2u < max ? b->limit * 2u : max);
	}
	nu_heap_bin_push(h, b, o);
}

static __attribute__((noinline)) void large_free(struct nu_heap *h, void *ptr, uint32_t page)
{
	if (nu_heap_page(h, page)->kind != NU_PAGE_LARGE || ptr != nu_heap_page_addr(h, page))
		bad_free(h, ptr, "no live block: freed twice, or inside one");
	nu_heap_run_free(h, page);
}

void nu_heap_free(struct nu_heap *h, void *ptr, unsigned core)
{
	struct nu_heap_cache *cache = nu_heap_cache_of(h, core);
	struct nu_heap_obj *o = ptr;
	struct nu_heap_page *pg;
	uint32_t page;
	size_t off;

	if (unlikely(!ptr) || likely(cache && nu_heap_free_quickly(h, cache, ptr)))
		return;
	page = nu_heap_page_of(h, ptr);
	if (unlikely(page == NU_HEAP_NIL))
		bad_free(h, ptr, "outside of this heap's used part: foreign, or freed twice");
	pg = nu_heap_page(h, page);
	if (unlikely(pg->kind != NU_PAGE_SLAB)) {
		large_free(h, ptr, page);
		return;
	}
	off = (uintptr_t)ptr - (uintptr_t)nu_heap_page_addr(h, pg->head);
	if (unlikely(off * nu_heap_class_magic[pg->cls] >= nu_heap_class_magic[pg->cls]))
		bad_free(h, ptr, "inside a block");
	if (unlikely(o->key == NU_HEAP_KEY(h)))
		check_double_free(h, ptr, pg->cls, core);
	small_free_slow(h, o, pg->cls, core);
}

size_t nu_heap_usable(struct nu_heap *h, const void *ptr)
{
	uint32_t page = nu_heap_page_of(h, ptr);
	struct nu_heap_page *pg;

	if (page == NU_HEAP_NIL)
		bad_free(h, ptr, "outside of this heap's used part");
	pg = nu_heap_page(h, page);
	if (likely(pg->kind == NU_PAGE_SLAB))
		return class_bytes[pg->cls];
	if (pg->kind != NU_PAGE_LARGE)
		bad_free(h, ptr, "no live block");
	return (size_t)pg->npages << NU_HEAP_PAGE_SHIFT;
}

/* ---- the heap as a whole ---- */

struct nu_heap *nu_heap_init(void *base, size_t mapped_bytes, size_t capacity_bytes)
{
	struct nu_heap *h = (struct nu_heap *)((char *)base + NU_HEAP_HEAD_BYTES);

	NU_ASSERT(((uintptr_t)base & (NU_HEAP_PAGE_BYTES - 1)) == 0);
	NU_ASSERT(mapped_bytes >= NU_HEAP_HEAD_PAGES * NU_HEAP_PAGE_BYTES && mapped_bytes <= capacity_bytes);
	NU_ASSERT(capacity_bytes <= NU_SEG_MAX_BYTES);
	memset(h, 0, sizeof(*h));
	h->base = (uintptr_t)base;
	h->mapped_pages = (uint32_t)(mapped_bytes >> NU_HEAP_PAGE_SHIFT);
	h->capacity_pages = (uint32_t)(capacity_bytes >> NU_HEAP_PAGE_SHIFT);
	nu_heap_pages_init(h);
	return h;
}

void nu_heap_set_grow(struct nu_heap *h, nu_heap_grow_fn grow, void *arg)
{
	nu_lock_acquire(&h->lock);
	h->grow = grow;
	h->grow_arg = arg;
	nu_lock_release(&h->lock);
}

size_t nu_heap_used_end(const struct nu_heap *h)
{
	return (size_t)__atomic_load_n(&h->top, __ATOMIC_RELAXED) << NU_HEAP_PAGE_SHIFT;
}

size_t nu_heap_mapped_bytes(const struct nu_heap *h)
{
	return (size_t)__atomic_load_n(&h->mapped_pages, __ATOMIC_RELAXED) << NU_HEAP_PAGE_SHIFT;
}

/* Blocks of one class that lie in caches, a cache itself counting as one. */
static uint64_t class_cached(const struct nu_heap *h, unsigned cls)
{
	uint64_t n = 0;

	for (unsigned core = 0; core < NU_MAX_CORES; core++) {
		struct nu_heap_cache *cache = __atomic_load_n(&h->caches[core], __ATOMIC_ACQUIRE);

		if (cache) {
			n += __atomic_load_n(&cache->bins[cls].count, __ATOMIC_RELAXED);
			n += cls == nu_heap_class_of(sizeof(*cache));
		}
	}
	return n;
}

size_t nu_heap_live_bytes(const struct nu_heap *h)
{
	uint64_t bytes = __atomic_load_n(&h->large_pages, __ATOMIC_RELAXED) << NU_HEAP_PAGE_SHIFT;

	for (unsigned cls = 0; cls < NU_HEAP_CLASSES; cls++) {
		uint64_t out = __atomic_load_n(&h->classes[cls].nout, __ATOMIC_RELAXED);
		uint64_t cached = out ? class_cached(h, cls) : 0;

		/* Not one snapshot while others run: a class may seem to cache more than is out. */
		if (out > cached)
			bytes += (out - cached) * class_bytes[cls];
	}
	return bytes;
}

void nu_heap_settle(struct nu_heap *h)
{
	for (unsigned core = 0; core < NU_MAX_CORES; core++)
		cache_destroy(h, core);
}

bool nu_heap_may_arrive(const struct nu_heap *h, const void *base, size_t used_bytes, size_t capacity_bytes)
{
	uintptr_t low = (uintptr_t)base;

	if ((uintptr_t)h != low + NU_HEAP_HEAD_BYTES ||
	    used_bytes < NU_HEAP_HEAD_PAGES * NU_HEAP_PAGE_BYTES || h->base != low ||
	    nu_heap_used_end(h) != used_bytes ||
	    (size_t)h->capacity_pages << NU_HEAP_PAGE_SHIFT != capacity_bytes ||
	    h->maps[0] != (uintptr_t)h->area0)
		return false;
	for (unsigned core = 0; core < NU_MAX_CORES; core++) {
		if (h->caches[core] && ((uintptr_t)h->caches[core] - low >= used_bytes ||
					(uintptr_t)h->caches[core] % NU_CACHE_LINE))
			return false;
	}
	return true;
}

void nu_heap_arrived(struct nu_heap *h, size_t mapped_bytes)
{
	NU_ASSERT(mapped_bytes >= nu_heap_used_end(h));
	mapped_bytes >>= NU_HEAP_PAGE_SHIFT;
	h->mapped_pages = mapped_bytes > h->capacity_pages ? h->capacity_pages : (uint32_t)mapped_bytes;
	/* Caches of cores that this node has not would never be used again. */
	for (unsigned core = nu_node.cores; core < NU_MAX_CORES; core++)
		cache_destroy(h, core);
}
