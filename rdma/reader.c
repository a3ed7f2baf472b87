/* SPDX-License-Identifier: MIT */
/* Which way each peer's memory is read: probed once per pair, best first. */
#include "rdma/rdma.h"

#include <string.h>

static const struct nu_reader_ops *const readers[] = {&nu_reader_cma, &nu_reader_am, &nu_reader_am_offer};
static const struct nu_reader_ops *chosen[NU_MAX_NODES];

static int choose(unsigned peer, const char *wanted)
{
	char why[256] = "";

	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
		int err;

		if (wanted && strcmp(wanted, readers[i]->name) != 0)
			continue;
		err = readers[i]->probe(peer, why, sizeof(why));
		if (!err) {
			chosen[peer] = readers[i];
			nu_info("reads the memory of node %u through %s", peer, readers[i]->name);
			return 0;
		}
		/* That it is elsewhere is nothing to mend. */
		nu_log(err == -EXDEV ? NU_LOG_INFO : NU_LOG_WARN, "reader %s cannot read node %u: %s",
		       readers[i]->name, peer, why);
	}
	return -ENODEV;
}

int nu_reader_init(const char *wanted)
{
	bool known = false;

	if (wanted && (!*wanted || !strcmp(wanted, "auto")))
		wanted = NULL;
	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++)
		known |= wanted && !strcmp(wanted, readers[i]->name);
	if (wanted && !known) {
		nu_err("there is no reader '%s'; this build has: cma, am, am-offer", wanted);
		return -EINVAL;
	}
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (n != nu_node.self && choose(n, wanted))
			nu_warn("no reader for node %u: nothing can move from there to here", n);
	}
	return 0;
}

int nu_reader_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	if (peer >= NU_MAX_NODES || !chosen[peer])
		return -ENODEV;
	return chosen[peer]->read(peer, pieces, npieces);
}

int nu_reader_offer_kind(unsigned peer)
{
	if (peer >= NU_MAX_NODES || !chosen[peer] || !chosen[peer]->by_offer)
		return 0;
	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
		if (readers[i] == chosen[peer])
			return (int)i + 1;
	}
	return 0;
}

const struct nu_reader_ops *nu_reader_of_kind(int kind)
{
	if (kind < 1 || (size_t)kind > sizeof(readers) / sizeof(readers[0]) || !readers[kind - 1]->by_offer)
		return NULL;
	return readers[kind - 1];
}

const char *nu_reader_name(unsigned peer)
{
	return peer < NU_MAX_NODES && chosen[peer] ? chosen[peer]->name : "none";
}
