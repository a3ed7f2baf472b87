/* SPDX-License-Identifier: MIT */
/* Expect: result has type int \*, which is no scalar: pointers */
#include "kinds.h"

NU_METHOD(kinds, where, val(int *));
