/* SPDX-License-Identifier: MIT */
/*
 * One shard of the hash table: a map in a proclet's heap, and its methods.
 */
#include "hashtable_int.h"

#include <stdlib.h>

int ht_buffer_add(struct ht_buffer *b, const void *data, size_t len)
{
	if (b->room - b->len < len) {
		size_t room = b->room ? b->room : 256;
		char *bigger;

		while (room - b->len < len)
			room *= 2;
		bigger = realloc(b->data, room);
		if (!bigger)
			return -ENOMEM;
		b->data = bigger;
		b->room = room;
	}
	if (data && len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

int ht_shard_init(struct ht_shard *self)
{
	nu_rwlock_init(&self->lock);
	return 0;
}

void ht_shard_do_get(struct ht_shard *self, uint64_t hash, struct nu_bytes key, struct nu_out *out)
{
	struct htmap_entry *e;

	nu_rwlock_rdlock(&self->lock);
	e = htmap_find(&self->map, hash, key.data, key.len_bytes);
	if (e)
		nu_out_bytes(out, htmap_value(e), e->value_len);
	nu_rwlock_unlock(&self->lock);
}

static int ht_shard_set(struct ht_shard *self, uint64_t hash, struct nu_bytes key, struct nu_bytes value)
{
	struct htmap_entry *e;
	int err = htmap_resize(&self->map, hash, key.data, key.len_bytes, value.len_bytes, &e);

	if (!err && value.len_bytes)
		memcpy(htmap_value(e), value.data, value.len_bytes);
	return err;
}

int ht_shard_do_put(struct ht_shard *self, uint64_t hash, struct nu_bytes key, struct nu_bytes value)
{
	int err;

	nu_rwlock_wrlock(&self->lock);
	err = ht_shard_set(self, hash, key, value);
	nu_rwlock_unlock(&self->lock);
	return err;
}

int ht_shard_do_remove(struct ht_shard *self, uint64_t hash, struct nu_bytes key)
{
	int err;

	nu_rwlock_wrlock(&self->lock);
	err = htmap_remove(&self->map, hash, key.data, key.len_bytes);
	nu_rwlock_unlock(&self->lock);
	return err;
}

uint64_t ht_shard_do_size(struct ht_shard *self)
{
	uint64_t size;

	nu_rwlock_rdlock(&self->lock);
	size = self->map.count;
	nu_rwlock_unlock(&self->lock);
	return size;
}

/* What a shipped function changes: *v, and behind it the map. */
struct ht_slot {
	struct ht_value v;
	struct htmap *map;
	uint64_t hash;
};

static void ht_slot_show(struct ht_slot *s, struct htmap_entry *e)
{
	s->v.data = e ? htmap_value(e) : NULL;
	s->v.len_bytes = e ? e->value_len : 0;
}

int ht_value_resize(struct ht_value *v, size_t len_bytes)
{
	struct ht_slot *s = (struct ht_slot *)v;
	struct htmap_entry *e;
	int err = htmap_resize(s->map, s->hash, v->key.data, v->key.len_bytes, len_bytes, &e);

	if (!err)
		ht_slot_show(s, e);
	return err;
}

void ht_value_remove(struct ht_value *v)
{
	struct ht_slot *s = (struct ht_slot *)v;

	(void)htmap_remove(s->map, s->hash, v->key.data, v->key.len_bytes); /* -ENOENT: so much the better */
	ht_slot_show(s, NULL);
}

void ht_shard_do_apply(struct ht_shard *self, uint64_t hash, struct nu_bytes key, ht_apply_fn fn,
		       struct nu_bytes arg, struct nu_out *out)
{
	/* The key is the caller's copy, so it stays when the entry goes. */
	struct ht_slot s = {.v.key = key, .map = &self->map, .hash = hash};

	nu_rwlock_wrlock(&self->lock);
	ht_slot_show(&s, htmap_find(&self->map, hash, key.data, key.len_bytes));
	fn(&s.v, arg, out);
	nu_rwlock_unlock(&self->lock);
}

struct ht_found {
	struct ht_buffer bytes;
};

int ht_found_add(struct ht_found *found, const void *data, size_t len_bytes)
{
	return ht_buffer_add(&found->bytes, data, len_bytes);
}

void ht_shard_do_for_each(struct ht_shard *self, ht_each_fn fn, struct nu_bytes arg, struct nu_out *out)
{
	struct ht_found found = {0};
	struct htmap_entry *e = NULL;
	struct ht_value v;
	int err = ht_buffer_add(&found.bytes, NULL, sizeof(err));

	if (err)
		return;
	nu_rwlock_rdlock(&self->lock);
	while (!err && (e = htmap_next(&self->map, e))) {
		v = (struct ht_value){nu_bytes(htmap_key(e), e->key_len), htmap_value(e), e->value_len};
		err = fn(&v, arg, &found);
	}
	nu_rwlock_unlock(&self->lock);
	memcpy(found.bytes.data, &err, sizeof(err));
	nu_out_bytes(out, found.bytes.data, found.bytes.len);
	free(found.bytes.data);
}

int ht_shard_do_put_many(struct ht_shard *self, struct nu_bytes records)
{
	const char *p = records.data, *end = p + records.len_bytes, *key, *value;
	struct ht_record r;
	int err = 0;

	nu_rwlock_wrlock(&self->lock);
	while (!err && ht_record_next(&p, end, &r, &key, &value))
		err = ht_shard_set(self, r.hash, nu_bytes(key, r.key_len), nu_bytes(value, r.value_len));
	nu_rwlock_unlock(&self->lock);
	return err ? err : p == end ? 0 : -EINVAL;
}

/* Appends a value with its length in front, or that there is none. */
static int ht_reply_add(struct ht_buffer *b, struct htmap_entry *e)
{
	uint32_t len = e ? (uint32_t)e->value_len : HT_NO_VALUE;
	size_t before = b->len;
	int err = ht_buffer_add(b, &len, sizeof(len));

	if (!err && e)
		err = ht_buffer_add(b, htmap_value(e), e->value_len);
	if (err)
		b->len = before;
	return err;
}

void ht_shard_do_get_many(struct ht_shard *self, struct nu_bytes keys, struct nu_out *out)
{
	const char *p = keys.data, *end = p + keys.len_bytes, *key, *value;
	struct ht_buffer reply = {0};
	struct ht_record r;
	struct htmap_entry *e;

	nu_rwlock_rdlock(&self->lock);
	while (ht_record_next(&p, end, &r, &key, &value)) {
		e = htmap_find(&self->map, r.hash, key, r.key_len);
		/* Once there is something in it the reply stays below its bound, so one large value is no trouble. */
		if (reply.len && e && reply.len + e->value_len > HT_REPLY_BYTES)
			break;
		if (ht_reply_add(&reply, e))
			break;
	}
	nu_rwlock_unlock(&self->lock);
	if (reply.len)
		nu_out_bytes(out, reply.data, reply.len);
	free(reply.data);
}
