/* SPDX-License-Identifier: MIT */
/*
 * Two nodes in network namespaces of their own, with a bad network between them: each packet takes 2 ms, one in a hundred
 * is lost, and at times nothing gets through. The network is this program, between two tun devices.
 */
#include "wire_rig.h"

#include "rpc/wire_int.h"

#include <arpa/inet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define DELAY_NS   2000000ull
#define LOSS	   100 /* one in so many */
#define QUEUE_MAX  4096u
#define PACKET_MAX 2048

/* ---- the network ---- */

struct packet {
	uint64_t due_ns;
	size_t len;
	char data[PACKET_MAX];
};

struct way {
	int from, to;
	unsigned head, tail;
	struct packet *queue;
};

static struct network {
	atomic_bool *dark; /* shared with the nodes: nothing gets through */
	int socks[2][2];   /* by which a node hands its device over */
	struct way ways[2];
	atomic_bool stop;
	pthread_t thread;
	uint64_t carried, lost;
} net;

static void take_packets(struct way *w, unsigned *seed)
{
	while (w->tail - w->head < QUEUE_MAX) {
		struct packet *p = &w->queue[w->tail % QUEUE_MAX];
		ssize_t n = read(w->from, p->data, sizeof(p->data));

		if (n <= 0)
			return;
		if (rand_r(seed) % LOSS == 0 || atomic_load(net.dark)) {
			net.lost++;
			continue;
		}
		p->len = (size_t)n;
		p->due_ns = nu_mono_ns() + DELAY_NS;
		w->tail++;
		net.carried++;
	}
}

static void deliver(struct way *w)
{
	for (; w->head != w->tail; w->head++) {
		struct packet *p = &w->queue[w->head % QUEUE_MAX];

		if (p->due_ns > nu_mono_ns())
			return;
		(void)!write(w->to, p->data, p->len); /* a node that has gone takes none */
	}
}

static void *carry(void *arg)
{
	unsigned seed = 11;

	while (!atomic_load(&net.stop)) {
		uint64_t now = nu_mono_ns(), first = now + 20000000;
		struct pollfd fds[2] = {{net.ways[0].from, POLLIN, 0}, {net.ways[1].from, POLLIN, 0}};
		struct timespec ts = {0, 0};

		for (unsigned i = 0; i < 2; i++) {
			struct way *w = &net.ways[i];

			if (w->head != w->tail && w->queue[w->head % QUEUE_MAX].due_ns < first)
				first = w->queue[w->head % QUEUE_MAX].due_ns;
		}
		if (first > now)
			ts.tv_nsec = (long)(first - now);
		ppoll(fds, 2, &ts, NULL);
		for (unsigned i = 0; i < 2; i++) {
			take_packets(&net.ways[i], &seed);
			deliver(&net.ways[i]);
		}
	}
	return NULL;
}

static int control(int sock, struct ifreq *r, unsigned long request, const char *address)
{
	struct sockaddr_in a = {.sin_family = AF_INET};

	if (address) {
		inet_pton(AF_INET, address, &a.sin_addr);
		memcpy(&r->ifr_addr, &a, sizeof(a));
	}
	return ioctl(sock, request, r);
}

/* A device nu0 with @address in a network namespace of our own. */
static int make_device(const char *address)
{
	struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI, .ifr_name = "nu0"};
	int fd, sock;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return -1;
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sock < 0 || ioctl(fd, TUNSETIFF, &r) || control(sock, &r, SIOCSIFADDR, address) ||
	    control(sock, &r, SIOCSIFNETMASK, "255.255.255.0"))
		return -1;
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	if (control(sock, &r, SIOCSIFFLAGS, NULL))
		return -1;
	close(sock);
	return fd;
}

