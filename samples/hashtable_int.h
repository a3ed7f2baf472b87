/* SPDX-License-Identifier: MIT */
/*
 * The class of a shard, and how many records travel in one call. Only for the files of the hash table.
 */
#pragma once

#include "hashtable.h"
#include "htmap.h"

#include <string.h>

struct ht_shard {
	struct nu_rwlock lock; /* guards map */
	struct htmap map;
};

NU_CLASS(ht_shard);
/* The hash travels with the key: whoever picked the shard has it already. */
NU_METHOD(ht_shard, get, bytes, val(uint64_t, hash), bytes(key));
NU_METHOD(ht_shard, put, val(int), val(uint64_t, hash), bytes(key), bytes(value));
NU_METHOD(ht_shard, remove, val(int), val(uint64_t, hash), bytes(key));
NU_METHOD(ht_shard, size, val(uint64_t));
NU_METHOD(ht_shard, apply, bytes, val(uint64_t, hash), bytes(key), fn(ht_apply_fn, fn), bytes(arg));
/* The first int of the result is the status. */
NU_METHOD(ht_shard, for_each, bytes, fn(ht_each_fn, fn), bytes(arg));
/* @records: struct ht_record with key and value after it, one after the other. */
NU_METHOD(ht_shard, put_many, val(int), bytes(records));
/* @keys: the same with no values. Result: a length and the value for each, as far as HT_REPLY_BYTES last; UINT32_MAX
 * stands for no such key. None at all: no memory. */
NU_METHOD(ht_shard, get_many, bytes, bytes(keys));

#define HT_CALL_BYTES  ((size_t)64 << 10) /* about how much one call of many records carries */
#define HT_REPLY_BYTES ((size_t)256 << 10)
#define HT_CALLS_MAX   8u /* under way at once, of one thread's many */
#define HT_NO_VALUE    UINT32_MAX

struct ht_record {
	uint64_t hash;
	uint32_t key_len, value_len;
};

/* Takes the record at *p_p apart and steps over it; false at the end or where the bytes are no record. */
static inline bool ht_record_next(const char **p_p, const char *end, struct ht_record *r, const char **key_p,
				  const char **value_p)
{
	const char *p = *p_p;

	if ((size_t)(end - p) < sizeof(*r))
		return false;
	memcpy(r, p, sizeof(*r));
	p += sizeof(*r);
	if ((size_t)(end - p) < (size_t)r->key_len + r->value_len)
		return false;
	*key_p = p;
	*value_p = p + r->key_len;
	*p_p = p + r->key_len + r->value_len;
	return true;
}

static inline struct ht_shard_ref ht_shard_of(const struct ht *t, uint64_t hash)
{
	return (struct ht_shard_ref){t->refs[htmap_shard(hash, t->shards)]};
}

/* Bytes that grow. */
struct ht_buffer {
	char *data;
	size_t len, room;
};
/* Appends; @data NULL: leaves room only. -ENOMEM: nothing is changed. */
int ht_buffer_add(struct ht_buffer *b, const void *data, size_t len);
