/* SPDX-License-Identifier: MIT */
/* Shared memory's receiving side: rings that others write, and what comes over a core's socket. */
#include "rpc/shm_int.h"

#include <unistd.h>

#define BATCHES_MAX   16u /* of one ring, before others are looked at */
#define AHEAD_BYTES   256u
#define DATAGRAMS_MAX 64u /* at a time */

void nu_shm_rx_destroy(struct worker *w, unsigned i, unsigned why)
{
	struct rx *r = w->rx[i];

	if (r->ring.shared) {
		atomic_store(&r->ring.shared->deaf, why);
		nu_shm_wake_writer(w, r);
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
	r->seen = r->head;
	atomic_store_explicit(&r->ring.shared->head, r->head, memory_order_release);
}

/* Bytes behind what we have read. We may be ahead of the writer's word, having found the batch itself before. */
static uint64_t published(const struct rx *r)
{
	uint64_t tail = atomic_load_explicit(&r->ring.shared->tail, memory_order_acquire);

	return r->head - tail <= r->ring.bytes ? 0 : tail - r->head;
}

/* One that is longer than the ring comes piece by piece. Return: whether all of it is here. */
static bool gather(struct rx *r, size_t have)
{
	size_t n = r->long_bytes - r->long_have;

	if (n > have)
		n = have;
	memcpy(r->long_batch + r->long_have, nu_ring_at(&r->ring, r->head), n);
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

/* The next piece of one that is longer than the ring, or its beginning. Return: as take_batch(). */
static int take_piece(struct worker *w, struct rx *r, size_t have)
{
	const struct nu_batch *h = (const struct nu_batch *)nu_ring_at(&r->ring, r->head);
	size_t len;

	if (!r->long_batch) {
		if (have < sizeof(*h))
			return 0;
		len = h->len_bytes;
		if (check_head(w, r, h, len))
			return -EBADMSG;
		r->long_batch = malloc(len);
		if (!r->long_batch) {
			nu_shm_say_once(NU_SHM_LINE_TAKE, w->core, "cannot receive a long message", -ENOMEM);
			nu_shm_want_retry(w, nu_mono_ns() + NU_SHM_RETRY_NS);
			r->seen = r->head + have;
			return 0; /* it stays where it is */
		}
		r->long_bytes = len;
	}
	if (!gather(r, have))
		return 0;
	(void)nu_wire_receive(w->core, r->long_batch, r->long_bytes, false);
	end_gathering(r);
	return 1;
}

/* Return: 1 a batch was taken, 0 there is none, or not all of it, or an error. */
static int take_batch(struct worker *w, struct rx *r)
{
	const struct nu_batch *h = (const struct nu_batch *)nu_ring_at(&r->ring, r->head);
	uint64_t have, word;
	size_t len;

	if (unlikely(r->long_batch))
		goto by_pieces;
	word = nu_ring_word(&r->ring, r->head);
	if (!word)
		return 0;
	for (len = NU_CACHE_LINE; len < AHEAD_BYTES; len += NU_CACHE_LINE)
		__builtin_prefetch((const char *)h + len);
	len = word >> 32; /* once read: it is a peer's memory */
	if (unlikely(len > nu_ring_longest(&r->ring)))
		goto by_pieces;
	if (check_head(w, r, h, len))
		return -EBADMSG;
	(void)nu_wire_receive(w->core, h, len, false);
	advance(r, len);
	return 1;

by_pieces:
	have = published(r);
	if (unlikely(have > r->ring.bytes))
		return nu_wire_bad(w->core, r->node, "more in shared memory than fits there", have);
	return take_piece(w, r, have);
}

/* Return: whether the ring is still of use. */
bool nu_shm_poll_rx(struct worker *w, struct rx *r)
{
	struct nu_ring_head *s = r->ring.shared;
	unsigned n = 0;
	int got = 1;

	while (n < BATCHES_MAX && (got = take_batch(w, r)) > 0)
		n++;
	w->handled += n;
	if (unlikely(atomic_load_explicit(&s->full, memory_order_relaxed)))
		nu_shm_wake_writer(w, r);
	if (unlikely(atomic_load_explicit(&s->nudged, memory_order_relaxed)))
		atomic_store_explicit(&s->nudged, 0, memory_order_relaxed);
	return got >= 0;
}

/* Something is said to be there: is it? */
bool nu_shm_is_sound(struct worker *w, struct rx *r)
{
	uint64_t have = published(r);

	if (have > r->ring.bytes) {
		(void)nu_wire_bad(w->core, r->node, "more in shared memory than fits there", have);
		return false;
	}
	if (have && !r->long_batch && !nu_ring_word(&r->ring, r->head)) {
		(void)nu_wire_bad(w->core, r->node, "a batch without its beginning", have);
		return false;
	}
	return true;
}

/* ---- what comes over the socket ---- */

static bool is_known(const struct worker *w, const struct greeting *g)
{
	return g->magic == NU_SHM_GREETING_MAGIC && nu_wire_knows(w->core, g->key) &&
	       g->node < nu_node.count && g->node != nu_node.self && g->core < NU_MAX_CORES &&
	       !nu_wire_is_dead(g->node);
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

/* Whom to interrupt if this core should be needed while it computes. */
static void say_who(const struct worker *w, struct nu_ring_head *s)
{
	if (!w->pid_ns)
		return;
	atomic_store_explicit(&s->away_ns, w->away_ns, memory_order_relaxed);
	atomic_store_explicit(&s->pid_ns, w->pid_ns, memory_order_relaxed);
	atomic_store_explicit(&s->pid, getpid(), memory_order_relaxed);
	atomic_store_explicit(&s->tid, gettid(), memory_order_release);
}

void nu_shm_carried(unsigned core)
{
	struct worker *w = nu_shm_worker(core);

	for (unsigned i = 0; i < w->nrx; i++)
		if (w->rx[i]->ring.shared)
			say_who(w, w->rx[i]->ring.shared);
}

static void attach(struct worker *w, struct rx *r)
{
	int err = nu_ring_attach(&r->ring, r->fd);

	if (err == -ENOMEM)
		nu_shm_say_once(NU_SHM_LINE_TAKE, w->core,
				"cannot map a peer's shared memory (memory, vm.max_map_count)", err);
	if (err == -EBADMSG)
		(void)nu_wire_bad(w->core, r->node, "shared memory of an unknown make", 0);
	if (err == -ENOMEM) {
		nu_shm_want_retry(w, nu_mono_ns() + NU_SHM_RETRY_NS);
		return;
	}
	close(r->fd);
	r->fd = -1;
	if (!err)
		say_who(w, r->ring.shared);
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
		nu_shm_say_once(NU_SHM_LINE_TAKE, w->core, "cannot take a peer's shared memory", -EMFILE);
	}
	if (fd >= 0)
		close(fd);
	if (g.magic != NU_SHM_GREETING_MAGIC)
		(void)nu_wire_bad(w->core, ~0u, "a datagram that is no greeting", (uint64_t)n);
	return true;
}

void nu_shm_look_around(struct worker *w)
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
			nu_shm_rx_destroy(w, i, NU_RING_LEFT);
	}
}
