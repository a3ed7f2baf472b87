/* SPDX-License-Identifier: MIT */
/*
 * Batches over TCP: a listening socket per core, a socket for each pair of cores, polled through one epoll descriptor
 * that a core also sleeps on. A socket begins with a greeting that says who has connected; one without the job's key is
 * closed before anything else of it is read. Nothing is queued here: a batch that does not fit into the socket is gone on
 * with when it is writable, and when it breaks the session starts over (session.c).
 */
#include "rpc/wire_int.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define GREETING_MAGIC	0x3174754eu
#define EVENTS_MAX	16
#define ACCEPTS_MAX	16u
#define READS_MAX	4u
#define RX_BYTES	(64u << 10)
#define STRANGERS_MAX	64u /* sockets that have not said who they are */
#define BACKLOG		1024
#define SYN_RETRIES	2	    /* 7 s */
#define USER_TIMEOUT_MS 20000	    /* data that is not acknowledged for so long breaks the connection */
#define IDLE_S		10	    /* after which an idle connection to another host is probed ... */
#define REST_NS		20000000ull /* of a listener, while nothing can be accepted */
#define PROBE_S		5	    /* ... so often, until it answers or USER_TIMEOUT_MS have passed */

enum sock_state {
	SOCK_CONNECTING,
	SOCK_GREETED, /* accepted: has yet to say who it is */
	SOCK_OPEN,
	SOCK_BROKEN,
};

struct greeting {
	uint32_t magic;
	uint16_t node, core;
	uint64_t key;
};
_Static_assert(sizeof(struct greeting) == 16, "wire format");

/* Where a core listens, as other nodes are told. Network order. */
struct tcp_address {
	uint16_t family, port;
	uint32_t spare; /* 0 */
	uint8_t ip[16]; /* of IPv4 the first four */
};
_Static_assert(sizeof(struct tcp_address) == 24, "wire format");

union address {
	struct sockaddr sa;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

struct sock {
	struct nu_list link; /* of its worker */
	struct worker *w;
	int fd;
	uint8_t state;
	bool wants_out;
	uint16_t node, core;  /* at the other end */
	struct nu_conn *conn; /* that sends over it */
	size_t sent_bytes;    /* of the batch that has been begun */
	struct greeting greeting;
	size_t have_bytes, cap_bytes; /* of the greeting, then of rx */
	char *rx;
};

struct worker {
	int epfd, listen_fd, spare_fd;
	uint16_t core;
	uint16_t port; /* network order */
	unsigned nstrangers;
	unsigned handled;
	struct nu_list socks;  /* oldest first */
	struct nu_list closed; /* freed at the next progress: events for them may be at hand */
} __attribute__((aligned(NU_CACHE_LINE)));

static struct worker workers[NU_MAX_CORES];
static union address here; /* this host's, port 0 */
static char here_text[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE], here_interface[IF_NAMESIZE];

/* ---- addresses ---- */

static socklen_t address_len(const union address *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in4);
}

/* "10.0.0.1", "fd00::1", "fe80::1%eth0". */
static bool parse_address(const char *text, union address *a)
{
	char copy[sizeof(here_text)], *zone;

	*a = (union address){.sa.sa_family = AF_UNSPEC};
	if (strlen(text) >= sizeof(copy))
		return false;
	strcpy(copy, text);
	if (inet_pton(AF_INET, copy, &a->in4.sin_addr) == 1) {
		a->sa.sa_family = AF_INET;
		return true;
	}
	zone = strchr(copy, '%');
	if (zone)
		*zone++ = '\0';
	if (inet_pton(AF_INET6, copy, &a->in6.sin6_addr) != 1)
		return false;
	a->sa.sa_family = AF_INET6;
	a->in6.sin6_scope_id = zone ? if_nametoindex(zone) : 0;
	return !zone || a->in6.sin6_scope_id;
}

static bool same_ip(const union address *a, const struct sockaddr *b)
{
	if (!b || a->sa.sa_family != b->sa_family)
		return false;
	if (b->sa_family == AF_INET)
		return a->in4.sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	return !memcmp(&a->in6.sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr, 16);
}

