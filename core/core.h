/* SPDX-License-Identifier: MIT */
/*
 * core/ as the folders above see it: address-space layout, pool and heaps, proclet table, codecs, log, counters.
 */
#pragma once

/* The runtime's own files have their warnings from the build, not from the header. */
#ifndef NU_LENIENT
#define NU_LENIENT
#endif
#include "nu.h"

#include "core/arch.h"
#include "core/sanitize.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define likely(x)			   __builtin_expect(!!(x), 1)
#define unlikely(x)			   __builtin_expect(!!(x), 0)
#define nu_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define NU_CACHE_LINE			   64
#define NU_PAGE_BYTES			   4096 /* nu_layout_init() refuses others */
#define NU_ALIGN_UP(x, a)		   (((x) + (a)-1) & ~((__typeof__(x))(a)-1))
#define NU_KIB				   ((size_t)1 << 10)
#define NU_MIB				   ((size_t)1 << 20)
#define NU_GIB				   ((size_t)1 << 30)

/*
 * The C library's own errno, right after a call of it: what the runtime looks at (nu.h's errno is the program's, and
 * belongs to sched/). Not across anything that may switch threads.
 */
#define nu_sys_errno (*nu_sys_errno_location())
/* The C library's function under a name without its attribute `const`: a scheduler's context that calls a thread within may
 * go on on another kernel thread, and the compiler must not keep the address over that call. */
int *nu_sys_errno_location(void) __asm__("__errno_location");

/* ---- log: for the rare. Levels by NU_LOG=error|warn|info|debug (default warn). log.c ---- */

enum nu_log_level { NU_LOG_ERROR, NU_LOG_WARN, NU_LOG_INFO, NU_LOG_DEBUG };
extern enum nu_log_level nu_log_level;
/* Writes one line "nu: node N: ..." to stderr with one write(2). Any context but a signal handler. */
void nu_log_write(enum nu_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define nu_log(level, ...)                                                                                   \
	do {                                                                                                 \
		if (unlikely((level) <= nu_log_level))                                                       \
			nu_log_write((level), __VA_ARGS__);                                                  \
	} while (0)
#define nu_err(...)   nu_log(NU_LOG_ERROR, __VA_ARGS__)
#define nu_warn(...)  nu_log(NU_LOG_WARN, __VA_ARGS__)
#define nu_info(...)  nu_log(NU_LOG_INFO, __VA_ARGS__)
#define nu_debug(...) nu_log(NU_LOG_DEBUG, __VA_ARGS__)

/* Our own invariants, never what a peer, a user or a file says. NU_ASSERT stays in release builds. */
void nu_assert_failed(const char *expr, const char *file, int line) __attribute__((noreturn, cold));
#define NU_ASSERT(e) ((void)(likely(e) || (nu_assert_failed(#e, __FILE__, __LINE__), 0)))
#ifdef NDEBUG
#define NU_DEBUG_ASSERT(e) ((void)0)
#else
#define NU_DEBUG_ASSERT(e) NU_ASSERT(e)
#endif

/* The program's mistake, after which it cannot go on: said, then abort(). log.c */
void nu_misuse(const char *fmt, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));

/* A function for proclets' threads was called by a kernel thread that runs none: -EINVAL, and in node_init a word about
 * @what (and, after a dot, @more). outside.c */
int nu_outside(const char *what, const char *more) __attribute__((cold));
void nu_outside_init(bool on); /* node_init runs */
bool nu_outside_is_init(void);

/*
 * Memory of the C library for something that cannot be refused: waits a second for it if there is none, so that a
 * shortage costs time and not a message. Any context. NULL: a second was not enough (said in the log). alloc.c
 */
void *nu_alloc_patiently(size_t len_bytes);
/*
 * Memory for as long as a function of ours runs that calls back the program, whose thread may be moved meanwhile: of the
 * running proclet's heap whoever called, else of the C library. NULL: there is none. malloc.c
 */
void *nu_scratch_alloc(size_t len_bytes);
void nu_scratch_free(void *ptr);
/*
 * Whether the program's malloc and its kin are libnu's. -ELIBBAD: another object's stand before them, or a sanitizer that
 * libnu knows nothing of is there; *why says which, and what to do. malloc_check.c
 */
int __must_check nu_malloc_check(char *why, size_t why_bytes);
const void *nu_malloc_of_libraries(void); /* its address; NULL: ours */

