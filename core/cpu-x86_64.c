/* SPDX-License-Identifier: MIT */
/* What the image's digest says of an x86-64 processor, and what core/arch_x86_64.h must know of it. */
#include "core/core.h"
#include "core/fault.h"
#include "core/image_int.h"

#include <cpuid.h>
#include <string.h>
#include <sys/auxv.h>
#include <ucontext.h>

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

/* x87, SSE, AVX and the three of AVX-512, at their places in XSAVE's standard form. (Not AMX's: they hold no results.) */
uint32_t nu_cpu_result_registers(uint32_t *mask_p)
{
	unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0, bytes = 576;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	low &= 0xe7;
	for (unsigned i = 2; i < 8; i++)
		if (low >> i & 1 && __get_cpuid_count(0xd, i, &a, &b, &c, &d) && a + b > bytes)
			bytes = a + b; /* size and offset */
	*mask_p = low;
	return NU_ALIGN_UP(bytes, 64u);
}

/* Linux's arch/x86/include/uapi/asm/sigcontext.h: what follows the 512 bytes of FXSAVE is said in their last 48. */
#define SW_BYTES  464
#define SW_MAGIC  0x46505853u
#define XSTATE_BV 512
#define TILE_DATA ((uint64_t)1 << 18)

bool nu_cpu_frame_has_tiles(const ucontext_t *frame)
{
	const char *state = (const char *)frame->uc_mcontext.fpregs;
	uint32_t magic;
	uint64_t present;

	if (!state)
		return false;
	memcpy(&magic, state + SW_BYTES, sizeof(magic));
	memcpy(&present, state + XSTATE_BV, sizeof(present));
	return magic == SW_MAGIC && present & TILE_DATA;
}
