/* SPDX-License-Identifier: MIT */
/*
 * rdma/ as the folders above see it: readers that pull a peer's memory one-sidedly, and the migration engine.
 */
#pragma once

#include "rpc/rpc.h"

/*
 * One piece of a pull: @len_bytes of the peer at @remote into @local. A reader with `by_offer` reads the pool's addresses
 * (homes of extents, on both sides), with what the source has offered; the others read segment and stack addresses.
 */
struct nu_piece {
	void *local;
	uint64_t remote;
	size_t len_bytes;
	/* by_offer alone: key of the remote memory, the queue pair that it is good for, and where the pages of the home
	 * @local are just now (a device need not know). */
	uint32_t rkey, lane;
	void *at;
};

/* What a source offers to a destination for the time of one migration. */
struct nu_offer_piece {
	uint64_t address; /* in the pool */
	uint64_t len_bytes;
	uint32_t rkey, lane;
};

/* A way to read a peer's memory. Chosen per pair of nodes, best first. reader.c */
struct nu_reader_ops {
	const char *name;
	enum nu_stat bytes; /* counts what is read so */
	bool by_offer;
	/* Whether node @peer can be read so. 0, or a negative errno with the reason in @why. */
	int (*probe)(unsigned peer, char *why, size_t why_len);
	/* By_offer: what can be made ready for reading @peer, before anything waits for it; NULL: nothing. Thread context;
	 * blocks. -EHOSTDOWN, -EHOSTUNREACH, -EACCES, -ENOMEM. */
	int (*connect)(unsigned peer);
	/* Reads all pieces, or fails: -EHOSTDOWN the peer is gone, -EPERM, -EIO; nothing is under way any more when it
	 * returns. Thread context. cma: the kernel thread blocks for the time of the copy; others let threads run. */
	int (*read)(unsigned peer, const struct nu_piece *pieces, unsigned npieces);

	/* By_offer alone, at the source, thread context. Makes @len_bytes of @e's home readable for node @to, and its end:
	 * -EHOSTDOWN, -EHOSTUNREACH, -ENOMEM. */
	int (*offer)(unsigned to, const struct nu_extent *e, size_t len_bytes,
		     struct nu_offer_piece *piece_p);
	void (*withdraw)(unsigned to, const struct nu_offer_piece *piece);
	/* Node @peer may still be reading and will not say when it has ended: when this returns it has. */
	void (*cut)(unsigned peer);
};
extern const struct nu_reader_ops nu_reader_cma, nu_reader_verbs, nu_reader_am, nu_reader_am_offer;

/* Probes the readers for each peer; @wanted: NULL or "auto", or a name. After every peer's card has been set. */
int __must_check nu_reader_init(const char *wanted);
int __must_check nu_reader_connect(unsigned peer);
/* What there is to read @peer by, or for it to read us, goes. nu_node.dead says so already. Thread context. */
void nu_reader_peer_dead(unsigned peer);
int __must_check nu_reader_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces);
const char *nu_reader_name(unsigned peer);
/* How @peer must offer what this node shall read: a number that nu_reader_of_kind() knows there; 0: it need not. */
int nu_reader_offer_kind(unsigned peer);
const struct nu_reader_ops *nu_reader_of_kind(int kind); /* NULL: there is none */

/* ---- RDMA: options.c device.c verbs*.c, or verbs_stub.c where there is no libibverbs ---- */

#define NU_RDMA_QUEUE_PAIRS_MAX 8u

enum nu_rdma_windows { NU_WINDOWS_AUTO, NU_WINDOWS_ON, NU_WINDOWS_OFF };

