/* SPDX-License-Identifier: MIT */
/*
 * A rig of nodes for tests of the wire: each test forks its nodes, which exchange their addresses through pipes and
 * then talk over shared memory or loopback TCP.
 */
#pragma once

#include "rpc/rpc_int.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NODES_MAX 3u
#define LIMIT_S	  60

/* UCX reads these in its constructor, before any code of ours: they must be there when the program starts. */
__attribute__((constructor)) static void with_environment(int argc, char **argv)
{
	if (getenv("UCX_MEM_EVENTS"))
		return;
	setenv("UCX_MEM_EVENTS", "n", 1);
	setenv("UCX_VFS_ENABLE", "n", 1);
	execv("/proc/self/exe", argv);
	_exit(127);
}

/* ---- a node ---- */

#define CHECK(e)                                                                                             \
	do {                                                                                                 \
		if (!(e)) {                                                                                  \
			fprintf(stderr, "node %u: %s:%d: failed: %s\n", nu_node.self, __FILE__, __LINE__,    \
				#e);                                                                         \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

struct setup {
	unsigned nodes, cores;
	struct nu_wire_options wire;
	void (*handlers)(void);
	nu_thread_fn thread[NODES_MAX]; /* first thread of each node; NULL: serves until told to end */
	void (*outside)(int parent, int to_parent); /* on the node 0's main thread, instead of just waiting */
	unsigned cores_of_others;		    /* than node 0; 0: as many */
	uint8_t host_of[NODES_MAX];
	void (*before)(unsigned self, struct nu_wire_options *o); /* in the new node */
};

/* Something that a thread waits for and handlers bring about. */
struct event {
	struct nu_lock lock;
	struct nu_thread *waiter;
	long count;
};

static void event_add(struct event *e, long n)
{
	struct nu_thread *t = NULL;

	nu_lock_acquire(&e->lock);
	e->count += n;
	if (e->count > 0) {
		t = e->waiter;
		e->waiter = NULL;
	}
	nu_lock_release(&e->lock);
	if (t)
		nu_thread_ready(t);
}

/* Waits until @n have been added since the last wait. */
static inline void event_wait(struct event *e, long n)
{
	nu_lock_acquire(&e->lock);
	e->count -= n - 1;
	if (e->count > 0) {
		nu_lock_release(&e->lock);
	} else {
		e->waiter = nu_thread_self();
		nu_thread_block(NU_WAIT_OTHER, &e->lock);
	}
	nu_lock_acquire(&e->lock);
	e->count--;
	nu_lock_release(&e->lock);
}

static struct event answers, arrivals;
static int done_pipe[2];

static void node_done(void)
{
	CHECK(write(done_pipe[1], "d", 1) == 1);
}

static const struct setup *current;

static void first_thread(void *arg)
{
	current->thread[nu_node.self](arg);
	node_done();
}

static inline void idle_thread(void *arg)
{
}

/* END: the node that gets it leaves. */
#define OP_ECHO	 1
#define OP_END	 2
#define OP_COUNT 3
#define OP_USER	 10

static int send_op(unsigned node, enum nu_msg_type type, uint64_t op, uint64_t tag, const void *data,
		   size_t len)
{
	struct nu_msg m = {
		.type = type, .cls = NU_CLASS_CONTROL, .origin = nu_node.self, .node = op, .location = tag};
	struct iovec parts[2] = {{(void *)data, len / 3}, {(char *)data + len / 3, len - len / 3}};

	return nu_wire_send(node, &m, parts, 2);
}

static inline void end_others(void)
{
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (n != nu_node.self)
			(void)!send_op(n, NU_MSG_HINT, OP_END, 0, NULL, 0);
	}
}

/* Any text that depends on (tag, offset). */
static inline void fill(unsigned char *to, size_t len, uint64_t tag)
{
	uint64_t x = tag * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		to[i] = (unsigned char)(x >> 56);
	}
}

static inline bool same(const unsigned char *p, size_t len, uint64_t tag)
{
	uint64_t x = tag * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		if (p[i] != (unsigned char)(x >> 56))
			return false;
	}
	return true;
}

static size_t answer_len;
static uint64_t answer_tag;

static void on_control(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(!((uintptr_t)payload & 7));
	switch (m->node) {
	case OP_ECHO:
		CHECK(same(payload, len, m->location));
		CHECK(!send_op(from, NU_MSG_REPLY, OP_ECHO, m->location, payload, len));
		break;
	case OP_END:
		node_done();
		break;
	case OP_COUNT:
		event_add(&arrivals, 1);
		break;
	default:
		CHECK(!"known operation");
	}
}

static void on_reply(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(same(payload, len, m->location));
	answer_len = len;
	answer_tag = m->location;
	event_add(&answers, 1);
}

static inline void basic_handlers(void)
{
	nu_wire_set_handler(NU_MSG_HINT, on_control);
	nu_wire_set_handler(NU_MSG_REPLY, on_reply);
}

static inline void echo(unsigned node, size_t len, unsigned char *data)
{
	static uint64_t tag;

	fill(data, len, ++tag);
	CHECK(!send_op(node, NU_MSG_HINT, OP_ECHO, tag, data, len));
	event_wait(&answers, 1);
	CHECK(answer_len == len && answer_tag == tag);
}

static void read_all(int fd, void *to, size_t len)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = read(fd, (char *)to + got, len - got);

		CHECK(n > 0);
		got += (size_t)n;
	}
}

