/* SPDX-License-Identifier: MIT */
/* What the files of the wire share: connections, and what is known of the peers. */
#pragma once

#include "rpc/rpc_int.h"

enum conn_state {
	CONN_NEW, /* no endpoint yet: batches are queued until the core is in its scheduler */
	CONN_UP,
	CONN_BROKEN, /* messages are lost, as on a wire that was cut; membership decides what that means */
	CONN_DEAD,
};

struct nu_conn {
	struct nu_buf *open; /* batch that is being filled */
	void *ep;
	struct nu_list dirty_link; /* of its core; linked while there is something to flush */
	uint16_t core, node;
	uint8_t state;
	bool touched;			    /* a batch is wanted even if it holds no message */
	struct nu_buf *queue, **queue_tail; /* complete batches that wait for the endpoint */
};

struct wire_core {
	struct nu_conn *conns; /* [nu_node.count] */
	struct nu_list dirty;
	struct nu_buf *free;
	unsigned nfree;
	unsigned nsending; /* batches that UCX keeps */
	uint32_t batch_flags;
	struct nu_buf *own, **own_tail; /* batches to this node itself */
} __attribute__((aligned(NU_CACHE_LINE)));

/* Worker addresses of one peer. */
struct nu_peer {
	unsigned ncores;
	void *addresses[NU_MAX_CORES];
	atomic_bool dead, leaving;
};

extern struct nu_peer *nu_peers; /* [nu_node.count] */

/* wire_address.c */
void nu_peer_forget(struct nu_peer *p);
