/* SPDX-License-Identifier: MIT */
/*
 * The RDMA reader against a real device, which soft-RoCE in a virtual machine is. Each test forks two nodes: node 0 reads
 * what node 1 offers, and tells it through a socket what that shall be.
 */
#include <criterion/criterion.h>

#include "rdma/device.h"
#include "rdma/rdma.h"

#include "core/fault.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_S	  120
#define CHUNK	  (2 * NU_MIB) /* backing and registering is what takes longest */
#define SLOTS	  32
#define NODES	  2
#define KEY	  0x1234567890abcdefull
#define SEG_FIRST 8192u /* segments that extents are installed at */

#define CHECK(e)                                                                                             \
	do {                                                                                                 \
		if (!(e)) {                                                                                  \
			fprintf(stderr, "node %u: %s:%d: failed: %s\n", nu_node.self, __FILE__, __LINE__,    \
				#e);                                                                         \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

/* ---- what the two say to each other ---- */

enum op { CONNECT, OFFER, INSTALL, FILL, WITHDRAW, PUT, READ, COUNTS, FAULT, DEAD, END };

struct request {
	enum op op;
	unsigned slot;
	uint64_t len, tag;
	struct nu_offer_piece piece;
	char text[64];
};

struct answer {
	int ret;
	struct nu_offer_piece piece;
	struct nu_verbs_counts counts;
};

struct setup {
	const char *options;
	nu_thread_fn reader;
	uint64_t other_key; /* of node 1; 0: the same */
	bool other_job;	    /* node 1 has heard of another node 0 */
	bool dies;	    /* node 1 is killed */
};
static const struct setup *setup;
static int sock;
static int done_pipe[2];
static pid_t other_pid;
static struct nu_extent slots[SLOTS];

static void say(const void *what, size_t len)
{
	CHECK(write(sock, what, len) == (ssize_t)len);
}

static void hear(void *what, size_t len)
{
	CHECK(recv(sock, what, len, MSG_WAITALL) == (ssize_t)len);
}

static struct answer ask_all(struct request r)
{
	struct answer a;

	say(&r, sizeof(r));
	hear(&a, sizeof(a));
	return a;
}
#define ask(...) ask_all((struct request){__VA_ARGS__})

static unsigned char byte_of(uint64_t tag, uint64_t at)
{
	return (unsigned char)((at * 0x9e3779b97f4a7c15ull + tag * 0x2545f4914f6cdd1dull) >> 53);
}

static void fill(unsigned char *p, size_t len, uint64_t tag)
{
	for (size_t i = 0; i < len; i++)
		p[i] = byte_of(tag, i);
}

/* @p holds what the source has at @from. */
static bool same(const unsigned char *p, size_t len, uint64_t tag, size_t from)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != byte_of(tag, from + i))
			return false;
	}
	return true;
}

/* ---- node 1: serves ---- */

static void read_back(const struct request *r, struct answer *a)
{
	struct nu_extent e;
	struct nu_piece piece;

	CHECK(!nu_extent_get(r->len, true, true, &e));
	piece = (struct nu_piece){e.home, r->piece.address, r->len, r->piece.rkey, r->piece.lane};
	a->ret = nu_reader_verbs.read(0, &piece, 1);
	if (!a->ret && !same(e.home, r->len, r->tag, 0))
		a->ret = -EBADMSG;
	nu_extent_put(&e);
}

static void serve_one(const struct request *r, struct answer *a)
{
	struct nu_extent *e = &slots[r->slot];

	switch (r->op) {
	case CONNECT:
		a->ret = nu_verbs_connect(0);
		break;
	case OFFER:
		if (!e->home) {
			CHECK(!nu_extent_get(r->len, false, true, e));
			fill(e->at, r->len, r->tag);
		}
		a->ret = nu_verbs_offer(0, e, r->len, &a->piece);
		break;
	case INSTALL:
		a->ret = nu_extent_install(e, nu_seg_addr(SEG_FIRST + 64 * r->slot));
		break;
	case FILL:
		fill(e->at, r->len, r->tag);
		break;
	case WITHDRAW:
		nu_verbs_withdraw(0, &r->piece);
		break;
	case PUT:
		nu_extent_put(e);
		break;
	case READ:
		read_back(r, a);
		break;
	case COUNTS:
		nu_verbs_counts(&a->counts);
		break;
	case FAULT:
		a->ret = nu_fault_arm(r->text[0] ? r->text : NULL);
		break;
	case DEAD:
		nu_verbs_peer_dead(0);
		break;
	case END:
		break;
	}
}

