/* SPDX-License-Identifier: MIT */
/*
 * Stacks. The stack region is cut into slots of nu_layout.stack_slot_bytes, each node owning a part of it; a slot belongs
 * to its node for good, but is lent to whichever node its thread goes to. A stack is the upper end of its slot; the rest
 * is never mapped: with nothing else in the region that is the guard, at no cost in mappings, and wide enough that a large
 * frame does not step over it. The control block lies below the slot's top, at one of several distances (by slot number, so the same on every node): at equal ones the hot lines of all
 * threads would fall into the same few cache sets.
 */
#include "core/fault.h"
#include "sched/sanitize.h"
#include "sched/sched_int.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COLOURS	     8
#define COLOUR_BYTES 448 /* 7 lines: spreads over sets that a power of two would not reach */
#define BATCH	     16
#define SPARE	     32	  /* stacks that only the node's own proclet gets, by whose steps room is made */
#define HOT_MAX	     512  /* free stacks that keep their pages */
#define COLD_MAX     1024 /* ... and of the others those that stay mapped: the heaps want mappings, too */
#define NONE	     UINT32_MAX
#define THREADS_LEAVE_SHIFT                                                                                  \
	5 /* of the slots: what threads that are started leave to those that serve calls */
#define PAGE ((unsigned)NU_PAGE_BYTES)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum slot_state {
	SLOT_FREE,
	SLOT_HERE, /* holds a thread of this node's, whoever owns the slot */
	SLOT_LENT, /* ours, its thread is elsewhere */
	SLOT_BACK, /* ours: its thread has ended at a move's destination before we had let it depart */
};

static struct {
	struct nu_lock lock;
	unsigned shift;		 /* log2 of a slot's bytes */
	size_t nslots;		 /* of the whole region */
	_Atomic(uint8_t) *table; /* enum slot_state by slot */
	int prot;		 /* of stacks: executable if the program asks for it */
	uint64_t *lent_to;	 /* of our slots: the proclet whose thread took it away */
	uintptr_t part_low, part_end;
	_Atomic(uintptr_t)
		part_next; /* of this node's part; what lies above was never mapped. Written under lock */
	struct nu_thread *hot, *cold; /* free, linked by their `joiner` */
	unsigned nhot, ncold;
	uint32_t *bare_next, bare; /* free slots below part_next that are not mapped, by number in our part */
	size_t nbare;
	atomic_uint nforeign; /* other nodes' stacks that are here */
	bool said_full;
	/* No stack more may be mapped for threads that are started: then they have as many as there were at that moment, whatever
	 * calls have mapped since and given back. Written under lock. */
	atomic_bool tight;
	size_t started_max;
} stacks;

static size_t slot_bytes(void)
{
	return (size_t)1 << stacks.shift;
}

static uintptr_t stack_low(uintptr_t slot_low)
{
	return slot_low + slot_bytes() - nu_layout.stack_bytes;
}

static size_t slot_index(uintptr_t low)
{
	return (low - nu_layout.stack_base) >> stacks.shift;
}

uintptr_t nu_stack_slot(const void *addr)
{
	uintptr_t off = (uintptr_t)addr - nu_layout.stack_base;

	if (!stacks.table || off >= stacks.nslots << stacks.shift)
		return 0;
	return nu_layout.stack_base + (off & ~(slot_bytes() - 1));
}

struct nu_thread *nu_stack_thread(uintptr_t low)
{
	uintptr_t colour = slot_index(low) % COLOURS * COLOUR_BYTES;

	return (void *)((low + slot_bytes() - sizeof(struct nu_thread) - colour) &
			~(uintptr_t)(NU_CACHE_LINE - 1));
}

/*
 * Threads that were in the middle of something when the scheduler stopped are lost, with what they hold. For
 * LeakSanitizer, which looks at the process's end, their stacks stay, as roots, until they are needed again.
 */
static uintptr_t kept_low, kept_end;
static size_t kept_root_bytes;

static void keep_lost(void)
{
	for (uintptr_t low = stacks.part_low; low < stacks.part_next; low += slot_bytes())
		if (atomic_load(&stacks.table[slot_index(low)]) != SLOT_HERE)
			madvise((void *)stack_low(low), nu_layout.stack_bytes, MADV_DONTNEED);
	kept_low = stacks.part_low;
	kept_end = stacks.part_next;
	kept_root_bytes = nu_layout.stack_node_bytes;
}

