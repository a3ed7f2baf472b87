/* SPDX-License-Identifier: MIT */
/* Expect: implicit declaration of function 'gauge_write' */
#include "kinds.h"

int f(struct gauge_ref p);
int f(struct gauge_ref p)
{
	return gauge_write(p, 1);
}
