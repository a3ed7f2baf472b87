/* SPDX-License-Identifier: MIT */
/*
 * What the files of the RDMA reader share. verbs.c opens and closes; verbs_mr.c knows the pool's regions; verbs_cm.c makes
 * connections, by a kernel thread of its own, and verbs_hello.c says whose they are; verbs_lane.c has the queue pairs and
 * what is under way on them; verbs_read.c reads; verbs_offer.c lets others read.
 *
 * A lane is one queue pair of two nodes, used in one direction: the reader connects, the source accepts. Only the service
 * thread makes and destroys what a lane consists of (but see nu_lane_cut()); everybody uses it under the lane's lock.
 */
#pragma once

#include "core/fault.h"
#include "rdma/device.h"

#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>

#define NU_LANES_MAX	NU_RDMA_QUEUE_PAIRS_MAX
#define NU_LANE_SQ_MAX	256u /* work requests that are posted at a time */
#define NU_LANE_SGE_MAX 8u   /* local pieces of one READ */
#define NU_LANE_FLUSH_NS                                                                                     \
	5000000000ull /* that a device may take to give back what was posted to a broken queue pair */
#define NU_LANE_CHAIN	   16u /* posted at once; the last of each chain is signalled */
#define NU_LANE_NAME_BYTES 48
#define NU_WINDOWS_BY_DEFAULT                                                                                \
	true /* where the device has them: what protects is on unless it is turned off */
#define NU_LANE_ANY	UINT32_MAX   /* an offer's, where there are no windows */
#define NU_LANE_LOOK_NS 250000000ull /* a thread that waits looks that often without being told */

/* ---- a thread that waits for lanes: on its stack ---- */

/*
 * Lock order: a lane's, then this. `pending` counts what the thread has posted and what has not come back; until it is 0
 * this must not go away.
 */
struct nu_lane_wait {
	struct nu_lock lock;
	struct nu_thread *thread; /* blocked in nu_lane_sleep() */
	uint32_t events;	  /* that concern it */
	unsigned pending;
	int error;	     /* the first one */
	struct nu_list link; /* in a lane's `room` or `waiters`, under that lane's lock */
};
void nu_lane_wait_init(struct nu_lane_wait *w);
/* Something that concerns it has happened. Any kernel thread. */
void nu_lane_signal(struct nu_lane_wait *w);
/* Blocks until more than @seen has happened, or @for_ns are over. Thread context. */
void nu_lane_sleep(struct nu_lane_wait *w, uint32_t seen, uint64_t for_ns);
static inline uint32_t nu_lane_events(struct nu_lane_wait *w)
{
	return __atomic_load_n(&w->events, __ATOMIC_ACQUIRE);
}

/* ---- lanes: verbs_lane.c ---- */

enum nu_lane_state {
	NU_LANE_IDLE,
	NU_LANE_ADDRESS, /* being resolved; then the route; then connected */
	NU_LANE_ROUTE,
	NU_LANE_CONNECT, /* until the other side has answered, or confirmed */
	NU_LANE_UP,
	NU_LANE_BROKEN, /* what is posted comes back with errors; then it is torn down */
};

/* A posted work request. */
struct nu_lane_slot {
	struct nu_lane_wait *wait;
	uint32_t len_bytes;
};

/* A memory window that is bound on a lane. */
struct nu_window {
	struct nu_list link; /* in its lane's windows, under its lock, or among the free ones */
	struct ibv_mw *mw;
	uint32_t rkey;
};

struct nu_lane {
	struct nu_lock lock;
	uint8_t node, index;
	bool out; /* this node reads by it */
	bool armed;
	enum nu_lane_state state;
	uint32_t attempt; /* which connection it is: raised by the reader, known to both */
	bool wanted;	  /* somebody waits for a connection */
	uint32_t failures;
	uint64_t failed_at_ns;
	int error;		/* of the last failure */
	struct nu_list waiters; /* nu_lane_wait.link: for a connection */