static void serve(void *arg)
{
	struct request r;

	do {
		struct answer a = {0};

		hear(&r, sizeof(r));
		serve_one(&r, &a);
		say(&a, sizeof(a));
	} while (r.op != END);
	for (int i = 0; i < SLOTS; i++) {
		if (slots[i].home)
			nu_extent_put(&slots[i]);
	}
	CHECK(write(done_pipe[1], "d", 1) == 1);
}

static void read_all(void *arg)
{
	setup->reader(arg);
	if (!setup->dies)
		ask(.op = END);
	CHECK(write(done_pipe[1], "d", 1) == 1);
}

/* ---- a node ---- */

static struct nu_proclet own_proclet;

static void leave_arena(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	uintptr_t low, high;

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "bxf_arena") && sscanf(line, "%lx-%lx", &low, &high) == 2)
			CHECK(!munmap((void *)low, high - low));
	}
	if (f)
		fclose(f);
}

static void node_init(unsigned self)
{
	nu_node.self = self;
	nu_node.count = NODES;
	nu_node.cores = 2;
	own_proclet.id = nu_id_of_node(self);
	own_proclet.state = NU_PROCLET_PRESENT;
	nu_list_init(&own_proclet.threads);
	nu_list_init(&own_proclet.parked);
	nu_list_init(&own_proclet.held);
	nu_list_init(&own_proclet.output_waiters);
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	for (; d && readdir(d); n++)
		;
	if (d)
		closedir(d);
	return n;
}

static void exchange(void)
{
	void *mine;
	char other[512];
	size_t len;

	CHECK(!nu_verbs_card(&mine, &len));
	say(&len, sizeof(len));
	say(mine, len);
	free(mine);
	hear(&len, sizeof(len));
	CHECK(len <= sizeof(other));
	hear(other, len);
	if (setup->other_job && nu_node.self == 1)
		other[8] ^= 1; /* in its nonce */
	CHECK(!nu_verbs_set_peer(1 - nu_node.self, other, len));
}

static void run_node(unsigned self)
{
	struct nu_rdma_options o;
	struct nu_verbs_counts counts;
	char why[256], c;
	unsigned fds;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(LIMIT_S);
	CHECK(!pipe(done_pipe));
	leave_arena();
	node_init(self);
	CHECK(!nu_layout_init());
	CHECK(!nu_rdma_options_parse(setup->options, &o, why, sizeof(why)));
	/* Libraries keep what they opened first. */
	CHECK(!nu_verbs_open(&o, "", KEY));
	nu_verbs_close();
	fds = open_fds();
	CHECK(!nu_verbs_open(&o, "", self && setup->other_key ? setup->other_key : KEY));
	CHECK(!nu_pool_init(NU_GIB, CHUNK, 0, &nu_verbs_pool_ops));
	exchange();
	CHECK(!nu_sched_start(&own_proclet, self ? serve : read_all, NULL));
	CHECK(read(done_pipe[0], &c, 1) == 1);
	nu_verbs_stop();
	CHECK(!nu_sched_stop());
	nu_pool_fini();
	nu_verbs_close();
	nu_verbs_counts(&counts);
	CHECK(!counts.queue_pairs && !counts.regions && !counts.windows);
	CHECK(open_fds() == fds);
	fflush(NULL);
	_exit(0);
}

static void run(const struct setup *s)
{
	pid_t pids[NODES];
	int pair[2], status;

	setup = s;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (unsigned n = NODES; n--;) { /* node 0 last: it knows node 1's pid */
		pids[n] = fork();
		cr_assert(pids[n] >= 0);
		if (!pids[n]) {
			sock = pair[n];
			close(pair[1 - n]);
			other_pid = n ? 0 : pids[1];
			run_node(n);
		}
	}
	close(pair[0]);
	close(pair[1]);
	for (unsigned n = 0; n < NODES; n++) {
		cr_assert_eq(waitpid(pids[n], &status, 0), pids[n]);
		if (n == 1 && s->dies)
			cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		else
			cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "node %u: status %#x", n,
				  status);
	}
}

