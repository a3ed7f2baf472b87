/* SPDX-License-Identifier: MIT */
/*
 * What the store holds for a key: a stamp, the value from the file, and padding up to --value-bytes. The stamp makes a
 * value speak for itself: whoever reads it knows which write it is of and that it is whole.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct kv_stamp {
	uint64_t check;	  /* over the rest of the stamp and what follows it */
	uint32_t version; /* 0: as loaded */
	uint32_t writer;  /* number of the client thread; KV_LOADER for version 0 */
	uint32_t index;	  /* of the record in the file */
	uint32_t value_len;
};

#define KV_LOADER UINT32_MAX

/* Length of what is stored for a value of @value_len bytes. */
static inline size_t kv_stored_bytes(size_t value_len, size_t value_bytes)
{
	size_t len = sizeof(struct kv_stamp) + value_len;

	return len > value_bytes ? len : value_bytes;
}

/* Writes it to @to, kv_stored_bytes() long. check and value_len of @stamp are filled in. */
void kv_value_make(char *to, struct kv_stamp stamp, const void *value, size_t value_len, size_t value_bytes);
/*
 * Takes it apart: *value_p points into @stored. -EBADMSG: too short, or not what kv_value_make() wrote for @index.
 */
int kv_value_read(const void *stored, size_t len, uint32_t index, struct kv_stamp *stamp_p,
		  const char **value_p);