	struct ibv_qp *qp;
	struct ibv_cq *cq;
	unsigned sq;	/* how many work requests */
	unsigned depth; /* READs that the device has under way at a time */
	uint32_t head,
		tail; /* [tail, head) are posted; a completion names one and stands for those before it */
	struct nu_lane_slot *slots;
	uint64_t bytes;	     /* under way */
	struct nu_list room; /* nu_lane_wait.link: for a free slot */
	struct nu_list windows;

	/* The service thread's alone. */
	struct rdma_cm_id *id;
	unsigned tries;
	uint64_t deadline_ns; /* of this step */
	bool disconnected;
};

/* A peer's device, by its card. */
struct nu_verbs_peer {
	bool known;
	char why[96]; /* not known: why it cannot be read */
	uint64_t nonce;
	struct sockaddr_storage address;
	char device[64];
	atomic_uint turn; /* of the lanes in, for offers */
	struct nu_lane out[NU_LANES_MAX], in[NU_LANES_MAX];
};

struct nu_verbs {
	bool open;
	atomic_bool removed;	  /* the device was taken out */
	struct nu_rdma_options o; /* as they are, no defaults left but depth and mtu */
	bool windows;
	bool iwarp;
	unsigned sge; /* local pieces of a READ */
	char device[64], netdev[16];
	unsigned port, gid_index;
	struct ibv_device_attr attr;
	struct ibv_context *context; /* rdmacm's, as long as the listener lives */
	struct ibv_pd *pd;
	struct ibv_comp_channel *completions;
	struct rdma_event_channel *events;
	struct rdma_cm_id *listener;
	struct sockaddr_storage address;
	uint8_t key[16];
	uint64_t nonce;
	pthread_t service;
	bool has_service;
	int wake_fd;
	atomic_bool stop, stopped; /* stopped: who waits is not there any more */
	_Atomic(struct nu_verbs_peer *) peers[NU_MAX_NODES];
};
extern struct nu_verbs nu_verbs;

