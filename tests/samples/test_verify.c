/* SPDX-License-Identifier: MIT */
/*
 * kvstore's clients and its check, on the stand-in for the runtime: a store that did well passes, and each kind of
 * damage is found. A check that cannot fail would prove nothing.
 */
#include "fake_nu.h"
#include "samples/kvstore.h"
#include "samples/kvstore_value.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <criterion/redirect.h>
#include <string.h>

void kv_complain(const char *fmt, ...)
{
}

/* Not met here: they belong to the watch and the plot. */
int nu_stats(unsigned node, struct nu_stats *stats_p)
{
	return -EINVAL;
}
void nu_mutex_init(struct nu_mutex *m)
{
}
void nu_mutex_lock(struct nu_mutex *m)
{
}
void nu_mutex_unlock(struct nu_mutex *m)
{
}

enum { RECORDS = 500, THREADS = 3 };

static void make(struct kvstore *kv)
{
	char *data = malloc(RECORDS * 32), *p = data;

	memset(kv, 0, sizeof(*kv));
	kv->options = (struct kv_options){.file = "test",
					  .shards = 16,
					  .clients = THREADS,
					  .get_percent = 50,
					  .value_bytes = 40,
					  .zipf = 0.99};
	kv->nodes = 2;
	for (int i = 0; i < RECORDS; i++)
		p += sprintf(p, "key %d\tvalue %d\n", i, i);
	cr_assert_eq(kv_file_parse(&kv->file, "test", data, (size_t)(p - data)), 0);
	cr_assert_eq(kv_table_load(kv), 0);
	cr_assert_eq(kv_clients_create(kv), 0);
	cr_assert_eq(kv->nclients, 2);
}

static struct kv_counts load(struct kvstore *kv)
{
	struct kv_counts sum = {0};
	struct nu_bytes reply;
	int result = 0;

	for (unsigned i = 0; i < kv->nclients; i++)
		cr_assert(!kv_client_start(kv->clients[i], &result) && !result);
	/* Until each thread has done its share of everything. */
	while (sum.gets < 3000 || sum.puts < 3000) {
		memset(&sum, 0, sizeof(sum));
		for (unsigned i = 0; i < kv->nclients; i++) {
			cr_assert_eq(kv_client_read(kv->clients[i], &reply), 0);
			const struct kv_reading *r = reply.data;

			sum.gets += r->counts.gets;
			sum.puts += r->counts.puts;
			sum.errors += r->counts.errors;
			sum.missing += r->counts.missing;
			sum.stale += r->counts.stale;
			sum.corrupt += r->counts.corrupt;
			free((void *)reply.data);
		}
	}
	for (unsigned i = 0; i < kv->nclients; i++)
		cr_assert_eq(kv_client_stop(kv->clients[i]), 0);
	return sum;
}

static void expect(struct kvstore *kv, uint64_t lost, uint64_t wrong)
{
	kv_verify(kv);
	cr_assert_eq(kv->lost, lost, "lost %d", (int)kv->lost);
	cr_assert_eq(kv->wrong, wrong, "wrong %d", (int)kv->wrong);
	cr_assert_eq(kv->verified, RECORDS - lost - wrong);
}

static struct nu_bytes key(const struct kvstore *kv, unsigned i)
{
	return nu_bytes(kv->file.records[i].key, kv->file.records[i].key_len);
}

/* Puts version @version of record @i as @writer would, with @value. */
static void forge(struct kvstore *kv, unsigned i, uint32_t version, uint32_t writer, const char *value)
{
	char stored[64];
	size_t len = strlen(value);

	kv_value_make(stored, (struct kv_stamp){.version = version, .writer = writer, .index = i}, value, len,
		      kv->options.value_bytes);
	cr_assert_eq(ht_put(&kv->table, key(kv, i),
			    nu_bytes(stored, kv_stored_bytes(len, kv->options.value_bytes))),
		     0);
}

