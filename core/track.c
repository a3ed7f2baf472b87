/* SPDX-License-Identifier: MIT */
/*
 * What libnu's own code has allocated from the C library and not freed yet, with the place that did: for tests that look
 * for leaks. Counted from the first time that a fault was armed; until then it costs a look at a word.
 */
#include "core/fault.h"

#include <link.h>

#define SLOT_BITS 15
#define SLOTS	  (1u << SLOT_BITS)
#define SITES_MAX 64

struct slot {
	const void *ptr; /* NULL: free */
	const void *pc;
};

static struct nu_lock lock;
static struct slot slots[SLOTS];
static unsigned live;

bool nu_track_on;

/* libnu's functions, where they are linked into the program itself; and where they are. */
extern const char __start_nu_text[] __attribute__((weak, visibility("hidden")));
extern const char __stop_nu_text[] __attribute__((weak, visibility("hidden")));
static uintptr_t code_start, code_end;

static int find_own(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + ph->p_vaddr;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) ||
		    (uintptr_t)find_own - start >= ph->p_memsz)
			continue;
		code_start = start;
		code_end = start + ph->p_memsz;
		return 1;
	}
	return 0;
}

/* Before the rules of NU_FAULT are read. */
static void __attribute__((constructor(101))) find_code(void)
{
	code_start = (uintptr_t)__start_nu_text;
	code_end = (uintptr_t)__stop_nu_text;
	if (code_start == code_end)
		dl_iterate_phdr(find_own, NULL);
}

bool nu_track_is_own(const void *pc)
{
	return (uintptr_t)pc - code_start < code_end - code_start;
}

static unsigned home_of(const void *ptr)
{
	return (unsigned)(((uintptr_t)ptr >> 4) * 0x9e3779b97f4a7c15u >> (64 - SLOT_BITS));
}

void nu_track_add(const void *ptr, const void *pc)
{
	unsigned i = home_of(ptr);

	if (!ptr)
		return;
	nu_lock_acquire(&lock);
	if (live < SLOTS / 4 * 3) {
		while (slots[i].ptr)
			i = (i + 1) % SLOTS;
		slots[i] = (struct slot){ptr, pc};
		live++;
	}
	nu_lock_release(&lock);
}

/* Closes the gap at @hole, so that every slot can still be reached from its home. */
static void close_gap(unsigned hole)
{
	for (unsigned i = (hole + 1) % SLOTS; slots[i].ptr; i = (i + 1) % SLOTS) {
		if ((i - home_of(slots[i].ptr)) % SLOTS < (i - hole) % SLOTS)
			continue;
		slots[hole] = slots[i];
		hole = i;
	}
	slots[hole].ptr = NULL;
}

bool nu_track_del(const void *ptr)
{
	unsigned i = home_of(ptr);
	bool found;

	if (!ptr)
		return false;
	nu_lock_acquire(&lock);
	while (slots[i].ptr && slots[i].ptr != ptr)
		i = (i + 1) % SLOTS;
	found = slots[i].ptr;
	if (found) {
		close_gap(i);
		live--;
	}
	nu_lock_release(&lock);
	return found;
}

unsigned nu_track_live(void)
{
	return live;
}

void nu_track_log(void)
{
	static struct {
		const void *pc;
		unsigned n;
	} sites[SITES_MAX];
	static struct nu_symbol sym;
	unsigned n = 0;

	nu_lock_acquire(&lock);
	for (unsigned i = 0, s; i < SLOTS; i++) {
		for (s = 0; slots[i].ptr && s < n && sites[s].pc != slots[i].pc; s++)
			;
		if (!slots[i].ptr || s == SITES_MAX)
			continue;
		sites[s].n = s == n ? 1 : sites[s].n + 1;
		sites[s].pc = slots[i].pc;
		n += s == n;
	}
	nu_lock_release(&lock);
	for (unsigned s = 0; s < n; s++) {
		(void)!nu_symbol_find(sites[s].pc, &sym);
		nu_warn("%u blocks of libnu from %s+%#lx", sites[s].n, sym.name, (unsigned long)sym.into);
	}
}
