/* SPDX-License-Identifier: MIT */
/*
 * One layout on several hosts, where no common fork makes it: without the kernel's own randomness everything that is
 * mapped lies below a gap of RLIMIT_STACK, so one random limit for the job places it at a random address that is the same
 * everywhere; and the C library makes its canary and pointer guard of the 16 bytes at AT_RANDOM, which are set at the
 * stop after the exec. The program itself (if it is position-independent) and its break stay where the kernel puts them
 * without randomness. What the constructor finds so it puts back (boot_fork.c).
 */
#include "launch.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define GAP_MIN	   ((uint64_t)1 << 30)
#define GAP_SPAN                                                                                             \
	((uint64_t)1 << 45) /* 32 TiB below the stack: above the program, which begins at two thirds */

enum { PERSONALITY = 1, STACK_LIMIT, PTRACE };

int layout_choose(struct nu_boot_hello *hello)
{
	uint64_t where;
	if (getrandom(hello->random, sizeof(hello->random), 0) != (ssize_t)sizeof(hello->random) ||
	    getrandom(&where, sizeof(where), 0) != (ssize_t)sizeof(where))
		return -errno;
	hello->chosen = GAP_MIN + where % (GAP_SPAN / PAGE_BYTES) * PAGE_BYTES;
	return 0;
}

void layout_note(struct nu_boot_hello *hello)
{
	struct rlimit lim;
	if (!hello->chosen)
		return;
	getrlimit(RLIMIT_STACK, &lim);
	hello->stack_soft = lim.rlim_cur;
	hello->stack_hard = lim.rlim_max;
	hello->persona = (uint32_t)personality(0xffffffff);
}

int layout_apply(const struct nu_boot_hello *hello, int *what_p)
{
	struct rlimit lim = {hello->chosen, RLIM_INFINITY};
	int persona = personality(0xffffffff);
	*what_p = PERSONALITY;
	if (persona < 0 || personality((unsigned long)persona | ADDR_NO_RANDOMIZE) < 0)
		return -errno;
	*what_p = STACK_LIMIT;
	getrlimit(RLIMIT_STACK, &lim);
	lim.rlim_cur = hello->chosen;
	if (lim.rlim_max < lim.rlim_cur)
		return -EPERM;
	if (setrlimit(RLIMIT_STACK, &lim))
		return -errno;
	*what_p = PTRACE;
	return ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? -errno : 0;
}

const char *layout_forbidden(int what)
{
	switch (what) {
	case PERSONALITY:
		return "personality(ADDR_NO_RANDOMIZE) is forbidden here, and without it hosts have no "
		       "common layout: "
		       "in a container, allow it (docker run --security-opt seccomp=unconfined)";
	case STACK_LIMIT:
		return "RLIMIT_STACK cannot be raised here, and the job's common layout is made by it: "
		       "allow an unlimited hard limit (ulimit -Hs)";
	default:
		return "ptrace of an own child is forbidden here, and the job's common stack protector is "
		       "set by it: "
		       "in a container, allow it (docker run --cap-add SYS_PTRACE); else see "
		       "kernel.yama.ptrace_scope, which must be below 3";
	}
}

/* The address of the 16 bytes. */
static int find_random(pid_t pid, uintptr_t *at_p)
{
	char path[64];
	Elf64_auxv_t v;
	int err = -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (err && read(fd, &v, sizeof(v)) == (ssize_t)sizeof(v)) {
		if (v.a_type != AT_RANDOM)
			continue;
		*at_p = v.a_un.a_val;
		err = 0;
	}
	close(fd);
	return err;
}

static int set_random(pid_t pid, const uint8_t *random)
{
	uintptr_t at = 0;
	int err = find_random(pid, &at);
	for (unsigned i = 0; i < 16 && !err; i += sizeof(long)) {
		long word;
		memcpy(&word, random + i, sizeof(word));
		if (ptrace(PTRACE_POKEDATA, pid, (void *)(at + i), (void *)word))
			err = -errno;
	}
	return err;
}

int layout_finish(pid_t pid, const struct nu_boot_hello *hello)
{
	int st, err = 0;
	for (;;) {
		if (waitpid(pid, &st, 0) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (!WIFSTOPPED(st))
			return -ECHILD; /* killed */
		if (WSTOPSIG(st) == SIGTRAP)
			break;
		/* Something else that reached it before the exec. */
		if (ptrace(PTRACE_CONT, pid, NULL, (void *)(long)WSTOPSIG(st)))
			return -errno;
	}
	err = set_random(pid, hello->random);
	if (!err && ptrace(PTRACE_DETACH, pid, NULL, NULL))
		err = -errno;
	if (err)
		kill(pid, SIGKILL);
	return err;
}
