/* SPDX-License-Identifier: MIT */
/* The pool: extents move to segments and home, memory is counted, kept warm and given back. */
#include <criterion/criterion.h>

#include "core/core.h"
#include "tests/unit/emulator.h"
#include "tests/unit/make_room.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE 4096

static long minor_faults(void)
{
	struct rusage u;

	cr_assert_eq(getrusage(RUSAGE_THREAD, &u), 0);
	return u.ru_minflt;
}

/* Page faults that writing each page of [p, p + len) takes; not those of a sanitizer's shadow. */
static NU_NO_ASAN NU_NO_TSAN long faults_of_touching(char *p, size_t len)
{
	long before = minor_faults();

	for (size_t i = 0; i < len; i += PAGE)
		*(volatile char *)(p + i) = 1;
	return minor_faults() - before;
}

static size_t pages_present(void *p, size_t len)
{
	static unsigned char there[1 << 16];
	size_t n = 0;

	cr_assert_eq(mincore(p, len, there), 0);
	for (size_t i = 0; i < len / PAGE; i++)
		n += there[i] & 1;
	return n;
}

/* Mappings that touch [p, p + len). */
static unsigned mappings_in(void *p, size_t len)
{
	FILE *f = fopen("/proc/self/maps", "r");
	uintptr_t start, end;
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) == 2 && start < (uintptr_t)p + len &&
		    end > (uintptr_t)p)
			n++;
	}
	fclose(f);
	return n;
}

static size_t resident_bytes(void)
{
	char buf[128] = "";
	unsigned long size, resident = 0;
	int fd = open("/proc/self/statm", O_RDONLY);

	cr_assert_gt(read(fd, buf, sizeof(buf) - 1), 0);
	close(fd);
	cr_assert_eq(sscanf(buf, "%lu %lu", &size, &resident), 2);
	return resident * PAGE;
}

static bool all_bytes(const char *p, size_t len, char c)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != c)
			return false;
	}
	return true;
}

static struct nu_pool_stats stats(void)
{
	struct nu_pool_stats s;

	nu_pool_stats(&s);
	return s;
}

static void start(size_t budget, size_t chunk, size_t reserve)
{
	make_room();
	cr_assert_eq(nu_layout_init(), 0);
	cr_assert_eq(nu_pool_init(budget, chunk, reserve, NULL), 0);
}

static struct nu_extent get(size_t len, bool zero, bool prefault)
{
	struct nu_extent e;

	cr_assert_eq(nu_extent_get(len, zero, prefault, &e), 0);
	return e;
}

Test(pool, rejects_bad_options)
{
	cr_expect_eq(nu_pool_init(NU_GIB, 3 * NU_MIB, 0, NULL), -EINVAL);
	cr_expect_eq(nu_pool_init(NU_GIB, NU_MIB, 0, NULL), -EINVAL);
	cr_expect_eq(nu_pool_init(NU_GIB, 0, 0, NULL), 0);
	cr_expect_eq(nu_pool_init(NU_GIB, 0, 0, NULL), -EINVAL, "twice");
}

Test(pool, rounds_up_to_powers_of_two)
{
	struct nu_extent e, bad;

	start(NU_GIB, 0, 0);
	e = get(1, false, false);
	cr_expect_eq(e.len_bytes, 64 * NU_KIB);
	cr_expect_eq(e.home, e.at);
	nu_extent_put(&e);
	e = get(64 * NU_KIB + 1, false, false);
	cr_expect_eq(e.len_bytes, 128 * NU_KIB);
	cr_expect_eq((uintptr_t)e.home % e.len_bytes, 0);
	nu_extent_put(&e);
	cr_expect_eq(nu_extent_get(0, false, false, &bad), -EINVAL);
	cr_expect_eq(nu_extent_get(2 * NU_SEG_MAX_BYTES, false, false, &bad), -EINVAL);
	cr_expect_eq(stats().used_bytes, 0);
}

