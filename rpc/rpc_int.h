/* SPDX-License-Identifier: MIT */
/* What the files of rpc/ share. */
#pragma once

#include "rpc/rpc.h"

#include <stdlib.h>
#include <string.h>

/* Arguments up to this size lie on the callee's stack, larger ones in a block of its heap. */
#define NU_STACK_ARGS_MAX 8192u
#define NU_HELD_MAX	  65536u	/* calls held per moving proclet; more are refused with -EAGAIN ... */
#define NU_HELD_BYTES_MAX (64 * NU_MIB) /* ... as are those that would make them longer than this together */

/* Reasons of NU_MSG_REFUSED beside errno values that the caller sees: the call was not run. */
#define NU_REFUSED_MOVED 10001 /* .node: where it is, or NU_NODE_UNKNOWN; .location */
#define NU_REFUSED_BUSY	 10002 /* try again later */
#define NU_NODE_UNKNOWN	 (~0u)

/* A message that waits for a proclet to arrive or to have left. */
struct nu_held {
	struct nu_list link; /* nu_proclet.held */
	unsigned from;
	size_t len_bytes;
	struct nu_msg msg;
	char payload[] __attribute__((aligned(16)));
};

struct nu_out {
	struct nu_thread *thread;
};

extern struct nu_rpc_ops nu_rpc_ops;

/* Whether a call of @m on @id is one that somebody stands still for: a step of a move, of a creation, and the like. */
static inline bool nu_is_step(uint64_t id, const struct nu_method *m)
{
	return unlikely(nu_id_seg(id) >= NU_SEG_NODE(0) || id == NU_ID_CTRL) && m != nu_rpc_ops.locate_method;
}

/* What a thread waits for. Set without a lock, after what an answer needs; read by cores that bring an answer. */
static inline uint64_t nu_wait_seq(const struct nu_thread *t)
{
	return __atomic_load_n(&t->wait_seq, __ATOMIC_ACQUIRE);
}
static inline void nu_wait_seq_set(struct nu_thread *t, uint64_t seq)
{
	__atomic_store_n(&t->wait_seq, seq, __ATOMIC_RELEASE);
}

/* call.c */
void nu_call_init(void);
/* The last call's sequence number; each core counts on, from a number of its own. */
extern struct nu_call_seq {
	uint64_t n;
} __attribute__((aligned(NU_CACHE_LINE))) nu_call_seqs[NU_MAX_CORES] __attribute__((visibility("hidden")));
/* The next one: unique for the address of the calling thread @t, over its reuse too. */
static inline uint64_t nu_call_next_seq(const struct nu_thread *t)
{
	return ++nu_call_seqs[t->core].n; /* it runs there */
}

static inline uint64_t nu_mix(uint64_t a, uint64_t b)
{
	uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ull + (a << 6) + (a >> 2));

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}
/* The identity of the call that @t serves, or that a thread which serves none was given. */
static inline uint64_t nu_call_identity(struct nu_thread *t)
{
	if (unlikely(t->call_nth)) {
		t->call_id = nu_mix(t->call_outer, t->call_nth);
		t->call_nth = 0;
	}
	return t->call_id;
}
/* @t waits from now on for the answer to call @seq. */
static inline void nu_wait_arm(struct nu_thread *t, uint64_t id, const struct nu_method *m, void *result,
			       uint64_t seq)
{
	t->wait_method = m;
	t->wait_result = result;
	__atomic_store_n(&t->wait_target, id, __ATOMIC_RELAXED);
	t->wait_status = 0;
	t->wait_done = 0;
	nu_wait_seq_set(t, seq);
}
/* Tells @callee whom to answer; from then on @t waits. In this order: rpc/lost.c */
static inline void nu_call_introduce(struct nu_thread *t, struct nu_thread *callee, uint64_t id,
				     const struct nu_method *m, void *result, uint64_t seq)
{
	callee->call_outer = nu_call_identity(t);
	callee->call_nth = t->call_index;
	callee->call_index = 0;
	__atomic_store_n(&callee->reply_thread, t, __ATOMIC_RELAXED);
	__atomic_store_n(&callee->reply_seq, seq, __ATOMIC_RELAXED);
	__atomic_store_n(&callee->reply_proclet, t->proclet_id, __ATOMIC_RELAXED);
	nu_wait_arm(t, id, m, result, seq);
}

/* chain.c: nu_sched_ops.is_waited_for */
bool nu_chain_reaches(const struct nu_thread *t, const struct nu_thread *owner);

/* serve.c */
void nu_serve_on_call(const struct nu_msg *msg, const void *payload, size_t len, unsigned from);
/* A linked thread of @p (lock held) that will serve @m with @args; NULL and *err_p when it cannot. Not yet runnable. */
struct nu_thread *nu_serve_prepare(struct nu_proclet *p, const struct nu_method *m, const void *packed,
				   size_t len, int *err_p);
/* What a spare thread is handed. */
struct nu_quick {
	uint64_t id;
	const struct nu_method *m;
	const void *args;
	void *result;
};
void *nu_serve_quick(struct nu_thread *t, void *quick);
/* What one that nu_serve_prepare() made is handed. */
void *nu_serve_handed(struct nu_thread *t, void *ignored);
/* A copy of a message. Of an answer that there is no memory for its status is kept, -ENOMEM. NULL: no memory; of an answer it is
 * said in the log. */
