/* SPDX-License-Identifier: MIT */
/*
 * What nodes learn of each other before the first call: that they are alike, and where each is reached: by messages, and by
 * RDMA where there is a device. All of it goes through the launcher.
 */
#include "ctrl/boot.h"
#include "ctrl/ctrl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- alike ---- */

static uint64_t mem_of[NU_MAX_NODES]; /* hosts differ */

struct hello {
	uint64_t digest, mem_bytes;
	uint32_t text_bytes;
	char text[];
};

/* The first line of @text that @other has not; "(nothing)": it has them all. */
static void first_lacking(const char *text, const char *other, char *line, size_t size)
{
	snprintf(line, size, "(nothing)");
	for (size_t len; *text; text += len + (text[len] != '\0')) {
		const char *at = other;

		len = strcspn(text, "\n");
		while (*at && (strncmp(at, text, len) || (at[len] && at[len] != '\n'))) {
			at += strcspn(at, "\n");
			at += *at != '\0';
		}
		if (!*at && len) {
			snprintf(line, size, "%.*s", (int)len, text);
			return;
		}
	}
}

static void say_difference(const char *mine, const char *theirs, unsigned node)
{
	char here[256], there[256], reason[640];

	first_lacking(mine, theirs, here, sizeof(here));
	first_lacking(theirs, mine, there, sizeof(there));
	snprintf(reason, sizeof(reason), "node %u and node %u are not alike: '%s' there, '%s' here", node,
		 nu_node.self, there, here);
	nu_boot_fail(reason);
}

int nu_join_alike(void)
{
	void *all[NU_MAX_NODES] = {NULL};
	size_t lens[NU_MAX_NODES];
	struct hello *mine;
	char *text;
	uint64_t digest;
	int ret = nu_image_digest(&digest, &text);

	if (ret)
		return ret;
	mine = malloc(sizeof(*mine) + strlen(text) + 1);
	if (!mine) {
		free(text);
		return -ENOMEM;
	}
	mine->digest = digest;
	mine->mem_bytes = nu_node.mem_bytes;
	mine->text_bytes = (uint32_t)strlen(text) + 1;
	memcpy(mine->text, text, mine->text_bytes);
	free(text);
	ret = nu_boot_exchange(mine, sizeof(*mine) + mine->text_bytes, all, lens);
	for (unsigned n = 0; !ret && n < nu_node.count; n++) {
		struct hello *other = all[n];

		if (lens[n] < sizeof(*other) || lens[n] != sizeof(*other) + (size_t)other->text_bytes ||
		    !other->text_bytes || other->text[other->text_bytes - 1])
			ret = -EPROTO;
		mem_of[n] = ret ? 0 : other->mem_bytes;
		if (!ret && other->digest != digest) {
			/* Each says it: whoever is heard first ends the job. */
			say_difference(mine->text, other->text, n);
			ret = -EPROTO;
		}
	}
	if (ret != -ETIMEDOUT && ret != -EHOSTDOWN) {
		for (unsigned n = 0; n < nu_node.count; n++)
			free(all[n]);
	}
	free(mine);
	return ret;
}

uint64_t nu_join_mem_bytes(unsigned node)
{
	return mem_of[node];
}

/* ---- reached ---- */

static bool device_is_open;

int nu_join_device(const struct nu_pool_ops **pool_ops_p, char *reason, size_t reason_bytes)
{
	const char *reader = nu_boot_options.reader;
	bool asked = !strcmp(reader, nu_reader_verbs.name), is_auto = !*reader || !strcmp(reader, "auto");
	struct nu_rdma_options o;
	char why[256];
	int ret;

	/* What a device knows is pinned: not without need. */
	if (nu_node.count == 1 || (!asked && (!is_auto || nu_node.hosts == 1)))
		return 0;
	ret = nu_rdma_options_parse(nu_boot_options.rdma, &o, why, sizeof(why));
	if (ret) {
		nu_err("--rdma %s: %s", nu_boot_options.rdma, why);
		return ret;
	}
	o.why = asked ? why : NULL;
	o.why_bytes = sizeof(why);
	why[0] = '\0';
	ret = nu_verbs_open(&o, nu_boot_options.address,
			    nu_key_derive(nu_boot_options.secret, "queue pairs"));
	if (!ret) {
		device_is_open = true;
		*pool_ops_p = &nu_verbs_pool_ops;
	}
	if (*why)
		snprintf(reason, reason_bytes, "--reader verbs: no RDMA: %s", why);
	return asked ? ret : 0;
}

/* In front of what a node says of itself: the wire's address, then the reader's card. */
struct card {
	uint32_t wire_bytes, reader_bytes;
};

static int card_make(void **card_p, size_t *len_p)
{
	void *wire, *reader = NULL;
	size_t wire_len, reader_len = 0;
	struct card *c;
	int ret = nu_wire_address(&wire, &wire_len);

	if (ret)
		return ret;
	if (device_is_open)
		ret = nu_verbs_card(&reader, &reader_len);
	c = ret ? NULL : malloc(sizeof(*c) + wire_len + reader_len);
	if (c) {
		*c = (struct card){(uint32_t)wire_len, (uint32_t)reader_len};
		memcpy(c + 1, wire, wire_len);
		if (reader_len)
			memcpy((char *)(c + 1) + wire_len, reader, reader_len);
		*card_p = c;
		*len_p = sizeof(*c) + wire_len + reader_len;
	} else if (!ret) {
		ret = -ENOMEM;
	}
	free(wire);
	free(reader);
	return ret;
}

/* @card: a peer's word. */
static int card_take(unsigned node, const void *card, size_t len)
{
	const struct card *c = card;
	int ret;

	if (len < sizeof(*c) || len - sizeof(*c) != (size_t)c->wire_bytes + c->reader_bytes) {
		nu_err("node %u says of itself %zu bytes that make no sense", node, len);
		return -EBADMSG;
	}
	ret = nu_wire_set_peer(node, c + 1, c->wire_bytes);
	if (!ret && device_is_open)
		ret = nu_verbs_set_peer(node, (const char *)(c + 1) + c->wire_bytes, c->reader_bytes);
	return ret;
}

int nu_join_connect(void)
{
	struct nu_wire_options wo = {.transport = nu_boot_options.transport,
				     .key = nu_key_derive(nu_boot_options.secret, "batches"),
				     .address = nu_boot_options.address,
				     .device = nu_verbs_device()};
	void *all[NU_MAX_NODES], *mine;
	size_t lens[NU_MAX_NODES], len;
	int ret = nu_wire_init(&wo);

	if (!ret)
		ret = card_make(&mine, &len);
	if (ret)
		return ret;
	ret = nu_boot_exchange(mine, len, all, lens);
	free(mine);
	if (ret)
		return ret;
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (!ret)
			ret = card_take(n, all[n], lens[n]);
		free(all[n]);
	}
	return ret;
}

int nu_join_barrier(void)
{
	void *all[NU_MAX_NODES];
	size_t lens[NU_MAX_NODES];
	int ret = nu_boot_exchange("", 1, all, lens);

	for (unsigned n = 0; !ret && n < nu_node.count; n++)
		free(all[n]);
	return ret;
}