union fd_message {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void give_fd(int sock, int fd)
{
	union fd_message control = {0};
	struct iovec io = {"f", 1};
	struct msghdr m = {.msg_iov = &io,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	CHECK(sendmsg(sock, &m, 0) == 1);
}

static int take_fd(int sock)
{
	union fd_message control;
	char byte;
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	int fd = -1;

	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

/* In the new node. */
static void onto_network(unsigned self, struct nu_wire_options *o)
{
	int fd;

	o->address = self ? "10.77.0.2" : "10.77.0.1";
	fd = make_device(o->address);
	CHECK(fd >= 0);
	give_fd(net.socks[self][1], fd);
	close(fd);
}

static bool can_make_devices(void)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(make_device("10.77.0.9") < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

/* Runs the nodes with the network between them. Return: seconds. */
static double run_over_network(struct setup s)
{
	struct timespec began, ended;
	double s_taken;
	int fds[2];

	if (!can_make_devices())
		cr_skip_test("no network namespace with a tun device can be made here");
	s.nodes = 2;
	s.host_of[1] = 1;
	s.before = onto_network;
	net.dark = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert(net.dark != MAP_FAILED);
	for (unsigned i = 0; i < 2; i++)
		cr_assert(!socketpair(AF_UNIX, SOCK_DGRAM, 0, net.socks[i]));
	start_nodes(&s);
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = take_fd(net.socks[i][0]);
		cr_assert_geq(fds[i], 0);
	}
	for (unsigned i = 0; i < 2; i++)
		net.ways[i] = (struct way){fds[i], fds[!i], 0, 0, calloc(QUEUE_MAX, sizeof(struct packet))};
	clock_gettime(CLOCK_MONOTONIC, &began);
	cr_assert(!pthread_create(&net.thread, NULL, carry, NULL));
	for (unsigned n = 0; n < 2; n++)
		expect_exit(n, 0);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	atomic_store(&net.stop, true);
	pthread_join(net.thread, NULL);
	s_taken = (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9;
	fprintf(stderr, "%lu packets carried, %lu lost, %.1f s\n", (unsigned long)net.carried,
		(unsigned long)net.lost, s_taken);
	return s_taken;
}

static atomic_bool *const *const dark = &net.dark; /* in a node: the parent's word */

/* ---- what nodes do over it ---- */

#define STREAM_MESSAGES 6000

static uint64_t next_of[2];
static struct event ended_streams;

static void on_stream(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(m->location < 2 && m->seq == next_of[m->location] && same(payload, len, m->seq));
	next_of[m->location]++;
	if (m->seq == STREAM_MESSAGES - 1)
		event_add(&ended_streams, 1);
}

static void handlers(void)
{
	basic_handlers();
	nu_wire_set_handler(NU_MSG_STACK, on_stream);
}

static void send_stream(void *arg)
{
	static __thread unsigned char data[3000];
	unsigned core = nu_core_self();

	for (uint64_t i = 0; i < STREAM_MESSAGES; i++) {
		struct nu_msg m = {.type = NU_MSG_STACK, .cls = NU_CLASS_CONTROL, .seq = i, .location = core};
		struct iovec part = {data, i % 50 ? i % 300 : 3000};

		fill(data, part.iov_len, i);
		CHECK(!nu_wire_send(!nu_node.self, &m, &part, 1));
	}
}

/* 1.3 MB from each core of either node: all of it comes, in order, once. */
static void streams_thread(void *arg)
{
	for (unsigned core = 0; core < 2; core++)
		CHECK(!nu_core_post(core, send_stream, NULL));
	event_wait(&ended_streams, 2);
	CHECK(!nu_stat_sum(NU_STAT_BAD_MESSAGES) && !nu_stat_sum(NU_STAT_CONNS_BROKEN));
	for (unsigned n = 0; n < 2; n++)
		CHECK(!send_op(n, NU_MSG_HINT, OP_COUNT, 0, NULL, 0));
	event_wait(&arrivals, 2); /* both have everything */
}

Test(lossy, streams)
{
	run_over_network(
		(struct setup){.cores = 2, .handlers = handlers, .thread = {streams_thread, streams_thread}});
}

static void echoes_thread(void *arg)
{
	static unsigned char data[30000];
	char name[64];

	for (unsigned i = 0; i < 150; i++)
		echo(1, i * 211 % sizeof(data), data);
	CHECK(!nu_wire_transport(1, name, sizeof(name)) && !strcmp(name, "tcp/nu0"));
	CHECK(!nu_stat_sum(NU_STAT_CONNS_BROKEN));
	end_others();
}

Test(lossy, echoes)
{
	run_over_network((struct setup){.cores = 1, .handlers = basic_handlers, .thread = {echoes_thread}});
}

/* Nothing gets through for a while, and sockets break besides: nothing is lost. */
static void dark_thread(void *arg)
{
	static unsigned char data[3000];

	for (unsigned i = 0; i < 3; i++) {
		uint64_t begin = nu_mono_ns();

		echo(1, sizeof(data), data);
		atomic_store(*dark, true);
		fill(data, sizeof(data), 1000 + i);
		for (unsigned k = 0; k < 50; k++)
			CHECK(!send_op(1, NU_MSG_HINT, OP_ECHO, 1000 + i, data, sizeof(data)));
		nu_wire_flush();
		nu_sleep_us(300000);
		if (i == 2)
			nu_wire_broken(&nu_wire_cores[0].conns[1], nu_wire_cores[0].conns[1].ep, -ECONNRESET);
		atomic_store(*dark, false);
		event_wait(&answers, 50);
		CHECK(nu_mono_ns() - begin < 30000000000);
	}
	CHECK(nu_stat_sum(NU_STAT_CONNS_BROKEN) == 1);
	end_others();
}

Test(lossy, nothing_gets_through_for_a_while)
{
	run_over_network((struct setup){.cores = 1, .handlers = basic_handlers, .thread = {dark_thread}});
}

/* A host disappears, without a word: once it has been declared dead nothing waits for it, not even the end. */
static void vanished_thread(void *arg)
{
	static unsigned char data[3000];

	echo(1, sizeof(data), data);
	atomic_store(*dark, true);
	for (unsigned k = 0; k < 500; k++)
		CHECK(!send_op(1, NU_MSG_HINT, OP_ECHO, 1, data, 0));
	nu_wire_flush();
	nu_sleep_us(100000);
	nu_wire_peer_dead(1);
	CHECK(send_op(1, NU_MSG_HINT, OP_ECHO, 1, data, 0) == -EHOSTDOWN);
	CHECK(nu_wire_credit(1, 0, false, 0) == -EHOSTDOWN);
}

static void alone_thread(void *arg)
{
	while (!atomic_load(*dark))
		nu_sleep_us(10000);
	nu_sleep_us(200000);
	nu_wire_peer_dead(0);
}

Test(lossy, host_that_vanishes)
{
	double s = run_over_network((struct setup){.cores = 1,
						   .handlers = basic_handlers,
						   .thread = {vanished_thread, alone_thread}});

	cr_expect_lt(s, 10.0, "%.1f s though both were declared dead", s);
}