/* ---- what needs a device ---- */

static bool have_device(void)
{
	struct nu_rdma_options o = {.gid_index = -1};
	struct nu_rdma_devices list;
	struct nu_rdma_choice choice;
	static char why[512];
	bool have;

	if (nu_rdma_devices_list(&list, why, sizeof(why)))
		cr_skip_test("no RDMA device: %s", why);
	have = !nu_rdma_choose(&list, &o, "", &choice);
	snprintf(why, sizeof(why), "%s", choice.reason);
	nu_rdma_choice_free(&choice);
	nu_rdma_devices_free(&list);
	if (!have)
		cr_skip_test("no usable RDMA device: %s", why);
	return have;
}

#define VERBS_TEST(name, ...)                                                                                \
	Test(verbs, name, .timeout = LIMIT_S + 30)                                                           \
	{                                                                                                    \
		if (have_device())                                                                           \
			run(&(const struct setup){__VA_ARGS__});                                             \
	}

static struct nu_piece piece_of(const struct nu_offer_piece *o, size_t from, size_t len, void *to)
{
	return (struct nu_piece){to, o->address + from, len, o->rkey, o->lane};
}

static struct nu_verbs_counts counts_here(void)
{
	struct nu_verbs_counts c;

	nu_verbs_counts(&c);
	return c;
}

/* Queue pairs go when the service thread comes to it. */
static void expect_queue_pairs(uint64_t n)
{
	for (unsigned tries = 0; counts_here().queue_pairs != n && tries < 2000; tries++)
		nu_sleep_us(5000);
	CHECK(counts_here().queue_pairs == n);
}

/* One whole exchange: offered, read, compared, withdrawn. */
static void pull(unsigned slot, size_t len, uint64_t tag, struct nu_extent *to)
{
	struct answer a = ask(.op = OFFER, .slot = slot, .len = len, .tag = tag);
	struct nu_piece piece;

	CHECK(!a.ret);
	piece = piece_of(&a.piece, 0, len, to->home);
	memset(to->home, 0xee, to->len_bytes);
	CHECK(!nu_reader_verbs.read(1, &piece, 1));
	CHECK(same(to->home, len, tag, 0));
	CHECK(len == to->len_bytes || ((unsigned char *)to->home)[len] == 0xee);
	ask(.op = WITHDRAW, .piece = a.piece);
}

static void pull_once(void)
{
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	CHECK(!nu_extent_get(128 * NU_KIB, false, true, &e));
	pull(31, 100000, 31, &e);
	nu_extent_put(&e);
}

/* ---- tests ---- */

static void sizes(void *arg)
{
	static const size_t lens[] = {1,     2,	    63,	   4095,       4096,	   4097,
				      65535, 65536, 65537, NU_MIB - 1, NU_MIB + 17};
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		CHECK(!nu_extent_get(lens[i], false, true, &e));
		pull(i, lens[i], i + 1, &e);
		ask(.op = PUT, .slot = i);
		nu_extent_put(&e);
	}
}
VERBS_TEST(every_size, .options = "windows=off", .reader = sizes)
VERBS_TEST(every_size_by_windows, .options = "windows=on", .reader = sizes)
VERBS_TEST(every_size_by_one_shallow_queue_pair, .options = "qps=1,depth=1,read=64K,mtu=1024,spin=1",
	   .reader = sizes)

static void large(void *arg)
{
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	CHECK(!nu_extent_get(8 * NU_MIB, false, true, &e));
	pull(0, 8 * NU_MIB, 9, &e);
	nu_extent_put(&e);
}
VERBS_TEST(larger_than_a_chunk, .options = "", .reader = large)