/* What is behind the skipped part of a block is an extent like any other; what was skipped is there for others. */
Test(pool, tails)
{
	struct nu_extent tail, e[3], whole;
	char *block;

	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	cr_assert_eq(nu_extent_get_tail(2 * NU_MIB, 192 * NU_KIB, true, &tail), 0);
	cr_expect_eq(tail.len_bytes, 2 * NU_MIB - 192 * NU_KIB);
	cr_expect_eq(stats().used_bytes, tail.len_bytes);
	cr_expect_eq((uintptr_t)tail.home % (2 * NU_MIB), 192 * NU_KIB);
	cr_expect(all_bytes(tail.home, tail.len_bytes, 0));
	memset(tail.home, 7, tail.len_bytes);
	block = (char *)tail.home - 192 * NU_KIB;
	for (int i = 0; i < 3; i++) {
		e[i] = get(64 * NU_KIB, false, false);
		memset(e[i].home, i, e[i].len_bytes);
		cr_expect((char *)e[i].home >= block && (char *)e[i].home < (char *)tail.home,
			  "what was skipped has gone");
	}
	cr_expect_eq(stats().chunks, 1);
	cr_expect(all_bytes(tail.home, tail.len_bytes, 7), "an extent lies over it");
	for (int i = 0; i < 3; i += 2)
		nu_extent_put(&e[i]);
	nu_extent_put(&tail);
	nu_extent_put(&e[1]);
	cr_expect_eq(stats().used_bytes, 0);
	whole = get(2 * NU_MIB, false, true);
	cr_expect_eq(whole.home, block, "the block is not whole again");
	cr_expect_eq(stats().chunks, 1);
	nu_extent_put(&whole);
}

Test(pool, tails_have_bounds)
{
	struct nu_extent e;

	start(4 * NU_MIB, 2 * NU_MIB, 0);
	cr_expect_eq(nu_extent_get_tail(4 * NU_MIB, 0, true, &e), -EINVAL, "more than a chunk");
	cr_expect_eq(nu_extent_get_tail(NU_MIB, NU_MIB, true, &e), -EINVAL);
	cr_expect_eq(nu_extent_get_tail(NU_MIB, 4096, true, &e), -EINVAL);
	cr_expect_eq(nu_extent_get_tail(NU_MIB + 64 * NU_KIB, 0, true, &e), -EINVAL);
	cr_assert_eq(nu_extent_get_tail(2 * NU_MIB, NU_MIB, true, &e), 0);
	nu_extent_put(&e);
	cr_expect_eq(stats().used_bytes, 0);
}

/* A chunk fills up with the smallest extents; when all are back it holds one as large as itself again. */
Test(pool, splits_and_merges)
{
	enum { N = 32 };
	struct nu_extent e[N], whole, more;
	char *lowest = NULL;

	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	for (int i = 0; i < N; i++) {
		e[i] = get(64 * NU_KIB, false, false);
		memset(e[i].home, i, e[i].len_bytes);
		if (!lowest || (char *)e[i].home < lowest)
			lowest = e[i].home;
	}
	cr_expect_eq(stats().chunks, 1);
	cr_expect_eq(stats().used_bytes, 2 * NU_MIB);
	for (int i = 0; i < N; i++)
		cr_expect(all_bytes(e[i].home, e[i].len_bytes, (char)i), "extent %d overlaps another", i);
	more = get(64 * NU_KIB, false, false);
	cr_expect_eq(stats().chunks, 2, "the first was full");
	nu_extent_put(&more);
	/* Odd ones first: nothing can merge until the even ones follow. */
	for (int i = 1; i < N; i += 2)
		nu_extent_put(&e[i]);
	for (int i = 0; i < N; i += 2)
		nu_extent_put(&e[i]);
	cr_expect_eq(stats().chunks, 1);
	whole = get(2 * NU_MIB, false, true); /* what arrives has the reserve, what grows does not */
	cr_expect_eq(stats().chunks, 1);
	more = get(64 * NU_KIB, false, false);
	cr_expect_eq(stats().chunks, 2);
	nu_extent_put(&more);
	nu_extent_put(&whole);
}

