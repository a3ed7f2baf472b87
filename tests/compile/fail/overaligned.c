/* SPDX-License-Identifier: MIT */
/* Expect: argument d has type long double, which is aligned to more than 8 bytes */
#include "kinds.h"

NU_METHOD(kinds, poke, none, val(long double, d));
