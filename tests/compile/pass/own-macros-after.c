/* SPDX-License-Identifier: MIT */
/* Macros of the program's, defined after nu.h, that are named as what the class macros are made of. */
#include <nu/nu.h>

#include "own_macros.h"
#include "own_macros_use.h"
