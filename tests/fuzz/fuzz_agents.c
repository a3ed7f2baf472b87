/* SPDX-License-Identifier: MIT */
/*
 * nu_launch's side of its agents: what two of them say, from the remote shell's first bytes on, in any order and in
 * pieces, with shells that end and time that passes in between. Input: steps, each a byte and its arguments. Nothing
 * outside is touched: shells, signals and names are pretended.
 */
#include "ctrl/launch/crew.h"
#include "ctrl/launch/remote.h"

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS 2
#define NODES 3

static int64_t now_ms;
static struct job *the_job;
static pid_t to_reap;
static int reap_status;

static int pretend_kill(pid_t pid, int signo)
{
	FUZZ_CHECK(pid > 1);
	return 0;
}
static pid_t pretend_waitpid(int *status_p)
{
	pid_t pid = to_reap;

	to_reap = 0;
	*status_p = reap_status;
	return pid ? pid : -1;
}

#define kill(pid, signo)		       pretend_kill(pid, signo)
#define waitpid(pid, status, flags)	       pretend_waitpid(status)
#define getaddrinfo(name, service, hints, all) ((void)(hints), -1)
#define getsockopt(fd, l, o, who, len)	       ((void)(len), -1)
#define accept4(...)			       (-1)
#undef STDIN_FILENO
#define STDIN_FILENO (-1)

#include "ctrl/launch/conn.c"
#include "ctrl/launch/job.c"
#include "ctrl/launch/operator.c"
#include "ctrl/launch/relay.c"
#include "ctrl/launch/remote.c"
#include "ctrl/launch/start.c"

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
void spawn_hello(struct nu_boot_hello *hello, const struct options *o)
{
	*hello = (struct nu_boot_hello){.version = NU_BOOT_VERSION, .count = o->nodes};
}
int layout_choose(struct nu_boot_hello *hello)
{
	hello->chosen = 1;
	return 0;
}
int buildid_find(const char *name, char *path, size_t size)
{
	snprintf(path, size, "/dev/null");
	return 0;
}
int buildid_of(const char *path, char *id, size_t size)
{
	snprintf(id, size, "build-id 00");
	return 0;
}

/* ---- remote shells ---- */

static int ends[HOSTS];
static unsigned nshells;

