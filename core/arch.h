/* SPDX-License-Identifier: MIT */
/*
 * What the code in C must know of the processor; the rest is in core/cpu-ARCH.c and sched/switch-ARCH.S, which meson
 * chooses. A new processor needs one of each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#include "core/arch_x86_64.h"
#elif defined(__aarch64__)
#include "core/arch_aarch64.h"
#else
#error "a processor that Nu is not written for yet: see core/arch.h"
#endif

struct ucontext_t;
/* Bytes in which XSAVE, or what there is in its place, keeps the registers that a function's results may be in, and which those are.
 * 0: there is none. core/cpu-ARCH.c */
uint32_t nu_cpu_result_registers(uint32_t *mask_p);
/* Whether a signal's frame holds registers that another process may not be allowed to have: live tiles of AMX. Signal-safe. */
bool nu_cpu_frame_has_tiles(const struct ucontext_t *frame);
