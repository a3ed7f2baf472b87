/* SPDX-License-Identifier: MIT */
/*
 * nu_launch's side of every socket: what the seed, nodes and operators say, in any order and in pieces, with deaths and
 * the passing of time in between. Input: steps, each a byte and its arguments. Nothing outside is touched: processes
 * and their ends are pretended.
 */
#include "ctrl/launch/crew.h"
#include "ctrl/launch/host.h"

#include "fuzz.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODES 3
#define OPS   3

static pid_t to_reap[NODES + 2];
static int reap_status, nreap;
static int64_t now_ms;
static struct job *the_job;

static int pretend_kill(pid_t pid, int signo)
{
	FUZZ_CHECK(pid > 1); /* 0 and -1 are everybody */
	return 0;
}
static pid_t pretend_waitpid(pid_t pid, int *status_p, int flags)
{
	if (!nreap)
		return -1;
	if (status_p)
		*status_p = reap_status;
	return to_reap[--nreap];
}
static int pretend_waitid(idtype_t type, id_t pid, siginfo_t *info, int flags)
{
	return pid % 2 ? -1 : 0; /* odd ones are not our children */
}
static long pretend_pidfd(pid_t pid)
{
	FUZZ_CHECK(pid > 0);
	return dup(0);
}

#define kill(pid, signo)	     pretend_kill(pid, signo)
#define waitpid(pid, status, flags)  pretend_waitpid(pid, status, flags)
#define waitid(t, pid, info, flags)  pretend_waitid(t, pid, info, flags)
#define syscall(nr, pid, flags)	     pretend_pidfd(pid)
#define fopen(...)		     NULL /* /proc's list of our children */
#define getsockopt(fd, l, o, who, n) ((who)->uid = getuid(), *(n) == 0)
#define accept4(...)		     next_client()
static int next_client(void);

#include "ctrl/launch/conn.c"
#include "ctrl/launch/crew.c"
#include "ctrl/launch/here.c"
#include "ctrl/launch/job.c"
#include "ctrl/launch/operator.c"
#include "ctrl/launch/relay.c"

int64_t launch_now_ms(void)
{
	return now_ms;
}
void launch_say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
}
void *launch_alloc(size_t len_bytes)
{
	void *p = malloc(len_bytes ? len_bytes : 1);

	FUZZ_CHECK(p);
	return p;
}
void writer_push(struct writer *w, const char *data, size_t len_bytes)
{
	volatile char sink = 0;

	for (size_t i = 0; i < len_bytes; i++)
		sink = (char)(sink ^ data[i]);
}
size_t writer_queued(struct writer *w)
{
	return 0;
}
int writer_error(struct writer *w)
{
	return 0;
}

/* Our ends of the launcher's sockets and pipes; -1: closed. */
static int seed_end, node_ends[NODES], out_ends[NODES], op_ends[OPS], pending_client = -1;

