/* SPDX-License-Identifier: MIT */
/* Tables of the controller's state: a map from numbers to slots, and slots of one size. Memory is proportional to use. */
#include "core/fault.h"
#include "ctrl/state.h"

#include <stdlib.h>
#include <string.h>

#define MIN_BITS 6

/* ---- memory ---- */

/*
 * In a proclet it is the proclet's own: this code is the library's, for which malloc() means the C library. Elsewhere, in
 * tests and simulators, it is the C library's. Zeroed; NULL if there is none.
 */
static void *mem_get(size_t len)
{
	struct nu_proclet *p = nu_current_proclet_fn ? nu_current_proclet_fn() : NULL;
	void *ptr;

	if (!p || !p->heap)
		return calloc(1, len);
	if (unlikely(nu_fault_armed) && nu_fault_reached_from(NU_FAULT_ALLOC, __builtin_return_address(0)))
		return NULL;
	ptr = nu_heap_alloc(p->heap, len, nu_current_core_fn());
	return ptr ? memset(ptr, 0, len) : NULL;
}

static void mem_put(void *ptr)
{
	if (!ptr)
		return;
	if (nu_addr_in_segments(ptr))
		nu_heap_free(nu_current_proclet_fn()->heap, ptr, nu_current_core_fn());
	else
		free(ptr);
}

/* ---- map ---- */

static size_t cell_of(const struct nu_ctrl_map *m, uint64_t key)
{
	return (key * 0x9e3779b97f4a7c15) >> (64 - m->bits);
}

static size_t cells_max(unsigned bits)
{
	return ((size_t)1 << bits) / 3 * 2;
}

static void place_key(struct nu_ctrl_map *m, uint64_t key, uint32_t value)
{
	size_t mask = ((size_t)1 << m->bits) - 1, i = cell_of(m, key);

	while (m->cells[i].key)
		i = (i + 1) & mask;
	m->cells[i].key = key;
	m->cells[i].value = value;
}

static int rehash(struct nu_ctrl_map *m, unsigned bits)
{
	struct nu_ctrl_map to = {.count = m->count, .bits = bits};

	to.cells = mem_get(sizeof(*to.cells) << bits);
	if (!to.cells)
		return -ENOMEM;
	for (size_t i = 0; m->cells && i < (size_t)1 << m->bits; i++)
		if (m->cells[i].key)
			place_key(&to, m->cells[i].key, m->cells[i].value);
	mem_put(m->cells);
	*m = to;
	return 0;
}

int nu_ctrl_map_reserve(struct nu_ctrl_map *m, size_t more)
{
	unsigned bits = m->cells ? m->bits : MIN_BITS;

	while (m->count + more > cells_max(bits))
		bits++;
	return m->cells && bits == m->bits ? 0 : rehash(m, bits);
}

void nu_ctrl_map_insert(struct nu_ctrl_map *m, uint64_t key, uint32_t value)
{
	NU_DEBUG_ASSERT(key && m->cells && m->count < cells_max(m->bits));
	place_key(m, key, value);
	m->count++;
}

void nu_ctrl_map_remove(struct nu_ctrl_map *m, uint64_t key)
{
	size_t mask = ((size_t)1 << m->bits) - 1, hole = cell_of(m, key);

	while (m->cells[hole].key != key) {
		NU_ASSERT(m->cells[hole].key);
		hole = (hole + 1) & mask;
	}
	/* Close the gap: a later cell of the run may move back unless that would put it before where it belongs. */
	for (size_t i = (hole + 1) & mask; m->cells[i].key; i = (i + 1) & mask) {
		size_t wants = cell_of(m, m->cells[i].key);

		if (((i - wants) & mask) < ((i - hole) & mask))
			continue;
		m->cells[hole] = m->cells[i];
		hole = i;
	}
	m->cells[hole].key = 0;
	m->count--;
	/* Far below what made it grow, so that it does not swing; without memory it just stays large. */
	if (m->bits > MIN_BITS && m->count < cells_max(m->bits) / 8)
		(void)!rehash(m, m->bits - 2 > MIN_BITS ? m->bits - 2 : MIN_BITS);
}

void nu_ctrl_map_fini(struct nu_ctrl_map *m)
{
	mem_put(m->cells);
	*m = (struct nu_ctrl_map){0};
}

/* ---- slots ---- */

void nu_ctrl_slab_init(struct nu_ctrl_slab *s, size_t slot_bytes)
{
	*s = (struct nu_ctrl_slab){.slot_bytes = (uint32_t)slot_bytes, .free_head = NU_CTRL_NONE};
}

void nu_ctrl_slab_fini(struct nu_ctrl_slab *s)
{
	for (uint32_t i = 0; i < s->nchunks; i++)
		mem_put(s->chunks[i]);
	mem_put(s->chunks);
	nu_ctrl_slab_init(s, s->slot_bytes);
}

static int add_chunk(struct nu_ctrl_slab *s)
{
	if (s->nchunks == s->max_chunks) {
		uint32_t max = s->max_chunks ? s->max_chunks * 2 : 8;
		char **chunks = mem_get(max * sizeof(*chunks));

		if (!chunks)
			return -ENOMEM;
		if (s->nchunks)
			memcpy(chunks, s->chunks, s->nchunks * sizeof(*chunks));
		mem_put(s->chunks);
		s->chunks = chunks;
		s->max_chunks = max;
	}
	s->chunks[s->nchunks] = mem_get((size_t)s->slot_bytes << NU_CTRL_SLAB_SHIFT);
	if (!s->chunks[s->nchunks])
		return -ENOMEM;
	s->nchunks++;
	return 0;
}

int nu_ctrl_slab_reserve(struct nu_ctrl_slab *s, uint32_t more)
{
	while (s->nfree + (s->nchunks << NU_CTRL_SLAB_SHIFT) - s->fresh < more) {
		int ret = add_chunk(s);

		if (ret)
			return ret;
	}
	return 0;
}

uint32_t nu_ctrl_slab_get(struct nu_ctrl_slab *s)
{
	uint32_t slot = s->free_head;

	if (slot != NU_CTRL_NONE) {
		s->free_head = *(uint32_t *)nu_ctrl_slab_at(s, slot);
		s->nfree--;
	} else {
		NU_ASSERT(s->fresh < s->nchunks << NU_CTRL_SLAB_SHIFT);
		slot = s->fresh++;
	}
	memset(nu_ctrl_slab_at(s, slot), 0, s->slot_bytes);
	return slot;
}

void nu_ctrl_slab_put(struct nu_ctrl_slab *s, uint32_t slot)
{
	void *at = nu_ctrl_slab_at(s, slot);

	memset(at, 0, s->slot_bytes);
	*(uint32_t *)at = s->free_head;
	s->free_head = slot;
	s->nfree++;
}
