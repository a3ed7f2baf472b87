/* SPDX-License-Identifier: MIT */
/*
 * The address-space layout: where segments and stacks lie. The same numbers on every node, or nothing can move.
 */
#include "core/core.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer leaves the program the lowest 512 GiB and little else. */
#define SEG_BASE     ((uintptr_t)0x2000000000)
#define SEG_BYTES    ((size_t)256 << 30)
#define STACKS_BASE  ((uintptr_t)0x800000000)
#define STACKS_BYTES ((size_t)96 << 30)
#define STACK_GAP    ((size_t)64 << 10)
#else
#define SEG_BASE     ((uintptr_t)0x300000000000)
#define SEG_BYTES    ((size_t)32 << 40)
#define STACKS_BASE  ((uintptr_t)0x200000000000)
#define STACKS_BYTES ((size_t)16 << 40)
#define STACK_GAP    ((size_t)960 << 10)
#endif

/* A frame that is larger than the gap below its stack steps over it, unless the compiler probes large frames page by page
 * (-fstack-clash-protection, which is up to the program). */
#define STACK_KIB_DEFAULT 64
#define STACK_KIB_MIN	  16
#define STACK_KIB_MAX	  8192

struct nu_layout nu_layout = {
	.seg_base = SEG_BASE,
	.seg_region_bytes = SEG_BYTES,
	.stack_base = STACKS_BASE,
	.stack_region_bytes = STACKS_BYTES,
	.stack_bytes = (size_t)STACK_KIB_DEFAULT << 10,
	.stack_slot_bytes = ((size_t)STACK_KIB_DEFAULT << 10) + STACK_GAP,
	.stack_node_bytes = STACKS_BYTES / NU_MAX_NODES,
};

static int read_stack_kib(size_t *bytes_p)
{
	const char *s = getenv("NU_STACK_KIB");
	char *end;
	unsigned long kib = STACK_KIB_DEFAULT;

	if (s && *s) {
		/* strtoul() takes a sign and blanks; we do not. */
		kib = *s >= '0' && *s <= '9' ? strtoul(s, &end, 10) : 0;
		if (!kib || *end || (kib & (kib - 1)) || kib < STACK_KIB_MIN || kib > STACK_KIB_MAX) {
			nu_err("NU_STACK_KIB is \"%s\", want a power of two from %d to %d", s, STACK_KIB_MIN,
			       STACK_KIB_MAX);
			return -EINVAL;
		}
	}
	*bytes_p = (size_t)kib << 10;
	return 0;
}

static bool overlaps(uintptr_t start, uintptr_t end, uintptr_t base, size_t len)
{
	return start < base + len && end > base;
}

/* The regions are left unmapped rather than reserved, so somebody else may have been put there: look. */
static int check_regions_empty(const struct nu_layout *l)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char *line = NULL;
	size_t size = 0;
	uintptr_t start, end;
	int err = 0;

	if (!f) {
		err = -nu_sys_errno;
		nu_err("cannot read /proc/self/maps to check the layout: %s", strerror(-err));
		return err;
	}
	while (getline(&line, &size, f) > 0) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) != 2)
			continue;
		if (!overlaps(start, end, l->seg_base, l->seg_region_bytes) &&
		    !overlaps(start, end, l->stack_base, l->stack_region_bytes))
			continue;
		line[strcspn(line, "\n")] = '\0';
		nu_err("the region for %s is taken: %s",
		       overlaps(start, end, l->seg_base, l->seg_region_bytes) ? "segments" : "stacks", line);
		err = -EEXIST;
		break;
	}
	free(line);
	fclose(f);
	return err;
}

static size_t power_of_two_from(size_t n)
{
	size_t up = 1;

	while (up < n)
		up <<= 1;
	return up;
}

/* Processors and kernels differ in how much they give a process: 47 bits on x86-64, 39 on some AArch64 boards. */
static int check_reach(const char *what, uintptr_t base, size_t bytes)
{
	void *last = (void *)(base + bytes - NU_PAGE_BYTES), *got;
	int err;

	got = mmap(last, NU_PAGE_BYTES, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (got == last) {
		munmap(got, NU_PAGE_BYTES);
		return 0;
	}
	err = got == MAP_FAILED ? -nu_sys_errno : -ENOMEM;
	if (got != MAP_FAILED) /* a kernel that does not know NOREPLACE */
		munmap(got, NU_PAGE_BYTES);
	nu_err("the region for %s ends at %#zx, where nothing can be mapped (%s): %u bits of address space "
	       "are needed",
	       what, base + bytes, strerror(-err), 64 - (unsigned)__builtin_clzll(base + bytes - 1));
	return err;
}

/* Guard pages, the pool's granules and the heap's pages are laid out for one size of page. */
static int check_page_size(void)
{
	long bytes = sysconf(_SC_PAGESIZE);

	if (bytes == NU_PAGE_BYTES)
		return 0;
	nu_err("this kernel has pages of %ld KiB, stacks and heaps are laid out for %d KiB: another kernel "
	       "is needed",
	       bytes >> 10, NU_PAGE_BYTES >> 10);
	return -EOPNOTSUPP;
}

int nu_layout_init(void)
{
	size_t stack_bytes;
	int err;

	err = check_page_size();
	if (err)
		return err;
	err = read_stack_kib(&stack_bytes);
	if (err)
		return err;
	err = check_regions_empty(&nu_layout);
	if (!err)
		err = check_reach("segments", nu_layout.seg_base, nu_layout.seg_region_bytes);
	if (!err)
		err = check_reach("stacks", nu_layout.stack_base, nu_layout.stack_region_bytes);
	if (err)
		return err;
	nu_layout.stack_bytes = stack_bytes;
	nu_layout.stack_slot_bytes = power_of_two_from(stack_bytes + STACK_GAP);
	nu_layout.stack_node_bytes = nu_layout.stack_region_bytes / power_of_two_from(nu_node.count) &
				     ~(nu_layout.stack_slot_bytes - 1);
	return 0;
}
