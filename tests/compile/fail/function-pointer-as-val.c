/* SPDX-License-Identifier: MIT */
/* Expect: argument f has type binary_fn, which is no scalar: .* use .* fn */
#include "kinds.h"

NU_METHOD(kinds, poke, none, val(binary_fn, f));
