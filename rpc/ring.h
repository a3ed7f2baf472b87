/* SPDX-License-Identifier: MIT */
/*
 * A ring of batches in memory that two processes share: one writes, the other reads. What a writer that is killed had not
 * yet published does not exist for the reader, and nobody else writes there: a death harms no third party.
 *
 * A batch is published by its first word, which is written last and is 0 until then: behind each batch the writer has put
 * such a 0 before. So whoever polls finds the batch in the very line that he polls. `tail` counts what was published; it
 * tells of the pieces of a batch that is longer than the ring, and whether there is news for one that is about to sleep.
 */
#pragma once

#include "core/core.h"

#define NU_RING_LEFT	1u /* in good order */
#define NU_RING_REFUSED 2u /* what it read made no sense */

struct nu_ring_head {
	/* Written by the writer. */
	_Atomic uint64_t tail; /* bytes ever published */
	atomic_uint
		full; /* the writer waits for room; cleared by the reader, who wakes it. Said before each sleep */
	atomic_uint ended;  /* the writer has left */
	atomic_uint nudged; /* the writer has interrupted the reader; cleared by the reader */
	char pad[NU_CACHE_LINE - 20];
	/* Written by the reader for each batch. */
	_Atomic uint64_t head; /* bytes ever read */
	char pad2[NU_CACHE_LINE - 8];
	/* Written seldom, and looked at by the writer for each batch: in neither's line. */
	atomic_uint asleep;   /* the reader wants to be woken; cleared by the writer, who does it */
	atomic_uint deaf;     /* NU_RING_...: the reader has left */
	atomic_uint attached; /* it has been there */
	_Atomic uint64_t
		away_ns; /* when it was last found computing, by the clock that the host's processes share */
	/* Whom to interrupt then, valid in one PID namespace. Once @tid is not 0 they stay. */
	_Atomic uint64_t pid_ns;
	atomic_int pid, tid;
};

#define NU_RING_MARK 8u /* bytes of a ring that are never used: the word behind what is written */

/* One side's view. */
struct nu_ring {
	struct nu_ring_head *shared;
	char *data; /* @bytes long, mapped twice in a row: nothing in it is split */
	size_t bytes;
};

/* The writer's: new memory, and in *fd_p a descriptor of it to give away. Errors: -EMFILE, -ENFILE, -ENOMEM. */
int __must_check nu_ring_create(struct nu_ring *r, size_t bytes, int *fd_p);
/* The reader's, from a peer's descriptor, which stays open. -EBADMSG: it is no such memory; -EEXIST: it has been here. */
int __must_check nu_ring_attach(struct nu_ring *r, int fd);
void nu_ring_unmap(struct nu_ring *r);

/* The longest batch that a ring holds as a whole. */
static inline size_t nu_ring_longest(const struct nu_ring *r)
{
	return r->bytes - NU_RING_MARK;
}

static inline char *nu_ring_at(const struct nu_ring *r, uint64_t place)
{
	return r->data + (place & (r->bytes - 1));
}

/* The first word of the batch at @place, 0 if there is none yet. */
static inline uint64_t nu_ring_word(const struct nu_ring *r, uint64_t place)
{
	return __atomic_load_n((uint64_t *)nu_ring_at(r, place), __ATOMIC_ACQUIRE);
}
