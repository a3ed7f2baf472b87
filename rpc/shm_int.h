/* SPDX-License-Identifier: MIT */
/* What the two files of shared memory share: shm.c sends, sleeps and wakes, shm_in.c receives. */
#pragma once

#include "rpc/ring.h"
#include "rpc/wire_int.h"

#include <sys/socket.h>
#include <sys/un.h>

#define NU_SHM_GREETING_MAGIC 0x3173754eu
#define NU_SHM_RETRY_NS	      2000000ull

/* The way to a node: an endpoint. */
struct tx {
	struct nu_ring ring;
	struct nu_conn *conn; /* NULL: not in use */
	struct sockaddr_un to;
	socklen_t to_len;
	uint64_t tail, head; /* ours, and what we last saw of the reader's */
	size_t sent_bytes;   /* of the batch that is being written */
	size_t wanted_bytes; /* while stalled */
	int fd;		     /* until the reader has been there */
	bool stalled;	     /* whoever sends waits for room */
	bool owed;	     /* the reader could not be woken */
	uint64_t woken_at;   /* tail, when the reader was last woken */
	unsigned tries;
	uint64_t next_ns; /* try */
};

/* The way from a core of a node. */
struct rx {
	struct nu_ring ring;
	int fd;		     /* while there was no room to map it */
	uint64_t head, seen; /* read, and looked at: what lies between is not all of a batch */
	char *long_batch;    /* one that is longer than the ring */
	size_t long_bytes, long_have;
	struct sockaddr_un from;
	socklen_t from_len;
	uint16_t node, core;
};

struct worker {
	uint16_t core;
	bool armed;
	bool look; /* at the socket, and at what was put off */
	bool care; /* some ring is not yet known to its reader, full, or its reader could not be woken */
	int sock;
	unsigned polls, handled;
	uint64_t looked_ns;
	uint64_t retry_ns; /* when a timer is set for; 0: none */
	uint64_t away_ns;  /* as told to those who write to us */
	uint64_t pid_ns;   /* inode of this process's PID namespace; 0: not known */
	struct sockaddr_un name;
	socklen_t name_len;
	struct tx *tx;	/* [nu_node.count] */
	struct rx **rx; /* [nrx], of [rx_max] */
	unsigned nrx, rx_max;
	struct rx *spare; /* for the next that comes */
} __attribute__((aligned(NU_CACHE_LINE)));

struct greeting {
	uint32_t magic;
	uint16_t node, core;
	uint64_t key;
};

/* All of it in scheduler context. shm.c */
enum { NU_SHM_LINE_MAKE, NU_SHM_LINE_GIVE, NU_SHM_LINE_TAKE, NU_SHM_LINES };
void nu_shm_say_once(unsigned line, unsigned core, const char *what, int err);
/* Whatever could not be done is tried again then. */
void nu_shm_want_retry(struct worker *w, uint64_t at_ns);
void nu_shm_wake_writer(struct worker *w, struct rx *r);

/* shm_in.c */
struct worker *nu_shm_worker(unsigned core);
/* Tells those who write to @core which kernel thread they are to interrupt from now on: the calling one. */
void nu_shm_carried(unsigned core);
/* The socket's datagrams, and the end of rings. */
void nu_shm_look_around(struct worker *w);
/* Takes batches out of a ring. Return: whether the ring is still of use. */
bool nu_shm_poll_rx(struct worker *w, struct rx *r);
/* What is said to be in it and was not taken: whether it makes sense. */
bool nu_shm_is_sound(struct worker *w, struct rx *r);
void nu_shm_rx_destroy(struct worker *w, unsigned i, unsigned why);
