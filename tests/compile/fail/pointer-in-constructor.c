/* SPDX-License-Identifier: MIT */
/* Expect: argument name has type char \*, which is no scalar */
#include "kinds.h"

struct logger {
	int n;
};
NU_CLASS(logger, val(char *, name));