/* ---- lists: circular, doubly linked, intrusive ---- */

struct nu_list {
	struct nu_list *next, *prev;
};
static inline void nu_list_init(struct nu_list *l)
{
	l->next = l->prev = l;
}
static inline bool nu_list_empty(const struct nu_list *l)
{
	return l->next == l;
}
static inline void nu_list_add_tail(struct nu_list *head, struct nu_list *e)
{
	e->prev = head->prev;
	e->next = head;
	head->prev->next = e;
	head->prev = e;
}
static inline void nu_list_del(struct nu_list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	e->next = e->prev = e;
}
#define nu_list_entry(ptr, type, member) nu_container_of(ptr, type, member)
#define nu_list_for_each(pos, head)	 for (pos = (head)->next; pos != (head); pos = pos->next)
#define nu_list_for_each_safe(pos, n, head)                                                                  \
	for (pos = (head)->next, n = pos->next; pos != (head); pos = n, n = pos->next)

/*
 * The runtime's own lock, held for tens of instructions with no switch inside. (struct nu_spin in nu_thread.h is
 * the users' spin lock.) Lock order: proclet lock, then run-queue lock, then timer lock, then leaf locks
 * (pool, stacks, location cache, heap).
 */
struct nu_lock {
	atomic_uint held;
};
static inline void nu_lock_acquire(struct nu_lock *l)
{
	while (unlikely(atomic_exchange_explicit(&l->held, 1, memory_order_acquire))) {
		unsigned spins = 0;
		while (atomic_load_explicit(&l->held, memory_order_relaxed)) {
			nu_cpu_relax();
			/* More kernel threads than processors: the holder may be off its processor. */
			if (++spins > 200) {
				extern int sched_yield(void);
				sched_yield();
				spins = 0;
			}
		}
	}
}
static inline bool nu_lock_try(struct nu_lock *l)
{
	return !atomic_exchange_explicit(&l->held, 1, memory_order_acquire);
}
static inline void nu_lock_release(struct nu_lock *l)
{
	atomic_store_explicit(&l->held, 0, memory_order_release);
}

/* ---- layout: where things lie, the same on every node. layout.c ---- */

#define NU_SEG_UNIT_BYTES    NU_MIB /* segments are powers of two of this */
#define NU_SEG_UNIT_SHIFT    20
#define NU_SEG_INDEX_BITS    25
#define NU_GEN_BITS	     39 /* id = segment index << 39 | generation */
#define NU_SEG_DEFAULT_BYTES NU_GIB
#define NU_SEG_MAX_BYTES     ((size_t)1 << 40)
#define NU_MAX_NODES	     256
#define NU_MAX_CORES	     64

struct nu_layout {
	uintptr_t seg_base;	 /* 0x3000_0000_0000 */
	size_t seg_region_bytes; /* 32 TiB */
	uintptr_t stack_base;	 /* 0x2000_0000_0000 */
	size_t stack_region_bytes;
	size_t stack_bytes; /* of one stack, a power of two; NU_STACK_KIB, default 64 */
	size_t stack_slot_bytes; /* from one stack to the next, a power of two: the gap below each is never mapped */
	size_t stack_node_bytes; /* each node's part of the stack region: node n owns [base + n * this, ...) */
};
extern struct nu_layout nu_layout;
/* Sets the defaults and reads the environment; checks that both regions are empty. Once, before anything else. */
int __must_check nu_layout_init(void);

/* Ids. Segment index 0 is the controller, 1 the main proclet; the last NU_MAX_NODES are the nodes' own proclets. */
#define NU_SEG_CTRL    0u
#define NU_SEG_MAIN    1024u /* the second default-sized segment */
#define NU_SEG_NODE(n) ((1u << NU_SEG_INDEX_BITS) - NU_MAX_NODES + (n))
static inline uint64_t nu_id_make(uint32_t seg, uint64_t generation)
{
	return (uint64_t)seg << NU_GEN_BITS | generation;
}
static inline uint32_t nu_id_seg(uint64_t id)
{
	return (uint32_t)(id >> NU_GEN_BITS);
}
static inline uint64_t nu_id_gen(uint64_t id)
{
	return id & (((uint64_t)1 << NU_GEN_BITS) - 1);
}
static inline uint64_t nu_id_of_node(unsigned node)
{
	return nu_id_make(NU_SEG_NODE(node), 1);
}
#define NU_ID_CTRL nu_id_make(NU_SEG_CTRL, 1)
static inline bool nu_id_is_node(uint64_t id, unsigned *node_p)
{
	uint32_t seg = nu_id_seg(id);
	if (seg < NU_SEG_NODE(0))
		return false;
	*node_p = seg - NU_SEG_NODE(0);
	return true;
}
static inline void *nu_seg_addr(uint32_t seg)
{
	return (void *)(nu_layout.seg_base + ((uintptr_t)seg << NU_SEG_UNIT_SHIFT));
}
/* Whether @id, a peer's word, may be that of a proclet that is created somewhere or moves: the controller, the main
 * proclet and the nodes' own do not. */
