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
static bool send_start(int fd, const struct spawn *how, const struct theirs *t)
{
	struct {
		struct nu_boot_head head;
		struct nu_boot_hello hello;
	} m = {.head = {.type = NU_BOOT_HELLO, .len_bytes = sizeof(m.hello)}, .hello = how->hello};
	_Static_assert(sizeof(m) == sizeof(m.head) + sizeof(m.hello), "no padding between them");
	m.hello.launcher = getpid();
	layout_note(&m.hello);
	bool ok = send(fd, &m, sizeof(m), MSG_NOSIGNAL) == (ssize_t)sizeof(m);
	explicit_bzero(m.hello.secret, sizeof(m.hello.secret));
	for (unsigned n = 0; ok && n < how->hello.here; n += NU_BOOT_FDS_PER) {
		unsigned some = how->hello.here - n < NU_BOOT_FDS_PER ? how->hello.here - n : NU_BOOT_FDS_PER;
		ok = send_fds(fd, t + n, some);
	}
	if (!ok)
		launch_say("the nodes' descriptors could not be handed over: %s", strerror(errno));
	return ok;
}

void spawn_hello(struct nu_boot_hello *hello, const struct options *o)
{
	*hello = (struct nu_boot_hello){.version = NU_BOOT_VERSION,
					.count = o->nodes,
					.here = o->nodes,
					.hosts = 1,
					.cores = o->cores,
					.mem_bytes = o->mem_bytes};
	memcpy(hello->reader, o->reader, sizeof(hello->reader));
	memcpy(hello->transport, o->transport, sizeof(hello->transport));
	memcpy(hello->rdma, o->rdma, sizeof(hello->rdma));
	memset(hello->cores_of, (int)o->cores, o->nodes);
}

/* Why there was no exec, on the way from the child. */
struct report {
	int err;  /* 0: something is forbidden */
	int what; /* layout_forbidden() */
};

static void __attribute__((noreturn))
child(const struct spawn *how, int seed, int report, pid_t launcher, const struct rlimit *lim)
{
	struct report r = {0};
	char env[32], file[32];
	/* Until the nodes are forked this is what ends the program with the launcher; then each node does the same. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != launcher)
		_exit(1);
	signals_reset();
	setrlimit(RLIMIT_NOFILE, lim);
	snprintf(env, sizeof(env), "%d:%d", NU_BOOT_VERSION, seed);
	/* UCX reads these before any code of ours runs. It must not patch mmap and its kin: heaps move by mremap. Unless the
	 * user wants them, neither its own crash reports (ours know proclets) nor its file system with a thread. */
	if (fcntl(seed, F_SETFD, 0) || setenv(NU_BOOT_ENV, env, 1) || setenv("UCX_MEM_EVENTS", "n", 1) ||
	    setenv("UCX_HANDLE_ERRORS", "none", 0) || setenv("UCX_VFS_ENABLE", "n", 0) ||
	    (how->stdin_fd >= 0 && dup2(how->stdin_fd, STDIN_FILENO) < 0)) {
		r.err = errno;
	} else if (how->hello.chosen && layout_apply(&how->hello, &r.what)) {
		r.err = 0;
	} else if (how->program_fd >= 0) {
		snprintf(file, sizeof(file), "/proc/self/fd/%d", how->program_fd);
		execv(file, how->argv);
		r = (struct report){.err = errno};
	} else {
		execvp(how->argv[0], how->argv);
		r = (struct report){.err = errno};
	}
	if (write(report, &r, sizeof(r)) != (ssize_t)sizeof(r))
		_exit(125);
	_exit(r.err == ENOENT ? 127 : 126);
}

/* Waits until the program runs: 0, or the launcher's exit status with the cause said. */
static int wait_exec(const struct spawn *how, pid_t pid, int report)
{
	struct report r;
	ssize_t n;
	int err = how->hello.chosen ? layout_finish(pid, &how->hello) : 0;
	/* Closed by a successful exec. */
	do {
		n = read(report, &r, sizeof(r));
	} while (n < 0 && errno == EINTR);
	close(report);
	if (n == (ssize_t)sizeof(r)) {
		if (r.err)
			launch_say("%s: %s", how->argv[0],
				   r.err == ENOENT ? "no such program" : strerror(r.err));
		else
			launch_say("%s", layout_forbidden(r.what));
		return r.err == ENOENT ? 127 : 126;
	}
	if (!err)
		return 0;
	launch_say("%s: its start could not be prepared by ptrace: %s", how->argv[0], strerror(-err));
	return 126;
}

int spawn_program(const struct spawn *how, struct spawned *s)
{
	int pair[2], report[2];
	unsigned nodes = how->hello.here;
	struct rlimit lim;
	struct theirs *t = launch_alloc(nodes * sizeof(*t));
	s->nodes = launch_alloc(nodes * sizeof(*s->nodes));
	s->pipes = launch_alloc(nodes * sizeof(*s->pipes));

	if (!room_for_fds(nodes, &lim) || !make_channels(nodes, s, t))
		return 1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || pipe2(report, O_CLOEXEC)) {
		launch_say("no channel for the program: %s", strerror(errno));
		return 1;
	}
	if (!send_start(pair[0], how, t))
		return 1;
	for (unsigned n = 0; n < nodes; n++) {
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
		child(how, pair[1], report[1], self, &lim);
	close(pair[1]);
	close(report[1]);
	s->seed = pair[0];
	return wait_exec(how, s->pid, report[0]);
}
