/* SPDX-License-Identifier: MIT */
/*
 * The pool: extents that heaps are made of. Their pages are mapped once, at the pool's own address (their home, which
 * is what a network device may know), and moved by mremap to where a heap wants them and back, so that the bytes are
 * never copied and pages once backed stay so. Memory goes back to the system by whole chunks.
 */
#include "core/fault.h"
#include "core/pool_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFILL_STEP   (2 * NU_MIB)
#define CHUNK_DEFAULT (32 * NU_MIB)
#define CHUNK_MIN     (2 * NU_MIB)
#define CHUNK_MAX     NU_GIB

struct nu_pool nu_pool;

static char *address_of(const struct nu_block *b, unsigned at)
{
	return b->chunk->base + ((size_t)at << NU_POOL_UNIT_SHIFT);
}

/* ---- chunks ---- */

static struct nu_chunk **bucket_of(const void *home)
{
	return &nu_pool.buckets[(uintptr_t)home / nu_pool.chunk_bytes % NU_POOL_BUCKETS];
}

/* The chunk of an extent's home; those of larger chunks begin there. Lock held. */
static struct nu_chunk *find_chunk(const void *home)
{
	struct nu_chunk *c = *bucket_of(home);

	while (c && (uintptr_t)home - (uintptr_t)c->base >= c->len_bytes)
		c = c->next;
	return c;
}

