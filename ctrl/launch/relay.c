/* SPDX-License-Identifier: MIT */
/*
 * One node's output on its way to the launcher's: cut into lines, each with the node's prefix, so that lines of several
 * nodes never mix. Bytes are taken as they are, NULs too.
 */
#include "launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES ((size_t)1 << 20) /* longer lines are broken here, so that memory stays bounded */

void relay_init(struct relay *r, struct writer *to, int node)
{
	*r = (struct relay){.to = to};
	if (node >= 0)
		snprintf(r->prefix, sizeof(r->prefix), "[%d] ", node);
}

static void keep(struct relay *r, const char *data, size_t len)
{
	if (!len)
		return;
	if (r->len + len > r->cap) {
		size_t cap = r->cap ? r->cap : 256;
		while (cap < r->len + len)
			cap *= 2;
		r->line = realloc(r->line, cap);
		if (!r->line)
			abort();
		r->cap = cap;
	}
	memcpy(r->line + r->len, data, len);
	r->len += len;
}

static size_t put(char *to, const char *data, size_t len)
{
	if (len)
		memcpy(to, data, len);
	return len;
}

/* Whole lines go out in one piece; the rest is kept. */
void relay_feed(struct relay *r, const char *data, size_t len)
{
	size_t plen = strlen(r->prefix), lines = 0, used = 0;
	const char *end = data + len, *next;

	for (const char *p = data; (p = memchr(p, '\n', (size_t)(end - p))); p++)
		lines++;
	if (lines) {
		char *text = launch_alloc(r->len + len + lines * plen);
		while ((next = memchr(data, '\n', (size_t)(end - data)))) {
			next++;
			used += put(text + used, r->prefix, plen);
			used += put(text + used, r->line, r->len);
			used += put(text + used, data, (size_t)(next - data));
			r->len = 0;
			data = next;
		}
		writer_push(r->to, text, used);
		free(text);
	}
	keep(r, data, (size_t)(end - data));
	if (r->len >= LINE_MAX_BYTES)
		relay_finish(r);
}

/* Passes an unended line on; with prefixes it is ended, or the next node's would stand in its middle. */
void relay_finish(struct relay *r)
{
	if (!r->len)
		return;
	size_t plen = strlen(r->prefix), used = 0;
	char *text = launch_alloc(plen + r->len + 1);
	used += put(text + used, r->prefix, plen);
	used += put(text + used, r->line, r->len);
	if (plen)
		text[used++] = '\n';
	r->len = 0;
	writer_push(r->to, text, used);
	free(text);
}

void relay_close(struct relay *r)
{
	relay_finish(r);
	free(r->line);
	r->line = NULL;
	r->cap = 0;
}
