/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of argument: ptr\(int, n\); known: val */
#include "kinds.h"

NU_METHOD(kinds, poke, none, ptr(int, n));