static inline bool nu_id_is_mobile(uint64_t id)
{
	uint32_t seg = nu_id_seg(id);

	return seg != NU_SEG_CTRL && seg != NU_SEG_MAIN && seg < NU_SEG_NODE(0) && nu_id_gen(id) &&
	       (size_t)seg << NU_SEG_UNIT_SHIFT < nu_layout.seg_region_bytes;
}
/* Whether a segment of @capacity_bytes may begin where @id's does. */
static inline bool nu_id_may_hold(uint64_t id, uint64_t capacity_bytes)
{
	size_t at = (size_t)nu_id_seg(id) << NU_SEG_UNIT_SHIFT;

	return capacity_bytes >= NU_SEG_UNIT_BYTES && capacity_bytes <= NU_SEG_MAX_BYTES &&
	       !(capacity_bytes & (capacity_bytes - 1)) && !(at & (capacity_bytes - 1)) &&
	       at < nu_layout.seg_region_bytes && capacity_bytes <= nu_layout.seg_region_bytes - at;
}
static inline bool nu_addr_in_segments(const void *p)
{
	return (uintptr_t)p - nu_layout.seg_base < nu_layout.seg_region_bytes;
}

/* This node: set once at start-up, before threads run. node.c */
struct nu_node {
	unsigned self; /* 0 in a job without launcher */
	unsigned count;
	unsigned cores;	  /* kernel threads that run user-level threads here */
	size_t mem_bytes; /* budget for heaps */
	pid_t pids[NU_MAX_NODES];
	uint8_t cores_of[NU_MAX_NODES];
	unsigned hosts;		       /* 1: all nodes are on this machine */
	uint8_t host_of[NU_MAX_NODES]; /* pids of nodes on other hosts mean nothing here */
	atomic_bool dead[NU_MAX_NODES];
	atomic_bool any_dead;
	atomic_ulong deaths_done; /* deaths that all of this node's proclets have been looked through for */
	uint64_t incarnation;
};
extern struct nu_node nu_node;
/* What a one-node job has: every processor we may run on, half of the memory we may use. A constructor has set nu_node
 * to it before main() and before constructors without a priority. */
void nu_node_defaults(struct nu_node *n);

/* ---- image: the objects mapped in this process. image.c ---- */

/* Whether @pc lies in the program's own code: there a thread may be interrupted and moved, there malloc means the
 * proclet's heap. The runtime, the C library and other libraries are not movable. Any context, signal-safe. */
bool nu_image_movable(const void *pc);
/* Its first range, unless libnu's code is part of that: set before threads run. */
extern uintptr_t nu_image_code_start __attribute__((visibility("hidden")));
extern uintptr_t nu_image_code_bytes __attribute__((visibility("hidden")));
static inline bool nu_image_has_surely(const void *pc)
{
	return likely((uintptr_t)pc - nu_image_code_start < nu_image_code_bytes);
}
static inline bool nu_image_has(const void *pc)
{
	return nu_image_has_surely(pc) || nu_image_movable(pc);
}
/* Finds the program's code and data. @image from nu_run(). */
int __must_check nu_image_init(const struct nu_image *image);
/* Whether an object of the program asks for executable stacks: GNU C's nested functions have code on them. */
bool nu_image_wants_exec_stack(void);
/* Whether @m is a method descriptor of the program or of libnu (a peer's word is checked before it is used). */
bool nu_image_is_method(const struct nu_method *m);
/* The class that @init, a peer's word, is the constructor of; NULL: of none. */
const struct nu_class *nu_image_class_of(const struct nu_method *init);
/* What the nodes' own proclets are. */
extern const struct nu_class nu_node_class;
/* Write-protects the program's writable data (not RELRO, not the runtime's). Unprotect before exit. */
int __must_check nu_image_protect(bool on);
/* A digest of build-ids and load addresses of all objects, page size, layout, XSAVE size; and the same as text, one
 * fact a line, for saying what differs. @text_p is malloc'ed. */
