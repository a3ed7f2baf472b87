/* SPDX-License-Identifier: MIT */
/* The slab heap: classes, growth, exhaustion, shrinking, several cores, and going on after its bytes were copied. */
#include "core/core.h"
#include "tests/unit/emulator.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BASE  ((char *)nu_layout.seg_base)
#define CORES 4

/* A segment: reserved up to the capacity, readable as far as the heap has asked for. */
struct seg {
	size_t mapped, capacity, budget;
	unsigned grows;
};

static int seg_grow(void *arg, size_t want, size_t enough, size_t *mapped_p)
{
	struct seg *s = arg;

	cr_assert_gt(want, s->mapped);
	cr_assert_leq(want, s->capacity);
	cr_assert_leq(enough, want);
	if (want > s->budget)
		want = NU_ALIGN_UP(enough, NU_EXTENT_MIN_BYTES);
	if (want > s->budget)
		return -ENOMEM;
	cr_assert_eq(mprotect(BASE, want, PROT_READ | PROT_WRITE), 0);
	s->mapped = want;
	s->grows++;
	*mapped_p = want;
	return 0;
}

/* Old bytes in the fresh pages: the heap must not rely on zeros but in its first mapping. */
static int seg_grow_dirty(void *arg, size_t want, size_t enough, size_t *mapped_p)
{
	size_t old = ((struct seg *)arg)->mapped;
	int err = seg_grow(arg, want, enough, mapped_p);

	if (!err)
		memset(BASE + old, 0xff, *mapped_p - old);
	return err;
}

static struct nu_heap *seg_heap(struct seg *s, size_t first, size_t capacity)
{
	void *at = mmap(BASE, capacity, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	struct nu_heap *h;

	cr_assert_eq(at, BASE);
	cr_assert_eq(mprotect(BASE, first, PROT_READ | PROT_WRITE), 0);
	nu_node.cores = CORES;
	*s = (struct seg){.mapped = first, .capacity = capacity, .budget = capacity};
	h = nu_heap_init(BASE, first, capacity);
	nu_heap_set_grow(h, seg_grow, s);
	cr_assert_eq(nu_heap_check(h), 0);
	return h;
}

static uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

Test(heap, every_size_is_usable_aligned_and_disjoint)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 64 * NU_MIB);
	static unsigned char *at[70000];
	size_t n = 0, live = 0;

	for (size_t len = 0; len <= 70000; len += len < 2100 ? 1 : 97, n++) {
		at[n] = nu_heap_alloc(h, len, 0);
		cr_assert(at[n]);
		cr_assert_eq((uintptr_t)at[n] % 16, 0);
		size_t usable = nu_heap_usable(h, at[n]);
		cr_assert_geq(usable, len);
		/* Four classes to a doubling waste at most a fifth; pages at most one page. */
		cr_assert_leq(usable, len + (len <= 128 ? 16 : len / 4 + 16), "%zu for %zu", usable, len);
		memset(at[n], (int)(n % 251), usable);
		live += usable;
	}
	cr_assert_eq(nu_heap_live_bytes(h), live);
	cr_assert_eq(nu_heap_check(h), 0);
	for (size_t i = 0; i < n; i++) {
		size_t usable = nu_heap_usable(h, at[i]);
		for (size_t k = 0; k < usable; k++)
			cr_assert_eq(at[i][k], i % 251);
		nu_heap_free(h, at[i], 0);
	}
	nu_heap_free(h, NULL, 0);
	cr_assert_eq(nu_heap_live_bytes(h), 0);
	cr_assert_eq(nu_heap_check(h), 0);
}

Test(heap, an_empty_heap_leaves_most_of_64_kib)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, NU_MIB);
	size_t got = 0;

	s.budget = 0; /* no growth */
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
	while (nu_heap_alloc(h, 64, 0))
		got += 64;
	cr_assert_geq(got, 48 * NU_KIB, "only %zu", got);
	cr_assert_eq(nu_heap_live_bytes(h), got);
	cr_assert_eq(nu_heap_check(h), 0);
}

