/* SPDX-License-Identifier: MIT */
/*
 * The one exec of the program, with everything its constructor needs waiting in a socket: nothing but that socket and
 * NU_BOOT reaches a program that is not ours, and the secret is in neither environment nor arguments.
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct theirs {
	int control, out, err;
};

/* Six descriptors a node while the job is set up, and some of our own. */
static bool room_for_fds(unsigned nodes, struct rlimit *old_p)
{
	struct rlimit lim;
	rlim_t want = nodes * 7 + 64;
	getrlimit(RLIMIT_NOFILE, &lim);
	*old_p = lim;
	if (lim.rlim_cur >= want)
		return true;
	lim.rlim_cur = lim.rlim_max;
	if (lim.rlim_max >= want && !setrlimit(RLIMIT_NOFILE, &lim))
		return true;
	launch_say("RLIMIT_NOFILE is %llu at most, %u nodes need %llu (ulimit -Hn)",
		   (unsigned long long)lim.rlim_max, nodes, (unsigned long long)want);
	return false;
}

static bool make_channels(unsigned nodes, struct spawned *s, struct theirs *t)
{
	for (unsigned n = 0; n < nodes; n++) {
		int pair[2], out[2], err[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || pipe2(out, O_CLOEXEC) ||
		    pipe2(err, O_CLOEXEC)) {
			launch_say("no channels for node %u: %s", n, strerror(errno));
			return false;
		}
		s->nodes[n] = pair[0];
		s->pipes[n][0] = out[0];
		s->pipes[n][1] = err[0];
		t[n] = (struct theirs){pair[1], out[1], err[1]};
	}
	return true;
}

/* @head_arg nodes' descriptors as ancillary data of one message. */
static bool send_fds(int fd, const struct theirs *t, unsigned nodes)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct theirs) * NU_BOOT_FDS_PER)];
		struct cmsghdr align;
	} control = {0};
	struct nu_boot_head head = {.type = NU_BOOT_FDS, .arg = (int32_t)nodes};
	struct iovec iov = {&head, sizeof(head)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = CMSG_SPACE(sizeof(*t) * nodes)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(*t) * nodes);
	memcpy(CMSG_DATA(c), t, sizeof(*t) * nodes);
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(head);
}

/* Fills the seed's socket: it holds all of it, so that nothing has to be sent while the program starts. */
static bool send_start(int fd, const struct options *o, const struct theirs *t)
{
	struct {
		struct nu_boot_head head;
		struct nu_boot_hello hello;
	} m = {.head = {.type = NU_BOOT_HELLO, .len_bytes = sizeof(m.hello)},
	       .hello = {.version = NU_BOOT_VERSION,
			 .count = o->nodes,
			 .launcher = getpid(),
			 .cores = o->cores,
			 .mem_bytes = o->mem_bytes}};
	_Static_assert(sizeof(m) == sizeof(m.head) + sizeof(m.hello), "no padding between them");
	memcpy(m.hello.reader, o->reader, sizeof(m.hello.reader));
	memcpy(m.hello.transport, o->transport, sizeof(m.hello.transport));
	memcpy(m.hello.rdma, o->rdma, sizeof(m.hello.rdma));
	bool ok = getrandom(m.hello.secret, sizeof(m.hello.secret), 0) == (ssize_t)sizeof(m.hello.secret) &&
		  send(fd, &m, sizeof(m), MSG_NOSIGNAL) == (ssize_t)sizeof(m);
	explicit_bzero(m.hello.secret, sizeof(m.hello.secret));
	for (unsigned n = 0; ok && n < o->nodes; n += NU_BOOT_FDS_PER) {
		unsigned some = o->nodes - n < NU_BOOT_FDS_PER ? o->nodes - n : NU_BOOT_FDS_PER;
		ok = send_fds(fd, t + n, some);
	}
	if (!ok)
		launch_say("the nodes' descriptors could not be handed over: %s", strerror(errno));
	return ok;
}

static void __attribute__((noreturn))
child(const struct options *o, int seed, int report, pid_t launcher, const struct rlimit *lim)
{
	char env[32];
	sigset_t none;
	/* Until the nodes are forked this is what ends the program with the launcher; then each node does the same. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != launcher)
		_exit(1);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setrlimit(RLIMIT_NOFILE, lim);
	snprintf(env, sizeof(env), "%d:%d", NU_BOOT_VERSION, seed);
	/* UCX reads these before any code of ours runs. It must not patch mmap and its kin: heaps move by mremap. Unless the
	 * user wants them, neither its own crash reports (ours know proclets) nor its file system with a thread. */
	if (!fcntl(seed, F_SETFD, 0) && !setenv(NU_BOOT_ENV, env, 1) && !setenv("UCX_MEM_EVENTS", "n", 1) &&
	    !setenv("UCX_HANDLE_ERRORS", "none", 0) && !setenv("UCX_VFS_ENABLE", "n", 0))
		execvp(o->argv[0], o->argv);
	int err = errno;
	if (write(report, &err, sizeof(err)) != (ssize_t)sizeof(err))
		_exit(125);
	_exit(err == ENOENT ? 127 : 126);
}

int spawn_program(const struct options *o, struct spawned *s)
{
	int pair[2], report[2], err = 0;
	struct rlimit lim;
	struct theirs *t = launch_alloc(o->nodes * sizeof(*t));
	s->nodes = launch_alloc(o->nodes * sizeof(*s->nodes));
	s->pipes = launch_alloc(o->nodes * sizeof(*s->pipes));

	if (!room_for_fds(o->nodes, &lim) || !make_channels(o->nodes, s, t))
		return 1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || pipe2(report, O_CLOEXEC)) {
		launch_say("no channel for the program: %s", strerror(errno));
		return 1;
	}
	if (!send_start(pair[0], o, t))
		return 1;
	for (unsigned n = 0; n < o->nodes; n++) {
		close(t[n].control);
		close(t[n].out);
		close(t[n].err);
	}
	free(t);
	pid_t self = getpid();
	s->pid = fork();
	if (s->pid < 0) {
		launch_say("fork failed: %s (RLIMIT_NPROC, or a cgroup's pids.max)", strerror(errno));
		return 1;
	}
	if (!s->pid)
		child(o, pair[1], report[1], self, &lim);
	close(pair[1]);
	close(report[1]);
	s->seed = pair[0];
	/* Closed by a successful exec. */
	ssize_t n;
	do {
		n = read(report[0], &err, sizeof(err));
	} while (n < 0 && errno == EINTR);
	close(report[0]);
	if (n != (ssize_t)sizeof(err))
		return 0;
	launch_say("%s: %s", o->argv[0], err == ENOENT ? "no such program" : strerror(err));
	return err == ENOENT ? 127 : 126;
}