int __must_check nu_image_digest(uint64_t *digest_p, char **text_p);

/* From here on the program's code may open no new objects with dlopen(). dlopen.c */
void nu_image_seal(bool on);
/* Whether @addr is a global that nu_image_protect() has write-protected. Any context, signal-safe. */
bool nu_image_is_protected(const void *addr);

/* What lies at an address, for crash reports. symbol.c */
struct nu_symbol {
	char object[256]; /* path of the object's file */
	char name[96];	  /* function or variable; "" if its file does not say */
	uintptr_t offset; /* in the object: what addr2line takes */
	uintptr_t into;	  /* bytes behind the symbol's beginning */
	bool is_program;
};
/* False: @addr is in no object. Any context, signal-safe: it opens and maps the object's file. */
bool nu_symbol_find(const void *addr, struct nu_symbol *s);

/* ---- kernel threads of the node's own. kthread.c ---- */

/*
 * Starts one with every signal blocked: signals are for the cores, which set a mask themselves, and for the program.
 * @what: whose it is, for the log; @stack_bytes: 0: as RLIMIT_STACK says. To be joined or detached by the caller.
 * -EAGAIN (too many threads), -ENOMEM, said in the log with the limit. pthread_create(3)
 */
int nu_kthread_start(pthread_t *thread_p, const char *what, size_t stack_bytes, void *(*fn)(void *),
		     void *arg);
/* Of those, how many live. */
unsigned nu_kthreads_live(void);

/* ---- descriptors that others open for us. fds.c ---- */

#define NU_FDS_MAX 8192
struct nu_fds {
	uint8_t open[NU_FDS_MAX / 8];
};
void nu_fds_note(struct nu_fds *set);
/* Those that were not open then get close-on-exec. */
void nu_fds_close_new_on_exec(struct nu_fds *set);

/* ---- pool: extents that heaps are made of. pool.c ---- */

/* A run of pages. It lives at its pool address (its home) or, installed by mremap, at a segment address. */
struct nu_extent {
	void *home;	  /* address in the pool: what a memory region covers */
	void *at;	  /* where its pages are now: home or the segment */
	size_t len_bytes; /* a multiple of NU_EXTENT_MIN_BYTES; but for tails a power of two */
};
#define NU_EXTENT_MIN_BYTES ((size_t)64 << 10)
#define NU_EXTENTS_MAX	    24 /* per heap */

/* Optional hooks by which rdma/ registers chunks: (rkey, home) then stays valid over mremap. */
struct nu_pool_ops {
	int (*chunk_added)(void *addr, size_t len_bytes, void **priv_p);
	void (*chunk_removed)(void *addr, size_t len_bytes, void *priv);
};
/*
 * @budget_bytes: most that extents may hold together (-ENOMEM beyond, naming the limit). @chunk_bytes: 0 for 32 MiB.
 * @reserve_bytes: this much is kept pre-faulted for arrivals. Without @ops nothing is registered or pinned.
 */
int __must_check nu_pool_init(size_t budget_bytes, size_t chunk_bytes, size_t reserve_bytes,
			      const struct nu_pool_ops *ops);
void nu_pool_fini(void);
/*
 * Takes an extent of at least @len_bytes (rounded up to a power of two); contents are zero if @zero, else whatever a
 * former user left. @prefault: every page is backed when this returns (arrivals, never a page fault later).
 * Errors: -ENOMEM budget, or address space. Any kernel thread; leaf lock inside.
 */
int __must_check nu_extent_get(size_t len_bytes, bool zero, bool prefault, struct nu_extent *e_p);
/*
 * The part behind @skip_bytes of a block of @block_bytes (a power of two, up to a chunk); the rest stays in the pool. So a
 * home lies to such a boundary as the place that is to be filled up to one. Errors: as nu_extent_get(); -EINVAL.
 */
