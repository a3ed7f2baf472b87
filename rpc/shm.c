/* SPDX-License-Identifier: MIT */
/*
 * Batches over shared memory, between the nodes of a host. Each core that sends to a node makes a ring for it (ring.h) and
 * gives it to the core that is to read it over that core's datagram socket, with a greeting that has the job's key. The
 * socket, in the abstract name space, also takes the datagrams that wake a sleeper, in which nothing is looked at.
 *
 * In UCX's shared memory all that send to a core share one queue: a sender that is killed while it fills an entry leaves a
 * hole there that the reader waits at for ever, and hears of nobody any more. Here each has its own.
 */
#include "rpc/shm_int.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_BYTES	((size_t)128 << 10)
#define RING_BYTES_MANY ((size_t)32 << 10) /* where so many rings would take much memory */
#define FEW_NODES	32u
#define LOOK_POLLS                                                                                           \
	32u /* a busy core looks at its socket after so many polls, and not more often than this: */
#define LOOK_NS	     100000u
#define RETRY_SHIFTS 9u
#define NUDGE_NS     4000u
#define AWAY_NS	     50000000u /* who was found computing so long ago, or less, is nudged */

static struct worker workers[NU_MAX_CORES];
static atomic_bool lines_said[NU_SHM_LINES];

struct worker *nu_shm_worker(unsigned core)
{
	return &workers[core];
}

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
	    atomic_exchange(&t->ring.shared->asleep, 0)) {
		t->woken_at = t->tail;
		if (unlikely(!wake(w, &t->to, t->to_len))) {
			atomic_store(&t->ring.shared->asleep, 1);
			t->owed = w->care = true;
		}
	}
}

void nu_shm_wake_writer(struct worker *w, struct rx *r)
{
	if (atomic_exchange(&r->ring.shared->full, 0) && !wake(w, &r->from, r->from_len))
		atomic_store(&r->ring.shared->full, 1);
}

/* ---- sending ---- */

void __attribute__((cold)) nu_shm_say_once(unsigned line, unsigned core, const char *what, int err)
{
	struct rlimit lim = {0};

	if (atomic_exchange(&lines_said[line], true))
		return;
	if (err == -EMFILE && !getrlimit(RLIMIT_NOFILE, &lim))
		nu_warn("core %u %s: no file descriptor is left (RLIMIT_NOFILE is %lu); it is tried again",
			core, what, (unsigned long)lim.rlim_cur);
	else
		nu_warn("core %u %s: %s; it is tried again", core, what, nu_strerror(err));
}

static void retry_due(void *arg)
{
	struct worker *w = arg;

	w->retry_ns = 0;
	w->look = true;
}

