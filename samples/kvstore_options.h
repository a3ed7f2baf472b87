/* SPDX-License-Identifier: MIT */
/*
 * What the user asks of kvstore.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Something to do with a node at a time. */
struct kv_event {
	bool wanted;
	bool given; /* by the user, not by default */
	unsigned node;
	double at_s;
};

struct kv_options {
	const char *file;
	unsigned shards, clients;
	double seconds;
	double get_percent;
	size_t value_bytes;
	double zipf;
	struct kv_event drain, restore;
	const char *plot; /* NULL: none */
	bool help;
};

/*
 * Takes @argv apart: `--name value` or `--name=value`. Not by getopt: that keeps its state in variables which the
 * linker puts among the program's own, and those are write-protected once the program runs.
 * Errors: -EINVAL, with one line on what is wrong in @cause.
 */
int kv_options_parse(struct kv_options *o, int argc, char **argv, char *cause, size_t cause_len);
/* The text of --help, to stdout. */
void kv_options_help(void);
/*
 * Fits the options to a job of @nodes: with one node there is nowhere to drain to. Errors: -EINVAL as above; @cause is
 * also set, with 0 returned, where something the user asked for is left out; else it is empty.
 */
int kv_options_fit(struct kv_options *o, unsigned nodes, char *cause, size_t cause_len);