int __must_check nu_extent_get_tail(size_t block_bytes, size_t skip_bytes, bool zero, struct nu_extent *e_p);
/* Moves the pages to @at (in a segment; must be unmapped there) without touching them: mremap. -ENOMEM: map limit. */
int __must_check nu_extent_install(struct nu_extent *e, void *at);
/* Moves the pages back home (if installed) and gives the extent back. Idle whole chunks return to the system. */
void nu_extent_put(struct nu_extent *e);
struct nu_pool_stats {
	size_t budget_bytes, used_bytes, mapped_bytes;
	size_t reserve_bytes; /* free and backed just now */
	unsigned chunks;
};
void nu_pool_stats(struct nu_pool_stats *s_p);
/*
 * Backs up to @max_bytes more (0: all that is missing) of the pre-faulted reserve; takes about 0.7 ms a MiB, so an idle
 * place calls it in small steps, and never the blackout. Return: bytes that it backed, 0 when the reserve is full, or
 * -ENOMEM. Any kernel thread.
 */
ssize_t nu_pool_refill(size_t max_bytes);
/*
 * Giving pages back takes the kernel about 60 us a MiB: so much (0) of free memory stays beyond the reserve when extents are
 * put, until nu_pool_trim() gives it back. Who moves heaps out does not pay for it, nor who fills the pool again at once.
 */
void nu_pool_set_slack(size_t slack_bytes);
/* One step of that, about 2 ms at most. False: there is nothing to give back. Any kernel thread. */
bool nu_pool_trim(void);

/*
 * Mappings are limited (vm.max_map_count). Whoever makes lasting ones promises them here first and gives the promise
 * back when they are gone. Errors: -ENOMEM, naming the limit. Any kernel thread. maps.c
 */
enum nu_maps_use {
	NU_MAPS_HEAPS, /* what creates: leaves a part of the limit to stacks, without which nothing is ever freed */
	NU_MAPS_THREADS, /* stacks of threads that are started or arrive: leave a part to those that serve calls */
	NU_MAPS_CALLS,
	NU_MAPS_STEPS, /* the runtime's own steps, by which room is made: go a little beyond the limit */
	NU_MAPS_USES
};
int __must_check nu_maps_reserve(unsigned n, enum nu_maps_use use);
/* Whether one more would be promised. It may not be true any more when this returns. */
bool nu_maps_have_room(enum nu_maps_use use);
void nu_maps_release(unsigned n);
/* Mappings promised now, how many may be, and how many of them are for heaps. */
void nu_maps_stats(unsigned *used_p, unsigned *max_p, unsigned *heaps_p);

/* ---- heap: a slab allocator wholly inside a segment. heap.c ---- */

/*
 * The heap begins at the segment's base and everything it needs is inside, so it moves as plain bytes and goes on at
 * the destination with no fix-up (per-core caches are sized at run time and re-dealt on arrival by nu_heap_arrived()).
 * Growth asks `grow` below for more pages at the heap's end.
 */
struct nu_heap;
/*
 * Called with the heap's lock held to map more: makes [base, base + want) usable, want <= capacity; or, if there is no memory for
 * that, as much as there is of it, but not less than @enough. Says why it cannot do that.
 */
typedef int (*nu_heap_grow_fn)(void *arg, size_t want_bytes, size_t enough_bytes, size_t *mapped_p);

/* Bytes at the segment's base left for the caller (struct nu_proclet_head) before the heap's own header. */
#define NU_HEAP_HEAD_BYTES 1024
/* Makes an empty heap in [base, base + mapped_bytes), which are zero pages. */
struct nu_heap *nu_heap_init(void *base, size_t mapped_bytes, size_t capacity_bytes);
/* Returns 16-byte aligned memory or NULL when the heap is full or the node's pool is (errno-less). Any kernel thread
 * that runs a thread of this proclet, or that holds the proclet still. @core: caller's core index. */
