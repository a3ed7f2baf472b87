/* SPDX-License-Identifier: MIT */
/* Expect: argument where has type int \*, which is no scalar: pointers */
#include "kinds.h"

NU_METHOD(kinds, poke, none, val(int *, where));