#define FAR (256 * NU_KIB)
/* Many extents at once, whose parts lie anywhere; some of what is read together lies apart here. */
static void parts(void *arg)
{
	enum { N = 6 };
	const size_t len = 512 * NU_KIB - 333;
	struct nu_offer_piece offers[N];
	struct nu_extent to[N];
	struct nu_piece pieces[4 * N];
	unsigned n = 0;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < N; i++) {
		struct answer a = ask(.op = OFFER, .slot = i, .len = len, .tag = i);

		CHECK(!a.ret);
		offers[i] = a.piece;
		CHECK(!nu_extent_get(512 * NU_KIB, true, true, &to[i]));
		/* In the source's order, except that the last two change places here. */
		pieces[n++] = piece_of(&offers[i], 0, 777, to[i].home);
		pieces[n++] = piece_of(&offers[i], 777, 0, to[i].home);
		pieces[n++] = piece_of(&offers[i], 777, FAR, (char *)to[i].home + FAR);
		pieces[n++] = piece_of(&offers[i], FAR + 777, 100001, (char *)to[i].home + 1001);
	}
	CHECK(!nu_reader_verbs.read(1, pieces, n));
	for (unsigned i = 0; i < N; i++) {
		CHECK(same(to[i].home, 777, i, 0));
		CHECK(same((unsigned char *)to[i].home + FAR, FAR, i, 777));
		CHECK(same((unsigned char *)to[i].home + 1001, 100001, i, FAR + 777));
		CHECK(!((unsigned char *)to[i].home)[1000] && !((unsigned char *)to[i].home)[1001 + 100001]);
		ask(.op = WITHDRAW, .piece = offers[i]);
		nu_extent_put(&to[i]);
	}
	/* 777 + 256 KiB + 100001 in READs of at most 256 KiB: two each, with local pieces joined. */
	CHECK(counts_here().reads_posted == 2 * N);
}
VERBS_TEST(parts_and_scattered_pieces, .options = "windows=off,read=256K", .reader = parts)
VERBS_TEST(parts_and_scattered_pieces_by_windows, .options = "windows=on,read=256K", .reader = parts)

static struct nu_offer_piece shared_offer;
static atomic_uint reads_left;
#define SHARED_BYTES (512 * NU_KIB)

static void many_body(void *arg)
{
	uint64_t x = (uint64_t)arg * 0x9e3779b97f4a7c15ull;
	struct nu_extent e;

	CHECK(!nu_extent_get(256 * NU_KIB, false, true, &e));
	while (atomic_fetch_sub(&reads_left, 1) - 1 < 1u << 30) {
		struct nu_piece piece;
		size_t from, len;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		from = x >> 33 & (256 * NU_KIB - 1);
		len = 1 + (x >> 13 & (x & 3 ? 0xfff : 0x3ffff));
		piece = piece_of(&shared_offer, from, len, e.home);
		CHECK(!nu_reader_verbs.read(1, &piece, 1));
		CHECK(same(e.home, len, 5, from));
	}
	nu_extent_put(&e);
}

static void many(void *arg)
{
	struct nu_thread *t[16];
	struct answer a;

	CHECK(!nu_verbs_connect(1));
	a = ask(.op = OFFER, .slot = 0, .len = SHARED_BYTES, .tag = 5);
	CHECK(!a.ret);
	shared_offer = a.piece;
	atomic_store(&reads_left, 160);
	for (uintptr_t i = 0; i < 16; i++)
		CHECK(!nu_thread_spawn(many_body, (void *)(i + 1), &t[i]));
	for (unsigned i = 0; i < 16; i++)
		CHECK(!nu_thread_join(t[i]));
	ask(.op = WITHDRAW, .piece = a.piece);
}
VERBS_TEST(many_threads, .options = "windows=off", .reader = many)
VERBS_TEST(many_threads_by_windows, .options = "windows=on,qps=4", .reader = many)
VERBS_TEST(many_threads_and_no_spinning, .options = "qps=1,depth=4,spin=1", .reader = many)

