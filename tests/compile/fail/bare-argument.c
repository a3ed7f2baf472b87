/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of argument: int n; known: val */
#include "kinds.h"

NU_METHOD(kinds, poke, none, int n);
