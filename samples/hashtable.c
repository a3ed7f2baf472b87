/* SPDX-License-Identifier: MIT */
/*
 * The hash table's handle: making and sharing it, and operations on single keys and on all shards.
 */
#include "hashtable.h"

#include "hashtable_int.h"

#include <stdlib.h>

#define HT_SHARDS_MAX	   (1u << 20)
#define HT_REGION_BYTES	   ((size_t)8 << 40) /* address space that all shards together may take by default */
#define HT_SHARD_BYTES	   ((size_t)1 << 30)
#define HT_SHARD_BYTES_MIN ((size_t)1 << 20)
#define HT_HANDLE_MAGIC	   0x7461626c65687421ull
#define HT_HANDLE_BYTES(n) (((size_t)(n) + 1) * sizeof(struct nu_ref))

/*
 * The references lie behind one word that says what they are, so that the handle's bytes are this array and passing
 * the table on copies nothing on this side.
 */
static int ht_alloc(struct ht *t, unsigned shards)
{
	t->words = calloc((size_t)shards + 1, sizeof(*t->words));
	if (!t->words)
		return -ENOMEM;
	t->words[0].id = HT_HANDLE_MAGIC;
	t->refs = t->words + 1;
	t->shards = shards;
	return 0;
}

void ht_release(struct ht *t)
{
	if (!t->words)
		return;
	for (unsigned i = 0; i < t->shards; i++) {
		if (t->refs[i].id)
			(void)nu_ref_put(
				t->refs[i]); /* ours, so this cannot be refused; a dead shard is let go too */
	}
	free(t->words);
	memset(t, 0, sizeof(*t));
}

/* The nodes that take proclets now, at most @max of them. Return: how many; 0 if nobody knows. */
static unsigned ht_nodes_up(unsigned *nodes, unsigned max)
{
	unsigned up = 0;
	struct nu_node_info *infos = calloc(max, sizeof(*infos));
	int n = infos ? nu_nodes(infos, max) : 0;

	for (int i = 0; i < n && i < (int)max; i++) {
		if (infos[i].state == NU_NODE_UP)
			nodes[up++] = infos[i].node;
	}
	free(infos);
	return up;
}

static int ht_create_shard(struct ht *t, unsigned i, struct nu_options o, const unsigned *nodes, unsigned up)
{
	struct ht_shard_ref ref;
	int err;

	o.node = up ? NU_NODE(nodes[i % up]) : 0;
	err = ht_shard_create(&o, &ref);
	if (err && o.node) {
		/* That node has become full, or has left, since we asked: anywhere else will do. */
		o.node = 0;
		err = ht_shard_create(&o, &ref);
	}
	if (!err)
		t->refs[i] = ref.ref;
	return err;
}

int ht_create(struct ht *t, unsigned shards, const struct ht_options *options)
{
	struct nu_options o = {0};
	unsigned nodes[64], up;
	int err;

	memset(t, 0, sizeof(*t));
	if (!shards || shards > HT_SHARDS_MAX)
		return -EINVAL;
	if (options) {
		o.capacity_bytes = options->shard_capacity_bytes;
		o.pinned = options->pinned;
	}
	if (!o.capacity_bytes) {
		o.capacity_bytes = HT_SHARD_BYTES;
		while (o.capacity_bytes > HT_SHARD_BYTES_MIN && o.capacity_bytes * shards > HT_REGION_BYTES)
			o.capacity_bytes /= 2;
	}
	err = ht_alloc(t, shards);
	if (err)
		return err;
	up = ht_nodes_up(nodes, sizeof(nodes) / sizeof(nodes[0]));
	for (unsigned i = 0; i < shards; i++) {
		err = ht_create_shard(t, i, o, nodes, up);
		if (err) {
			ht_release(t);
			return err;
		}
	}
	return 0;
}

struct nu_bytes ht_handle(const struct ht *t)
{
	return nu_bytes(t->words, HT_HANDLE_BYTES(t->shards));
}

