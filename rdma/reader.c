/* SPDX-License-Identifier: MIT */
/* Which way each peer's memory is read: probed once per pair, best first. */
#include "rdma/rdma.h"

#include <stdio.h>
#include <string.h>

/* What a name may mean, and their numbers in the answer to prepare. */
static const struct nu_reader_ops *const readers[] = {&nu_reader_cma, &nu_reader_verbs, &nu_reader_am,
						      &nu_reader_am_offer};
#define NREADERS (sizeof(readers) / sizeof(readers[0]))
/* Best first. On one host the kernel's copy beats a device's way to itself and back. */
static const struct nu_reader_ops *const near[] = {&nu_reader_cma, &nu_reader_verbs, &nu_reader_am, NULL},
					 *const far[] = {&nu_reader_verbs, &nu_reader_am, NULL};
static const struct nu_reader_ops *chosen[NU_MAX_NODES];

/* Adds the reason to @lost, after a line that a failure deserves: nothing should keep nodes of one host from cma. */
static int try(const struct nu_reader_ops *r, unsigned peer, bool expected, char *lost, size_t size)
{
	char why[256] = "";
	size_t len = strlen(lost);
	int ret = r->probe(peer, why, sizeof(why));

	if (!ret) {
		chosen[peer] = r;
		return 0;
	}
	if (expected)
		nu_warn("reader %s cannot read node %u: %s", r->name, peer, why);
	snprintf(lost + len, size - len, "%s%s: %s", len ? "; " : "", r->name, why);
	return ret;
}

static int choose(unsigned peer, const struct nu_reader_ops *only)
{
	bool is_near = nu_node.host_of[peer] == nu_node.host_of[nu_node.self];
	const struct nu_reader_ops *const just[] = {only, NULL};
	const struct nu_reader_ops *const *r = only ? just : is_near ? near : far;
	char lost[1024] = "";

	for (; *r; r++) {
		if (try(*r, peer, only || *r == &nu_reader_cma, lost, sizeof(lost)))
			continue;
		nu_info("reads the memory of node %u through %s%s%s%s", peer, (*r)->name, *lost ? " (" : "",
			lost, *lost ? ")" : "");
		return 0;
	}
	nu_warn("no reader for node %u: nothing can move from there to here (%s)", peer, lost);
	return -ENODEV;
}

int nu_reader_init(const char *wanted)
{
	const struct nu_reader_ops *only = NULL;
	bool is_auto = !wanted || !*wanted || !strcmp(wanted, "auto");

	for (size_t i = 0; i < NREADERS && !is_auto; i++) {
		if (!strcmp(wanted, readers[i]->name))
			only = readers[i];
	}
	if (!is_auto && !only) {
		nu_err("there is no reader '%s'; there are cma, verbs, am, and for tests am-offer", wanted);
		return -EINVAL;
	}
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (n != nu_node.self)
			(void)choose(n, only);
	}
	return 0;
}

void nu_reader_peer_dead(unsigned peer)
{
	/* Each by itself: what we read the peer by says nothing of what it read us by. */
	for (size_t i = 0; i < NREADERS; i++) {
		if (readers[i]->cut)
			readers[i]->cut(peer);
	}
}

int nu_reader_connect(unsigned peer)
{
	if (peer >= NU_MAX_NODES || !chosen[peer])
		return -ENODEV;
	return chosen[peer]->connect ? chosen[peer]->connect(peer) : 0;
}

int nu_reader_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	uint64_t bytes = 0;
	int ret;

	if (peer >= NU_MAX_NODES || !chosen[peer])
		return -ENODEV;
	ret = chosen[peer]->read(peer, pieces, npieces);
	for (unsigned i = 0; i < npieces && !ret; i++)
		bytes += pieces[i].len_bytes;
	nu_stat_add(nu_core_self(), chosen[peer]->bytes, bytes);
	return ret;
}

int nu_reader_offer_kind(unsigned peer)
{
	if (peer >= NU_MAX_NODES || !chosen[peer] || !chosen[peer]->by_offer)
		return 0;
	for (size_t i = 0; i < NREADERS; i++) {
		if (readers[i] == chosen[peer])
			return (int)i + 1;
	}
	return 0;
}

const struct nu_reader_ops *nu_reader_of_kind(int kind)
{
	if (kind < 1 || (size_t)kind > NREADERS || !readers[kind - 1]->by_offer)
		return NULL;
	return readers[kind - 1];
}

const char *nu_reader_name(unsigned peer)
{
	return peer < NU_MAX_NODES && chosen[peer] ? chosen[peer]->name : "none";
}