Test(pool, budget_is_a_limit)
{
	struct nu_extent e[16], more;

	start(NU_MIB, 0, 0);
	for (int i = 0; i < 16; i++)
		e[i] = get(64 * NU_KIB, false, false);
	cr_expect_eq(nu_extent_get(1, true, true, &more), -ENOMEM);
	cr_expect_eq(nu_extent_get(NU_GIB, true, true, &more), -ENOMEM);
	cr_expect_eq(stats().used_bytes, NU_MIB);
	nu_extent_put(&e[3]);
	cr_expect_eq(nu_extent_get(128 * NU_KIB, true, true, &more), -ENOMEM);
	cr_expect_eq(nu_extent_get(64 * NU_KIB, true, true, &e[3]), 0);
	for (int i = 0; i < 16; i++)
		nu_extent_put(&e[i]);
	cr_expect_eq(stats().used_bytes, 0);
	cr_expect_eq(nu_extent_get(NU_MIB, true, true, &more), 0);
}

Test(pool, install_and_put_keep_pages)
{
	char *at = nu_seg_addr(2048);
	struct nu_extent e, again;
	unsigned maps, max, maps_after, heaps;
	void *home;

	SKIP_UNDER_EMULATOR();
	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	nu_maps_stats(&maps, &max, &heaps);
	cr_expect_gt(max, 1000);
	e = get(512 * NU_KIB, true, true);
	home = e.home;
	memset(home, 0x5a, e.len_bytes);
	cr_assert_eq(nu_extent_install(&e, at), 0);
	cr_expect_eq(e.at, at);
	cr_expect_eq(e.home, home);
	cr_expect_eq(faults_of_touching(at, e.len_bytes), 0, "the pages came along");
	cr_expect(all_bytes(at + 1, PAGE - 1, 0x5a));
	cr_expect_eq(pages_present(home, e.len_bytes), 0);
	cr_expect_eq(mappings_in(home, 1), 1, "the pool's range stays whole");
	memset(at, 0x77, e.len_bytes);
	nu_extent_put(&e);
	cr_expect_null(e.home);
	cr_expect_eq(mappings_in(at, 512 * NU_KIB), 0);
	cr_expect_eq(pages_present(home, 512 * NU_KIB), 128);
	/* The very same pages serve the next arrival, with what they hold. */
	again = get(512 * NU_KIB, false, true);
	cr_assert_eq(again.home, home);
	cr_expect(all_bytes(again.home, again.len_bytes, 0x77));
	nu_extent_put(&again);
	nu_maps_stats(&maps_after, &max, &heaps);
	cr_expect_eq(maps_after, maps + 1, "one for the chunk that is kept");
}

/* What comes home partly used keeps its full units for the next arrival, until it is trimmed, and nothing else. */
Test(pool, full_units_of_a_partly_used_extent_stay)
{
	struct nu_extent e, other;
	char *home, *at = nu_seg_addr(2048);

	SKIP_UNDER_EMULATOR();
	start(NU_GIB, 2 * NU_MIB, 0);
	nu_pool_set_slack(NU_MIB);
	other = get(NU_EXTENT_MIN_BYTES, false, false); /* its chunk is in use */
	e = get(512 * NU_KIB, false, false);
	home = e.home;
	cr_assert_eq(nu_extent_install(&e, at), 0);
	memset(at, 0x11, 3 * NU_EXTENT_MIN_BYTES);
	at[5 * NU_EXTENT_MIN_BYTES] = 0x22;
	nu_extent_put(&e);
	cr_expect_eq(pages_present(home, 3 * NU_EXTENT_MIN_BYTES), 3 * NU_EXTENT_MIN_BYTES / PAGE);
	cr_expect_eq(pages_present(home + 3 * NU_EXTENT_MIN_BYTES, 5 * NU_EXTENT_MIN_BYTES), 0);
	e = get(512 * NU_KIB, true, false);
	cr_assert_eq(e.home, home);
	cr_expect(all_bytes(e.home, e.len_bytes, 0));
	nu_extent_put(&e);
	while (nu_pool_trim())
		;
	cr_expect_eq(pages_present(home, 512 * NU_KIB), 0);
	nu_extent_put(&other);
}

