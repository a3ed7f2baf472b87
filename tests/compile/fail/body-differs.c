/* SPDX-License-Identifier: MIT */
/* Expect: conflicting types for 'gauge_do_read' */
#include "kinds.h"

int gauge_do_read(struct gauge *self, int extra)
{
	return self->level + extra;
}
