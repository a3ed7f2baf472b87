/* SPDX-License-Identifier: MIT */
/* What the runtime says is formatted, since its arguments are a peer's too, but not printed (FUZZ_LOG: it is). */
#include "fuzz.h"

#include <stdarg.h>

void __wrap_nu_log_write(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void __wrap_nu_log_write(int level, const char *fmt, ...)
{
	static int loud = -1;
	char line[1024];
	va_list ap;

	if (loud < 0)
		loud = getenv("FUZZ_LOG") != NULL;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (loud)
		fprintf(stderr, "%s\n", line);
}
