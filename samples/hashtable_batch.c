/* SPDX-License-Identifier: MIT */
/*
 * Many puts and many gets: records of one shard travel together, and several calls are under way at once.
 */
#include "hashtable_int.h"

#include <stdlib.h>

static int ht_record_add(struct ht_buffer *b, uint64_t hash, struct nu_bytes key, struct nu_bytes value)
{
	struct ht_record r = {hash, (uint32_t)key.len_bytes, (uint32_t)value.len_bytes};
	size_t before = b->len;
	int err;

	if (key.len_bytes >= UINT32_MAX || value.len_bytes >= UINT32_MAX)
		return -EMSGSIZE;
	err = ht_buffer_add(b, &r, sizeof(r));
	if (!err)
		err = ht_buffer_add(b, key.data, key.len_bytes);
	if (!err)
		err = ht_buffer_add(b, value.data, value.len_bytes);
	if (err)
		b->len = before;
	return err;
}

/* ---- puts ---- */

struct ht_load_call {
	bool under_way;
	int result;
	struct ht_shard_put_many_future future;
};

struct ht_loader {
	const struct ht *t;
	int err; /* the first */
	unsigned next_call;
	struct ht_load_call calls[HT_CALLS_MAX];
	struct ht_buffer buffers[]; /* one a shard */
};

int ht_loader_create(struct ht_loader **l_p, const struct ht *t)
{
	struct ht_loader *l = calloc(1, sizeof(*l) + t->shards * sizeof(l->buffers[0]));

	if (!l)
		return -ENOMEM;
	l->t = t;
	*l_p = l;
	return 0;
}

static void ht_load_wait(struct ht_loader *l, struct ht_load_call *call)
{
	int err;

	if (!call->under_way)
		return;
	err = ht_shard_put_many_wait(&call->future, &call->result);
	call->under_way = false;
	if (!err)
		err = call->result;
	if (err && !l->err)
		l->err = err;
}

/* Sends what a shard's buffer holds. The oldest call is waited for, so that at most HT_CALLS_MAX are under way. */
static void ht_load_send(struct ht_loader *l, unsigned shard)
{
	struct ht_load_call *call = &l->calls[l->next_call++ % HT_CALLS_MAX];
	struct ht_buffer *b = &l->buffers[shard];
	int err;

	if (!b->len)
		return;
	ht_load_wait(l, call);
	err = ht_shard_put_many_async((struct ht_shard_ref){l->t->refs[shard]}, nu_bytes(b->data, b->len),
				      &call->future);
	call->under_way = !err;
	if (err && !l->err)
		l->err = err;
	b->len = 0;
}

int ht_loader_put(struct ht_loader *l, struct nu_bytes key, struct nu_bytes value)
{
	uint64_t hash = htmap_hash(key.data, key.len_bytes);
	unsigned shard = htmap_shard(hash, l->t->shards);
	struct ht_buffer *b = &l->buffers[shard];
	int err;

	if (b->len && b->len + sizeof(struct ht_record) + key.len_bytes + value.len_bytes > HT_CALL_BYTES)
		ht_load_send(l, shard);
	err = ht_record_add(b, hash, key, value);
	if (err && !l->err)
		l->err = err;
	return l->err;
}

int ht_loader_finish(struct ht_loader *l)
{
	int err;

	for (unsigned i = 0; i < l->t->shards; i++) {
		ht_load_send(l, i);
		free(l->buffers[i].data);
	}
	for (unsigned i = 0; i < HT_CALLS_MAX; i++)
		ht_load_wait(l, &l->calls[i]);
	err = l->err;
	free(l);
	return err;
}

/* ---- gets ---- */

struct ht_get_call {
	unsigned shard;
	size_t first, count; /* of ht_gets.order: what was asked for */
	struct nu_bytes reply;
	struct ht_shard_get_many_future future;
};

struct ht_gets {
	const struct ht *t;
	const struct nu_bytes *keys;
	uint64_t *hashes;
	size_t *order; /* indices of keys, shard by shard */
	size_t *ends;  /* where each shard's part of order ends */
	struct ht_buffer request;
	ht_got_fn take;
	void *context;
};

