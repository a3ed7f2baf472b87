/* SPDX-License-Identifier: MIT */
/*
 * Batches over shared memory, between the nodes of a host. Each core that sends to a node makes a ring for it (ring.h) and
 * gives it to the core that is to read it over that core's datagram socket, with a greeting that has the job's key. The
 * socket, in the abstract name space, also takes the datagrams that wake a sleeper, in which nothing is looked at.
 *
 * In UCX's shared memory all that send to a core share one queue: a sender that is killed while it fills an entry leaves a
 * hole there that the reader waits at for ever, and hears of nobody any more. Here each has its own.
 */
#include "rpc/ring.h"
#include "rpc/wire_int.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING_MAGIC	0x3173754eu
#define RING_BYTES	((size_t)128 << 10)
#define RING_BYTES_MANY ((size_t)32 << 10) /* where so many rings would take much memory */
#define FEW_NODES	32u
#define BATCHES_MAX	16u /* of one ring, before others are looked at */
#define LOOK_POLLS                                                                                           \
	32u /* a busy core looks at its socket after so many polls, and not more often than this: */
#define LOOK_NS	      100000u
#define DATAGRAMS_MAX 64u /* at a time */
#define RETRY_NS      2000000ull
#define RETRY_SHIFTS  9u

/* The way to a node: an endpoint. */
struct tx {
	struct nu_ring ring;
	struct nu_conn *conn; /* NULL: not in use */
	struct sockaddr_un to;
	socklen_t to_len;
	uint64_t tail, head; /* ours, and what we last saw of the reader's */
	size_t sent_bytes;   /* of the batch that is being written */
	int fd;		     /* until the reader has been there */
	bool stalled;	     /* whoever sends waits for room */
	bool owed;	     /* the reader could not be woken */
	unsigned tries;
	uint64_t next_ns; /* try */
};

