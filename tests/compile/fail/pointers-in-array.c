/* SPDX-License-Identifier: MIT */
/* Expect: member names has type char \*, which is no scalar: pointers */
#include "kinds.h"

NU_STRUCT(node, val(int, n), arr(char *, names, 4));