static void drop_lost(void)
{
	if (!kept_low)
		return;
	nu_san_unroot((void *)kept_low, kept_root_bytes);
	nu_san_unpoison((void *)kept_low, kept_end - kept_low);
	munmap((void *)kept_low, kept_end - kept_low);
	kept_low = 0;
}

static size_t own_slots(void)
{
	return nu_layout.stack_node_bytes >> stacks.shift;
}

static void *table_map(size_t bytes)
{
	void *t = nu_fault(NU_FAULT_MAP) ? MAP_FAILED
					 : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (t != MAP_FAILED)
		return t;
	nu_err("stacks: no address space for a table of %zu KiB (RLIMIT_AS?)", bytes >> 10);
	return NULL;
}

void nu_stacks_fini(void)
{
	if (stacks.table) {
		nu_san_fibers_fini(stacks.part_low, stacks.part_next);
		if (NU_SAN_KEEPS_STACKS)
			keep_lost();
		else
			munmap((void *)stacks.part_low, stacks.part_next - stacks.part_low);
		nu_maps_release(
			(unsigned)(((stacks.part_next - stacks.part_low) >> stacks.shift) - stacks.nbare));
		munmap(stacks.table, stacks.nslots);
	}
	if (stacks.lent_to)
		munmap(stacks.lent_to, own_slots() * sizeof(uint64_t));
	if (stacks.bare_next)
		munmap(stacks.bare_next, own_slots() * sizeof(*stacks.bare_next));
	stacks.table = NULL;
	stacks.lent_to = NULL;
	stacks.bare_next = NULL;
}

int nu_stacks_init(void)
{
	size_t bytes = nu_layout.stack_bytes, slot = nu_layout.stack_slot_bytes;

	if (bytes < 4 * PAGE || bytes & (bytes - 1) || slot < 2 * bytes || slot & (slot - 1) ||
	    nu_layout.stack_node_bytes < slot ||
	    nu_layout.stack_node_bytes > nu_layout.stack_region_bytes / (nu_node.self + 1)) {
		nu_err("stacks: of %zu bytes, one every %zu: want powers of two, of at least %u, in node "
		       "%u's part "
		       "of the region",
		       bytes, slot, 4 * PAGE, nu_node.self);
		return -EINVAL;
	}
	drop_lost();
	memset(&stacks, 0, sizeof(stacks));
	stacks.shift = (unsigned)__builtin_ctzl(slot);
	stacks.nslots = nu_layout.stack_region_bytes >> stacks.shift;
	stacks.part_low = nu_layout.stack_base + nu_node.self * nu_layout.stack_node_bytes;
	stacks.part_end = stacks.part_low + nu_layout.stack_node_bytes;
	stacks.part_next = stacks.part_low;
	stacks.prot = PROT_READ | PROT_WRITE | (nu_image_wants_exec_stack() ? PROT_EXEC : 0);
	stacks.lent_to = table_map(own_slots() * sizeof(uint64_t));
	stacks.bare_next = table_map(own_slots() * sizeof(*stacks.bare_next));
	stacks.bare = NONE;
	stacks.table = table_map(stacks.nslots);
	if (!stacks.lent_to || !stacks.bare_next || !stacks.table) {
		nu_stacks_fini();
		return -ENOMEM;
	}
	nu_san_root((void *)stacks.part_low, nu_layout.stack_node_bytes);
	return nu_san_fibers_init();
}

static size_t mapped_slots(void)
{
	return ((stacks.part_next - stacks.part_low) >> stacks.shift) - stacks.nbare;
}

/* How many of our part may be mapped when @use asks. */
static size_t max_slots(enum nu_maps_use use)
{
	size_t n = own_slots();

	if (n < 4 * SPARE || use == NU_MAPS_STEPS)
		return n;
	return n - SPARE - (use == NU_MAPS_THREADS ? n >> THREADS_LEAVE_SHIFT : 0);
}

/* A slot of ours that holds nothing: one that was mapped before, or the next; 0: all that there may be are in use. */
static uintptr_t next_bare(enum nu_maps_use use)
{
	if (mapped_slots() >= max_slots(use))
		return 0;
	if (stacks.bare != NONE)
		return stacks.part_low + ((uintptr_t)stacks.bare << stacks.shift);
	return stacks.part_next < stacks.part_end ? stacks.part_next : 0;
}

/* Whether one more may be mapped for a thread that is started. */
static bool has_room(void)
{
	return next_bare(NU_MAPS_THREADS) && nu_maps_have_room(NU_MAPS_THREADS);
}

