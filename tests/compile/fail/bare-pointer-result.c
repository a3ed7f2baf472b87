/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of result: int \*; known: none val */
#include "kinds.h"

NU_METHOD(kinds, where, int *);