/* As a migration does it: the source's pages are at a segment, what was read is installed at one and offered in turn. */
static void installed(void *arg)
{
	struct nu_offer_piece back;
	struct nu_piece piece;
	struct nu_extent e;
	struct answer a;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < 2; i++) {
		const size_t len = (128 * NU_KIB << i) - 5;

		a = ask(.op = OFFER, .slot = i, .len = len, .tag = 1);
		CHECK(!a.ret);
		CHECK(!ask(.op = INSTALL, .slot = i).ret);
		ask(.op = FILL, .slot = i, .len = len, .tag = 100 + i); /* written at the segment's address */
		CHECK(!nu_extent_get(len, false, true, &e));
		piece = piece_of(&a.piece, 0, len, e.home);
		CHECK(!nu_reader_verbs.read(1, &piece, 1));
		ask(.op = WITHDRAW, .piece = a.piece);
		CHECK(!nu_extent_install(&e, nu_seg_addr(SEG_FIRST + 64 * i)));
		CHECK(same(e.at, len, 100 + i, 0));
		fill(e.at, len, 200 + i);
		/* The other direction has queue pairs of its own. */
		CHECK(!ask(.op = CONNECT).ret);
		CHECK(!nu_verbs_offer(1, &e, len, &back));
		CHECK(ask(.op = READ, .len = len, .tag = 200 + i, .piece = back).ret == 0);
		nu_verbs_withdraw(1, &back);
		nu_extent_put(&e);
	}
}
VERBS_TEST(installed_by_mremap, .options = "windows=off", .reader = installed)
VERBS_TEST(installed_by_mremap_and_by_windows, .options = "windows=on", .reader = installed)

/* ---- what must not work ---- */

/* Of what was withdrawn nothing can be read by its window, and the queue pair that it breaks is made anew. */
static void withdrawn(void *arg)
{
	struct nu_verbs_counts before;
	struct nu_piece piece;
	struct nu_extent e;
	struct answer a;

	CHECK(!nu_extent_get(128 * NU_KIB, true, true, &e));
	for (unsigned i = 0; i < 2; i++) {
		pull_once();
		before = counts_here();
		a = ask(.op = OFFER, .slot = i, .len = 128 * NU_KIB, .tag = 3);
		CHECK(!a.ret);
		ask(.op = WITHDRAW, .piece = a.piece);
		piece = piece_of(&a.piece, 0, 4096, e.home);
		CHECK(nu_reader_verbs.read(1, &piece, 1) == -EPERM);
		CHECK(!((char *)e.home)[0] && !((char *)e.home)[4095]);
		CHECK(counts_here().broken > before.broken);
		/* What was offered on that connection is not good for the next. */
		CHECK(!nu_verbs_connect(1));
		CHECK(nu_reader_verbs.read(1, &piece, 1) < 0);
	}
	pull_once();
	nu_extent_put(&e);
}
VERBS_TEST(withdrawn_offers, .options = "windows=on", .reader = withdrawn)

static void wrong_rkey(void *arg)
{
	struct answer a;
	struct nu_piece piece;
	struct nu_extent e;

	pull_once();
	CHECK(!nu_extent_get(128 * NU_KIB, true, true, &e));
	a = ask(.op = OFFER, .slot = 0, .len = 128 * NU_KIB, .tag = 3);
	a.piece.rkey ^= 0x5a5a5a;
	piece = piece_of(&a.piece, 0, 128 * NU_KIB, e.home);
	CHECK(nu_reader_verbs.read(1, &piece, 1) == -EPERM);
	piece.local = (char *)&piece; /* not the pool's */
	CHECK(nu_reader_verbs.read(1, &piece, 1) == -EFAULT);
	pull_once();
	nu_extent_put(&e);
}
VERBS_TEST(a_wrong_key_of_memory, .options = "", .reader = wrong_rkey)

static void stranger(void *arg)
{
	CHECK(nu_verbs_connect(1) == -EACCES);
	CHECK(ask(.op = COUNTS).counts.refused == 2);
	CHECK(ask(.op = CONNECT).ret == -EACCES);
	CHECK(counts_here().refused == 2);
	expect_queue_pairs(0);
}
VERBS_TEST(another_secret_is_refused, .options = "qps=2", .reader = stranger, .other_key = KEY + 1)
VERBS_TEST(another_job_is_refused, .options = "qps=2", .reader = stranger, .other_job = true)

/* ---- what goes wrong ---- */