/* Parts of a chunk leave and come home in turns, and it is one mapping in the end. */
Test(pool, home_is_one_mapping_again)
{
	enum { N = 16 };
	struct nu_extent e[N];
	char *base;

	SKIP_UNDER_EMULATOR();
	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	for (int i = 0; i < N; i++) {
		e[i] = get(128 * NU_KIB, true, i & 1);
		cr_assert_eq(nu_extent_install(&e[i], nu_seg_addr(2048 + i)), 0);
		*(char *)e[i].at = (char)i;
	}
	base = (char *)((uintptr_t)e[0].home & ~(2 * NU_MIB - 1));
	cr_expect_eq(mappings_in(base, 2 * NU_MIB), 1);
	for (int i = 0; i < N; i++)
		nu_extent_put(&e[i * 5 % N]);
	cr_expect_eq(stats().chunks, 1);
	cr_expect_eq(mappings_in(base, 2 * NU_MIB), 1);
}

Test(pool, install_refuses_what_is_taken)
{
	struct nu_extent a, b;

	start(NU_GIB, 0, 0);
	a = get(64 * NU_KIB, true, true);
	b = get(64 * NU_KIB, true, true);
	cr_assert_eq(nu_extent_install(&a, nu_seg_addr(2048)), 0);
	strcpy(a.at, "here");
#ifndef NDEBUG
	nu_log_level = NU_LOG_DEBUG; /* only then it looks */
	cr_expect_eq(nu_extent_install(&b, nu_seg_addr(2048)), -EEXIST);
	nu_log_level = NU_LOG_WARN;
	cr_expect_str_eq(a.at, "here");
#endif
	cr_expect_eq(nu_extent_install(&b, (void *)123), -EINVAL, "not a page's address");
	cr_expect_eq(b.at, b.home);
	nu_extent_put(&a);
	nu_extent_put(&b);
}

Test(pool, prefault_backs_every_page)
{
	struct nu_extent e, large;

	SKIP_UNDER_EMULATOR();
	start(NU_GIB, 0, 0);
	e = get(4 * NU_MIB, true, true);
	cr_expect_eq(pages_present(e.home, e.len_bytes), e.len_bytes / PAGE);
	cr_assert_eq(nu_extent_install(&e, nu_seg_addr(2048)), 0);
	cr_expect_eq(faults_of_touching(e.at, e.len_bytes), 0);
	large = get(64 * NU_MIB, false, true);
	cr_expect_eq(faults_of_touching(large.home, large.len_bytes), 0);
	nu_extent_put(&large);
	nu_extent_put(&e);
}

Test(pool, not_prefaulted_is_not_backed)
{
	struct nu_extent e;

	start(NU_GIB, 0, 0);
	e = get(4 * NU_MIB, true, false);
	cr_expect_lt(pages_present(e.home, e.len_bytes), 2);
	nu_extent_put(&e);
}

/* Zero means zero whatever the former tenant wrote, and where; with pages all, some or none there. */
Test(pool, zero_is_zero)
{
	struct nu_extent e;

	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	for (int round = 0; round < 12; round++) {
		bool prefault = round & 1;
		size_t len = (size_t)(256 << round % 4) * NU_KIB;
		e = get(len, true, prefault);
		cr_assert_eq(nu_extent_install(&e, nu_seg_addr(2048)), 0);
		cr_assert(all_bytes(e.at, e.len_bytes, 0), "round %d", round);
		if (round % 3) {
			memset(e.at, 0xff, e.len_bytes);
		} else {
			for (size_t i = 0; i < len; i += 20 * PAGE)
				((char *)e.at)[i] = 1;
		}
		nu_extent_put(&e);
		cr_assert_eq(stats().chunks, 1);
	}
}

/* Sparse use and zero again must not back what was never used. */
Test(pool, zeroing_drops_sparse_pages)
{
	struct nu_extent e;

	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	for (int i = 0; i < 3; i++) {
		e = get(2 * NU_MIB, true, false);
		cr_expect_lt(pages_present(e.home, e.len_bytes), 3);
		((char *)e.home)[NU_MIB] = 1;
		nu_extent_put(&e);
	}
}

