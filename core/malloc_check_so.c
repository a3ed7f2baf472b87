/* SPDX-License-Identifier: MIT */
/* The malloc that libraries get, for malloc_check.c: of the version that they ask for. In libnu.so alone. */
#include "core/arch.h"
#include "core/core.h"

extern void *libc_malloc(size_t len);
__asm__(".symver libc_malloc, malloc@" NU_LIBC_VERSION);

const void *nu_malloc_of_libraries(void)
{
	return (const void *)libc_malloc;
}