static void take_bare(uintptr_t low)
{
	if (low == stacks.part_next) {
		stacks.part_next += slot_bytes();
		return;
	}
	stacks.bare = stacks.bare_next[stacks.bare];
	stacks.nbare--;
}

static int slot_map(uintptr_t low, enum nu_maps_use use)
{
	void *at = (void *)stack_low(low), *got;
	int err = nu_maps_reserve(1, use);

	if (err)
		return err;
	got = mmap(at, nu_layout.stack_bytes, stacks.prot,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (got == at)
		return 0;
	err = got == MAP_FAILED ? -nu_sys_errno : -EEXIST;
	if (got != MAP_FAILED) /* a kernel that does not know NOREPLACE */
		munmap(got, nu_layout.stack_bytes);
	nu_maps_release(1);
	return err;
}

static void slot_unmap(uintptr_t low)
{
	nu_san_unpoison((void *)stack_low(low), nu_layout.stack_bytes);
	munmap((void *)stack_low(low), nu_layout.stack_bytes);
	nu_maps_release(1);
}

/* Maps more of our part; lock held. The new slots are cold. */
static int grow(enum nu_maps_use use)
{
	uintptr_t low;
	int err = 0;

	for (unsigned i = 0; i < (use == NU_MAPS_STEPS ? 1 : BATCH); i++) {
		struct nu_thread *t;

		if (!has_room() && !stacks.tight) {
			stacks.started_max = mapped_slots();
			stacks.tight = true;
		}
		low = next_bare(use);
		if (!low)
			break;
		t = nu_stack_thread(low);
		err = slot_map(low, use);
		if (err)
			break;
		nu_valgrind_stack((void *)stack_low(low), nu_layout.stack_bytes);
		t->joiner = stacks.cold;
		stacks.cold = t;
		stacks.ncold++;
		take_bare(low);
	}
	if (stacks.cold)
		return 0;
	if (!stacks.said_full) {
		stacks.said_full = true;
		if (err)
			nu_err("stacks: mapping one more after %zu failed: errno %d; vm.max_map_count limits "
			       "them",
			       mapped_slots(), -err);
		else
			nu_err("stacks: all %zu of this node's part are in use (%zu KiB each)",
			       max_slots(use), nu_layout.stack_bytes >> 10);
	}
	return -ENOMEM;
}

static struct nu_thread *take_locked(enum nu_maps_use use)
{
	struct nu_thread *t = stacks.hot;

	if (t) {
		stacks.hot = t->joiner;
		stacks.nhot--;
		return t;
	}
	if (!stacks.cold && grow(use == NU_MAPS_STEPS ? NU_MAPS_CALLS : use) &&
	    !(use == NU_MAPS_STEPS && !grow(use)))
		return NULL;
	t = stacks.cold;
	stacks.cold = t->joiner;
	stacks.ncold--;
	return t;
}

/* Lock held. Beyond a number of hot ones the pages go back to the system, but for the top one, which has the link; beyond a
 * number of those the mapping, too. */
static void give_locked(struct nu_thread *t)
{
	uintptr_t low = nu_stack_slot(t);
	uintptr_t top_page = low + slot_bytes() - 2 * PAGE; /* the control block may straddle two pages */

	nu_valgrind_stack_free((void *)stack_low(low), (uintptr_t)t - stack_low(low));
	if (stacks.nhot < HOT_MAX) {
		t->joiner = stacks.hot;
		stacks.hot = t;
		stacks.nhot++;
		return;
	}
	if (stacks.ncold >= COLD_MAX && !NU_SAN_KEEPS_STACKS) {
		uint32_t i = (uint32_t)((low - stacks.part_low) >> stacks.shift);

		slot_unmap(low);
		stacks.bare_next[i] = stacks.bare;
		stacks.bare = i;
		stacks.nbare++;
		stacks.said_full = false;
		return;
	}
	madvise((void *)stack_low(low), top_page - stack_low(low), MADV_DONTNEED);
	t->joiner = stacks.cold;
	stacks.cold = t;
	stacks.ncold++;
}

static void refill(struct nu_core *c, enum nu_maps_use use)
{
	nu_lock_acquire(&stacks.lock);
	while (c->ncache < BATCH) {
		struct nu_thread *t = c->ncache && !stacks.hot ? NULL : take_locked(use);

		if (!t)
			break;
		c->cache[c->ncache++] = t;
	}
	nu_lock_release(&stacks.lock);
}

/* By 16 bytes: of memset() the compiler makes a loop of words, twice as many stores. */
static inline void wipe(struct nu_thread *t)
{
	typedef uint64_t __attribute__((vector_size(16), may_alias)) pair;
	pair *p = (pair *)t, zero = {0};

	_Static_assert(sizeof(*t) % 8 == 0, "words");
#pragma GCC unroll 4
	for (size_t i = 0; i < sizeof(*t) / 16; i++) {
		*p++ = zero;
		__asm__ volatile("" : "+r"(p)); /* else it finds that this is memset() */
	}
	if (sizeof(*t) % 16)
		*(uint64_t *)p = 0;
}

static inline struct nu_thread *alloc(struct nu_proclet *p, enum nu_maps_use use)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t = NULL;
	uintptr_t low;

	if (unlikely(nu_fault_armed) && nu_fault_reached_from(NU_FAULT_ALLOC, __builtin_return_address(0)))
		return NULL;
	if (likely(c)) {
		if (unlikely(!c->ncache))
			refill(c, p->heap ? use : NU_MAPS_STEPS);
		if (likely(c->ncache))
			t = c->cache[--c->ncache];
	} else {
		nu_lock_acquire(&stacks.lock);
		t = take_locked(p->heap ? use : NU_MAPS_STEPS);
		nu_lock_release(&stacks.lock);
	}
	if (unlikely(!t))
		return NULL;
	low = nu_stack_slot(t);
	wipe(t);
	t->proclet = p;
	t->proclet_id = atomic_load_explicit(&p->id, memory_order_relaxed);
	t->stack_low = (void *)stack_low(low);
	nu_san_forget_frames(t);
	t->home_node = nu_node.self;
	t->core = c ? (uint16_t)c->index : 0;
	t->reply_seq = c ? c->lives-- : nu_mono_ns();
	nu_list_init(&t->link);
	nu_list_init(&t->proclet_link);
	atomic_store_explicit(&stacks.table[slot_index(low)], SLOT_HERE, memory_order_release);
	return t;
}