Test(heap, aligned_blocks)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 256 * NU_MIB);
	static void *at[20000];
	size_t n = 0;

	for (size_t align = 1; align <= 4 * NU_MIB; align *= 2) {
		for (size_t len = 0; len < 80000; len = len * 3 / 2 + 1) {
			void *p = nu_heap_alloc_aligned(h, align, len, 1);
			cr_assert(p, "align %zu len %zu", align, len);
			cr_assert_eq((uintptr_t)p % (align < 16 ? 16 : align), 0);
			cr_assert_geq(nu_heap_usable(h, p), len);
			memset(p, 0x5a, nu_heap_usable(h, p));
			at[n++] = p;
		}
		cr_assert_eq(nu_heap_check(h), 0);
	}
	while (n)
		nu_heap_free(h, at[--n], 1);
	nu_heap_settle(h);
	cr_assert_eq(nu_heap_check(h), 0);
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
}

Test(heap, grows_geometrically_to_a_gib_and_shrinks_again)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, NU_GIB);
	static char *at[2048];
	size_t n = 0, block = 600 * NU_KIB;

	while (n < 2048 && (at[n] = nu_heap_alloc(h, block, 0))) {
		at[n][0] = at[n][block - 1] = (char)n;
		n++;
	}
	cr_assert_gt(n * block, NU_GIB / 100 * 97);
	cr_assert_eq(nu_heap_mapped_bytes(h), NU_GIB);
	cr_assert_leq(s.grows, 15);
	cr_assert_eq(nu_heap_check(h), 0);
	/* Every second one: too small for a larger block; then all of it coalesces. */
	for (size_t i = 0; i < n; i += 2)
		nu_heap_free(h, at[i], 0);
	cr_assert_null(nu_heap_alloc(h, 2 * block, 0));
	cr_assert_eq(nu_heap_check(h), 0);
	for (size_t i = 1; i < n; i += 2) {
		cr_assert_eq(at[i][0], (char)i);
		nu_heap_free(h, at[i], 0);
	}
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
	cr_assert_eq(nu_heap_live_bytes(h), 0);
	cr_assert_eq(nu_heap_check(h), 0);
	char *big = nu_heap_alloc(h, 900 * NU_MIB, 0);
	cr_assert(big);
	big[900 * NU_MIB - 1] = 1;
	nu_heap_free(h, big, 0);
	cr_assert_eq(nu_heap_check(h), 0);
}

Test(heap, one_huge_block_first)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 4 * NU_GIB);
	char *p;

	nu_heap_set_grow(h, seg_grow_dirty, &s);
	s.budget = 300 * NU_MIB; /* doubling is refused from 150 MiB on; what is needed is asked for next */
	p = nu_heap_alloc(h, 200 * NU_MIB, 0);
	cr_assert(p);
	memset(p, 1, 200 * NU_MIB);
	cr_assert_eq(nu_heap_check(h), 0);
	char *q = nu_heap_alloc(h, 80 * NU_MIB, 0);
	cr_assert(q);
	cr_assert_null(nu_heap_alloc(h, 80 * NU_MIB, 0));
	cr_assert_null(nu_heap_alloc(h, 5 * NU_GIB, 0));
	cr_assert_null(nu_heap_alloc(h, SIZE_MAX, 0));
	cr_assert_null(nu_heap_alloc_aligned(h, (size_t)1 << 62, 1, 0));
	nu_heap_free(h, p, 0);
	cr_assert_eq(nu_heap_check(h), 0);
	cr_assert_eq(nu_heap_alloc(h, 200 * NU_MIB, 0), p, "first fit");
	cr_assert_eq(nu_heap_check(h), 0);
}

/* Fills the heap with blocks of @len, linked through themselves. */
static size_t fill(struct nu_heap *h, size_t len, void ***list_p)
{
	size_t n = 0;
	void **p;

	while ((p = nu_heap_alloc(h, len, 2))) {
		*p = *list_p;
		*list_p = p;
		n++;
	}
	return n;
}

static void spill(struct nu_heap *h, void **list)
{
	while (list) {
		void **next = *list;
		nu_heap_free(h, list, 3);
		list = next;
	}
}

Test(heap, exhaustion_and_recovery)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 2 * NU_MIB);
	static const size_t lens[] = {16, 24000, 100, 40000, 2000, 300000, 512, 6000};

	for (unsigned round = 0; round < 24; round++) {
		size_t len = lens[round % 8], n;
		void **list = NULL;

		n = fill(h, len, &list);
		cr_assert_gt(n * len, len > 200000 ? NU_MIB : 3 * NU_MIB / 2, "%zu of %zu", n, len);
		cr_assert_null(nu_heap_alloc(h, len, 2));
		cr_assert_eq(nu_heap_check(h), 0);
		spill(h, list);
		cr_assert_eq(nu_heap_check(h), 0);
		cr_assert_eq(nu_heap_live_bytes(h), 0);
	}
	nu_heap_settle(h);
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
}

