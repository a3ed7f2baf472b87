/* SPDX-License-Identifier: MIT */
/* The key-value store's file of records. Input: the file. */
#include "samples/kvstore_file.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct kv_file f;
	char *copy = malloc(len ? len : 1);
	volatile unsigned char sink = 0;
	int err;

	if (!copy)
		return 0;
	if (len)
		memcpy(copy, data, len);
	err = kv_file_parse(&f, "input", copy, len);
	FUZZ_CHECK(!err == !f.cause[0]);
	for (size_t i = 0; !err && i < f.count; i++) {
		for (size_t k = 0; k < f.records[i].key_len; k++)
			sink = (unsigned char)(sink ^ f.records[i].key[k]);
		for (size_t k = 0; k < f.records[i].value_len; k++)
			sink = (unsigned char)(sink ^ f.records[i].value[k]);
		for (size_t j = 0; j < i && i < 64; j++)
			FUZZ_CHECK(f.records[i].key_len != f.records[j].key_len ||
				   memcmp(f.records[i].key, f.records[j].key, f.records[i].key_len));
	}
	if (!err)
		kv_file_fini(&f);
	return 0;
}
