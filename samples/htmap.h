/* SPDX-License-Identifier: MIT */
/*
 * A hash map from bytes to bytes in plain memory: what one shard of the hash table holds. It knows nothing of
 * proclets and takes no lock. The map owns its entries; everything is malloc'ed, so in a proclet it lies in its heap.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct htmap_entry {
	struct htmap_entry *next;
	uint64_t hash;
	size_t value_len, value_room;
	uint32_t key_len;
	char bytes[]; /* the key, then the value */
};

/* All zero bytes are an empty map. */
struct htmap {
	struct htmap_entry **buckets;
	size_t nbuckets; /* 0 or a power of two */
	size_t count;
};

static inline const char *htmap_key(const struct htmap_entry *e)
{
	return e->bytes;
}
static inline char *htmap_value(struct htmap_entry *e)
{
	return e->bytes + e->key_len;
}

/* The same on every node and in every run. */
uint64_t htmap_hash(const void *key, size_t len);
/* Which of @shards holds a key of this hash. Uses the high bits; buckets use the low ones. */
static inline unsigned htmap_shard(uint64_t hash, unsigned shards)
{
	return (unsigned)((hash >> 32) * shards >> 32);
}

void htmap_fini(struct htmap *m);
/* NULL if there is none. The entry stays where it is until the map is written again. */
struct htmap_entry *htmap_find(const struct htmap *m, uint64_t hash, const void *key, size_t key_len);
/*
 * Makes the key's value @value_len bytes long, adding the key if it is new: what fits of the old value is kept and
 * what is new is undefined. Errors: -ENOMEM (nothing is changed); -EMSGSIZE a key of 4 GiB or more.
 */
int htmap_resize(struct htmap *m, uint64_t hash, const void *key, size_t key_len, size_t value_len,
		 struct htmap_entry **e_p);
/* -ENOENT: no such key. */
int htmap_remove(struct htmap *m, uint64_t hash, const void *key, size_t key_len);
/* The entry after @e (NULL: the first), or NULL at the end. The map must not be written meanwhile. */
struct htmap_entry *htmap_next(const struct htmap *m, const struct htmap_entry *e);