Test(heap, full_slabs_of_others_can_be_had_once_they_are_freed)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, NU_MIB, NU_MIB);
	void **list = NULL;

	/* All of it in the smallest class, freed by the core that then wants a large block: its own cache must not
	 * stand in the way. */
	fill(h, 16, &list);
	spill(h, list);
	void *p = nu_heap_alloc(h, 900 * NU_KIB, 3);
	cr_assert(p);
	cr_assert_eq(nu_heap_check(h), 0);
}

/* ---- a model: each block is filled with its tag and looked at again when it is freed ---- */

struct slot {
	unsigned char *p;
	size_t len;
	unsigned char tag;
};

static size_t any_len(uint64_t *r)
{
	uint64_t x = rnd(r) % 100;

	if (x < 60)
		return rnd(r) % 300;
	if (x < 85)
		return rnd(r) % 5000;
	if (x < 98)
		return rnd(r) % 40000;
	return rnd(r) % 700000;
}

static void slot_fill(struct nu_heap *h, struct slot *s, uint64_t *r, unsigned core)
{
	s->len = any_len(r);
	if (rnd(r) % 16)
		s->p = nu_heap_alloc(h, s->len, core);
	else
		s->p = nu_heap_alloc_aligned(h, (size_t)16 << rnd(r) % 11, s->len, core);
	s->tag = (unsigned char)rnd(r);
	if (s->p)
		memset(s->p, s->tag, s->len);
}

static bool slot_empty(struct nu_heap *h, struct slot *s, unsigned core)
{
	bool good = true;

	for (size_t i = 0; i < s->len; i += i < 64 || s->len - i <= 64 ? 1 : s->len > 4096 ? 61 : 1)
		good &= s->p[i] == s->tag;
	nu_heap_free(h, s->p, core);
	s->p = NULL;
	return good;
}

static void stress(uint64_t seed, size_t capacity, unsigned nslots, unsigned ops)
{
	static struct slot slots[8192];
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, capacity);
	uint64_t r = seed;
	size_t failed = 0;

	nu_heap_set_grow(h, seg_grow_dirty, &s);
	for (unsigned op = 0; op < ops; op++) {
		/* The number of live blocks swings, so that slabs and runs fill and empty. */
		unsigned span = op / 20000 % 2 ? nslots : nslots / 8;
		struct slot *slot = &slots[rnd(&r) % nslots];
		unsigned core = (unsigned)(rnd(&r) % (CORES + 2)); /* two of them have no cache */

		if (slot->p)
			cr_assert(slot_empty(h, slot, core), "seed %lu op %u", (unsigned long)seed, op);
		else if (slot - slots < span) {
			slot_fill(h, slot, &r, core);
			failed += !slot->p;
		}
		if (op % 10007 == 0)
			cr_assert_eq(nu_heap_check(h), 0, "seed %lu op %u", (unsigned long)seed, op);
		if (op % 50021 == 0)
			nu_heap_settle(h);
	}
	for (unsigned i = 0; i < nslots; i++)
		if (slots[i].p)
			cr_assert(slot_empty(h, &slots[i], i % CORES));
	cr_assert_eq(nu_heap_live_bytes(h), 0);
	nu_heap_settle(h);
	cr_assert_eq(nu_heap_check(h), 0);
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
	/* The small one must have been full at times, or exhaustion was not tried. */
	cr_assert((failed > 0) == (capacity < 16 * NU_MIB), "%zu failed", failed);
	munmap(BASE, capacity);
}

Test(heap, stress_with_room)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		stress(seed * 0x9e3779b97f4a7c15u, 512 * NU_MIB, 4096, 200000);
}

Test(heap, stress_without_room)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		stress(seed * 0xd1342543de82ef95u, 4 * NU_MIB, 2048, 200000);
}

Test(heap, the_same_operations_give_the_same_addresses)
{
	uint64_t sums[2] = {0, 0};

	for (unsigned run = 0; run < 2; run++) {
		static struct slot slots[512];
		struct seg s;
		struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 128 * NU_MIB);
		uint64_t r = 42;

		for (unsigned op = 0; op < 50000; op++) {
			struct slot *slot = &slots[rnd(&r) % 512];
			if (slot->p)
				slot_empty(h, slot, 0);
			else
				slot_fill(h, slot, &r, 0);
			sums[run] = sums[run] * 31 + (uintptr_t)slot->p;
		}
		for (unsigned i = 0; i < 512; i++)
			slots[i].p = NULL;
		munmap(BASE, 128 * NU_MIB);
	}
	cr_assert_eq(sums[0], sums[1]);
}