struct nu_thread *nu_thread_alloc(struct nu_proclet *p)
{
	return alloc(p, NU_MAPS_CALLS);
}

struct nu_thread *nu_thread_alloc_step(struct nu_proclet *p)
{
	return alloc(p, NU_MAPS_STEPS);
}

/* Free ones of other cores' caches are counted without a lock: nearly right is enough. */
static __attribute__((noinline, cold)) NU_NO_TSAN bool may_start(void)
{
	size_t nfree = 0;
	bool may;

	for (unsigned i = 0; i < nu_sched.ncores; i++)
		nfree += nu_sched.cores[i]->ncache;
	nu_lock_acquire(&stacks.lock);
	nfree += stacks.nhot + stacks.ncold;
	if (has_room())
		stacks.tight = false;
	may = !stacks.tight || mapped_slots() < stacks.started_max + nfree;
	nu_lock_release(&stacks.lock);
	return may;
}

struct nu_thread *nu_thread_alloc_start(struct nu_proclet *p)
{
	if (unlikely(atomic_load_explicit(&stacks.tight, memory_order_relaxed)) && p->heap && !may_start())
		return NULL;
	return alloc(p, NU_MAPS_THREADS);
}

static void put_ours(struct nu_thread *t)
{
	struct nu_core *c = nu_core_get();

	if (likely(c && c->ncache < c->cache_max)) {
		c->cache[c->ncache++] = t;
		return;
	}
	nu_lock_acquire(&stacks.lock);
	while (c && c->ncache > c->cache_max / 2)
		give_locked(c->cache[--c->ncache]);
	give_locked(t);
	nu_lock_release(&stacks.lock);
}

static bool is_ours(uintptr_t low)
{
	return low - stacks.part_low < stacks.part_end - stacks.part_low;
}

void nu_thread_free(struct nu_thread *t)
{
	uintptr_t low = nu_stack_slot(t);

	NU_ASSERT(low && !atomic_load_explicit(&t->running, memory_order_acquire));
	nu_san_thread_gone(t);
	atomic_store_explicit(&stacks.table[slot_index(low)], SLOT_FREE, memory_order_release);
	if (likely(is_ours(low))) {
		put_ours(t);
		return;
	}
	unsigned home = t->home_node;
	uint64_t proclet = t->proclet_id;

	slot_unmap(low);
	atomic_fetch_sub_explicit(&stacks.nforeign, 1, memory_order_relaxed);
	if (nu_sched.ops.stack_home)
		nu_sched.ops.stack_home(home, (void *)(low + slot_bytes()), proclet);
}

