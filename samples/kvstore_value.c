/* SPDX-License-Identifier: MIT */
/*
 * Stamped values.
 */
#include "kvstore_value.h"

#include "htmap.h"

#include <errno.h>
#include <string.h>

static uint64_t kv_value_check(const char *stored, size_t len)
{
	return htmap_hash(stored + sizeof(uint64_t), len - sizeof(uint64_t));
}

void kv_value_make(char *to, struct kv_stamp stamp, const void *value, size_t value_len, size_t value_bytes)
{
	size_t len = kv_stored_bytes(value_len, value_bytes), end = sizeof(stamp) + value_len;

	stamp.check = 0;
	stamp.value_len = (uint32_t)value_len;
	memcpy(to, &stamp, sizeof(stamp));
	if (value_len)
		memcpy(to + sizeof(stamp), value, value_len);
	/* Padding that differs from write to write shows if two writes ever mix. */
	memset(to + end, 'a' + (int)(stamp.version % 26), len - end);
	stamp.check = kv_value_check(to, len);
	memcpy(to, &stamp.check, sizeof(stamp.check));
}

int kv_value_read(const void *stored, size_t len, uint32_t index, struct kv_stamp *stamp_p,
		  const char **value_p)
{
	struct kv_stamp stamp;

	if (len < sizeof(stamp))
		return -EBADMSG;
	memcpy(&stamp, stored, sizeof(stamp));
	if (stamp.index != index || stamp.value_len > len - sizeof(stamp) ||
	    stamp.check != kv_value_check(stored, len))
		return -EBADMSG;
	*stamp_p = stamp;
	*value_p = (const char *)stored + sizeof(stamp);
	return 0;
}
