/* SPDX-License-Identifier: MIT */
/* What the image's digest says of an x86-64 processor, and what core/arch_x86_64.h must know of it. */
#include "core/core.h"
#include "core/fault.h"
#include "core/image_int.h"

#include <cpuid.h>
#include <sys/auxv.h>

uint32_t nu_cpu_lzcnt = 31;

/* Before main: heaps come later. */
__attribute__((constructor)) static void find_lzcnt(void)
{
	unsigned a = 0, b = 0, c = 0, d = 0;

	if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(c & bit_LZCNT))
		nu_cpu_lzcnt = 0;
}

/* sigreturn restores a frame of this form: which parts of the register file, in how many bytes. */
void nu_image_print_cpu(FILE *f)
{
	unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;

	if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE)) {
		__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
		if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
			b = 0;
	} else {
		b = 0;
	}
	if (nu_fault(NU_FAULT_IMAGE_XSAVE))
		b += 64; /* another processor's */
	fprintf(f, "xsave features 0x%lx bytes %u\n", (unsigned long)high << 32 | low, b);
	fprintf(f, "cpu hwcap 0x%lx hwcap2 0x%lx\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
}
