/* SPDX-License-Identifier: MIT */
/*
 * Sizes as people write them: 512M, 4G, 64K, 1T or plain bytes. Used by the runtime and by the tools, so it needs
 * nothing but the C library.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a whole string; K, M, G, T are powers of 1024, in either case, and may be followed by "iB" or "B". False: not a
 * size, zero, or too big; *size_p is then untouched. */
static inline bool nu_size_parse(const char *s, size_t *size_p)
{
	size_t value = 0;
	unsigned shift = 0;
	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (__builtin_mul_overflow(value, (size_t)10, &value) ||
		    __builtin_add_overflow(value, (size_t)(*s - '0'), &value))
			return false;
	}
	switch (*s | 0x20) {
	case 'k':
		shift = 10;
		break;
	case 'm':
		shift = 20;
		break;
	case 'g':
		shift = 30;
		break;
	case 't':
		shift = 40;
		break;
	default:
		break;
	}
	if (shift) {
		s++;
		if (s[0] == 'i' && s[1] == 'B')
			s += 2;
		else if (s[0] == 'B')
			s++;
	}
	if (*s || !value || value > SIZE_MAX >> shift)
		return false;
	*size_p = value << shift;
	return true;
}
