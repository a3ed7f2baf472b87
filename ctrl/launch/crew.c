/* SPDX-License-Identifier: MIT */
/* The nodes of a job on this machine, from the program's start until the last has gone. */
#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_BYTES 65536

void crew_init(struct crew *c, const struct crew_ops *ops, void *arg, unsigned count, const struct spawned *s)
{
	*c = (struct crew){.ops = ops, .arg = arg, .program = s->pid, .seed_pidfd = -1, .count = count};
	conn_init(&c->seed, s->seed, NU_BOOT_BLOB_MAX);
	c->members = launch_alloc(count * sizeof(*c->members));
	for (unsigned i = 0; i < count; i++) {
		struct member *m = &c->members[i];
		*m = (struct member){.crew = c, .output = {s->pipes[i][0], s->pipes[i][1]}};
		conn_init(&m->conn, s->nodes[i], NU_BOOT_TEXT_MAX);
		/* Our ends of the pipes alone. */
		fcntl(m->output[0], F_SETFL, O_NONBLOCK);
		fcntl(m->output[1], F_SETFL, O_NONBLOCK);
	}
}

static unsigned index_of(const struct member *m)
{
	return (unsigned)(m - m->crew->members);
}

/* ---- the program's start ---- */

static void on_seed_message(void *arg, const struct nu_boot_head *head, const char *payload)
{
	struct crew *c = arg;
	int32_t pid;
	if (head->type == NU_BOOT_FAIL) {
		c->ops->fail(c, payload);
		return;
	}
	if (head->type != NU_BOOT_FORKED || head->len_bytes != (1 + c->count) * sizeof(pid) ||
	    c->seed_pidfd >= 0) {
		c->ops->fail(c, "libnu of the program and nu_launch are of different versions");
		return;
	}
	for (unsigned i = 0; i <= c->count; i++) {
		memcpy(&pid, payload + i * sizeof(pid), sizeof(pid));
		if (pid <= 1) {
			c->ops->fail(c, "the program says that it has a process with a number that none has");
			return;
		}
		if (i)
			c->members[i - 1].pid = pid;
		else
			c->seed_pid = pid;
	}
	/* It waits for RELEASE, so the pid is still its own. Its end, not the socket's, says that the nodes are ours. */
	c->seed_pidfd = (int)syscall(SYS_pidfd_open, c->seed_pid, 0);
	if (c->seed_pidfd < 0) {
		char text[128];
		snprintf(text, sizeof(text), "pidfd_open: %s", strerror(errno));
		c->ops->fail(c, text);
		return;
	}
	conn_send(&c->seed, NU_BOOT_RELEASE, 0, 0, NULL, 0);
}

static void on_seed(struct crew *c)
{
	if (!conn_read(&c->seed, on_seed_message, c))
		conn_close(&c->seed);
}

static bool is_child(pid_t pid)
{
	siginfo_t info;
	return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
}

static bool is_double(const struct crew *c, unsigned member)
{
	for (unsigned i = 0; i < member; i++) {
		if (c->members[i].pid == c->members[member].pid)
			return true;
	}
	return false;
}

static void on_seed_exit(struct crew *c)
{
	close(c->seed_pidfd);
	c->seed_pidfd = -1;
	conn_close(&c->seed);
	if (c->killed)
		return;
	for (unsigned i = 0; i < c->count; i++) {
		/* Signals go to what it says, so it is made sure of; one that has died is a child still. */
		if (!is_child(c->members[i].pid) || is_double(c, i)) {
			c->ops->fail(c, "a process that the program says is a node is none of ours");
			return;
		}
	}
	c->owned = true;
	c->alive = c->count;
	for (unsigned i = 0; i < c->count; i++)
		c->members[i].alive = true;
	c->ops->forked(c);
}

static void program_ended(struct crew *c, int wait_status)
{
	c->program_gone = true;
	if (c->owned || c->seed_pidfd >= 0)
		return;
	on_seed(c); /* what it said before its end */
	if (c->seed_pidfd < 0)
		c->ops->ended(c, wait_status);
}

/* ---- what nodes say and print ---- */

static void on_message(void *arg, const struct nu_boot_head *head, const char *payload)
{
	struct member *m = arg;
	m->crew->ops->message(m->crew, index_of(m), head, payload);
}

static void on_member(struct member *m)
{
	if (m->conn.fd >= 0 && !conn_read(&m->conn, on_message, m))
		conn_close(&m->conn); /* its death is heard of in its own way */
}

static void close_output(struct member *m, unsigned stream)
{
	close(m->output[stream]);
	m->output[stream] = -1;
	m->crew->ops->output(m->crew, index_of(m), stream, NULL, 0);
}

