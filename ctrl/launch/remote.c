/* SPDX-License-Identifier: MIT */
/* A host behind an agent: what job.c wants done there goes out, what happens there comes in. */
#include "remote.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHELL_FAILED 255
#define START_FACTOR 3	  /* so much longer than a silence may the first word take */
#define CLOSED_MS    1000 /* for the remote shell to say why it closed its output */
#define LEAVE_MS     2000 /* for it to leave when all is over */
#define HELLO_MAX    65536

enum { AT_IN, AT_OUT, AT_ERR, AT_STDIN, POLLS };

static int64_t silence_ms(const struct remote *r)
{
	return (int64_t)(r->hosts->silence_s * 1000);
}

static void end_shell(struct remote *r, int signo)
{
	if (r->shell)
		kill(r->shell, signo);
}

/* The host's part in the job is over, whatever became of it. */
static void let_it_go(struct remote *r)
{
	if (r->over)
		return;
	r->over = true;
	r->over_ms = launch_now_ms();
	conn_close(&r->conn);
}

/* Nothing is heard of it any more: why, and as which status of the job that counts before its nodes run. */
static void lose(struct remote *r, int status, const char *why)
{
	struct job *job = r->host.job;
	bool boot = job->phase == JOB_BOOT, ending = job->ending;
	if (r->over)
		return;
	shell_read_err(r);
	r->lost = true;
	let_it_go(r);
	end_shell(r, SIGTERM);
	if (!ending)
		launch_say("host %s: %s%s%s", r->spec->name, why, *r->last_err ? ": " : "", r->last_err);
	if (boot)
		job_end(job, status, 0, NULL);
	for (unsigned i = 0; i < r->host.count; i++) {
		struct node *n = &job->nodes[r->host.first + i];
		job_on_output(n, 0, NULL, 0);
		job_on_output(n, 1, NULL, 0);
		job_on_lost(n);
	}
	if (!ending && !job->ending)
		launch_say("node%s %u%s of host %s %s lost; the others go on", r->host.count > 1 ? "s" : "",
			   r->host.first, r->host.count > 1 ? " and following" : "", r->spec->name,
			   r->host.count > 1 ? "are" : "is");
}

/* ---- from the agent ---- */

static void on_hello(struct remote *r, const struct nu_boot_head *head, const char *payload)
{
	struct job *job = r->host.job;
	char why[160];
	if (r->facts || head->len_bytes > HELLO_MAX) {
		lose(r, 1, "its agent speaks out of turn");
		return;
	}
	r->facts = launch_alloc(head->len_bytes + 1);
	memcpy(r->facts, payload, head->len_bytes + 1);
	if (head->arg != AGENT_VERSION) {
		snprintf(why, sizeof(why), "nu_launch there is of another version (%d there, %d here)",
			 head->arg, AGENT_VERSION);
		lose(r, 1, why);
		return;
	}
	for (unsigned i = 0; i < job->nhosts; i++) {
		if (!remote_of(job->hosts[i])->facts)
			return;
	}
	if (!job->ending)
		start_all(job);
}

static void on_forked(struct remote *r, const struct nu_boot_head *head, const char *payload)
{
	int32_t told[NU_BOOT_NODES_MAX];
	pid_t pids[NU_BOOT_NODES_MAX];
	if (r->host.forked || !r->started || head->len_bytes != r->host.count * sizeof(told[0])) {
		lose(r, 1, "its agent makes no sense");
		return;
	}
	memcpy(told, payload, head->len_bytes);
	for (unsigned i = 0; i < r->host.count; i++)
		pids[i] = told[i];
	job_on_forked(&r->host, pids);
}

static void on_output(struct remote *r, struct node *n, const struct nu_boot_head *head, const char *payload)
{
	job_on_output(n, head->arg & 1, payload, head->len_bytes);
	r->output_taken += head->len_bytes;
}

/* What is about one node. False: there is no such node. */
static bool on_node_frame(struct remote *r, const struct nu_boot_head *head, const char *payload)
{
	unsigned i = head->node - r->host.first;
	struct node *n;
	if (i >= r->host.count || !r->started)
		return false;
	n = &r->host.job->nodes[head->node];
	if (head->type == AGENT_OUTPUT)
		on_output(r, n, head, payload);
	else if (head->type == AGENT_EXITED)
		job_on_exit(n, head->arg);
	else
		job_on_message(n, head, payload);
	return true;
}