static void completions_fail(void *arg)
{
	struct nu_extent e;
	struct answer a;
	struct nu_piece piece;

	CHECK(!nu_extent_get(NU_MIB, true, true, &e));
	for (unsigned nth = 1; nth <= 4; nth++) {
		char rule[64];

		pull_once();
		a = ask(.op = OFFER, .slot = nth, .len = NU_MIB, .tag = nth);
		CHECK(!a.ret);
		piece = piece_of(&a.piece, 0, NU_MIB, e.home);
		/* The first is always reached; later ones only if there are so many completions. */
		snprintf(rule, sizeof(rule), "%s#1:error=%d", nth & 1 ? "rdma.complete" : "rdma.post", EIO);
		CHECK(!nu_fault_arm(rule));
		CHECK(nu_reader_verbs.read(1, &piece, 1) == -EIO);
		CHECK(!nu_fault_arm(NULL));
		ask(.op = WITHDRAW, .piece = a.piece);
		CHECK(!nu_verbs_connect(1));
		pull(10 + nth, NU_MIB, nth, &e);
	}
	CHECK(counts_here().broken == 4);
	nu_extent_put(&e);
}
VERBS_TEST(reads_that_fail, .options = "windows=off,read=64K", .reader = completions_fail)
VERBS_TEST(reads_that_fail_by_windows, .options = "windows=on,read=64K", .reader = completions_fail)

static void connections_fail(void *arg)
{
	CHECK(!ask(.op = FAULT, .text = "rdma.connect:error=1").ret);
	CHECK(nu_verbs_connect(1) == -EACCES);
	CHECK(!ask(.op = FAULT).ret);
	pull_once();
	/* One of two is enough, and the other is made when it can be. */
	CHECK(!ask(.op = FAULT, .text = "rdma.bind#1:error=5").ret);
	CHECK(ask(.op = OFFER, .slot = 0, .len = 4096, .tag = 1).ret == -EIO);
	CHECK(!ask(.op = FAULT).ret);
	pull_once();
}
VERBS_TEST(connections_and_windows_that_fail, .options = "windows=on", .reader = connections_fail)

static void registration_fails(void *arg)
{
	struct nu_extent e;

	CHECK(!nu_fault_arm("rdma.register#1:error=12"));
	CHECK(nu_extent_get(4 * NU_MIB, false, true, &e) == -ENOMEM);
	CHECK(!nu_fault_arm(NULL));
	CHECK(!nu_extent_get(4 * NU_MIB, false, true, &e));
	nu_extent_put(&e);
	pull_once();
}
VERBS_TEST(a_registration_that_fails, .options = "", .reader = registration_fails)

/* Both ends are made and broken again and again: what there is stays what it was. */
static void no_leaks(void *arg)
{
	struct nu_verbs_counts here = {0}, there = {0}, now;
	unsigned fds = 0;

	for (unsigned i = 0; i < 8; i++) {
		struct answer a;
		struct nu_piece piece;
		struct nu_extent e;

		pull_once();
		expect_queue_pairs(2);
		if (i == 1) {
			here = counts_here();
			there = ask(.op = COUNTS).counts;
			fds = open_fds();
		}
		CHECK(!nu_extent_get(128 * NU_KIB, true, true, &e));
		a = ask(.op = OFFER, .slot = 0, .len = 128 * NU_KIB, .tag = 1);
		CHECK(!a.ret);
		if (i & 1)
			a.piece.rkey ^= 0x5a5a5a;
		else
			CHECK(!nu_fault_arm("rdma.complete#1:error=5"));
		piece = piece_of(&a.piece, 0, 128 * NU_KIB, e.home);
		CHECK(nu_reader_verbs.read(1, &piece, 1) < 0);
		CHECK(!nu_fault_arm(NULL));
		a.piece.rkey ^= i & 1 ? 0x5a5a5a : 0;
		ask(.op = WITHDRAW, .piece = a.piece);
		nu_extent_put(&e);
	}
	pull_once();
	expect_queue_pairs(2);
	now = counts_here();
	CHECK(now.regions == here.regions && now.windows == here.windows && open_fds() == fds);
	CHECK(now.broken >= 8);
	for (unsigned tries = 0; (now = ask(.op = COUNTS).counts).queue_pairs != 2 && tries < 2000; tries++)
		nu_sleep_us(5000);
	CHECK(now.queue_pairs == 2 && now.regions == there.regions);
}
VERBS_TEST(nothing_leaks, .options = "windows=on", .reader = no_leaks)

static void kill_body(void *arg)
{
	uint64_t before = counts_here().completions;

	while (counts_here().completions < before + 3) /* in the middle of it */
		nu_yield();
	CHECK(!kill(other_pid, SIGKILL));
}

