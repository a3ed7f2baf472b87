/* SPDX-License-Identifier: MIT */
/*
 * What the code in C must know of the processor; the rest is in core/cpu-ARCH.c and sched/switch-ARCH.S, which meson
 * chooses. A new processor needs one of each.
 */
#pragma once

#if defined(__x86_64__)
#include "core/arch_x86_64.h"
#elif defined(__aarch64__)
#include "core/arch_aarch64.h"
#else
#error "a processor that Nu is not written for yet: see core/arch.h"
#endif
