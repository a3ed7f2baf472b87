/* SPDX-License-Identifier: MIT */
/*
 * The socket that nu_ctl talks to: in the abstract name space, so that it leaves nothing behind. Commands go to node 0 and
 * its answers come back; "job" the launcher answers itself, busy or starting as the nodes may be.
 */
#include "launch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SILENT_MS   5000  /* for a client to say what it wants; how long it waits is its own affair */
#define READ_MS	    30000 /* for it to read the answer and leave */
#define REST_MS	    50
#define ACCEPTS_MAX 32 /* at a time: who floods us with connections does not keep us from the nodes */

struct client {
	struct conn conn;
	uint64_t request;
	int64_t gone_at_ms;
	bool used, asked, answered;
	struct job *job;
};
static struct client clients[OPERATORS_MAX];
static unsigned polled[OPERATORS_MAX];
static uint64_t last_request;
static int64_t resting_until_ms; /* 0: not */

int operator_listen(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, NU_BOOT_CTL_NAME, (unsigned)getuid(),
			 (int)getpid());
	if (fd < 0 ||
	    bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) ||
	    listen(fd, 8 * OPERATORS_MAX)) {
		launch_say("nu_ctl cannot reach this job: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static void client_close(struct client *c)
{
	conn_close(&c->conn);
	c->used = false;
}

static void answer(struct client *c, int status, const char *text, size_t len)
{
	c->answered = true;
	c->gone_at_ms = launch_now_ms() + READ_MS;
	conn_send(&c->conn, NU_BOOT_ANSWER, status, 0, text, len);
}

static void answer_job(struct client *c, const struct job *job)
{
	static const char *const names[] = {"starting", "running", "finishing", "over"};
	char text[512];
	int n = snprintf(text, sizeof(text), "%d\t%u\t%u\t%s\t%lld\t%.300s", (int)getpid(), job->count,
			 job->alive, job->ending ? "ending" : names[job->phase],
			 (long long)(launch_now_ms() - job->started_ms) / 1000, job->options->argv[0]);
	answer(c, 0, text, (size_t)n);
}

static void on_ask(void *arg, const struct nu_boot_head *head, const char *payload)
{
	static const char starting[] =
		"node 0 does not answer operators yet: try again when the program has started";
	static const char ending[] = "the job is ending";
	struct client *c = arg;
	struct job *job = c->job;
	if (head->type != NU_BOOT_ASK || c->asked) {
		client_close(c);
		return;
	}
	c->asked = true;
	c->gone_at_ms = INT64_MAX;
	if (!strcmp(payload, "job")) {
		answer_job(c, job);
	} else if (job->ending) {
		answer(c, -ESHUTDOWN, ending, strlen(ending));
	} else if (!job->nodes[0].alive || !job->nodes[0].ready) {
		answer(c, -EAGAIN, starting, strlen(starting));
	} else {
		c->request = ++last_request;
		job_send(&job->nodes[0], NU_BOOT_ASK, 0, c->request, payload, head->len_bytes);
	}
}

/* When all are taken, one that has not said anything makes room: who only connects keeps nobody out. */
static struct client *client_slot(void)
{
	struct client *silent = NULL;
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		struct client *c = &clients[i];
		if (!c->used)
			return c;
		if (!c->asked && (!silent || c->gone_at_ms < silent->gone_at_ms))
			silent = c;
	}
	if (silent)
		client_close(silent);
	return silent;
}

/* With no descriptor left a client that cannot be accepted would end each poll at once: it waits a while. */
static void rest(void)
{
	static bool said;
	struct rlimit lim = {0};
	int err = errno;
	resting_until_ms = launch_now_ms() + REST_MS;
	if (said)
		return;
	said = true;
	getrlimit(RLIMIT_NOFILE, &lim);
	launch_say("nu_ctl has to wait: %s (RLIMIT_NOFILE of nu_launch is %llu)", strerror(err),
		   (unsigned long long)lim.rlim_cur);
}

bool operator_may_accept(void)
{
	if (resting_until_ms && launch_now_ms() >= resting_until_ms)
		resting_until_ms = 0;
	return !resting_until_ms;
}

void operator_accept(struct job *job, int listener)
{
	for (unsigned n = 0; n < ACCEPTS_MAX; n++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE)
				rest();
			return;
		}
		struct ucred who;
		socklen_t len = sizeof(who);
		struct client *c = NULL;
		if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) &&
		    (who.uid == getuid() || who.uid == 0))
			c = client_slot();
		if (!c) {
			close(fd); /* a stranger, or too many at once */
			continue;
		}
		*c = (struct client){.used = true, .job = job, .gone_at_ms = launch_now_ms() + SILENT_MS};
		conn_init(&c->conn, fd, NU_BOOT_ASK_MAX);
	}
}

unsigned operator_poll(struct pollfd *p)
{
	unsigned n = 0;
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		if (!clients[i].used)
			continue;
		p[n] = (struct pollfd){.fd = clients[i].conn.fd, .events = conn_events(&clients[i].conn)};
		polled[n++] = i;
	}
	return n;
}

void operator_dispatch(struct job *job, const struct pollfd *p, unsigned count)
{
	int64_t now = launch_now_ms();
	for (unsigned i = 0; i < count; i++) {
		struct client *c = &clients[polled[i]];
		if (!c->used || c->conn.fd != p[i].fd)
			continue;
		if (p[i].revents & POLLOUT)
			conn_flush(&c->conn);
		if ((p[i].revents & ~POLLOUT) && c->used && !conn_read(&c->conn, on_ask, c))
			client_close(c); /* it has its answer, or is tired of waiting */
		else if (c->used && now >= c->gone_at_ms)
			client_close(c);
	}
}

void operator_answer(uint64_t request, int status, const char *text, size_t len_bytes)
{
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		struct client *c = &clients[i];
		if (c->used && c->asked && !c->answered && c->request == request)
			answer(c, status, text, len_bytes);
	}
}

void operator_node0_died(void)
{
	static const char died[] = "node 0 died";
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		struct client *c = &clients[i];
		if (c->used && c->request && !c->answered)
			answer(c, -EHOSTDOWN, died, strlen(died));
	}
}

int64_t operator_next_ms(void)
{
	int64_t next = resting_until_ms ? resting_until_ms : INT64_MAX;
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		if (clients[i].used && clients[i].gone_at_ms < next)
			next = clients[i].gone_at_ms;
	}
	return next;
}
