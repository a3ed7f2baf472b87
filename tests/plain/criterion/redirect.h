/* SPDX-License-Identifier: MIT */
/* All that the suites use of it is in criterion.h. */
#pragma once

#include "criterion.h"
