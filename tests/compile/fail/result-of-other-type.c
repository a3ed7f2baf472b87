/* SPDX-License-Identifier: MIT */
/* Expect: incompatible pointer type */
#include "kinds.h"

int f(struct gauge_ref p, char **level);
int f(struct gauge_ref p, char **level)
{
	return gauge_read(p, level);
}