static void peer_killed(void *arg)
{
	struct nu_piece pieces[4];
	struct nu_extent to[4];
	struct nu_thread *t;
	int ret = 0;

	pull_once();
	for (unsigned i = 0; i < 4; i++) {
		struct answer a = ask(.op = OFFER, .slot = i, .len = 2 * NU_MIB, .tag = 1);

		CHECK(!a.ret);
		CHECK(!nu_extent_get(2 * NU_MIB, true, true, &to[i]));
		pieces[i] = piece_of(&a.piece, 0, 2 * NU_MIB, to[i].home);
	}
	CHECK(!nu_thread_spawn(kill_body, NULL, &t));
	while (!ret)
		ret = nu_reader_verbs.read(1, pieces, 4);
	CHECK(ret == -EIO);
	CHECK(!nu_thread_join(t));
	/* Nothing arrives any more. */
	for (unsigned i = 0; i < 4; i++)
		memset(to[i].home, 0x77, to[i].len_bytes);
	atomic_store(&nu_node.dead[1], true);
	nu_verbs_peer_dead(1);
	CHECK(nu_reader_verbs.read(1, pieces, 4) == -EHOSTDOWN);
	CHECK(nu_verbs_connect(1) == -EHOSTDOWN);
	expect_queue_pairs(0);
	for (unsigned i = 0; i < 4; i++) {
		for (size_t at = 0; at < to[i].len_bytes; at += 512)
			CHECK(((unsigned char *)to[i].home)[at] == 0x77);
		nu_extent_put(&to[i]);
	}
}
VERBS_TEST(a_peer_that_is_killed, .options = "read=64K", .reader = peer_killed, .dies = true)

/* The source is told that the reader is dead while it reads: when that returns, nothing more is read. */
static void cut_off_body(void *arg)
{
	uint64_t before = counts_here().completions;

	while (counts_here().completions < before + 1)
		nu_yield();
	ask(.op = DEAD);
	ask(.op = FILL, .slot = 0, .len = 2 * NU_MIB, .tag = 2);
}

static void cut_off(void *arg)
{
	struct nu_piece piece;
	struct nu_extent e;
	struct nu_thread *t;
	struct answer a;
	size_t n = 0;

	CHECK(!nu_verbs_connect(1));
	a = ask(.op = OFFER, .slot = 0, .len = 2 * NU_MIB, .tag = 1);
	CHECK(!a.ret);
	CHECK(!nu_extent_get(2 * NU_MIB, true, true, &e));
	piece = piece_of(&a.piece, 0, 2 * NU_MIB, e.home);
	CHECK(!nu_thread_spawn(cut_off_body, NULL, &t));
	CHECK(nu_reader_verbs.read(1, &piece, 1) < 0);
	CHECK(!nu_thread_join(t));
	/* Every byte is as it was before, or was not read. */
	for (size_t at = 0; at < e.len_bytes; at++) {
		unsigned char b = ((unsigned char *)e.home)[at];

		CHECK(b == byte_of(1, at) || !b);
		n += b != 0;
	}
	CHECK(n);
	pull_once(); /* it lives after all */
	nu_extent_put(&e);
}
VERBS_TEST(a_reader_that_is_cut_off, .options = "windows=off,read=64K,qps=1", .reader = cut_off)
VERBS_TEST(a_reader_that_is_cut_off_by_windows, .options = "windows=on,read=64K,qps=1", .reader = cut_off)

/* Reading costs nothing while it waits: others' threads run. */
static atomic_bool stop_counting;
static void count_body(void *arg)
{
	unsigned long *n = arg;

	while (!atomic_load(&stop_counting)) {
		(*n)++;
		nu_yield();
	}
}

static void shares(void *arg)
{
	static unsigned long n[2];
	struct nu_thread *t[2];
	struct nu_verbs_counts c;
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	for (unsigned i = 0; i < 2; i++)
		CHECK(!nu_thread_spawn(count_body, &n[i], &t[i]));
	CHECK(!nu_extent_get(4 * NU_MIB, false, true, &e));
	pull(0, 4 * NU_MIB, 1, &e);
	atomic_store(&stop_counting, true);
	for (unsigned i = 0; i < 2; i++)
		CHECK(!nu_thread_join(t[i]));
	c = counts_here();
	CHECK(c.sleeps && n[0] && n[1]);
	nu_extent_put(&e);
}
VERBS_TEST(others_run_meanwhile, .options = "spin=1", .reader = shares)
