/* SPDX-License-Identifier: MIT */
/* Expect: ignoring return value of (function )?('gauge_read')?.*declared with .*warn_unused_result */
#include "kinds.h"

void f(struct gauge_ref p, int *level);
void f(struct gauge_ref p, int *level)
{
	gauge_read(p, level);
}
