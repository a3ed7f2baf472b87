/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of member: ref\(gauge, g\); known: val */
#include "kinds.h"

NU_STRUCT(node, val(int, n), ref(gauge, g));
