/* SPDX-License-Identifier: MIT */
/* Expect: too few arguments to function */
#include "kinds.h"

int f(struct kinds_ref p);
int f(struct kinds_ref p)
{
	return kinds_apply(p, NULL, 1);
}