/* ---- several cores ---- */

#define RING 1024u
struct worker {
	struct nu_heap *h;
	unsigned core;
	pthread_barrier_t *go;
	_Atomic(struct slot *) *in, *out; /* rings to the neighbour: what one core allocates another frees */
	bool good;
};

#ifdef __SANITIZE_THREAD__
#define OPERATIONS 15000
#else
#define OPERATIONS 150000
#endif

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t r = 0x1234567 + w->core;
	struct slot *own[256] = {0};

	w->good = true;
	pthread_barrier_wait(w->go);
	for (unsigned op = 0; op < OPERATIONS; op++) {
		struct slot **mine = &own[rnd(&r) % 256], *s, *none = NULL;

		s = atomic_exchange(&w->in[rnd(&r) % RING], NULL);
		if (s) {
			w->good &= slot_empty(w->h, s, w->core);
			nu_heap_free(w->h, s, w->core);
		}
		if (*mine) {
			if (atomic_compare_exchange_strong(&w->out[rnd(&r) % RING], &none, *mine)) {
				*mine = NULL;
				continue;
			}
			w->good &= slot_empty(w->h, *mine, w->core);
			nu_heap_free(w->h, *mine, w->core);
			*mine = NULL;
			continue;
		}
		s = nu_heap_alloc(w->h, sizeof(*s), w->core);
		if (!s)
			continue;
		slot_fill(w->h, s, &r, w->core);
		if (s->p)
			*mine = s;
		else
			nu_heap_free(w->h, s, w->core);
	}
	for (unsigned i = 0; i < 256; i++) {
		if (own[i]) {
			w->good &= slot_empty(w->h, own[i], w->core);
			nu_heap_free(w->h, own[i], w->core);
		}
	}
	return NULL;
}

Test(heap, cores_free_each_others_blocks)
{
	static _Atomic(struct slot *) rings[CORES][RING];
	struct worker w[CORES];
	pthread_t t[CORES];
	pthread_barrier_t go;
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 256 * NU_MIB);

	pthread_barrier_init(&go, NULL, CORES);
	for (unsigned i = 0; i < CORES; i++) {
		w[i] = (struct worker){h, i, &go, rings[i], rings[(i + 1) % CORES], false};
		cr_assert_eq(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < CORES; i++) {
		pthread_join(t[i], NULL);
		cr_assert(w[i].good, "core %u saw a block overwritten", i);
	}
	cr_assert_eq(nu_heap_check(h), 0);
	for (unsigned i = 0; i < CORES; i++)
		for (unsigned k = 0; k < RING; k++)
			if (rings[i][k]) {
				slot_empty(h, rings[i][k], 0);
				nu_heap_free(h, rings[i][k], 0);
			}
	cr_assert_eq(nu_heap_live_bytes(h), 0);
	nu_heap_settle(h);
	cr_assert_eq(nu_heap_check(h), 0);
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
}

Test(heap, blocks_do_not_pile_up_at_a_core_that_only_frees)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 64 * NU_MIB);

	/* A producer and a consumer: 64 MB pass, a fraction is ever in use. */
	for (unsigned round = 0; round < 1000; round++) {
		void *at[500];
		for (unsigned i = 0; i < 500; i++)
			cr_assert(at[i] = nu_heap_alloc(h, 128, 0));
		for (unsigned i = 0; i < 500; i++)
			nu_heap_free(h, at[i], 1);
	}
	cr_assert_leq(nu_heap_used_end(h), 256 * NU_KIB);
	cr_assert_eq(nu_heap_check(h), 0);
}

/* ---- moving ---- */

