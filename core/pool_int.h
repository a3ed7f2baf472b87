/* SPDX-License-Identifier: MIT */
/*
 * What the pool's two files share: pool.c makes extents out of blocks, buddy.c deals out the blocks of chunks.
 */
#pragma once

#include "core/core.h"

#define NU_POOL_UNIT_SHIFT 16 /* NU_EXTENT_MIN_BYTES */
#define NU_POOL_ORDERS	   15 /* blocks of 64 KiB to 1 GiB */
#define NU_POOL_BUCKETS	   1024

/* One unit of a chunk. While its block is taken, backed and dirty belong to the taker, else to the pool's lock. */
struct nu_unit {
	struct nu_list link; /* of a free block's first unit: in the free lists */
	uint32_t index;	     /* in its chunk */
	uint8_t order;	     /* of a free block's first unit */
	bool free;	     /* first unit of a free block */
	bool backed;	     /* every page is there: no fault when it is touched */
	bool dirty;	     /* may hold something else than zeros */
};

/* A run of the pool's address space, what a memory region covers. Larger ones than usual hold one extent only. */
struct nu_chunk {
	struct nu_chunk *next; /* in its bucket */
	struct nu_list idle;   /* in nu_pool.idle while no block is taken */
	char *base;
	size_t len_bytes;
	unsigned nunits;
	unsigned taken; /* units */
	bool registered;
	void *priv; /* of the ops */
	struct nu_unit units[];
};

struct nu_block {
	struct nu_chunk *chunk;
	unsigned at, n; /* units */
};

struct nu_pool {
	struct nu_lock lock; /* leaf; never held over a system call */
	bool ready;
	const struct nu_pool_ops *ops;
	size_t budget_bytes, chunk_bytes, reserve_bytes;
	size_t slack_bytes;	  /* free beyond the reserve that is given back by nu_pool_trim() alone */
	size_t used_bytes;	  /* of the budget */
	size_t mapped_bytes;	  /* chunks of any size */
	size_t free_bytes;	  /* in chunks of the usual size */
	size_t backed_free_bytes; /* of these, backed */
	unsigned chunks;
	bool budget_logged;
	struct nu_list free[NU_POOL_ORDERS][2]; /* by order and whether all of the block is backed */
	struct nu_list idle;
	struct nu_chunk *buckets[NU_POOL_BUCKETS];
};
extern struct nu_pool nu_pool;

enum nu_take {
	NU_TAKE_BACKED, /* as much of it backed as can be had */
	NU_TAKE_ANY, /* leaves the reserve to those who want it: it would be backed again, until all of the pool is */
	NU_TAKE_LAST, /* takes that, too */
	NU_TAKE_FILL, /* not all backed, next to what is: for filling up the reserve */
};

/* All with the pool's lock held. buddy.c */
void nu_buddy_init(void);
void nu_buddy_add(struct nu_chunk *c);
/* Takes an idle chunk's only block out of the lists. */
void nu_buddy_remove(struct nu_chunk *c);
bool nu_buddy_take(unsigned order, enum nu_take how, struct nu_block *b_p);
/* Any run of units that are taken: a block, or a part of one. */
void nu_buddy_give(const struct nu_block *b);
/* Units of the chunk that are backed. */
unsigned nu_buddy_backed(const struct nu_chunk *c);

/* Backs every page of [p, p + len), which is the caller's alone, without changing what they hold. pool_pages.c */
int nu_pages_back(char *p, size_t len);
/* Marks those of @n units at @p, in a row, that have every page: what cannot be told is not marked. */
void nu_pages_find(char *p, struct nu_unit *u, unsigned n);
