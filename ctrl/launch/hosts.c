/* SPDX-License-Identifier: MIT */
/* Lists of hosts, and the environment that goes to them. */
#include "hosts.h"
#include "launch.h"

#include "core/size.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MAX NU_BOOT_NODES_MAX
#define CORES_MAX 64u

extern char **environ;

static char *copy_of(const char *s, size_t len)
{
	char *p = launch_alloc(len + 1);
	memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

struct host_spec *hosts_add(struct hosts *h, const char *name, size_t len, unsigned slots)
{
	for (unsigned i = 0; i < h->count; i++) {
		struct host_spec *s = &h->list[i];
		if (strlen(s->name) == len && !memcmp(s->name, name, len)) {
			s->slots += slots;
			return s;
		}
	}
	h->list = realloc(h->list, (h->count + 1) * sizeof(*h->list));
	if (!h->list)
		abort();
	h->list[h->count] = (struct host_spec){.name = copy_of(name, len), .slots = slots};
	return &h->list[h->count++];
}

static bool number(const char *text, size_t len, unsigned max, unsigned *v_p)
{
	unsigned long v = 0;
	if (!len || len > 6)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		v = v * 10 + (unsigned long)(text[i] - '0');
	}
	*v_p = (unsigned)v;
	return v >= 1 && v <= max;
}

/* It goes to a remote shell as an argument: nothing that this could take for an option. */
static bool name_valid(const char *name, size_t len)
{
	if (!len || len > 250 || *name == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)name[i] <= ' ' || name[i] == 127)
			return false;
	}
	return true;
}

/* "a", "b:4", "[fd00::1]:4"; a bare address of version 6 has no slots. */
static bool parse_one(struct hosts *h, const char *text, size_t len)
{
	const char *colon = memrchr(text, ':', len), *name = text;
	size_t name_len = len;
	unsigned slots = 1;
	if (*text == '[') {
		const char *end = memchr(text, ']', len);
		if (!end)
			return false;
		name = text + 1;
		name_len = (size_t)(end - name);
		if (end + 1 != text + len &&
		    (end[1] != ':' || !number(end + 2, (size_t)(text + len - end - 2), SLOTS_MAX, &slots)))
			return false;
	} else if (colon && memchr(text, ':', len) == colon) {
		name_len = (size_t)(colon - text);
		if (!number(colon + 1, len - name_len - 1, SLOTS_MAX, &slots))
			return false;
	}
	if (!name_valid(name, name_len))
		return false;
	hosts_add(h, name, name_len, slots);
	return true;
}

bool hosts_parse(struct hosts *h, const char *text)
{
	for (;;) {
		size_t len = strcspn(text, ",");
		if (!parse_one(h, text, len)) {
			launch_say("--hosts takes names as in a,b:4 (with slots from 1 to %u), not '%.*s'",
				   SLOTS_MAX, (int)len, text);
			return false;
		}
		text += len;
		if (!*text)
			return true;
		text++;
	}
}

/* One "key=value" of a line; NULL, or what is wrong. */
static const char *take_key(struct host_spec *s, const char *word, size_t len)
{
	static char wrong[160];
	const char *eq = memchr(word, '=', len);
	size_t key = eq ? (size_t)(eq - word) : len, value = eq ? len - key - 1 : 0;
	char *text = eq ? copy_of(eq + 1, value) : NULL;
	bool known = true, ok = eq && value;
	if (key == 5 && !memcmp(word, "slots", 5))
		ok = ok && number(text, value, SLOTS_MAX, &s->slots);
	else if (key == 5 && !memcmp(word, "cores", 5))
		ok = ok && number(text, value, CORES_MAX, &s->cores);
	else if (key == 3 && !memcmp(word, "mem", 3))
		ok = ok && nu_size_parse(text, &s->mem_bytes) && s->mem_bytes >= (16u << 20);
	else if (key == 9 && !memcmp(word, "interface", 9))
		s->interface = ok ? copy_of(text, value) : NULL;
	else
		known = false;
	free(text);
	if (known && ok)
		return NULL;
	snprintf(wrong, sizeof(wrong),
		 known ? "'%.*s' makes no sense (slots=1..256, cores=1..64, mem=16M or more, interface=IF)"
		       : "'%.*s' is none of slots=K, cores=K, mem=SIZE, interface=IF",
		 len > 60 ? 60 : (int)len, word);
	return wrong;
}