Test(pool, reserve_is_refilled_and_used_by_arrivals)
{
	struct nu_extent e, fresh;
	ssize_t n;

	SKIP_UNDER_EMULATOR();
	start(NU_GIB, 0, 8 * NU_MIB);
	cr_expect_eq(stats().reserve_bytes, 0);
	n = nu_pool_refill(NU_MIB);
	cr_expect_eq(n, NU_MIB);
	cr_expect_eq(stats().reserve_bytes, NU_MIB);
	cr_expect_eq(nu_pool_refill(0), 7 * NU_MIB);
	cr_expect_eq(nu_pool_refill(0), 0);
	cr_expect_eq(stats().reserve_bytes, 8 * NU_MIB);
	cr_expect_eq(stats().used_bytes, 0);
	/* Growth leaves the reserve alone. */
	fresh = get(4 * NU_MIB, true, false);
	cr_expect_eq(stats().reserve_bytes, 8 * NU_MIB);
	cr_expect_lt(pages_present(fresh.home, fresh.len_bytes), 2);
	/* It lies together: one arrival can have all of it, and takes no fault, not even inside the pool. */
	long before = minor_faults();
	e = get(8 * NU_MIB, false, true);
	cr_expect_lt(minor_faults() - before, 16);
	cr_expect_eq(stats().reserve_bytes, 0);
	cr_expect_eq(faults_of_touching(e.home, e.len_bytes), 0);
	cr_expect_eq(nu_pool_refill(0), 8 * NU_MIB);
	nu_extent_put(&e);
	nu_extent_put(&fresh);
}

/* Pages that a heap has touched itself are as good for the next arrival as those backed in advance. */
Test(pool, used_pages_join_the_reserve)
{
	struct nu_extent e;

	start(NU_GIB, 2 * NU_MIB, 2 * NU_MIB);
	e = get(NU_MIB, true, false);
	cr_assert_eq(nu_extent_install(&e, nu_seg_addr(2048)), 0);
	memset(e.at, 1, NU_MIB / 2);
	nu_extent_put(&e);
	cr_expect_eq(stats().reserve_bytes, NU_MIB / 2);
}

Test(pool, reserve_stays_within_the_budget)
{
	struct nu_extent e;

	start(4 * NU_MIB, 2 * NU_MIB, 4 * NU_MIB);
	e = get(2 * NU_MIB, true, true);
	cr_expect_eq(nu_pool_refill(0), 2 * NU_MIB);
	cr_expect_eq(nu_pool_refill(0), 0);
	nu_extent_put(&e);
}

Test(pool, idle_chunks_go_back)
{
	enum { N = 8 };
	struct nu_extent e[N];
	size_t before = resident_bytes(), full;

	SKIP_UNDER_EMULATOR();
	start(NU_GIB, 8 * NU_MIB, 8 * NU_MIB);
	for (int i = 0; i < N; i++) {
		e[i] = get(8 * NU_MIB, false, true);
		cr_assert_eq(nu_extent_install(&e[i], nu_seg_addr(2048 + 8 * i)), 0);
	}
	full = resident_bytes();
	cr_expect_eq(stats().mapped_bytes, 64 * NU_MIB);
	cr_expect_gt(full, before + 60 * NU_MIB);
	for (int i = 0; i < N; i++)
		nu_extent_put(&e[i]);
	cr_expect_eq(stats().mapped_bytes, 8 * NU_MIB, "the reserve's chunk stays");
	cr_expect_eq(stats().chunks, 1);
	cr_expect_lt(resident_bytes(), before + 12 * NU_MIB);
	nu_pool_fini();
	cr_expect_lt(resident_bytes(), before + 4 * NU_MIB);
}

/* An idle chunk that was kept goes when another one's extents come back and make it superfluous. */
Test(pool, kept_chunk_goes_later)
{
	struct nu_extent a, b[4];

	start(NU_GIB, 2 * NU_MIB, NU_MIB);
	for (int i = 0; i < 4; i++)
		b[i] = get(512 * NU_KIB, false, false);
	a = get(512 * NU_KIB, false, false);
	cr_assert_eq(stats().chunks, 2);
	nu_extent_put(&a);
	cr_expect_eq(stats().chunks, 2);
	nu_extent_put(&b[0]);
	cr_expect_eq(stats().chunks, 2, "half a MiB free besides");
	nu_extent_put(&b[1]);
	cr_expect_eq(stats().chunks, 1);
	nu_extent_put(&b[2]);
	nu_extent_put(&b[3]);
}

