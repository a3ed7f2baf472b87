/* SPDX-License-Identifier: MIT */
/* The options of RDMA as text: "device=mlx5_0:1,gid=3,qps=2,depth=16,read=1M,windows=off". */
#include "rdma/rdma.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct field {
	const char *name;
	size_t at;
	unsigned long least, most;
};
#define FIELD(name, member, least, most)                                                                     \
	{                                                                                                    \
		name, offsetof(struct nu_rdma_options, member), least, most                                  \
	}
static const struct field fields[] = {
	FIELD("port", port, 1, 255),
	FIELD("gid", gid_index, 0, 65535),
	FIELD("qps", queue_pairs, 1, NU_RDMA_QUEUE_PAIRS_MAX),
	FIELD("depth", depth, 1, 255),
	FIELD("read", read_bytes, 4096, NU_GIB),
	FIELD("timeout", timeout, 1, 31), /* 0 is for ever, in the specification */
	FIELD("retry", retry, 1, 7),
	FIELD("rnr", rnr_retry, 1, 7),
	FIELD("mtu", mtu, 256, 4096),
	FIELD("spin", spin_us, 1, 1000000),
};

static const char *const windows_names[] = {"auto", "on", "off"};

static int bad(char *why, size_t why_len, const char *item, const char *what)
{
	snprintf(why, why_len, "RDMA option \"%.40s\": %s", item, what);
	return -EINVAL;
}

/* A number, perhaps with K or M behind it. */
static bool number(const char *text, unsigned long *v_p)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	nu_sys_errno = 0;
	*v_p = strtoul(text, &end, 10);
	if (nu_sys_errno || *v_p > UINT32_MAX)
		return false;
	if (*end == 'K' || *end == 'k')
		*v_p *= NU_KIB;
	else if (*end == 'M' || *end == 'm')
		*v_p *= NU_MIB;
	else
		return !*end;
	return !end[1];
}

static int set_number(const struct field *f, const char *item, const char *text, struct nu_rdma_options *o,
		      char *why, size_t why_len)
{
	char what[64];
	unsigned long v;

	if (!number(text, &v) || v < f->least || v > f->most) {
		snprintf(what, sizeof(what), "want a number from %lu to %lu", f->least, f->most);
		return bad(why, why_len, item, what);
	}
	if (f->at == offsetof(struct nu_rdma_options, mtu) && (v & (v - 1)))
		return bad(why, why_len, item, "want 256, 512, 1024, 2048 or 4096");
	*(unsigned *)((char *)o + f->at) = (unsigned)v;
	return 0;
}
_Static_assert(sizeof(int) == sizeof(unsigned), "gid_index is set as the others are");

/* NAME or NAME:PORT. */
static int set_device(const char *item, const char *text, struct nu_rdma_options *o, char *why,
		      size_t why_len)
{
	size_t len = strcspn(text, ":");

	if (!len || len >= sizeof(o->device))
		return bad(why, why_len, item, "want a device's name, 1 to 63 characters");
	memcpy(o->device, text, len);
	o->device[len] = '\0';
	return text[len] ? set_number(&fields[0], item, text + len + 1, o, why, why_len) : 0;
}

static int set_windows(const char *item, const char *text, struct nu_rdma_options *o, char *why,
		       size_t why_len)
{
	for (unsigned i = 0; i < sizeof(windows_names) / sizeof(windows_names[0]); i++) {
		if (!strcmp(text, windows_names[i])) {
			o->windows = (enum nu_rdma_windows)i;
			return 0;
		}
	}
	return bad(why, why_len, item, "want auto, on or off");
}

static int set(char *item, struct nu_rdma_options *o, char *why, size_t why_len)
{
	char *text = strchr(item, '=');
	size_t len;

	if (!text)
		return bad(why, why_len, item, "want KEY=VALUE");
	len = (size_t)(text++ - item);
	if (len == 6 && !memcmp(item, "device", len))
		return set_device(item, text, o, why, why_len);
	if (len == 7 && !memcmp(item, "windows", len))
		return set_windows(item, text, o, why, why_len);
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strlen(fields[i].name) == len && !memcmp(fields[i].name, item, len))
			return set_number(&fields[i], item, text, o, why, why_len);
	}
	return bad(why, why_len, item,
		   "no such option; there are device, port, gid, qps, depth, read, timeout, retry, rnr, mtu, "
		   "spin and windows");
}

int nu_rdma_options_parse(const char *text, struct nu_rdma_options *o, char *why, size_t why_len)
{
	struct nu_rdma_options read = {.gid_index = -1};
	char *copy, *item, *rest;
	int ret = 0;

	copy = strdup(text ? text : "");
	if (!copy) {
		snprintf(why, why_len, "out of memory");
		return -ENOMEM;
	}
	for (rest = *copy ? copy : NULL; rest && !ret;) {
		item = strsep(&rest, ",");
		ret = set(item, &read, why, why_len);
	}
	free(copy);
	if (!ret)
		*o = read;
	return ret;
}
