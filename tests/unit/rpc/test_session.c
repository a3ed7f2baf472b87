/* SPDX-License-Identifier: MIT */
/*
 * Sessions: first one side alone, over a link that does as it is told; then nodes whose TCP connections are cut.
 */
#include "wire_rig.h"

#include "rpc/wire_int.h"

#include <netinet/in.h>
#include <sys/socket.h>

/* ---- a link that does as it is told ---- */

#define SENT_MAX 4096

static struct nu_batch sent[SENT_MAX];
static unsigned nsent, nconnects, ncloses;
static int send_rc, connect_rc;
static char endpoints[SENT_MAX];

static int fake_connect(unsigned core, const void *addr, size_t len, struct nu_conn *c, void **ep_p)
{
	nconnects++;
	if (!connect_rc)
		*ep_p = &endpoints[nconnects];
	return connect_rc;
}

static int fake_send(void *ep, struct nu_buf *b)
{
	if (send_rc)
		return send_rc;
	cr_assert_lt(nsent, SENT_MAX);
	sent[nsent++] = *(struct nu_batch *)b->data;
	return 0;
}

static unsigned fake_progress(unsigned core)
{
	return 0;
}

static void fake_close(unsigned core, void *ep)
{
	ncloses++;
}

static bool fake_may_break(void *ep)
{
	return true;
}

static struct nu_link_ops fake;
static const struct nu_link_ops *real;
static struct nu_conn *conn;
static unsigned handled;

static void on_any(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	handled++;
}

#define KEY 0x0102030405060708

/* Node 0 of two, with a core each, no scheduler. */
static void start(void)
{
	void *blob;
	size_t len;

	node_init(0, 2, 1);
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = "tcp", .key = KEY}));
	cr_assert(!nu_wire_address(&blob, &len));
	cr_assert(!nu_wire_set_peer(1, blob, len));
	free(blob);
	for (unsigned t = 1; t < NU_MSG_TYPES; t++)
		nu_wire_set_handler(t, on_any);
	real = nu_links[0];
	fake = *real;
	fake.connect = fake_connect;
	fake.send = fake_send;
	fake.progress = fake_progress;
	fake.close = fake_close;
	fake.may_break = fake_may_break;
	conn = &nu_wire_cores[0].conns[1];
	conn->link = nu_links[0] = &fake;
	nu_log_level = NU_LOG_ERROR;
}

static void stop(void)
{
	nu_conn_close(conn);
	nu_links[0] = real;
	nu_wire_fini();
}

static void send_batches(unsigned n)
{
	while (n--) {
		cr_assert(!send_op(1, NU_MSG_HINT, OP_COUNT, 0, "text", 4));
		nu_wire_flush();
	}
}

struct incoming {
	struct nu_batch h;
	struct nu_msg m;
};

static struct incoming incoming(uint64_t seq, uint32_t flags, uint64_t ack)
{
	return (struct incoming){
		.h = {.magic = NU_BATCH_MAGIC,
		      .len_bytes = sizeof(struct incoming),
		      .key = KEY,
		      .seq = seq,
		      .ack = ack,
		      .flags = flags,
		      .node = 1},
		.m = {.len_bytes = sizeof(struct nu_msg), .type = NU_MSG_HINT},
	};
}

static int receive(uint64_t seq, uint32_t flags, uint64_t ack)
{
	struct incoming in = incoming(seq, flags, ack);

	return nu_wire_receive(0, &in, sizeof(in), false);
}

static uint64_t kept(void)
{
	return nu_stat_sum(NU_STAT_BATCHES_KEPT) - nu_stat_sum(NU_STAT_BATCHES_SETTLED);
}

Test(session, taken_in_order_and_once)
{
	start();
	cr_expect_eq(receive(1, 0, 0), 1);
	cr_expect_eq(receive(2, 0, 0), 1);
	cr_expect_eq(receive(2, 0, 0), 0);
	cr_expect_eq(receive(1, 0, 0), 0);
	cr_expect_eq(receive(3, 0, 0), 1);
	cr_expect_eq(handled, 3);
	cr_expect_eq(nu_stat_sum(NU_STAT_BATCHES_REFUSED), 2);
	cr_expect_eq(receive(5, 0, 0), 0, "a gap");
	cr_expect_eq(receive(6, 0, 0), 0);
	cr_expect_eq(handled, 3);
	nu_wire_flush();
	cr_assert_eq(nsent, 1);
	cr_expect_eq(sent[0].seq, 0);
	cr_expect_eq(sent[0].flags & (NU_BATCH_ACK | NU_BATCH_AGAIN), NU_BATCH_ACK | NU_BATCH_AGAIN);
	cr_expect_eq(sent[0].ack, 3);
	cr_expect_eq(receive(4, 0, 0), 1);
	cr_expect_eq(receive(5, 0, 0), 1);
	cr_expect_eq(handled, 5);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 0);
	stop();
}

