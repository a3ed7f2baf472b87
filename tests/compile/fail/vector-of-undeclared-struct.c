/* SPDX-License-Identifier: MIT */
/* Expect: struct_pair_is_not_declared_with_NU_STRUCT */
#include "kinds.h"

struct pair {
	char *a, *b;
};
NU_VEC_OBJ(pairs, pair);
