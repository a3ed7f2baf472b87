/* SPDX-License-Identifier: MIT */
/*
 * One poll loop over everything the launcher waits for. Nothing in it blocks: output has its threads.
 */
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
	AT_SIGNAL,
	AT_WRITER,
	AT_LISTENER,
	AT_SEED,
	AT_SEED_PIDFD,
	AT_NODES /* three each: socket, stdout, stderr; then operators */
};

static void enter(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){.fd = fd, .events = events};
}

static void enter_all(struct job *job, const struct loop *l, struct pollfd *p)
{
	enter(&p[AT_SIGNAL], l->signal_fd, POLLIN);
	enter(&p[AT_WRITER], job->writer_event, POLLIN);
	enter(&p[AT_LISTENER], l->listener, POLLIN);
	enter(&p[AT_SEED], job->seed.fd, conn_events(&job->seed));
	enter(&p[AT_SEED_PIDFD], job->seed_pidfd, POLLIN);
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		/* A pipe whose output does not keep up is left out, or its hang-up would wake us for nothing. */
		enter(&p[AT_NODES + 3 * n], node->conn.fd, conn_events(&node->conn));
		enter(&p[AT_NODES + 3 * n + 1], relay_may_read(&node->out) ? node->out.fd : -1, POLLIN);
		enter(&p[AT_NODES + 3 * n + 2], relay_may_read(&node->err) ? node->err.fd : -1, POLLIN);
	}
}

static void on_signals(struct job *job, int fd)
{
	struct signalfd_siginfo si;
	bool children = false;
	while (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			children = true;
		else
			job_on_signal(job, (int)si.ssi_signo);
	}
	if (children)
		job_on_sigchld(job);
}

static void on_nodes(struct job *job, const struct pollfd *p)
{
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		const struct pollfd *mine = &p[AT_NODES + 3 * n];
		if (node->conn.fd >= 0 && (mine[0].revents & POLLOUT))
			conn_flush(&node->conn);
		if (node->conn.fd >= 0 && (mine[0].revents & ~POLLOUT))
			job_on_node(node);
		if (mine[1].revents)
			relay_pump(&node->out);
		if (mine[2].revents)
			relay_pump(&node->err);
	}
}

static void dispatch(struct job *job, const struct loop *l, const struct pollfd *p, unsigned operators)
{
	uint64_t count;
	if (p[AT_WRITER].revents) {
		if (read(job->writer_event, &count, sizeof(count)) > 0)
			job_on_writer(job);
	}
	if (p[AT_SEED].revents && job->seed.fd >= 0)
		job_on_seed(job);
	if (p[AT_SEED_PIDFD].revents && job->seed_pidfd >= 0)
		job_on_seed_exit(job);
	on_nodes(job, p);
	operator_dispatch(job, p + AT_NODES + 3 * job->count, operators);
	if (p[AT_LISTENER].revents)
		operator_accept(job, l->listener);
	/* Last: what a node said before its death was read above. */
	if (p[AT_SIGNAL].revents)
		on_signals(job, l->signal_fd);
}

int loop_init(struct loop *l)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	l->listener = operator_listen();
	return l->signal_fd < 0 ? -errno : 0;
}

void loop_run(struct loop *l, struct job *job)
{
	struct pollfd *p = launch_alloc((AT_NODES + 3 * job->count + OPERATORS_MAX) * sizeof(*p));
	job->writer_event = l->event_fd;
	while (job->phase != JOB_OVER) {
		if (job->phase == JOB_FINISH)
			job_finish(job);
		int timeout_ms = job_timers(job);
		if (job->phase == JOB_OVER)
			break;
		enter_all(job, l, p);
		unsigned operators = operator_poll(p + AT_NODES + 3 * job->count);
		int n = poll(p, AT_NODES + 3 * job->count + operators, timeout_ms);
		if (n < 0 && errno != EINTR) {
			launch_say("poll: %s", strerror(errno));
			exit(1);
		}
		if (n >= 0)
			dispatch(job, l, p, operators);
	}
	free(p);
}