/* Credits of a batch count once: here nobody had any, so that each time is an offence. */
Test(session, credits_count_once)
{
	struct incoming in;

	start();
	in = incoming(1, 0, 0);
	in.h.credits = 1;
	for (unsigned i = 0; i < 3; i++)
		(void)nu_wire_receive(0, &in, sizeof(in), false);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 1);
	stop();
}

Test(session, strangers_touch_nothing)
{
	struct incoming in;

	start();
	send_batches(3);
	in = incoming(1, NU_BATCH_ACK, 3);
	in.h.key++;
	cr_expect_eq(nu_wire_receive(0, &in, sizeof(in), false), -EBADMSG);
	cr_expect_eq(kept(), 3);
	cr_expect_eq(receive(1, 0, 0), 1, "the number is still free");
	stop();
}

Test(session, kept_until_acknowledged)
{
	start();
	send_batches(10);
	cr_assert_eq(nsent, 10);
	for (unsigned i = 0; i < 10; i++)
		cr_expect_eq(sent[i].seq, i + 1);
	cr_expect_eq(kept(), 10);
	cr_expect_eq(receive(1, NU_BATCH_ACK, 4), 1);
	cr_expect_eq(kept(), 6);
	cr_expect_eq(receive(1, NU_BATCH_ACK, 7), 0, "also a batch that is not taken says so");
	cr_expect_eq(kept(), 3);
	cr_expect_eq(receive(2, NU_BATCH_ACK, 5), 1, "an old one changes nothing");
	cr_expect_eq(kept(), 3);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 0);
	cr_expect_eq(receive(3, NU_BATCH_ACK, 11), 1);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 1, "more than was sent");
	cr_expect_eq(kept(), 3);
	cr_expect_eq(receive(4, NU_BATCH_ACK, 10), 1);
	cr_expect_eq(kept(), 0);
	cr_expect_null(conn->queue);
	stop();
}

Test(session, sent_again_after_a_break)
{
	start();
	send_batches(5);
	(void)receive(1, NU_BATCH_ACK, 2);
	nu_wire_broken(conn, &endpoints[77], -ECONNRESET);
	cr_expect_eq(conn->state, CONN_UP, "another endpoint's end is none of ours");
	nu_wire_broken(conn, conn->ep, -ECONNRESET);
	cr_expect_eq(conn->state, CONN_DOWN);
	cr_assert(!send_op(1, NU_MSG_HINT, OP_COUNT, 0, "text", 4));
	nu_wire_flush();
	cr_expect_eq(nconnects, 2, "the first time at once");
	cr_expect_eq(ncloses, 1);
	cr_assert_eq(nsent, 9);
	for (unsigned i = 0; i < 4; i++)
		cr_expect_eq(sent[5 + i].seq, 3 + i);
	cr_expect_eq(nu_stat_sum(NU_STAT_BATCHES_RESENT), 3);
	(void)receive(2, NU_BATCH_ACK, 6);
	cr_expect_eq(kept(), 0);
	stop();
}

Test(session, sent_again_when_asked)
{
	start();
	send_batches(5);
	(void)receive(0, NU_BATCH_ACK | NU_BATCH_AGAIN, 2);
	nu_wire_flush();
	cr_assert_eq(nsent, 8);
	for (unsigned i = 0; i < 3; i++)
		cr_expect_eq(sent[5 + i].seq, 3 + i);
	cr_expect_eq(kept(), 3);
	stop();
}

Test(session, acknowledgements_are_made_when_due)
{
	start();
	for (unsigned i = 1; i < 32; i++)
		(void)receive(i, 0, 0);
	nu_wire_flush();
	cr_expect_eq(nsent, 0, "they wait for company");
	send_batches(1);
	cr_assert_eq(nsent, 1);
	cr_expect(sent[0].flags & NU_BATCH_ACK);
	cr_expect_eq(sent[0].ack, 31);
	send_batches(1);
	cr_expect_not(sent[1].flags & NU_BATCH_ACK, "once is enough");
	/* What was told on an endpoint that broke may not have arrived. */
	nu_wire_broken(conn, conn->ep, -ECONNRESET);
	nu_wire_flush();
	cr_assert_eq(nsent, 4);
	cr_expect(sent[2].flags & NU_BATCH_ACK);
	cr_expect_eq(sent[2].ack, 31);
	for (unsigned i = 32; i < 64; i++)
		(void)receive(i, 0, 0);
	nu_wire_flush();
	cr_assert_eq(nsent, 5, "a one-way stream is acknowledged, too");
	cr_expect_eq(sent[4].seq, 0);
	cr_expect_eq(sent[4].ack, 63);
	(void)receive(64, NU_BATCH_ASK, 0);
	nu_wire_flush();
	cr_assert_eq(nsent, 6);
	cr_expect_eq(sent[5].flags, NU_BATCH_ACK | NU_BATCH_ANSWER);
	cr_expect_eq(sent[5].ack, 64);
	nu_wire_flush();
	cr_expect_eq(nsent, 6);
	stop();
}

