/* SPDX-License-Identifier: MIT */
/*
 * rpc/ as the folders above see it: the wire (batched messages over UCX active messages), calls, and how a call
 * finds its proclet.
 */
#pragma once

#include "sched/sched.h"

/* ---- the wire: wire.c link.c conn.c session.c, over ucx.c and tcp.c ---- */

enum nu_msg_type {
	NU_MSG_CALL = 1, /* to a proclet: run a method */
	NU_MSG_REPLY,	 /* to a proclet: the result of a call that it waits for */
	NU_MSG_REFUSED,	 /* to the calling proclet: the call was not run: redirect, stale, no memory */
	NU_MSG_HINT,	 /* to a node: proclet X is at node N with location number L */
	NU_MSG_STACK,	 /* to a node: stacks that come home */
	NU_MSG_TYPES
};

/* Classes of flow control: only CALL waits for credits. */
enum nu_msg_class { NU_CLASS_CALL, NU_CLASS_REPLY, NU_CLASS_CONTROL };

#define NU_MAX_HOPS 8

/*
 * Credits count calls; this bounds their bytes: of calls that a node has for one peer and that have not left it yet (it
 * is stopped, or slow), with one message per core more. Calls up to NU_QUEUED_BYTES_FREE are bounded by their number.
 */
#define NU_QUEUED_BYTES_MAX  ((size_t)16 << 20)
#define NU_QUEUED_BYTES_FREE 512u

/* In front of each message in a batch. Little endian, 8-aligned; as long as a cache line. */
struct nu_msg {
	uint32_t len_bytes; /* of this header and the payload, without padding to 8 */
	uint8_t type;
	uint8_t cls;
	uint8_t hops;
	uint8_t flags;
	uint64_t target; /* proclet that it is for */
	/* CALL: whom to answer: proclet, thread and sequence; REPLY, REFUSED, HINT: who waits. */
	uint64_t caller;
	uint64_t thread;
	uint64_t seq;
	uint32_t origin; /* node that issued the call */
	int32_t status;	 /* REPLY, REFUSED */
	union {
		uint64_t method; /* CALL, REPLY: descriptor's address, checked on arrival */
		uint64_t node;	 /* REFUSED, HINT: where the called proclet is ... */
	};
	union {
		uint64_t call_id;  /* CALL */
		uint64_t location; /* ... and how often it has moved */
	};
};
_Static_assert(sizeof(struct nu_msg) == 64, "wire format");

/*
 * Receives one message. Scheduler context of a core: must not block; @payload (len bytes, 8-aligned) is lost when it
 * returns. @from: the node that sent it (not the one that issued it). Everything in it is a peer's word: check it.
 */
typedef void (*nu_msg_fn)(const struct nu_msg *msg, const void *payload, size_t len, unsigned from);
void nu_wire_set_handler(enum nu_msg_type type, nu_msg_fn fn);

/*
 * Sends one message: header and parts are copied into the batch of the calling core's connection to @node before it
 * returns; sent when the batch is full, when the core's queue runs dry, or after NU_POLL_TICKS switches. Never blocks,
 * never takes credits. From a core (thread or scheduler context). To oneself is allowed (delivered from the poll).
 * Errors: -EHOSTDOWN the node is dead; -EMSGSIZE above NU_MESSAGE_MAX_BYTES; -ENOMEM.
 */
int __must_check nu_wire_send(unsigned node, const struct nu_msg *msg, const struct iovec *parts,
			      unsigned nparts);
/* Room for a message of @len_bytes in the batch that is being filled for @node, a live one, to be written at once: as
 * nu_wire_send() would; 8-aligned. NULL: send it. From a core. */
void *nu_wire_room(unsigned node, size_t len_bytes);
/*
 * One credit for a CALL of @len_bytes to @node; blocks the thread (NU_WAIT_CREDIT) while the peer has accepted too few
 * or while the bytes of calls that wait here to be sent to it are above NU_QUEUED_BYTES_MAX. Nested calls (@nested) draw
 * on a reserve of credits as well. Errors: -EHOSTDOWN, -ETIMEDOUT (@deadline_ns, 0: none); -EAGAIN the thread
 * has moved while it waited (no credit is held): find the target anew.
 */
