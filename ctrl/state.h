/* SPDX-License-Identifier: MIT */
/*
 * The controller's state: nodes, segments, proclets and where they are.
 *
 * A pure state machine: every operation takes what it needs (node numbers, reports) as arguments and reads no clock,
 * random number, network or global variable, so that it can be replicated and simulated: the same operations in the
 * same order give the same answers everywhere. Nothing here locks: the caller admits one operation at a time.
 *
 * Operations return 0 or a negative errno; outputs come last, are named *_p and stay untouched on failure.
 */
#pragma once

#include "core/core.h"

#define NU_CTRL_NO_NODE (~0u)
#define NU_CTRL_NONE	(~0u) /* no slot */

/* ---- tables that grow with use: idmap.c ---- */

struct nu_ctrl_map_cell {
	uint64_t key; /* 0: empty */
	uint32_t value;
	uint32_t spare;
};
/* Key to slot; open addressing, at most two thirds full. All zero bytes are an empty one. */
struct nu_ctrl_map {
	struct nu_ctrl_map_cell *cells;
	size_t count;
	unsigned bits; /* 2^bits cells */
};
/* Makes room so that the next @more inserts cannot fail. -ENOMEM. */
int __must_check nu_ctrl_map_reserve(struct nu_ctrl_map *m, size_t more);
void nu_ctrl_map_insert(struct nu_ctrl_map *m, uint64_t key, uint32_t value);
void nu_ctrl_map_remove(struct nu_ctrl_map *m, uint64_t key);
void nu_ctrl_map_fini(struct nu_ctrl_map *m);
/* NU_CTRL_NONE: not there. */
static inline uint32_t nu_ctrl_map_find(const struct nu_ctrl_map *m, uint64_t key)
{
	size_t mask = ((size_t)1 << m->bits) - 1;

	if (!m->cells)
		return NU_CTRL_NONE;
	for (size_t i = (key * 0x9e3779b97f4a7c15) >> (64 - m->bits);; i = (i + 1) & mask) {
		if (m->cells[i].key == key)
			return m->cells[i].value;
		if (!m->cells[i].key)
			return NU_CTRL_NONE;
	}
}

/* Slots of one size that never move, named by number. A slot begins with its uint32_t link while it is free. */
#define NU_CTRL_SLAB_SHIFT 9
struct nu_ctrl_slab {
	char **chunks;
	uint32_t nchunks, max_chunks;
	uint32_t slot_bytes;
	uint32_t fresh; /* slots from here on were never used */
	uint32_t free_head, nfree;
};
void nu_ctrl_slab_init(struct nu_ctrl_slab *s, size_t slot_bytes);
void nu_ctrl_slab_fini(struct nu_ctrl_slab *s);
/* Makes room so that the next @more gets cannot fail. -ENOMEM. */
int __must_check nu_ctrl_slab_reserve(struct nu_ctrl_slab *s, uint32_t more);
/* A slot of zero bytes. */
uint32_t nu_ctrl_slab_get(struct nu_ctrl_slab *s);
void nu_ctrl_slab_put(struct nu_ctrl_slab *s, uint32_t slot);
static inline void *nu_ctrl_slab_at(const struct nu_ctrl_slab *s, uint32_t slot)
{
	return s->chunks[slot >> NU_CTRL_SLAB_SHIFT] +
	       (size_t)(slot & ((1u << NU_CTRL_SLAB_SHIFT) - 1)) * s->slot_bytes;
}

/* ---- segments: a buddy allocator of units of 1 MiB. segments.c ---- */

#define NU_SEG_MAX_ORDER 20 /* 1 TiB */

