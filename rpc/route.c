/* SPDX-License-Identifier: MIT */
/* The location cache: where this node last heard that proclets are. Entries are hints: a wrong one costs a redirect. */
#include "rpc/rpc_int.h"

#define ROUTES 16384u

/*
 * Direct-mapped and lock-free. The two words of an entry may be read torn (id of one write, place of another); the
 * node that is then asked does not have the proclet and says so.
 */
struct route {
	_Atomic(uint64_t) id;
	_Atomic(uint64_t) place; /* node << 48 | location number */
};
static struct route routes[ROUTES];

static struct route *slot(uint64_t id)
{
	return &routes[nu_mix(id, 0) % ROUTES];
}

bool nu_route_lookup(uint64_t id, unsigned *node_p, uint64_t *location_p)
{
	struct route *r = slot(id);
	uint64_t place;

	if (nu_id_is_node(id, node_p)) {
		*location_p = 0;
		return *node_p < nu_node.count;
	}
	if (id == NU_ID_CTRL) {
		*node_p = 0;
		*location_p = 0;
		return true;
	}
	if (atomic_load_explicit(&r->id, memory_order_acquire) != id)
		return false;
	place = atomic_load_explicit(&r->place, memory_order_relaxed);
	*node_p = (unsigned)(place >> 48);
	*location_p = place & (((uint64_t)1 << 48) - 1);
	return *node_p < nu_node.count;
}

void nu_route_learn(uint64_t id, unsigned node, uint64_t location)
{
	struct route *r = slot(id);
	uint64_t place = (uint64_t)node << 48 | (location & (((uint64_t)1 << 48) - 1));

	if (atomic_load_explicit(&r->id, memory_order_relaxed) == id &&
	    (atomic_load_explicit(&r->place, memory_order_relaxed) & (((uint64_t)1 << 48) - 1)) > location)
		return; /* older news */
	atomic_store_explicit(&r->id, 0, memory_order_relaxed);
	atomic_store_explicit(&r->place, place, memory_order_release);
	atomic_store_explicit(&r->id, id, memory_order_release);
}

void nu_route_forget(uint64_t id)
{
	struct route *r = slot(id);

	if (atomic_load_explicit(&r->id, memory_order_relaxed) == id)
		atomic_store_explicit(&r->id, 0, memory_order_release);
}