Test(pool, large_extents_have_their_own_chunk)
{
	struct nu_extent e;

	start(NU_GIB, 2 * NU_MIB, 0);
	e = get(16 * NU_MIB, true, false);
	cr_expect_eq(stats().mapped_bytes, 16 * NU_MIB);
	cr_assert_eq(nu_extent_install(&e, nu_seg_addr(2048)), 0);
	memset(e.at, 1, e.len_bytes);
	nu_extent_put(&e);
	cr_expect_eq(mappings_in(nu_seg_addr(2048), 16 * NU_MIB), 0);
	cr_expect_eq(stats().mapped_bytes, 0);
	cr_expect_eq(stats().used_bytes, 0);
}

/* ---- a device ---- */

static struct {
	int added, removed;
	size_t bytes;
	bool fail, was_mapped;
} device;

static int chunk_added(void *addr, size_t len, void **priv_p)
{
	if (device.fail)
		return -EIO;
	cr_expect_eq(pages_present(addr, len), len / PAGE);
	device.added++;
	device.bytes += len;
	*priv_p = addr;
	return 0;
}

static void chunk_removed(void *addr, size_t len, void *priv)
{
	cr_expect_eq(addr, priv);
	device.was_mapped = mappings_in(addr, len) > 0;
	device.removed++;
	device.bytes -= len;
}

static const struct nu_pool_ops device_ops = {chunk_added, chunk_removed};

Test(pool, chunks_are_registered_before_use_and_until_unmapped)
{
	struct nu_extent e, large;

	SKIP_UNDER_EMULATOR();
	cr_assert_eq(nu_pool_init(NU_GIB, 2 * NU_MIB, 0, &device_ops), 0);
	e = get(64 * NU_KIB, true, false);
	cr_expect_eq(device.added, 1);
	cr_expect_eq(faults_of_touching(e.home, e.len_bytes), 0, "pinned is backed");
	cr_assert_eq(nu_extent_install(&e, nu_seg_addr(2048)), 0);
	cr_expect_eq(device.removed, 0);
	nu_extent_put(&e);
	cr_expect_eq(device.removed, 1);
	cr_expect(device.was_mapped, "deregistered first, then unmapped");
	large = get(4 * NU_MIB, true, true);
	cr_expect_eq(device.added, 2);
	cr_assert_eq(nu_extent_install(&large, nu_seg_addr(2048)), 0);
	device.was_mapped = false;
	nu_extent_put(&large);
	cr_expect_eq(device.removed, 2);
	cr_expect(device.was_mapped);
	cr_expect_eq(device.bytes, 0);
}

Test(pool, registered_pages_are_never_dropped)
{
	struct nu_extent e;

	SKIP_UNDER_EMULATOR();
	cr_assert_eq(nu_pool_init(NU_GIB, 2 * NU_MIB, 2 * NU_MIB, &device_ops), 0);
	for (int i = 0; i < 3; i++) {
		e = get(NU_MIB, true, false);
		cr_expect_eq(pages_present(e.home, e.len_bytes), e.len_bytes / PAGE);
		cr_expect(all_bytes(e.home, e.len_bytes, 0));
		((char *)e.home)[12345] = 1;
		nu_extent_put(&e);
	}
	cr_expect_eq(device.added, 1);
	nu_pool_fini();
	cr_expect_eq(device.removed, 1);
}

Test(pool, failed_registration_leaves_nothing)
{
	unsigned before, after, max, heaps;
	struct nu_extent e;

	SKIP_UNDER_EMULATOR();
	cr_assert_eq(nu_pool_init(NU_GIB, 2 * NU_MIB, 0, &device_ops), 0);
	nu_maps_stats(&before, &max, &heaps);
	device.fail = true;
	cr_expect_eq(nu_extent_get(64 * NU_KIB, true, true, &e), -EIO);
	cr_expect_eq(nu_extent_get(8 * NU_MIB, true, true, &e), -EIO);
	nu_maps_stats(&after, &max, &heaps);
	cr_expect_eq(after, before);
	cr_expect_eq(stats().mapped_bytes, 0);
	cr_expect_eq(stats().used_bytes, 0);
	device.fail = false;
	cr_expect_eq(nu_extent_get(64 * NU_KIB, true, true, &e), 0);
}

