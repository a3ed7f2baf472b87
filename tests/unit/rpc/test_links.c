/* SPDX-License-Identifier: MIT */
/*
 * Which link carries what, where it listens, and what is made of addresses: nodes of several "hosts", which are all this
 * machine, and blobs of addresses that are not what they should be.
 */
#include "wire_rig.h"

#include "rpc/wire_int.h"

#include <arpa/inet.h>
#include <sys/socket.h>

/* ---- which link ---- */

static void transport_is(unsigned node, const char *what, const char *or_what)
{
	static unsigned char data[20000];
	char name[64] = "";

	for (size_t len = 0; len < sizeof(data); len += 999)
		echo(node, len, data);
	CHECK(!nu_wire_transport(node, name, sizeof(name)));
	if (strcmp(name, what) && strcmp(name, or_what)) {
		fprintf(stderr, "transport to node %u is %s, not %s\n", node, name, what);
		_exit(1);
	}
}

static void by_host_thread(void *arg)
{
	CHECK(nu_links[0] == &nu_shm_link && nu_links[1] == &nu_tcp_link);
	transport_is(1, "shm/ring", "shm/ring");
	transport_is(2, "tcp/lo", "tcp/lo");
	/* Asleep on both: whichever speaks wakes us. */
	for (unsigned i = 0; i < 20; i++) {
		unsigned char data[64];

		nu_sleep_us(3000);
		echo(1 + i % 2, sizeof(data), data);
	}
	end_others();
}

Test(links, auto_is_shm_within_a_host_and_tcp_between)
{
	run_nodes(&(struct setup){
		3, 1, {.transport = "auto"}, basic_handlers, {by_host_thread}, .host_of = {0, 0, 1}});
}

static void all_tcp_thread(void *arg)
{
	CHECK(nu_links[0] == &nu_tcp_link && !nu_links[1]);
	transport_is(1, "tcp/lo", "tcp/lo");
	transport_is(2, "tcp/lo", "tcp/lo");
	end_others();
}

Test(links, tcp_is_tcp_to_all)
{
	run_nodes(&(struct setup){
		3, 1, {.transport = "tcp"}, basic_handlers, {all_tcp_thread}, .host_of = {0, 0, 1}});
}

/* A node alone on its host has no use for shared memory. */
Test(links, a_host_each)
{
	run_nodes(&(struct setup){
		3, 1, {.transport = "auto"}, basic_handlers, {all_tcp_thread}, .host_of = {0, 1, 2}});
}

/* What was said before the other end even looks, on both links, by nodes that leave at once. */
static void leave_thread(void *arg)
{
	for (unsigned n = 0; n < nu_node.count; n++)
		CHECK(!send_op(n, NU_MSG_HINT, OP_COUNT, 0, NULL, 0));
	event_wait(&arrivals, nu_node.count);
}

Test(links, leave)
{
	for (unsigned i = 0; i < 5; i++)
		run_nodes(&(struct setup){3,
					  2,
					  {.transport = "auto"},
					  basic_handlers,
					  {leave_thread, leave_thread, leave_thread},
					  .host_of = {0, 0, 1}});
}

/* A node that was declared dead is no more trouble on either link. */
static void death_thread(void *arg)
{
	unsigned char data[64];

	for (unsigned n = 1; n < 3; n++) {
		CHECK(!send_op(n, NU_MSG_HINT, OP_COUNT, 0, NULL, 0));
		echo(n, sizeof(data), data); /* so it has come */
		nu_wire_peer_dead(n);
		CHECK(send_op(n, NU_MSG_HINT, OP_COUNT, 0, NULL, 0) == -EHOSTDOWN);
	}
	nu_sleep_us(20000);
}

static void leave_at_once_thread(void *arg)
{
	event_wait(&arrivals, 1);
}

Test(links, death)
{
	run_nodes(&(struct setup){3,
				  1,
				  {.transport = "auto"},
				  basic_handlers,
				  {death_thread, leave_at_once_thread, leave_at_once_thread},
				  .host_of = {0, 0, 1}});
}

/* ---- where it listens ---- */

static void only_there_thread(void *arg)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const unsigned char *bytes = nu_peers[1].addresses[0];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(nu_peers[1].address_lens[0] == 24 && !memcmp(bytes + 8, "\x7f\x00\x00\x02", 4));
	memcpy(&a.sin_port, bytes + 2, 2);
	CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) && errno == ECONNREFUSED);
	close(fd);
	transport_is(1, "tcp/lo", "tcp/lo");
	end_others();
}

Test(links, listens_on_its_address_alone)
{
	run_nodes(&(struct setup){2,
				  1,
				  {.transport = "auto", .address = "127.0.0.2"},
				  basic_handlers,
				  {only_there_thread},
				  .host_of = {0, 1}});
}