static int next_client(void)
{
	int fd = pending_client;

	pending_client = -1;
	errno = EAGAIN;
	return fd;
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void feed_raw(struct in *in, int fd)
{
	size_t len = in_u8(in);

	if (len > in->left)
		len = in->left;
	if (fd >= 0 && len)
		(void)!send(fd, in->at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	in->at += len;
	in->left -= len;
}

/* A whole message, of which the length may lie. */
static void feed_message(struct in *in, int fd)
{
	struct nu_boot_head head = {.type = in_u8(in) % 18, .arg = (int8_t)in_u8(in)};
	uint8_t len = in_u8(in), lie = in_u8(in);
	char payload[256];

	head.id = in_u8(in);
	head.len_bytes = lie < 250 ? len : lie == 254 ? UINT32_MAX : (uint32_t)len << (lie - 249) * 4;
	in_take(in, payload, len);
	if (fd >= 0 && send(fd, &head, sizeof(head), MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE) > 0 && len)
		(void)!send(fd, payload, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void drain_end(int fd)
{
	char buf[4096];

	while (fd >= 0 && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

static void connect_client(struct in *in)
{
	unsigned i = in_u8(in) % OPS;
	int pair[2];

	shut(&op_ends[i]);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return;
	op_ends[i] = pair[0];
	pending_client = pair[1];
	operator_accept(the_job, -1);
	if (pending_client >= 0)
		shut(&pending_client);
}

static void poll_operators(void)
{
	struct pollfd p[OPERATORS_MAX];
	unsigned n = operator_poll(p);

	poll(p, n, 0);
	operator_dispatch(the_job, p, n);
	for (unsigned i = 0; i < OPS; i++)
		drain_end(op_ends[i]);
}

static struct crew *the_crew(void)
{
	return &here_of(the_job->hosts[0])->crew;
}

static void child_dies(struct in *in)
{
	unsigned n = in_u8(in) % (NODES + 1);

	reap_status = in_u8(in) << (in_u8(in) & 8);
	to_reap[nreap++] = n == NODES ? the_crew()->program : the_crew()->members[n].pid;
	job_on_sigchld(the_job);
	nreap = 0;
}

static void step(struct in *in)
{
	struct job *job = the_job;
	unsigned n;

	switch (in_u8(in) % 14) {
	case 0:
		feed_raw(in, seed_end);
		break;
	case 1:
		feed_message(in, seed_end);
		break;
	case 2:
	case 3:
		feed_raw(in, node_ends[in_u8(in) % NODES]);
		break;
	case 4 ... 6:
		feed_message(in, node_ends[in_u8(in) % NODES]);
		break;
	case 7:
		feed_raw(in, op_ends[in_u8(in) % OPS]);
		break;
	case 8:
		feed_message(in, op_ends[in_u8(in) % OPS]);
		break;
	case 9:
		connect_client(in);
		break;
	case 10:
		if (the_crew()->seed_pidfd >= 0)
			on_seed_exit(the_crew());
		break;
	case 11:
		child_dies(in);
		break;
	case 12:
		n = in_u8(in);
		if (n & 1)
			shut(&node_ends[n / 2 % NODES]);
		else if (n & 2)
			shut(&op_ends[n / 4 % OPS]);
		else
			feed_raw(in, out_ends[n / 4 % NODES]);
		break;
	default:
		now_ms += 1 << in_u8(in) % 16;
		(void)job_timers(job);
	}
}

/* What the loop would do now. */
static void turn(void)
{
	struct job *job = the_job;

	struct crew *c = the_crew();

	if (c->seed.fd >= 0)
		on_seed(c);
	for (unsigned n = 0; n < NODES; n++) {
		struct member *m = &c->members[n];

		conn_flush(&m->conn);
		on_member(m);
		for (unsigned stream = 0; stream < 2; stream++) {
			if (may_pump(m, stream))
				pump(m, stream);
		}
		drain_end(node_ends[n]);
	}
	drain_end(seed_end);
	poll_operators();
	(void)job_timers(job);
	if (job->phase == JOB_FINISH)
		job_finish(job);
}

static void channels(struct spawned *s, int (*ends)[2])
{
	int pair[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	seed_end = pair[0];
	s->seed = pair[1];
	for (unsigned n = 0; n < NODES; n++) {
		FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		node_ends[n] = pair[0];
		s->nodes[n] = pair[1];
		FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		out_ends[n] = pair[0];
		ends[n][0] = pair[1];
		ends[n][1] = dup(pair[1]);
	}
	for (unsigned i = 0; i < OPS; i++)
		op_ends[i] = -1;
}

static void tear_down(struct job *job)
{
	struct crew *c = the_crew();

	conn_close(&c->seed);
	if (c->seed_pidfd >= 0)
		close(c->seed_pidfd);
	for (unsigned n = 0; n < NODES; n++) {
		struct member *m = &c->members[n];

		conn_close(&m->conn);
		shut(&node_ends[n]);
		shut(&out_ends[n]);
		for (unsigned stream = 0; stream < 2; stream++) {
			while (m->output[stream] >= 0)
				(void)pump(m, stream);
		}
		shared_put(job->nodes[n].blob);
	}
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		if (clients[i].used)
			client_close(&clients[i]);
	}
	for (unsigned i = 0; i < OPS; i++)
		shut(&op_ends[i]);
	shut(&seed_end);
	free(c->members);
	free(job->hosts[0]);
	free(job->nodes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char *argv[] = {"program", NULL};
	static struct job job;
	const struct options o = {.nodes = NODES,
				  .argv = argv,
				  .keep_going = len && data[0] & 1,
				  .time_out_s = 9};
	struct in in = {data, len};
	int nodes[NODES], ends[NODES][2];
	struct spawned s = {.pid = 4242, .nodes = nodes, .pipes = ends};

	now_ms = 1000;
	last_request = 0;
	nreap = 0;
	channels(&s, ends);
	the_job = &job;
	job_init(&job, &o);
	job_add_host(&job, here_create(&job, &s, NODES));
	job_expect_program(&job);
	(void)in_u8(&in);
	for (unsigned i = 0; i < 200 && in.left && job.phase != JOB_OVER; i++) {
		step(&in);
		turn();
	}
	tear_down(&job);
	return 0;
}
