/* SPDX-License-Identifier: MIT */
/* Expect: incompatible pointer type */
#include "kinds.h"

int f(struct kinds_ref p);
int f(struct kinds_ref p)
{
	NU_SCOPED_FUTURE(kinds, join, future);

	return kinds_nothing_async(p, &future);
}
