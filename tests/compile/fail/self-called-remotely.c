/* SPDX-License-Identifier: MIT */
/* Expect: incompatible type for argument 1|to parameter of incompatible type 'struct gauge_ref' */
#include "kinds.h"

int f(struct gauge *self, int *level);
int f(struct gauge *self, int *level)
{
	return gauge_read(self, level);
}
