/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of argument: char \*name; known: val */
#include "kinds.h"

struct logger {
	int n;
};
NU_CLASS(logger, char *name);
