/* SPDX-License-Identifier: MIT */
/* nu_info's output: one tree of keys, written as it comes, as text for people or as one JSON document. */
#include "info.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define DEPTH_MAX 16

static FILE *out;
static bool as_json;
static unsigned depth;
static bool filled[DEPTH_MAX], list[DEPTH_MAX];
static bool dash, empty; /* text: a list's item begins; a list has nothing yet */

void info_output(FILE *f, bool json)
{
	out = f;
	as_json = json;
}

static void quote(const char *s)
{
	fputc('"', out);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

/* The text's label of a key: words, without the unit. */
static void label(const char *key)
{
	static const char *const units[] = {"_bytes", "_gbit_s"};
	size_t len = strlen(key);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t unit = strlen(units[i]);

		if (len > unit && !strcmp(key + len - unit, units[i]))
			len -= unit;
	}
	if (dash)
		fprintf(out, "%*s- ", (int)(depth * 2 - 2), "");
	else
		fprintf(out, "%*s", (int)(depth * 2), "");
	dash = false;
	for (size_t i = 0; i < len; i++)
		fputc(key[i] == '_' ? ' ' : key[i], out);
}

static void begin(const char *key, bool leaf)
{
	if (!as_json) {
		if (empty)
			fputc('\n', out);
		empty = false;
		if (key)
			label(key);
		else
			dash = true;
		if (key)
			fputs(leaf ? ": " : ":", out);
		return;
	}
	fprintf(out, "%s\n%*s", filled[depth] ? "," : "", (int)((depth + 1) * 2), "");
	filled[depth] = true;
	if (key && !list[depth]) {
		quote(key);
		fputs(": ", out);
	}
}

static void descend(const char *key, bool is_list)
{
	if (depth || key)
		begin(key, false);
	if (as_json)
		fputc(is_list ? '[' : '{', out);
	else if (is_list)
		empty = true;
	else if (key)
		fputc('\n', out);
	if (depth || key || as_json) {
		depth++;
		filled[depth] = false;
		list[depth] = is_list;
	}
}

static void ascend(char end)
{
	if (depth)
		depth--;
	if (empty)
		fputs(" none\n", out);
	empty = false;
	if (!as_json)
		return;
	if (filled[depth + 1])
		fprintf(out, "\n%*s", (int)((depth + 1) * 2 - 2), "");
	fputc(end, out);
}

void info_open(const char *key)
{
	descend(key, false);
}

void info_close(void)
{
	ascend('}');
}

void info_open_list(const char *key)
{
	descend(key, true);
}

void info_close_list(void)
{
	ascend(']');
}

void info_string(const char *key, const char *value)
{
	begin(key, true);
	if (as_json)
		quote(value);
	else
		fprintf(out, "%s\n", value);
}

void info_format(const char *key, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	info_string(key, text);
}

void info_bool(const char *key, bool value)
{
	begin(key, true);
	fputs(as_json ? (value ? "true" : "false") : value ? "yes\n" : "no\n", out);
}

const char *info_size(uint64_t bytes, char buf[32])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	unsigned u = 0;

	while (v >= 1024 && u < 6)
		v /= 1024, u++;
	snprintf(buf, 32, u && v < 100 && v != (double)(uint64_t)v ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

void info_number(const char *key, uint64_t value)
{
	size_t len = strlen(key);
	char buf[32];

	begin(key, true);
	if (as_json && value == UINT64_MAX)
		fputs("null", out);
	else if (as_json)
		fprintf(out, "%" PRIu64, value);
	else if (value == UINT64_MAX)
		fputs("unlimited\n", out);
	else if (len > 6 && !strcmp(key + len - 6, "_bytes"))
		fprintf(out, "%s\n", info_size(value, buf));
	else
		fprintf(out, "%" PRIu64 "\n", value);
}
