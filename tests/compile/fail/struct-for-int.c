/* SPDX-License-Identifier: MIT */
/* Expect: incompatible type for argument 2|passing 'struct gauge_ref' to parameter of incompatible type 'int' */
#include "kinds.h"

int f(struct gauge_ref *p);
int f(struct gauge_ref *p)
{
	return gauge_create(NULL, *p, p);
}
