/* SPDX-License-Identifier: MIT */
/* Expect: makes integer from pointer without a cast|incompatible pointer to integer conversion */
#include "kinds.h"

int f(struct gauge_ref *p);
int f(struct gauge_ref *p)
{
	return gauge_create(NULL, "ten", p);
}
