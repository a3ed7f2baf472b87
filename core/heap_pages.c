/* SPDX-License-Identifier: MIT */
/*
 * A heap's runs of pages: address-ordered first fit over a tree of free runs, coalescing, growth at the top.
 *
 * Free runs are nodes of a treap ordered by address, each with the longest run below it, so the lowest run that fits
 * is found in logarithmic time. Lowest first keeps the top end empty, which is what lets a heap shrink again.
 */
#include "core/heap_int.h"

#include <string.h>

static uint32_t run_max(const struct nu_heap *h, uint32_t page)
{
	return page ? nu_heap_page(h, page)->max : 0;
}

static void run_update(struct nu_heap *h, uint32_t page)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);
	uint32_t max = pg->npages, l = run_max(h, pg->left), r = run_max(h, pg->right);

	if (l > max)
		max = l;
	if (r > max)
		max = r;
	pg->max = max;
}

/* Splits @root into the runs below @page and those above. */
static void tree_split(struct nu_heap *h, uint32_t root, uint32_t page, uint32_t *low_p, uint32_t *high_p)
{
	struct nu_heap_page *pg;

	if (!root) {
		*low_p = *high_p = 0;
		return;
	}
	pg = nu_heap_page(h, root);
	if (root < page) {
		tree_split(h, pg->right, page, &pg->right, high_p);
		*low_p = root;
	} else {
		tree_split(h, pg->left, page, low_p, &pg->left);
		*high_p = root;
	}
	run_update(h, root);
}

/* Joins two trees; every run of @low is below every run of @high. */
static uint32_t tree_join(struct nu_heap *h, uint32_t low, uint32_t high)
{
	struct nu_heap_page *pg;

	if (!low || !high)
		return low | high;
	if (nu_heap_prio(low) > nu_heap_prio(high)) {
		pg = nu_heap_page(h, low);
		pg->right = tree_join(h, pg->right, high);
		run_update(h, low);
		return low;
	}
	pg = nu_heap_page(h, high);
	pg->left = tree_join(h, low, pg->left);
	run_update(h, high);
	return high;
}

static uint32_t tree_insert(struct nu_heap *h, uint32_t root, uint32_t page)
{
	struct nu_heap_page *pg;

	if (!root || nu_heap_prio(page) > nu_heap_prio(root)) {
		pg = nu_heap_page(h, page);
		tree_split(h, root, page, &pg->left, &pg->right);
		run_update(h, page);
		return page;
	}
	pg = nu_heap_page(h, root);
	if (page < root)
		pg->left = tree_insert(h, pg->left, page);
	else
		pg->right = tree_insert(h, pg->right, page);
	run_update(h, root);
	return root;
}

static uint32_t tree_remove(struct nu_heap *h, uint32_t root, uint32_t page)
{
	struct nu_heap_page *pg = nu_heap_page(h, root);

	NU_DEBUG_ASSERT(root != 0);
	if (root == page)
		return tree_join(h, pg->left, pg->right);
	if (page < root)
		pg->left = tree_remove(h, pg->left, page);
	else
		pg->right = tree_remove(h, pg->right, page);
	run_update(h, root);
	return root;
}

/* The lowest free run of at least @npages; 0: none. */
static uint32_t tree_first_fit(const struct nu_heap *h, uint32_t npages)
{
	uint32_t page = h->free_root;

	if (run_max(h, page) < npages)
		return 0;
	for (;;) {
		const struct nu_heap_page *pg = nu_heap_page(h, page);

		if (run_max(h, pg->left) >= npages)
			page = pg->left;
		else if (pg->npages >= npages)
			return page;
		else
			page = pg->right;
	}
}

/* Enters pages whose descriptors are clear as a free run; its neighbours are not free. */
static void free_insert(struct nu_heap *h, uint32_t page, uint32_t npages)
{
	struct nu_heap_page *pg;

	if (!npages)
		return;
	pg = nu_heap_page(h, page + npages - 1);
	pg->kind = NU_PAGE_FREE;
	pg->head = page;
	pg = nu_heap_page(h, page);
	pg->kind = NU_PAGE_FREE;
	pg->head = page;
	pg->npages = npages;
	h->free_root = tree_insert(h, h->free_root, page);
}

/* Takes a free run out again and clears its descriptors. Return: its length. */
static uint32_t free_remove(struct nu_heap *h, uint32_t page)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);
	uint32_t npages = pg->npages;

	h->free_root = tree_remove(h, h->free_root, page);
	memset(pg, 0, sizeof(*pg));
	memset(nu_heap_page(h, page + npages - 1), 0, sizeof(*pg));
	return npages;
}

static void pages_clear(struct nu_heap *h, uint32_t page, uint32_t npages)
{
	uint32_t end = page + npages;

	while (page < end) {
		uint32_t stop = nu_heap_area_end(nu_heap_area(page));

		if (stop > end)
			stop = end;
		memset(nu_heap_page(h, page), 0, (stop - page) * sizeof(struct nu_heap_page));
		page = stop;
	}
}

/* Enters a run whose descriptors are clear. */
static void run_enter(struct nu_heap *h, uint32_t page, uint32_t npages, enum nu_heap_kind kind, unsigned cls)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);

	pg->kind = (uint8_t)kind;
	pg->npages = npages;
	if (kind == NU_PAGE_LARGE)
		h->large_pages += npages;
	if (kind != NU_PAGE_SLAB)
		return;
	/* A block may start in any page of a slab. */
	for (uint32_t i = page; i < page + npages; i++) {
		pg = nu_heap_page(h, i);
		pg->kind = NU_PAGE_SLAB;
		pg->cls = (uint8_t)cls;
		pg->head = page;
	}
}