static const char *read_line(struct hosts *h, char *line)
{
	static const char blanks[] = " \t\r\n";
	struct host_spec *s = NULL, given = {0};
	const char *name = NULL, *wrong;
	size_t name_len = 0;
	line[strcspn(line, "#")] = '\0';
	for (const char *p = line + strspn(line, blanks); *p; p += strspn(p, blanks)) {
		size_t len = strcspn(p, blanks);
		if (!name) {
			name = p;
			name_len = len;
			if (!name_valid(name, len) || memchr(name, '=', len))
				return "the line does not begin with a host's name";
		} else if ((wrong = take_key(&given, p, len))) {
			return wrong;
		}
		p += len;
	}
	if (!name)
		return NULL;
	s = hosts_add(h, name, name_len, given.slots ? given.slots : 1);
	s->cores = given.cores ? given.cores : s->cores;
	s->mem_bytes = given.mem_bytes ? given.mem_bytes : s->mem_bytes;
	s->interface = given.interface ? given.interface : s->interface;
	return NULL;
}

bool hosts_read(struct hosts *h, const char *path)
{
	FILE *f = fopen(path, "re");
	const char *wrong = NULL;
	char *line = NULL;
	size_t size = 0;
	unsigned at = 0;
	if (!f) {
		launch_say("%s: %s", path, strerror(errno));
		return false;
	}
	while (!wrong && getline(&line, &size, f) >= 0) {
		at++;
		wrong = read_line(h, line);
	}
	if (!wrong && ferror(f)) {
		launch_say("%s: %s", path, strerror(errno));
		wrong = "";
	} else if (wrong) {
		launch_say("%s, line %u: %s", path, at, wrong);
	} else if (!h->count) {
		launch_say("%s names no host", path);
		wrong = "";
	}
	free(line);
	fclose(f);
	return !wrong;
}

bool hosts_deal(struct hosts *h, unsigned *nodes_p)
{
	unsigned slots = 0, used = 0, next = 0, nodes;
	for (unsigned i = 0; i < h->count; i++)
		slots += h->list[i].slots;
	nodes = *nodes_p ? *nodes_p : slots;
	if (nodes > slots) {
		launch_say(
			"%u nodes, but the hosts have %u slots (host:4 in --hosts, slots=4 in a host file)",
			nodes, slots);
		return false;
	}
	if (nodes > NU_BOOT_NODES_MAX) {
		launch_say("%u nodes: a job has at most %u", nodes, NU_BOOT_NODES_MAX);
		return false;
	}
	for (unsigned i = 0; i < h->count && next < nodes; i++) {
		struct host_spec *s = &h->list[i];
		s->first = next;
		s->nodes = s->slots < nodes - next ? s->slots : nodes - next;
		next += s->nodes;
		used++;
	}
	h->count = used;
	*nodes_p = nodes;
	return true;
}

/* ---- environment ---- */

static void put(struct hosts *h, char *entry)
{
	size_t name = strcspn(entry, "=") + 1;
	for (unsigned i = 0; i < h->nenv; i++) {
		if (!strncmp(h->env[i], entry, name)) {
			free(h->env[i]);
			h->env[i] = entry;
			return;
		}
	}
	h->env = realloc(h->env, (h->nenv + 2) * sizeof(*h->env));
	if (!h->env)
		abort();
	h->env[h->nenv++] = entry;
	h->env[h->nenv] = NULL;
}

bool hosts_export(struct hosts *h, const char *text)
{
	const char *value;
	char *entry;
	if (!*text || *text == '=') {
		launch_say("--export takes NAME or NAME=VALUE, not '%s'", text);
		return false;
	}
	if (strchr(text, '=')) {
		put(h, copy_of(text, strlen(text)));
		return true;
	}
	value = getenv(text);
	if (!value)
		return true; /* nor is it set there by us */
	entry = launch_alloc(strlen(text) + strlen(value) + 2);
	sprintf(entry, "%s=%s", text, value);
	put(h, entry);
	return true;
}

void hosts_export_defaults(struct hosts *h)
{
	for (char **e = environ; *e; e++) {
		bool ours = !strncmp(*e, "NU_", 3) && strncmp(*e, NU_BOOT_ENV "=", sizeof(NU_BOOT_ENV)) != 0;
		if (ours || !strncmp(*e, "UCX_", 4) || !strncmp(*e, "LD_", 3) ||
		    !strncmp(*e, "GLIBC_TUNABLES=", 15))
			put(h, copy_of(*e, strlen(*e)));
	}
}