struct nu_segments {
	struct nu_ctrl_slab blocks; /* struct nu_seg_block, free and used ones */
	struct nu_ctrl_map by_start;
	uint32_t free_heads[NU_SEG_MAX_ORDER + 1];
	uint32_t orders_free;	    /* bit k: a free block of order k exists */
	uint64_t units, free_units; /* all, and of these free */
	uint32_t nblocks;
};
/* All of the region but the controller's segment, the main proclet's and the nodes' own. -ENOMEM. */
int __must_check nu_segments_init(struct nu_segments *s);
void nu_segments_fini(struct nu_segments *s);
/* The order of the smallest segment that holds @capacity_bytes (0: the default size). -EINVAL above 1 TiB. */
int __must_check nu_segments_order(uint64_t capacity_bytes, unsigned *order_p);
/* A segment of 2^order units. -ENOMEM: no free run of that size, or no memory for the books. */
int __must_check nu_segments_get(struct nu_segments *s, unsigned order, uint32_t *index_p);
/* How many are in use. Walks what is free. */
unsigned nu_segments_used(const struct nu_segments *s);
/* Cannot fail; merges it with its free buddies. */
void nu_segments_put(struct nu_segments *s, uint32_t index, unsigned order);
/* Checks every structure: 0, or -EIO with the fault logged. */
int __must_check nu_segments_check(const struct nu_segments *s);

/* ---- the state ---- */

enum nu_ctrl_life {
	NU_CTRL_FREE, /* the slot is empty */
	NU_CTRL_NEW,  /* has its segment and node; being constructed there */
	NU_CTRL_LIVE,
	NU_CTRL_DOUBT, /* a move was in flight when one of its two nodes died */
	NU_CTRL_LOST,  /* died with its node: kept so that its references get -EHOSTDOWN and not -ESTALE */
	NU_CTRL_GONE,  /* freed; its segment waits until every holder has confirmed */
};

/* The lists that a proclet can be on. */
enum nu_ctrl_list {
	NU_CTRL_AT,    /* those at a node */
	NU_CTRL_IN,    /* those on their way to it */
	NU_CTRL_AWAY,  /* those that a drain took away from it */
	NU_CTRL_LIMBO, /* of the whole state: in doubt, or waiting for confirmations */
	NU_CTRL_LISTS,
};

struct nu_ctrl_link {
	uint32_t next, prev;
};

#define NU_CTRL_NODE_WORDS (NU_MAX_NODES / 64)

struct nu_ctrl_proclet {
	uint32_t slot_link; /* of the slab */
	uint8_t life;	    /* enum nu_ctrl_life */
	uint8_t order;
	bool pinned;
	bool has_segment; /* false: LOST, and given back */
	uint64_t id;
	uint64_t location;
	uint64_t bytes;		 /* of its heap, as last reported */
	uint64_t reserved_bytes; /* booked at `moving_to`, or at `node` while NEW */
	uint64_t asker;		 /* NEW: the proclet that creates it */
	uint32_t slot;
	uint16_t node;
	uint16_t moving_to; /* NU_CTRL_NO_NODE16: it stays */
	uint16_t home;	    /* the draining node that it left, until it is back there */
	bool dest_held;	    /* `moving_to` was a holder before the move began */
	bool booked;	    /* reserved_bytes and a place in `pending` */
	uint8_t on_lists;   /* bit k: on list k */
	/* Nodes that have, or may have, something of it: pages, or a forwarding note. */
	uint64_t holders[NU_CTRL_NODE_WORDS];
	struct nu_ctrl_link links[NU_CTRL_LISTS];
};
#define NU_CTRL_NO_NODE16 ((uint16_t)0xffff)

struct nu_ctrl_node {
	uint32_t state; /* enum nu_node_state; 0: never joined */
	uint32_t cores;
	uint64_t mem_total, mem_used;
	uint64_t reserved_bytes; /* arrivals and creations under way */
	uint64_t recent_bytes;	 /* came since the node's last report and may not be in it */
	uint64_t live;		 /* proclets there, without NEW ones */
	uint64_t pending;	 /* NEW ones, and arrivals under way */
	uint32_t heads[NU_CTRL_LIMBO];
};