static void on_frame(void *arg, const struct nu_boot_head *head, const char *payload)
{
	struct remote *r = arg;
	struct job *job = r->host.job;
	if (r->over)
		return;
	if (head->type == AGENT_HELLO) {
		on_hello(r, head, payload);
		return;
	}
	switch (r->facts ? head->type : 0) {
	case AGENT_NEED:
		start_copy(r);
		break;
	case AGENT_REFUSED:
		r->gone = true;
		job_end(job, head->arg, 0, NULL);
		break;
	case AGENT_FORKED:
		on_forked(r, head, payload);
		break;
	case AGENT_ENDED:
		job_on_program_end(&r->host, head->arg);
		break;
	case AGENT_FAILED:
		job_on_fail(&r->host, payload);
		break;
	case AGENT_TAKEN:
		r->input_under_way -=
			(size_t)head->arg < r->input_under_way ? (size_t)head->arg : r->input_under_way;
		break;
	case AGENT_SAY:
		if (!job->ending)
			launch_say("host %s: %s", r->spec->name, payload);
		break;
	case AGENT_GONE:
		r->gone = true;
		break;
	case AGENT_BYE:
		let_it_go(r);
		break;
	case AGENT_ALIVE:
		break;
	default:
		if (!on_node_frame(r, head, payload))
			lose(r, 1, "its agent makes no sense");
	}
}

/* Skips what a login shell prints before the agent runs. False: the stream is at its end. */
static bool find_magic(struct remote *r)
{
	static const char magic[] = AGENT_MAGIC, copy[] = AGENT_COPY_MAGIC;
	_Static_assert(sizeof(magic) == sizeof(copy), "one window finds both");
	size_t len = sizeof(magic) - 1;
	while (!r->spoke) {
		char c;
		ssize_t n = read(r->conn.fd, &c, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		memmove(r->window, r->window + 1, len - 1);
		r->window[len - 1] = c;
		r->spoke = !memcmp(r->window, magic, len);
		if (!memcmp(r->window, copy, len))
			shell_send_agent(r);
	}
	return true;
}

/* False: nothing more will come. */
static bool read_agent(struct remote *r)
{
	if (r->conn.fd < 0 || r->closed_ms)
		return false;
	if (!find_magic(r))
		return false;
	return !r->spoke || conn_read(&r->conn, on_frame, r);
}

/* ---- from the job ---- */

static void remote_send(struct host *h, struct node *n, uint32_t type, int32_t arg, uint64_t id,
			struct shared *s)
{
	struct remote *r = remote_of(h);
	if (r->started)
		conn_send_node(&r->conn, n->number, type, arg, id, s);
}

static void remote_kill(struct host *h, struct node *n, int signo)
{
	struct remote *r = remote_of(h);
	if (r->started) {
		conn_send_node(&r->conn, n ? n->number : AGENT_ALL, AGENT_KILL, signo, 0, NULL);
	} else if (!n) {
		let_it_go(r);
		end_shell(r, SIGTERM);
	}
}

static bool remote_gone(struct host *h)
{
	struct remote *r = remote_of(h);
	return !r->started || r->gone || r->over;
}

static bool remote_finish(struct host *h)
{
	struct remote *r = remote_of(h);
	if (!r->finishing && r->started)
		conn_send(&r->conn, AGENT_FINISH, 0, 0, NULL, 0);
	r->finishing = true;
	if (!r->started)
		let_it_go(r);
	return r->over && !r->shell;
}

static unsigned input_room(const struct remote *r)
{
	bool mine = r->host.first == 0 && r->started && !r->input_ended && r->conn.fd >= 0;
	return mine ? (unsigned)(AGENT_INPUT_BYTES - r->input_under_way) : 0;
}

static void acknowledge(struct remote *r)
{
	struct job *job = r->host.job;
	if (!r->output_taken || writer_queued(&job->out) >= WRITER_HIGH_BYTES ||
	    writer_queued(&job->err) >= WRITER_HIGH_BYTES)
		return;
	conn_send(&r->conn, AGENT_TAKEN, (int32_t)r->output_taken, 0, NULL, 0);
	r->output_taken = 0;
}

static void remote_poll(struct host *h, struct pollfd *p)
{
	struct remote *r = remote_of(h);
	acknowledge(r);
	p[AT_IN] = (struct pollfd){.fd = r->closed_ms ? -1 : r->conn.fd, .events = POLLIN};
	p[AT_OUT] = (struct pollfd){.fd = r->conn.first ? r->conn.out_fd : -1, .events = POLLOUT};
	p[AT_ERR] = (struct pollfd){.fd = r->err_fd, .events = POLLIN};
	p[AT_STDIN] = (struct pollfd){.fd = input_room(r) ? STDIN_FILENO : -1, .events = POLLIN};
}

static void read_stdin(struct remote *r)
{
	char buf[AGENT_CHUNK_BYTES];
	unsigned room = input_room(r);
	ssize_t n;
	if (!room)
		return;
	n = read(STDIN_FILENO, buf, room < sizeof(buf) ? room : sizeof(buf));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		r->input_ended = true;
		n = 0;
	}
	r->input_under_way += (size_t)n;
	conn_send(&r->conn, AGENT_INPUT, 0, 0, buf, (size_t)n);
}

