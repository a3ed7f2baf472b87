/* SPDX-License-Identifier: MIT */
/* AArch64, for core/arch.h. */
#pragma once

/* Of the C library's first release here: the version of its oldest symbols. */
#define NU_LIBC_VERSION "GLIBC_2.17"

/* In the loop of one who waits for another processor. `yield` does nothing on most of them; `isb` waits some cycles. */
static inline void nu_cpu_relax(void)
{
	__asm__ volatile("isb" : : : "memory");
}

/* The highest bit of @x, not 0. */
static inline unsigned nu_cpu_log2(unsigned x)
{
	return 31 - (unsigned)__builtin_clz(x);
}

/* Loads the pointer @var, thread-local by the initial-exec model: anew each time, since a switch may have changed kernel
 * threads, and compilers keep the address of what they know to be thread-local. */
#define NU_TLS_LOAD(to, var)                                                                                 \
	do {                                                                                                 \
		uintptr_t nu_offset;                                                                         \
		__asm__ volatile("mrs %0, tpidr_el0\n\tadrp %1, :gottprel:" #var                             \
				 "\n\tldr %1, [%1, :gottprel_lo12:" #var "]\n\tldr %0, [%0, %1]"             \
				 : "=&r"(to), "=&r"(nu_offset));                                             \
	} while (0)

/* A signal frame's program counter and stack pointer (with <ucontext.h>). */
#define NU_FRAME_PC(uc) ((uintptr_t)(uc)->uc_mcontext.pc)
#define NU_FRAME_SP(uc) ((uintptr_t)(uc)->uc_mcontext.sp)

/* The frame pointer in a context that the switch has saved at @sp, and a return address as found on a stack: signed, perhaps. */
#define NU_SAVED_FRAME(sp)    (((const uintptr_t *)(sp))[0])
#define NU_CODE_ADDRESS(from) ((from)&0xffffffffffffu)

/* Relocations of a table of calls (with <elf.h>). */
#define NU_R_JUMP_SLOT R_AARCH64_JUMP_SLOT
#define NU_R_IRELATIVE R_AARCH64_IRELATIVE