struct nu_ctrl_totals {
	uint64_t fresh, live, doubt, lost; /* proclets by state */
	uint64_t waiting;    /* freed or lost, and their segments not confirmed by every holder */
	uint64_t created;    /* by this incarnation */
	uint64_t free_units; /* of segment space, MiB */
};

struct nu_ctrl {
	struct nu_segments segments;
	struct nu_ctrl_slab proclets;
	struct nu_ctrl_map by_id;
	struct nu_ctrl_node nodes[NU_MAX_NODES];
	uint64_t alive[NU_CTRL_NODE_WORDS];
	unsigned nnodes; /* highest number that joined, and one */
	unsigned last_placed;
	uint32_t doubt_head, wait_head;
	uint64_t waiting; /* on wait_head */
	uint64_t next_generation, first_generation;
	bool main_taken; /* there is a main proclet ... */
	uint32_t
		main_seg; /* ... in NU_SEG_MAIN, which is not the buddy allocator's, or, above 1 GiB, in one of his */
	uint64_t counts[NU_CTRL_GONE + 1];
};

/*
 * @incarnation: 0..127, of the job's controller. Generations are incarnation << 32 plus a count of creations; the count
 * may run over into the next incarnations' range, so a successor takes one above nu_ctrl_incarnation().
 * Errors: -EINVAL incarnation too large; -ENOMEM.
 */
int __must_check nu_ctrl_init(struct nu_ctrl *c, unsigned incarnation);
void nu_ctrl_fini(struct nu_ctrl *c);
unsigned nu_ctrl_incarnation(const struct nu_ctrl *c);
/* Checks every structure: 0, or -EIO with the fault logged. For tests and simulators; takes time for all proclets. */
int __must_check nu_ctrl_check(const struct nu_ctrl *c);

/* ---- nodes ---- */

/* Errors: -EINVAL number too large; -EEXIST it has joined; -EHOSTDOWN it has died: its number is not used again. */
int __must_check nu_ctrl_node_join(struct nu_ctrl *c, unsigned node, unsigned cores, uint64_t mem_total);
/* Errors (of all that name a node): -EINVAL it never joined; -EHOSTDOWN it has died. */
int __must_check nu_ctrl_node_report(struct nu_ctrl *c, unsigned node, uint64_t mem_used);
/*
 * Its proclets are lost, those that were on the move from or to it are in doubt (see nu_ctrl_doubts()), and it counts as
 * having confirmed all that it held. A second time: 0.
 */
int __must_check nu_ctrl_node_dead(struct nu_ctrl *c, unsigned node);
/* @state: UP or DRAINING. Errors: also -EINVAL another state, or no other node is UP to drain to. */
int __must_check nu_ctrl_set_state(struct nu_ctrl *c, unsigned node, enum nu_node_state state);
/* Fills in up to @max; returns how many nodes have ever joined. */
unsigned nu_ctrl_nodes(const struct nu_ctrl *c, struct nu_node_info *infos, unsigned max);

/* ---- the life of a proclet ---- */

/*
 * Gives a segment and a node: @wanted, or with NU_CTRL_NO_NODE the UP one with the most free memory. It is NEW until
 * nu_ctrl_proclet_ready(), or undone by nu_ctrl_proclet_free(). @bytes: what its heap takes at first; 0: the least.
 * Errors: -EINVAL capacity above 1 TiB, no such node; -EHOSTDOWN @wanted died, or no node is up; -EBUSY @wanted (or
 * every node) is draining; -ENOMEM no segment of that size is free, or no memory for the books; -EOVERFLOW generations
 * are used up. What ran out is logged.
 */
int __must_check nu_ctrl_proclet_new(struct nu_ctrl *c, uint64_t capacity_bytes, bool pinned, unsigned wanted,
				     uint64_t bytes, uint64_t *id_p, unsigned *node_p);
/* Enters the main proclet, ready at once. Errors: -EEXIST; as above. */
int __must_check nu_ctrl_proclet_main(struct nu_ctrl *c, unsigned node, uint64_t capacity_bytes,
				      uint64_t *id_p);