static void *map_aligned(size_t len, size_t align)
{
	char *p, *base;

	/* The budget limits us; without NORESERVE an installed extent would be charged at both its addresses. */
	p = mmap(NULL, len + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	if (p == MAP_FAILED)
		return NULL;
	base = (char *)NU_ALIGN_UP((uintptr_t)p, align);
	if (base > p)
		munmap(p, (size_t)(base - p));
	if (base < p + align)
		munmap(base + len, (size_t)(p + align - base));
	return base;
}

/* Deregisters, then unmaps a chunk that nobody can find any more. */
static void chunk_destroy(struct nu_chunk *c)
{
	if (c->registered && nu_pool.ops->chunk_removed)
		nu_pool.ops->chunk_removed(c->base, c->len_bytes, c->priv);
	if (munmap(c->base, c->len_bytes))
		nu_err("cannot unmap %zu MiB of the pool: %s", c->len_bytes / NU_MIB, strerror(nu_sys_errno));
	nu_maps_release(1);
	free(c);
}

static void chunks_destroy(struct nu_list *chunks)
{
	struct nu_list *pos, *next;

	nu_list_for_each_safe (pos, next, chunks) {
		chunk_destroy(nu_list_entry(pos, struct nu_chunk, idle));
	}
}

/* A chunk's record; those larger than usual have one unit. */
static struct nu_chunk *chunk_alloc(size_t len)
{
	unsigned n = len > nu_pool.chunk_bytes ? 1 : (unsigned)(len >> NU_POOL_UNIT_SHIFT);
	struct nu_chunk *c = calloc(1, sizeof(*c) + n * sizeof(c->units[0]));

	if (!c)
		return NULL;
	c->len_bytes = len;
	c->nunits = n;
	for (unsigned i = 0; i < n; i++)
		c->units[i].index = i;
	nu_list_init(&c->idle);
	return c;
}

/* A device pins the chunk's pages: it is backed as a whole from then on. */
static int chunk_register(struct nu_chunk *c)
{
	int err;

	if (!nu_pool.ops || !nu_pool.ops->chunk_added)
		return 0;
	err = nu_pages_back(c->base, c->len_bytes);
	if (err)
		return err;
	err = nu_pool.ops->chunk_added(c->base, c->len_bytes, &c->priv);
	if (err)
		return err;
	c->registered = true;
	for (unsigned i = 0; i < c->nunits; i++)
		c->units[i].backed = true;
	return 0;
}

static int chunk_create(size_t len, struct nu_chunk **c_p)
{
	struct nu_chunk *c;
	int err;

	err = nu_maps_reserve(1, NU_MAPS_HEAPS);
	if (err)
		return err;
	err = -ENOMEM;
	c = chunk_alloc(len);
	if (!c)
		goto release_maps;
	c->base = map_aligned(len, nu_pool.chunk_bytes);
	if (!c->base) {
		nu_err("no address space for %zu MiB more of the pool (RLIMIT_AS?)", len / NU_MIB);
		goto free_chunk;
	}
	/*
	 * One page is touched now, so that the mapping has the kernel's record of anonymous pages before parts of it
	 * leave: only with that in common do they become one mapping with it again when they come home.
	 */
	*(volatile char *)c->base = 0;
	err = chunk_register(c);
	if (err)
		goto unmap;
	*c_p = c;
	return 0;

unmap:
	munmap(c->base, len);
free_chunk:
	free(c);
release_maps:
	nu_maps_release(1);
	return err;
}

/* Lock held. */
static void chunk_insert(struct nu_chunk *c)
{
	struct nu_chunk **bucket = bucket_of(c->base);

	c->next = *bucket;
	*bucket = c;
	nu_pool.chunks++;
	nu_pool.mapped_bytes += c->len_bytes;
}

/* Lock held. */
static void chunk_unlink(struct nu_chunk *c)
{
	struct nu_chunk **link = bucket_of(c->base);

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	nu_pool.chunks--;
	nu_pool.mapped_bytes -= c->len_bytes;
}

/* Another chunk of the usual size for the buddy allocator. */
static int grow(void)
{
	struct nu_chunk *c;
	int err;

	err = chunk_create(nu_pool.chunk_bytes, &c);
	if (err)
		return err;
	nu_lock_acquire(&nu_pool.lock);
	chunk_insert(c);
	nu_buddy_add(c);
	nu_lock_release(&nu_pool.lock);
	return 0;
}

/* The idle chunk that is least worth keeping. Lock held. */
static struct nu_chunk *pick_idle(void)
{
	struct nu_chunk *best = NULL, *c;
	unsigned least = 0, backed;
	struct nu_list *pos;

	nu_list_for_each (pos, &nu_pool.idle) {
		c = nu_list_entry(pos, struct nu_chunk, idle);
		backed = nu_buddy_backed(c);
		if (!best || backed < least) {
			best = c;
			least = backed;
		}
	}
	return best;
}

/* Takes idle chunks that neither the reserve nor @slack_bytes need out of the pool, into @chunks. Lock held. */
static void collect_idle(struct nu_list *chunks, size_t slack_bytes)
{
	nu_list_init(chunks);
	while (!nu_list_empty(&nu_pool.idle) &&
	       nu_pool.free_bytes >= nu_pool.reserve_bytes + slack_bytes + nu_pool.chunk_bytes) {
		struct nu_chunk *c = pick_idle();
		nu_buddy_remove(c);
		chunk_unlink(c);
		nu_list_add_tail(chunks, &c->idle);
	}
}

/* ---- the pool ---- */

int nu_pool_init(size_t budget_bytes, size_t chunk_bytes, size_t reserve_bytes, const struct nu_pool_ops *ops)
{
	if (!chunk_bytes)
		chunk_bytes = CHUNK_DEFAULT;
	if (nu_pool.ready || (chunk_bytes & (chunk_bytes - 1)) || chunk_bytes < CHUNK_MIN ||
	    chunk_bytes > CHUNK_MAX) {
		nu_err("pool: %s",
		       nu_pool.ready ? "initialised twice" : "chunks are a power of two, 2 MiB to 1 GiB");
		return -EINVAL;
	}
	memset(&nu_pool, 0, sizeof(nu_pool));
	nu_pool.budget_bytes = budget_bytes;
	nu_pool.chunk_bytes = chunk_bytes;
	nu_pool.reserve_bytes = reserve_bytes < budget_bytes ? reserve_bytes : budget_bytes;
	nu_pool.ops = ops;
	nu_buddy_init();
	nu_pool.ready = true;
	return 0;
}

void nu_pool_fini(void)
{
	if (!nu_pool.ready)
		return;
	if (nu_pool.used_bytes)
		nu_warn("pool: %zu KiB are still in use at the end", nu_pool.used_bytes / NU_KIB);
	for (unsigned i = 0; i < NU_POOL_BUCKETS; i++) {
		struct nu_chunk *c, *next;
		for (c = nu_pool.buckets[i]; c; c = next) {
			next = c->next;
			chunk_destroy(c);
		}
	}
	nu_pool.ready = false;
}

void nu_pool_stats(struct nu_pool_stats *s_p)
{
	nu_lock_acquire(&nu_pool.lock);
	s_p->budget_bytes = nu_pool.budget_bytes;
	s_p->used_bytes = nu_pool.used_bytes;
	s_p->mapped_bytes = nu_pool.mapped_bytes;
	s_p->reserve_bytes = nu_pool.backed_free_bytes;
	s_p->chunks = nu_pool.chunks;
	nu_lock_release(&nu_pool.lock);
}

/* Takes a block to back for the reserve, as large as @max_bytes; 0 if the reserve is full. Lock held. */
static size_t take_missing(size_t max_bytes, struct nu_block *b_p)
{
	size_t room = nu_pool.budget_bytes - nu_pool.used_bytes;
	size_t want = nu_pool.reserve_bytes < room ? nu_pool.reserve_bytes : room;
	size_t len = NU_EXTENT_MIN_BYTES;
	unsigned order = 0;

	if (nu_pool.backed_free_bytes >= want)
		return 0;
	want -= nu_pool.backed_free_bytes;
	while (2 * len <= max_bytes && len < want && len < nu_pool.chunk_bytes) {
		len *= 2;
		order++;
	}
	/* Blocks that large may be all in use while smaller ones are free. */
	while (!nu_buddy_take(order, NU_TAKE_FILL, b_p)) {
		if (!order--)
			return want;
		len /= 2;
	}
	return len;
}

static ssize_t refill_step(size_t max_bytes)
{
	struct nu_block b;
	size_t len, done = 0;
	int err;

	nu_lock_acquire(&nu_pool.lock);
	for (;;) {
		b.chunk = NULL;
		len = take_missing(max_bytes, &b);
		nu_lock_release(&nu_pool.lock);
		if (!len)
			return 0;
		if (b.chunk)
			break;
		err = grow();
		if (err)
			return err;
		nu_lock_acquire(&nu_pool.lock);
	}
	err = nu_pages_back(address_of(&b, b.at), len);
	for (unsigned i = b.at; !err && i < b.at + b.n; i++) {
		done += b.chunk->units[i].backed ? 0 : NU_EXTENT_MIN_BYTES;
		b.chunk->units[i].backed = true;
	}
	nu_lock_acquire(&nu_pool.lock);
	nu_buddy_give(&b);
	nu_lock_release(&nu_pool.lock);
	return err ? err : (ssize_t)done;
}

ssize_t nu_pool_refill(size_t max_bytes)
{
	size_t sum = 0;
	ssize_t n;

	if (max_bytes)
		return refill_step(max_bytes < REFILL_STEP ? max_bytes : REFILL_STEP);
	while ((n = refill_step(REFILL_STEP)) > 0)
		sum += (size_t)n;
	return n < 0 ? n : (ssize_t)sum;
}

/* ---- extents ---- */

static int charge(size_t len)
{
	size_t used;
	bool logged;

	nu_lock_acquire(&nu_pool.lock);
	used = nu_pool.used_bytes;
	if (likely(used <= nu_pool.budget_bytes && len <= nu_pool.budget_bytes - used)) {
		nu_pool.used_bytes += len;
		nu_lock_release(&nu_pool.lock);
		return 0;
	}
	/* Once until something is given back: a full node's heaps ask again and again. */
	logged = nu_pool.budget_logged;
	nu_pool.budget_logged = true;
	nu_lock_release(&nu_pool.lock);
	if (!logged)
		nu_err("no memory for heaps: budget %zu MiB, used %zu MiB, wanted %zu KiB",
		       nu_pool.budget_bytes / NU_MIB, used / NU_MIB, len / NU_KIB);
	return -ENOMEM;
}

/* Lock held. */
static void uncharge(size_t len)
{
	nu_pool.used_bytes -= len;
	nu_pool.budget_logged = false;
}

/* Zeroes a run of dirty units that are alike, with pages there or not. */
static int zero_units(const struct nu_block *b, unsigned at, unsigned n, bool prefault)
{
	char *p = address_of(b, at);
	size_t len = (size_t)n << NU_POOL_UNIT_SHIFT;
	struct nu_unit *u = &b->chunk->units[at];

	/* Few of the pages may be there: drop those. Never where a device would go on with the old ones. */
	if (!u->backed && !prefault && !b->chunk->registered) {
		if (madvise(p, len, MADV_DONTNEED))
			return -nu_sys_errno;
	} else {
		memset(p, 0, len);
		for (unsigned i = 0; i < n; i++)
			u[i].backed = true;
	}
	for (unsigned i = 0; i < n; i++)
		u[i].dirty = false;
	return 0;
}

/* Makes a block's contents as wanted. It is ours alone, so no lock. */
static int block_prepare(const struct nu_block *b, bool zero, bool prefault)
{
	struct nu_unit *u = b->chunk->units;
	bool backed = true;
	unsigned i, run, end = b->at + b->n;
	int err;

	for (i = b->at; zero && i < end; i += run) {
		for (run = 1;
		     i + run < end && u[i + run].dirty == u[i].dirty && u[i + run].backed == u[i].backed;)
			run++;
		err = u[i].dirty ? zero_units(b, i, run, prefault) : 0;
		if (err)
			return err;
	}
	for (i = b->at; i < end; i++)
		backed &= u[i].backed;
	if (!prefault || backed)
		return 0;
	err = nu_pages_back(address_of(b, b->at), (size_t)b->n << NU_POOL_UNIT_SHIFT);
	for (i = b->at; !err && i < end; i++)
		u[i].backed = true;
	return err;
}

/* Takes a block, and gives its first units back. Lock held. */
static bool take_tail(unsigned order, unsigned skip, enum nu_take how, struct nu_block *b_p)
{
	struct nu_block head;

	if (!nu_buddy_take(order, how, b_p))
		return false;
	head = (struct nu_block){b_p->chunk, b_p->at, skip};
	if (skip)
		nu_buddy_give(&head);
	b_p->at += skip;
	b_p->n -= skip;
	return true;
}

/* Of a block of @len bytes what is behind @skip. */
static int get_block(size_t len, size_t skip, bool zero, bool prefault, void **home_p)
{
	unsigned order = (unsigned)__builtin_ctzl(len >> NU_POOL_UNIT_SHIFT);
	struct nu_block b;
	/* With a device all of a chunk is backed from the beginning. */
	enum nu_take how = prefault ? NU_TAKE_BACKED : nu_pool.ops ? NU_TAKE_LAST : NU_TAKE_ANY;
	bool taken;
	int err = 0;

	for (;;) {
		nu_lock_acquire(&nu_pool.lock);
		taken = take_tail(order, (unsigned)(skip >> NU_POOL_UNIT_SHIFT), how, &b);
		nu_lock_release(&nu_pool.lock);
		if (taken)
			break;
		if (err)
			return err;
		err = grow();
		if (err && how == NU_TAKE_ANY)
			how = NU_TAKE_LAST;
	}
	err = block_prepare(&b, zero, prefault);
	if (err) {
		nu_lock_acquire(&nu_pool.lock);
		nu_buddy_give(&b);
		nu_lock_release(&nu_pool.lock);
		return err;
	}
	*home_p = address_of(&b, b.at);
	return 0;
}

/* An extent larger than chunks are gets one of its own, for as long as it lives. It is fresh: zero. */
static int get_large(size_t len, bool prefault, void **home_p)
{
	struct nu_chunk *c;
	int err;

	err = chunk_create(len, &c);
	if (err)
		return err;
	err = prefault && !c->registered ? nu_pages_back(c->base, len) : 0;
	if (err) {
		chunk_destroy(c);
		return err;
	}
	c->taken = 1;
	nu_lock_acquire(&nu_pool.lock);
	chunk_insert(c);
	nu_lock_release(&nu_pool.lock);
	*home_p = c->base;
	return 0;
}

/* Of @len bytes, a power of two, what is behind @skip. */
static int get_extent(size_t len, size_t skip, bool zero, bool prefault, struct nu_extent *e_p)
{
	void *home;
	int err = nu_fault(NU_FAULT_EXTENT);

	if (!err)
		err = charge(len - skip);
	if (err)
		return err;
	if (len <= nu_pool.chunk_bytes)
		err = get_block(len, skip, zero, prefault, &home);
	else
		err = get_large(len, prefault, &home);
	if (err) {
		nu_lock_acquire(&nu_pool.lock);
		uncharge(len - skip);
		nu_lock_release(&nu_pool.lock);
		return err;
	}
	*e_p = (struct nu_extent){.home = home, .at = home, .len_bytes = len - skip};
	return 0;
}

int nu_extent_get(size_t len_bytes, bool zero, bool prefault, struct nu_extent *e_p)
{
	size_t len = NU_EXTENT_MIN_BYTES;

	if (!len_bytes || len_bytes > NU_SEG_MAX_BYTES)
		return -EINVAL;
	while (len < len_bytes)
		len *= 2;
	return get_extent(len, 0, zero, prefault, e_p);
}

int nu_extent_get_tail(size_t block_bytes, size_t skip_bytes, bool zero, struct nu_extent *e_p)
{
	if (block_bytes < NU_EXTENT_MIN_BYTES || block_bytes > nu_pool.chunk_bytes ||
	    block_bytes & (block_bytes - 1) || skip_bytes % NU_EXTENT_MIN_BYTES || skip_bytes >= block_bytes)
		return -EINVAL;
	return get_extent(block_bytes, skip_bytes, zero, false, e_p);
}

/* A look that costs two system calls, for when something is wrong (NU_LOG=debug): callers know that nothing is there. */
static bool range_unmapped(void *at, size_t len)
{
	void *p;

	if (likely(nu_log_level < NU_LOG_DEBUG))
		return true;
	p = mmap(at, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
		 0);
	if (p == MAP_FAILED)
		return nu_sys_errno != EEXIST;
	munmap(p, len);
	return p == at;
}

/* Not by way of the C library's symbol: UCX patches that and loses the destination. */
static void *move_pages(void *from, size_t len_bytes, int flags, void *to)
{
	return (void *)syscall(SYS_mremap, from, len_bytes, len_bytes, flags, to);
}

/* Kernels before 5.7, and valgrind: home is unmapped by the move and mapped anew. -errno, and then nothing has moved. */
static int move_and_map_anew(struct nu_extent *e, void *at)
{
	static atomic_bool said;
	int err;

	if (move_pages(e->home, e->len_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED)
		return -nu_sys_errno;
	if (!atomic_exchange_explicit(&said, true, memory_order_relaxed))
		nu_info("mremap has no MREMAP_DONTUNMAP here: a heap's extent costs a system call more");
	if (mmap(e->home, e->len_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) == e->home)
		return 0;
	err = -nu_sys_errno;
	NU_ASSERT(move_pages(at, e->len_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, e->home) == e->home);
	return err;
}

/* DONTUNMAP: the range at home stays ours, empty, and one mapping with its neighbours. */
static int move_out(struct nu_extent *e, void *at)
{
	int err;

	if (likely(move_pages(e->home, e->len_bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, at) !=
		   MAP_FAILED))
		return 0;
	err = -nu_sys_errno;
	return err == -EINVAL ? move_and_map_anew(e, at) : err;
}

int nu_extent_install(struct nu_extent *e, void *at)
{
	int err;

	NU_ASSERT(e->at == e->home);
	err = nu_maps_reserve(1, NU_MAPS_HEAPS);
	if (err)
		return err;
	if (!range_unmapped(at, e->len_bytes)) {
		nu_err("cannot install %zu KiB at %p: something is mapped there", e->len_bytes / NU_KIB, at);
		err = -EEXIST;
		goto release_maps;
	}
	err = move_out(e, at);
	if (err) {
		nu_err("cannot install %zu KiB at %p: %s", e->len_bytes / NU_KIB, at, strerror(-err));
		goto release_maps;
	}
	e->at = at;
	return 0;

release_maps:
	nu_maps_release(1);
	return err;
}

/* Moves the pages home; false if the kernel refuses: then they are gone and home is not to be used again. */
static bool go_home(struct nu_extent *e)
{
	bool moved = true;

	/* Only over what is ours: home has belonged to this extent since it was got. */
	if (move_pages(e->at, e->len_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, e->home) == MAP_FAILED) {
		nu_err("cannot move %zu KiB from %p back to the pool: %s", e->len_bytes / NU_KIB, e->at,
		       strerror(nu_sys_errno));
		munmap(e->at, e->len_bytes);
		moved = false;
	}
	nu_maps_release(1);
	e->at = e->home;
	return moved;
}

/* What the former user left: any contents, and maybe all pages. */
static void note_use(const struct nu_block *b)
{
	struct nu_unit *u = &b->chunk->units[b->at];

	for (unsigned i = 0; i < b->n; i++)
		u[i].dirty = true;
	for (unsigned i = 0, n; i < b->n; i += n) {
		for (n = 1; i + n < b->n && u[i + n].backed == u[i].backed;)
			n++;
		if (!u[i].backed) /* what was stays so */
			nu_pages_find(address_of(b, b->at + i), u + i, n);
	}
}

static void put_large(struct nu_extent *e, struct nu_chunk *c)
{
	nu_lock_acquire(&nu_pool.lock);
	chunk_unlink(c);
	uncharge(e->len_bytes);
	nu_lock_release(&nu_pool.lock);
	chunk_destroy(c);
	/* After it was deregistered: until then a peer may still read its pages. */
	if (e->at != e->home) {
		munmap(e->at, e->len_bytes);
		nu_maps_release(1);
	}
}

/* Whether the pages of what is given back stay; else its chunk holds them for as long as anything else in it lives. */
static bool pages_wanted(const struct nu_block *b)
{
	bool wanted;

	nu_lock_acquire(&nu_pool.lock);
	wanted = nu_pool.backed_free_bytes < nu_pool.reserve_bytes + nu_pool.slack_bytes;
	nu_lock_release(&nu_pool.lock);
	return wanted || b->chunk->registered;
}

static void drop_units(const struct nu_block *b, unsigned at, unsigned n)
{
	struct nu_unit *u = b->chunk->units;

	if (madvise(address_of(b, at), (size_t)n << NU_POOL_UNIT_SHIFT, MADV_DONTNEED))
		return;
	for (unsigned i = at; i < at + n; i++)
		u[i].backed = u[i].dirty = false;
}

/* What is backed only here and there counts for nobody: nu_pool_trim() would not find it. */
static void drop_parts(const struct nu_block *b)
{
	struct nu_unit *u = b->chunk->units;
	unsigned n;

	for (unsigned i = b->at; i < b->at + b->n; i += n) {
		for (n = 1; i + n < b->at + b->n && u[i + n].backed == u[i].backed;)
			n++;
		if (!u[i].backed)
			drop_units(b, i, n);
	}
}

static void put_block(struct nu_extent *e, struct nu_chunk *c)
{
	struct nu_block b = {c, (unsigned)(((char *)e->home - c->base) >> NU_POOL_UNIT_SHIFT),
			     (unsigned)(e->len_bytes >> NU_POOL_UNIT_SHIFT)};
	bool whole = e->at == e->home || go_home(e);
	struct nu_list idle;

	if (whole) {
		note_use(&b);
		if (!pages_wanted(&b))
			drop_units(&b, b.at, b.n);
		else if (!c->registered)
			drop_parts(&b);
	}
	nu_lock_acquire(&nu_pool.lock);
	if (whole)
		nu_buddy_give(&b);
	uncharge(e->len_bytes);
	collect_idle(&idle, nu_pool.slack_bytes);
	nu_lock_release(&nu_pool.lock);
	chunks_destroy(&idle);
}

void nu_extent_put(struct nu_extent *e)
{
	struct nu_chunk *c;

	nu_lock_acquire(&nu_pool.lock);
	c = find_chunk(e->home);
	NU_ASSERT(c && c->taken);
	nu_lock_release(&nu_pool.lock);
	if (e->len_bytes > nu_pool.chunk_bytes)
		put_large(e, c);
	else
		put_block(e, c);
	memset(e, 0, sizeof(*e));
}

void nu_pool_set_slack(size_t slack_bytes)
{
	nu_lock_acquire(&nu_pool.lock);
	nu_pool.slack_bytes = slack_bytes;
	nu_lock_release(&nu_pool.lock);
}

/* One idle chunk that the reserve does not need. */
static bool trim_chunk(void)
{
	struct nu_chunk *c = NULL;

	nu_lock_acquire(&nu_pool.lock);
	if (!nu_list_empty(&nu_pool.idle) &&
	    nu_pool.free_bytes >= nu_pool.reserve_bytes + nu_pool.chunk_bytes) {
		c = pick_idle();
		nu_buddy_remove(c);
		chunk_unlink(c);
	}
	nu_lock_release(&nu_pool.lock);
	if (c)
		chunk_destroy(c);
	return c != NULL;
}

/* Takes a free block of @order of which something is backed. Lock held. */
static bool take_backed(unsigned order, struct nu_block *b)
{
	if (!nu_buddy_take(order, NU_TAKE_BACKED, b))
		return false;
	for (unsigned i = b->at; i < b->at + b->n; i++) {
		if (b->chunk->units[i].backed)
			return true;
	}
	nu_buddy_give(b);
	return false;
}

/* The pages of one free block in a chunk that is in use. A device's chunks keep theirs. */
static bool trim_block(void)
{
	size_t excess, len = NU_EXTENT_MIN_BYTES;
	struct nu_block b;
	unsigned order = 0;
	bool taken = false;

	nu_lock_acquire(&nu_pool.lock);
	excess = nu_pool.backed_free_bytes > nu_pool.reserve_bytes
			 ? nu_pool.backed_free_bytes - nu_pool.reserve_bytes
			 : 0;
	for (; 2 * len <= excess && 2 * len <= REFILL_STEP; len *= 2)
		order++;
	/* Free blocks that large may have nothing, while smaller ones do. */
	if (len <= excess && !nu_pool.ops) {
		do
			taken = take_backed(order, &b);
		while (!taken && order--);
	}
	nu_lock_release(&nu_pool.lock);
	if (!taken)
		return false;
	drop_units(&b, b.at, b.n);
	nu_lock_acquire(&nu_pool.lock);
	nu_buddy_give(&b);
	nu_lock_release(&nu_pool.lock);
	return true;
}

bool nu_pool_trim(void)
{
	return trim_chunk() || trim_block();
}
