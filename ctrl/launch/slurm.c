/* SPDX-License-Identifier: MIT */
/* Hosts from the variables that Slurm sets for an allocation: its lists of names and of counts. */
#include "hosts.h"
#include "launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES_MAX  4096u
#define NAME_BYTES 256u

struct names {
	char **list;
	unsigned count;
};

static bool add_name(struct names *n, const char *name)
{
	if (!*name || n->count == NAMES_MAX)
		return false;
	n->list = realloc(n->list, (n->count + 1) * sizeof(*n->list));
	if (!n->list)
		abort();
	n->list[n->count] = launch_alloc(strlen(name) + 1);
	strcpy(n->list[n->count++], name);
	return true;
}

static bool digits(const char *text, size_t len, unsigned long *v_p)
{
	if (!len || len > 9)
		return false;
	*v_p = 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*v_p = *v_p * 10 + (unsigned long)(text[i] - '0');
	}
	return true;
}

static bool expand(struct names *n, const char *done, const char *text, size_t len);

/* "01-03" or "7", between @done and what follows the bracket: numbers keep their width. */
static bool expand_range(struct names *n, const char *done, const char *range, size_t len, const char *rest,
			 size_t rest_len)
{
	const char *dash = memchr(range, '-', len);
	size_t first_len = dash ? (size_t)(dash - range) : len;
	unsigned long from, to;
	char name[NAME_BYTES];
	if (!digits(range, first_len, &from))
		return false;
	to = from;
	if (dash && !digits(dash + 1, len - first_len - 1, &to))
		return false;
	if (to < from || to - from >= NAMES_MAX)
		return false;
	for (unsigned long v = from; v <= to; v++) {
		if ((size_t)snprintf(name, sizeof(name), "%s%0*lu", done, (int)first_len, v) >=
			    sizeof(name) ||
		    !expand(n, name, rest, rest_len))
			return false;
	}
	return true;
}

/* One name of the list, which may have several brackets; @done is what has become of its beginning. */
static bool expand(struct names *n, const char *done, const char *text, size_t len)
{
	const char *open = memchr(text, '[', len), *close, *p;
	char name[NAME_BYTES];
	size_t plain = open ? (size_t)(open - text) : len;
	if ((size_t)snprintf(name, sizeof(name), "%s%.*s", done, (int)plain, text) >= sizeof(name) ||
	    memchr(text, ']', plain))
		return false;
	if (!open)
		return add_name(n, name);
	close = memchr(open, ']', len - plain);
	if (!close)
		return false;
	for (p = open + 1; p <= close;) {
		size_t part = strcspn(p, ",]");
		if (!expand_range(n, name, p, part, close + 1, (size_t)(text + len - close - 1)))
			return false;
		p += part + 1;
	}
	return true;
}

int slurm_names(const char *text, char ***names_p)
{
	struct names n = {0};
	bool ok = *text != '\0';
	while (ok && *text) {
		size_t len = 0;
		bool inside = false;
		for (; text[len] && (inside || text[len] != ','); len++)
			inside = text[len] == '[' ? true : text[len] == ']' ? false : inside;
		ok = expand(&n, "", text, len);
		text += len;
		if (*text && !*++text)
			ok = false; /* a comma at the end */
	}
	if (ok) {
		*names_p = n.list;
		return (int)n.count;
	}
	while (n.count)
		free(n.list[--n.count]);
	free(n.list);
	return -1;
}

bool slurm_counts(const char *text, unsigned *counts, unsigned n)
{
	unsigned have = 0;
	while (*text) {
		unsigned long count, times = 1;
		size_t len = strcspn(text, "(,");
		if (!digits(text, len, &count) || !count)
			return false;
		text += len;
		if (*text == '(') {
			if (text[1] != 'x')
				return false;
			len = strcspn(text + 2, ")");
			if (!digits(text + 2, len, &times) || !text[2 + len])
				return false;
			text += 3 + len;
		}
		if (times > n - have)
			return false;
		while (times--)
			counts[have++] = (unsigned)count;
		if (*text && *text++ != ',')
			return false;
	}
	return have == n;
}

static const char *variable(const char *name, const char *old)
{
	const char *v = getenv(name);
	return v ? v : getenv(old);
}

bool hosts_from_slurm(struct hosts *h)
{
	const char *list = variable("SLURM_JOB_NODELIST", "SLURM_NODELIST"), *id = getenv("SLURM_JOB_ID");
	const char *tasks = variable("SLURM_TASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE");
	char **names, self[256] = "";
	unsigned *counts;
	int n;
	if (!id || !list)
		return false;
	n = slurm_names(list, &names);
	if (n < 0) {
		launch_say("SLURM_JOB_NODELIST=%s makes no sense: running on this machine alone", list);
		return false;
	}
	gethostname(self, sizeof(self) - 1);
	counts = launch_alloc((unsigned)n * sizeof(*counts));
	if (tasks && !slurm_counts(tasks, counts, (unsigned)n)) {
		launch_say("SLURM_TASKS_PER_NODE=%s does not fit %d hosts: one node on each", tasks, n);
		tasks = NULL;
	}
	/* Of one host that is this one there is nothing to reach. */
	h->slurm = n > 1 || strcmp(names[0], self) != 0;
	for (int i = 0; i < n; i++) {
		if (h->slurm)
			hosts_add(h, names[i], strlen(names[i]), tasks ? counts[i] : 1);
		free(names[i]);
	}
	free(names);
	free(counts);
	return h->slurm;
}