/* Who it is created for: if that is lost before it is constructed, nobody else knows of it. Errors: -ESTALE; -EHOSTDOWN. */
int __must_check nu_ctrl_proclet_asker(struct nu_ctrl *c, uint64_t id, uint64_t asker);
struct nu_ctrl_fresh {
	uint64_t id, asker;
	uint32_t node, spare;
};
/* NEW ones with an asker: fills in up to @max. Return: how many. */
unsigned nu_ctrl_fresh(const struct nu_ctrl *c, struct nu_ctrl_fresh *fresh, unsigned max);
/* It is constructed. A second time: 0. Errors: -ESTALE gone; -EHOSTDOWN lost. */
int __must_check nu_ctrl_proclet_ready(struct nu_ctrl *c, uint64_t id);
/* Its heap's size, for placement. Errors: -ESTALE; -EHOSTDOWN. */
int __must_check nu_ctrl_proclet_sized(struct nu_ctrl *c, uint64_t id, uint64_t bytes);
/*
 * Node proclets (nu_id_of_node()) are answered too; the controller's own place is configuration.
 * Errors: -ESTALE gone; -EHOSTDOWN lost with its node; -EAGAIN its node died during a move: ask again when
 * nu_ctrl_resolve() has settled it; -EINVAL the controller's id.
 */
int __must_check nu_ctrl_locate(const struct nu_ctrl *c, uint64_t id, unsigned *node_p, uint64_t *location_p);
/*
 * @node has retired it and holds nothing of it any more. From then on the id is stale; the segment is reused when all
 * other holders have said nu_ctrl_forgot(). Of one that was lost: drops the record, so that the id is stale.
 * Errors: -ESTALE gone; -EINVAL it is not at @node; -EBUSY a move from @node is recorded: end that first.
 */
int __must_check nu_ctrl_proclet_free(struct nu_ctrl *c, uint64_t id, unsigned node);
/*
 * @node keeps nothing of it any more, no forwarding note either. It must not take part in another move of it before
 * this has returned. Twice: 0. Errors: -ESTALE gone; -EBUSY it is at @node, or on its way there; -EINVAL no such node.
 */
int __must_check nu_ctrl_forgot(struct nu_ctrl *c, uint64_t id, unsigned node);
/*
 * The live nodes that hold, or may hold, something of it; also of one that is freed and waits for them. Bit n % 64 of word
 * n / 64. Errors: -ESTALE gone, nobody holds anything of it.
 */
int __must_check nu_ctrl_holders(const struct nu_ctrl *c, uint64_t id, uint64_t holders[NU_CTRL_NODE_WORDS]);
/* Freed or lost ones whose segments wait: fills in up to @max ids; returns how many there are. */
uint64_t nu_ctrl_waiting(const struct nu_ctrl *c, uint64_t *ids, unsigned max);

/* ---- moves ---- */

/*
 * Records a move in flight: *location_p is the number of the new place, *bytes_p what is booked there.
 * Return: 1 it is at @to already, nothing is recorded. Errors: -ESTALE gone; -EHOSTDOWN lost, or @to died; -EINVAL no
 * such node; -EPERM pinned; -EBUSY being constructed, moving already, or @to is draining.
 */
int __must_check nu_ctrl_move_begin(struct nu_ctrl *c, uint64_t id, unsigned to, uint64_t *location_p,
				    uint64_t *bytes_p);
/*
 * The move ended: it is @at with number @location (of a failed move: the old number or the one that the move would have
 * given); with @moved false the destination keeps nothing of this move. Idempotent; also settles a doubt.
 * Errors: -ESTALE gone, or not what the state knows of: an older move's; -EHOSTDOWN lost, also just now.
 */
int __must_check nu_ctrl_move_end(struct nu_ctrl *c, uint64_t id, unsigned at, uint64_t location, bool moved);