int __must_check nu_wire_credit(unsigned node, size_t len_bytes, bool nested, uint64_t deadline_ns);
/* The same for a small one, if there is no need to wait. */
bool nu_wire_credit_now(unsigned node, bool nested);
/* Gives back a credit whose CALL of @len_bytes was not sent after all. From a core. */
void nu_wire_uncredit(unsigned node, size_t len_bytes);
/*
 * A frozen thread is about to leave this node or to be discarded: takes it out of the queue for credits, or takes back
 * a credit that it was given but has not yet seen. Its nu_wire_credit() then returns -EAGAIN and the caller starts
 * over. To be called for every thread of a frozen proclet that moves or ends, whatever its state; at once if it waits
 * for no credit. Return: true if it was still blocked: the caller makes it ready (which parks it, frozen as it is).
 */
bool nu_wire_forget_waiter(struct nu_thread *t);
/* A CALL from @from has been accepted (run, held or refused): its credit goes back with the next batch. */
void nu_wire_accepted(unsigned from);
/*
 * Somebody stands still for what was just sent to @node, a step of a move or of a creation: when it leaves, with the rest of
 * its batch, a core of the peer's that computes is interrupted for it, if the link can do that. From a core.
 */
void nu_wire_urge(unsigned node);
/* Sends the calling core's batches now. */
void nu_wire_flush(void);

/* Whether the calling thread may use the next: not if it runs within the scheduler's poll, nu_thread_run_now(). */
bool nu_wire_may_poll(void);
/* Sends the calling core's batches and handles what has come, from a thread that waits for something that is due within
 * microseconds and would rather not leave its core for it. Handlers run on the thread's stack. */
unsigned nu_wire_poll(void);

struct nu_wire_options {
	/* "auto": shared memory within a host, TCP between hosts; "shm", "tcp": our rings or sockets to every peer; a UCX_TLS list:
	 * UCX to every peer */
	const char *transport;
	unsigned credits;    /* per connection; 0: 4096 */
	size_t batch_bytes;  /* 0: 8 KiB less what UCX puts in front */
	uint64_t key;	     /* of the job, in every batch: nu_key_derive() */
	const char *address; /* numeric, of this host: sockets are bound to it alone; NULL or "": loopback */
	const char
		*device; /* of RDMA ("mlx5_0" or "mlx5_0:1"), where UCX uses one; NULL or "": as UCX likes */
};
/* A key for @purpose from the job's secret, which does not show in it. key.c */
uint64_t nu_siphash(const uint8_t key[16], const void *data, size_t len_bytes);
uint64_t nu_key_derive(const uint8_t secret[32], const char *purpose);
/* Makes the links that nu_node.host_of[] calls for, with one worker each per core; before nu_sched_start (adds its
 * pollers). */
int __must_check nu_wire_init(const struct nu_wire_options *o);
void nu_wire_fini(void);
/* This node's worker addresses as one blob (malloc'ed), to be given to all others before the first message. */
int __must_check nu_wire_address(void **blob_p, size_t *len_p);
int __must_check nu_wire_set_peer(unsigned node, const void *blob, size_t len);
/* For tests: reads what @node has told of its core 0, then, with @now, says something else. -EINVAL: not so long. */
int __must_check nu_wire_peer_address(unsigned node, void *was_p, size_t len, const void *now);
/* The node has been declared dead: connections are closed, waiters for credits fail. Any core. */
void nu_wire_peer_dead(unsigned node);
/* What carries the calling core's connection to @node, as text ("shm/ring", "tcp/eth0"), or -ENOTCONN. */
int __must_check nu_wire_transport(unsigned node, char *buf, size_t len);

/* ---- calls: call.c, serve.c, route.c ---- */