static void ipv6_thread(void *arg)
{
	CHECK(nu_peers[1].address_lens[0] == 24 && ((unsigned char *)nu_peers[1].addresses[0])[1] == 6);
	transport_is(1, "tcp/lo", "tcp/lo");
	end_others();
}

static bool has_ipv6(void)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a));

	if (fd >= 0)
		close(fd);
	return ok;
}

Test(links, ipv6)
{
	if (!has_ipv6())
		cr_skip_test("this machine has no address ::1");
	run_nodes(&(struct setup){2,
				  1,
				  {.transport = "auto", .address = "::1"},
				  basic_handlers,
				  {ipv6_thread},
				  .host_of = {0, 1}});
}

static int init_with(const char *transport, const char *address)
{
	int err = nu_wire_init(&(struct nu_wire_options){.transport = transport, .address = address});

	if (!err)
		nu_wire_fini();
	return err;
}

Test(links, options_that_cannot_be)
{
	node_init(0, 2, 1);
	nu_node.hosts = 2;
	nu_node.host_of[1] = 1;
	cr_expect_eq(init_with("auto", "198.51.100.1"), -EADDRNOTAVAIL);
	cr_expect_eq(init_with("auto", "localhost"), -EINVAL);
	cr_expect_eq(init_with("auto", "127.0.0.1.1"), -EINVAL);
	cr_expect_eq(init_with("tcp", "::1%nosuch0"), -EINVAL);
	cr_expect_eq(init_with("shm", "127.0.0.1"), -EINVAL);
	cr_expect_eq(init_with("auto", NULL), 0);
	cr_expect_eq(init_with("auto", ""), 0);
}

/* ---- blobs ---- */

static void start_alone(const char *transport)
{
	node_init(0, 3, 2);
	nu_node.hosts = 2;
	nu_node.host_of[0] = nu_node.host_of[1] = 0;
	nu_node.host_of[2] = 1;
	nu_log_level = NU_LOG_ERROR;
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = transport}));
}

/* A worker's address as @blob, which has none but of TCP, says it. */
static unsigned char *tcp_of(void *blob, unsigned core)
{
	return (unsigned char *)blob + 16 + 8 + core * (8 + 24) + 8;
}

Test(links, other_family)
{
	unsigned char *blob;
	size_t len;

	start_alone("tcp");
	cr_assert(!nu_wire_address((void **)&blob, &len));
	cr_assert_eq(len, 16 + 8 + 2 * (8 + 24));
	tcp_of(blob, 1)[1] = 6;
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EAFNOSUPPORT);
	tcp_of(blob, 1)[1] = 5;
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EBADMSG);
	tcp_of(blob, 1)[1] = 4;
	memset(tcp_of(blob, 1) + 2, 0, 2);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EBADMSG, "port 0");
	memset(tcp_of(blob, 1) + 2, 7, 2);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), 0);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EEXIST);
	cr_expect_eq(nu_wire_set_peer(3, blob, len), -EINVAL);
	free(blob);
	nu_wire_fini();
}

/* A peer that was started with another --transport. */
Test(links, link_that_the_peer_has_not)
{
	unsigned char *blob;
	size_t len;

	start_alone("tcp");
	cr_assert(!nu_wire_address((void **)&blob, &len));
	nu_wire_fini();
	start_alone("auto");
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EPROTO, "is on this host, and has TCP alone");
	cr_expect_eq(nu_wire_set_peer(2, blob, len), 0);
	free(blob);
	nu_wire_fini();
}

Test(links, blobs_cut_short_and_changed)
{
	unsigned char *blob, *copy;
	unsigned seed = 5, taken = 0;
	size_t len;

	start_alone("auto");
	cr_assert(!nu_wire_address((void **)&blob, &len));
	cr_assert(freopen("/dev/null", "w", stderr)); /* 10,000 lines that say so */
	copy = malloc(len + 8);
	for (size_t cut = 0; cut < len; cut++) {
		memcpy(copy, blob, cut);
		cr_expect_eq(nu_wire_set_peer(2, copy, cut), -EBADMSG);
	}
	memcpy(copy, blob, len);
	memset(copy + len, 0, 8);
	cr_expect_eq(nu_wire_set_peer(2, copy, len + 8), -EBADMSG);
	for (unsigned i = 0; i < 20000; i++) {
		memcpy(copy, blob, len);
		for (unsigned k = 0; k <= i % 3; k++)
			copy[(size_t)rand_r(&seed) % len] = (unsigned char)rand_r(&seed);
		if (!nu_wire_set_peer(2, copy, len)) {
			cr_assert(nu_peers[2].link == &nu_tcp_link && nu_peers[2].ncores <= NU_MAX_CORES);
			nu_peer_forget(&nu_peers[2]);
			taken++;
		}
	}
	cr_expect_gt(taken, 100);
	cr_expect_eq(nu_wire_set_peer(2, blob, len), 0);
	free(copy);
	free(blob);
	nu_wire_fini();
}
