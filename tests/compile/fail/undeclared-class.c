/* SPDX-License-Identifier: MIT */
/* Expect: class_logger_is_not_declared_with_NU_CLASS */
#include "kinds.h"

NU_METHOD(kinds, poke, none, ref(logger, l));
