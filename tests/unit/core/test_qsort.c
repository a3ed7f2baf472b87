/* SPDX-License-Identifier: MIT */
/* qsort: nothing outside of the array whatever the comparison says; stable; with and without memory for a second array. */
#include "core/core.h"

#include <criterion/criterion.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BASE	  ((char *)0x300000000000)
#define PAGE	  4096u
#define MAX_BYTES ((size_t)1 << 20)
#define NFORMS	  3

/* An element begins with its key and its first place, where it is wide enough. */
struct element {
	uint16_t key, place;
};

static struct nu_proclet proclet;
static struct nu_proclet *current;
static char *room, *room_end; /* between two pages that nobody may touch */
static uint64_t state;
static uint64_t asked;

static struct nu_proclet *get_current(void)
{
	return current;
}

static uint32_t any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

static void setup(void)
{
	size_t capacity = 4 * NU_MIB;
	struct nu_proclet_head *head =
		mmap(BASE, capacity, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	nu_layout.seg_base = (uintptr_t)BASE;
	nu_layout.seg_region_bytes = (size_t)1 << 45;
	nu_node.cores = 1;
	cr_assert_eq((char *)head, BASE);
	proclet.heap = nu_heap_init(BASE, capacity, capacity);
	proclet.head = head;
	proclet.id = nu_id_make(0, 7);
	*head = (struct nu_proclet_head){.id = proclet.id, .heap = proclet.heap, .capacity_bytes = capacity};
	cr_assert_eq(nu_image_init(NULL), 0);
	nu_current_proclet_fn = get_current;
	room = mmap(NULL, MAX_BYTES + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(room, MAP_FAILED);
	room += PAGE;
	room_end = room + MAX_BYTES;
	cr_assert_eq(mprotect(room, MAX_BYTES, PROT_READ | PROT_WRITE), 0);
	state = 20240607;
}

/* 0: the C library's memory; 1: a proclet's; 2: a proclet's that is full. */
static void enter(unsigned form)
{
	current = form ? &proclet : NULL;
	if (form == 2) {
		for (size_t len = NU_MIB; len >= 1024; len /= 2) {
			while (nu_heap_alloc(proclet.heap, len, 0))
				;
		}
		cr_assert_null(nu_scratch_alloc(1025));
	}
	__asm__ volatile("" : : : "memory");
}

/* ---- comparisons ---- */

static uint16_t key_of(const void *p)
{
	uint16_t key;

	memcpy(&key, p, sizeof(key));
	return key;
}

static int honest(const void *a, const void *b)
{
	asked++;
	return key_of(a) - key_of(b);
}

static int never_equal(const void *a, const void *b)
{
	asked++;
	return key_of(a) > key_of(b) ? 1 : -1;
}

static int never_equal_greater(const void *a, const void *b)
{
	asked++;
	return key_of(a) < key_of(b) ? -1 : 1;
}

static int only_greater(const void *a, const void *b)
{
	asked++;
	return key_of(a) > key_of(b);
}

static int only_less(const void *a, const void *b)
{
	asked++;
	return -(key_of(a) < key_of(b));
}

static int wraps(const void *a, const void *b)
{
	asked++;
	return (int)((unsigned)key_of(a) * 2654435761u - (unsigned)key_of(b) * 2654435761u);
}

static int hash(const void *a, const void *b)
{
	asked++;
	return (int)(key_of(a) * 2654435761u + key_of(b) * 40503u);
}

static int dice(const void *a, const void *b)
{
	asked++;
	return (int)(any() % 3) - 1;
}

static int always_less(const void *a, const void *b)
{
	asked++;
	return -1;
}

static int always_greater(const void *a, const void *b)
{
	asked++;
	return 1;
}

typedef int (*compare_fn)(const void *, const void *);
static const compare_fn comparisons[] = {honest,	never_equal, never_equal_greater,
					 only_greater,	only_less,   wraps,
					 hash,		dice,	     always_less,
					 always_greater};
#define NCOMPARISONS (sizeof(comparisons) / sizeof(comparisons[0]))

/* ---- arrays ---- */

static const size_t widths[] = {4, 6, 8, 12, 16, 24, 32, 40, 100, 1000};
#define NWIDTHS (sizeof(widths) / sizeof(widths[0]))
static const size_t lengths[] = {2, 3, 5, 16, 17, 33, 100, 1000};
#define NLENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static __attribute__((noinline)) void fill(char *base, size_t n, size_t width, unsigned modulus)
{
	for (size_t i = 0; i < n; i++) {
		struct element e = {(uint16_t)(any() % modulus), (uint16_t)i};

		memset(base + i * width, (int)(i * 31 + 7) & 0xff, width);
		memcpy(base + i * width, &e, sizeof(e));
	}
}

/* Each element is there once, with all of its bytes. */
static __attribute__((noinline)) bool is_whole(const char *base, size_t n, size_t width)
{
	static bool seen[2048];
	bool whole = true;

	memset(seen, 0, sizeof(seen));
	for (size_t i = 0; i < n && whole; i++) {
		const char *p = base + i * width;
		struct element e;

		memcpy(&e, p, sizeof(e));
		whole = e.place < n && !seen[e.place];
		for (size_t k = sizeof(e); k < width && whole; k++)
			whole = (unsigned char)p[k] == ((e.place * 31u + 7) & 0xff);
		if (whole)
			seen[e.place] = true;
	}
	return whole;
}

static __attribute__((noinline)) bool is_stable(const char *base, size_t n, size_t width)
{
	for (size_t i = 1; i < n; i++) {
		struct element a, b;

		memcpy(&a, base + (i - 1) * width, sizeof(a));
		memcpy(&b, base + i * width, sizeof(b));
		if (a.key > b.key || (a.key == b.key && a.place > b.place))
			return false;
	}
	return true;
}

static void try_all_at(unsigned form, size_t n, size_t width)
{
	size_t most = n * (size_t)(64 - __builtin_clzll(n)) + 2 * n;

	for (size_t c = 0; c < NCOMPARISONS; c++) {
		for (unsigned at_end = 0; at_end < 2; at_end++) {
			char *base = at_end ? room_end - n * width : room;

			fill(base, n, width, at_end ? 5 : 60000);
			asked = 0;
			qsort(base, n, width, comparisons[c]);
			cr_assert(is_whole(base, n, width), "form %u, %zu of %zu, comparison %zu", form, n,
				  width, c);
			if (form < 2)
				cr_assert_leq(asked, most, "%lu questions for %zu", asked, n);
			if (comparisons[c] == honest)
				cr_assert(is_stable(base, n, width), "form %u, %zu of %zu", form, n, width);
		}
	}
}

static void try_all(unsigned form)
{
	enter(form);
	for (size_t w = 0; w < NWIDTHS; w++) {
		for (size_t l = 0; l < NLENGTHS; l++) {
			if (lengths[l] * widths[w] <= MAX_BYTES)
				try_all_at(form, lengths[l], widths[w]);
		}
	}
	current = NULL;
}

Test(qsort, stays_in_the_array_with_the_c_librarys_memory, .init = setup, .timeout = 60)
{
	try_all(0);
}

Test(qsort, stays_in_the_array_with_a_proclets_memory, .init = setup, .timeout = 60)
{
	try_all(1);
	cr_assert_eq(nu_heap_live_bytes(proclet.heap), 0, "the second array is given back");
}

Test(qsort, stays_in_the_array_without_memory, .init = setup, .timeout = 60)
{
	try_all(2);
}

/* ---- bytes ---- */

static int compare_bytes(const void *a, const void *b)
{
	return *(const unsigned char *)a - *(const unsigned char *)b;
}

Test(qsort, elements_of_one_byte, .init = setup)
{
	unsigned counts[256] = {0};

	for (unsigned form = 0; form < NFORMS; form++) {
		memset(counts, 0, sizeof(counts));
		enter(form);
		for (size_t i = 0; i < 5000; i++)
			counts[(unsigned char)(room[i] = (char)any())]++;
		qsort(room, 5000, 1, compare_bytes);
		for (size_t i = 0; i < 5000; i++) {
			cr_assert(!i || (unsigned char)room[i - 1] <= (unsigned char)room[i]);
			counts[(unsigned char)room[i]]--;
		}
		for (unsigned i = 0; i < 256; i++)
			cr_assert_eq(counts[i], 0);
	}
	qsort(room_end, 0, 4, compare_bytes);
	qsort(room, 5, 0, compare_bytes);
	qsort(room, 1, 1, compare_bytes);
}

/* ---- the array while the comparison runs ---- */

struct watch {
	const char *base;
	size_t n, width;
	uint64_t asked, leave_at;
	jmp_buf out;
};

static int watching(const void *a, const void *b, void *arg)
{
	struct watch *w = arg;

	cr_assert(is_whole(w->base, w->n, w->width));
	if (++w->asked == w->leave_at)
		longjmp(w->out, 1);
	return key_of(a) - key_of(b);
}

Test(qsort, the_array_is_whole_whenever_the_comparison_runs, .init = setup)
{
	static struct watch w;

	for (unsigned form = 0; form < NFORMS; form++) {
		enter(form);
		for (size_t i = 0; i < NWIDTHS; i++) {
			w = (struct watch){.base = room, .n = 300, .width = widths[i]};
			fill(room, w.n, w.width, 40);
			qsort_r(room, w.n, w.width, watching, &w);
			cr_assert(is_stable(room, w.n, w.width));
		}
	}
}

Test(qsort, a_comparison_may_leave_by_longjmp, .init = setup)
{
	static struct watch w;

	enter(1);
	for (volatile unsigned k = 1; k < 100; k += 7) {
		w = (struct watch){.base = room, .n = 60, .width = 8, .leave_at = k};
		fill(room, w.n, w.width, 40);
		if (!setjmp(w.out))
			qsort_r(room, w.n, w.width, watching, &w);
		cr_assert(is_whole(room, w.n, w.width));
	}
}

/* ---- whose memory it is ---- */

static bool second_array_in_heap;

static int looks_at_heap(const void *a, const void *b)
{
	second_array_in_heap = nu_heap_live_bytes(proclet.heap) >= 4000;
	return key_of(a) - key_of(b);
}

Test(qsort, the_second_array_lies_in_the_proclets_heap, .init = setup)
{
	enter(1);
	fill(room, 1000, 4, 60000);
	qsort(room, 1000, 4, looks_at_heap);
	cr_assert(second_array_in_heap);
	cr_assert(is_stable(room, 1000, 4));
	cr_assert_eq(nu_heap_live_bytes(proclet.heap), 0);
}
