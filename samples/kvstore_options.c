/* SPDX-License-Identifier: MIT */
/*
 * The command line of kvstore.
 */
#include "kvstore_options.h"

#include "kvstore_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kv_option_kind { KV_TEXT, KV_COUNT, KV_SIZE, KV_NUMBER, KV_EVENT };

struct kv_option {
	const char *name, *operand, *initial, *help;
	enum kv_option_kind kind;
	size_t offset;
	double min, max;
};

#define KV_OPTION(field) offsetof(struct kv_options, field)

/* The defaults are in here as text, so that what --help shows is what is used. */
static const struct kv_option kv_option_table[] = {
	{"file", "F", "/usr/share/dict/words", "records to load: a line is key TAB value, or a key alone",
	 KV_TEXT, KV_OPTION(file), 0, 0},
	{"shards", "N", "256", "shards of the hash table, one proclet each", KV_COUNT, KV_OPTION(shards), 1,
	 65536},
	{"clients", "N", "6", "client threads, spread over the nodes", KV_COUNT, KV_OPTION(clients), 1, 4096},
	{"seconds", "S", "8", "how long the load runs", KV_NUMBER, KV_OPTION(seconds), 0.1, 86400},
	{"get-percent", "P", "90", "share of gets; the others are puts", KV_NUMBER, KV_OPTION(get_percent), 0,
	 100},
	{"value-bytes", "B", "64", "pad stored values to this length", KV_SIZE, KV_OPTION(value_bytes), 0,
	 (double)KV_RECORD_MAX_BYTES},
	{"zipf", "THETA", "0.99", "skew of the keys' popularity; 0: all alike", KV_NUMBER, KV_OPTION(zipf), 0,
	 20},
	{"drain", "NODE@S", "1@2", "empty this node after S seconds; none: do not", KV_EVENT,
	 KV_OPTION(drain), 0, 0},
	{"restore", "NODE@S", "1@5", "bring its proclets back then; none: do not", KV_EVENT,
	 KV_OPTION(restore), 0, 0},
	{"plot", "FILE.png", "kvstore.png", "plot throughput and latency over time; none: do not", KV_TEXT,
	 KV_OPTION(plot), 0, 0},
};
#define KV_OPTION_COUNT (sizeof(kv_option_table) / sizeof(kv_option_table[0]))

static int kv_parse_number(const struct kv_option *d, const char *text, double *value_p, char *cause,
			   size_t cause_len)
{
	bool whole = d->kind == KV_COUNT || d->kind == KV_SIZE;
	char *end;
	double value = strtod(text, &end);

	/* Written so that not-a-number fails too. */
	if (end == text || *end || !(value >= d->min && value <= d->max) ||
	    (whole && value != floor(value))) {
		snprintf(cause, cause_len, "--%s %s: not a %snumber from %.*g to %.*g", d->name, text,
			 whole ? "whole " : "", 10, d->min, 10, d->max);
		return -EINVAL;
	}
	*value_p = value;
	return 0;
}

static int kv_parse_event(const struct kv_option *d, const char *text, struct kv_event *event_p, char *cause,
			  size_t cause_len)
{
	struct kv_event event = {.wanted = true};
	char *end, *end_s;
	unsigned long node;

	if (!strcmp(text, "none")) {
		event.wanted = false;
		*event_p = event;
		return 0;
	}
	node = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '@' || node > 65535)
		goto bad;
	event.node = (unsigned)node;
	event.at_s = strtod(end + 1, &end_s);
	if (end_s == end + 1 || *end_s || !(event.at_s >= 0 && event.at_s <= 86400))
		goto bad;
	*event_p = event;
	return 0;
bad:
	snprintf(cause, cause_len, "--%s %s: not NODE@SECONDS (as in 1@2) nor none", d->name, text);
	return -EINVAL;
}

static int kv_option_set(struct kv_options *o, const struct kv_option *d, const char *text, char *cause,
			 size_t cause_len)
{
	void *field = (char *)o + d->offset;
	double number = 0;
	int err = 0;

	switch (d->kind) {
	case KV_TEXT:
		*(const char **)field = text;
		break;
	case KV_EVENT:
		err = kv_parse_event(d, text, field, cause, cause_len);
		break;
	default:
		err = kv_parse_number(d, text, &number, cause, cause_len);
		if (err)
			break;
		if (d->kind == KV_COUNT)
			*(unsigned *)field = (unsigned)number;
		else if (d->kind == KV_SIZE)
			*(size_t *)field = (size_t)number;
		else
			*(double *)field = number;
	}
	return err;
}

static const struct kv_option *kv_option_find(const char *name, size_t len)
{
	for (size_t i = 0; i < KV_OPTION_COUNT; i++) {
		if (strlen(kv_option_table[i].name) == len && !memcmp(kv_option_table[i].name, name, len))
			return &kv_option_table[i];
	}
	return NULL;
}

