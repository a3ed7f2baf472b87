/* SPDX-License-Identifier: MIT */
/* Expect: argument f has type long, which is no pointer to a function */
#include "kinds.h"

NU_METHOD(kinds, poke, none, fn(long, f));
