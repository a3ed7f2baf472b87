/* SPDX-License-Identifier: MIT */
/* Expect: struct_pair_is_not_declared_with_NU_STRUCT */
#include "kinds.h"

struct pair {
	int a;
	char *b;
};
NU_METHOD(kinds, poke, none, obj(pair, p));
