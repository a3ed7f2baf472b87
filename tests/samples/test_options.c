/* SPDX-License-Identifier: MIT */
/*
 * kvstore's command line.
 */
#include "samples/kvstore_options.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <errno.h>
#include <string.h>

static char cause[320];

static int parse(struct kv_options *o, char *const *words)
{
	int argc = 1;
	char *argv[16] = {"kvstore"};

	for (; *words; words++)
		argv[argc++] = *words;
	return kv_options_parse(o, argc, argv, cause, sizeof(cause));
}
#define PARSE(o, ...) parse(o, (char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

Test(options, defaults)
{
	struct kv_options o;

	cr_assert_eq(PARSE(&o), 0);
	cr_assert_str_eq(o.file, "/usr/share/dict/words");
	cr_assert_eq(o.shards, 256);
	cr_assert_eq(o.clients, 6);
	cr_assert_eq(o.seconds, 8);
	cr_assert_eq(o.get_percent, 90);
	cr_assert_eq(o.value_bytes, 64);
	cr_assert_eq(o.zipf, 0.99);
	cr_assert(o.drain.wanted && !o.drain.given && o.drain.node == 1 && o.drain.at_s == 2);
	cr_assert(o.restore.wanted && o.restore.node == 1 && o.restore.at_s == 5);
	cr_assert_str_eq(o.plot, "kvstore.png");
	cr_assert_eq(kv_options_fit(&o, 3, cause, sizeof(cause)), 0);
	cr_assert_str_empty(cause);
	cr_assert(o.drain.wanted);
}

Test(options, both_spellings)
{
	struct kv_options o;

	cr_assert_eq(PARSE(&o, "--shards=1000", "--zipf", "0", "--plot=none", "--file", "-"), 0);
	cr_assert_eq(o.shards, 1000);
	cr_assert_eq(o.zipf, 0);
	cr_assert_null(o.plot);
	cr_assert_str_eq(o.file, "-");
	cr_assert_eq(PARSE(&o, "--help"), 0);
	cr_assert(o.help);
}

Test(options, refused_with_one_line)
{
	struct kv_options o;
	char *bad[][2] = {{"--shards", "0"},   {"--shards", "65537"},	 {"--shards", "1.5"},
			  {"--shards", "x"},   {"--shards", ""},	 {"--clients", "-1"},
			  {"--zipf", "nan"},   {"--get-percent", "101"}, {"--drain", "1"},
			  {"--drain", "@2"},   {"--drain", "1@"},	 {"--drain", "-1@2"},
			  {"--drain", "1@2x"}, {"--seconds", "inf"},	 {"--no-such", "1"},
			  {"shards", "1"},     {"--value-bytes", "-1"},	 {"--restore", "70000@1"},
			  {"--shard", "1"},    {"--shardss", "1"}};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cause[0] = 0;
		cr_assert_eq(PARSE(&o, bad[i][0], bad[i][1]), -EINVAL, "%s %s", bad[i][0], bad[i][1]);
		cr_assert(cause[0] && !strchr(cause, '\n'));
	}
	cr_assert_eq(PARSE(&o, "--shards"), -EINVAL);
}

Test(options, fitted_to_the_job)
{
	struct kv_options o;

	/* One node: silently no drain, unless it was asked for. */
	cr_assert_eq(PARSE(&o), 0);
	cr_assert_eq(kv_options_fit(&o, 1, cause, sizeof(cause)), 0);
	cr_assert(!o.drain.wanted && !o.restore.wanted && !*cause);
	cr_assert_eq(PARSE(&o, "--drain", "0@1"), 0);
	cr_assert_eq(kv_options_fit(&o, 1, cause, sizeof(cause)), 0);
	cr_assert(!o.drain.wanted && *cause);

	cr_assert_eq(PARSE(&o, "--drain", "3@1"), 0);
	cr_assert_eq(kv_options_fit(&o, 3, cause, sizeof(cause)), -EINVAL);
	cr_assert_eq(PARSE(&o, "--drain", "2@3", "--restore", "2@3"), 0);
	cr_assert_eq(kv_options_fit(&o, 3, cause, sizeof(cause)), -EINVAL);

	/* Who drains another node means that one to be restored too. */
	cr_assert_eq(PARSE(&o, "--drain", "2@6"), 0);
	cr_assert_eq(kv_options_fit(&o, 3, cause, sizeof(cause)), 0);
	cr_assert(o.restore.wanted && o.restore.node == 2 && o.restore.at_s > 6 && o.restore.at_s < 8);

	cr_assert_eq(PARSE(&o, "--drain", "none"), 0);
	cr_assert_eq(kv_options_fit(&o, 3, cause, sizeof(cause)), 0);
	cr_assert(!o.drain.wanted && !o.restore.wanted);

	/* A run that ends before the default times just has none. */
	cr_assert_eq(PARSE(&o, "--seconds", "1"), 0);
	cr_assert_eq(kv_options_fit(&o, 3, cause, sizeof(cause)), 0);
	cr_assert(!o.drain.wanted && !o.restore.wanted && !*cause);
}
