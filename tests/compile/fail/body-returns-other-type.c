/* SPDX-License-Identifier: MIT */
/* Expect: conflicting types for 'gauge_do_read' */
#include "kinds.h"

long gauge_do_read(struct gauge *self)
{
	return self->level;
}
