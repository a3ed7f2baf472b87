/* SPDX-License-Identifier: MIT */
/* Expect: unknown kind of member: str\(name\); known: val */
#include "kinds.h"

NU_STRUCT(node, val(int, n), str(name));