int ht_attach(struct ht *t, struct nu_bytes handle)
{
	size_t words = handle.len_bytes / sizeof(struct nu_ref);
	struct nu_ref ref;
	int err;

	memset(t, 0, sizeof(*t));
	if (words < 2 || words - 1 > HT_SHARDS_MAX || handle.len_bytes % sizeof(ref))
		return -EINVAL;
	memcpy(&ref, handle.data, sizeof(ref));
	if (ref.id != HT_HANDLE_MAGIC)
		return -EINVAL;
	err = ht_alloc(t, (unsigned)(words - 1));
	for (unsigned i = 0; !err && i < t->shards; i++) {
		memcpy(&ref, (const char *)handle.data + (i + 1) * sizeof(ref), sizeof(ref));
		err = nu_ref_get(ref);
		if (!err)
			t->refs[i] = ref;
	}
	if (err)
		ht_release(t);
	return err;
}

static uint64_t ht_hash(struct nu_bytes key)
{
	return htmap_hash(key.data, key.len_bytes);
}

int ht_get(const struct ht *t, struct nu_bytes key, struct nu_bytes *value_p)
{
	uint64_t hash = ht_hash(key);
	struct nu_bytes value = {0};
	int err = ht_shard_get(ht_shard_of(t, hash), hash, key, &value);

	if (err)
		return err;
	if (!value.data)
		return -ENOENT;
	*value_p = value;
	return 0;
}

int ht_put(const struct ht *t, struct nu_bytes key, struct nu_bytes value)
{
	uint64_t hash = ht_hash(key);
	int result = 0, err = ht_shard_put(ht_shard_of(t, hash), hash, key, value, &result);

	return err ? err : result;
}

int ht_remove(const struct ht *t, struct nu_bytes key)
{
	uint64_t hash = ht_hash(key);
	int result = 0, err = ht_shard_remove(ht_shard_of(t, hash), hash, key, &result);

	return err ? err : result;
}

int ht_size(const struct ht *t, uint64_t *size_p)
{
	uint64_t size = 0, one = 0;
	int err;

	for (unsigned i = 0; i < t->shards; i++) {
		err = ht_shard_size((struct ht_shard_ref){t->refs[i]}, &one);
		if (err)
			return err;
		size += one;
	}
	*size_p = size;
	return 0;
}

int ht_apply(const struct ht *t, struct nu_bytes key, ht_apply_fn fn, struct nu_bytes arg,
	     struct nu_bytes *result_p)
{
	uint64_t hash = ht_hash(key);
	struct nu_bytes result = {0};
	int err = ht_shard_apply(ht_shard_of(t, hash), hash, key, fn, arg, &result);

	if (err)
		return err;
	if (result_p)
		*result_p = result;
	else
		free((void *)result.data);
	return 0;
}

/* What one shard sent back: its status and what it found. */
static int ht_take_found(struct nu_bytes reply, ht_found_fn take, void *context)
{
	int err;

	if (!reply.data)
		return -ENOMEM;
	if (reply.len_bytes < sizeof(err))
		return -EPROTO;
	memcpy(&err, reply.data, sizeof(err));
	if (!err && take)
		err = take(nu_bytes((const char *)reply.data + sizeof(err), reply.len_bytes - sizeof(err)),
			   context);
	return err;
}

int ht_for_each(const struct ht *t, ht_each_fn fn, struct nu_bytes arg, ht_found_fn take, void *context)
{
	struct nu_bytes reply;
	int err = 0;

	for (unsigned i = 0; !err && i < t->shards; i++) {
		reply = nu_bytes(NULL, 0);
		err = ht_shard_for_each((struct ht_shard_ref){t->refs[i]}, fn, arg, &reply);
		if (!err)
			err = ht_take_found(reply, take, context);
		free((void *)reply.data);
	}
	return err;
}
