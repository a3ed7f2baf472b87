/* SPDX-License-Identifier: MIT */
/* Built without libibverbs: nothing can be read by RDMA. */
#include "rdma/rdma.h"

#include <stdio.h>
#include <string.h>

const struct nu_pool_ops nu_verbs_pool_ops;

int nu_verbs_open(const struct nu_rdma_options *o, const char *address, uint64_t key)
{
	if (o && o->why)
		snprintf(o->why, o->why_bytes, "built without libibverbs (meson's option verbs)");
	else
		nu_info("no RDMA: built without libibverbs (meson's option verbs)");
	return -ENODEV;
}

const char *nu_verbs_device(void)
{
	return NULL;
}

void nu_verbs_stop(void)
{
}

void nu_verbs_close(void)
{
}

int nu_verbs_card(void **blob_p, size_t *len_p)
{
	return -ENODEV;
}

int nu_verbs_set_peer(unsigned node, const void *blob, size_t len)
{
	return 0;
}

void nu_verbs_peer_dead(unsigned node)
{
}

int nu_verbs_connect(unsigned peer)
{
	return -ENODEV;
}

int nu_verbs_read_bare(unsigned peer, const struct nu_piece *piece, size_t each_bytes, unsigned depth)
{
	return -ENODEV;
}

int nu_verbs_offer(unsigned to, const struct nu_extent *e, size_t len_bytes, struct nu_offer_piece *piece_p)
{
	return -ENODEV;
}

void nu_verbs_withdraw(unsigned to, const struct nu_offer_piece *piece)
{
}

void nu_verbs_counts(struct nu_verbs_counts *c_p)
{
	memset(c_p, 0, sizeof(*c_p));
}

static int probe(unsigned peer, char *why, size_t why_len)
{
	snprintf(why, why_len, "built without libibverbs");
	return -ENODEV;
}

static int read_pieces(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	return -ENODEV;
}

const struct nu_reader_ops nu_reader_verbs = {.name = "verbs",
					      .bytes = NU_STAT_READ_BYTES_VERBS,
					      .by_offer = true,
					      .probe = probe,
					      .read = read_pieces,
					      .offer = nu_verbs_offer,
					      .withdraw = nu_verbs_withdraw,
					      .cut = nu_verbs_peer_dead};
