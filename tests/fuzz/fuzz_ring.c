/* SPDX-License-Identifier: MIT */
/*
 * Shared memory between the nodes of a host: what a peer, or a stranger, gives a core there. Input: rings, each with a
 * greeting and a descriptor that are right but for what the input changes, bytes in it whose batches' headers are put
 * right at times, and what is then published, woken and written into the words that both sides share.
 */
#include "node_rig.h"
#include "rpc/shm_int.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RINGS_MAX  3u
#define HEAD_BYTES 4096u
#define RING_BYTES 8192u
#define BOUND_NS   10000000000ull

static struct sockaddr_un door;
static socklen_t door_len;
static int sock = -1;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	void *address;
	size_t len;

	rig_start("shm");
	FUZZ_CHECK(nu_links[0] == &nu_shm_link && !nu_shm_link.address(0, &address, &len));
	memcpy(&door, address, len);
	door_len = (socklen_t)len;
	free(address);
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	FUZZ_CHECK(sock >= 0 && !bind(sock, (struct sockaddr *)&any, sizeof(any.sun_family)));
	/* What the node sends to its peers comes to us, and nobody reads it. */
	for (unsigned n = 1; n < nu_node.count; n++) {
		struct sockaddr_un ours;
		socklen_t ours_len = sizeof(ours);

		FUZZ_CHECK(!getsockname(sock, (struct sockaddr *)&ours, &ours_len));
		FUZZ_CHECK(!nu_wire_peer_address(n, NULL, ours_len, &ours));
	}
	return 0;
}

static void give(const struct greeting *g, size_t len, int fd)
{
	struct iovec part = {(void *)g, len};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct msghdr m = {.msg_name = &door, .msg_namelen = door_len, .msg_iov = &part, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		control.head = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
	}
	FUZZ_CHECK(sendmsg(sock, &m, 0) == (ssize_t)len);
}

static void wake(void)
{
	FUZZ_CHECK(sendto(sock, "", 1, 0, (struct sockaddr *)&door, door_len) == 1);
}

/* The node's own rings are taken, and what it says is read, by who does not listen. */
static void read_all(void)
{
	static struct nu_ring rings[8];
	static unsigned n;
	struct greeting g;
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {&g, sizeof(g)};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	int fd;

	for (;;) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		if (recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
			break;
		if (!CMSG_FIRSTHDR(&m))
			continue;
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
		FUZZ_CHECK(n < sizeof(rings) / sizeof(rings[0]));
		n += !nu_ring_attach(&rings[n], fd);
		close(fd);
	}
	for (unsigned i = 0; i < n; i++)
		atomic_store(&rings[i].shared->head, atomic_load(&rings[i].shared->tail));
}

/* All datagrams have been taken, and what they brought has been looked at. */
static void settle(void)
{
	uint64_t end = nu_mono_ns() + BOUND_NS;
	int left = 1;

	while (!ioctl(sock, SIOCOUTQ, &left) && left) {
		FUZZ_CHECK(nu_mono_ns() < end);
		usleep(10);
	}
	rig_settle(false);
	read_all();
}

/* ---- what lies in a ring ---- */

static size_t fill(struct in *in, char *to, size_t max, uint16_t node, uint16_t core)
{
	size_t used = 0;

	for (unsigned n = in_u8(in) & 7; n && in->left && used + sizeof(struct nu_batch) + 256 < max; n--) {
		uint8_t how = in_u8(in), len = in_u8(in) & 0xf8;
		struct nu_batch h = {.magic = NU_BATCH_MAGIC,
				     .len_bytes = (uint32_t)(sizeof(h) + len),
				     .key = RIG_KEY,
				     .node = node,
				     .core = core};

		if (how & 1)
			h.seq = in_u8(in);
		if (how & 2)
			h.flags = in_u8(in) & NU_BATCH_FLAGS & (uint8_t)~NU_BATCH_BYE;
		if (how & 4)
			h.len_bytes = in_u32(in);
		if (how & 8)
			h.len_bytes = sizeof(h) + (in_u16(in) & 0xfff8u); /* longer than the ring */
		if (how & 32)
			in_take(in, &h, in_u8(in) % sizeof(h));
		memcpy(to + used, &h, sizeof(h));
		used += sizeof(h);
		in_take(in, to + used, len);
		if (len >= sizeof(struct nu_msg) && how & 64) {
			struct nu_msg m = {.len_bytes = len,
					   .type = NU_MSG_HINT,
					   .target = RIG_REMOTE,
					   .origin = node};

			memcpy(to + used, &m, sizeof(m));
		}
		used += len;
	}
	return used;
}

