/* SPDX-License-Identifier: MIT */
/*
 * The sharded hash table, on the stand-in for the runtime.
 */
#include "fake_nu.h"
#include "samples/hashtable.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct nu_bytes text(const char *s)
{
	return nu_bytes(s, strlen(s));
}

static void expect(const struct ht *t, const char *key, const char *value)
{
	struct nu_bytes got;
	int err = ht_get(t, text(key), &got);

	if (!value) {
		cr_assert_eq(err, -ENOENT);
		return;
	}
	cr_assert_eq(err, 0);
	cr_assert_not_null(got.data);
	cr_assert_eq(got.len_bytes, strlen(value));
	cr_assert_arr_eq(got.data, value, got.len_bytes);
	free((void *)got.data);
}

Test(hashtable, put_get_remove_size)
{
	struct ht t;
	uint64_t size;

	cr_assert_eq(ht_create(&t, 0, NULL), -EINVAL);
	cr_assert_eq(ht_create(&t, 7, NULL), 0);
	cr_assert_eq(fake_nu_proclets(), 7);
	expect(&t, "a", NULL);
	cr_assert_eq(ht_put(&t, text("a"), text("1")), 0);
	cr_assert_eq(ht_put(&t, text("a"), text("12345678901234567890")), 0);
	cr_assert_eq(ht_put(&t, text(""), text("")), 0);
	expect(&t, "a", "12345678901234567890");
	expect(&t, "", "");
	cr_assert_eq(ht_size(&t, &size), 0);
	cr_assert_eq(size, 2);
	cr_assert_eq(ht_remove(&t, text("a")), 0);
	cr_assert_eq(ht_remove(&t, text("a")), -ENOENT);
	expect(&t, "a", NULL);
	ht_release(&t);
	ht_release(&t);
	cr_assert_eq(fake_nu_proclets(), 0);
}

Test(hashtable, handle_holds_the_table)
{
	struct ht t, other, bad;
	struct nu_bytes handle;

	cr_assert_eq(ht_create(&t, 3, NULL), 0);
	cr_assert_eq(ht_put(&t, text("k"), text("v")), 0);
	handle = ht_handle(&t);
	cr_assert_eq(ht_attach(&other, handle), 0);
	cr_assert_eq(ht_attach(&bad, nu_bytes(handle.data, handle.len_bytes - 1)), -EINVAL);
	cr_assert_eq(ht_attach(&bad, nu_bytes((char *)handle.data + 8, handle.len_bytes - 8)), -EINVAL);
	cr_assert_eq(ht_attach(&bad, nu_bytes(NULL, 0)), -EINVAL);
	ht_release(&t);
	expect(&other, "k", "v");
	cr_assert_eq(fake_nu_proclets(), 3);
	ht_release(&other);
	cr_assert_eq(fake_nu_proclets(), 0);
}

/* Adds arg to a decimal counter; gives the new count; removes the key at 0. */
static void add(struct ht_value *v, struct nu_bytes arg, struct nu_out *out)
{
	int64_t count = 0, n;

	memcpy(&n, arg.data, sizeof(n));
	if (v->data)
		memcpy(&count, v->data, sizeof(count));
	count += n;
	if (!count) {
		ht_value_remove(v);
		cr_assert_null(v->data);
	} else {
		cr_assert_eq(ht_value_resize(v, sizeof(count)), 0);
		memcpy(v->data, &count, sizeof(count));
	}
	nu_out_bytes(out, &count, sizeof(count));
}

static void look(struct ht_value *v, struct nu_bytes arg, struct nu_out *out)
{
	cr_assert_eq(arg.len_bytes, 0);
	if (v->data)
		nu_out_bytes(out, v->key.data, v->key.len_bytes);
}

static int64_t apply_add(const struct ht *t, const char *key, int64_t n)
{
	struct nu_bytes result;
	int64_t count;

	cr_assert_eq(ht_apply(t, text(key), add, nu_bytes(&n, sizeof(n)), &result), 0);
	memcpy(&count, result.data, sizeof(count));
	free((void *)result.data);
	return count;
}

Test(hashtable, apply)
{
	struct ht t;
	struct nu_bytes result;
	uint64_t size;
	int64_t one = 1;

	cr_assert_eq(ht_create(&t, 5, NULL), 0);
	cr_assert_eq(apply_add(&t, "n", 5), 5);
	cr_assert_eq(apply_add(&t, "n", -2), 3);
	cr_assert_eq(ht_apply(&t, text("n"), add, nu_bytes(&one, sizeof(one)), NULL), 0);
	cr_assert_eq(ht_apply(&t, text("n"), look, nu_bytes(NULL, 0), &result), 0);
	cr_assert_arr_eq(result.data, "n", 1);
	free((void *)result.data);
	cr_assert_eq(apply_add(&t, "n", -4), 0);
	cr_assert_eq(ht_apply(&t, text("n"), look, nu_bytes(NULL, 0), &result), 0);
	cr_assert_null(result.data);
	cr_assert_eq(ht_size(&t, &size), 0);
	cr_assert_eq(size, 0);
	ht_release(&t);
}