/* The question went out behind all batches: what the answer lacks will not come by itself. */
Test(session, an_answer_tells_what_was_lost)
{
	start();
	send_batches(4);
	conn->probed = 4;
	(void)receive(0, NU_BATCH_ACK | NU_BATCH_ANSWER, 1);
	nu_wire_flush();
	cr_assert_eq(nsent, 7);
	cr_expect_eq(sent[4].seq, 2);
	cr_expect_eq(sent[6].seq, 4);
	stop();
}

Test(session, a_batch_that_was_begun_is_gone_on_with)
{
	start();
	send_batches(1);
	send_rc = -EAGAIN;
	send_batches(3);
	cr_expect_eq(nsent, 1);
	cr_expect(conn->stalled);
	(void)receive(1, NU_BATCH_ACK, 2); /* it had come over an earlier endpoint */
	cr_expect_not_null(conn->current);
	cr_expect_eq(kept(), 3, "the link may be in the middle of it");
	send_rc = 0;
	nu_wire_flush();
	cr_expect_eq(nsent, 1, "not before the link says so");
	nu_wire_writable(conn);
	nu_wire_flush();
	cr_assert_eq(nsent, 4);
	for (unsigned i = 0; i < 4; i++)
		cr_expect_eq(sent[i].seq, i + 1);
	(void)receive(2, NU_BATCH_ACK, 4);
	cr_expect_eq(kept(), 0);
	stop();
}

Test(session, a_break_in_the_middle_of_a_batch)
{
	start();
	send_rc = -EAGAIN;
	send_batches(3);
	nu_wire_broken(conn, conn->ep, -ECONNRESET);
	send_rc = 0;
	nu_wire_flush();
	cr_assert_eq(nsent, 3);
	for (unsigned i = 0; i < 3; i++)
		cr_expect_eq(sent[i].seq, i + 1);
	send_rc = -EPIPE;
	send_batches(1);
	cr_expect_eq(conn->state, CONN_DOWN);
	cr_expect_eq(kept(), 4);
	stop();
}

Test(session, attempts_back_off)
{
	uint64_t begin, longest = 0;
	unsigned before;

	start();
	connect_rc = -ECONNREFUSED;
	send_batches(1);
	begin = nu_mono_ns();
	before = nconnects;
	while (nu_mono_ns() - begin < 1500000000) {
		uint64_t wait;

		nu_conn_flush(&nu_wire_cores[0], conn);
		wait = conn->retry_ns - nu_mono_ns();
		if ((int64_t)wait > 0 && wait > longest)
			longest = wait;
		usleep(200);
	}
	cr_expect_leq(nconnects - before, 25);
	cr_expect_geq(nconnects - before, 8);
	cr_expect_gt(longest, 60000000);
	cr_expect_leq(longest, 400000000);
	cr_expect_eq(conn->state, CONN_DOWN);
	cr_expect_eq(kept(), 1);
	connect_rc = 0;
	conn->retry_ns = 0;
	nu_conn_flush(&nu_wire_cores[0], conn);
	cr_expect_eq(nsent, 1);
	stop();
}

/* What standard error got since @fds took its place. */
static unsigned lines_with(int fds[2], const char *text)
{
	static char all[8192];
	unsigned n = 0;
	ssize_t got;

	cr_assert_eq(write(fds[1], "\n", 1), 1); /* so that there is something */
	got = read(fds[0], all, sizeof(all) - 1);
	cr_assert_gt(got, 0);
	all[got] = 0;
	for (char *at = all; (at = strstr(at, text)); at++)
		n++;
	return n;
}

