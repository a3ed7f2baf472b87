/* SPDX-License-Identifier: MIT */
/*
 * The log: one line a call, written with one write(2), so that lines of several kernel threads and nodes that share
 * a terminal never mix.
 */
#include "core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024 /* stays on the caller's stack, which may be a small one */

enum nu_log_level nu_log_level = NU_LOG_WARN;

/* Before every constructor that may want to log. */
static void __attribute__((constructor(101))) log_read_env(void)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	const char *s = getenv("NU_LOG");

	if (!s || !*s)
		return;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(s, names[i])) {
			nu_log_level = (enum nu_log_level)i;
			return;
		}
	}
	nu_warn("NU_LOG is \"%s\", want error, warn, info or debug: taking warn", s);
}

static void write_line(const char *fmt, va_list ap)
{
	char line[LINE_MAX_BYTES];
	int saved = nu_sys_errno;
	size_t len;
	int n;

	n = snprintf(line, sizeof(line), "nu: node %u: ", nu_node.self);
	len = n > 0 ? (size_t)n : 0;
	n = vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	if (n > 0)
		len += (size_t)n;
	if (len > sizeof(line) - 2) {
		len = sizeof(line) - 2;
		memcpy(line + len - 3, "...", 3);
	}
	while (len && line[len - 1] == '\n')
		len--;
	line[len++] = '\n';
	/* A lost log line is nobody's error: there is no one left to tell. */
	ssize_t written __attribute__((unused)) = write(STDERR_FILENO, line, len);
	nu_sys_errno = saved;
}

void nu_log_write(enum nu_log_level level, const char *fmt, ...)
{
	va_list ap;

	(void)level;
	va_start(ap, fmt);
	write_line(fmt, ap);
	va_end(ap);
}

void nu_misuse(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_line(fmt, ap);
	va_end(ap);
	abort();
}

void nu_assert_failed(const char *expr, const char *file, int line)
{
	nu_log_write(NU_LOG_ERROR, "%s:%d: assertion failed: %s", file, line, expr);
	abort();
}
