/* SPDX-License-Identifier: MIT */
/*
 * The map inside a shard.
 */
#include "samples/htmap.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void put(struct htmap *m, const char *key, size_t key_len, const char *value, size_t len)
{
	struct htmap_entry *e;

	cr_assert_eq(htmap_resize(m, htmap_hash(key, key_len), key, key_len, len, &e), 0);
	memcpy(htmap_value(e), value, len);
}

static struct htmap_entry *find(struct htmap *m, const char *key, size_t key_len)
{
	return htmap_find(m, htmap_hash(key, key_len), key, key_len);
}

Test(htmap, empty)
{
	struct htmap m = {0};

	cr_assert_null(find(&m, "a", 1));
	cr_assert_eq(htmap_remove(&m, htmap_hash("a", 1), "a", 1), -ENOENT);
	cr_assert_null(htmap_next(&m, NULL));
	htmap_fini(&m);
}

Test(htmap, empty_and_binary_keys_differ)
{
	struct htmap m = {0};

	put(&m, "", 0, "none", 4);
	put(&m, "\0", 1, "one", 3);
	put(&m, "\0\0", 2, "two", 3);
	cr_assert_eq(m.count, 3);
	cr_assert_eq(find(&m, "", 0)->value_len, 4);
	cr_assert_arr_eq(htmap_value(find(&m, "\0\0", 2)), "two", 3);
	htmap_fini(&m);
}

Test(htmap, resize_keeps_what_fits)
{
	struct htmap m = {0};
	struct htmap_entry *e;
	uint64_t h = htmap_hash("k", 1);

	put(&m, "k", 1, "0123456789", 10);
	cr_assert_eq(htmap_resize(&m, h, "k", 1, 5000, &e), 0);
	cr_assert_arr_eq(htmap_value(e), "0123456789", 10);
	memset(htmap_value(e), 'x', 5000);
	cr_assert_eq(htmap_resize(&m, h, "k", 1, 3, &e), 0);
	cr_assert_eq(e->value_len, 3);
	cr_assert_lt(e->value_room, 100, "a value that shrank gives its memory back");
	cr_assert_arr_eq(htmap_value(e), "xxx", 3);
	cr_assert_eq(m.count, 1);
	htmap_fini(&m);
}

/* Grows and shrinks over random keys, against a plain array as the model. */
Test(htmap, against_a_model)
{
	enum { KEYS = 5000, STEPS = 100000 };
	static int model[KEYS]; /* -1: absent */
	struct htmap m = {0};
	size_t live = 0, seen;
	char key[16];

	memset(model, -1, sizeof(model));
	srand(7);
	for (int step = 0; step < STEPS; step++) {
		int k = rand() % KEYS, n = snprintf(key, sizeof(key), "%d", k), value = step;
		/* Fill up first, then drain, so that the table passes through all its sizes. */
		bool add = rand() % 100 < (step < STEPS / 2 ? 80 : 15);

		if (add) {
			put(&m, key, (size_t)n, (char *)&value, sizeof(value));
			live += model[k] < 0;
			model[k] = value;
		} else {
			cr_assert_eq(htmap_remove(&m, htmap_hash(key, (size_t)n), key, (size_t)n),
				     model[k] < 0 ? -ENOENT : 0);
			live -= model[k] >= 0;
			model[k] = -1;
		}
		cr_assert_eq(m.count, live);
	}
	for (int k = 0; k < KEYS; k++) {
		int n = snprintf(key, sizeof(key), "%d", k), value;
		struct htmap_entry *e = find(&m, key, (size_t)n);

		cr_assert_eq(e != NULL, model[k] >= 0);
		if (e) {
			memcpy(&value, htmap_value(e), sizeof(value));
			cr_assert_eq(value, model[k]);
		}
	}
	seen = 0;
	for (struct htmap_entry *e = NULL; (e = htmap_next(&m, e));)
		seen++;
	cr_assert_eq(seen, live);
	cr_assert_leq(m.nbuckets, 4 * live + 16);
	htmap_fini(&m);
}

/* Like keys must not crowd in few shards or buckets. */
Test(htmap, hash_spreads)
{
	enum { SHARDS = 256, KEYS = 100000 };
	static unsigned shard[SHARDS], bucket[SHARDS];
	char key[16];

	for (int k = 0; k < KEYS; k++) {
		uint64_t h = htmap_hash(key, (size_t)snprintf(key, sizeof(key), "%d", k));

		shard[htmap_shard(h, SHARDS)]++;
		bucket[h % SHARDS]++;
	}
	for (int i = 0; i < SHARDS; i++) {
		/* Mean 391, deviation 20. */
		cr_assert(shard[i] > 270 && shard[i] < 510, "shard %d has %u", i, shard[i]);
		cr_assert(bucket[i] > 270 && bucket[i] < 510, "bucket %d has %u", i, bucket[i]);
	}
}
