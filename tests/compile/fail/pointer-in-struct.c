/* SPDX-License-Identifier: MIT */
/* Expect: member next has type struct node \*, which is no scalar: pointers */
#include "kinds.h"

NU_STRUCT(node, val(int, n), val(struct node *, next));
