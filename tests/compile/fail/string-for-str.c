/* SPDX-License-Identifier: MIT */
/* Expect: incompatible type for argument 2|to parameter of incompatible type 'struct nu_str' */
#include "kinds.h"

int f(struct kinds_ref p, struct nu_str *joined);
int f(struct kinds_ref p, struct nu_str *joined)
{
	return kinds_join(p, "a", nu_str("b"), joined);
}
