/* SPDX-License-Identifier: MIT */
/* Keys from the job's secret: SipHash-2-4, a keyed hash whose values do not tell the key. */
#include "rpc/rpc.h"

#include <string.h>

static uint64_t turn(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void mix_rounds(uint64_t v[4], unsigned rounds)
{
	while (rounds--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = turn(v[1], 13) ^ v[0];
		v[3] = turn(v[3], 16) ^ v[2];
		v[0] = turn(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = turn(v[1], 17) ^ v[2];
		v[3] = turn(v[3], 21) ^ v[0];
		v[2] = turn(v[2], 32);
	}
}

static void mix_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	mix_rounds(v, 2);
	v[0] ^= word;
}

uint64_t nu_siphash(const uint8_t key[16], const void *data, size_t len)
{
	static const uint64_t start[4] = {0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261,
					  0x7465646279746573};
	const uint8_t *at = data;
	uint64_t k[2], v[4], word, last = (uint64_t)len << 56;

	memcpy(k, key, sizeof(k));
	for (unsigned i = 0; i < 4; i++)
		v[i] = start[i] ^ k[i & 1];
	for (; len >= sizeof(word); at += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		mix_word(v, word);
	}
	for (unsigned i = 0; i < len; i++)
		last |= (uint64_t)at[i] << 8 * i;
	mix_word(v, last);
	v[2] ^= 0xff;
	mix_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t nu_key_derive(const uint8_t secret[32], const char *purpose)
{
	uint8_t text[16 + 32] = {0};
	size_t len = strlen(purpose);
	uint64_t key;

	NU_ASSERT(len <= 32);
	memcpy(text, secret + 16, 16);
	memcpy(text + 16, purpose, len);
	key = nu_siphash(secret, text, sizeof(text));
	explicit_bzero(text, sizeof(text));
	return key;
}