void nu_stack_live(const struct nu_thread *t, void **low_p, size_t *len_p)
{
	char *low = (char *)t->sp - NU_RED_ZONE;

	nu_san_forget_frames(t);
	if (low < (char *)t->stack_low)
		low = t->stack_low;
	*low_p = low;
	*len_p = (size_t)((char *)(t + 1) - low);
}

bool nu_stack_may_hold(const struct nu_thread *t, uint64_t live_low, uint64_t live_bytes)
{
	uintptr_t low = nu_stack_slot(t);

	return low && nu_stack_thread(low) == t && live_low >= stack_low(low) && live_low <= (uintptr_t)t &&
	       live_bytes == (uintptr_t)(t + 1) - live_low;
}

int nu_stack_adopt(struct nu_thread *t, size_t live_bytes)
{
	uintptr_t low = nu_stack_slot(t), from;
	size_t i;
	int err;

	if (!low || nu_stack_thread(low) != t || live_bytes > (uintptr_t)(t + 1) - stack_low(low) ||
	    live_bytes < sizeof(*t))
		return -EINVAL; /* a peer's word: not the place of a control block */
	i = slot_index(low);
	if (atomic_load_explicit(&stacks.table[i], memory_order_acquire) == SLOT_HERE)
		return -EEXIST;
	if (is_ours(low)) {
		if (low >= stacks.part_next ||
		    atomic_load_explicit(&stacks.table[i], memory_order_acquire) != SLOT_LENT)
			return -EINVAL;
		nu_san_unpoison((void *)stack_low(low), nu_layout.stack_bytes);
	} else {
		err = slot_map(low, NU_MAPS_THREADS);
		if (err) {
			nu_err("stacks: no room for a thread of node %lu at %#lx: errno %d; vm.max_map_count "
			       "limits them",
			       (low - nu_layout.stack_base) / nu_layout.stack_node_bytes, low, -err);
			return err == -EEXIST ? err : -ENOMEM;
		}
		atomic_fetch_add_explicit(&stacks.nforeign, 1, memory_order_relaxed);
	}
	/* Backed now: the bytes come while the proclet stands still. Pages that this fails for are faulted in later. */
	from = ((uintptr_t)(t + 1) - live_bytes) & ~(uintptr_t)(PAGE - 1);
	madvise((void *)from, low + slot_bytes() - from, MADV_POPULATE_WRITE);
	atomic_store_explicit(&stacks.table[i], SLOT_HERE, memory_order_release);
	return 0;
}

static void give(uintptr_t low)
{
	nu_lock_acquire(&stacks.lock);
	give_locked(nu_stack_thread(low));
	nu_lock_release(&stacks.lock);
}

static uint64_t *lent_to(uintptr_t low)
{
	return &stacks.lent_to[(low - stacks.part_low) >> stacks.shift];
}

void nu_stack_depart(struct nu_thread *t)
{
	uintptr_t low = nu_stack_slot(t);
	_Atomic uint8_t *slot = &stacks.table[slot_index(low)];
	uint8_t here = SLOT_HERE;

	nu_san_thread_gone(t);
	if (!is_ours(low)) {
		atomic_store_explicit(slot, SLOT_FREE, memory_order_release);
		slot_unmap(low);
		atomic_fetch_sub_explicit(&stacks.nforeign, 1, memory_order_relaxed);
		return;
	}
	if (t->proclet_id) /* else it was mapped ahead, and comes no more */
		__atomic_store_n(lent_to(low), t->proclet_id, __ATOMIC_RELAXED);
	/* Before it is lent: then it may be somebody else's at once. */
	if (atomic_load_explicit(slot, memory_order_acquire) == SLOT_HERE)
		madvise((void *)stack_low(low), nu_layout.stack_bytes, MADV_DONTNEED);
	if (!atomic_compare_exchange_strong(slot, &here, SLOT_LENT)) {
		atomic_store_explicit(slot, SLOT_FREE, memory_order_release);
		give(low);
	}
}

/* Whether the thread on a stack of ours may have ended elsewhere already: its proclet is on its way, or has left. */
static bool may_have_left(uintptr_t low)
{
	const struct nu_proclet *p = nu_stack_thread(low)->proclet;

	return p && (p->state == NU_PROCLET_MOVING || p->state == NU_PROCLET_MOVED);
}

/*
 * Whether a stack that is in our books still is lent to that proclet, or about to be: the destination runs a proclet's
 * threads while we still take them out. The control block first: who drops it has noted before whom it is lent to.
 */