/* Sorts the keys by shard: count, add up, deal out. */
static int ht_gets_sort(struct ht_gets *g, size_t count)
{
	unsigned shards = g->t->shards;
	size_t at = 0, n;

	g->hashes = malloc(count * sizeof(*g->hashes));
	g->order = malloc(count * sizeof(*g->order));
	g->ends = calloc(shards, sizeof(*g->ends));
	if (!g->hashes || !g->order || !g->ends)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		g->hashes[i] = htmap_hash(g->keys[i].data, g->keys[i].len_bytes);
		g->ends[htmap_shard(g->hashes[i], shards)]++;
	}
	for (unsigned s = 0; s < shards; s++) {
		n = g->ends[s];
		g->ends[s] = at;
		at += n;
	}
	for (size_t i = 0; i < count; i++)
		g->order[g->ends[htmap_shard(g->hashes[i], shards)]++] = i;
	return 0;
}

/* Asks call->shard for keys from call->first on, as many as one call should carry. */
static int ht_get_send(struct ht_gets *g, struct ht_get_call *call)
{
	struct ht_buffer *b = &g->request;
	int err = 0;

	b->len = 0;
	call->count = 0;
	while (call->first + call->count < g->ends[call->shard] && b->len < HT_CALL_BYTES / 4) {
		size_t i = g->order[call->first + call->count];

		if (b->len && b->len + g->keys[i].len_bytes > HT_CALL_BYTES)
			break;
		err = ht_record_add(b, g->hashes[i], g->keys[i], nu_bytes(NULL, 0));
		if (err)
			return err;
		call->count++;
	}
	call->reply = nu_bytes(NULL, 0);
	return ht_shard_get_many_async((struct ht_shard_ref){g->t->refs[call->shard]},
				       nu_bytes(b->data, b->len), &call->future);
}

/* Hands on what came; the shard may have answered the first keys only. call->first is moved past them. */
static int ht_get_take(struct ht_gets *g, struct ht_get_call *call)
{
	const char *p = call->reply.data, *end;
	size_t taken = 0;
	uint32_t len;
	int err;

	if (!p)
		return -ENOMEM;
	end = p + call->reply.len_bytes;
	for (; taken < call->count && (size_t)(end - p) >= sizeof(len); taken++) {
		struct nu_bytes value = {0};

		memcpy(&len, p, sizeof(len));
		p += sizeof(len);
		if (len != HT_NO_VALUE) {
			if ((size_t)(end - p) < len)
				return -EPROTO;
			value = nu_bytes(p, len);
			p += len;
		}
		err = g->take(g->order[call->first + taken], value, g->context);
		if (err)
			return err;
	}
	call->first += taken;
	return taken ? 0 : -EPROTO;
}

/* Waits for one call, takes its answer, and asks the same shard for the rest until there is none. */
static int ht_get_finish(struct ht_gets *g, struct ht_get_call *call, int err)
{
	int ret;

	for (;;) {
		ret = ht_shard_get_many_wait(&call->future, &call->reply);
		if (!ret && !err)
			ret = ht_get_take(g, call);
		free((void *)call->reply.data);
		call->reply = nu_bytes(NULL, 0);
		if (err || ret)
			return err ? err : ret;
		if (call->first == g->ends[call->shard])
			return 0;
		ret = ht_get_send(g, call);
		if (ret)
			return ret;
	}
}

/* One call a shard, HT_CALLS_MAX shards at once. After an error nothing new is asked, but all is waited for. */
static int ht_gets_run(struct ht_gets *g)
{
	struct ht_get_call calls[HT_CALLS_MAX];
	unsigned shard = 0, n;
	size_t at = 0;
	int err = 0;

	while (!err && shard < g->t->shards) {
		for (n = 0; !err && n < HT_CALLS_MAX && shard < g->t->shards; shard++) {
			calls[n] = (struct ht_get_call){.shard = shard, .first = at};
			at = g->ends[shard];
			if (calls[n].first == at)
				continue;
			err = ht_get_send(g, &calls[n]);
			if (!err)
				n++;
		}
		for (unsigned i = 0; i < n; i++)
			err = ht_get_finish(g, &calls[i], err);
	}
	return err;
}

int ht_get_many(const struct ht *t, const struct nu_bytes *keys, size_t count, ht_got_fn take, void *context)
{
	struct ht_gets g = {.t = t, .keys = keys, .take = take, .context = context};
	int err;

	if (!count)
		return 0;
	err = ht_gets_sort(&g, count);
	if (!err)
		err = ht_gets_run(&g);
	free(g.hashes);
	free(g.order);
	free(g.ends);
	free(g.request.data);
	return err;
}