static uint32_t align_page(const struct nu_heap *h, uint64_t page, uint32_t align_pages)
{
	uint64_t abs = (h->base >> NU_HEAP_PAGE_SHIFT) + page;

	return (uint32_t)(NU_ALIGN_UP(abs, (uint64_t)align_pages) - (h->base >> NU_HEAP_PAGE_SHIFT));
}

/* Makes the pages below @end usable; at least twice what there is, if that can be had. */
static bool grow_to(struct nu_heap *h, uint64_t end)
{
	uint64_t want = (uint64_t)h->mapped_pages * 2;
	size_t mapped = 0;

	if (end <= h->mapped_pages)
		return true;
	if (!h->grow)
		return false;
	if (want < end)
		want = end;
	if (want > h->capacity_pages)
		want = h->capacity_pages;
	if (h->grow(h->grow_arg, want << NU_HEAP_PAGE_SHIFT, end << NU_HEAP_PAGE_SHIFT, &mapped))
		return false;
	mapped >>= NU_HEAP_PAGE_SHIFT;
	if (mapped > h->capacity_pages)
		mapped = h->capacity_pages;
	if (mapped > h->mapped_pages)
		h->mapped_pages = (uint32_t)mapped;
	return end <= h->mapped_pages;
}

static void set_top(struct nu_heap *h, uint32_t top)
{
	__atomic_store_n(&h->top, top, __ATOMIC_RELAXED); /* nu_heap_page_of() reads it without the lock */
}

/* Gives area @h->nareas its map, in the pages at the top. */
static void area_add(struct nu_heap *h)
{
	unsigned area = h->nareas;
	uint32_t at = h->top, n = nu_heap_map_pages(area);

	h->maps[area] = (uintptr_t)nu_heap_page_addr(h, at) -
			(uintptr_t)nu_heap_area_end(area - 1) * sizeof(struct nu_heap_page);
	h->map_at[area] = at;
	h->nareas++;
	/* The map may lie in its own area; then it describes itself. */
	pages_clear(h, at, n);
	run_enter(h, at, n, NU_PAGE_META, 0);
	set_top(h, at + n);
}

/* Takes the pages from the untouched rest at the top. */
static uint32_t top_alloc(struct nu_heap *h, uint32_t npages, uint32_t align_pages)
{
	uint64_t top = h->top, end;
	unsigned nareas = h->nareas;
	uint32_t page;

	/* Maps come first, and push the end further up: count them before anything is changed. */
	for (;;) {
		end = (uint64_t)align_page(h, top, align_pages) + npages;
		if (end > h->capacity_pages)
			return 0;
		if (end <= nu_heap_area_end(nareas - 1))
			break;
		top += nu_heap_map_pages(nareas++);
	}
	if (!grow_to(h, end))
		return 0;
	while (h->nareas < nareas)
		area_add(h);

	page = align_page(h, h->top, align_pages);
	pages_clear(h, h->top, page + npages - h->top);
	free_insert(h, h->top, page - h->top);
	set_top(h, page + npages);
	return page;
}

uint32_t nu_heap_run_alloc(struct nu_heap *h, uint32_t npages, uint32_t align_pages, enum nu_heap_kind kind,
			   unsigned cls)
{
	uint32_t run, len, page;

	nu_lock_acquire(&h->lock);
	run = tree_first_fit(h, npages);
	if (run && align_page(h, run, align_pages) != run)
		run = tree_first_fit(h, npages + align_pages - 1);
	if (run) {
		len = free_remove(h, run);
		page = align_page(h, run, align_pages);
		free_insert(h, run, page - run);
		free_insert(h, page + npages, run + len - page - npages);
	} else {
		page = top_alloc(h, npages, align_pages);
	}
	if (page)
		run_enter(h, page, npages, kind, cls);
	nu_lock_release(&h->lock);
	return page;
}

/* The pages from @top on are free: lowers the top over them, and over maps that now describe nothing. */
static void lower_top(struct nu_heap *h, uint32_t top)
{
	for (;;) {
		unsigned last = h->nareas - 1;

		if (nu_heap_page(h, top - 1)->kind == NU_PAGE_FREE) {
			top = nu_heap_page(h, top - 1)->head;
			free_remove(h, top);
		} else if (last && top == h->map_at[last] + nu_heap_map_pages(last)) {
			top = h->map_at[last];
			h->nareas--;
		} else {
			break;
		}
	}
	set_top(h, top);
}

void nu_heap_run_free(struct nu_heap *h, uint32_t page)
{
	struct nu_heap_page *pg = nu_heap_page(h, page);
	uint32_t npages;

	nu_lock_acquire(&h->lock);
	npages = pg->npages;
	if (pg->kind == NU_PAGE_LARGE)
		h->large_pages -= npages;
	pages_clear(h, page, pg->kind == NU_PAGE_SLAB ? npages : 1);

	if (page + npages == h->top) {
		lower_top(h, page);
		nu_lock_release(&h->lock);
		return;
	}
	if (nu_heap_page(h, page + npages)->kind == NU_PAGE_FREE)
		npages += free_remove(h, page + npages);
	if (nu_heap_page(h, page - 1)->kind == NU_PAGE_FREE) {
		page = nu_heap_page(h, page - 1)->head;
		npages += free_remove(h, page);
	}
	free_insert(h, page, npages);
	nu_lock_release(&h->lock);
}

void nu_heap_pages_init(struct nu_heap *h)
{
	h->maps[0] = (uintptr_t)h->area0;
	h->nareas = 1;
	h->free_root = 0;
	h->large_pages = 0;
	memset(h->area0, 0, sizeof(h->area0));
	run_enter(h, 0, NU_HEAP_HEAD_PAGES, NU_PAGE_META, 0);
	set_top(h, NU_HEAP_HEAD_PAGES);
}
