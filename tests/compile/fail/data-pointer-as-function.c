/* SPDX-License-Identifier: MIT */
/* Expect: argument f has type text, which is a pointer to data */
#include "kinds.h"

typedef char *text;
NU_METHOD(kinds, poke, none, fn(text, f));
