/* SPDX-License-Identifier: MIT */
/*
 * The proclet table: control blocks by segment index. Lookups take no lock (core.h), so a block is never unmapped and
 * never becomes anything but a block: a reader with an old pointer sees another id, takes the lock and sees it again.
 */
#include "core/fault.h"
#include "core/core.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#define SLAB_BYTES ((size_t)256 << 10)

_Atomic(struct nu_proclet *) *nu_proclet_table;

/* Orders entering, leaving and walking. Above every proclet's lock. */
static struct nu_lock proclets_lock;
struct nu_list nu_proclets = {&nu_proclets, &nu_proclets}; /* not static: nu-gdb.py finds it by name */
static struct nu_proclet *free_blocks;

int nu_proclet_table_init(void)
{
	size_t len = sizeof(*nu_proclet_table) << NU_SEG_INDEX_BITS;
	void *p;

	if (nu_proclet_table)
		return 0;
	/* Pages of it exist once a slot in them was used. */
	p = nu_fault(NU_FAULT_MAP) ? MAP_FAILED
				   : mmap(NULL, len, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		int err = -ENOMEM;
		nu_err("no address space for the proclet table of %zu MiB (RLIMIT_AS?)", len / NU_MIB);
		return err;
	}
	nu_proclet_table = p;
	return 0;
}

/* Free blocks keep their lock word: a reader with an old pointer may hold it just now. */
static int add_slab(void)
{
	struct nu_proclet *p, *slab;

	slab = nu_fault(NU_FAULT_MAP)
		       ? MAP_FAILED
		       : mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (slab == MAP_FAILED) {
		int err = -ENOMEM;
		nu_err("no memory for control blocks of proclets: %zu KiB wanted", SLAB_BYTES / NU_KIB);
		return err;
	}
	nu_lock_acquire(&proclets_lock);
	for (p = slab; p + 1 <= slab + SLAB_BYTES / sizeof(*p); p++) {
		p->next_free = free_blocks;
		free_blocks = p;
	}
	nu_lock_release(&proclets_lock);
	return 0;
}

/* Everything but the lock and the id, which is set last. */
static void block_init(struct nu_proclet *p)
{
	atomic_store_explicit(&p->state, NU_PROCLET_NONE, memory_order_relaxed);
	atomic_store_explicit(&p->frozen, false, memory_order_relaxed);
	atomic_store_explicit(&p->quick, false, memory_order_relaxed);
	memset(&p->head, 0, sizeof(*p) - offsetof(struct nu_proclet, head));
	nu_list_init(&p->threads);
	nu_list_init(&p->parked);
	nu_list_init(&p->held);
	nu_list_init(&p->output_waiters);
}

static_assert(offsetof(struct nu_proclet, lock) < offsetof(struct nu_proclet, head) &&
		      offsetof(struct nu_proclet, id) < offsetof(struct nu_proclet, head),
	      "what outlives a tenant lies in front of what is cleared");

int nu_proclet_enter(uint64_t id, struct nu_proclet **p_p)
{
	_Atomic(struct nu_proclet *) *slot = &nu_proclet_table[NU_TABLE_SLOT(nu_id_seg(id))];
	struct nu_proclet *p;
	int err;

	if (!id)
		return -EINVAL;
	nu_lock_acquire(&proclets_lock);
	while (!free_blocks) {
		nu_lock_release(&proclets_lock);
		err = add_slab();
		if (err)
			return err;
		nu_lock_acquire(&proclets_lock);
	}
	if (atomic_load_explicit(slot, memory_order_relaxed)) {
		nu_lock_release(&proclets_lock);
		return -EEXIST;
	}
	p = free_blocks;
	free_blocks = p->next_free;
	/* Under its lock: a reader with an old pointer to it may look for this very id, when the proclet comes back. */
	nu_lock_acquire(&p->lock);
	block_init(p);
	nu_list_add_tail(&nu_proclets, &p->all_link);
	atomic_store_explicit(&p->id, id, memory_order_relaxed);
	nu_lock_release(&p->lock);
	/* Pairs with the acquire in nu_proclet_lookup(): who finds the block finds it made. */
	atomic_store_explicit(slot, p, memory_order_release);
	nu_lock_release(&proclets_lock);
	*p_p = p;
	return 0;
}

void nu_proclet_leave(struct nu_proclet *p)
{
	uint64_t id = atomic_load_explicit(&p->id, memory_order_relaxed);
	_Atomic(struct nu_proclet *) *slot = &nu_proclet_table[NU_TABLE_SLOT(nu_id_seg(id))];

	nu_lock_acquire(&proclets_lock);
	NU_ASSERT(id && atomic_load_explicit(slot, memory_order_relaxed) == p);
	atomic_store_explicit(slot, NULL, memory_order_relaxed);
	nu_lock_acquire(&p->lock);
	atomic_store_explicit(&p->id, 0, memory_order_relaxed);
	atomic_store_explicit(&p->state, NU_PROCLET_NONE, memory_order_relaxed);
	nu_lock_release(&p->lock);
	nu_list_del(&p->all_link);
	p->next_free = free_blocks;
	free_blocks = p;
	nu_lock_release(&proclets_lock);
}

void nu_proclet_for_each(void (*fn)(struct nu_proclet *p, void *arg), void *arg)
{
	struct nu_list *pos, *next;

	nu_lock_acquire(&proclets_lock);
	nu_list_for_each_safe (pos, next, &nu_proclets) {
		fn(nu_list_entry(pos, struct nu_proclet, all_link), arg);
	}
	nu_lock_release(&proclets_lock);
}

/* A segment's size is not known where the proclet is not: the nearest place at which one that holds @addr may begin is looked at
 * first. */
struct nu_proclet *nu_proclet_around(const void *addr)
{
	uint32_t seg = (uint32_t)(((uintptr_t)addr - nu_layout.seg_base) >> NU_SEG_UNIT_SHIFT);

	for (unsigned shift = 0; nu_proclet_table && shift < NU_SEG_INDEX_BITS; shift++) {
		uint32_t first = seg & ~((1u << shift) - 1);
		struct nu_proclet *p =
			atomic_load_explicit(&nu_proclet_table[NU_TABLE_SLOT(first)], memory_order_acquire);

		if (p && (!p->head || (uintptr_t)addr - (uintptr_t)p->head < p->head->capacity_bytes))
			return p;
	}
	return NULL;
}