struct nu_ctrl_doubt {
	uint64_t id, location; /* as before the move */
	uint32_t from, to;     /* one of them lives: ask it */
	uint32_t from_alive, spare;
};
/* Fills in up to @max; returns how many there are. */
uint64_t nu_ctrl_doubts(const struct nu_ctrl *c, struct nu_ctrl_doubt *doubts, unsigned max);
/*
 * The answer of the nodes: it is at @node with @location, or nowhere (NU_CTRL_NO_NODE): lost. Twice: 0.
 * Errors: -ESTALE gone, or a location number that the move cannot have; -EHOSTDOWN lost, or @node has died;
 * -EINVAL neither node of the move, or not in doubt and elsewhere.
 */
int __must_check nu_ctrl_resolve(struct nu_ctrl *c, uint64_t id, unsigned node, uint64_t location);

/* ---- placement and lists: placement.c ---- */

/* The least that a proclet takes: its first extent. */
#define NU_CTRL_MIN_BYTES (64 * NU_KIB)

/*
 * The UP node with the most free memory (less what is booked there), then the fewest proclets, then the next in turn.
 * @not: never this one, or NU_CTRL_NO_NODE. @fit_bytes: at least so much must be free.
 * Errors: -EHOSTDOWN no node is left; -EBUSY all are draining; -ENOMEM none has @fit_bytes.
 */
int __must_check nu_ctrl_pick(struct nu_ctrl *c, unsigned not, uint64_t fit_bytes, unsigned *node_p);
/* Where to move @id. Errors: as nu_ctrl_pick(), but -EINVAL if no other node is up; -ESTALE; -EHOSTDOWN lost; -EPERM. */
int __must_check nu_ctrl_place(struct nu_ctrl *c, uint64_t id, unsigned *node_p);
/*
 * Proclets at @node that can be moved (not pinned, not moving, constructed), by rising id, beyond @after (0 at first).
 * *count_p: how many were filled in; fewer than @max: that was the rest.
 */
int __must_check nu_ctrl_victims(const struct nu_ctrl *c, unsigned node, uint64_t after, uint64_t *ids,
				 unsigned max, unsigned *count_p);
/* Proclets that left @node while it was drained and still live elsewhere and are not moving, in the same way. */
int __must_check nu_ctrl_away(const struct nu_ctrl *c, unsigned node, uint64_t after, uint64_t *ids,
			      unsigned max, unsigned *count_p);

struct nu_ctrl_info {
	uint64_t id, location;
	uint64_t capacity_bytes, bytes;
	uint32_t node, moving_to, home; /* NU_CTRL_NO_NODE: none */
	uint32_t life;			/* enum nu_ctrl_life; GONE ones are left out */
	uint32_t pinned, spare;
};
/*
 * Fills in up to @max proclets from *@cursor on (0 at first; ~0 when all are done) and moves it on. Those that live all
 * the while are listed once. Return: how many.
 */
unsigned nu_ctrl_list(const struct nu_ctrl *c, uint64_t *cursor, struct nu_ctrl_info *infos, unsigned max);
void nu_ctrl_totals(const struct nu_ctrl *c, struct nu_ctrl_totals *totals_p);

/* For state.c and placement.c. */
static inline struct nu_ctrl_proclet *nu_ctrl_at(const struct nu_ctrl *c, uint32_t slot)
{
	return nu_ctrl_slab_at(&c->proclets, slot);
}
static inline struct nu_ctrl_proclet *nu_ctrl_find(const struct nu_ctrl *c, uint64_t id)
{
	uint32_t slot = id ? nu_ctrl_map_find(&c->by_id, id) : NU_CTRL_NONE;

	return slot == NU_CTRL_NONE ? NULL : nu_ctrl_at(c, slot);
}
/* 0 for a node that is UP or DRAINING. */
static inline int nu_ctrl_node_status(const struct nu_ctrl *c, unsigned node)
{
	if (node >= c->nnodes || !c->nodes[node].state)
		return -EINVAL;
	return c->nodes[node].state == NU_NODE_DEAD ? -EHOSTDOWN : 0;
}
