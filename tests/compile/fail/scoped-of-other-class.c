/* SPDX-License-Identifier: MIT */
/* Expect: incompatible pointer type */
#include "kinds.h"

int f(void);
int f(void)
{
	NU_SCOPED(kinds, p);

	return gauge_create(NULL, 1, &p);
}
