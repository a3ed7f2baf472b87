/* SPDX-License-Identifier: MIT */
/* Expect: incompatible type for argument 2|to parameter of incompatible type 'struct gauge_ref' */
#include "kinds.h"

int f(struct kinds_ref p, struct gauge_ref *got);
int f(struct kinds_ref p, struct gauge_ref *got)
{
	return kinds_owner(p, p, got);
}
