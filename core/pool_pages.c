/* SPDX-License-Identifier: MIT */
/* Pages under the pool's units: there or not. */
#include "core/pool_int.h"

#include <string.h>
#include <sys/mman.h>

#define UNIT_PAGES   ((1u << NU_POOL_UNIT_SHIFT) / NU_PAGE_BYTES)
#define PROBED_UNITS 64

int nu_pages_back(char *p, size_t len)
{
	if (!madvise(p, len, MADV_POPULATE_WRITE))
		return 0;
	if (nu_sys_errno != EINVAL) {
		int err = nu_sys_errno == EFAULT ? -ENOMEM : -nu_sys_errno;
		nu_err("the system has no memory to back %zu KiB of the pool: %s", len / NU_KIB,
		       strerror(nu_sys_errno));
		return err;
	}
	/* Linux before 5.14. */
	for (size_t i = 0; i < len; i += NU_PAGE_BYTES) {
		volatile char *q = p + i;
		*q = *q;
	}
	return 0;
}

void nu_pages_find(char *p, struct nu_unit *u, unsigned n)
{
	unsigned char there[PROBED_UNITS * UNIT_PAGES];
	unsigned step;

	for (; n; p += (size_t)step << NU_POOL_UNIT_SHIFT, u += step, n -= step) {
		step = n < PROBED_UNITS ? n : PROBED_UNITS;
		if (mincore(p, (size_t)step << NU_POOL_UNIT_SHIFT, there))
			continue;
		for (unsigned i = 0; i < step; i++) {
			unsigned pages = 0;

			for (unsigned k = 0; k < UNIT_PAGES; k++)
				pages += there[i * UNIT_PAGES + k] & 1;
			u[i].backed = pages == UNIT_PAGES;
		}
	}
}
