/* SPDX-License-Identifier: MIT */
/* AArch64, for core/arch.h. */
#pragma once

/* In the loop of one who waits for another processor. `yield` does nothing on most of them; `isb` waits some cycles. */
static inline void nu_cpu_relax(void)
{
	__asm__ volatile("isb" : : : "memory");
}

/* A signal frame's program counter and stack pointer (with <ucontext.h>). */
#define NU_FRAME_PC(uc) ((uintptr_t)(uc)->uc_mcontext.pc)
#define NU_FRAME_SP(uc) ((uintptr_t)(uc)->uc_mcontext.sp)

/* Relocations of a table of calls (with <elf.h>). */
#define NU_R_JUMP_SLOT R_AARCH64_JUMP_SLOT
#define NU_R_IRELATIVE R_AARCH64_IRELATIVE