Test(session, a_node_that_cannot_be_reached_is_said_once)
{
	int fds[2];

	start();
	nu_log_level = NU_LOG_WARN;
	cr_assert(!pipe(fds) && dup2(fds[1], 2) == 2);
	connect_rc = -ECONNREFUSED;
	send_batches(1);
	for (unsigned i = 0; i < 5; i++) {
		conn->retry_ns = 0;
		nu_conn_flush(&nu_wire_cores[0], conn);
	}
	cr_expect_eq(lines_with(fds, "nu: "), 0, "nothing is worth a word for the first seconds");
	conn->down_ns -= 11000000000;
	for (unsigned i = 0; i < 5; i++) {
		conn->retry_ns = 0;
		nu_conn_flush(&nu_wire_cores[0], conn);
	}
	cr_expect_eq(lines_with(fds, "has not been reached"), 1);
	cr_expect_eq(kept(), 1);
	connect_rc = 0;
	conn->retry_ns = 0;
	nu_conn_flush(&nu_wire_cores[0], conn);
	cr_expect_eq(nsent, 1);
	stop();
}

Test(session, death_drops_everything)
{
	start();
	send_batches(7);
	nu_wire_broken(conn, conn->ep, -ECONNRESET);
	nu_conn_close(conn);
	cr_expect_eq(kept(), 0);
	cr_expect_eq(ncloses, 1);
	cr_assert(!send_op(1, NU_MSG_HINT, OP_COUNT, 0, "text", 4));
	nu_wire_flush();
	cr_expect_eq(kept(), 0);
	cr_expect_eq(nsent, 7);
	stop();
}

/* What acknowledges another core's batches, or comes from a core that does not speak to this one. */
Test(session, nonsense_is_counted)
{
	struct incoming in;

	start();
	send_batches(2);
	in = incoming(1, NU_BATCH_ACK, 2);
	in.h.ack_core = 1;
	(void)nu_wire_receive(0, &in, sizeof(in), false);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 1);
	cr_expect_eq(kept(), 2);
	in = incoming(2, 0, 0);
	in.h.core = 1;
	cr_expect_eq(nu_wire_receive(0, &in, sizeof(in), false), -EBADMSG);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 2);
	stop();
}

/* ---- nodes whose connections are cut ---- */

/* Shuts connected sockets down; all are the wire's. */
static unsigned cut(int how)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	for (struct dirent *e; d && (e = readdir(d));) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(int), alen = sizeof(a);
		int domain = 0, fd = atoi(e->d_name);

		if (e->d_name[0] == '.' || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) ||
		    domain != AF_INET || getpeername(fd, (struct sockaddr *)&a, &alen))
			continue;
		n += !shutdown(fd, how);
	}
	if (d)
		closedir(d);
	return n;
}

static void wait_nothing_kept(void)
{
	uint64_t begin = nu_mono_ns();

	while (kept()) {
		CHECK(nu_mono_ns() - begin < 10000000000);
		nu_sleep_us(10000);
	}
}

static void cut_echoes_thread(void *arg)
{
	static unsigned char data[20000];
	static const int hows[] = {SHUT_RDWR, SHUT_RD, SHUT_WR};
	unsigned cuts = 0;

	for (unsigned i = 0; i < 400; i++) {
		echo(1, i * 37 % sizeof(data), data);
		cuts += cut(hows[i % 3]);
		if (i % 7 == 0)
			nu_sleep_us(1000);
	}
	CHECK(cuts >= 200);
	echo(1, 100, data);
	wait_nothing_kept();
	CHECK(nu_stat_sum(NU_STAT_CONNS_BROKEN) >= 200);
	CHECK(!nu_stat_sum(NU_STAT_BAD_MESSAGES));
	end_others();
}

Test(session, echoes_over_cut_connections)
{
	run_nodes(
		&(struct setup){2, 1, {.transport = "tcp", .key = KEY}, basic_handlers, {cut_echoes_thread}});
}

Test(session, echoes_over_cut_connections_to_fewer_cores)
{
	run_nodes(&(struct setup){2, 3, {.transport = "tcp"}, basic_handlers, {cut_echoes_thread}, NULL, 2});
}

Test(session, echoes_over_cut_connections_to_more_cores)
{
	run_nodes(&(struct setup){2, 1, {.transport = "tcp"}, basic_handlers, {cut_echoes_thread}, NULL, 3});
}

/* From each core of each node to each other: numbers arrive in order and none is missing, whatever is cut. */

#define STREAM_MESSAGES 6000

static uint64_t next_of[NODES_MAX][4];
static struct event ended_streams;
static atomic_uint streams_sent;

static void on_stream(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(from < nu_node.count && m->location < 4);
	CHECK(m->seq == next_of[from][m->location]);
	CHECK(same(payload, len, m->seq));
	next_of[from][m->location]++;
	if (m->seq == STREAM_MESSAGES - 1)
		event_add(&ended_streams, 1);
}

