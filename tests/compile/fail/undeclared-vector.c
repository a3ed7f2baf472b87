/* SPDX-License-Identifier: MIT */
/* Expect: vec_longs_is_not_declared_with_NU_VEC */
#include "kinds.h"

NU_METHOD(kinds, poke, none, vec(longs, l));
