/* SPDX-License-Identifier: MIT */
/*
 * The nodes' own TCP ports: what a peer, or a stranger, says there. Input: connections, each with a greeting that is
 * right but for what the input changes, and bytes behind it in which batches' headers are put right at times.
 */
#include "node_rig.h"
#include "rpc/wire_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4

static struct sockaddr_in port;

struct greeting {
	uint32_t magic;
	uint16_t node, core;
	uint64_t key;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	void *address;
	size_t len;

	rig_start("tcp");
	/* Family, port, 4 bytes, IPv4. */
	FUZZ_CHECK(!nu_links[0]->address(0, &address, &len) && len == 24);
	port.sin_family = AF_INET;
	memcpy(&port.sin_port, (char *)address + 2, 2);
	memcpy(&port.sin_addr, (char *)address + 8, 4);
	free(address);
	return 0;
}

static size_t fill(struct in *in, char *to, size_t max)
{
	uint8_t flags = in_u8(in);
	struct greeting g = {0x3174754eu, 1, in_u8(in) & 3, RIG_KEY};
	size_t used = 0;

	if (flags & 1)
		in_take(in, &g, in_u8(in) % sizeof(g));
	memcpy(to, &g, sizeof(g));
	used += sizeof(g);
	for (unsigned n = flags >> 4; n && in->left && used + sizeof(struct nu_batch) + 256 < max; n--) {
		uint8_t how = in_u8(in), len = in_u8(in) & 0xf8;
		struct nu_batch h = {.magic = NU_BATCH_MAGIC,
				     .len_bytes = (uint32_t)(sizeof(h) + len),
				     .key = RIG_KEY,
				     .node = g.node,
				     .core = g.core};

		if (how & 1)
			h.seq = in_u8(in);
		if (how & 2)
			h.flags = in_u8(in);
		if (how & 4)
			h.len_bytes = in_u32(in);
		if (how & 8)
			h.ack = in_u8(in);
		if (how & 16)
			h.ack_core = in_u8(in);
		if (how & 32)
			in_take(in, &h, in_u8(in) % sizeof(h));
		memcpy(to + used, &h, sizeof(h));
		used += sizeof(h);
		in_take(in, to + used, len);
		if (len >= sizeof(struct nu_msg) && how & 64) {
			struct nu_msg m = {.len_bytes = len,
					   .type = NU_MSG_HINT,
					   .target = RIG_REMOTE,
					   .origin = 1};

			memcpy(to + used, &m, sizeof(m));
		}
		used += len;
	}
	return flags & 2 ? used - in_u8(in) % (used + 1) : used;
}

static bool hung_up_on(int fd)
{
	char buf[4096];
	struct pollfd p = {fd, POLLIN, 0};

	for (int ready; (ready = poll(&p, 1, 10000));) {
		if (ready < 0 && errno == EINTR) /* libFuzzer's alarm */
			continue;
		if (ready < 0)
			break;
		if (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) <= 0)
			return true;
	}
	return false;
}

/* From an address of its own: closed connections keep their ports for a minute, and one address has 28,000. */
static int dial(void)
{
	static uint32_t dialled;
	struct sockaddr_in from = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(0x7f010001 + dialled++ % 60000)};
	struct linger now = {1, 0};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	FUZZ_CHECK(fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	FUZZ_CHECK(!setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)));
	FUZZ_CHECK(!bind(fd, (struct sockaddr *)&from, sizeof(from)));
	if (connect(fd, (struct sockaddr *)&port, sizeof(port))) {
		struct pollfd p = {fd, POLLOUT, 0};

		FUZZ_CHECK(errno == EINTR); /* libFuzzer's alarm: it goes on connecting */
		while (poll(&p, 1, 10000) < 0)
			FUZZ_CHECK(errno == EINTR);
		FUZZ_CHECK(p.revents & POLLOUT);
	}
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char bytes[16384];
	struct in in = {data, len};
	int fds[CONNECTIONS_MAX];
	unsigned n = 0;

	while (n < CONNECTIONS_MAX && in.left) {
		size_t used = fill(&in, bytes, sizeof(bytes)), half = in_u8(&in) % (used + 1);

		fds[n] = dial();
		(void)!send(fds[n], bytes, half, MSG_NOSIGNAL);
		(void)!send(fds[n], bytes + half, used - half, MSG_NOSIGNAL);
		shutdown(fds[n++], SHUT_WR);
	}
	while (n) {
		FUZZ_CHECK(hung_up_on(fds[--n]));
		close(fds[n]);
	}
	rig_settle(false);
	return 0;
}
