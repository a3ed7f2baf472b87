/* SPDX-License-Identifier: MIT */
/* x86-64, for core/arch.h. */
#pragma once

/* In the loop of one who waits for another processor. */
static inline void nu_cpu_relax(void)
{
	__builtin_ia32_pause();
}

/* Loads the pointer @var, thread-local by the initial-exec model: anew each time, since a switch may have changed kernel
 * threads, and compilers keep the address of what they know to be thread-local. */
#define NU_TLS_LOAD(to, var)                                                                                 \
	__asm__ volatile("movq " #var "@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(to))

/* A signal frame's program counter and stack pointer (with <ucontext.h>). */
#define NU_FRAME_PC(uc) ((uintptr_t)(uc)->uc_mcontext.gregs[REG_RIP])
#define NU_FRAME_SP(uc) ((uintptr_t)(uc)->uc_mcontext.gregs[REG_RSP])

/* Relocations of a table of calls (with <elf.h>). */
#define NU_R_JUMP_SLOT R_X86_64_JUMP_SLOT
#define NU_R_IRELATIVE R_X86_64_IRELATIVE
