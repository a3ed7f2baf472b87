/* SPDX-License-Identifier: MIT */
/*
 * kvstore's file of keys and values, with every oddity that a user's file may have.
 */
#include "samples/kvstore_file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void parse(struct kv_file *f, const char *text, size_t len)
{
	char *data = malloc(len + 1);

	memcpy(data, text, len);
	cr_assert_eq(kv_file_parse(f, "test", data, len), 0, "%s", f->cause);
}
#define PARSE(f, text) parse(f, text, sizeof(text) - 1)

static void expect(const struct kv_file *f, size_t i, const char *key, const char *value)
{
	const struct kv_record *r = &f->records[i];

	cr_assert_lt(i, f->count);
	cr_assert_eq(r->key_len, strlen(key));
	cr_assert_eq(r->value_len, strlen(value), "value %.*s", (int)r->value_len, r->value);
	cr_assert(!memcmp(r->key, key, r->key_len) && !memcmp(r->value, value, r->value_len));
}

Test(file, keys_get_line_numbers_and_tabs_split)
{
	struct kv_file f;

	PARSE(&f, "one\ntwo\tzwei\nthree\tdrei\tdritte\n");
	cr_assert_eq(f.count, 3);
	expect(&f, 0, "one", "1");
	expect(&f, 1, "two", "zwei");
	expect(&f, 2, "three", "drei\tdritte");
	kv_file_fini(&f);
}

Test(file, last_duplicate_wins)
{
	struct kv_file f;

	PARSE(&f, "a\nb\na\tx\nb\n");
	cr_assert_eq(f.count, 2);
	cr_assert_eq(f.lines, 4);
	expect(&f, 0, "a", "x");
	expect(&f, 1, "b", "4");
	kv_file_fini(&f);
}

Test(file, empty_lines_and_no_final_newline)
{
	struct kv_file f;

	PARSE(&f, "\na\n\n\tempty key\nz");
	cr_assert_eq(f.count, 3);
	cr_assert_eq(f.lines, 5);
	expect(&f, 0, "", "empty key");
	expect(&f, 1, "a", "2");
	expect(&f, 2, "z", "5");
	kv_file_fini(&f);
}

Test(file, nothing)
{
	struct kv_file f;

	PARSE(&f, "");
	cr_assert_eq(f.count, 0);
	cr_assert_eq(f.lines, 0);
	kv_file_fini(&f);
}

Test(file, binary)
{
	struct kv_file f;

	PARSE(&f, "\0\0\t\xff\0\n\0\n\r\n");
	cr_assert_eq(f.count, 3);
	cr_assert_eq(f.records[0].key_len, 2);
	cr_assert_eq(f.records[0].value_len, 2);
	cr_assert_arr_eq(f.records[0].value, "\xff", 2);
	cr_assert_eq(f.records[1].key_len, 1);
	cr_assert_arr_eq(f.records[2].key, "\r", 1);
	kv_file_fini(&f);
}

Test(file, record_too_long)
{
	size_t len = KV_RECORD_MAX_BYTES + 3;
	char *data = malloc(len);
	struct kv_file f;

	memset(data, 'x', len);
	memcpy(data, "k\n", 2);
	cr_assert_eq(kv_file_parse(&f, "test", data, len), -EMSGSIZE);
	cr_assert_not_null(strstr(f.cause, "line 2"), "%s", f.cause);
	cr_assert_null(f.data);

	data = malloc(len);
	memset(data, 'x', len);
	cr_assert_eq(kv_file_parse(&f, "test", data, KV_RECORD_MAX_BYTES), 0);
	cr_assert_eq(f.records[0].key_len, KV_RECORD_MAX_BYTES);
	kv_file_fini(&f);
}

Test(file, a_million)
{
	enum { N = 1000000 };
	char *data = malloc(N * 16), *p = data;
	struct kv_file f;

	for (int i = 0; i < N; i++)
		p += sprintf(p, "key %d\n", i);
	cr_assert_eq(kv_file_parse(&f, "test", data, (size_t)(p - data)), 0);
	cr_assert_eq(f.count, N);
	expect(&f, N - 1, "key 999999", "1000000");
	kv_file_fini(&f);
}

Test(file, from_a_pipe)
{
	struct kv_file f;
	int fds[2];
	char path[32];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "a\tb\nc\n", 6), 6);
	close(fds[1]);
	snprintf(path, sizeof(path), "/dev/fd/%d", fds[0]);
	cr_assert_eq(kv_file_read(&f, path), 0, "%s", f.cause);
	cr_assert_eq(f.count, 2);
	expect(&f, 0, "a", "b");
	kv_file_fini(&f);
	close(fds[0]);
}

Test(file, missing_or_no_file)
{
	struct kv_file f;

	cr_assert_eq(kv_file_read(&f, "/nonexistent/words"), -ENOENT);
	cr_assert_str_eq(f.cause, "/nonexistent/words: No such file or directory");
	cr_assert_eq(kv_file_read(&f, "/"), -EISDIR);
	cr_assert_null(strchr(f.cause, '\n'));
}
