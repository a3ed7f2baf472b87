/* SPDX-License-Identifier: MIT */
/* Expect: too few arguments to function */
#include "kinds.h"

int f(struct gauge_ref p);
int f(struct gauge_ref p)
{
	return gauge_read(p);
}
