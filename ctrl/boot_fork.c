/* SPDX-License-Identifier: MIT */
/*
 * Before main(): the process that nu_launch exec'd (the seed) forks the nodes here, so that under kernel ASLR all of them
 * have one layout, one stack-protector canary and one pointer guard; then it exits and the launcher, a child subreaper,
 * inherits them. Without a launcher the process is set up as the only node.
 */
#include "boot_int.h"

#include "core/size.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

_Static_assert(NU_BOOT_NODES_MAX == NU_MAX_NODES, "launcher and nodes agree on the number of nodes");

struct nu_boot_options nu_boot_options;
struct nu_boot_state nu_boot_state = {.fd = -1};

struct node_fds {
	int control, out, err;
};

static uint64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int wait_readable(int fd, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	for (;;) {
		int timeout_ms = -1;
		if (deadline_ns) {
			uint64_t now = clock_ns();
			if (now >= deadline_ns)
				return -ETIMEDOUT;
			uint64_t left_ms = (deadline_ns - now) / 1000000 + 1;
			timeout_ms = left_ms < INT_MAX ? (int)left_ms : INT_MAX;
		}
		int n = poll(&p, 1, timeout_ms);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int nu_boot_read(int fd, void *buf, size_t len_bytes, uint64_t deadline_ns)
{
	char *to = buf;
	while (len_bytes) {
		int err = wait_readable(fd, deadline_ns);
		if (err)
			return err;
		ssize_t n = recv(fd, to, len_bytes, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return -EPIPE;
		if (n < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return -errno;
		}
		to += n;
		len_bytes -= (size_t)n;
	}
	return 0;
}

int nu_boot_write(int fd, const struct nu_boot_head *head, const void *payload)
{
	struct iovec iov[2] = {{(void *)head, sizeof(*head)}, {(void *)payload, head->len_bytes}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	while (msg.msg_iovlen) {
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return errno == ECONNRESET ? -EPIPE : -errno;
		}
		size_t left = (size_t)n;
		while (msg.msg_iovlen && left >= msg.msg_iov->iov_len) {
			left -= msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + left;
			msg.msg_iov->iov_len -= left;
		}
	}
	return 0;
}

/* The seed gives up: the launcher prints the reason. */
static void __attribute__((noreturn, format(printf, 2, 3))) seed_fail(int fd, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	struct nu_boot_head head = {.type = NU_BOOT_FAIL, .len_bytes = (uint32_t)strlen(text)};
	if (nu_boot_write(fd, &head, text))
		fprintf(stderr, "nu: %s\n", text);
	_exit(1);
}

#define START_TIMEOUT_NS 10000000000u /* nu_launch has sent all of it before the exec */
/* Whoever holds its other end would not show it to anybody. */
static void __attribute__((noreturn)) seed_silence(void)
{
	fprintf(stderr, "nu: the socket that " NU_BOOT_ENV " names is silent: no nu_launch has made it\n");
	_exit(1);
}

/* What waited in the socket has been taken: in `nu_launch sh -c 'a; b'` by a, whose nodes run, or ran. */
static void __attribute__((noreturn)) seed_too_late(void)
{
	fprintf(stderr,
		"nu: %s: the nodes of this nu_launch have been another program's, which it began before this "
		"one: each program needs an nu_launch of its own\n",
		program_invocation_short_name);
	_exit(1);
}

/* Descriptors come with the first byte of their message; each call takes exactly one message. */
static void seed_receive_fds(int fd, struct node_fds *fds, unsigned count, uint64_t deadline_ns)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 3 * NU_BOOT_FDS_PER)];
		struct cmsghdr align;
	} control;
	for (unsigned have = 0; have < count;) {
		struct nu_boot_head head;
		struct iovec iov = {&head, sizeof(head)};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control.buf,
				     .msg_controllen = sizeof(control.buf)};
		ssize_t n;
		if (wait_readable(fd, deadline_ns))
			seed_silence();
		do {
			n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		} while (n < 0 && errno == EINTR);
		if (n == 0)
			_exit(1); /* the launcher is gone */
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		if (msg.msg_flags & MSG_CTRUNC)
			seed_fail(fd, "RLIMIT_NOFILE is too low: %u nodes need %u descriptors (ulimit -n)",
				  count, 3 * count);
		if (n != sizeof(head) || head.type != NU_BOOT_FDS || head.arg <= 0 || !c ||
		    c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		    (unsigned)head.arg > count - have ||
		    c->cmsg_len != CMSG_LEN(sizeof(struct node_fds) * (unsigned)head.arg))
			seed_fail(fd, "nu_launch's descriptors came out of order: is it of another version?");
		memcpy(&fds[have], CMSG_DATA(c), sizeof(*fds) * (unsigned)head.arg);
		have += (unsigned)head.arg;
	}
}

