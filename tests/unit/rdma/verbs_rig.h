/* SPDX-License-Identifier: MIT */
/*
 * A rig for tests of the RDMA reader against a real device, which soft-RoCE in a virtual machine is. Each test forks two
 * nodes: node 0 reads what node 1 offers, and tells it through a socket what that shall be.
 */
#pragma once

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

static inline void say(const void *what, size_t len)
{
	CHECK(write(sock, what, len) == (ssize_t)len);
}

static inline void hear(void *what, size_t len)
{
	CHECK(recv(sock, what, len, MSG_WAITALL) == (ssize_t)len);
}

static inline struct answer ask_all(struct request r)
{
	struct answer a;

	say(&r, sizeof(r));
	hear(&a, sizeof(a));
	return a;
}
#define ask(...) ask_all((struct request){__VA_ARGS__})

static inline unsigned char byte_of(uint64_t tag, uint64_t at)
{
	return (unsigned char)((at * 0x9e3779b97f4a7c15ull + tag * 0x2545f4914f6cdd1dull) >> 53);
}

static inline void fill(unsigned char *p, size_t len, uint64_t tag)
{
	for (size_t i = 0; i < len; i++)
		p[i] = byte_of(tag, i);
}

/* @p holds what the source has at @from. */
static inline bool same(const unsigned char *p, size_t len, uint64_t tag, size_t from)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != byte_of(tag, from + i))
			return false;
	}
	return true;
}

/* ---- node 1: serves ---- */

static inline void read_back(const struct request *r, struct answer *a)
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

static inline void serve_one(const struct request *r, struct answer *a)
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

static inline void serve(void *arg)
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

static inline void read_all(void *arg)
{
	setup->reader(arg);
	if (!setup->dies)
		ask(.op = END);
	CHECK(write(done_pipe[1], "d", 1) == 1);
}

/* ---- a node ---- */

static struct nu_proclet own_proclet;

static inline void leave_arena(void)
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

static inline void node_init(unsigned self)
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

static inline unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	for (; d && readdir(d); n++)
		;
	if (d)
		closedir(d);
	return n;
}

static inline void exchange(void)
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

static inline void run_node(unsigned self)
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

static inline void run(const struct setup *s)
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

static inline bool have_device(void)
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

static inline struct nu_piece piece_of(const struct nu_offer_piece *o, size_t from, size_t len, void *to)
{
	return (struct nu_piece){to, o->address + from, len, o->rkey, o->lane};
}

static inline struct nu_verbs_counts counts_here(void)
{
	struct nu_verbs_counts c;

	nu_verbs_counts(&c);
	return c;
}

/* Queue pairs go when the service thread comes to it. */
static inline void expect_queue_pairs(uint64_t n)
{
	for (unsigned tries = 0; counts_here().queue_pairs != n && tries < 2000; tries++)
		nu_sleep_us(5000);
	CHECK(counts_here().queue_pairs == n);
}

/* One whole exchange: offered, read, compared, withdrawn. */
static inline void pull(unsigned slot, size_t len, uint64_t tag, struct nu_extent *to)
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

static inline void pull_once(void)
{
	struct nu_extent e;

	CHECK(!nu_verbs_connect(1));
	CHECK(!nu_extent_get(128 * NU_KIB, false, true, &e));
	pull(31, 100000, 31, &e);
	nu_extent_put(&e);
}