/* Reads once; false: there is nothing. */
static bool pump(struct member *m, unsigned stream)
{
	char buf[READ_BYTES];
	ssize_t n = read(m->output[stream], buf, sizeof(buf));
	if (n > 0)
		m->crew->ops->output(m->crew, index_of(m), stream, buf, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_output(m, stream);
	return n > 0 || (n < 0 && errno == EINTR);
}

static bool may_pump(struct member *m, unsigned stream)
{
	return m->output[stream] >= 0 && m->crew->ops->may_output(m->crew, index_of(m), stream);
}

bool crew_drain(struct crew *c)
{
	bool empty = true;
	for (unsigned i = 0; i < c->count; i++) {
		for (unsigned stream = 0; stream < 2; stream++) {
			struct member *m = &c->members[i];
			while (may_pump(m, stream)) {
				/* Who still holds the other end is none of the job's. */
				if (!pump(m, stream) && m->output[stream] >= 0)
					close_output(m, stream);
			}
			empty &= m->output[stream] < 0;
		}
	}
	return empty;
}

/* ---- the loop's part ---- */

static void enter(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){.fd = fd, .events = events};
}

void crew_poll(struct crew *c, struct pollfd *p)
{
	enter(&p[0], c->seed.fd, conn_events(&c->seed));
	enter(&p[1], c->seed_pidfd, POLLIN);
	for (unsigned i = 0; i < c->count; i++) {
		struct member *m = &c->members[i];
		/* A pipe whose output does not keep up is left out, or its hang-up would wake us for nothing. */
		enter(&p[2 + 3 * i], m->conn.fd, conn_events(&m->conn));
		enter(&p[2 + 3 * i + 1], may_pump(m, 0) ? m->output[0] : -1, POLLIN);
		enter(&p[2 + 3 * i + 2], may_pump(m, 1) ? m->output[1] : -1, POLLIN);
	}
}

void crew_dispatch(struct crew *c, const struct pollfd *p)
{
	if (p[0].revents && c->seed.fd >= 0)
		on_seed(c);
	if (p[1].revents && c->seed_pidfd >= 0)
		on_seed_exit(c);
	for (unsigned i = 0; i < c->count; i++) {
		struct member *m = &c->members[i];
		const struct pollfd *mine = &p[2 + 3 * i];
		if (m->conn.fd >= 0 && (mine[0].revents & POLLOUT))
			conn_flush(&m->conn);
		if (mine[0].revents & ~POLLOUT)
			on_member(m);
		for (unsigned stream = 0; stream < 2; stream++) {
			if (mine[1 + stream].revents && m->output[stream] >= 0)
				pump(m, stream);
		}
	}
}

/* ---- ends ---- */

bool crew_reaped(struct crew *c, pid_t pid, int wait_status)
{
	for (unsigned i = 0; i < c->count; i++) {
		struct member *m = &c->members[i];
		if (!m->alive || m->pid != pid)
			continue;
		on_member(m); /* its last words */
		conn_close(&m->conn);
		m->alive = false;
		c->alive--;
		c->ops->exited(c, i, wait_status);
		return true;
	}
	if (pid != c->program || c->program_gone)
		return false;
	program_ended(c, wait_status);
	return true;
}

void crew_send(struct crew *c, unsigned i, uint32_t type, int32_t arg, uint64_t id, struct shared *s)
{
	conn_send_shared(&c->members[i].conn, type, arg, id, s);
}

void crew_kill(struct crew *c, unsigned i, int signo)
{
	if (c->members[i].alive)
		kill(c->members[i].pid, signo);
}

void crew_kill_all(struct crew *c, int signo)
{
	for (unsigned i = 0; i < c->count; i++)
		crew_kill(c, i, signo);
	if (!c->owned) {
		c->killed = true;
		for (unsigned i = 0; i < c->count; i++)
			conn_close(&c->members[i].conn);
		conn_close(&c->seed);
	}
	if (!c->program_gone)
		kill(c->program, signo);
}

bool crew_gone(const struct crew *c)
{
	return !c->alive && (c->owned || c->program_gone);
}

void crew_kill_orphans(void)
{
	for (int rounds = 0; rounds < 100; rounds++) {
		FILE *f = fopen("/proc/thread-self/children", "re");
		int pid, found = 0;
		while (f && fscanf(f, "%d", &pid) == 1) {
			kill(pid, SIGKILL);
			found++;
		}
		if (f)
			fclose(f);
		if (!found)
			return;
		for (; found; found--)
			waitpid(-1, NULL, 0);
	}
}
