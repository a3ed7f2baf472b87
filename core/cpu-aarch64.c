/* SPDX-License-Identifier: MIT */
/* What the image's digest says of an AArch64 processor. */
#include "core/core.h"
#include "core/fault.h"
#include "core/image_int.h"

#include <sys/auxv.h>
#include <sys/prctl.h>

#ifndef PR_SVE_GET_VL
#define PR_SVE_GET_VL 51
#endif
#ifndef PR_SME_GET_VL
#define PR_SME_GET_VL 64
#endif

/* @value as `paciasp` would sign it with the stack pointer @sp; itself where the processor cannot sign. */
static uint64_t signed_with(uint64_t value, uint64_t sp)
{
	register uint64_t x17 __asm__("x17") = value;
	register uint64_t x16 __asm__("x16") = sp;

	__asm__("hint #8" /* pacia1716 */ : "+r"(x17) : "r"(x16));
	return x17;
}

/* A return address that one node signed is checked on another: their keys must be equal. This tells it, not the key. */
static uint64_t key_print(void)
{
	uint64_t print = 0;

	for (uint64_t i = 1; i <= 4; i++)
		print = print << 16 ^ print >> 48 ^ (signed_with(i << 12, i << 20) ^ i << 12) >> 40;
	return print;
}

/* sigreturn restores a frame of this form: a vector register's length decides how it is laid out. */
void nu_image_print_cpu(FILE *f)
{
	int vector = prctl(PR_SVE_GET_VL);

	if (nu_fault(NU_FAULT_IMAGE_XSAVE))
		vector += 16; /* another processor's */
	fprintf(f, "cpu vector length %d streaming %d (negative: none)\n", vector, prctl(PR_SME_GET_VL));
	fprintf(f, "cpu key print 0x%lx\n", (unsigned long)key_print());
	fprintf(f, "cpu hwcap 0x%lx hwcap2 0x%lx\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
}

uint32_t nu_cpu_result_registers(uint32_t *mask_p)
{
	(void)mask_p;
	return 0;
}

/* SME's state is none that a process has to ask for. */
bool nu_cpu_frame_has_tiles(const struct ucontext_t *frame)
{
	(void)frame;
	return false;
}