/* Memory as a peer makes it, unless the input makes it otherwise. */
static int make(struct in *in, uint8_t how, size_t *bytes_p)
{
	size_t bytes = RING_BYTES;
	int fd, seals = F_SEAL_SHRINK | F_SEAL_GROW;

	if (how & 1)
		bytes = (size_t)in_u16(in) * (how & 2 ? 1 : 512);
	if (how & 4)
		seals = in_u8(in) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	FUZZ_CHECK(fd >= 0 && !ftruncate(fd, (off_t)(HEAD_BYTES + bytes)));
	FUZZ_CHECK(!seals || !fcntl(fd, F_ADD_SEALS, seals));
	*bytes_p = bytes;
	return fd;
}

static struct nu_ring_head *map(int fd, size_t bytes)
{
	void *at = mmap(NULL, HEAD_BYTES + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	FUZZ_CHECK(at != MAP_FAILED);
	return at;
}

/* Publishes, step by step, and writes into the shared words. */
static void play(struct in *in, struct nu_ring_head *s, const char *bytes, size_t used, size_t ring_bytes)
{
	char *data = (char *)s + HEAD_BYTES;
	size_t at = 0;

	for (unsigned steps = in_u8(in) & 7; steps && ring_bytes; steps--) {
		uint8_t how = in_u8(in);
		size_t n = how & 1 ? in_u16(in) % (used - at + 1) : used - at;

		for (size_t i = 0; i < n; i++)
			data[(atomic_load(&s->tail) + i) % ring_bytes] = bytes[at + i];
		at += n;
		atomic_fetch_add(&s->tail, n);
		if (how & 2)
			atomic_store(&s->full, in_u8(in));
		if (how & 4)
			atomic_store(&s->ended, in_u8(in) & 1);
		if (how & 8)
			atomic_store(&s->tail, in_number(in));
		if (how & 16)
			atomic_store(&s->head, in_number(in));
		if (how & 32)
			atomic_store(&s->asleep, in_u8(in));
		if (how & 64)
			wake();
		if (how & 128)
			settle();
	}
}

/* Nothing of it stays for the next input: more than fits there is refused. */
static void end_ring(struct nu_ring_head *s, size_t ring_bytes)
{
	uint64_t end = nu_mono_ns() + BOUND_NS;

	while (atomic_load(&s->attached) == 1 && !atomic_load(&s->deaf)) {
		FUZZ_CHECK(nu_mono_ns() < end);
		atomic_store(&s->tail, atomic_load(&s->tail) + 4 * ring_bytes);
		wake();
		settle();
	}
	FUZZ_CHECK(!munmap(s, HEAD_BYTES + ring_bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char bytes[RING_BYTES];
	struct in in = {data, len};

	for (unsigned r = 0; r < RINGS_MAX && in.left; r++) {
		uint8_t how = in_u8(&in);
		struct greeting g = {NU_SHM_GREETING_MAGIC, (uint16_t)(1 + (in_u8(&in) & 1)), 0, RIG_KEY};
		size_t g_len = sizeof(g), ring_bytes, used;
		struct nu_ring_head *s;
		int fd = make(&in, how, &ring_bytes);

		s = map(fd, ring_bytes);
		if (how & 8)
			in_take(&in, &g, in_u8(&in) % sizeof(g));
		if (how & 16)
			g_len = in_u8(&in) % (sizeof(g) + 1);
		used = fill(&in, bytes, sizeof(bytes), g.node, g.core);
		if (how & 32)
			play(&in, s, bytes, used, ring_bytes); /* before it is given */
		give(&g, g_len, how & 128 ? -1 : fd);
		if (how & 64)
			give(&g, g_len, fd); /* twice */
		close(fd);
		play(&in, s, bytes, used, ring_bytes);
		settle();
		if (ring_bytes)
			end_ring(s, ring_bytes);
		else
			munmap(s, HEAD_BYTES);
	}
	settle();
	return 0;
}
