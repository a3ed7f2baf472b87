/* SPDX-License-Identifier: MIT */
/* Expect: too many arguments to function */
#include "kinds.h"

int f(struct kinds_ref p);
int f(struct kinds_ref p)
{
	int r;

	return kinds_apply(p, NULL, 1, 2, &r, 3);
}
