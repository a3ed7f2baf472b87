/* SPDX-License-Identifier: MIT */
/*
 * The file of keys and values that the store is loaded from: one record a line, any bytes. A line with a tab is key,
 * TAB, value; else it is a key and its line number is the value. An empty line is the empty key. Of lines with the
 * same key the last one counts. No newline is needed at the end.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define KV_RECORD_MAX_BYTES ((size_t)8 << 20) /* key and value; a call's message holds 16 MiB */

struct kv_record {
	const char *key, *value; /* into the file's bytes, or its line numbers */
	uint32_t key_len, value_len;
};

struct kv_file {
	struct kv_record *records; /* distinct keys, in the order in which they first came */
	size_t count;
	uint64_t lines, bytes;
	char *data;	 /* the file */
	char *numbers;	 /* line numbers as text */
	char cause[256]; /* of a failure: one line without newline */
};

/*
 * Reads a file, pipe or device to its end. Errors: as open(2) and read(2) have them; -ENOMEM; -EMSGSIZE a record is
 * longer than KV_RECORD_MAX_BYTES. @f->cause then says it in words, and nothing needs to be freed.
 */
int kv_file_read(struct kv_file *f, const char *path);
/* The same for bytes in memory, which are malloc'ed and taken over; @name is what causes call them. */
int kv_file_parse(struct kv_file *f, const char *name, char *data, size_t len);
void kv_file_fini(struct kv_file *f);