static bool is_leaving(uintptr_t low, uint64_t proclet)
{
	const struct nu_thread *t = nu_stack_thread(low);

	if (t->proclet_id == proclet && may_have_left(low))
		return true;
	atomic_thread_fence(memory_order_acquire);
	return __atomic_load_n(lent_to(low), __ATOMIC_RELAXED) == proclet;
}

void nu_stack_returned(void *stack_top, uint64_t proclet)
{
	uintptr_t low = nu_stack_slot((void *)((uintptr_t)stack_top - 1));
	_Atomic uint8_t *slot;
	uint8_t state;

	if (!low || !is_ours(low) || low >= stacks.part_next) {
		nu_warn("stacks: %p came home but is none of ours: ignored", stack_top);
		return;
	}
	/* It may become lent while we look. Of a proclet that was lost with a node, and whose stacks were taken back,
	 * nothing comes home that still counts. */
	slot = &stacks.table[slot_index(low)];
	state = atomic_load_explicit(slot, memory_order_acquire);
	for (;;) {
		if (state == SLOT_LENT && __atomic_load_n(lent_to(low), __ATOMIC_RELAXED) == proclet) {
			if (!atomic_compare_exchange_strong(slot, &state, SLOT_FREE))
				continue;
			give(low);
			return;
		}
		if (state != SLOT_HERE || !is_leaving(low, proclet))
			break;
		if (atomic_compare_exchange_strong(slot, &state, SLOT_BACK))
			return;
	}
	nu_warn("stacks: %p came home but was not lent: ignored", stack_top);
}

bool nu_thread_is_here(const struct nu_thread *t)
{
	uintptr_t low = nu_stack_slot(t);

	return low && nu_stack_thread(low) == t &&
	       atomic_load_explicit(&stacks.table[slot_index(low)], memory_order_acquire) == SLOT_HERE;
}

bool nu_stack_in_use(const struct nu_proclet *p, const void *addr)
{
	uintptr_t low = nu_stack_slot(addr);
	const struct nu_thread *t = low ? nu_stack_thread(low) : NULL;

	if (!t)
		return true;
	if (!nu_thread_is_here(t) || t->proclet != p || (uintptr_t)addr < stack_low(low) ||
	    nu_thread_state(t) == NU_THREAD_DONE || nu_thread_is_spare(t))
		return false;
	/* Saved before it is said that it no longer runs. */
	return atomic_load_explicit(&t->running, memory_order_acquire) || (uintptr_t)addr >= (uintptr_t)t->sp;
}

/* Its control block is mapped. */
static bool is_spare(size_t slot)
{
	uintptr_t low = nu_layout.stack_base + (slot << stacks.shift);

	return nu_thread_is_spare(nu_stack_thread(low));
}

void nu_stacks_count(size_t *here_p, size_t *lent_p)
{
	size_t first = slot_index(stacks.part_low), end = slot_index(stacks.part_next);

	*here_p = atomic_load_explicit(&stacks.nforeign, memory_order_relaxed);
	*lent_p = 0;
	for (size_t i = first; i < end; i++) {
		uint8_t state = atomic_load_explicit(&stacks.table[i], memory_order_relaxed);

		*here_p += (state == SLOT_HERE && !is_spare(i)) || state == SLOT_BACK;
		*lent_p += state == SLOT_LENT;
	}
}

bool nu_stacks_next_lent(size_t *cursor, uint64_t *proclet_p)
{
	size_t first = slot_index(stacks.part_low), end = slot_index(stacks.part_next);

	while (first + *cursor < end) {
		size_t i = (*cursor)++;

		if (atomic_load_explicit(&stacks.table[first + i], memory_order_acquire) == SLOT_LENT) {
			*proclet_p = __atomic_load_n(&stacks.lent_to[i], __ATOMIC_RELAXED);
			return true;
		}
	}
	return false;
}

void nu_stacks_take_back(uint64_t proclet)
{
	size_t first = slot_index(stacks.part_low), end = slot_index(stacks.part_next);

	for (size_t i = first; i < end; i++) {
		uint8_t lent = SLOT_LENT;

		if (atomic_load_explicit(&stacks.table[i], memory_order_acquire) == SLOT_LENT &&
		    stacks.lent_to[i - first] == proclet &&
		    atomic_compare_exchange_strong(&stacks.table[i], &lent, SLOT_FREE))
			give(stacks.part_low + ((i - first) << stacks.shift));
	}
}
