/* SPDX-License-Identifier: MIT */
/* Expect: ignoring return value of (function )?('gauge_read_wait')?.*declared with .*warn_unused_result */
#include "kinds.h"

void f(struct gauge_read_future *future, int *level);
void f(struct gauge_read_future *future, int *level)
{
	gauge_read_wait(future, level);
}