/* Every node writes its address to each other node's pipe; sizes are below what a pipe holds. */
static void exchange(unsigned self, unsigned nodes, int pipes[NODES_MAX][NODES_MAX][2])
{
	void *blob;
	size_t len;

	CHECK(!nu_wire_address(&blob, &len));
	for (unsigned n = 0; n < nodes; n++) {
		CHECK(write(pipes[self][n][1], &len, sizeof(len)) == sizeof(len));
		CHECK(write(pipes[self][n][1], blob, len) == (ssize_t)len);
	}
	free(blob);
	for (unsigned n = 0; n < nodes; n++) {
		read_all(pipes[n][self][0], &len, sizeof(len));
		blob = malloc(len);
		read_all(pipes[n][self][0], blob, len);
		CHECK(!nu_wire_set_peer(n, blob, len));
		free(blob);
	}
}

static struct nu_proclet own_proclet;

static void node_init(unsigned self, unsigned nodes, unsigned cores)
{
	nu_node.self = self;
	nu_node.count = nodes;
	nu_node.cores = cores;
	own_proclet.id = nu_id_of_node(self);
	own_proclet.state = NU_PROCLET_PRESENT;
	nu_list_init(&own_proclet.threads);
	nu_list_init(&own_proclet.parked);
	nu_list_init(&own_proclet.held);
	nu_list_init(&own_proclet.output_waiters);
}

/* Criterion's sandbox maps an arena of its own at a random place, at times where segments belong. A node needs none. */
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

static void node_main(const struct setup *s, unsigned self, int pipes[NODES_MAX][NODES_MAX][2],
		      int from_parent, int to_parent)
{
	struct nu_wire_options wire;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(LIMIT_S);
	current = s;
	CHECK(!pipe(done_pipe));
	leave_arena();
	node_init(self, s->nodes, self && s->cores_of_others ? s->cores_of_others : s->cores);
	nu_node.hosts = 1;
	for (unsigned n = 0; n < s->nodes; n++) {
		nu_node.host_of[n] = s->host_of[n];
		if (s->host_of[n] >= nu_node.hosts)
			nu_node.hosts = s->host_of[n] + 1u;
	}
	CHECK(!nu_layout_init()); /* parts the stacks' region among the nodes */
	wire = s->wire;
	if (s->before)
		s->before(self, &wire);
	CHECK(!nu_wire_init(&wire));
	s->handlers();
	exchange(self, s->nodes, pipes);
	CHECK(!nu_sched_start(&own_proclet, s->thread[self] ? first_thread : idle_thread, NULL));
	if (!self && s->outside)
		s->outside(from_parent, to_parent);
	CHECK(read(done_pipe[0], &c, 1) == 1);
	nu_sched_stop();
	nu_wire_fini();
	fflush(NULL);
	_exit(0);
}

/* ---- the parent ---- */

static pid_t node_pids[NODES_MAX];

static unsigned shm_files(void)
{
	DIR *d = opendir("/dev/shm");
	unsigned n = 0;

	for (struct dirent *e; d && (e = readdir(d));) {
		if (strstr(e->d_name, "ucx"))
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

/* Segments that one of our nodes made and that outlived it. */
static unsigned sysv_segments(unsigned nodes)
{
	FILE *f = fopen("/proc/sysvipc/shm", "r");
	unsigned n = 0;
	char line[512];
	int creator;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d %*d %*o %*u %d", &creator) != 1)
			continue;
		for (unsigned i = 0; i < nodes; i++)
			n += creator == node_pids[i];
	}
	if (f)
		fclose(f);
	return n;
}

/* Other programs' files come and go while we look; what our nodes leave would stay. */
static void expect_no_litter(unsigned files_before, unsigned nodes)
{
	unsigned tries = 0, files;

	while ((files = shm_files()) > files_before && ++tries < 2000)
		usleep(2000);
	cr_expect_leq(files, files_before, "something was left in /dev/shm");
	cr_expect_eq(sysv_segments(nodes), 0, "a System V segment was left");
}

static int parent_to_0[2], parent_from_0[2];

static void start_nodes(const struct setup *s)
{
	int pipes[NODES_MAX][NODES_MAX][2];

	for (unsigned a = 0; a < s->nodes; a++) {
		for (unsigned b = 0; b < s->nodes; b++)
			cr_assert(!pipe(pipes[a][b]));
	}
	cr_assert(!pipe(parent_to_0) && !pipe(parent_from_0));
	fflush(NULL);
	for (unsigned n = 0; n < s->nodes; n++) {
		node_pids[n] = fork();
		cr_assert(node_pids[n] >= 0);
		if (!node_pids[n])
			node_main(s, n, pipes, parent_to_0[0], parent_from_0[1]);
	}
	for (unsigned a = 0; a < s->nodes; a++) {
		for (unsigned b = 0; b < s->nodes; b++) {
			close(pipes[a][b][0]);
			close(pipes[a][b][1]);
		}
	}
	close(parent_from_0[1]);
}

static void expect_exit(unsigned node, int status)
{
	int got;

	cr_assert(waitpid(node_pids[node], &got, 0) == node_pids[node]);
	cr_expect(got == status, "node %u ended with %#x, not %#x", node, got, status);
}

static inline void run_nodes(const struct setup *s)
{
	unsigned files = shm_files();

	start_nodes(s);
	for (unsigned n = 0; n < s->nodes; n++)
		expect_exit(n, 0);
	expect_no_litter(files, s->nodes);
}
