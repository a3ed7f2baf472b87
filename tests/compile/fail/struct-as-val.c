/* SPDX-License-Identifier: MIT */
/* Expect: argument p has type struct pair, which is no scalar */
#include "kinds.h"

struct pair {
	int a;
	char *b;
};
NU_METHOD(kinds, poke, none, val(struct pair, p));
