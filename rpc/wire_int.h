/* SPDX-License-Identifier: MIT */
/* What the files of the wire share: connections, sessions, peers, and the links that carry batches. */
#pragma once

#include "rpc/rpc_int.h"

enum conn_state {
	CONN_NEW,  /* no endpoint yet: batches are queued until the core is in its scheduler */
	CONN_UP,   /* has an endpoint, which may still be connecting */
	CONN_DOWN, /* its endpoint broke: the session goes on over the next one */
	CONN_LOST, /* broke and keeps nothing, as on a wire that was cut; membership decides what that means */
	CONN_DEAD,
};

/*
 * The way from a core to a node, which is also the session of that core with one core of the node: (core % the peer's
 * cores). Batches of a lasting connection are numbered and kept until the peer has acknowledged them.
 */
struct nu_conn {
	struct nu_buf *open; /* batch that is being filled */
	void *ep;
	const struct nu_link_ops
		*link;		   /* the peer's; NULL: to this node itself, or the peer has not been set */
	struct nu_list dirty_link; /* of its core; linked while there is something to flush */
	uint16_t core, node;
	uint8_t state;
	bool lasting;
	bool touched; /* a batch is wanted even if it holds no message */
	bool stalled; /* the endpoint takes no more until nu_wire_writable() */
	bool urgent;  /* nu_wire_urge() */
	bool ack_wanted, probe_wanted;
	/* Complete batches, oldest first: those before @unsent were sent over this endpoint and wait for their
	 * acknowledgement. @current has been begun. */
	struct nu_buf *queue, **queue_tail, *unsent, *current;
	void *broken_ep; /* to be closed from the scheduler */
	uint64_t seq;	 /* of the last batch made */

	/* Acknowledgements that another core of ours has received for this one. */
	_Atomic uint64_t acked;
	atomic_bool ack_again, ack_posted;
	/* When something is wrong. */
	struct nu_buf *ctl; /* header alone: acknowledges or probes, outside of the sequence */
	uint64_t up_ns, down_ns, retry_ns, probed, head_seen;
	unsigned attempts, waited, ack_next;
	bool retry_set, warned;
};

struct wire_core {
	struct nu_conn *conns; /* [nu_node.count] */
	struct nu_list dirty;
	struct nu_buf *free;
	unsigned nfree;
	bool polling;	    /* a handler may run a thread: serve.c */
	bool ticking;	    /* the timer that looks after unacknowledged batches is set */
	bool look;	    /* it may have slept: both links are looked at */
	uint64_t second_ns; /* when the second link was last looked at */
	uint32_t batch_flags;
	struct nu_buf *own, **own_tail; /* batches to this node itself */
} __attribute__((aligned(NU_CACHE_LINE)));

/* What has come from one core of a peer. Belongs to the core of ours that it sends to. */
struct nu_rx {
	uint64_t last, told; /* number of the last batch taken, and what the peer was told */
	uint32_t bytes;	     /* since it was told */
	uint32_t flags;	     /* of the next acknowledgement */
};

struct nu_peer {
	unsigned ncores;
	const struct nu_link_ops *link;
	void *addresses[NU_MAX_CORES];
	size_t address_lens[NU_MAX_CORES];
	struct nu_rx *rx; /* [ncores] */
	atomic_bool dead, leaving;
};

extern struct nu_peer *nu_peers;	/* [nu_node.count] */
extern struct wire_core *nu_wire_cores; /* [nu_node.cores] */

/* Which peers a link has to carry. */
enum nu_reach { NU_REACH_NONE, NU_REACH_HOST, NU_REACH_ALL };

#define NU_LINKS_MAX 2

/* What carries batches: a node has one or two of them, each peer one of these. Context as of the wire's poller. */
struct nu_link_ops {
	const char *name;
	uint32_t id;  /* in addresses */
	bool lasting; /* it may break although the peer lives, whatever it connects */
	int (*init)(const struct nu_wire_options *o, enum nu_reach reach);
	void (*fini)(void);
	int (*worker_create)(unsigned core);
	void (*worker_destroy)(unsigned core);
	int (*address)(unsigned core, void **addr_p, size_t *len_p); /* malloc'ed */
	/* Whether @addr, a peer's word, is one that this node can connect to; says why not. NULL: any. */
	int (*check)(unsigned node, const void *addr, size_t len);
	int (*connect)(unsigned core, const void *addr, size_t len, struct nu_conn *c, void **ep_p);
	/* 0: sent; 1: kept until nu_wire_sent(); -EAGAIN: begin or go on with the same batch after nu_wire_writable();
	 * else the endpoint is broken. */
	int (*send)(void *ep, struct nu_buf *b);
	/* Whether the peer has read all that was sent, and so has nothing to do for us. NULL: that cannot be known. */
	bool (*has_drained)(void *ep);
	/* All is sent, and waited for: interrupts the peer's core if it does not look. NULL: that cannot be done. */
	void (*nudge)(void *ep);
	/* Return: messages and ends of sends that were handled. */
	unsigned (*progress)(unsigned core);
	int (*arm)(unsigned core);
	/* The calling kernel thread carries the core from now on, perhaps in the midst of a progress. NULL: all one. */
	void (*carried)(unsigned core);
	/* Starts to close, without regard for what is under way; @ep is gone for the caller. */
	void (*close)(unsigned core, void *ep);
	/* Waits until all that was sent has left and every close is done, at most @timeout_ns. NULL: nothing to wait for. */
	int (*drain)(unsigned core, uint64_t timeout_ns);
	bool (*may_break)(void *ep); /* although the peer lives */
	int (*transport)(void *ep, char *buf, size_t len);
};
extern const struct nu_link_ops nu_ucx_link, nu_tcp_link, nu_shm_link;
/* Whether this host lets us have what shm.c needs; if not, it is said why. */
bool nu_shm_is_possible(void);