Test(verify, all_is_well, .init = cr_redirect_stdout)
{
	struct kvstore kv;
	struct kv_counts c;
	uint64_t acked = 0;

	make(&kv);
	c = load(&kv);
	cr_assert(!c.errors && !c.missing && !c.stale && !c.corrupt);
	expect(&kv, 0, 0);
	cr_assert_not(kv.failed);
	for (int i = 0; i < RECORDS; i++) {
		cr_assert_eq(kv.journal[i].acked, kv.journal[i].tried);
		acked += kv.journal[i].acked;
	}
	cr_assert_geq(acked, c.puts, "every acknowledged put is in a journal");
	/* How often which record is chosen is test_zipf's business; how many puts a time slice holds is the machine's. */
	cr_assert(acked > 0 || c.puts == 0, "puts were counted that no journal knows");
}

Test(verify, finds_damage, .init = cr_redirect_stdout)
{
	struct kvstore kv;

	make(&kv);
	load(&kv);
	kv_verify(&kv);
	struct kv_journal j = kv.journal[4];

	cr_assert_gt(j.acked, 0);
	kv.verified = kv.lost = kv.wrong = 0;
	cr_assert_eq(ht_remove(&kv.table, key(&kv, 1)), 0); /* lost */
	forge(&kv, 4, j.acked - 1, j.acked > 1 ? 4 % THREADS : KV_LOADER,
	      "value 4");						  /* an old version: lost */
	forge(&kv, 6, kv.journal[6].acked + 1, 6 % THREADS, "value 6");	  /* never sent: wrong */
	forge(&kv, 7, kv.journal[7].acked, 7 % THREADS, "value 8");	  /* not the file's value: wrong */
	forge(&kv, 8, kv.journal[8].acked, (8 + 1) % THREADS, "value 8"); /* another's: wrong */
	cr_assert_eq(ht_put(&kv.table, key(&kv, 9), nu_bytes("junk", 4)), 0); /* wrong */
	expect(&kv, 2, 4);
	cr_assert(kv.failed, "the table has a key less");
}

Test(verify, finds_a_key_too_many, .init = cr_redirect_stdout)
{
	struct kvstore kv;

	make(&kv);
	cr_assert_eq(ht_put(&kv.table, nu_bytes("extra", 5), nu_bytes("", 0)), 0);
	expect(&kv, 0, 0);
	cr_assert(kv.failed);
}

/* Every 50th put is acknowledged but not done: as if a move had lost it. */
static int lose_puts(struct nu_ref target, const struct nu_method *m)
{
	static unsigned puts;

	return !strcmp(m->name, "put") && __atomic_fetch_add(&puts, 1, __ATOMIC_RELAXED) % 50 == 49 ? 1 : 0;
}

Test(verify, clients_see_lost_puts, .init = cr_redirect_stdout)
{
	struct kvstore kv;
	struct kv_counts c;

	make(&kv);
	fake_nu_fault = lose_puts;
	c = load(&kv);
	fake_nu_fault = NULL;
	cr_assert_gt(c.stale, 0);
	kv_verify(&kv);
	cr_assert_gt(kv.lost, 0);
}

/* A put that failed may or may not have been done: either is right. */
static int fail_puts(struct nu_ref target, const struct nu_method *m)
{
	static unsigned puts;

	return !strcmp(m->name, "put") && __atomic_fetch_add(&puts, 1, __ATOMIC_RELAXED) % 20 == 19
		       ? -ETIMEDOUT
		       : 0;
}

Test(verify, unknown_outcome_is_no_loss, .init = cr_redirect_stdout)
{
	struct kvstore kv;
	struct kv_counts c;

	make(&kv);
	fake_nu_fault = fail_puts;
	c = load(&kv);
	fake_nu_fault = NULL;
	cr_assert_gt(c.errors, 0);
	cr_assert(!c.stale && !c.corrupt && !c.missing);
	expect(&kv, 0, 0);
}

/* A shard that is gone: its keys are lost, the others are still checked. */
static struct nu_ref dead;
static int dead_shard(struct nu_ref target, const struct nu_method *m)
{
	return target.id == dead.id ? -EHOSTDOWN : 0;
}

Test(verify, dead_shard, .init = cr_redirect_stdout)
{
	struct kvstore kv;

	make(&kv);
	dead = kv.table.refs[3];
	fake_nu_fault = dead_shard;
	kv_verify(&kv);
	cr_assert(kv.lost > 5 && kv.lost < RECORDS / 4, "lost %d", (int)kv.lost);
	cr_assert_eq(kv.lost + kv.verified, RECORDS);
}