/* Zero (and gid_index -1) is the default of each; `nu_launch --rdma KEY=VALUE,...`. */
struct nu_rdma_options {
	char device[64];	 /* "" the best active one */
	unsigned port;		 /* 0: the best active one */
	int gid_index;		 /* -1: RoCE v2 with the node's address, else the best */
	unsigned queue_pairs;	 /* per pair of nodes and direction; 0: 2 */
	unsigned depth;		 /* READs under way on each; 0: what both devices can */
	unsigned read_bytes;	 /* larger extents are split into READs of so much; 0: 1 MiB */
	unsigned timeout, retry; /* IB spec: 4.096 us * 2^timeout; 0: 14 and 7 */
	unsigned rnr_retry;	 /* 0: 7, which is for ever */
	unsigned mtu;		 /* bytes; 0: the port's active one */
	unsigned spin_us;	 /* a completion is polled for so long before the thread sleeps; 0: 50 */
	char *why; /* NULL, or what gets the reason why there is no device, for the caller to say */
	size_t why_bytes;
	enum nu_rdma_windows windows; /* memory windows (type 2) for each offer; AUTO: see verbs_offer.c */
};
/* Reads "device=mlx5_0:1,gid=3,qps=2,depth=16,..." (also "" and NULL). -EINVAL with the reason in @why. options.c */
int __must_check nu_rdma_options_parse(const char *text, struct nu_rdma_options *o, char *why,
				       size_t why_len);

/*
 * Opens the device, makes the protection domain, listens for peers with rdmacm at @address (this host's, as text). Before
 * nu_pool_init(), which gets nu_verbs_pool_ops. @key authenticates queue pairs. Errors: -ENODEV no device, or none that is
 * active (the reason is logged); -ENOMEM RLIMIT_MEMLOCK, named. Any kernel thread. verbs.c
 */
int __must_check nu_verbs_open(const struct nu_rdma_options *o, const char *address, uint64_t key);
/* Device and port in use, as UCX names them ("mlx5_0:1"); NULL: none is open. */
const char *nu_verbs_device(void);
/* Before nu_sched_stop(): from here on no thread that waits for the device is looked at, since their stacks go. */
void nu_verbs_stop(void);
/* After the last read and the scheduler's end: queue pairs, listener, regions, device. */
void nu_verbs_close(void);
extern const struct nu_pool_ops nu_verbs_pool_ops;
/* What peers must know to connect (device, address, nonce); malloc'ed. -ENODEV: not open. */
int __must_check nu_verbs_card(void **blob_p, size_t *len_p);
/* @len 0: that peer has no device. -EBADMSG. */
int __must_check nu_verbs_set_peer(unsigned node, const void *blob, size_t len);
/*
 * The peer is dead (nu_node.dead says so by then), or its reads must end: its queue pairs are torn down; when this returns
 * it reads nothing any more. If it lives, they are made anew when somebody needs them.
 */
void nu_verbs_peer_dead(unsigned node);

/*
 * Makes the queue pairs by which this node reads @peer, if they are not there. Reads have it done themselves; an offer by
 * window waits some seconds for it and cannot bring it about, so it comes before the peer is asked for one. Thread context; blocks. Errors: -EHOSTDOWN, -EHOSTUNREACH, -EACCES it refused us,
 * -ENOMEM, -ENODEV.
 */
int __must_check nu_verbs_connect(unsigned peer);
/*
 * Makes @len_bytes of @e's home readable for node @to; what came of it goes to @piece_p. Source, thread context, may block
 * for as long as a queue pair to @to is being made. Errors: -EHOSTDOWN, -EHOSTUNREACH, -ENOMEM.
 */
int __must_check nu_verbs_offer(unsigned to, const struct nu_extent *e, size_t len_bytes,
				struct nu_offer_piece *piece_p);
/* Its end, whether or not it was read: @to cannot read it by this any more where the device has windows. */
void nu_verbs_withdraw(unsigned to, const struct nu_offer_piece *piece);

/*
 * For benchmarks, the limit of nu_reader_read(): reads @piece in READs of @each_bytes, at most @depth at a time, by one queue
 * pair that nobody else uses meanwhile, polling; the calling core does nothing else. Thread context. Errors: as
 * nu_verbs_connect(); -EIO a READ failed; -EBUSY the queue pair is in use, or has no @depth work requests; -EINVAL.
 * verbs_bare.c
 */
int __must_check nu_verbs_read_bare(unsigned peer, const struct nu_piece *piece, size_t each_bytes,
				    unsigned depth);

/* What the engine has done; for benchmarks. */
struct nu_verbs_counts {
	uint64_t reads_posted, read_bytes, completions, polls, sleeps;
	uint64_t connects, refused, broken; /* queue pairs that came to be, were refused here, and broke */
	uint64_t windows_bound;
	/* What there is now. */
	uint64_t queue_pairs, regions, windows;
};
void nu_verbs_counts(struct nu_verbs_counts *c_p);

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