/* link.c */
extern const struct nu_link_ops *nu_links[NU_LINKS_MAX + 1]; /* those of this node, then NULL */
int nu_links_init(const struct nu_wire_options *o);
void nu_links_fini(void);
/* The link to @node, which has those in @theirs (bits 1 << id). NULL: none is possible; said. */
const struct nu_link_ops *nu_link_choose(unsigned node, uint32_t theirs);
unsigned nu_second_progress(unsigned core);
static inline unsigned nu_links_progress(unsigned core)
{
	unsigned events = nu_links[0]->progress(core);

	return likely(!nu_links[1]) ? events : events + nu_second_progress(core);
}
/* For the pollers. */
int nu_links_arm(unsigned core);
int nu_second_arm(unsigned core);
void nu_links_carried(unsigned core);
/* On the wire's stop: -ETIMEDOUT. */
int nu_links_drain(unsigned core, uint64_t timeout_ns);

/* wire.c */
struct nu_buf *nu_buf_get(struct wire_core *wc, size_t cap_bytes);
/* Gives a buffer back, or has it given back when the link lets go of it. */
void nu_buf_put(struct wire_core *wc, struct nu_buf *b);
void nu_batch_head(struct nu_conn *c, struct nu_buf *b, uint32_t flags);
int nu_wire_bad(unsigned core, unsigned from, const char *what, uint64_t value);
uint64_t nu_wire_key(void);
/* Whether @key is the job's; if not, it is counted and said. */
bool nu_wire_knows(unsigned core, uint64_t key);

static inline void nu_conn_dirty(struct nu_conn *c)
{
	if (c->dirty_link.next == &c->dirty_link)
		nu_list_add_tail(&nu_wire_cores[c->core].dirty, &c->dirty_link);
}

/* conn.c: scheduler context unless said otherwise. */
/* Queues or sends a complete batch. Any context of its core. */
void nu_conn_post(struct wire_core *wc, struct nu_conn *c, struct nu_buf *b);
/* Whether more is left to do than nu_conn_post() has done at once. */
static inline bool nu_conn_has_work(const struct nu_conn *c)
{
	return c->state != CONN_UP || c->unsent || c->current || c->ack_wanted || c->probe_wanted ||
	       c->broken_ep;
}
/* Connects if there is need, and sends what can be sent. */
void nu_conn_flush(struct wire_core *wc, struct nu_conn *c);
/* Any context of its core. */
void nu_conn_break(struct nu_conn *c, int err);
void nu_conn_drop_all(struct wire_core *wc, struct nu_conn *c);
/* The end of it, with all that was queued on it. */
void nu_conn_close(struct nu_conn *c);
/* A peer's core has connected: the connection that goes there if it shall use @ep. */
struct nu_conn *nu_conn_adopt(unsigned core, unsigned node, unsigned peer_core, void *ep);

/* session.c */
/* @b, which is to be sent now, says what has been received. */
void nu_session_stamp(struct nu_conn *c, struct nu_batch *h);
/* 1: a numbered batch is the next of its session; 0: it is not and must be dropped; -EBADMSG: there is no such session. */
int nu_session_take(unsigned core, const struct nu_batch *h);
/* A batch says what its sender has received. */
void nu_session_acked(unsigned core, const struct nu_batch *h);
/* A batch asks to be told what has been received. */
void nu_session_asked(unsigned core, const struct nu_batch *h);
/* @c's endpoint broke: what it told the peer may never have arrived. */
void nu_session_broken(struct nu_conn *c);
/* Looks after unacknowledged batches from now on. Any context of the core. */
void nu_session_tick(struct wire_core *wc);

/* wire_address.c */
void nu_peer_forget(struct nu_peer *p);
