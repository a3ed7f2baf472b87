/* SPDX-License-Identifier: MIT */
/* x86-64, for core/arch.h. */
#pragma once

#include <stdint.h>

/* Of the C library's first release here: the version of its oldest symbols. */
#define NU_LIBC_VERSION "GLIBC_2.2.5"

/* In the loop of one who waits for another processor. */
static inline void nu_cpu_relax(void)
{
	__builtin_ia32_pause();
}

/* What makes of lzcnt's result the highest bit's number: 31; 0 where the processor takes the instruction for bsr. */
extern uint32_t nu_cpu_lzcnt __attribute__((visibility("hidden")));

/* The highest bit of @x, not 0. bsr, which is all that a compiler may count on, is microcode on some processors. */
static inline unsigned nu_cpu_log2(uint32_t x)
{
	uint32_t n;

	__asm__("lzcntl %1, %0" : "=r"(n) : "r"(x) : "cc");
	return n ^ nu_cpu_lzcnt;
}

/* Loads the pointer @var, thread-local by the initial-exec model: anew each time, since a switch may have changed kernel
 * threads, and compilers keep the address of what they know to be thread-local. */
#define NU_TLS_LOAD(to, var)                                                                                 \
	__asm__ volatile("movq " #var "@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(to))

/* A signal frame's program counter and stack pointer (with <ucontext.h>). */
#define NU_FRAME_PC(uc) ((uintptr_t)(uc)->uc_mcontext.gregs[REG_RIP])
#define NU_FRAME_SP(uc) ((uintptr_t)(uc)->uc_mcontext.gregs[REG_RSP])

/* The frame pointer in a context that the switch has saved at @sp, and a return address as found on a stack. */
#define NU_SAVED_FRAME(sp)    (((const uintptr_t *)(sp))[6])
#define NU_CODE_ADDRESS(from) (from)

/* Relocations of a table of calls (with <elf.h>). */
#define NU_R_JUMP_SLOT R_X86_64_JUMP_SLOT
#define NU_R_IRELATIVE R_X86_64_IRELATIVE