/* The way from a core of a node. */
struct rx {
	struct nu_ring ring;
	int fd;		     /* while there was no room to map it */
	uint64_t head, seen; /* read, and looked at: what lies between is the beginning of a batch */
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

static struct worker workers[NU_MAX_CORES];
enum { LINE_MAKE, LINE_GIVE, LINE_TAKE, LINES };
static atomic_bool lines_said[LINES];

/* ---- waking ---- */

/* Any datagram does. False: it has to be tried again; where its socket is full the sleeper will find us by itself. */
static bool wake(struct worker *w, const struct sockaddr_un *to, socklen_t len)
{
	return sendto(w->sock, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, len) == 1 ||
	       nu_sys_errno == ECONNREFUSED;
}

static inline void wake_reader(struct worker *w, struct tx *t)
{
	/* Pairs with the one in shm_arm(): either it sees what was published, or we see it asleep. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&t->ring.shared->asleep, memory_order_relaxed) &&
	    atomic_exchange(&t->ring.shared->asleep, 0) && unlikely(!wake(w, &t->to, t->to_len))) {
		atomic_store(&t->ring.shared->asleep, 1);
		t->owed = w->care = true;
	}
}

static void wake_writer(struct worker *w, struct rx *r)
{
	if (atomic_exchange(&r->ring.shared->full, 0) && !wake(w, &r->from, r->from_len))
		atomic_store(&r->ring.shared->full, 1);
}

/* ---- sending ---- */

static void __attribute__((cold)) say_once(unsigned which, unsigned core, const char *what, int err)
{
	if (!atomic_exchange(&lines_said[which], true))
		nu_warn("core %u %s: %s; it is tried again", core, what, nu_strerror(err));
}

static void retry_due(void *arg)
{
	struct worker *w = arg;

	w->retry_ns = 0;
	w->look = true;
}

/* Scheduler context, as all of this. */
static void want_retry(struct worker *w, uint64_t at_ns)
{
	uint64_t now = nu_mono_ns();

	if (w->retry_ns && w->retry_ns <= at_ns)
		return;
	if (!nu_timer_call(at_ns > now ? at_ns - now : 0, retry_due, w))
		w->retry_ns = at_ns;
	else
		w->look = true; /* no memory for a timer: the core does not sleep */
}

static int give_ring(struct worker *w, struct tx *t)
{
	struct greeting g = {GREETING_MAGIC, (uint16_t)nu_node.self, w->core, nu_wire_key()};
	struct iovec part = {&g, sizeof(g)};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct msghdr m = {
		.msg_name = &t->to,
		.msg_namelen = t->to_len,
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	control.head = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.head), &t->fd, sizeof(int));
	if (sendmsg(w->sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(g))
		return -nu_sys_errno;
	return 0;
}

/* Makes the ring and gives it away, as far as that goes now. */
static void introduce(struct worker *w, struct tx *t)
{
	size_t bytes = nu_node.count <= FEW_NODES ? RING_BYTES : RING_BYTES_MANY;
	int err = 0;

	t->next_ns = nu_mono_ns() + (RETRY_NS << t->tries);
	t->tries += t->tries < RETRY_SHIFTS;
	if (!t->ring.shared) {
		err = nu_ring_create(&t->ring, bytes, &t->fd);
		if (err) {
			say_once(LINE_MAKE, w->core,
				 "cannot make shared memory (RLIMIT_NOFILE, memory, vm.max_map_count)", err);
			return;
		}
	}
	err = give_ring(w, t);
	if (err == -ECONNREFUSED) {
		/* Its socket is gone: it has left before we had anything to say to it, or will be declared dead. */
		atomic_store_explicit(&nu_peers[t->conn->node].leaving, true, memory_order_relaxed);
		nu_wire_broken(t->conn, t, -ECONNRESET);
	} else if (err && err != -EAGAIN) { /* full, for now */
		say_once(LINE_GIVE, w->core, "cannot give shared memory away", err);
	}
}

/* A reader that has no descriptor left loses what it is sent: the matter is done when it has been there. */
static bool is_introduced(struct tx *t)
{
	if (t->fd >= 0 && atomic_load_explicit(&t->ring.shared->attached, memory_order_relaxed)) {
		close(t->fd);
		t->fd = -1;
	}
	return t->ring.shared && t->fd < 0;
}

static bool may_go_on(const struct tx *t)
{
	const struct nu_ring_head *s = t->ring.shared;

	return s && (t->tail - atomic_load_explicit(&s->head, memory_order_acquire) < t->ring.bytes ||
		     atomic_load_explicit(&s->deaf, memory_order_relaxed));
}

/* Return: whether it needs no more care. */
static bool look_after(struct worker *w, struct tx *t, uint64_t now)
{
	bool known = is_introduced(t);

	if (now >= t->next_ns && (!known || t->owed)) {
		if (!known)
			introduce(w, t);
		else
			t->next_ns = now + RETRY_NS;
		t->owed = false;
		if (t->ring.shared)
			wake_reader(w, t);
	}
	if (!known || t->owed)
		want_retry(w, t->next_ns);
	if (t->stalled && may_go_on(t)) {
		t->stalled = false;
		w->handled++;
		nu_wire_writable(t->conn);
	}
	return known && !t->owed && !t->stalled;
}

static void look_after_all(struct worker *w)
{
	uint64_t now = nu_mono_ns();

	w->care = false;
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (w->tx[n].conn && !look_after(w, &w->tx[n], now))
			w->care = true;
	}
}

static int stall(struct worker *w, struct tx *t)
{
	t->stalled = w->care = true;
	return -EAGAIN;
}

static size_t room_of(struct tx *t, size_t want)
{
	size_t room = t->ring.bytes - (t->tail - t->head);

	if (likely(room >= want))
		return want;
	t->head = atomic_load_explicit(&t->ring.shared->head, memory_order_acquire);
	room = t->ring.bytes - (t->tail - t->head);
	return room < want ? room : want;
}

static int shm_send(void *ep, struct nu_buf *b)
{
	struct tx *t = ep;
	struct worker *w = &workers[t->conn->core];
	size_t left, n;
	unsigned deaf;

	if (unlikely(!t->ring.shared))
		return stall(w, t);
	deaf = atomic_load_explicit(&t->ring.shared->deaf, memory_order_relaxed);
	if (unlikely(deaf)) {
		if (deaf == NU_RING_LEFT) /* its good-bye may still lie unread */
			atomic_store_explicit(&nu_peers[t->conn->node].leaving, true, memory_order_relaxed);
		return -ECONNRESET;
	}
	while ((left = b->len_bytes - t->sent_bytes)) {
		n = room_of(t, left);
		if (unlikely(!n)) {
			/* Pairs with the one in shm_arm(): the reader has made room, or sees that we wait. */
			atomic_store_explicit(&t->ring.shared->full, 1, memory_order_relaxed);
			atomic_thread_fence(memory_order_seq_cst);
			n = room_of(t, left);
		}
		if (unlikely(!n))
			return stall(w, t);
		memcpy(t->ring.data + (t->tail & (t->ring.bytes - 1)), b->data + t->sent_bytes, n);
		t->tail += n;
		t->sent_bytes += n;
		atomic_store_explicit(&t->ring.shared->tail, t->tail, memory_order_release);
		wake_reader(w, t);
	}
	t->sent_bytes = 0;
	return 0;
}

/* It cannot fail: what there is no room for now is tried again, and what is sent meanwhile waits. */
static int shm_connect(unsigned core, const void *addr, size_t len, struct nu_conn *c, void **ep_p)
{
	struct worker *w = &workers[core];
	struct tx *t = &w->tx[c->node];

	NU_ASSERT(!t->conn);
	*t = (struct tx){.conn = c, .to_len = (socklen_t)len, .fd = -1};
	memcpy(&t->to, addr, len);
	introduce(w, t);
	w->care = true;
	*ep_p = t;
	return 0;
}

static void shm_close(unsigned core, void *ep)
{
	struct tx *t = ep;

	if (t->ring.shared) {
		atomic_store(&t->ring.shared->ended, 1); /* seen when the reader next looks around */
		nu_ring_unmap(&t->ring);
	}
	if (t->fd >= 0)
		close(t->fd); /* on its way in the reader's socket, if it got so far */
	*t = (struct tx){.fd = -1};
}

/* ---- receiving ---- */

static void rx_destroy(struct worker *w, unsigned i, unsigned why)
{
	struct rx *r = w->rx[i];

	if (r->ring.shared) {
		atomic_store(&r->ring.shared->deaf, why);
		wake_writer(w, r);
	}
	nu_ring_unmap(&r->ring);
	if (r->fd >= 0)
		close(r->fd);
	free(r->long_batch);
	free(r);
	w->rx[i] = w->rx[--w->nrx];
}

/* What is behind a bad header cannot be found. */
static int check_head(struct worker *w, const struct rx *r, const struct nu_batch *h, size_t len)
{
	if (unlikely(!nu_wire_knows(w->core, h->key)))
		return -EBADMSG;
	if (unlikely(h->magic != NU_BATCH_MAGIC || len < sizeof(*h) || len > NU_BATCH_MAX_BYTES || len % 8))
		return nu_wire_bad(w->core, r->node, "no batch in shared memory", len);
	if (unlikely(h->node != r->node || h->core != r->core))
		return nu_wire_bad(w->core, r->node, "a ring's batch of another core", h->core);
	return 0;
}

static void advance(struct rx *r, size_t n)
{
	r->head += n;
	atomic_store_explicit(&r->ring.shared->head, r->head, memory_order_release);
}

/* One that is longer than the ring comes piece by piece. Return: whether all of it is here. */
static bool gather(struct rx *r, size_t have)
{
	size_t n = r->long_bytes - r->long_have;

	if (n > have)
		n = have;
	memcpy(r->long_batch + r->long_have, r->ring.data + (r->head & (r->ring.bytes - 1)), n);
	r->long_have += n;
	advance(r, n);
	return r->long_have == r->long_bytes;
}

static void end_gathering(struct rx *r)
{
	free(r->long_batch);
	r->long_batch = NULL;
	r->long_bytes = r->long_have = 0;
}

/* The next batch, of which @have bytes are here. Return: 1 taken, 0 not all of it is here, or an error. */
static int take_batch(struct worker *w, struct rx *r, size_t have)
{
	const struct nu_batch *h = (const struct nu_batch *)(r->ring.data + (r->head & (r->ring.bytes - 1)));
	size_t len;

	if (unlikely(r->long_batch)) {
		if (!gather(r, have))
			return 0;
		(void)nu_wire_receive(w->core, r->long_batch, r->long_bytes, false);
		end_gathering(r);
		return 1;
	}
	if (unlikely(have < sizeof(*h)))
		return 0;
	len = h->len_bytes;
	if (check_head(w, r, h, len))
		return -EBADMSG;
	if (unlikely(len > r->ring.bytes)) {
		r->long_batch = malloc(len);
		if (!r->long_batch) {
			say_once(LINE_TAKE, w->core, "cannot receive a long message", -ENOMEM);
			want_retry(w, nu_mono_ns() + RETRY_NS);
			return 0; /* it stays where it is */
		}
		r->long_bytes = len;
		return take_batch(w, r, have);
	}
	if (have < len)
		return 0;
	(void)nu_wire_receive(w->core, h, len, false);
	advance(r, len);
	return 1;
}

/* Return: whether the ring is still of use. */
static bool poll_rx(struct worker *w, struct rx *r)
{
	struct nu_ring_head *s = r->ring.shared;
	uint64_t tail = atomic_load_explicit(&s->tail, memory_order_acquire);
	unsigned n = 0;
	int got = 1;

	while (r->head != tail && n < BATCHES_MAX && got > 0) {
		size_t have = tail - r->head;

		if (unlikely(have > r->ring.bytes)) {
			(void)nu_wire_bad(w->core, r->node, "more in shared memory than fits there", have);
			return false;
		}
		got = take_batch(w, r, have);
		n += got > 0;
	}
	w->handled += n;
	r->seen = got > 0 ? r->head : tail;
	if (unlikely(atomic_load_explicit(&s->full, memory_order_relaxed)))
		wake_writer(w, r);
	return got >= 0;
}

/* ---- what comes over the socket ---- */

static bool is_known(const struct worker *w, const struct greeting *g)
{
	return g->magic == GREETING_MAGIC && nu_wire_knows(w->core, g->key) && g->node < nu_node.count &&
	       g->node != nu_node.self && g->core < NU_MAX_CORES && !nu_wire_is_dead(g->node);
}

static bool may_add_rx(struct worker *w)
{
	if (w->nrx == w->rx_max) {
		unsigned max = w->rx_max ? 2 * w->rx_max : 8;
		struct rx **rx = realloc(w->rx, max * sizeof(struct rx *));

		if (!rx)
			return false;
		w->rx = rx;
		w->rx_max = max;
	}
	if (!w->spare)
		w->spare = calloc(1, sizeof(*w->spare));
	return w->spare;
}

static void attach(struct worker *w, struct rx *r)
{
	int err = nu_ring_attach(&r->ring, r->fd);

	if (err == -ENOMEM)
		say_once(LINE_TAKE, w->core, "cannot map a peer's shared memory (memory, vm.max_map_count)",
			 err);
	if (err == -EBADMSG)
		(void)nu_wire_bad(w->core, r->node, "shared memory of an unknown make", 0);
	if (err == -ENOMEM) {
		want_retry(w, nu_mono_ns() + RETRY_NS);
		return;
	}
	close(r->fd);
	r->fd = -1;
}

static void greeted(struct worker *w, const struct greeting *g, int fd, const struct msghdr *m)
{
	struct rx *r = w->spare;

	*r = (struct rx){.fd = fd, .node = g->node, .core = g->core, .from_len = m->msg_namelen};
	memcpy(&r->from, m->msg_name, m->msg_namelen);
	attach(w, r);
	if (!r->ring.shared && r->fd < 0)
		return; /* refused, or here already */
	w->spare = NULL;
	w->rx[w->nrx++] = r;
}

static int passed_fd(struct msghdr *m)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	int fd = -1;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* False: there is none. */
static bool take_datagram(struct worker *w)
{
	struct greeting g = {0};
	struct sockaddr_un from;
	struct iovec part = {&g, sizeof(g)};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))]; /* what more a stranger sends along is dropped */
	} control;
	struct msghdr m = {
		.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(w->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd;

	if (n < 0)
		return false;
	fd = passed_fd(&m);
	if (likely(n <= 1 && fd < 0))
		return true;
	if (n == sizeof(g) && !(m.msg_flags & MSG_TRUNC) && is_known(w, &g)) {
		if (fd >= 0) {
			greeted(w, &g, fd, &m);
			return true;
		}
		say_once(LINE_TAKE, w->core, "cannot take a peer's shared memory: RLIMIT_NOFILE", -EMFILE);
	}
	if (fd >= 0)
		close(fd);
	if (g.magic != GREETING_MAGIC)
		(void)nu_wire_bad(w->core, ~0u, "a datagram that is no greeting", (uint64_t)n);
	return true;
}

static void look_around(struct worker *w)
{
	for (unsigned i = 0; i < DATAGRAMS_MAX && may_add_rx(w) && take_datagram(w); i++)
		;
	for (unsigned i = w->nrx; i--;) {
		struct rx *r = w->rx[i];

		if (unlikely(r->fd >= 0))
			attach(w, r);
		if (nu_wire_is_dead(r->node) || (!r->ring.shared && r->fd < 0) ||
		    (r->ring.shared && atomic_load(&r->ring.shared->ended) &&
		     r->head == atomic_load(&r->ring.shared->tail)))
			rx_destroy(w, i, NU_RING_LEFT);
	}
}

/* It is a system call, in whose time an answer may come. */
static bool is_time_to_look(struct worker *w)
{
	uint64_t now = nu_mono_ns();

	if (now - w->looked_ns < LOOK_NS)
		return false;
	w->looked_ns = now;
	return true;
}

static unsigned shm_progress(unsigned core)
{
	struct worker *w = &workers[core];
	unsigned before = w->handled;
	bool look = w->armed || w->look || (++w->polls % LOOK_POLLS == 0 && is_time_to_look(w));

	if (w->armed) {
		w->armed = false;
		for (unsigned i = 0; i < w->nrx; i++) {
			if (likely(w->rx[i]->ring.shared))
				atomic_store_explicit(&w->rx[i]->ring.shared->asleep, 0,
						      memory_order_relaxed);
		}
	}
	if (unlikely(look)) {
		w->look = false;
		look_around(w);
	}
	for (unsigned i = w->nrx; i--;) {
		if (likely(w->rx[i]->ring.shared) && unlikely(!poll_rx(w, w->rx[i])))
			rx_destroy(w, i, NU_RING_REFUSED);
	}
	if (unlikely(w->care))
		look_after_all(w);
	return w->handled - before;
}

static bool has_news(const struct rx *r)
{
	return atomic_load_explicit(&r->ring.shared->tail, memory_order_relaxed) != r->seen ||
	       atomic_load_explicit(&r->ring.shared->full, memory_order_relaxed);
}

/* Before each sleep: a reader may have answered the last time between two reads, and then the ring was filled again. */
static void ask_for_room(struct worker *w)
{
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (w->tx[n].stalled && w->tx[n].ring.shared)
			atomic_store_explicit(&w->tx[n].ring.shared->full, 1, memory_order_relaxed);
	}
}

