/* SPDX-License-Identifier: MIT */
/*
 * Checks a heap's structures against each other: what tests run after everything. Nobody else may be in the heap.
 */
#include "core/heap_int.h"

#include <stdlib.h>

struct check {
	const struct nu_heap *h;
	unsigned char *seen; /* a bit for every 16 bytes: a free block starts there */
	uint64_t nfree_runs, nfree_seen, nlarge;
	uint64_t nused[NU_HEAP_CLASSES], nslabs[NU_HEAP_CLASSES], npartial[NU_HEAP_CLASSES];
};

static int fault(const struct check *c, const char *what, uint64_t where, uint64_t is, uint64_t should)
{
	nu_err("heap at %p: %s at %#lx: %lu, should be %lu", (void *)c->h->base, what, (unsigned long)where,
	       (unsigned long)is, (unsigned long)should);
	return -EIO;
}

/* Enters a free block; it may be in one list only. */
static int check_obj(struct check *c, const struct nu_heap_obj *o, unsigned cls)
{
	uint32_t page = nu_heap_page_of(c->h, o);
	const struct nu_heap_page *pg;
	uint64_t off, bit;

	if (page == NU_HEAP_NIL || nu_heap_page(c->h, page)->kind != NU_PAGE_SLAB)
		return fault(c, "free block outside of slabs", (uintptr_t)o, page, 0);
	pg = nu_heap_page(c->h, nu_heap_page(c->h, page)->head);
	off = (uint64_t)((const char *)o - nu_heap_page_addr(c->h, pg->head));
	if (pg->cls != cls || off % NU_HEAP_CLASS_BYTES(cls) || off / NU_HEAP_CLASS_BYTES(cls) >= pg->ncarved)
		return fault(c, "free block of a wrong class or place", (uintptr_t)o, pg->cls, cls);
	if (o->key != NU_HEAP_KEY(c->h))
		return fault(c, "mark of a free block", (uintptr_t)o, o->key, NU_HEAP_KEY(c->h));
	bit = ((uintptr_t)o - c->h->base) / 16;
	if (c->seen[bit / 8] & 1u << bit % 8)
		return fault(c, "block is in two free lists", (uintptr_t)o, 2, 1);
	c->seen[bit / 8] = (unsigned char)(c->seen[bit / 8] | 1u << bit % 8);
	return 0;
}

static int check_slab(struct check *c, uint32_t page)
{
	const struct nu_heap_page *pg = nu_heap_page(c->h, page);
	uint32_t size = NU_HEAP_CLASS_BYTES(pg->cls), nlist = 0;
	const char *start = nu_heap_page_addr(c->h, page);
	const struct nu_heap_obj *o;

	if (pg->cls >= NU_HEAP_CLASSES)
		return fault(c, "class", page, pg->cls, 0);
	for (uint32_t i = page; i < page + pg->npages; i++) {
		const struct nu_heap_page *in = nu_heap_page(c->h, i);

		if (in->kind != NU_PAGE_SLAB || in->head != page || in->cls != pg->cls)
			return fault(c, "page of a slab", i, in->head, page);
	}
	if (pg->nobjs != pg->npages * NU_HEAP_PAGE_BYTES / size || pg->ncarved > pg->nobjs || !pg->nused)
		return fault(c, "counts of a slab", page, pg->nused, pg->nobjs);
	o = pg->free_off == NU_HEAP_NIL ? NULL : (const struct nu_heap_obj *)(start + pg->free_off);
	for (; o; o = o->next) {
		if ((const char *)o < start || (const char *)o >= start + pg->npages * NU_HEAP_PAGE_BYTES)
			return fault(c, "free block in another slab's list", (uintptr_t)o, 0, page);
		if (check_obj(c, o, pg->cls))
			return -EIO;
		nlist++;
	}
	if (nlist + pg->nused != pg->ncarved)
		return fault(c, "free blocks of a slab", page, nlist + pg->nused, pg->ncarved);
	c->nslabs[pg->cls]++;
	c->nused[pg->cls] += pg->nused;
	c->npartial[pg->cls] += pg->nused < pg->nobjs;
	return 0;
}

static int check_free_run(struct check *c, uint32_t page)
{
	const struct nu_heap_page *pg = nu_heap_page(c->h, page);
	const struct nu_heap_page *last = nu_heap_page(c->h, page + pg->npages - 1);

	if (pg->head != page || last->kind != NU_PAGE_FREE || last->head != page)
		return fault(c, "end of a free run", page, last->head, page);
	if (page + pg->npages == c->h->top || nu_heap_page(c->h, page + pg->npages)->kind == NU_PAGE_FREE)
		return fault(c, "free run was not merged", page, page + pg->npages, c->h->top);
	c->nfree_runs++;
	return 0;
}

