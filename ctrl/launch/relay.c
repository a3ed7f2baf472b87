/* SPDX-License-Identifier: MIT */
/*
 * One node's output on its way to the launcher's. Each output (writer.h) has at most one line that is begun and not ended: a
 * node that begins one has it. Without prefixes bytes go on as they come. With prefixes whole lines do; a carriage return ends a
 * piece of one (progress); what else is begun (a prompt) goes on when it has waited for QUIET_MS. Another node's bytes wait while
 * a line is begun, but not for longer than that; with prefixes they then begin a line of their own. NULs are bytes like others.
 */
#include "launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_MS       200
#define LINE_MAX_BYTES ((size_t)1 << 20) /* longer lines are broken here, so that memory stays bounded */

void relay_init(struct relay *r, struct writer *to, int node)
{
	*r = (struct relay){.to = to};
	if (node >= 0)
		snprintf(r->prefix, sizeof(r->prefix), "[%d] ", node);
}

static void relay_keep(struct relay *r, const char *data, size_t len)
{
	if (!len)
		return;
	if (!r->len)
		r->held_ms = launch_now_ms();
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

/* The first @len bytes of what is kept go out, each line of it after the prefix. */
static void relay_put(struct relay *r, size_t len)
{
	size_t plen = strlen(r->prefix), lines = 1, used = 0;
	bool begins = r->to->open != r || r->returned;

	for (size_t i = 0; i < len; i++)
		lines += r->line[i] == '\n' || r->line[i] == '\r';
	char *text = launch_alloc(len + lines * plen + 1);
	if (r->to->open != r)
		r->returned = false;
	if (plen && r->to->open && r->to->open != r)
		text[used++] = '\n';
	for (size_t i = 0; i < len; i++) {
		char c = r->line[i];
		/* What follows a carriage return at once, another or a line feed, is of the same line. */
		if (begins && plen && !(r->returned && (c == '\n' || c == '\r'))) {
			memcpy(text + used, r->prefix, plen);
			used += plen;
		}
		text[used++] = c;
		r->returned = c == '\r';
		begins = c == '\n' || c == '\r';
	}
	if (len)
		r->to->open = r->line[len - 1] == '\n' ? NULL : r;
	r->to->opened_ms = launch_now_ms();
	r->len -= len;
	memmove(r->line, r->line + len, r->len);
	writer_push(r->to, text, used);
	free(text);
}

/* How much of what is kept needs wait for nothing more of this node. */
static size_t relay_ready(const struct relay *r)
{
	size_t len = r->len;

	if (!*r->prefix || len >= LINE_MAX_BYTES)
		return len;
	while (len && r->line[len - 1] != '\n' && r->line[len - 1] != '\r')
		len--;
	return len;
}

void relay_feed(struct relay *r, const char *data, size_t len)
{
	const struct relay *open = r->to->open;

	relay_keep(r, data, len);
	/* Another's line on its way is let be; one that stands still (a prompt) hinders nobody. */
	if (open && open != r && r->len < LINE_MAX_BYTES && launch_now_ms() - r->to->opened_ms < QUIET_MS)
		return;
	if (relay_ready(r)) {
		relay_put(r, relay_ready(r));
		r->held_ms = launch_now_ms(); /* the rest's */
	}
}

int64_t relay_timer(struct relay *r, int64_t now_ms)
{
	const struct relay *open = r->to->open;

	if (!r->len)
		return INT64_MAX;
	if ((!open || open == r) && relay_ready(r)) {
		relay_put(r, relay_ready(r));
		if (!r->len)
			return INT64_MAX;
	}
	if (now_ms < r->held_ms + QUIET_MS)
		return r->held_ms + QUIET_MS;
	relay_put(r, r->len);
	return INT64_MAX;
}

void relay_close(struct relay *r)
{
	if (r->len)
		relay_put(r, r->len);
	if (r->to->open == r) {
		if (*r->prefix) /* or the next node's would stand in its middle */
			writer_push(r->to, "\n", 1);
		r->to->open = NULL;
	}
	free(r->line);
	r->line = NULL;
	r->cap = 0;
}