void *nu_heap_alloc(struct nu_heap *h, size_t len_bytes, unsigned core);
void *nu_heap_alloc_aligned(struct nu_heap *h, size_t align, size_t len_bytes, unsigned core);
void nu_heap_free(struct nu_heap *h, void *ptr, unsigned core);
/* Usable size of a live block. */
size_t nu_heap_usable(struct nu_heap *h, const void *ptr);
/* Sets who maps more; re-set on each node that the heap comes to. */
void nu_heap_set_grow(struct nu_heap *h, nu_heap_grow_fn grow, void *arg);
/* Bytes from the base that hold anything: what a migration must read. */
size_t nu_heap_used_end(const struct nu_heap *h);
/* Live bytes handed out. */
size_t nu_heap_live_bytes(const struct nu_heap *h);
size_t nu_heap_mapped_bytes(const struct nu_heap *h);
/* After the bytes have arrived on another node with @mapped_bytes mapped. */
void nu_heap_arrived(struct nu_heap *h, size_t mapped_bytes);
/* Whether the header at @h, a peer's bytes, can be that of a heap whose used part is [base, base + used_bytes). */
bool nu_heap_may_arrive(const struct nu_heap *h, const void *base, size_t used_bytes, size_t capacity_bytes);
/* Gives what the per-core caches hold back, so that nu_heap_used_end() is as low as it can be: worth doing before a
 * move. The caller holds the proclet still. */
void nu_heap_settle(struct nu_heap *h);
/* Checks every structure (tests); 0 or -EIO with the fault logged. */
int nu_heap_check(const struct nu_heap *h);

/* ---- proclets ---- */

struct nu_thread;
struct nu_core;

enum nu_proclet_state {
	NU_PROCLET_NONE,
	NU_PROCLET_ARRIVING, /* pages may be here; nothing runs */
	NU_PROCLET_PRESENT,
	NU_PROCLET_MOVING, /* frozen: being handed over, arrivals are held */
	NU_PROCLET_MOVED,  /* a forwarding note: it is at `moved_to` */
	NU_PROCLET_DYING,  /* the last reference is gone */
};

/*
 * The part of a proclet that moves: it lies at the segment's base, in front of its heap (NU_HEAP_HEAD_BYTES).
 */
struct nu_proclet_head {
	uint64_t id;
	const struct nu_class *cls;
	void *root;
	struct nu_heap *heap;
	uint64_t capacity_bytes;
	uint64_t location;	   /* number of this place: raised by each move */
	uint64_t spawn_seq;	   /* for call identities */
	uint64_t refs_total;	   /* counted references to this proclet ... */
	struct nu_reftab *holders; /* ... by holder (in this heap) */
	struct nu_reftab *held;	   /* counted references that this proclet holds (in this heap) */
	int64_t clock_offset_ns;   /* its clock = node's monotonic clock + this */
	uint64_t deaths_done;	   /* nu_node.deaths_done of the last look at its calls and references, ... */
	uint64_t look;		   /* and which look is under way, if it has not moved since; rpc/lost.c */
	bool pinned;
};

/*
 * The part that stays: readable when the heap is elsewhere. Never freed while the node runs (recycled through a
 * free list; `id` tells the tenant).
 */
struct nu_proclet {
	/* Read by every call. */
	struct nu_lock lock;	 /* state, threads, held */
	_Atomic(uint32_t) state; /* enum nu_proclet_state; written under lock */
	atomic_bool frozen;	 /* its threads must not run; see sched.h. Written under lock */
	atomic_bool
		quick; /* local calls may begin and end without the lock: sched/handoff.c. Written under lock */
	_Atomic(uint64_t) id;
	struct nu_proclet_head *head; /* in the segment; NULL for a node's own proclet and when absent */
	void *root;
	struct nu_heap *heap;
	const struct nu_class *cls; /* of its root object; NULL: it has none */
	struct nu_list threads;	    /* nu_thread.proclet_link: every thread of it, under lock */
	uint32_t nthreads;
	uint32_t calls_active; /* threads that serve a call, or are kept for one (NU_THREAD_SPARE) */

	/* While frozen: threads that would be runnable (nu_thread.link), under lock. */
	struct nu_list parked;

	/* Arrivals while MOVING (struct nu_held in rpc/), under lock. */
	struct nu_list held;
	uint32_t nheld;
	size_t held_bytes;

	/* After the move: output waits until the source has relinquished. */
	bool hold_output;
	struct nu_list output_waiters; /* nu_thread.link */

	unsigned moved_to;
	uint64_t moved_location;
	unsigned moved_from; /* ARRIVING, or while output is held: the source */
	bool move_claimed;   /* somebody is moving or freeing it */
	bool offered;	     /* peers may read its extents: they are not given back; under lock */
	bool arriving_busy;  /* ARRIVING: somebody makes room for it, pulls it or gives it up; under lock */
	bool was_note;	     /* ARRIVING: it was here before, and the controller knows */
	struct nu_arrival *arrival; /* ARRIVING: what has been made ready for it; rdma/ */

