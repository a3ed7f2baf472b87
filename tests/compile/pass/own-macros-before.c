/* SPDX-License-Identifier: MIT */
/* Macros of the program's, defined before nu.h; those without parameters are not members of what nu.h declares. */
#define NU_OWN_BEFORE
#include "own_macros.h"

#include <nu/nu.h>

#include "own_macros_use.h"
