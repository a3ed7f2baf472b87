/* SPDX-License-Identifier: MIT */
/* ThreadSanitizer's fibers, one for each user-level thread that has run on this node. Only in such builds. */
#include "sched/sanitize.h"
#include "sched/sched_int.h"

#include <sys/mman.h>

static void **fibers; /* by stack slot; a slot's is touched by who runs or frees its thread */
static size_t nfibers;

static size_t slot_of(const struct nu_thread *t)
{
	return (nu_stack_slot(t) - nu_layout.stack_base) / nu_layout.stack_slot_bytes;
}

int nu_san_fibers_init(void)
{
	nfibers = nu_layout.stack_region_bytes / nu_layout.stack_slot_bytes;
	fibers = mmap(NULL, nfibers * sizeof(*fibers), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fibers != MAP_FAILED)
		return 0;
	fibers = NULL;
	return -ENOMEM;
}

/* No core runs any more. */
void nu_san_fibers_fini(uintptr_t part_low, uintptr_t part_next)
{
	if (!fibers)
		return;
	for (uintptr_t low = part_low; low < part_next; low += nu_layout.stack_slot_bytes)
		nu_san_thread_gone(nu_stack_thread(low));
	munmap(fibers, nfibers * sizeof(*fibers));
	fibers = NULL;
}

void **nu_san_fiber_slot(struct nu_thread *t)
{
	return &fibers[slot_of(t)];
}

void nu_san_thread_gone(struct nu_thread *t)
{
	void **slot = nu_san_fiber_slot(t);

	if (*slot)
		__tsan_destroy_fiber(*slot);
	*slot = NULL;
}