	unsigned nextents;
	struct nu_extent extents[NU_EXTENTS_MAX];
	size_t mapped_bytes;

	struct nu_list all_link; /* every proclet of this node, nu_proclets_lock */
	struct nu_proclet *next_free;
	int (*invoke)(struct nu_proclet *p,
		      struct nu_thread *t); /* replication replaces it; NULL: run the method */
};

/* Table by segment index: lock-free reads. The table is rotated so that default-sized segments are dense in it. */
#define NU_TABLE_SLOT(seg) (((seg) >> 10) | (((seg)&1023u) << (NU_SEG_INDEX_BITS - 10)))
extern _Atomic(struct nu_proclet *) *nu_proclet_table;
static inline struct nu_proclet *nu_proclet_lookup(uint64_t id)
{
	struct nu_proclet *p =
		atomic_load_explicit(&nu_proclet_table[NU_TABLE_SLOT(nu_id_seg(id))], memory_order_acquire);
	return p && atomic_load_explicit(&p->id, memory_order_relaxed) == id ? p : NULL;
}
/* The proclet of this node's table, here or a note of where it went, whose segment begins nearest before @addr; NULL: none
 * that may hold it. Signal-safe. */
struct nu_proclet *nu_proclet_around(const void *addr);
int __must_check nu_proclet_table_init(void);
/* A control block for @id in state NONE, entered into the table; -EEXIST another tenant is there, -ENOMEM, -EINVAL id 0.
 * Neither this nor the next with a proclet's lock held: nu_proclet_for_each() takes them the other way round. */
int __must_check nu_proclet_enter(uint64_t id, struct nu_proclet **p_p);
/* Takes it out of the table and recycles it. The caller knows that nobody will look at it with this id again. */
void nu_proclet_leave(struct nu_proclet *p);
/* Makes the heap's first @want bytes usable: extents from the pool, installed at the segment. A nu_heap_grow_fn with
 * the control block as @arg. Errors: -ENOMEM (pool, mappings, NU_EXTENTS_MAX, capacity). proclet.c */
int nu_proclet_map(void *proclet, size_t want_bytes, size_t enough_bytes, size_t *mapped_p);
/* Takes extents that hold [0, len_bytes) of a heap that will arrive, every page backed; not installed yet. */
int __must_check nu_proclet_reserve(struct nu_proclet *p, size_t len_bytes);
/* Moves those that are at home to their places in the segment. */
int __must_check nu_proclet_install(struct nu_proclet *p);
/* Gives all extents back. */
void nu_proclet_unmap(struct nu_proclet *p);
/* Calls @fn for each proclet of this node; the lock is held: @fn must not block. */
void nu_proclet_for_each(void (*fn)(struct nu_proclet *p, void *arg), void *arg);

/* ---- who runs: owned here, filled in by sched ---- */

/*
 * The calling kernel thread's core: the beginning of sched/'s struct of it, and of a thread's; NULL: it is none. Read by
 * NU_TLS_LOAD() only.
 */
struct nu_here {
	struct nu_thread *_Atomic current;
	unsigned index;
	/* The running thread's heap, and its cache of this core's; @cache NULL: malloc.c has yet to find out.
	 * Whoever sets @current forgets @cache. */
	struct nu_heap *heap;
	struct nu_heap_cache *cache;
};
struct nu_runs {
	void *sp;
	uint32_t running, state;
	struct nu_proclet *proclet;
};
extern __thread struct nu_here *nu_here __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The proclet whose heap the calling thread allocates from; NULL: the C library's. Any context. */
extern struct nu_proclet *(*nu_current_proclet_fn)(void);
extern unsigned (*nu_current_core_fn)(void);

/* Bounds of the running user-level thread are elsewhere (sched); errno lives with it (sched). */

/* ---- counters: one table, per core, monotonic. stat.c ---- */