/* For nu_wire_transport(). */
static void find_interface(void)
{
	struct ifaddrs *all = NULL;

	snprintf(here_interface, sizeof(here_interface), "lo"); /* also 127.0.0.2, which no interface lists */
	if (getifaddrs(&all))
		return;
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (same_ip(&here, i->ifa_addr))
			snprintf(here_interface, sizeof(here_interface), "%s", i->ifa_name);
	}
	freeifaddrs(all);
}

/* A peer's word. -EBADMSG; -EAFNOSUPPORT: cannot be reached from the address that this node is bound to. */
static int read_address(const void *addr, size_t len, union address *to)
{
	struct tcp_address a;

	if (len != sizeof(a))
		return -EBADMSG;
	memcpy(&a, addr, sizeof(a));
	*to = (union address){.sa.sa_family = ntohs(a.family) == 6   ? AF_INET6
					      : ntohs(a.family) == 4 ? AF_INET
								     : AF_UNSPEC};
	if (to->sa.sa_family == AF_UNSPEC || !a.port)
		return -EBADMSG;
	if (to->sa.sa_family != here.sa.sa_family)
		return -EAFNOSUPPORT;
	if (to->sa.sa_family == AF_INET) {
		memcpy(&to->in4.sin_addr, a.ip, 4);
		to->in4.sin_port = a.port;
		return 0;
	}
	memcpy(&to->in6.sin6_addr, a.ip, 16);
	to->in6.sin6_port = a.port;
	if (IN6_IS_ADDR_LINKLOCAL(&to->in6.sin6_addr))
		to->in6.sin6_scope_id = here.in6.sin6_scope_id;
	return 0;
}

static int tcp_check(unsigned node, const void *addr, size_t len)
{
	union address to;
	int err = read_address(addr, len, &to);

	if (err == -EAFNOSUPPORT)
		nu_err("node %u has an IPv%u address, this node is bound to %s: give all hosts addresses of "
		       "one family",
		       node, here.sa.sa_family == AF_INET ? 6 : 4, here_text);
	else if (err)
		nu_err("node %u sent %zu bytes that are no TCP address", node, len);
	return err;
}

/* ---- sockets ---- */

static struct sock *sock_create(struct worker *w, int fd, enum sock_state state)
{
	struct sock *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->w = w;
	s->fd = fd;
	s->state = (uint8_t)state;
	s->wants_out = state == SOCK_CONNECTING;
	nu_list_add_tail(&w->socks, &s->link);
	return s;
}

static void sock_close(struct sock *s)
{
	if (s->state == SOCK_GREETED)
		s->w->nstrangers--;
	s->state = SOCK_BROKEN;
	s->conn = NULL;
	if (s->fd >= 0) {
		/* close() alone leaves it there as long as another thread is in a system call on it. */
		epoll_ctl(s->w->epfd, EPOLL_CTL_DEL, s->fd, NULL);
		close(s->fd);
	}
	s->fd = -1;
	nu_list_del(&s->link);
	nu_list_add_tail(&s->w->closed, &s->link);
}

static void free_closed(struct worker *w)
{
	while (!nu_list_empty(&w->closed)) {
		struct sock *s = nu_list_entry(w->closed.next, struct sock, link);

		nu_list_del(&s->link);
		free(s->rx);
		free(s);
	}
}

/* A connection's is closed by its owner, soon. */
static void __attribute__((cold)) sock_fail(struct sock *s, int err)
{
	struct nu_conn *c = s->conn;

	if (s->state == SOCK_BROKEN)
		return;
	if (!c) {
		sock_close(s);
		return;
	}
	s->state = SOCK_BROKEN;
	epoll_ctl(s->w->epfd, EPOLL_CTL_DEL, s->fd, NULL);
	nu_wire_broken(c, s, err);
}

static int watch(struct sock *s, int op, bool out)
{
	struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = s};

	s->wants_out = out;
	return epoll_ctl(s->w->epfd, op, s->fd, &e) ? -nu_sys_errno : 0;
}

static void set_options(int fd)
{
	const int on = 1, syn = SYN_RETRIES, timeout = USER_TIMEOUT_MS, idle = IDLE_S, probe = PROBE_S;

	/* Without them it works too, later. */
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &syn, sizeof(syn));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
	if (nu_node.hosts <= 1)
		return;
	/* A host that disappears says nothing; one whose process ends does. */
	(void)!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof(probe));
}

