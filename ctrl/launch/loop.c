/* SPDX-License-Identifier: MIT */
/*
 * One poll loop over everything the launcher waits for. Nothing in it blocks: output has its threads.
 */
#include "host.h"
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
	AT_HOSTS /* then operators */
};

static void enter(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){.fd = fd, .events = events};
}

static void enter_all(struct job *job, const struct loop *l, struct pollfd *p)
{
	enter(&p[AT_SIGNAL], l->signal_fd, POLLIN);
	enter(&p[AT_WRITER], job->writer_event, POLLIN);
	enter(&p[AT_LISTENER], operator_may_accept() ? l->listener : -1, POLLIN);
	p += AT_HOSTS;
	for (unsigned i = 0; i < job->nhosts; p += job->hosts[i++]->npoll)
		job->hosts[i]->ops->poll(job->hosts[i], p);
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

static void dispatch(struct job *job, const struct loop *l, const struct pollfd *p, unsigned operators)
{
	uint64_t count;
	if (p[AT_WRITER].revents) {
		if (read(job->writer_event, &count, sizeof(count)) > 0)
			job_on_writer(job);
	}
	const struct pollfd *at = p + AT_HOSTS;
	for (unsigned i = 0; i < job->nhosts; at += job->hosts[i++]->npoll)
		job->hosts[i]->ops->dispatch(job->hosts[i], at);
	operator_dispatch(job, at, operators);
	if (p[AT_LISTENER].revents)
		operator_accept(job, l->listener);
	/* Last: what a node said before its death was read above. */
	if (p[AT_SIGNAL].revents)
		on_signals(job, l->signal_fd);
}

int loop_init(struct loop *l)
{
	static const int heard[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP};
	sigset_t set;
	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof(heard) / sizeof(heard[0]); i++) {
		if (!signals_ignores(heard[i])) /* blocked, it would be heard all the same */
			sigaddset(&set, heard[i]);
	}
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	l->listener = operator_listen();
	return l->signal_fd < 0 ? -errno : 0;
}

void loop_run(struct loop *l, struct job *job)
{
	unsigned fixed = AT_HOSTS;
	for (unsigned i = 0; i < job->nhosts; i++)
		fixed += job->hosts[i]->npoll;
	struct pollfd *p = launch_alloc((fixed + OPERATORS_MAX) * sizeof(*p));
	job->writer_event = l->event_fd;
	while (job->phase != JOB_OVER) {
		if (job->phase == JOB_FINISH)
			job_finish(job);
		int timeout_ms = job_timers(job);
		if (job->phase == JOB_OVER)
			break;
		if (job->phase == JOB_FINISH && !job->finishing)
			timeout_ms = 0; /* it has just begun */
		enter_all(job, l, p);
		unsigned operators = operator_poll(p + fixed);
		int n = poll(p, fixed + operators, timeout_ms);
		if (n < 0 && errno != EINTR) {
			launch_say("poll: %s", strerror(errno));
			exit(1);
		}
		if (n >= 0)
			dispatch(job, l, p, operators);
	}
	free(p);
}