enum nu_stat {
	NU_STAT_CALLS_LOCAL,
	NU_STAT_CALLS_QUICK, /* local ones that took no lock: each counts as local, served, and two switches in the sums */
	NU_STAT_CALLS_SENT,
	NU_STAT_CALLS_SERVED,
	NU_STAT_CALLS_FORWARDED,
	NU_STAT_CALLS_HELD,
	NU_STAT_REPLIES_SENT,
	NU_STAT_BYTES_SENT,
	NU_STAT_BATCHES_SENT,
	NU_STAT_NUDGES_SENT,
	NU_STAT_THREADS_SPAWNED,
	NU_STAT_SWITCHES,
	NU_STAT_STEALS,
	NU_STAT_PREEMPTIONS,
	NU_STAT_CORES_LEFT, /* to another kernel thread, since a thread could not be interrupted: sched/carrier.c */
	NU_STAT_PROCLETS_CREATED,
	NU_STAT_PROCLETS_FREED,
	NU_STAT_MOVES_IN,
	NU_STAT_MOVES_OUT,
	NU_STAT_MOVES_UNDONE,
	NU_STAT_MOVE_BYTES,
	/* Bytes read of peers by reader, and system calls that it took. */
	NU_STAT_READ_BYTES_CMA,
	NU_STAT_READ_BYTES_VERBS,
	NU_STAT_READ_BYTES_AM,
	NU_STAT_READ_SYSCALLS,
	NU_STAT_BAD_MESSAGES,
	NU_STAT_STALE_CALLS,
	/* Connections that outlive their endpoints: batches kept until acknowledged, no longer kept, sent again, and not
	 * taken because they were (or one before them was not); endpoints that broke. */
	NU_STAT_BATCHES_KEPT,
	NU_STAT_BATCHES_SETTLED,
	NU_STAT_BATCHES_RESENT,
	NU_STAT_BATCHES_REFUSED,
	NU_STAT_CONNS_BROKEN,
	NU_STAT_SLEEPS, /* of idle cores: each ends when something wakes it */
	/* Pauses by what the thread was doing; a test asserts that each was hit. */
	NU_STAT_PAUSE_RUNNING,
	NU_STAT_PAUSE_RUNNABLE,
	NU_STAT_PAUSE_SLEEP,
	NU_STAT_PAUSE_SYNC,
	NU_STAT_PAUSE_REPLY_LOCAL,
	NU_STAT_PAUSE_REPLY_REMOTE,
	NU_STAT_PAUSE_SERVING_MOVED_CALLER,
	NU_STAT_COUNT,
};
struct nu_stat_core {
	uint64_t v[NU_STAT_COUNT];
} __attribute__((aligned(NU_CACHE_LINE)));
/* Cores, then the places in sched/ that kernel threads have which no core is at. */
#define NU_STAT_CORES (NU_MAX_CORES + 128)
extern struct nu_stat_core nu_stat_cores[NU_STAT_CORES];
/* Call it with the caller's core index; threads that are no core use index 0 with the _shared form. */
static inline void nu_stat_add(unsigned core, enum nu_stat which, uint64_t n)
{
	uint64_t *v = &nu_stat_cores[core].v[which];

	/* One writer; others read. */
	__atomic_store_n(v, __atomic_load_n(v, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
void nu_stat_add_shared(enum nu_stat which, uint64_t n);
uint64_t nu_stat_sum(enum nu_stat which);
/* Blackouts of arrivals, as in struct nu_stats: count, sum, max, histogram. Any thread. blackout.c */
void nu_blackout_add(uint64_t ns);
void nu_blackout_read(struct nu_stats *s);

/* ---- codecs: codec.c; descriptors are made by the macros of nu_class.h ---- */

#define NU_MESSAGE_MAX_BYTES                                                                                 \
	(NU_CALL_MAX_BYTES + 4096) /* with what the runtime puts around a constructor's arguments */
/*
 * Bytes that the spans of @args add to the struct of arguments padded to 8; 0 if the method has no fields. -EMSGSIZE: with the
 * struct more than NU_CALL_MAX_BYTES, said in the log.
 */
ssize_t nu_codec_args_bytes(const struct nu_method *m, const void *args);
/* Writes args and their spans to @to: args_bytes without fields, else args_bytes padded to 8 and the above. */
void nu_codec_args_pack(const struct nu_method *m, const void *args, void *to);
/* Turns packed bytes at @buf (writable, 8-aligned, kept until the method returns) into args in place: span pointers
 * are set to the bytes that follow. -EBADMSG: a length does not fit in @len or leaves bytes over, a string has no NUL,
 * a function is not the program's. */
int __must_check nu_codec_args_unpack(const struct nu_method *m, void *buf, size_t len);
