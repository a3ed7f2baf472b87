/* SPDX-License-Identifier: MIT */
/* Memory that somebody waits for. */
#include "core/core.h"

#include <stdlib.h>
#include <time.h>

#define NAP_NS 1000000
#define NAPS   1000

void *nu_alloc_patiently(size_t len_bytes)
{
	const struct timespec nap = {0, NAP_NS};
	void *p = malloc(len_bytes);

	for (unsigned i = 0; unlikely(!p) && i < NAPS; i++) {
		nanosleep(&nap, NULL);
		p = malloc(len_bytes);
	}
	if (unlikely(!p))
		nu_err("the C library has had no %zu bytes for a second (RLIMIT_AS? the machine's memory?)",
		       len_bytes);
	return p;
}
