/* SPDX-License-Identifier: MIT */
/*
 * rdma/ as the folders above see it: readers that pull a peer's memory one-sidedly, and the migration engine.
 */
#pragma once

#include "rpc/rpc.h"

/* One piece of a pull: @len bytes of the peer at @remote into @local. */
struct nu_piece {
	void *local;
	uint64_t remote;
	size_t len_bytes;
};

/* A way to read a peer's memory. Chosen per pair of nodes, best first. reader.c */
struct nu_reader_ops {
	const char *name;
	/* Whether node @peer can be read so. 0, or a negative errno with the reason in @why. */
	int (*probe)(unsigned peer, char *why, size_t why_len);
	/* Reads all pieces, or fails: -EHOSTDOWN the peer is gone, -EPERM, -EIO. Kernel thread may block in a system call
	 * for the time of the copy. */
	int (*read)(unsigned peer, const struct nu_piece *pieces, unsigned npieces);
};
extern const struct nu_reader_ops nu_reader_cma, nu_reader_am;

/* Probes the readers for each peer; @wanted: NULL or "auto", or a name. After peers' pids are known. */
int __must_check nu_reader_init(const char *wanted);
int __must_check nu_reader_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces);
const char *nu_reader_name(unsigned peer);

struct nu_move_ops {
	/* Names the destination's number and records the move in flight; checks that it may happen. Thread context. */
	int (*begin)(uint64_t id, unsigned to, uint64_t *location_p);
	/* The move ended: the proclet is at @at with @location. Thread context. */
	int (*end)(uint64_t id, unsigned at, uint64_t location, bool moved);
};
void nu_move_set_ops(const struct nu_move_ops *ops);
int __must_check nu_move_init(void);
/* Moves a proclet of this node to @to. Thread context, a thread of this node's own proclet. Errors as nu_migrate(). */
int __must_check nu_move_out(uint64_t id, unsigned to);
/* Node @node is dead: what was to come from it will not, what has been pulled from it stays. Thread context. */
void nu_move_node_dead(unsigned node);
/* Takes the threads of a frozen proclet that leaves or ends out of this node's queues for credits. */
void nu_move_forget_waiters(struct nu_proclet *p);
