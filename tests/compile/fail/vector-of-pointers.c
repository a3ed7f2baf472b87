/* SPDX-License-Identifier: MIT */
/* Expect: item of vector names has type char \*, which is no scalar: pointers */
#include "kinds.h"

NU_VEC(names, char *);
