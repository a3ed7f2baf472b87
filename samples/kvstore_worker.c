/* SPDX-License-Identifier: MIT */
/*
 * What a client thread does: gets and puts of keys picked by Zipf's law, each timed, each get checked against what is
 * known already, each acknowledged put put down in the journal.
 */
#include "kvstore_worker.h"

#include "kvstore_value.h"

#include <stdlib.h>
#include <string.h>

#define KV_OPS_PER_YIELD 32u /* calls to shards on the own node never wait, and others want to run too */

/* Raises one of the worker's counters; only it writes them. */
#define kv_count(field) __atomic_store_n(&(field), (field) + 1, __ATOMIC_RELAXED)

struct kv_pair {
	struct nu_bytes key, value;
};

static struct kv_pair kv_pair_of(const struct kv_client *c, uint32_t index)
{
	const char *p = c->records[index];
	uint32_t lens[2];

	memcpy(lens, p, sizeof(lens));
	p += sizeof(lens);
	return (struct kv_pair){nu_bytes(p, lens[0]), nu_bytes(p + lens[0], lens[1])};
}

/* Several threads learn of versions at once: the newest stays. */
static void kv_known_raise(uint32_t *known, uint32_t version)
{
	uint32_t now = __atomic_load_n(known, __ATOMIC_RELAXED);

	while (now < version &&
	       !__atomic_compare_exchange_n(known, &now, version, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static void kv_failed(struct kv_worker *w, int err)
{
	__atomic_store_n(&w->counts.last_error, err, __ATOMIC_RELAXED);
	kv_count(w->counts.errors);
}

static void kv_check_got(struct kv_worker *w, uint32_t index, uint32_t at_least, struct nu_bytes stored)
{
	struct kv_client *c = w->client;
	struct kv_stamp stamp;
	const char *value;

	if (kv_value_read(stored.data, stored.len_bytes, index, &stamp, &value)) {
		kv_count(w->counts.corrupt);
		return;
	}
	/* Whose put of it was acknowledged, or seen by anybody here, before this get began, must not be undone. */
	if (stamp.version < at_least)
		kv_count(w->counts.stale);
	/* And what the writer has not even sent yet cannot be there. */
	if (index % c->plan.threads_all == w->number &&
	    stamp.version > w->journal[index / c->plan.threads_all].tried)
		kv_count(w->counts.corrupt);
	kv_known_raise(&c->known[index], stamp.version);
}

static void kv_get(struct kv_worker *w, uint32_t index)
{
	struct kv_client *c = w->client;
	uint32_t at_least = __atomic_load_n(&c->known[index], __ATOMIC_ACQUIRE);
	struct nu_bytes stored;
	uint64_t begin = nu_now_ns();
	int err = ht_get(&c->table, kv_pair_of(c, index).key, &stored);

	kv_hist_add(&w->latency, nu_now_ns() - begin);
	kv_count(w->counts.gets);
	if (err == -ENOENT) {
		kv_count(w->counts.missing);
	} else if (err) {
		kv_failed(w, err);
	} else {
		kv_check_got(w, index, at_least, stored);
		free((void *)stored.data);
	}
}

static void kv_put(struct kv_worker *w, uint32_t own)
{
	struct kv_client *c = w->client;
	uint32_t index = own * c->plan.threads_all + w->number;
	struct kv_journal *j = &w->journal[own];
	struct kv_stamp stamp = {.version = j->tried + 1, .writer = w->number, .index = index};
	struct kv_pair pair = kv_pair_of(c, index);
	size_t len = kv_stored_bytes(pair.value.len_bytes, c->plan.value_bytes);
	uint64_t begin;
	int err;

	kv_value_make(w->value, stamp, pair.value.data, pair.value.len_bytes, c->plan.value_bytes);
	j->tried = stamp.version;
	begin = nu_now_ns();
	err = ht_put(&c->table, pair.key, nu_bytes(w->value, len));
	kv_hist_add(&w->latency, nu_now_ns() - begin);
	kv_count(w->counts.puts);
	if (err) {
		kv_failed(w, err);
		return;
	}
	j->acked = stamp.version;
	kv_known_raise(&c->known[index], stamp.version);
}

static void kv_worker_run(void *arg)
{
	struct kv_worker *w = arg;
	struct kv_client *c = w->client;
	double get_share = w->owned ? c->plan.get_percent / 100 : 1;

	for (uint32_t ops = 1; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); ops++) {
		if (kv_rng_unit(&w->rng) < get_share)
			kv_get(w, (uint32_t)kv_zipf_next(&w->reads, &w->rng));
		else
			kv_put(w, (uint32_t)kv_zipf_next(&w->writes, &w->rng));
		if (ops % KV_OPS_PER_YIELD == 0)
			nu_yield();
	}
}

/* The longest value that this thread will have to write. */
static size_t kv_longest_value(const struct kv_worker *w)
{
	const struct kv_client *c = w->client;
	size_t longest = 0, len;

	for (uint32_t own = 0; own < w->owned; own++) {
		len = kv_stored_bytes(kv_pair_of(c, own * c->plan.threads_all + w->number).value.len_bytes,
				      c->plan.value_bytes);
		longest = len > longest ? len : longest;
	}
	return longest;
}

int kv_worker_start(struct kv_worker *w, struct kv_client *client, uint32_t number)
{
	const struct kv_client_plan *plan = &client->plan;

	w->client = client;
	w->number = number;
	w->owned = number < plan->records
			   ? (plan->records - number + plan->threads_all - 1) / plan->threads_all
			   : 0;
	w->rng.state = number * 0x632be59bd9b4e019ull + 1;
	w->journal = calloc(w->owned + 1u, sizeof(*w->journal));
	w->value = malloc(kv_longest_value(w) + 1);
	if (!w->journal || !w->value)
		return -ENOMEM;
	if (!plan->records)
		return 0; /* nothing to get or put */
	kv_zipf_init(&w->reads, plan->records, plan->zipf);
	if (w->owned)
		kv_zipf_init(&w->writes, w->owned, plan->zipf);
	return nu_thread_spawn(kv_worker_run, w, &w->thread);
}