Test(heap, goes_on_after_its_bytes_were_copied)
{
	static struct slot slots[2000];
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 512 * NU_MIB);
	uint64_t r = 99;

	for (unsigned move = 0; move < 6; move++) {
		for (unsigned op = 0; op < 20000; op++) {
			struct slot *slot = &slots[rnd(&r) % 2000];
			if (slot->p)
				cr_assert(slot_empty(h, slot, op % nu_node.cores));
			else
				slot_fill(h, slot, &r, op % nu_node.cores);
		}
		if (move % 2)
			nu_heap_settle(h);
		/* Only what the heap says it uses travels; the rest of the destination is full of junk. */
		size_t end = nu_heap_used_end(h), live = nu_heap_live_bytes(h);
		void *wire = malloc(end);
		memcpy(wire, BASE, end);
		cr_assert_eq(munmap(BASE, s.capacity), 0);
		cr_assert_eq(mmap(BASE, s.capacity, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0),
			     BASE);
		s.mapped = NU_ALIGN_UP(end, 64 * NU_KIB);
		cr_assert_eq(mprotect(BASE, s.mapped, PROT_READ | PROT_WRITE), 0);
		memset(BASE, 0xa5, s.mapped);
		memcpy(BASE, wire, end);
		free(wire);
		nu_node.cores = move % 3 + 1; /* another node has other cores */
		nu_heap_arrived(h, s.mapped);
		nu_heap_set_grow(h, seg_grow_dirty, &s);
		cr_assert_eq(nu_heap_check(h), 0);
		cr_assert_eq(nu_heap_live_bytes(h), live);
		cr_assert_eq(nu_heap_mapped_bytes(h), s.mapped);
	}
	for (unsigned i = 0; i < 2000; i++)
		if (slots[i].p)
			cr_assert(slot_empty(h, &slots[i], 0));
	cr_assert_eq(nu_heap_live_bytes(h), 0);
	nu_heap_settle(h);
	cr_assert_eq(nu_heap_check(h), 0);
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
}

Test(heap, caches_of_cores_that_the_new_node_lacks_are_given_back)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, NU_MIB);

	nu_heap_free(h, nu_heap_alloc(h, 100, 3), 3);
	cr_assert_gt(nu_heap_used_end(h), 8 * NU_KIB);
	nu_node.cores = 3;
	nu_heap_arrived(h, s.mapped);
	cr_assert_leq(nu_heap_used_end(h), 8 * NU_KIB);
	cr_assert_eq(nu_heap_check(h), 0);
}

Test(heap, goes_on_in_another_process)
{
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 64 * NU_MIB);
	int fds[2], status;
	void **list = NULL;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork(); /* before there is anything in the heap */
	cr_assert_geq(pid, 0);
	if (!pid) {
		struct {
			size_t end;
			void **list;
		} msg;
		size_t got = 0, n = 0;

		if (read(fds[0], &msg, sizeof(msg)) != sizeof(msg) ||
		    mprotect(BASE, 16 * NU_MIB, PROT_READ | PROT_WRITE))
			_exit(10);
		while (got < msg.end) {
			ssize_t k = read(fds[0], BASE + got, msg.end - got);
			if (k <= 0)
				_exit(11);
			got += (size_t)k;
		}
		nu_heap_arrived(h, 16 * NU_MIB);
		nu_heap_set_grow(h, seg_grow, &s);
		s.mapped = 16 * NU_MIB;
		if (nu_heap_check(h))
			_exit(12);
		for (void **p = msg.list; p; p = *p)
			n++;
		spill(h, msg.list);
		if (n != 5000 || nu_heap_live_bytes(h) || nu_heap_check(h) ||
		    !nu_heap_alloc(h, 30 * NU_MIB, 0))
			_exit(13);
		_exit(0);
	}
	for (unsigned i = 0; i < 5000; i++) {
		void **p = nu_heap_alloc(h, 8 + i % 1000, i % CORES);
		cr_assert(p);
		*p = list;
		list = p;
	}
	struct {
		size_t end;
		void **list;
	} msg = {nu_heap_used_end(h), list};
	cr_assert_eq(write(fds[1], &msg, sizeof(msg)), sizeof(msg));
	for (size_t put = 0; put < msg.end;) {
		ssize_t k = write(fds[1], BASE + put, msg.end - put);
		cr_assert_gt(k, 0);
		put += (size_t)k;
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 0);
}

/* ---- misuse ---- */

static struct nu_heap *misused(void)
{
	static struct seg s;

	return seg_heap(&s, 64 * NU_KIB, 64 * NU_MIB);
}

Test(heap, double_free_of_a_cached_block, .signal = SIGABRT)
{
	struct nu_heap *h = misused();
	void *p = nu_heap_alloc(h, 100, 0), *q = nu_heap_alloc(h, 100, 0);

	nu_heap_free(h, p, 0);
	nu_heap_free(h, q, 0);
	nu_heap_free(h, p, 0);
}