struct nu_held *nu_held_get(const struct nu_msg *msg, const void *payload, size_t len);
/* Keeps a copy of a message in p->held (lock held). -EAGAIN too many calls, -ENOMEM. Of a reply that there is no memory
 * for its bare status is kept, -ENOMEM. */
int nu_held_add(struct nu_proclet *p, const struct nu_msg *msg, const void *payload, size_t len,
		unsigned from);
/* Handles a message as if it had just arrived. */
void nu_serve_dispatch(const struct nu_msg *msg, const void *payload, size_t len, unsigned from);

/* reply.c */
void nu_reply_on_message(const struct nu_msg *msg, const void *payload, size_t len, unsigned from);
/* The calling thread has served its call: answers it and ends. */
void nu_reply_and_exit(struct nu_thread *t, int status) __attribute__((noreturn));
/* Tells the caller of @msg that it was not run. */
void nu_reply_refuse(const struct nu_msg *msg, int status, unsigned node, uint64_t location);
/* Waits until the proclet's output may leave it. */
void nu_output_wait(struct nu_proclet *p);

/* route.c */
bool nu_route_lookup(uint64_t id, unsigned *node_p, uint64_t *location_p);

/* ref.c */
/* References to proclets here that proclets lost with a node held are dropped. Thread context; calls. */
void nu_refs_check_lost(void);
int nu_reftab_add(struct nu_proclet *p, struct nu_reftab **tab, uint64_t id, int64_t n, uint64_t *left_p);

/* ---- the wire below calls: wire.c batches messages, credit.c counts calls, ucx.c carries batches ---- */

#define NU_BATCH_MAGIC	   0x3262754eu
#define NU_BATCH_BYE	   1u  /* the sender closes this connection on purpose */
#define NU_BATCH_ACK	   2u  /* .ack and .ack_core hold */
#define NU_BATCH_AGAIN	   4u  /* with ACK: a batch is missing, send again from behind .ack */
#define NU_BATCH_ASK	   8u  /* acknowledge now */
#define NU_BATCH_ANSWER	   16u /* with ACK: because it was asked for */
#define NU_BATCH_FLAGS	   31u
#define NU_BATCH_MAX_BYTES (sizeof(struct nu_batch) + sizeof(struct nu_msg) + NU_MESSAGE_MAX_BYTES)

/* In front of each batch. Messages follow, each 8-aligned. Little endian. */
struct nu_batch {
	uint32_t magic;
	uint32_t len_bytes; /* of the whole batch */
	uint64_t key;	    /* of the job: what lacks it comes from a stranger */
	uint64_t seq;	    /* of the sending core's session with the receiving node, from 1; 0: in none */
	uint64_t ack;	    /* last batch taken of the session of the receiver's core .ack_core */
	uint32_t credits;   /* calls of the receiving node that the sender has accepted */
	uint32_t flags;
	uint16_t node; /* that sends it */
	uint16_t core;
	uint16_t ack_core;
	uint16_t spare; /* 0 */
};
_Static_assert(sizeof(struct nu_batch) == 48, "wire format");

/* Memory of one outgoing batch, kept until the link has sent it, or the peer has acknowledged it. */
struct nu_buf {
	struct nu_buf *next;
	struct nu_conn *conn;
	void *ep; /* that it was last given to */
	unsigned core;
	bool busy;    /* the link holds it */
	bool dropped; /* while busy: nobody else wants it any more */
	bool sent;    /* once at least */
	unsigned nmsgs;
	size_t len_bytes, cap_bytes;
	size_t call_bytes; /* of the calls in it, as nu_wire_credit() counted them */
	char data[] __attribute__((aligned(16)));
};

/* Takes a received batch apart and hands its messages to their handlers. @own: from this node's own queue. Return:
 * messages handled, or -EBADMSG after the first bad byte (counted; the rest is dropped). @data is 8-aligned. */
int nu_wire_receive(unsigned core, const void *data, size_t len, bool own);
/* A batch that the link kept has left (0), or never will (-errno). On its core. */
void nu_wire_sent(struct nu_buf *b, int err);
/* The connection's endpoint failed. On its core, inside the link's progress; nothing if it has another by now. */
void nu_wire_broken(struct nu_conn *c, void *ep, int err);
/* The endpoint takes batches again. */
void nu_wire_writable(struct nu_conn *c);

int __must_check nu_credit_init(unsigned window);
void nu_credit_fini(void);
/* Credits to be given back to @node, taken for a batch that leaves now. */
uint32_t nu_credit_take_due(unsigned node);
/* Whether so many are due that a batch should be made for them. */
bool nu_credit_is_due(unsigned node);
/* Calls of so many bytes have left for @node, or never will. Any context. */
void nu_credit_bytes_gone(unsigned node, size_t bytes);
/* @n of our calls were accepted by @node. -EBADMSG: it never had so many. */
int nu_credit_returned(unsigned node, uint32_t n);
void nu_credit_peer_dead(unsigned node);
/* wire.c, for credit.c: the calling core makes a batch to @node at its next flush even if it holds no message. */
void nu_wire_touch(unsigned node);
bool nu_wire_is_dead(unsigned node);