static int rx_create(struct sock *s)
{
	s->rx = malloc(RX_BYTES);
	s->cap_bytes = RX_BYTES;
	s->have_bytes = 0;
	return s->rx ? 0 : -ENOMEM;
}

/* ---- sending ---- */

static int tcp_send(void *ep, struct nu_buf *b)
{
	struct sock *s = ep;
	ssize_t n;

	if (unlikely(s->state != SOCK_OPEN))
		return s->state == SOCK_CONNECTING ? -EAGAIN : -ECONNRESET;
	n = send(s->fd, b->data + s->sent_bytes, b->len_bytes - s->sent_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (unlikely(n < 0)) {
		if (nu_sys_errno != EAGAIN && nu_sys_errno != EINTR && nu_sys_errno != ENOBUFS)
			return -nu_sys_errno;
		n = 0;
	}
	s->sent_bytes += (size_t)n;
	if (likely(s->sent_bytes == b->len_bytes)) {
		s->sent_bytes = 0;
		return 0;
	}
	if (!s->wants_out && watch(s, EPOLL_CTL_MOD, true))
		return -EIO;
	return -EAGAIN;
}

static void tcp_close(unsigned core, void *ep)
{
	sock_close(ep);
}

/* The session core -> peer core needs a socket: one on which the peer has come, or a new one. */
static struct sock *find_open(struct worker *w, const struct nu_conn *c)
{
	unsigned peer_core = c->core % nu_peers[c->node].ncores;
	struct nu_list *pos;

	nu_list_for_each (pos, &w->socks) {
		struct sock *s = nu_list_entry(pos, struct sock, link);

		if (s->state == SOCK_OPEN && !s->conn && s->node == c->node && s->core == peer_core)
			return s;
	}
	return NULL;
}

/* Said once for each of @said. */
static void __attribute__((cold))
say_no_descriptor(atomic_bool *said, unsigned core, const char *what, int err)
{
	struct rlimit lim = {0};

	if (atomic_exchange(said, true))
		return;
	if (err == -ENFILE || getrlimit(RLIMIT_NOFILE, &lim))
		nu_warn("core %u cannot %s: %s; it is tried again", core, what, nu_strerror(err));
	else
		nu_warn("core %u cannot %s: no file descriptor is left (RLIMIT_NOFILE is %lu); it is tried "
			"again",
			core, what, (unsigned long)lim.rlim_cur);
}

/* A socket that is bound to this host's address and connecting to @to. */
static int dial(const union address *to, int *fd_p)
{
	const int on = 1;
	int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -nu_sys_errno;
	set_options(fd);
	/* The port is found with the peer's in view: else there would be no more than 28,000. */
	(void)!setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (bind(fd, &here.sa, address_len(&here)) ||
	    (connect(fd, &to->sa, address_len(to)) && nu_sys_errno != EINPROGRESS))
		err = -nu_sys_errno;
	if (err)
		close(fd);
	else
		*fd_p = fd;
	return err;
}

static int tcp_connect(unsigned core, const void *addr, size_t len, struct nu_conn *c, void **ep_p)
{
	static atomic_bool said;
	struct worker *w = &workers[core];
	struct sock *s = find_open(w, c);
	union address to;
	int fd = -1, err;

	if (s) {
		s->conn = c;
		*ep_p = s;
		return 0;
	}
	err = read_address(addr, len, &to);
	if (!err)
		err = dial(&to, &fd);
	if (err == -EMFILE || err == -ENFILE)
		say_no_descriptor(&said, core, "connect to a peer", err);
	if (err)
		return err;
	s = sock_create(w, fd, SOCK_CONNECTING);
	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	err = rx_create(s);
	if (!err)
		err = watch(s, EPOLL_CTL_ADD, true);
	if (err) {
		sock_close(s);
		return err;
	}
	s->node = c->node;
	s->core = (uint16_t)(core % nu_peers[c->node].ncores);
	s->conn = c;
	*ep_p = s;
	return 0;
}

/* ---- receiving ---- */

/* Makes room for the rest of the batch that begins at @at, at the start of the buffer. */
static int make_room(struct sock *s, size_t at, size_t need)
{
	size_t cap = need > RX_BYTES ? need : RX_BYTES;
	char *rx;

	s->have_bytes -= at;
	if (cap == s->cap_bytes) {
		if (at)
			memmove(s->rx, s->rx + at, s->have_bytes);
		return 0;
	}
	rx = malloc(cap);
	if (!rx) {
		nu_err("a batch of %zu bytes from node %u cannot be received: no memory", need, s->node);
		return -ENOMEM;
	}
	memcpy(rx, s->rx + at, s->have_bytes);
	free(s->rx);
	s->rx = rx;
	s->cap_bytes = cap;
	return 0;
}

/* What is behind a bad header cannot be found. */
static int check_head(struct sock *s, const struct nu_batch *h)
{
	if (unlikely(!nu_wire_knows(s->w->core, h->key)))
		return -EBADMSG;
	if (unlikely(h->magic != NU_BATCH_MAGIC || h->len_bytes < sizeof(*h) ||
		     h->len_bytes > NU_BATCH_MAX_BYTES || h->len_bytes % 8))
		return nu_wire_bad(s->w->core, s->node, "a stream's batch with length", h->len_bytes);
	if (unlikely(h->node != s->node || h->core != s->core))
		return nu_wire_bad(s->w->core, s->node, "a stream's batch of another core", h->core);
	return 0;
}

static int take_batches(struct sock *s)
{
	size_t at = 0, need = 0;

	while (s->have_bytes - at >= sizeof(struct nu_batch)) {
		const struct nu_batch *h = (const struct nu_batch *)(s->rx + at);
		int err = check_head(s, h);

		if (unlikely(err))
			return err;
		if (s->have_bytes - at < h->len_bytes) {
			need = h->len_bytes;
			break;
		}
		s->w->handled++;
		at += h->len_bytes;
		(void)nu_wire_receive(s->w->core, h, h->len_bytes, false);
	}
	if (likely(at == s->have_bytes && s->cap_bytes == RX_BYTES)) {
		s->have_bytes = 0;
		return 0;
	}
	return make_room(s, at, need);
}

/* True: all of it was got. */
static bool read_greeting(struct sock *s)
{
	struct worker *w = s->w;
	const struct greeting *g = &s->greeting;
	ssize_t n =
		recv(s->fd, (char *)&s->greeting + s->have_bytes, sizeof(*g) - s->have_bytes, MSG_DONTWAIT);

	if (n <= 0) {
		if (n == 0 || (nu_sys_errno != EAGAIN && nu_sys_errno != EINTR))
			sock_close(s);
		return false;
	}
	s->have_bytes += (size_t)n;
	if (s->have_bytes < sizeof(*g))
		return false;
	if (g->magic != GREETING_MAGIC || !nu_wire_knows(w->core, g->key) || g->node >= nu_node.count ||
	    g->node == nu_node.self || g->core >= NU_MAX_CORES || nu_wire_is_dead(g->node) ||
	    nu_peers[g->node].link != &nu_tcp_link || rx_create(s)) {
		sock_close(s);
		return false;
	}
	w->nstrangers--;
	s->state = SOCK_OPEN;
	s->node = g->node;
	s->core = g->core;
	s->conn = nu_conn_adopt(w->core, s->node, s->core, s);
	return true;
}

static void read_sock(struct sock *s)
{
	if (s->state == SOCK_GREETED && !read_greeting(s))
		return;
	for (unsigned i = 0; i < READS_MAX && s->state == SOCK_OPEN; i++) {
		size_t room = s->cap_bytes - s->have_bytes;
		ssize_t n = recv(s->fd, s->rx + s->have_bytes, room, MSG_DONTWAIT);
		int err;

		if (n <= 0) {
			if (n == 0)
				sock_fail(s, -ECONNRESET);
			else if (nu_sys_errno != EAGAIN && nu_sys_errno != EINTR)
				sock_fail(s, -nu_sys_errno);
			return;
		}
		s->have_bytes += (size_t)n;
		err = take_batches(s);
		if (err)
			sock_fail(s, err);
		if ((size_t)n < room)
			return;
	}
}

/* ---- connections that come ---- */

/* Somebody who connects and says nothing must not use up our descriptors: the oldest goes. */
static void bound_strangers(struct worker *w)
{
	struct nu_list *pos;

	if (w->nstrangers < STRANGERS_MAX)
		return;
	nu_list_for_each (pos, &w->socks) {
		struct sock *s = nu_list_entry(pos, struct sock, link);

		if (s->state == SOCK_GREETED) {
			sock_close(s);
			return;
		}
	}
}

static void rest_is_over(void *arg)
{
	struct worker *w = arg;
	struct epoll_event e = {.events = EPOLLIN};

	if (w->listen_fd >= 0)
		epoll_ctl(w->epfd, EPOLL_CTL_MOD, w->listen_fd, &e);
}

/* Else a connection that cannot be accepted would end each sleep of the core at once. */
static void rest(struct worker *w)
{
	struct epoll_event none = {.events = 0};

	if (!nu_timer_call(REST_NS, rest_is_over, w))
		epoll_ctl(w->epfd, EPOLL_CTL_MOD, w->listen_fd, &none);
}

/*
 * With no descriptor left the spare one serves to turn a peer away; it comes again. Where the limit was lowered below
 * the spare one's number, or another thread was faster, the peer waits.
 */
static void __attribute__((cold)) turn_away(struct worker *w, int err)
{
	static atomic_bool said;
	int fd = -1;

	say_no_descriptor(&said, w->core, "take a connection", err);
	if (w->spare_fd >= 0) {
		close(w->spare_fd);
		fd = accept4(w->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	}
	if (fd >= 0)
		close(fd);
	else
		rest(w);
	w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_some(struct worker *w)
{
	for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
		int fd = accept4(w->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct sock *s;

		if (fd < 0) {
			if (nu_sys_errno == EMFILE || nu_sys_errno == ENFILE)
				turn_away(w, -nu_sys_errno);
			return;
		}
		bound_strangers(w);
		set_options(fd);
		s = sock_create(w, fd, SOCK_GREETED);
		if (!s) {
			close(fd);
			return;
		}
		w->nstrangers++;
		if (watch(s, EPOLL_CTL_ADD, false))
			sock_close(s);
		else
			read_sock(s);
	}
}

/* ---- events ---- */

/* Connected: says who we are. 16 bytes always fit into a new socket. */
static int greet(struct sock *s)
{
	struct greeting g = {GREETING_MAGIC, (uint16_t)nu_node.self, s->w->core, nu_wire_key()};
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		return -nu_sys_errno;
	if (err)
		return -err;
	if (send(s->fd, &g, sizeof(g), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(g))
		return -ECONNRESET;
	s->state = SOCK_OPEN;
	return 0;
}

static void writable(struct sock *s)
{
	int err = s->state == SOCK_CONNECTING ? greet(s) : 0;

	if (!err)
		err = watch(s, EPOLL_CTL_MOD, false);
	if (err) {
		sock_fail(s, err);
		return;
	}
	s->w->handled++;
	if (s->conn)
		nu_wire_writable(s->conn);
}

static void handle(struct worker *w, const struct epoll_event *e)
{
	struct sock *s = e->data.ptr;

	if (!s) {
		accept_some(w);
		return;
	}
	if (s->state != SOCK_BROKEN && s->wants_out && e->events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		writable(s);
	if (s->state != SOCK_BROKEN && s->state != SOCK_CONNECTING &&
	    e->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		read_sock(s);
}

static unsigned tcp_progress(unsigned core)
{
	struct worker *w = &workers[core];
	struct epoll_event events[EVENTS_MAX];
	unsigned before = w->handled;
	int n;

	free_closed(w);
	n = epoll_wait(w->epfd, events, EVENTS_MAX, 0);
	for (int i = 0; i < n; i++)
		handle(w, &events[i]);
	return w->handled - before;
}

static int tcp_arm(unsigned core)
{
	return workers[core].epfd;
}

/* ---- start and end ---- */

/* Each core listens, and at worst has two sockets for each peer. */
static void raise_limit(void)
{
	rlim_t want = 256 + (rlim_t)nu_node.cores * (4 + 2 * (rlim_t)nu_node.count);
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur >= want)
		return;
	lim.rlim_cur = lim.rlim_max < want ? lim.rlim_max : want;
	if (setrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur < want)
		nu_warn("RLIMIT_NOFILE is %lu at most, TCP between %u nodes of %u cores may need %lu",
			(unsigned long)lim.rlim_max, nu_node.count, nu_node.cores, (unsigned long)want);
}

static int tcp_init(const struct nu_wire_options *o, enum nu_reach reach)
{
	snprintf(here_text, sizeof(here_text), "%s", o->address && *o->address ? o->address : "127.0.0.1");
	if (!parse_address(here_text, &here)) {
		nu_err("\"%s\" is no address of this host: IPv4 or IPv6, in numbers", o->address);
		return -EINVAL;
	}
	find_interface();
	raise_limit();
	for (unsigned i = 0; i < NU_MAX_CORES; i++)
		workers[i] = (struct worker){.epfd = -1, .listen_fd = -1, .spare_fd = -1};
	return 0;
}

static void tcp_fini(void)
{
}

static int open_listener(struct worker *w)
{
	struct epoll_event e = {.events = EPOLLIN};
	union address at = here;
	socklen_t len = sizeof(at);

	w->listen_fd = socket(at.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (w->listen_fd < 0 || bind(w->listen_fd, &at.sa, address_len(&at)) ||
	    listen(w->listen_fd, BACKLOG) || getsockname(w->listen_fd, &at.sa, &len) ||
	    epoll_ctl(w->epfd, EPOLL_CTL_ADD, w->listen_fd, &e))
		return -nu_sys_errno;
	w->port = at.sa.sa_family == AF_INET ? at.in4.sin_port : at.in6.sin6_port;
	return 0;
}

static void tcp_worker_destroy(unsigned core)
{
	struct worker *w = &workers[core];

	while (w->socks.next && !nu_list_empty(&w->socks))
		sock_close(nu_list_entry(w->socks.next, struct sock, link));
	if (w->closed.next)
		free_closed(w);
	if (w->epfd >= 0)
		close(w->epfd);
	if (w->listen_fd >= 0)
		close(w->listen_fd);
	if (w->spare_fd >= 0)
		close(w->spare_fd);
	*w = (struct worker){.epfd = -1, .listen_fd = -1, .spare_fd = -1};
}

static int tcp_worker_create(unsigned core)
{
	struct worker *w = &workers[core];
	int err = 0;

	w->core = (uint16_t)core;
	nu_list_init(&w->socks);
	nu_list_init(&w->closed);
	w->epfd = epoll_create1(EPOLL_CLOEXEC);
	w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (w->epfd < 0 || w->spare_fd < 0)
		err = -nu_sys_errno;
	if (!err)
		err = open_listener(w);
	if (err) {
		nu_err("core %u cannot listen on %s: %s", core, here_text, nu_strerror(err));
		tcp_worker_destroy(core);
	}
	return err;
}

static int tcp_address(unsigned core, void **addr_p, size_t *len_p)
{
	bool v4 = here.sa.sa_family == AF_INET;
	struct tcp_address *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->family = htons(v4 ? 4 : 6);
	a->port = workers[core].port;
	memcpy(a->ip, v4 ? (void *)&here.in4.sin_addr : &here.in6.sin6_addr, v4 ? 4 : 16);
	*addr_p = a;
	*len_p = sizeof(*a);
	return 0;
}

static bool tcp_may_break(void *ep)
{
	return true;
}

static int tcp_transport(void *ep, char *buf, size_t len)
{
	snprintf(buf, len, "tcp/%s", here_interface);
	return 0;
}

const struct nu_link_ops nu_tcp_link = {
	.name = "TCP",
	.id = 2,
	.lasting = true,
	.init = tcp_init,
	.fini = tcp_fini,
	.worker_create = tcp_worker_create,
	.worker_destroy = tcp_worker_destroy,
	.address = tcp_address,
	.check = tcp_check,
	.connect = tcp_connect,
	.send = tcp_send,
	.progress = tcp_progress,
	.arm = tcp_arm,
	.close = tcp_close,
	.may_break = tcp_may_break,
	.transport = tcp_transport,
};
