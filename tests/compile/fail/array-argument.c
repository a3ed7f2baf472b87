/* SPDX-License-Identifier: MIT */
/* Expect: argument g has type grid, which is no scalar: pointers, arrays */
#include "kinds.h"

typedef int grid[4];
NU_METHOD(kinds, poke, none, val(grid, g));
