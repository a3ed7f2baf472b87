/* SPDX-License-Identifier: MIT */
/* Shared memory between nodes: rings by themselves, strangers at the socket, rings that are full, no descriptor left. */
#include "wire_rig.h"

#include "rpc/shm_int.h"
#include "sched/sanitize.h"
#include "sched/sched_int.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BYTES 8192u
#define KEY   0x5ec2e7ull

Test(shm, ring_is_one_memory)
{
	struct nu_ring w, r;
	int fd, other;

	cr_assert_eq(nu_ring_create(&w, BYTES, &fd), 0);
	cr_assert_eq(nu_ring_attach(&r, fd), 0);
	cr_expect_eq(r.bytes, BYTES);
	memcpy(w.data + BYTES - 4, "over the end", 13); /* mapped twice in a row */
	cr_expect_eq(memcmp(r.data + BYTES - 4, "over", 4), 0);
	cr_expect_eq(memcmp(r.data, " the end", 9), 0);
	cr_expect_eq(nu_ring_attach(&(struct nu_ring){0}, fd), -EEXIST);
	nu_ring_unmap(&r);
	nu_ring_unmap(&w);
	nu_ring_unmap(&w);
	close(fd);
	other = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	cr_assert_eq(ftruncate(other, 4096 + BYTES), 0);
	cr_expect_eq(nu_ring_attach(&r, other), -EBADMSG, "its maker could take it away");
	cr_assert_eq(ftruncate(other, 4096 + BYTES + 8), 0);
	cr_assert_eq(fcntl(other, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	cr_expect_eq(nu_ring_attach(&r, other), -EBADMSG, "no power of two");
	close(other);
	other = open("/dev/null", O_RDWR);
	cr_expect_eq(nu_ring_attach(&r, other), -EBADMSG);
	close(other);
}

/* A batch is there once its first word is, whatever `tail` says; one that is said to be there and is not is a lie. */
Test(shm, what_is_published)
{
	struct worker w = {0};
	struct rx r = {.node = 1};
	struct nu_ring ring;
	int fd;

	nu_node.count = 2;
	cr_assert_eq(nu_ring_create(&ring, BYTES, &fd), 0);
	cr_assert_eq(nu_ring_attach(&r.ring, fd), 0);
	close(fd);
	cr_expect_eq(nu_ring_longest(&r.ring), BYTES - 8);
	cr_expect_eq(nu_ring_word(&r.ring, 0), 0);
	cr_expect(nu_shm_poll_rx(&w, &r));
	cr_expect_eq(w.handled, 0);
	cr_expect(nu_shm_is_sound(&w, &r), "nothing");
	r.head = r.seen = 64;
	cr_expect(nu_shm_is_sound(&w, &r), "we have read it before the writer has counted it");
	atomic_store(&ring.shared->tail, 128);
	cr_expect(!nu_shm_is_sound(&w, &r), "a batch without its beginning");
	atomic_store(&ring.shared->tail, 64 + BYTES + 8);
	cr_expect(!nu_shm_is_sound(&w, &r), "more than fits");
	atomic_store(&ring.shared->tail, 64 - BYTES - 8);
	cr_expect(!nu_shm_is_sound(&w, &r), "so far behind it cannot be");
	atomic_store(&ring.shared->tail, 64);
	cr_expect(nu_shm_is_sound(&w, &r));
	/* Longer than the ring, and not all of its header is there. */
	__atomic_store_n((uint64_t *)nu_ring_at(&ring, 64), (uint64_t)1 << 48 | NU_BATCH_MAGIC,
			 __ATOMIC_RELEASE);
	cr_expect(nu_shm_poll_rx(&w, &r));
	cr_expect_eq(w.handled, 0);
	atomic_store(&ring.shared->tail, 64 + sizeof(struct nu_batch));
	cr_expect(!nu_shm_poll_rx(&w, &r), "no batch of ours");
	nu_ring_unmap(&r.ring);
	nu_ring_unmap(&ring);
}

/* A greeting as shm.c has it, with a descriptor that is not worth having. */
static void greet(int s, const struct sockaddr_un *to, socklen_t len, uint64_t key, unsigned node, int fd)
{
	struct {
		uint32_t magic;
		uint16_t node, core;
		uint64_t key;
	} g = {0x3173754eu, (uint16_t)node, 0, key};
	struct iovec part = {&g, sizeof(g)};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct msghdr m = {(void *)to, len, &part, 1, &control, sizeof(control), 0};

	control.head = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	(void)!sendmsg(s, &m, MSG_DONTWAIT);
}

static void strangers_thread(void *arg)
{
	static unsigned char data[20000];
	const struct sockaddr_un *to = nu_peers[1].addresses[0];
	socklen_t len = (socklen_t)nu_peers[1].address_lens[0];
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

	CHECK(s >= 0 && fd >= 0);
	for (unsigned i = 0; i < 300; i++) {
		(void)!sendto(s, data, i, MSG_DONTWAIT, (const struct sockaddr *)to, len);
		greet(s, to, len, KEY + 1 + i, 0, fd);
		greet(s, to, len, KEY, i % 9, fd); /* one of us, out of its mind */
		if (i % 10 == 0)
			echo(1, 20 * i, data);
	}
	echo(1, sizeof(data), data);
	close(fd);
	close(s);
	end_others();
}

Test(shm, strangers_are_not_heard)
{
	run_nodes(
		&(struct setup){2, 1, {.transport = "shm", .key = KEY}, basic_handlers, {strangers_thread}});
}

/* Longer than a ring, and many at once: whoever writes waits for who reads. */
static void full_thread(void *arg)
{
	size_t max = 1 << 20;
	unsigned char *data = malloc(max + 8);

	CHECK(data);
	for (size_t len = 64; len <= max; len *= 4) {
		for (unsigned i = 0; i < 2; i++)
			echo(1 + i % 2, len + i, data);
	}
	free(data);
	end_others();
}

Test(shm, more_than_fits)
{
	run_nodes(&(struct setup){3, 1, {.transport = "shm"}, basic_handlers, {full_thread}});
}

static int gate[2];

/* What is behind this in the ring is not read before the gate opens. */
static void on_user(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	char c;

	if (m->node == OP_USER)
		CHECK(read(gate[0], &c, 1) == 1);
	else
		on_control(m, payload, len, from);
}

static void gate_handlers(void)
{
	basic_handlers();
	nu_wire_set_handler(NU_MSG_HINT, on_user);
}

static void gate_thread(void *arg)
{
	size_t len = 1 << 20;
	unsigned char *data = malloc(len);

	CHECK(data && !send_op(1, NU_MSG_HINT, OP_USER, 0, NULL, 0));
	echo(1, len, data);
	free(data);
	end_others();
}

/* The head of the ring whose writer waits for room; NULL: none does. Rings stay mapped. Another thread's, found in no order
 * that a sanitizer could see. */
static NU_NO_TSAN struct nu_ring_head *find_full(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	struct nu_ring_head *found = NULL;
	unsigned long at, offset;
	char line[512];

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (strstr(line, "memfd:nu-ring") && sscanf(line, "%lx-%*x %*s %lx", &at, &offset) == 2 &&
		    !offset && atomic_load(&((struct nu_ring_head *)at)->full))
			found = (struct nu_ring_head *)at;
	}
	if (f)
		fclose(f);
	return found;
}

#define AWAIT(e)                                                                                             \
	do {                                                                                                 \
		uint64_t end_ = nu_mono_ns() + 20000000000ull;                                               \
		while (!(e)) {                                                                               \
			CHECK(nu_mono_ns() < end_);                                                          \
			usleep(1000);                                                                        \
		}                                                                                            \
	} while (0)

/* Answers a writer as a reader does that had made room before the ring was filled again. */
static NU_NO_TSAN void hasty_reader(int from_parent, int to_parent)
{
	const struct sockaddr_un *to = nu_peers[0].addresses[0];
	socklen_t len = (socklen_t)nu_peers[0].address_lens[0];
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct nu_ring_head *h;

	CHECK(s >= 0);
	AWAIT((h = find_full()));
	for (unsigned i = 0; i < 100; i++) {
		atomic_store(&h->full, 0);
		CHECK(sendto(s, "", 1, 0, (const struct sockaddr *)to, len) == 1);
		AWAIT(atomic_load(&h->full)); /* it waits still, and says so */
	}
	CHECK(write(gate[1], "g", 1) == 1);
	close(s);
}

Test(shm, writer_that_was_woken_for_nothing)
{
	cr_assert(!pipe(gate));
	run_nodes(&(struct setup){
		2, 1, {.transport = "shm"}, gate_handlers, {gate_thread}, .outside = hasty_reader});
}

#define RETRIES 4u
static struct rlimit files;

/* Between the look at the links and the sleep, where timers run: a core that has to try again does not sleep. */
static void retry_is_due(void *arg)
{
	uint64_t end = nu_mono_ns() + 10000000000ull;
	static unsigned n;

	while (!nu_timers_run(nu_core_get()))
		CHECK(nu_mono_ns() < end);
	CHECK(nu_shm_link.arm(0) == -EBUSY);
	if (++n < RETRIES)
		CHECK(!nu_core_post(0, retry_is_due, NULL));
	else
		CHECK(!setrlimit(RLIMIT_NOFILE, &files));
}

/* No ring can be made at first: what is sent waits, and gets there. */
static void no_descriptor_thread(void *arg)
{
	static unsigned char data[100];
	struct rlimit none;

	CHECK(!getrlimit(RLIMIT_NOFILE, &files));
	none = (struct rlimit){0, files.rlim_max};
	CHECK(!setrlimit(RLIMIT_NOFILE, &none));
	fill(data, sizeof(data), 1);
	CHECK(!send_op(1, NU_MSG_HINT, OP_ECHO, 1, data, sizeof(data)));
	CHECK(!nu_core_post(0, retry_is_due, NULL)); /* after: it wants a timer to be set */
	event_wait(&answers, 1);
	CHECK(answer_len == sizeof(data) && answer_tag == 1);
	end_others();
}

Test(shm, no_descriptor_left)
{
	run_nodes(&(struct setup){2, 1, {.transport = "shm"}, basic_handlers, {no_descriptor_thread}});
}

/* Who reads writes into the words that we share, too: what it says of its place is no measure for what we copy. */
Test(shm, reader_that_says_nonsense)
{
	static const uint64_t heads[] = {1, 4096, 1 << 20, 1ull << 63};
	struct nu_buf *b = calloc(1, sizeof(*b) + (1 << 20));
	void *address, *ep;
	size_t len;

	nu_node.count = 2;
	nu_node.cores = 1;
	nu_node.self = 0;
	cr_assert(!nu_shm_link.init(NULL, NU_REACH_HOST) && !nu_shm_link.worker_create(0));
	cr_assert(!nu_shm_link.address(0, &address, &len));
	for (unsigned i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		struct nu_conn c = {.node = 1};
		struct tx *t;

		cr_assert(!nu_shm_link.connect(0, address, len, &c, &ep));
		t = ep;
		b->len_bytes = 1 << 20; /* larger than the ring */
		atomic_store(&t->ring.shared->head, t->tail + heads[i]);
		cr_expect_eq(nu_shm_link.send(ep, b), -EBADMSG, "%u", i);
		cr_expect_eq(t->tail, 0);
		nu_shm_link.close(0, ep);
	}
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), sizeof(heads) / sizeof(heads[0]));
	nu_shm_link.worker_destroy(0);
	free(address);
	free(b);
}