static bool has_room(const struct worker *w)
{
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (w->tx[n].stalled && may_go_on(&w->tx[n]))
			return true;
	}
	return false;
}

static int shm_arm(unsigned core)
{
	struct worker *w = &workers[core];

	if (unlikely(w->look)) /* since we were last called */
		return -EBUSY;
	w->armed = true;
	if (unlikely(w->care))
		ask_for_room(w);
	for (unsigned i = 0; i < w->nrx; i++) {
		if (likely(w->rx[i]->ring.shared))
			atomic_store_explicit(&w->rx[i]->ring.shared->asleep, 1, memory_order_relaxed);
	}
	/* Pairs with those of the writers, and with the readers' own here. */
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < w->nrx; i++) {
		if (likely(w->rx[i]->ring.shared) && has_news(w->rx[i]))
			return -EBUSY;
	}
	return unlikely(w->care) && has_room(w) ? -EBUSY : w->sock;
}

/* ---- start and end ---- */

static int shm_init(const struct nu_wire_options *o, enum nu_reach reach)
{
	for (unsigned i = 0; i < NU_MAX_CORES; i++)
		workers[i] = (struct worker){.sock = -1};
	return 0;
}

bool nu_shm_is_possible(void)
{
	struct nu_ring r;
	int fd, err = nu_ring_create(&r, RING_BYTES, &fd);

	if (err) {
		nu_info("no shared memory of our own (memfd_create, mmap): %s", nu_strerror(err));
		return false;
	}
	nu_ring_unmap(&r);
	close(fd);
	return true;
}