Test(heap, double_free_of_a_block_in_its_slab, .signal = SIGABRT)
{
	struct nu_heap *h = misused();
	void *keep = nu_heap_alloc(h, 100, NU_MAX_CORES), *p = nu_heap_alloc(h, 100, NU_MAX_CORES);

	(void)keep;
	nu_heap_free(h, p, NU_MAX_CORES);
	nu_heap_free(h, p, 0);
}

Test(heap, double_free_of_a_large_block, .signal = SIGABRT)
{
	struct nu_heap *h = misused();
	void *p = nu_heap_alloc(h, 100000, 0), *q = nu_heap_alloc(h, 100000, 0);

	(void)q;
	nu_heap_free(h, p, 0);
	nu_heap_free(h, p, 0);
}

Test(heap, free_inside_a_block, .signal = SIGABRT)
{
	struct nu_heap *h = misused();

	nu_heap_free(h, (char *)nu_heap_alloc(h, 100, 0) + 16, 0);
}

Test(heap, free_of_a_foreign_block, .signal = SIGABRT)
{
	int local;

	nu_heap_free(misused(), &local, 0);
}

Test(heap, a_copied_mark_is_no_double_free)
{
	struct nu_heap *h = misused();
	char *p = nu_heap_alloc(h, 64, 0), *q = nu_heap_alloc(h, 64, 0);
	char mark[64];

	nu_heap_free(h, p, 0);
	memcpy(mark, p, sizeof(mark)); /* what a program might copy along with bytes that it never set */
	memcpy(q, mark, sizeof(mark));
	nu_heap_free(h, q, 0);
	cr_assert_eq(nu_heap_check(h), 0);
}

Test(heap, the_check_sees_damage)
{
	struct nu_heap *h = misused();
	char *p = nu_heap_alloc(h, 64, 0), *q = nu_heap_alloc(h, 64, 0);
	uint64_t saved;

	nu_heap_free(h, p, 0);
	cr_assert_eq(nu_heap_check(h), 0);
	nu_log_level = NU_LOG_ERROR;
	memcpy(&saved, p, 8);
	memcpy(p, &q, 8); /* a live block in a free list */
	cr_assert_eq(nu_heap_check(h), -EIO);
	memcpy(p, &saved, 8);
	cr_assert_eq(nu_heap_check(h), 0);
	p = nu_heap_alloc(h, 100000, 0);
	q = nu_heap_alloc(h, 100000, 0);
	cr_assert_eq(nu_heap_check(h), 0);
	*(size_t *)(void *)((char *)h + 8) += 32; /* first map's place */
	cr_assert_eq(nu_heap_check(h), -EIO);
}

/* ---- time: reported, not judged ---- */

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double time_batches(struct nu_heap *h, size_t len, unsigned batch, bool libc)
{
	static void *at[1000];
	double best = 1e18;

	for (unsigned rep = 0; rep < 7; rep++) {
		double t = now_ns();
		for (unsigned i = 0; i < 200000 / batch; i++) {
			for (unsigned k = 0; k < batch; k++) {
				at[k] = libc ? malloc(len) : nu_heap_alloc(h, len, 0);
				__asm__ volatile("" : : "r"(at[k]) : "memory");
			}
			for (unsigned k = 0; k < batch; k++) {
				if (libc)
					free(at[k]);
				else
					nu_heap_free(h, at[k], 0);
			}
		}
		t = (now_ns() - t) / 200000;
		best = t < best ? t : best;
	}
	return best;
}

Test(heap, timing)
{
#ifdef __SANITIZE_THREAD__
	cr_skip("its times are the sanitizer's");
#endif
	struct seg s;
	struct nu_heap *h = seg_heap(&s, 64 * NU_KIB, 64 * NU_MIB);
	static const size_t lens[] = {16, 32, 64, 100, 256, 1024, 4096, 20000};

	SKIP_UNDER_EMULATOR(); /* the time is the translator's */
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		fprintf(stderr, "%5zu B: pair %5.1f ns, in batches of 1000 %5.1f ns (libc %5.1f, %5.1f)\n",
			lens[i], time_batches(h, lens[i], 1, false), time_batches(h, lens[i], 1000, false),
			time_batches(h, lens[i], 1, true), time_batches(h, lens[i], 1000, true));
	cr_assert_eq(nu_heap_check(h), 0);
}