void nu_shm_want_retry(struct worker *w, uint64_t at_ns)
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
	struct greeting g = {NU_SHM_GREETING_MAGIC, (uint16_t)nu_node.self, w->core, nu_wire_key()};
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

	t->next_ns = nu_mono_ns() + (NU_SHM_RETRY_NS << t->tries);
	t->tries += t->tries < RETRY_SHIFTS;
	if (!t->ring.shared) {
		err = nu_ring_create(&t->ring, bytes, &t->fd);
		if (err) {
			nu_shm_say_once(
				NU_SHM_LINE_MAKE, w->core,
				err == -ENOMEM
					? "cannot make shared memory for a peer (memory, vm.max_map_count)"
					: "cannot make shared memory for a peer",
				err);
			return;
		}
	}
	err = give_ring(w, t);
	if (err == -ECONNREFUSED) {
		/* Its socket is gone: it has left before we had anything to say to it, or will be declared dead. */
		atomic_store_explicit(&nu_peers[t->conn->node].leaving, true, memory_order_relaxed);
		nu_wire_broken(t->conn, t, -ECONNRESET);
	} else if (err && err != -EAGAIN) { /* full, for now */
		nu_shm_say_once(NU_SHM_LINE_GIVE, w->core, "cannot give shared memory away", err);
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

/* Bytes that may be written. More than the ring holds: the reader says that it has read what was never written. */
static size_t room(struct tx *t, bool look)
{
	if (look)
		t->head = atomic_load_explicit(&t->ring.shared->head, memory_order_acquire);
	return nu_ring_longest(&t->ring) - (t->tail - t->head);
}

static bool may_go_on(struct tx *t)
{
	const struct nu_ring_head *s = t->ring.shared;

	return s &&
	       (room(t, true) >= t->wanted_bytes || atomic_load_explicit(&s->deaf, memory_order_relaxed));
}

/* Return: whether it needs no more care. */
static bool look_after(struct worker *w, struct tx *t, uint64_t now)
{
	bool known = is_introduced(t);

	if (now >= t->next_ns && (!known || t->owed)) {
		if (!known)
			introduce(w, t);
		else
			t->next_ns = now + NU_SHM_RETRY_NS;
		t->owed = false;
		if (t->ring.shared)
			wake_reader(w, t);
	}
	if (!known || t->owed)
		nu_shm_want_retry(w, t->next_ns);
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

static size_t wait_for_room(struct tx *t, size_t want)
{
	size_t have = room(t, true);

	if (have >= want)
		return have;
	/* Pairs with the one in shm_arm(): the reader has made room, or sees that we wait. */
	atomic_store_explicit(&t->ring.shared->full, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return room(t, true);
}

/* The next @n bytes of @b, with the 0 behind them; its first word last of all. */
static void put(struct tx *t, const struct nu_buf *b, size_t n)
{
	char *to = nu_ring_at(&t->ring, t->tail);
	size_t first = t->sent_bytes ? 0 : sizeof(uint64_t);
	uint64_t word;

	memcpy(to + first, b->data + t->sent_bytes + first, n - first);
	__atomic_store_n((uint64_t *)nu_ring_at(&t->ring, t->tail + n), 0, __ATOMIC_RELAXED);
	if (first) {
		memcpy(&word, b->data, sizeof(word));
		__atomic_store_n((uint64_t *)to, word, __ATOMIC_RELEASE);
	}
	t->tail += n;
	t->sent_bytes += n;
	atomic_store_explicit(&t->ring.shared->tail, t->tail, memory_order_release);
}

static int shm_send(void *ep, struct nu_buf *b)
{
	struct tx *t = ep;
	struct worker *w = &workers[t->conn->core];
	size_t left, want, have;
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
		/* As a whole, unless it never fits. */
		want = b->len_bytes > nu_ring_longest(&t->ring) ? t->ring.bytes / 4 : left;
		want = want < left ? want : left;
		have = room(t, b->len_bytes > nu_ring_longest(&t->ring));
		if (unlikely(have < want || have > nu_ring_longest(&t->ring)))
			have = wait_for_room(t, want);
		if (unlikely(have > nu_ring_longest(&t->ring)))
			return nu_wire_bad(w->core, t->conn->node, "its reader's place in shared memory",
					   t->head);
		if (unlikely(have < want)) {
			t->wanted_bytes = want;
			return stall(w, t);
		}
		put(t, b, left < have ? left : have & ~(size_t)7);
		wake_reader(w, t);
	}
	t->sent_bytes = 0;
	return 0;
}

static bool shm_has_drained(void *ep)
{
	struct tx *t = ep;

	return t->ring.shared && atomic_load_explicit(&t->ring.shared->head, memory_order_relaxed) == t->tail;
}

/* A reader that polls has seen it before long; one that was woken comes by itself. */
static void shm_nudge(void *ep)
{
	struct tx *t = ep;
	struct nu_ring_head *s = t->ring.shared;
	uint64_t start = nu_mono_ns();
	pid_t pid;

	if (!s || t->woken_at == t->tail || !atomic_load_explicit(&s->tid, memory_order_acquire) ||
	    atomic_load_explicit(&s->pid_ns, memory_order_relaxed) != workers[t->conn->core].pid_ns ||
	    start - atomic_load_explicit(&s->away_ns, memory_order_relaxed) > AWAY_NS)
		return;
	while (atomic_load_explicit(&s->head, memory_order_relaxed) != t->tail) {
		if (nu_mono_ns() - start < NUDGE_NS) {
			nu_cpu_relax();
			continue;
		}
		pid = atomic_load_explicit(&s->pid, memory_order_relaxed);
		/* A peer's word: it may not have us send signals to others. */
		if (nu_node.pids[t->conn->node] && pid != nu_node.pids[t->conn->node])
			return;
		if (!atomic_exchange(&s->nudged, 1)) {
			nu_stat_add(t->conn->core, NU_STAT_NUDGES_SENT, 1);
			nu_preempt_other(pid, atomic_load_explicit(&s->tid, memory_order_relaxed));
		}
		return;
	}
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

/* ---- the poller ---- */

/* It is a system call, in whose time an answer may come. */
static bool is_time_to_look(struct worker *w)
{
	uint64_t now = nu_mono_ns();

	if (now - w->looked_ns < LOOK_NS)
		return false;
	w->looked_ns = now;
	return true;
}

static void tell_away(struct worker *w, uint64_t away_ns)
{
	w->away_ns = away_ns;
	for (unsigned i = 0; i < w->nrx; i++) {
		if (w->rx[i]->ring.shared)
			atomic_store_explicit(&w->rx[i]->ring.shared->away_ns, away_ns, memory_order_relaxed);
	}
}

static bool has_news(const struct rx *r)
{
	uint64_t tail = atomic_load_explicit(&r->ring.shared->tail, memory_order_relaxed);

	return r->seen - tail > r->ring.bytes || /* not behind: a batch is there before this says so */
	       atomic_load_explicit(&r->ring.shared->full, memory_order_relaxed);
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
		nu_shm_look_around(w);
	}
	if (unlikely(nu_core_away_ns() != w->away_ns))
		tell_away(w, nu_core_away_ns());
	for (unsigned i = w->nrx; i--;) {
		struct rx *r = w->rx[i];

		if (unlikely(!r->ring.shared))
			continue;
		if (unlikely(!nu_shm_poll_rx(w, r)) ||
		    (unlikely(look) && has_news(r) && !nu_shm_is_sound(w, r)))
			nu_shm_rx_destroy(w, i, NU_RING_REFUSED);
	}
	if (unlikely(w->care))
		look_after_all(w);
	return w->handled - before;
}

/* Before each sleep: a reader may have answered the last time between two reads, and then the ring was filled again. */
static void ask_for_room(struct worker *w)
{
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (w->tx[n].stalled && w->tx[n].ring.shared)
			atomic_store_explicit(&w->tx[n].ring.shared->full, 1, memory_order_relaxed);
	}
}

static bool has_room(struct worker *w)
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
		nu_shm_rx_destroy(w, w->nrx - 1, NU_RING_LEFT);
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
	struct stat st;
	int err = 0;

	w->pid_ns = stat("/proc/self/ns/pid", &st) ? 0 : st.st_ino;
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
	.has_drained = shm_has_drained,
	.nudge = shm_nudge,
	.progress = shm_progress,
	.arm = shm_arm,
	.carried = nu_shm_carried,
	.close = shm_close,
	.may_break = shm_may_break,
	.transport = shm_transport,
};
