/* SPDX-License-Identifier: MIT */
/*
 * Filling the store and making the clients.
 */
#include "kvstore.h"

#include "kvstore_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KV_FEED_BYTES ((size_t)256 << 10)

static int kv_load_records(struct kvstore *kv, struct ht_loader *loader)
{
	const size_t value_bytes = kv->options.value_bytes;
	size_t room = 0, len;
	char *stored = NULL;
	int err = 0;

	for (size_t i = 0; !err && i < kv->file.count; i++) {
		const struct kv_record *r = &kv->file.records[i];

		len = kv_stored_bytes(r->value_len, value_bytes);
		if (len > room) {
			free(stored);
			room = len * 2;
			stored = malloc(room);
			if (!stored)
				return -ENOMEM;
		}
		kv_value_make(stored, (struct kv_stamp){.writer = KV_LOADER, .index = (uint32_t)i}, r->value,
			      r->value_len, value_bytes);
		err = ht_loader_put(loader, nu_bytes(r->key, r->key_len), nu_bytes(stored, len));
	}
	free(stored);
	return err;
}

int kv_table_load(struct kvstore *kv)
{
	uint64_t begin_us = nu_now_us(), made_us, end_us;
	struct ht_loader *loader;
	int err, finish_err;

	err = ht_create(&kv->table, kv->options.shards, NULL);
	if (err) {
		kv_complain("%u shards: %s", kv->options.shards, nu_strerror(err));
		return err;
	}
	made_us = nu_now_us();
	err = ht_loader_create(&loader, &kv->table);
	if (!err) {
		err = kv_load_records(kv, loader);
		finish_err = ht_loader_finish(loader);
		err = err ? err : finish_err;
	}
	if (err) {
		kv_complain("loading %s: %s", kv->options.file, nu_strerror(err));
		return err;
	}
	end_us = nu_now_us();
	printf("made %u shards over %u node%s in %.2f s; loaded %zu records (%" PRIu64
	       " lines, %.1f MiB) in %.2f s\n",
	       kv->options.shards, kv->nodes, kv->nodes == 1 ? "" : "s", (double)(made_us - begin_us) / 1e6,
	       kv->file.count, kv->file.lines, (double)kv->file.bytes / (1 << 20),
	       (double)(end_us - made_us) / 1e6);
	fflush(stdout);
	return 0;
}

/* Sends one piece of the records to all clients at once. */
static int kv_feed_all(struct kvstore *kv, const char *data, size_t len,
		       struct kv_client_feed_future *futures)
{
	unsigned sent = 0;
	int err = 0, result = 0, ret;

	for (; !err && sent < kv->nclients; sent++) {
		err = kv_client_feed_async(kv->clients[sent], nu_bytes(data, len), &futures[sent]);
		if (err)
			break;
	}
	for (unsigned i = 0; i < sent; i++) {
		ret = kv_client_feed_wait(&futures[i], &result);
		err = err ? err : ret ? ret : result;
	}
	return err;
}

static size_t kv_feed_add(char *to, const struct kv_record *r)
{
	uint32_t lens[2] = {r->key_len, r->value_len};

	memcpy(to, lens, sizeof(lens));
	if (r->key_len)
		memcpy(to + sizeof(lens), r->key, r->key_len);
	if (r->value_len)
		memcpy(to + sizeof(lens) + r->key_len, r->value, r->value_len);
	return sizeof(lens) + r->key_len + r->value_len;
}

static int kv_clients_feed(struct kvstore *kv)
{
	struct kv_client_feed_future *futures = calloc(kv->nclients, sizeof(*futures));
	const size_t room = KV_FEED_BYTES + KV_RECORD_MAX_BYTES + 16;
	char *piece = malloc(room);
	size_t len = 0;
	int err = futures && piece ? 0 : -ENOMEM;

	for (size_t i = 0; !err && i < kv->file.count; i++) {
		len += kv_feed_add(piece + len, &kv->file.records[i]);
		if (len >= KV_FEED_BYTES || i == kv->file.count - 1) {
			err = kv_feed_all(kv, piece, len, futures);
			len = 0;
		}
	}
	free(futures);
	free(piece);
	return err;
}

int kv_clients_create(struct kvstore *kv)
{
	unsigned want = kv->nodes < kv->options.clients ? kv->nodes : kv->options.clients;
	struct kv_client_plan plan = {.records = (uint32_t)kv->file.count,
				      .threads_all = kv->options.clients,
				      .step = want,
				      .get_percent = kv->options.get_percent,
				      .zipf = kv->options.zipf,
				      .value_bytes = kv->options.value_bytes};
	int err = 0;

	kv->clients = calloc(want, sizeof(*kv->clients));
	if (!kv->clients)
		err = -ENOMEM;
	for (unsigned i = 0; !err && i < want; i++) {
		struct nu_options o = {.node = NU_NODE(i)};

		plan.first = i;
		err = kv_client_create(&o, plan, ht_handle(&kv->table), &kv->clients[i]);
		if (!err)
			kv->nclients++;
	}
	if (!err)
		err = kv_clients_feed(kv);
	if (err)
		kv_complain("clients: %s", nu_strerror(err));
	return err;
}
