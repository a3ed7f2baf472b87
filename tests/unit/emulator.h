/* SPDX-License-Identifier: MIT */
/*
 * What a user-mode emulator of processors may not do though it says so. Tests of just that are skipped there; they are
 * of the kernel's part, which does not differ between processors. It is tried, not looked up: a newer emulator may do it.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdint.h>
#include <sys/mman.h>

/* QEMU 7.2 answers 0 to advice that it does not know, and forgets the old range of a mremap() that keeps it. */
static __attribute__((unused)) const char *emulator_lack(void)
{
	enum { LEN = 4 * 4096, POPULATE_WRITE = 23, KEEP_OLD = 4 /* MREMAP_DONTUNMAP */ };
	unsigned char there[4] = {0};
	const char *lack = NULL;
	char *p = mmap(NULL, 2 * LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	     *q = p + LEN;

	if (p == MAP_FAILED)
		return NULL;
	if (!madvise(p, LEN, POPULATE_WRITE) && !mincore(p, LEN, there) && !(there[0] & there[3] & 1))
		lack = "this emulator's madvise() says that it has populated pages and has not";
	else if (mremap(p, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED | KEEP_OLD, q) == q &&
		 mincore(p, LEN, there))
		lack = "this emulator forgets what mremap() should keep mapped";
	munmap(p, 2 * LEN);
	return lack;
}

#define SKIP_UNDER_EMULATOR()                                                                                \
	do {                                                                                                 \
		const char *lack_ = emulator_lack();                                                         \
		if (lack_)                                                                                   \
			cr_skip_test("%s", lack_);                                                           \
	} while (0)