static void shm_fini(void)
{
}

static void shm_worker_destroy(unsigned core)
{
	struct worker *w = &workers[core];

	while (w->nrx)
		rx_destroy(w, w->nrx - 1, NU_RING_LEFT);
	for (unsigned n = 0; w->tx && n < nu_node.count; n++) {
		if (w->tx[n].conn)
			shm_close(core, &w->tx[n]);
	}
	free(w->tx);
	free(w->rx);
	free(w->spare);
	if (w->sock >= 0)
		close(w->sock);
	*w = (struct worker){.sock = -1};
}

static int shm_worker_create(unsigned core)
{
	struct worker *w = &workers[core];
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	int err = 0;

	w->core = (uint16_t)core;
	w->name_len = sizeof(w->name);
	w->tx = calloc(nu_node.count, sizeof(*w->tx));
	w->sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Nothing but the family: the kernel finds a name that nobody has. */
	if (w->sock < 0 || bind(w->sock, (struct sockaddr *)&any, sizeof(any.sun_family)) ||
	    getsockname(w->sock, (struct sockaddr *)&w->name, &w->name_len))
		err = -nu_sys_errno;
	if (!w->tx)
		err = -ENOMEM;
	for (unsigned n = 0; w->tx && n < nu_node.count; n++)
		w->tx[n].fd = -1;
	if (err) {
		nu_err("core %u has no socket for shared memory: %s%s", core, nu_strerror(err),
		       err == -EMFILE ? ": RLIMIT_NOFILE" : "");
		shm_worker_destroy(core);
	}
	return err;
}

