/* SPDX-License-Identifier: MIT */
/* Expect: incompatible (function )?pointer type */
#include "kinds.h"

static int negate(int a)
{
	return -a;
}
int f(struct kinds_ref p, int *r);
int f(struct kinds_ref p, int *r)
{
	return kinds_apply(p, negate, 1, 2, r);
}