/* The launcher's word, after which the launcher (or agent) is the parent. */
static void wait_go(int control, const struct nu_boot_hello *hello)
{
	struct nu_boot_head head;
	int32_t pids[NU_MAX_NODES];

	if (nu_boot_read(control, &head, sizeof(head), 0) || head.type != NU_BOOT_GO ||
	    head.len_bytes != hello->count * sizeof(pids[0]) ||
	    nu_boot_read(control, pids, head.len_bytes, 0))
		_exit(1); /* the job is over before it began, and the launcher knows why */
	/* The seed has exited, so the launcher is the parent now; if not, it died and nobody would end this node. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != hello->launcher)
		_exit(1);
	for (unsigned n = 0; n < hello->count; n++)
		nu_node.pids[n] = pids[n];
}

/* Node 0's standard input is the one that the program was started with. */
static void set_streams(unsigned self, const struct node_fds *fds)
{
	if (self) {
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (null < 0 || dup2(null, STDIN_FILENO) < 0)
			_exit(1);
		if (null != STDIN_FILENO)
			close(null);
	}
	if (dup2(fds->out, STDOUT_FILENO) < 0 || dup2(fds->err, STDERR_FILENO) < 0)
		_exit(1);
	close(fds->out);
	close(fds->err);
	setvbuf(stdout, NULL, _IOLBF, 0); /* it is a pipe, but somebody watches it by lines */
}

/* Runs in the host's node number @i, from its fork until the launcher lets it go on into main(). */
static void node_start(unsigned i, const struct nu_boot_hello *hello, struct node_fds *fds)
{
	unsigned count = hello->count;

	for (unsigned n = 0; n < hello->here; n++) {
		if (n == i)
			continue;
		close(fds[n].control);
		close(fds[n].out);
		close(fds[n].err);
	}
	wait_go(fds[i].control, hello);
	/* Lets the other nodes, the launcher's descendants as well, read this one's memory where Yama restricts
	 * ptrace; EINVAL without Yama, where nothing needs allowing. */
	prctl(PR_SET_PTRACER, (unsigned long)hello->launcher);
	/* A terminal's Ctrl-C reaches the whole process group; only the launcher may decide what it means. */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	set_streams(hello->first + i, &fds[i]);

	nu_boot_state.launched = true;
	nu_boot_state.fd = fds[i].control;
	nu_node.self = hello->first + i;
	nu_node.count = count;
	nu_node.cores = hello->cores;
	nu_node.mem_bytes =
		hello->mem_bytes ? hello->mem_bytes : nu_node.mem_bytes / hello->here / NU_MIB * NU_MIB;
	nu_boot_options.mem_bytes = nu_node.mem_bytes;
	nu_node.hosts = hello->hosts;
	for (unsigned n = 0; n < count; n++) {
		nu_node.host_of[n] = hello->host_of[n];
		nu_node.cores_of[n] = hello->cores_of[n];
	}
}

/*
 * Several hosts: the kernel placed everything below a stack limit that was the same for all, without its own randomness,
 * and the C library took its canary and pointer guard from bytes that were. All that is put back for what comes after.
 */
static void layout_was_chosen(int fd, const struct nu_boot_hello *hello)
{
	const struct rlimit lim = {hello->stack_soft, hello->stack_hard};
	const size_t stack = hello->stack_soft == RLIM_INFINITY ? 2 * NU_MIB : (size_t)hello->stack_soft;
	pthread_attr_t attr;

	if (memcmp((void *)getauxval(AT_RANDOM), hello->random, sizeof(hello->random)) != 0)
		seed_fail(
			fd,
			"across hosts nu_launch must start the program itself, not something that starts it "
			"(a script, env, a debugger): its stack protector's word would differ on every host");
	/* The C library has read the limit already: its threads' stacks would be as large. */
	if (setrlimit(RLIMIT_STACK, &lim) || pthread_attr_init(&attr) ||
	    pthread_attr_setstacksize(&attr, NU_ALIGN_UP(stack < 64 * NU_KIB ? 64 * NU_KIB : stack,
							 NU_PAGE_BYTES)) ||
	    pthread_setattr_default_np(&attr))
		seed_fail(fd, "the stack limit of %llu bytes cannot be put back: %s",
			  (unsigned long long)hello->stack_soft, strerror(errno));
	pthread_attr_destroy(&attr);
	/* For what the program starts; this process has its layout. */
	(void)personality(hello->persona);
}

static bool hello_valid(struct nu_boot_hello *h)
{
	h->reader[sizeof(h->reader) - 1] = h->transport[sizeof(h->transport) - 1] = '\0';
	h->rdma[sizeof(h->rdma) - 1] = h->address[sizeof(h->address) - 1] = '\0';
	return h->version == NU_BOOT_VERSION && h->count && h->count <= NU_MAX_NODES && h->here &&
	       h->here <= h->count && h->first <= h->count - h->here && h->cores &&
	       h->cores <= NU_MAX_CORES && h->hosts && h->hosts <= h->count;
}

static void take_options(const struct nu_boot_hello *hello)
{
	nu_boot_options.cores = hello->cores;
	memcpy(nu_boot_options.reader, hello->reader, sizeof(hello->reader));
	memcpy(nu_boot_options.transport, hello->transport, sizeof(hello->transport));
	memcpy(nu_boot_options.rdma, hello->rdma, sizeof(hello->rdma));
	memcpy(nu_boot_options.address, hello->address, sizeof(hello->address));
	memcpy(nu_boot_options.secret, hello->secret, sizeof(hello->secret));
}

/* The seed's work. Returns in the nodes only. */
static void seed_run(int fd)
{
	static struct node_fds fds[NU_MAX_NODES];
	struct nu_boot_head head;
	struct nu_boot_hello hello;
	struct stat st;
	int32_t pids[1 + NU_MAX_NODES];
	uint64_t deadline_ns = clock_ns() + START_TIMEOUT_NS;
	int err;

	err = nu_boot_read(fd, &head, sizeof(head), deadline_ns);
	if (err == -EPIPE) /* with the launcher this process would have been killed */
		seed_too_late();
	if (err)
		seed_silence();
	if (head.type != NU_BOOT_HELLO || head.len_bytes != sizeof(hello) ||
	    nu_boot_read(fd, &hello, sizeof(hello), deadline_ns) || !hello_valid(&hello))
		seed_fail(fd, "nu_launch and libnu are of different versions");
	seed_receive_fds(fd, fds, hello.here, deadline_ns);
	/* A fork copies the calling thread alone: a thread that a library has started would be missing in every node. */
	if (!stat("/proc/self/task", &st) && st.st_nlink > 3)
		seed_fail(fd,
			  "a library has started %u kernel thread(s) before libnu's constructor: the nodes "
			  "cannot be forked",
			  (unsigned)st.st_nlink - 3);
	if (hello.chosen)
		layout_was_chosen(fd, &hello);
	take_options(&hello);
	if (hello.mem_bytes / 2 > nu_node.mem_bytes) /* half of what this host has */
		seed_fail(fd,
			  "--mem: a node's budget of %zu MiB is above the %zu MiB of memory of its host, or "
			  "of the "
			  "control group there",
			  (size_t)hello.mem_bytes / NU_MIB, 2 * nu_node.mem_bytes / NU_MIB);

	pids[0] = getpid();
	for (unsigned n = 0; n < hello.here; n++) {
		pid_t pid = fork();
		if (pid < 0)
			seed_fail(fd, "fork of node %u failed: %s (RLIMIT_NPROC, or a cgroup's pids.max)",
				  hello.first + n, strerror(errno));
		if (!pid) {
			close(fd);
			node_start(n, &hello, fds);
			explicit_bzero(hello.secret, sizeof(hello.secret));
			return;
		}
		pids[1 + n] = pid;
	}
	head = (struct nu_boot_head){.type = NU_BOOT_FORKED,
				     .len_bytes = (uint32_t)((1 + hello.here) * sizeof(pids[0]))};
	/* After the launcher's word, which says that it can see this process end. Its death is an end of file here. */
	if (nu_boot_write(fd, &head, pids) || nu_boot_read(fd, &head, sizeof(head), 0) ||
	    head.type != NU_BOOT_RELEASE)
		_exit(1);
	_exit(0);
}

/* One node, no launcher: core/ has found out what the machine has; the environment may say otherwise. */
static void alone(void)
{
	const char *cores = getenv("NU_CORES"), *mem = getenv("NU_MEM");
	size_t mem_bytes;

	if (cores && *cores) {
		char *end;
		unsigned long v = strtoul(cores, &end, 10);
		if (*cores >= '0' && *cores <= '9' && !*end && v >= 1 && v <= NU_MAX_CORES)
			nu_node.cores = (unsigned)v;
		else
			nu_warn("NU_CORES=%s is not a number of 1 to %d: taking %u", cores, NU_MAX_CORES,
				nu_node.cores);
	}
	if (mem && *mem && !nu_size_parse(mem, &mem_bytes))
		nu_warn("NU_MEM=%s is not a size such as 512M or 4G: taking %zu MiB", mem,
			nu_node.mem_bytes / NU_MIB);
	else if (mem && *mem && mem_bytes / 2 > nu_node.mem_bytes)
		nu_warn("NU_MEM=%s is above the %zu MiB of memory of this host, or of the control group: "
			"taking "
			"%zu MiB",
			mem, 2 * nu_node.mem_bytes / NU_MIB, nu_node.mem_bytes / NU_MIB);
	else if (mem && *mem)
		nu_node.mem_bytes = mem_bytes;
	nu_node.cores_of[0] = (uint8_t)nu_node.cores;
	nu_boot_options.cores = nu_node.cores;
	nu_boot_options.mem_bytes = nu_node.mem_bytes;
	strcpy(nu_boot_options.reader, "auto");
	strcpy(nu_boot_options.transport, "auto");
}

/* After core/ has set up its log (101) and this node's defaults (102), before every constructor of the program. */
static void __attribute__((constructor(103))) nu_boot_constructor(void)
{
	const char *env = getenv(NU_BOOT_ENV);
	struct stat st;
	int fd, version, used = 0;

	if (!env) {
		alone();
		return;
	}
	if (sscanf(env, "%d:%d%n", &version, &fd, &used) != 2 || version != NU_BOOT_VERSION || env[used] ||
	    fd < 3 || fstat(fd, &st) || !S_ISSOCK(st.st_mode)) {
		fprintf(stderr,
			"nu: " NU_BOOT_ENV "=%s names no socket of a nu_launch of this version; something "
			"between it and this program has closed it\n",
			env);
		_exit(1);
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	unsetenv(NU_BOOT_ENV);
	seed_run(fd);
}
