/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of result: void; known: none val */
#include "kinds.h"

NU_METHOD(kinds, poke, void, val(int, n));
