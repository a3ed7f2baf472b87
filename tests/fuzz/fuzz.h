/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share: how they read their input. A target is one file with LLVMFuzzerTestOneInput(); it runs
 * under libFuzzer (tests/fuzz/run) and, with replay.c, over its corpus in an ordinary build.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What the code under test promises, and broke. */
#define FUZZ_CHECK(e)                                                                                        \
	do {                                                                                                 \
		if (!(e)) {                                                                                  \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #e);                      \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

struct in {
	const uint8_t *at;
	size_t left;
};

/* Beyond the end everything is 0. */
static inline void in_take(struct in *in, void *to, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	if (n)
		memcpy(to, in->at, n);
	memset((char *)to + n, 0, len - n);
	in->at += n;
	in->left -= n;
}
static inline uint8_t in_u8(struct in *in)
{
	uint8_t v;

	in_take(in, &v, sizeof(v));
	return v;
}
static inline uint16_t in_u16(struct in *in)
{
	uint16_t v;

	in_take(in, &v, sizeof(v));
	return v;
}
static inline uint32_t in_u32(struct in *in)
{
	uint32_t v;

	in_take(in, &v, sizeof(v));
	return v;
}
static inline uint64_t in_u64(struct in *in)
{
	uint64_t v;

	in_take(in, &v, sizeof(v));
	return v;
}
/* A number that is mostly small, and anything at times. */
static inline uint64_t in_number(struct in *in)
{
	uint8_t v = in_u8(in);

	return v < 0xf0 ? v : v < 0xf8 ? (uint64_t)1 << in_u8(in) % 64 : v < 0xfc ? in_u32(in) : in_u64(in);
}