/* Walks all pages, run by run. */
static int check_pages(struct check *c)
{
	const struct nu_heap *h = c->h;
	const struct nu_heap_page *pg;
	int err = 0;

	if (h->top > h->mapped_pages || h->mapped_pages > h->capacity_pages ||
	    h->top > nu_heap_area_end(h->nareas - 1))
		return fault(c, "top", h->top, h->mapped_pages, h->capacity_pages);
	for (uint32_t page = 0; page < h->top && !err; page += pg->npages) {
		pg = nu_heap_page(h, page);
		if (!pg->npages || pg->npages > h->top - page)
			return fault(c, "length of a run", page, pg->npages, h->top - page);
		if (pg->kind == NU_PAGE_SLAB)
			err = check_slab(c, page);
		else if (pg->kind == NU_PAGE_FREE)
			err = check_free_run(c, page);
		else if (pg->kind == NU_PAGE_LARGE)
			c->nlarge += pg->npages;
		else if (pg->kind != NU_PAGE_META)
			err = fault(c, "kind of a run", page, pg->kind, 0);
		if (pg->kind == NU_PAGE_SLAB)
			continue;
		for (uint32_t i = page + 1; i + (pg->kind == NU_PAGE_FREE) < page + pg->npages; i++)
			if (nu_heap_page(h, i)->kind != NU_PAGE_NONE)
				return fault(c, "page inside a run", i, nu_heap_page(h, i)->kind, 0);
	}
	for (unsigned a = 1; a < h->nareas && !err; a++) {
		pg = nu_heap_page(h, h->map_at[a]);
		if (pg->kind != NU_PAGE_META || pg->npages != nu_heap_map_pages(a) ||
		    h->map_at[a] > nu_heap_area_end(a - 1))
			err = fault(c, "map of an area", a, h->map_at[a], nu_heap_map_pages(a));
	}
	if (!err && c->nlarge != h->large_pages)
		err = fault(c, "pages in large blocks", 0, h->large_pages, c->nlarge);
	return err;
}

static int check_tree(struct check *c, uint32_t page, uint64_t low, uint64_t high)
{
	const struct nu_heap_page *pg;
	uint32_t max, kids[2];

	if (!page)
		return 0;
	if (page < low || page >= high)
		return fault(c, "order of the free runs", page, low, high);
	pg = nu_heap_page(c->h, page);
	if (pg->kind != NU_PAGE_FREE || pg->head != page)
		return fault(c, "free run in the tree", page, pg->kind, NU_PAGE_FREE);
	if (++c->nfree_seen > c->nfree_runs)
		return fault(c, "free runs in the tree", page, c->nfree_seen, c->nfree_runs);
	if (check_tree(c, pg->left, low, page) || check_tree(c, pg->right, (uint64_t)page + pg->npages, high))
		return -EIO;
	max = pg->npages;
	kids[0] = pg->left;
	kids[1] = pg->right;
	for (unsigned i = 0; i < 2; i++) {
		if (!kids[i])
			continue;
		if (nu_heap_prio(kids[i]) > nu_heap_prio(page))
			return fault(c, "priority in the tree", page, kids[i], page);
		if (nu_heap_page(c->h, kids[i])->max > max)
			max = nu_heap_page(c->h, kids[i])->max;
	}
	return pg->max == max ? 0 : fault(c, "longest run below", page, pg->max, max);
}

static int check_class(struct check *c, unsigned cls)
{
	const struct nu_heap_class *k = &c->h->classes[cls];
	uint64_t n = 0;
	uint32_t page = k->partial;

	if (k->nslabs != c->nslabs[cls] || k->nout != c->nused[cls])
		return fault(c, "blocks out of a class", cls, k->nout, c->nused[cls]);
	while (page && n <= c->npartial[cls]) {
		const struct nu_heap_page *pg = nu_heap_page(c->h, page);

		if (pg->kind != NU_PAGE_SLAB || pg->cls != cls || pg->head != page || pg->nused == pg->nobjs)
			return fault(c, "slab in a class's ring", page, pg->cls, cls);
		if (nu_heap_page(c->h, pg->next)->prev != page)
			return fault(c, "ring of a class", page, nu_heap_page(c->h, pg->next)->prev, page);
		n++;
		page = pg->next == k->partial ? 0 : pg->next;
	}
	return n == c->npartial[cls] ? 0 : fault(c, "slabs with free blocks", cls, n, c->npartial[cls]);
}

static int check_cache(struct check *c, const struct nu_heap_cache *cache)
{
	for (unsigned cls = 0; cls < NU_HEAP_CLASSES; cls++) {
		const struct nu_heap_bin *b = &cache->bins[cls];
		uint64_t n = 0;

		for (const struct nu_heap_obj *o = b->first; o; o = o->next, n++)
			if (check_obj(c, o, cls))
				return -EIO;
		if (n != b->count || n > b->limit + (uint64_t)b->fill)
			return fault(c, "blocks in a cache", cls, b->count, n);
	}
	return 0;
}

static int check_all(struct check *c)
{
	const struct nu_heap *h = c->h;
	int err = check_pages(c);

	if (!err)
		err = check_tree(c, h->free_root, NU_HEAP_HEAD_PAGES, h->top);
	if (!err && c->nfree_seen != c->nfree_runs)
		err = fault(c, "free runs in the tree", 0, c->nfree_seen, c->nfree_runs);
	for (unsigned cls = 0; cls < NU_HEAP_CLASSES && !err; cls++)
		err = check_class(c, cls);
	for (unsigned core = 0; core < NU_MAX_CORES && !err; core++)
		if (h->caches[core])
			err = check_cache(c, h->caches[core]);
	return err;
}

int nu_heap_check(const struct nu_heap *h)
{
	struct check c = {.h = h};
	int err;

	c.seen = calloc(((size_t)h->top << NU_HEAP_PAGE_SHIFT) / 16 / 8, 1);
	if (!c.seen)
		return -ENOMEM;
	err = check_all(&c);
	free(c.seen);
	return err;
}