struct nu_verbs_atomic_counts {
	atomic_ulong reads_posted, read_bytes, completions, polls, sleeps, connects, refused, broken,
		windows_bound, queue_pairs, regions, windows;
};
extern struct nu_verbs_atomic_counts nu_verbs_count;
static inline void nu_count(atomic_ulong *c, unsigned long n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline struct nu_verbs_peer *nu_verbs_peer(unsigned node)
{
	return node < NU_MAX_NODES ? atomic_load_explicit(&nu_verbs.peers[node], memory_order_acquire) : NULL;
}
static inline bool nu_verbs_is_dead(unsigned node)
{
	return atomic_load_explicit(&nu_node.dead[node], memory_order_relaxed);
}

void nu_lane_init(struct nu_lane *l, unsigned node, unsigned index, bool out);
const char *nu_lane_name(const struct nu_lane *l, char text[NU_LANE_NAME_BYTES]);

/* Its end: what was posted fails, windows are unbound, all is destroyed but the id. The service thread's. */
void nu_lane_unmake(struct nu_lane *l);

/* With the lane's lock held, all of these; the service thread's: queue pair and completion queue for l->id. Logged. */
int __must_check nu_lane_make(struct nu_lane *l);
/* Sets the queue pair to what the connection says, to receive and to send. @answers: READs of the peer's at a time; 0: as
 * the connection says. *what_p: the step that failed. */
int __must_check nu_lane_connected(struct nu_lane *l, unsigned answers, const char **what_p);
/* And everybody's: */
/* Takes what has completed off the queue. Return: how many completions. */
unsigned nu_lane_poll(struct nu_lane *l);
/* Has the service thread hear of the next completion. False: it cannot be told. */
void nu_lane_arm(struct nu_lane *l);
/* The queue pair is no use any more: what is posted comes back, the service thread does the rest. */
void nu_lane_break(struct nu_lane *l, int error);
/* Destroys the queue pair at once, with all that is posted: nothing goes through it after that. */
void nu_lane_cut(struct nu_lane *l, int error);
/* Posts a chain of @n; @w waits for them. Return: how many were posted: fewer if the lane broke. */
unsigned nu_lane_post(struct nu_lane *l, struct nu_lane_wait *w, struct ibv_send_wr *chain, unsigned n);
void nu_lane_signal_all(struct nu_list *waits);

/* ---- connections: verbs_cm.c ---- */

int __must_check nu_cm_listen(const char *address);
int __must_check nu_cm_start(void);
void nu_cm_stop(void);
/* After that: what is left of the lanes. */
void nu_cm_close(void);
/* Has the service thread look at all lanes. Any kernel thread. */
void nu_cm_poke(void);
/* Waits until the lane is up, or could not be made once more than @failures times: then its error. Thread context. */
int __must_check nu_cm_await(struct nu_lane *l, uint32_t failures);
/* How often it could not be made so far: to be asked before it is wanted, so that no failure is waited for past its time. */
uint32_t nu_cm_failures(struct nu_lane *l);

/* ---- who is there: private data of connections. verbs_hello.c ---- */

enum nu_hello_kind { NU_HELLO_CONNECT = 1, NU_HELLO_ACCEPT, NU_HELLO_REJECT };
enum nu_hello_check {
	NU_HELLO_OK,
	NU_HELLO_SHORT,
	NU_HELLO_MAGIC,
	NU_HELLO_VERSION,
	NU_HELLO_JOB,
	NU_HELLO_NODE,
	NU_HELLO_LANE,
	NU_HELLO_KEY,
	NU_HELLO_ADDRESS,
	NU_HELLO_ATTEMPT,
	NU_HELLO_FAULT,
	NU_HELLO_NO_QP,
	NU_HELLO_CHECKS
};
/* At most 56 bytes: what rdmacm has for a request over InfiniBand. */
struct nu_hello {
	uint32_t magic;
	uint16_t version;
	uint8_t kind, lane;
	uint64_t job;
	uint32_t from, to;
	uint32_t attempt;
	uint32_t check; /* REJECT: enum nu_hello_check */
	uint64_t authenticator;
};
_Static_assert(sizeof(struct nu_hello) <= 56, "private data of rdmacm");
void nu_hello_fill(struct nu_hello *h, enum nu_hello_kind kind, const struct nu_lane *l,
		   enum nu_hello_check check);
/* Checks a request, a stranger's word. */
enum nu_hello_check nu_hello_check_request(const void *data, size_t len, struct nu_hello *h_p);
/* And the answer to ours. */
enum nu_hello_check nu_hello_check_answer(const void *data, size_t len, enum nu_hello_kind kind,
					  const struct nu_lane *l, struct nu_hello *h_p);
const char *nu_hello_check_name(uint32_t check);

/* ---- reading: verbs_read.c ---- */

/*
 * Waits for more than @seen to happen to @w, which has work requests on @lanes: polls a while, then sleeps until the
 * service thread hears of it. Thread context.
 */
void nu_lanes_progress(struct nu_lane *const *lanes, unsigned n, struct nu_lane_wait *w, uint32_t seen);

/* ---- the pool's chunks: verbs_mr.c ---- */

/* The region that has [addr, addr + len) in it. -EFAULT. Any kernel thread. */
int __must_check nu_region_find(const void *addr, size_t len, struct ibv_mr **mr_p);
/* Whether some can be registered at all: -ENOMEM, with the limit in the log. */
int __must_check nu_regions_try(void);
void nu_regions_close(void);

/* ---- offers: verbs_offer.c ---- */

/* The windows of a lane that ends are unbound; lane's lock held. */
void nu_windows_drop(struct nu_lane *l);
void nu_windows_close(void);

/* An offer's lane number: the connection that it is good for. */
static inline uint32_t nu_offer_lane(const struct nu_lane *l)
{
	return l->attempt << 8 | l->index;
}