struct nu_rpc_ops {
	/* Asks the controller where @id is. Thread context; may call. 0, -ESTALE, -EHOSTDOWN. */
	int (*locate)(uint64_t id, unsigned *node_p, uint64_t *location_p);
	/* Creates: segment and node from the controller, then there. */
	int (*create)(const struct nu_class *cls, const struct nu_options *o, const void *args,
		      struct nu_ref *ref_p);
	/* The last reference is gone: @p is DYING, no call is active. Thread context on its node. */
	void (*retire)(struct nu_proclet *p);
	/* The controller's method that many threads call at a time: batched as other calls are, not a step of anything. */
	const struct nu_method *locate_method;
};
/*
 * For a step that must not be left out for want of memory: whether what ended with @err is to be tried again, as it is
 * for some seconds after -ENOMEM. Sleeps. @tries_p: 0 at first. Thread context.
 */
bool nu_rpc_again(int err, unsigned *tries_p);
void nu_rpc_set_ops(const struct nu_rpc_ops *ops);
int __must_check nu_rpc_init(void);

/* What this node last heard about @id. */
void nu_route_learn(uint64_t id, unsigned node, uint64_t location);
void nu_route_forget(uint64_t id);
/* Sends everything in p->held on to where it has moved; p->lock not held; p is MOVED or was undone to PRESENT. */
void nu_held_release(struct nu_proclet *p);
/* Where @id is: the cache, then the controller. Thread context; may call. -ESTALE, -EHOSTDOWN. */
int __must_check nu_rpc_locate(uint64_t id, unsigned *node_p, uint64_t *location_p);
/* The same by the controller, whatever the cache says. */
int __must_check nu_rpc_locate_anew(uint64_t id, unsigned *node_p, uint64_t *location_p);
/* @p is DYING and no call is active: has it freed by a thread of the node. Any core. */
void nu_rpc_retire(struct nu_proclet *p);
/* References that a dying proclet held: copied out, then given back on its behalf (thread context; calls). */
struct nu_held_ref {
	uint64_t id, count;
};
int __must_check nu_refs_held(struct nu_proclet *p, struct nu_held_ref **refs_p, size_t *n_p);
/* Counts @n more (or fewer) references to @target for @holder: a call. Fewer never fails for want of memory. */
int nu_ref_change(uint64_t target, uint64_t holder, int64_t n);
/* The first reference to a new proclet is @holder's (0: it is never freed). */
int __must_check nu_ref_first(struct nu_proclet *p, uint64_t holder);
/* @p holds one more counted reference to @id, which has been counted there already. */
int __must_check nu_ref_note_held_by(struct nu_proclet *p, uint64_t id);
/* Whether a holder of references is lost or has ended, by the controller's word. Thread context; calls. */
bool nu_ref_is_lost(uint64_t holder);
void nu_refs_give_back(uint64_t holder, struct nu_held_ref *refs, size_t n);
/* Starts fn(arg) as a thread of this node's own proclet. Any kernel thread. -ENOMEM. */
int __must_check nu_node_spawn(nu_thread_fn fn, void *arg);
/* ---- after deaths: lost.c ---- */

/* Fails every call that waits for the proclet of dead node @node itself. Any kernel thread. */
void nu_calls_node_dead(unsigned node);
/* The controller knows of the deaths so far: fails the calls here to lost proclets (-EHOSTDOWN), drops the references that
 * lost ones held. Thread of the node's own proclet; calls. */
void nu_lost_settle(void);
/*
 * And every node has heard of them: looks for calls that went away with a node though caller and callee live (in a queue,
 * held, on the way back) and fails them (-EHOSTDOWN: nobody knows whether they ran). @done: of how many deaths that was.
 * Returns at once; a thread of the node does it.
 */
void nu_lost_look(uint64_t done);
/* A proclet that was frozen, and may have been passed over by the above, goes on here. */
void nu_lost_recheck(struct nu_proclet *p);
/* Memory of a proclet: its heap, or libc's for a node's own. What a span result was put in, for instance. */
void *nu_proclet_alloc(struct nu_proclet *p, size_t len_bytes);
void nu_proclet_free(struct nu_proclet *p, void *ptr);
/*
 * Polls until @done says so, or the next call to this node's own proclet has come, or @for_us have passed: the threads of
 * a move wait so, since a core with other threads to run would look at its messages much later. For the first @alone_us
 * it keeps the core to itself, after that others run in between. Thread context.
 */
void nu_rpc_expect(bool (*done)(void *arg), void *arg, unsigned alone_us, unsigned for_us);
