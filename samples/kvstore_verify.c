/* SPDX-License-Identifier: MIT */
/*
 * Reading every key back and comparing it with the file and with the clients' journals.
 *
 * Each record has one writer, so what must be there is known exactly: the version whose put was acknowledged last, or,
 * if a later put ended in an error, maybe that one.
 */
#include "kvstore.h"

#include "kvstore_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KV_VERIFY_BATCH ((size_t)64 << 10) /* keys at once */
#define KV_EXAMPLES_MAX 5u		   /* bad keys that are shown */

struct kv_verifier {
	struct kvstore *kv;
	size_t first;	/* record of the batch's first key */
	bool *answered; /* by record */
	unsigned examples;
};

/* Own records of client thread @number, from its journal, into the journal by record. */
static int kv_journal_fetch(struct kvstore *kv, unsigned client, uint32_t worker, uint32_t number)
{
	uint32_t threads = kv->options.clients, own = 0;
	size_t count = kv->file.count;
	struct nu_bytes reply = {0};
	const struct kv_journal *j;
	int err;

	while ((uint64_t)own * threads + number < count) {
		err = kv_client_journal(kv->clients[client], worker, own, &reply);
		if (err)
			return err;
		j = reply.data;
		for (size_t i = 0;
		     i < reply.len_bytes / sizeof(*j) && (uint64_t)own * threads + number < count; i++)
			kv->journal[(size_t)own++ * threads + number] = j[i];
		free((void *)reply.data);
		if (reply.len_bytes < sizeof(*j))
			return -EPROTO;
	}
	return 0;
}

/* Without its journal a thread may have written anything: its keys are then only compared with the file. */
static void kv_journal_unknown(struct kvstore *kv, uint32_t number)
{
	for (size_t i = number; i < kv->file.count; i += kv->options.clients)
		kv->journal[i] = (struct kv_journal){0, UINT32_MAX};
}

static int kv_journals_fetch(struct kvstore *kv)
{
	unsigned client;
	int err;

	kv->journal = calloc(kv->file.count + 1, sizeof(*kv->journal));
	if (!kv->journal)
		return -ENOMEM;
	for (uint32_t number = 0; kv->nclients && number < kv->options.clients; number++) {
		client = number % kv->nclients;
		err = kv_journal_fetch(kv, client, number / kv->nclients, number);
		if (err) {
			kv_complain("journal of client thread %u is lost: %s", number, nu_strerror(err));
			kv_journal_unknown(kv, number);
			kv->failed = true;
		}
	}
	return 0;
}

/* Shows a bad key, for the first few; bytes that would upset a terminal as dots. */
static void kv_example(struct kv_verifier *v, size_t i, const char *what, uint32_t version)
{
	const struct kv_record *r = &v->kv->file.records[i];
	const struct kv_journal *j = &v->kv->journal[i];
	char key[41];
	uint32_t n = r->key_len < sizeof(key) - 1 ? r->key_len : (uint32_t)sizeof(key) - 1;

	if (v->examples++ >= KV_EXAMPLES_MAX)
		return;
	for (uint32_t c = 0; c < n; c++)
		key[c] = r->key[c] >= ' ' && r->key[c] <= '~' ? r->key[c] : '.';
	key[n] = 0;
	kv_complain("key \"%s\" (record %zu): %s; version %u is there, %u was acknowledged, %u was sent", key,
		    i, what, version, j->acked, j->tried);
}

static void kv_verify_value(struct kv_verifier *v, size_t i, struct nu_bytes stored)
{
	struct kvstore *kv = v->kv;
	const struct kv_record *r = &kv->file.records[i];
	const struct kv_journal *j = &kv->journal[i];
	struct kv_stamp s = {0};
	const char *value;

	v->answered[i] = true;
	if (!stored.data) {
		kv->lost++;
		kv_example(v, i, "lost", 0);
	} else if (kv_value_read(stored.data, stored.len_bytes, (uint32_t)i, &s, &value) ||
		   stored.len_bytes != kv_stored_bytes(r->value_len, kv->options.value_bytes) ||
		   s.value_len != r->value_len || memcmp(value, r->value, r->value_len)) {
		kv->wrong++;
		kv_example(v, i, "not what was written", s.version);
	} else if (s.version < j->acked) {
		kv->lost++;
		kv_example(v, i, "an acknowledged put is lost", s.version);
	} else if (s.version > j->tried || s.writer != (s.version ? i % kv->options.clients : KV_LOADER)) {
		kv->wrong++;
		kv_example(v, i, "a version that nobody wrote", s.version);
	} else {
		kv->verified++;
	}
}

static int kv_verify_one(size_t index, struct nu_bytes stored, void *context)
{
	struct kv_verifier *v = context;

	kv_verify_value(v, v->first + index, stored);
	return 0;
}

/* Keys that a batch gave no answer for, one by one: those of a dead shard are lost, the others are read. */
static void kv_verify_rest(struct kv_verifier *v, size_t count)
{
	struct kvstore *kv = v->kv;
	struct nu_bytes stored;
	int err;

	for (size_t i = v->first; i < v->first + count; i++) {
		const struct kv_record *r = &kv->file.records[i];

		if (v->answered[i])
			continue;
		stored = nu_bytes(NULL, 0);
		err = ht_get(&kv->table, nu_bytes(r->key, r->key_len), &stored);
		if (err && err != -ENOENT && !v->examples)
			kv_complain("reading back: %s", nu_strerror(err));
		kv_verify_value(v, i, stored);
		free((void *)stored.data);
	}
}

static void kv_verify_all(struct kv_verifier *v, struct nu_bytes *keys)
{
	struct kvstore *kv = v->kv;
	size_t count = kv->file.count, n;
	int err;

	for (v->first = 0; v->first < count; v->first += n) {
		n = count - v->first < KV_VERIFY_BATCH ? count - v->first : KV_VERIFY_BATCH;
		for (size_t i = 0; i < n; i++) {
			const struct kv_record *r = &kv->file.records[v->first + i];

			keys[i] = nu_bytes(r->key, r->key_len);
		}
		err = ht_get_many(&kv->table, keys, n, kv_verify_one, v);
		if (err) {
			kv_complain("reading back many: %s; one by one now", nu_strerror(err));
			kv->failed = true;
			kv_verify_rest(v, n);
		}
	}
}

/* Keys that nobody put there would not be met by reading what the file names. */
static void kv_verify_size(struct kvstore *kv)
{
	uint64_t size;
	int err = ht_size(&kv->table, &size);

	if (err) {
		kv_complain("size of the table: %s", nu_strerror(err));
		kv->failed = true;
	} else if (size != kv->file.count) {
		kv_complain("the table holds %" PRIu64 " keys, the file %zu", size, kv->file.count);
		kv->failed = true;
	}
}

void kv_verify(struct kvstore *kv)
{
	struct kv_verifier v = {.kv = kv, .answered = calloc(kv->file.count + 1, sizeof(*v.answered))};
	struct nu_bytes *keys = calloc(KV_VERIFY_BATCH, sizeof(*keys));

	if (!v.answered || !keys || kv_journals_fetch(kv)) {
		kv_complain("no memory to verify %zu keys", kv->file.count);
		kv->failed = true;
	} else {
		kv_verify_all(&v, keys);
		kv_verify_size(kv);
	}
	free(v.answered);
	free(keys);
}
