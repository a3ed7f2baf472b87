/* SPDX-License-Identifier: MIT */
/* Expect: incompatible type for argument 2|to parameter of incompatible type 'struct words' */
#include "kinds.h"

int f(struct kinds_ref p, struct points v, struct words *got);
int f(struct kinds_ref p, struct points v, struct words *got)
{
	return kinds_squares(p, v, 1, got);
}
