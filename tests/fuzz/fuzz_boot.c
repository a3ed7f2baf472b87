/* SPDX-License-Identifier: MIT */
/*
 * A program's side of its start: the constructor's talk with nu_launch, the exchange of blobs, the control thread.
 * Input: which, and what the launcher's end of the socket says before it closes.
 */
#include "fuzz.h"

#include "ctrl/boot_int.h"

#include "core/size.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static jmp_buf left;
static void __attribute__((noreturn)) fuzz_exit(int status)
{
	longjmp(left, 1);
}
static int pretend(void)
{
	return 0;
}
static int fork_result;
static int no_fork(void)
{
	return fork_result;
}

#define _exit(status)	fuzz_exit(status)
#define fork()		no_fork()
#define prctl(...)	pretend()
#define signal(...)	((void)0)
#define dup2(...)	0
#define setvbuf(...)	((void)0)
#define fprintf(f, ...) ((void)snprintf(fuzz_text, sizeof(fuzz_text), __VA_ARGS__))
static char fuzz_text[1024];

#include "ctrl/boot.c"
#include "ctrl/boot_fork.c"

#undef fprintf

static void on_dead(unsigned node)
{
	FUZZ_CHECK(node < nu_node.count);
}
static void on_end(int status)
{
}
static void on_ctl(uint64_t request, const char *command)
{
	FUZZ_CHECK(strlen(command) <= NU_BOOT_TEXT_MAX);
	nu_boot_ctl_reply(request, 0, command);
}

static void run(unsigned which, int fd)
{
	static const struct nu_boot_ops ops = {on_dead, on_end, on_ctl};
	static struct node_fds fds[NU_MAX_NODES];
	struct nu_boot_hello hello = {
		.count = nu_node.count, .here = nu_node.count, .hosts = 1, .cores = 1, .launcher = getppid()};
	void *all[NU_MAX_NODES];
	size_t lens[NU_MAX_NODES];

	switch (which % 4) {
	case 0:
		for (unsigned i = 0; i < 3 && !nu_boot_exchange("mine", 4, all, lens); i++) {
			for (unsigned n = 0; n < nu_node.count; n++)
				free(all[n]);
		}
		break;
	case 1:
		control_thread((void *)&ops);
		break;
	case 2:
		fork_result = which & 4 ? -1 : 1000;
		seed_run(dup(fd));
		break;
	default:
		for (unsigned n = 0; n < NU_MAX_NODES; n++)
			fds[n] = (struct node_fds){-1, -1, -1};
		fds[1].control = fd;
		node_start(1, &hello, fds);
	}
}

/* Descriptors beyond those that were open before: some come with messages. */
static void close_others(int from)
{
	for (int fd = from; fd < from + 16; fd++)
		close(fd);
}

static bool send_input(int fd, const uint8_t *data, size_t len, bool with_fd)
{
	char control[CMSG_SPACE(3 * sizeof(int))] = {0};
	struct iovec iov = {(void *)data, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[3] = {fd, fd, fd};

	if (with_fd) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fds));
		memcpy(CMSG_DATA(c), fds, sizeof(fds));
	}
	return !len || sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct in in = {data, len};
	volatile unsigned which = in_u8(&in);
	volatile int pair[2];
	size_t hello = sizeof(struct nu_boot_head) + sizeof(struct nu_boot_hello);
	int fds[2], sink;

	if (in.left > 65536 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return 0;
	pair[0] = fds[0];
	pair[1] = fds[1];
	nu_node.count = 1 + which / 16 % 4;
	nu_node.self = 0;
	nu_boot_state = (struct nu_boot_state){.launched = true, .fd = fds[0]};
	boot_ops = NULL;
	exchange_round = exchange_broken = 0;
	memset(died_early, 0, sizeof(died_early));
	/* The seed's descriptors come with the message after HELLO. */
	if (which % 4 == 2 && in.left > hello)
		sink = send_input(fds[1], in.at, hello, false) &&
		       send_input(fds[1], in.at + hello, in.left - hello, which & 8);
	else
		sink = send_input(fds[1], in.at, in.left, false);
	if (sink) {
		shutdown(fds[1], SHUT_WR);
		if (!setjmp(left))
			run(which, fds[0]);
	}
	close(pair[0]);
	close(pair[1]);
	close_others(pair[1] + 1);
	nu_node.count = 1;
	return 0;
}