/* ---- many ---- */

enum { MANY = 20000 };
static char names[MANY][8];
static struct nu_bytes keys[MANY + 2];
static bool got[MANY + 2];
static char big[300000];

/* Keys 0..MANY-1 with their own name as the value, but every 1000th a large one; then two keys that are not there. */
static void fill(struct ht *t, unsigned shards)
{
	struct ht_loader *l;

	memset(big, 'b', sizeof(big));
	cr_assert_eq(ht_create(t, shards, NULL), 0);
	cr_assert_eq(ht_loader_create(&l, t), 0);
	for (int i = 0; i < MANY; i++) {
		keys[i] = nu_bytes(names[i], snprintf(names[i], sizeof(names[i]), "%d", i));
		cr_assert_eq(ht_loader_put(l, keys[i], i % 1000 ? keys[i] : nu_bytes(big, sizeof(big))), 0);
	}
	cr_assert_eq(ht_loader_finish(l), 0);
	keys[MANY] = text("no");
	keys[MANY + 1] = text("");
}

static int take(size_t i, struct nu_bytes value, void *context)
{
	cr_assert_lt(i, MANY + 2);
	cr_assert_not(got[i]);
	got[i] = true;
	++*(size_t *)context;
	if (i >= MANY) {
		cr_assert_null(value.data);
	} else if (i % 1000) {
		cr_assert_eq(value.len_bytes, keys[i].len_bytes);
		cr_assert(!memcmp(value.data, keys[i].data, value.len_bytes));
	} else {
		cr_assert_eq(value.len_bytes, sizeof(big));
		cr_assert(!memcmp(value.data, big, sizeof(big)));
	}
	return 0;
}

static void check_many(unsigned shards)
{
	struct ht t;
	uint64_t size;
	size_t count = 0;

	fill(&t, shards);
	cr_assert_eq(ht_size(&t, &size), 0);
	cr_assert_eq(size, MANY);
	cr_assert_eq(ht_get_many(&t, keys, MANY + 2, take, &count), 0);
	cr_assert_eq(count, MANY + 2);
	cr_assert_eq(ht_get_many(&t, keys, 0, take, &count), 0);
	ht_release(&t);
}

Test(hashtable, many_in_one_shard)
{
	check_many(1);
}
Test(hashtable, many_in_some_shards)
{
	check_many(13);
}
Test(hashtable, many_in_more_shards_than_keys)
{
	check_many(2 * MANY);
}

static int stop_at_100(size_t i, struct nu_bytes value, void *context)
{
	return ++*(size_t *)context == 100 ? -ECANCELED : 0;
}

static int fail_put_many(struct nu_ref target, const struct nu_method *m)
{
	return strcmp(m->name, "put_many") ? 0 : -EHOSTDOWN;
}

static int fail_get_many(struct nu_ref target, const struct nu_method *m)
{
	return strcmp(m->name, "get_many") ? 0 : -EHOSTDOWN;
}

Test(hashtable, many_report_errors)
{
	struct ht t;
	struct ht_loader *l;
	size_t count = 0;

	fill(&t, 20);
	cr_assert_eq(ht_get_many(&t, keys, MANY, stop_at_100, &count), -ECANCELED);
	cr_assert_eq(count, 100);
	fake_nu_fault = fail_get_many;
	cr_assert_eq(ht_get_many(&t, keys, MANY, take, &count), -EHOSTDOWN);
	fake_nu_fault = fail_put_many;
	cr_assert_eq(ht_loader_create(&l, &t), 0);
	cr_assert_eq(ht_loader_put(l, text("x"), text("y")), 0, "nothing is sent yet");
	cr_assert_eq(ht_loader_finish(l), -EHOSTDOWN);
	fake_nu_fault = NULL;
	expect(&t, "x", NULL);
	ht_release(&t);
}

static int find_ending(const struct ht_value *v, struct nu_bytes arg, struct ht_found *found)
{
	const char *key = v->key.data;

	if (!v->key.len_bytes || key[v->key.len_bytes - 1] != *(const char *)arg.data)
		return 0;
	return ht_found_add(found, key, v->key.len_bytes) ?: ht_found_add(found, " ", 1);
}

static int refuse(const struct ht_value *v, struct nu_bytes arg, struct ht_found *found)
{
	return -EDOM;
}

static int count_words(struct nu_bytes found, void *context)
{
	for (size_t i = 0; i < found.len_bytes; i++)
		*(unsigned *)context += ((const char *)found.data)[i] == ' ';
	return 0;
}

Test(hashtable, for_each)
{
	struct ht t;
	unsigned words = 0;

	fill(&t, 20);
	cr_assert_eq(ht_for_each(&t, find_ending, text("7"), count_words, &words), 0);
	cr_assert_eq(words, MANY / 10);
	cr_assert_eq(ht_for_each(&t, find_ending, text("7"), NULL, NULL), 0);
	cr_assert_eq(ht_for_each(&t, refuse, text(""), NULL, NULL), -EDOM);
	ht_release(&t);
}
