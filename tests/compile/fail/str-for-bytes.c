/* SPDX-License-Identifier: MIT */
/* Expect: incompatible type for argument 2|to parameter of incompatible type 'struct nu_bytes' */
#include "kinds.h"

int f(struct kinds_ref p, struct nu_bytes *got);
int f(struct kinds_ref p, struct nu_bytes *got)
{
	return kinds_reverse(p, nu_str("abc"), got);
}