static int shm_address(unsigned core, void **addr_p, size_t *len_p)
{
	const struct worker *w = &workers[core];
	void *copy = malloc(w->name_len);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, &w->name, w->name_len);
	*addr_p = copy;
	*len_p = w->name_len;
	return 0;
}

static int shm_check(unsigned node, const void *addr, size_t len)
{
	const struct sockaddr_un *a = addr;

	if (len > offsetof(struct sockaddr_un, sun_path) + 1 && len <= sizeof(*a) &&
	    a->sun_family == AF_UNIX && !a->sun_path[0])
		return 0;
	nu_err("node %u: %zu bytes that are no address of a socket in the abstract name space", node, len);
	return -EBADMSG;
}

static bool shm_may_break(void *ep)
{
	return false;
}

static int shm_transport(void *ep, char *buf, size_t len)
{
	snprintf(buf, len, "shm/ring");
	return 0;
}

const struct nu_link_ops nu_shm_link = {
	.name = "shared memory",
	.id = 3,
	.init = shm_init,
	.fini = shm_fini,
	.worker_create = shm_worker_create,
	.worker_destroy = shm_worker_destroy,
	.address = shm_address,
	.check = shm_check,
	.connect = shm_connect,
	.send = shm_send,
	.progress = shm_progress,
	.arm = shm_arm,
	.close = shm_close,
	.may_break = shm_may_break,
	.transport = shm_transport,
};