int shell_start(struct remote *r)
{
	int pair[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	conn_init(&r->conn, pair[0], NU_BOOT_TEXT_MAX);
	r->shell = (pid_t)(1000 + nshells);
	ends[nshells++] = pair[1];
	return 0;
}
const char *shell_name(const struct remote *r)
{
	return "shell";
}
void shell_read_err(struct remote *r)
{
	snprintf(r->last_err, sizeof(r->last_err), "no");
}
void shell_send_agent(struct remote *r)
{
}

static void say(int fd, const void *bytes, size_t len)
{
	if (fd >= 0 && len)
		(void)!send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void feed_raw(struct in *in, int fd)
{
	size_t len = in_u8(in);

	if (len > in->left)
		len = in->left;
	say(fd, in->at, len);
	in->at += len;
	in->left -= len;
}

static const char *const facts[] = {
	"name a\narch x86_64\ncores 2\nboot 1\nnet 1\naddress lo 127.0.0.1/8\n",
	"name b\narch x86_64\ncores 0\nboot 2\nnet 2\nssh 10.0.0.1 5 10.0.0.2 22\naddress e 10.0.0.2/24\n",
	"name c\narch arm\naddress e fd00::2/64\naddress e 999.0.0.1/99\naddress\nssh x\n",
	"",
};

/* A whole frame, of which the length may lie. */
static void feed_frame(struct in *in, int fd)
{
	uint8_t type = in_u8(in) % 48, arg = in_u8(in), len = in_u8(in), lie = in_u8(in);
	struct nu_boot_head head = {.type = type < 24 ? type : 64u + (type - 24), .arg = (int8_t)arg};
	char payload[256];

	head.node = arg & 128 ? UINT32_MAX - (arg & 3) : in_u8(in) % (NODES + 1);
	head.id = in_u8(in);
	head.len_bytes = lie < 250 ? len : lie == 254 ? UINT32_MAX : (uint32_t)len << (lie - 249) * 4;
	in_take(in, payload, len);
	say(fd, &head, sizeof(head));
	say(fd, payload, len);
}

/* As an agent begins: else little would get past it. */
static void feed_hello(struct in *in, int fd)
{
	const char *text = facts[in_u8(in) % 4];
	struct nu_boot_head head = {.type = AGENT_HELLO,
				    .arg = AGENT_VERSION,
				    .len_bytes = (uint32_t)strlen(text)};

	say(fd, AGENT_MAGIC, strlen(AGENT_MAGIC));
	say(fd, &head, sizeof(head));
	say(fd, text, strlen(text));
}

static void feed_forked(struct in *in, int fd, unsigned count)
{
	int32_t pids[NODES] = {11, 12, 13};
	struct nu_boot_head head = {.type = AGENT_FORKED, .len_bytes = (uint32_t)(count * sizeof(pids[0]))};

	say(fd, &head, sizeof(head));
	say(fd, pids, head.len_bytes);
}

static void step(struct in *in)
{
	uint8_t what = in_u8(in);
	unsigned i = what / 16 % HOSTS;
	struct remote *r = remote_of(the_job->hosts[i]);

	switch (what % 10) {
	case 0:
		feed_raw(in, ends[i]);
		break;
	case 1:
	case 2:
		feed_hello(in, ends[i]);
		break;
	case 3:
		feed_forked(in, ends[i], r->host.count);
		break;
	case 4 ... 6:
		feed_frame(in, ends[i]);
		break;
	case 7:
		if (ends[i] >= 0)
			close(ends[i]);
		ends[i] = -1;
		break;
	case 8:
		to_reap = r->shell;
		reap_status = in_u8(in) << (in_u8(in) & 8);
		job_on_sigchld(the_job);
		break;
	default:
		now_ms += 1 << in_u8(in) % 16;
	}
}

/* What the loop would do now. */
static void turn(void)
{
	char buf[4096];
	struct pollfd p[POLLS];

	for (unsigned i = 0; i < HOSTS; i++) {
		struct host *h = the_job->hosts[i];

		h->ops->poll(h, p);
		p[AT_STDIN].fd = p[AT_ERR].fd = p[AT_OUT].fd = -1;
		(void)poll(p, POLLS, 0);
		h->ops->dispatch(h, p);
		while (ends[i] >= 0 && recv(ends[i], buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
	}
	(void)job_timers(the_job);
	if (the_job->phase == JOB_FINISH)
		job_finish(the_job);
}

static void tear_down(struct job *job)
{
	for (unsigned i = 0; i < HOSTS; i++) {
		struct remote *r = remote_of(job->hosts[i]);

		conn_close(&r->conn);
		free(r->facts);
		free(r);
		if (ends[i] >= 0)
			close(ends[i]);
	}
	for (unsigned n = 0; n < NODES; n++) {
		relay_close(&job->nodes[n].out);
		relay_close(&job->nodes[n].err);
		shared_put(job->nodes[n].blob);
	}
	free(job->nodes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char *argv[] = {"program", NULL};
	static char *env[] = {"NU_LOG=info", NULL};
	static struct job job;
	struct host_spec specs[HOSTS] = {{.name = "a", .nodes = 2}, {.name = "b", .first = 2, .nodes = 1}};
	const struct hosts hosts = {.list = specs,
				    .count = HOSTS,
				    .wdir = "/",
				    .silence_s = 10,
				    .env = env,
				    .nenv = 1,
				    .copy = len && data[0] & 2};
	const struct options o = {.nodes = NODES,
				  .argv = argv,
				  .keep_going = len && data[0] & 1,
				  .time_out_s = 90};
	struct in in = {data, len};

	now_ms = 1000;
	nshells = 0;
	to_reap = 0;
	the_job = &job;
	job_init(&job, &o);
	for (unsigned i = 0; i < HOSTS; i++) {
		struct remote *r = remote_create(&job, &hosts, &specs[i]);

		FUZZ_CHECK(r);
		job_add_host(&job, &r->host);
	}
	(void)in_u8(&in);
	for (unsigned i = 0; i < 200 && in.left && job.phase != JOB_OVER; i++) {
		step(&in);
		turn();
	}
	FUZZ_CHECK(job.alive <= NODES);
	tear_down(&job);
	return 0;
}