/* One option at argv[*i_p], which is left at its last word. */
static int kv_option_take(struct kv_options *o, int argc, char **argv, int *i_p, char *cause,
			  size_t cause_len)
{
	const char *word = argv[*i_p], *text = NULL;
	const struct kv_option *d = NULL;
	int err;

	if (!strncmp(word, "--", 2)) {
		size_t len = strcspn(word + 2, "=");

		d = kv_option_find(word + 2, len);
		if (word[2 + len])
			text = word + 2 + len + 1;
	}
	if (!d) {
		snprintf(cause, cause_len, "%s: no such option; see --help", word);
		return -EINVAL;
	}
	if (!text && *i_p + 1 < argc)
		text = argv[++*i_p];
	if (!text) {
		snprintf(cause, cause_len, "--%s needs %s", d->name, d->operand);
		return -EINVAL;
	}
	err = kv_option_set(o, d, text, cause, cause_len);
	if (!err && d->kind == KV_EVENT)
		((struct kv_event *)((char *)o + d->offset))->given = true;
	return err;
}

int kv_options_parse(struct kv_options *o, int argc, char **argv, char *cause, size_t cause_len)
{
	int err;

	memset(o, 0, sizeof(*o));
	for (size_t i = 0; i < KV_OPTION_COUNT; i++) {
		err = kv_option_set(o, &kv_option_table[i], kv_option_table[i].initial, cause, cause_len);
		if (err)
			return err;
	}
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			o->help = true;
			return 0;
		}
		err = kv_option_take(o, argc, argv, &i, cause, cause_len);
		if (err)
			return err;
	}
	/* Whoever drains another node than the default one means to restore that one. */
	if (o->drain.given && !o->restore.given) {
		o->restore.node = o->drain.node;
		if (o->restore.at_s <= o->drain.at_s)
			o->restore.at_s = (o->drain.at_s + o->seconds) / 2;
	}
	if (!o->drain.wanted)
		o->restore.wanted = false;
	if (!*o->plot || !strcmp(o->plot, "none"))
		o->plot = NULL;
	return 0;
}

void kv_options_help(void)
{
	char name[64];

	printf("Usage: nu_launch -n NODES kvstore [OPTION]...\n"
	       "Loads a file into a hash table whose shards are proclets, runs a mixed load on it, empties a "
	       "node\n"
	       "under the load and fills it again, and then checks every key. Without nu_launch: on one "
	       "node.\n\n");
	for (size_t i = 0; i < KV_OPTION_COUNT; i++) {
		const struct kv_option *d = &kv_option_table[i];

		snprintf(name, sizeof(name), "--%s %s", d->name, d->operand);
		printf("  %-22s %s (%s)\n", name, d->help, d->initial);
	}
	printf("  %-22s %s\n", "--help", "show this");
	printf("\nExit status: 0 all is well; 1 something failed, or a key was lost or wrong; 2 bad "
	       "usage.\n");
}

static int kv_event_check(const struct kv_event *e, const char *name, unsigned nodes, char *cause,
			  size_t cause_len)
{
	if (!e->wanted || e->node < nodes)
		return 0;
	snprintf(cause, cause_len, "--%s %u@%g: the job's nodes are 0 to %u", name, e->node, e->at_s,
		 nodes - 1);
	return -EINVAL;
}

int kv_options_fit(struct kv_options *o, unsigned nodes, char *cause, size_t cause_len)
{
	*cause = 0;
	if (nodes < 2) {
		if (o->drain.wanted && o->drain.given)
			snprintf(cause, cause_len, "one node: nowhere to drain to, so no drain");
		o->drain.wanted = o->restore.wanted = false;
		return 0;
	}
	if (kv_event_check(&o->drain, "drain", nodes, cause, cause_len) ||
	    kv_event_check(&o->restore, "restore", nodes, cause, cause_len))
		return -EINVAL;
	if (o->restore.wanted && (o->restore.node != o->drain.node || o->restore.at_s <= o->drain.at_s)) {
		snprintf(cause, cause_len,
			 "--restore %u@%g: not the drained node, or not after --drain %u@%g", o->restore.node,
			 o->restore.at_s, o->drain.node, o->drain.at_s);
		return -EINVAL;
	}
	/* A run too short for them ends before they come. */
	if (o->drain.wanted && o->drain.at_s >= o->seconds) {
		if (o->drain.given)
			snprintf(cause, cause_len, "--drain at %g s: the load ends before, so no drain",
				 o->drain.at_s);
		o->drain.wanted = o->restore.wanted = false;
	} else if (o->restore.wanted && o->restore.at_s >= o->seconds) {
		if (o->restore.given)
			snprintf(cause, cause_len, "--restore at %g s: the load ends before, so no restore",
				 o->restore.at_s);
		o->restore.wanted = false;
	}
	return 0;
}