static void stream_handlers(void)
{
	basic_handlers();
	nu_wire_set_handler(NU_MSG_STACK, on_stream);
}

static void send_some(void *arg)
{
	static __thread unsigned char data[3000];
	unsigned core = nu_core_self();
	uint64_t i = (uint64_t)(uintptr_t)arg;

	for (uint64_t end = i + 20; i < end; i++) {
		struct nu_msg m = {.type = NU_MSG_STACK, .cls = NU_CLASS_CONTROL, .seq = i, .location = core};
		struct iovec part = {data, i % 50 ? i % 300 : 3000};

		fill(data, part.iov_len, i);
		for (unsigned n = 0; n < nu_node.count; n++) {
			if (n != nu_node.self)
				CHECK(!nu_wire_send(n, &m, &part, 1));
		}
	}
	if (i < STREAM_MESSAGES)
		CHECK(!nu_core_post(core, send_some, (void *)(uintptr_t)i));
	else
		atomic_fetch_add(&streams_sent, 1);
}

static void cut_streams_thread(void *arg)
{
	unsigned expected = 0, seed = nu_node.self + 1;

	for (unsigned core = 0; core < nu_node.cores; core++)
		CHECK(!nu_core_post(core, send_some, NULL));
	for (unsigned n = 0; n < nu_node.count; n++)
		expected += n == nu_node.self ? 0 : nu_peers[n].ncores;
	while (atomic_load(&streams_sent) < nu_node.cores) {
		cut(rand_r(&seed) % 2 ? SHUT_RDWR : SHUT_WR);
		nu_sleep_us((unsigned)rand_r(&seed) % 3000);
	}
	event_wait(&ended_streams, expected);
	wait_nothing_kept();
	for (unsigned n = 0; n < nu_node.count; n++)
		CHECK(!send_op(n, NU_MSG_HINT, OP_COUNT, 0, NULL, 0));
	event_wait(&arrivals, nu_node.count); /* everybody has everything */
	CHECK(!nu_stat_sum(NU_STAT_BAD_MESSAGES));
}

Test(session, streams_over_cut_connections)
{
	run_nodes(&(struct setup){3,
				  2,
				  {.transport = "tcp", .key = KEY},
				  stream_handlers,
				  {cut_streams_thread, cut_streams_thread, cut_streams_thread}});
}

Test(session, streams_over_cut_connections_between_uneven_nodes)
{
	run_nodes(&(struct setup){3,
				  3,
				  {.transport = "tcp", .key = KEY},
				  stream_handlers,
				  {cut_streams_thread, cut_streams_thread, cut_streams_thread},
				  NULL,
				  2});
}

Test(session, streams_over_cut_connections_and_shared_memory)
{
	run_nodes(&(struct setup){3,
				  2,
				  {.transport = "auto", .key = KEY},
				  stream_handlers,
				  {cut_streams_thread, cut_streams_thread, cut_streams_thread},
				  .host_of = {0, 1, 0}});
}

static struct sockaddr_in listener_of(unsigned node)
{
	const unsigned char *bytes = nu_peers[node].addresses[0]; /* family, port, 4, IPv4 */
	struct sockaddr_in a = {.sin_family = AF_INET};

	CHECK(nu_peers[node].address_lens[0] == 24 && bytes[1] == 4);
	memcpy(&a.sin_port, bytes + 2, 2);
	memcpy(&a.sin_addr, bytes + 8, 4);
	return a;
}

/* Somebody else connects: no key, no word; many of them; none disturbs the nodes. */
static void strangers_thread(void *arg)
{
	unsigned char data[64];
	struct sockaddr_in a;
	char byte;

	a = listener_of(1);
	echo(1, sizeof(data), data);
	for (unsigned i = 0; i < 200; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		char noise[64];

		memset(noise, (int)i, sizeof(noise));
		CHECK(fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)));
		if (i % 2)
			CHECK(send(fd, noise, i % sizeof(noise), MSG_NOSIGNAL) ==
			      (ssize_t)(i % sizeof(noise)));
		if (i % 64 >= 16 && i % 2) /* enough for a greeting: it is hung up on */
			CHECK(recv(fd, &byte, 1, 0) <= 0);
		if (i % 3)
			CHECK(!close(fd));
		echo(1, sizeof(data), data);
	}
	CHECK(!nu_stat_sum(NU_STAT_CONNS_BROKEN));
	end_others();
}

Test(session, strangers_are_hung_up_on)
{
	run_nodes(
		&(struct setup){2, 1, {.transport = "tcp", .key = KEY}, basic_handlers, {strangers_thread}});
}