/* ---- limits and threads ---- */

Test(pool, mappings_are_budgeted)
{
	unsigned used, max, heaps;
	struct nu_extent e;

	start(NU_GIB, 0, 0);
	e = get(64 * NU_KIB, true, true);
	nu_maps_stats(&used, &max, &heaps);
	cr_expect_lt(heaps, max);
	cr_expect_eq(nu_maps_reserve(max, NU_MAPS_CALLS), -ENOMEM);
	cr_expect_eq(nu_maps_reserve(heaps - used + 1, NU_MAPS_HEAPS), -ENOMEM);
	cr_assert_eq(nu_maps_reserve(heaps - used, NU_MAPS_HEAPS), 0);
	cr_expect_eq(nu_extent_install(&e, nu_seg_addr(2048)), -ENOMEM);
	cr_expect_eq(e.at, e.home);
	/* Each leaves something to the next. */
	cr_expect_not(nu_maps_have_room(NU_MAPS_HEAPS));
	for (enum nu_maps_use use = NU_MAPS_THREADS; use < NU_MAPS_USES; use++) {
		unsigned n = 0;

		while (!nu_maps_reserve(1, use))
			n++;
		cr_expect_gt(n, 100, "use %d", (int)use);
		heaps += n;
	}
	nu_maps_release(heaps - used);
	cr_expect_eq(nu_extent_install(&e, nu_seg_addr(2048)), 0);
	nu_extent_put(&e);
}

#define WORKERS 4

static void *worker(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg, seed = self + 1;
	struct nu_extent e[8] = {0};
	char *at[8];

	for (int k = 0; k < 8; k++)
		at[k] = nu_seg_addr(2048 + (self * 8 + (unsigned)k) * 4);
	for (int i = 0; i < 600; i++) {
		unsigned k = (unsigned)rand_r(&seed) % 8;
		if (e[k].home) {
			char mark = (char)(self * 8 + k + 1);
			cr_assert(all_bytes(e[k].at, PAGE, mark) &&
				  all_bytes((char *)e[k].at + e[k].len_bytes - PAGE, PAGE, mark));
			nu_extent_put(&e[k]);
			continue;
		}
		size_t len = (size_t)64 * NU_KIB << (unsigned)rand_r(&seed) % 7;
		bool zero = rand_r(&seed) & 1;
		if (len <= 2 * NU_MIB && !(rand_r(&seed) & 3)) {
			size_t skip =
				(unsigned)rand_r(&seed) % (len / NU_EXTENT_MIN_BYTES) * NU_EXTENT_MIN_BYTES;

			cr_assert_eq(nu_extent_get_tail(len, skip, zero, &e[k]), 0);
		} else {
			cr_assert_eq(nu_extent_get(len, zero, rand_r(&seed) & 1, &e[k]), 0);
		}
		if (rand_r(&seed) & 1)
			cr_assert_eq(nu_extent_install(&e[k], at[k]), 0);
		if (zero)
			cr_assert(all_bytes(e[k].at, PAGE, 0) &&
				  all_bytes((char *)e[k].at + e[k].len_bytes - PAGE, PAGE, 0));
		memset(e[k].at, (int)(self * 8 + k + 1), PAGE);
		memset((char *)e[k].at + e[k].len_bytes - PAGE, (int)(self * 8 + k + 1), PAGE);
		if (self == 0 && i % 16 == 0)
			cr_assert_geq(nu_pool_refill(512 * NU_KIB), 0);
	}
	for (int k = 0; k < 8; k++) {
		if (e[k].home)
			nu_extent_put(&e[k]);
	}
	return NULL;
}

Test(pool, concurrent_use)
{
	pthread_t t[WORKERS];

	start(NU_GIB, 2 * NU_MIB, NU_MIB);
	for (uintptr_t i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, worker, (void *)i), 0);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(t[i], NULL);
	cr_expect_eq(stats().used_bytes, 0);
	cr_expect_eq(stats().chunks, 1);
	cr_expect_eq(mappings_in((void *)nu_layout.seg_base, nu_layout.seg_region_bytes), 0);
}
