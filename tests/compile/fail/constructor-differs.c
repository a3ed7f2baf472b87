/* SPDX-License-Identifier: MIT */
/* Expect: conflicting types for 'gauge_init' */
#include "kinds.h"

int gauge_init(struct gauge *self, long level)
{
	return self->level = (int)level;
}