static void remote_dispatch(struct host *h, const struct pollfd *p)
{
	struct remote *r = remote_of(h);
	if (p[AT_OUT].revents)
		conn_flush(&r->conn);
	if (p[AT_ERR].revents)
		shell_read_err(r);
	if (p[AT_IN].revents && !r->over && !read_agent(r) && !r->over)
		r->closed_ms = launch_now_ms(); /* the shell's end says more */
	if (p[AT_STDIN].revents)
		read_stdin(r);
}

/* The shell has ended, or its output has. */
static void closed(struct remote *r, int wait_status)
{
	char why[512];
	int code = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
	bool shell_says = !r->facts && (code == 126 || code == 127);
	if (r->shell)
		snprintf(why, sizeof(why), "the connection to its agent was closed");
	else if (shell_says)
		snprintf(why, sizeof(why),
			 "nu_launch cannot be run there (--agent-path says where it is, --copy takes it "
			 "there); "
			 "%s ended with status %d",
			 shell_name(r), code);
	else if (WIFSIGNALED(wait_status))
		snprintf(why, sizeof(why), "%s was killed by signal %d", shell_name(r),
			 WTERMSIG(wait_status));
	else
		snprintf(why, sizeof(why), "%s %s with status %d", shell_name(r),
			 r->facts ? "ended" : "could not start its agent: it ended", code);
	lose(r, shell_says ? code : SHELL_FAILED, why);
}

static bool remote_reaped(struct host *h, pid_t pid, int wait_status)
{
	struct remote *r = remote_of(h);
	if (pid != r->shell)
		return false;
	r->shell = 0;
	if (r->over)
		return true;
	(void)read_agent(r); /* its last words */
	closed(r, wait_status);
	return true;
}

static int64_t earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A silent host is a dead one. */
static int64_t watch_silence(struct remote *r, int64_t now)
{
	int64_t limit = silence_ms(r), due;
	char why[128];
	if (!limit)
		return INT64_MAX;
	if (r->conn.heard)
		r->heard_ms = now;
	r->conn.heard = false;
	due = r->facts ? r->heard_ms + limit : r->created_ms + START_FACTOR * limit;
	/* If we were stopped ourselves, its words are waiting. */
	if (now < due || (r->facts && conn_waiting(&r->conn)))
		return now < due ? due : now + 1;
	if (r->facts)
		snprintf(why, sizeof(why), "nothing was heard of it for %g s: it counts as dead",
			 r->hosts->silence_s);
	else
		snprintf(why, sizeof(why), "%s did not reach it within %g s", shell_name(r),
			 START_FACTOR * r->hosts->silence_s);
	lose(r, SHELL_FAILED, why);
	return INT64_MAX;
}

static int64_t remote_timers(struct host *h, int64_t now)
{
	struct remote *r = remote_of(h);
	int64_t next = INT64_MAX;
	if (r->over) {
		if (!r->shell)
			return INT64_MAX;
		if (now < r->over_ms + LEAVE_MS)
			return r->over_ms + LEAVE_MS;
		end_shell(r, SIGKILL);
		return now + LEAVE_MS;
	}
	if (r->closed_ms) {
		if (now >= r->closed_ms + CLOSED_MS)
			closed(r, 0);
		else
			return r->closed_ms + CLOSED_MS;
		return INT64_MAX;
	}
	if (r->facts && now - r->beat_ms >= AGENT_BEAT_MS) {
		r->beat_ms = now;
		conn_send(&r->conn, AGENT_ALIVE, 0, 0, NULL, 0);
	}
	if (r->facts)
		next = r->beat_ms + AGENT_BEAT_MS;
	return earliest(next, watch_silence(r, now));
}

struct remote *remote_create(struct job *job, const struct hosts *hosts, const struct host_spec *spec)
{
	static const struct host_ops ops = {remote_send, remote_kill,	  remote_gone,	 remote_finish,
					    remote_poll, remote_dispatch, remote_timers, remote_reaped};
	struct remote *r = launch_alloc(sizeof(*r));
	int err;
	*r = (struct remote){.host = {.ops = &ops,
				      .job = job,
				      .name = spec->name,
				      .first = spec->first,
				      .count = spec->nodes,
				      .npoll = POLLS},
			     .hosts = hosts,
			     .spec = spec,
			     .err_fd = -1,
			     .created_ms = launch_now_ms()};
	err = shell_start(r);
	if (!err)
		return r;
	launch_say("host %s: %s cannot be started: %s", spec->name, shell_name(r), strerror(-err));
	free(r);
	return NULL;
}
