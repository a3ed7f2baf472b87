/* SPDX-License-Identifier: MIT */
/* What the kernel lets a process like ours do. Nothing is concluded from versions: each thing is tried. */
#include "info.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define MEMBARRIER_REGISTER_PRIVATE_EXPEDITED 16

/* Runs @fn in a process of its own. Return: 0, the errno that it gave, or -1 if it died. */
static int in_child(int (*fn)(void *), void *arg)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn(arg));
	if (pid < 0)
		return nu_sys_errno;
	while (waitpid(pid, &status, 0) < 0) {
		if (nu_sys_errno != EINTR)
			return -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char *result(int err)
{
	return err < 0 ? "the process that tried it died" : strerror(err);
}

/* ---- process_vm_readv between two nodes ---- */

static uint64_t word;

struct target {
	pid_t pid;
};

static int read_target(void *arg)
{
	const struct target *t = arg;
	uint64_t got = 0;
	struct iovec to = {&got, sizeof(got)}, from = {&word, sizeof(word)};

	if (process_vm_readv(t->pid, &to, 1, &from, 1, 0) != sizeof(got))
		return nu_sys_errno;
	return got == 0x6e75 ? 0 : EIO;
}

/* The nodes of a job are siblings that name their launcher as tracer: this process plays the launcher. */
static int try_read(void)
{
	int ready[2], done[2], ret;
	struct target t;
	char c;

	if (pipe(ready))
		return nu_sys_errno;
	if (pipe(done)) {
		ret = nu_sys_errno;
		close(ready[0]);
		close(ready[1]);
		return ret;
	}
	t.pid = fork();
	if (!t.pid) {
		close(done[1]);
		close(ready[0]);
		word = 0x6e75;
		prctl(PR_SET_PTRACER, (unsigned long)getppid());
		_exit(write(ready[1], "", 1) != 1 || read(done[0], &c, 1) < 0);
	}
	ret = t.pid < 0 ? nu_sys_errno : 0;
	close(ready[1]);
	close(done[0]);
	if (!ret)
		ret = read(ready[0], &c, 1) == 1 ? in_child(read_target, &t) : EPIPE;
	close(ready[0]);
	close(done[1]);
	if (t.pid > 0)
		waitpid(t.pid, NULL, 0);
	return ret;
}

static void reading(struct info_findings *f)
{
	uint64_t scope = info_file_number("/proc/sys/kernel/yama/ptrace_scope", UINT64_MAX);
	int err = try_read();

	f->cma = !err;
	info_open("process_vm_readv");
	info_bool("works", f->cma);
	if (err)
		info_string("error", result(err));
	if (scope != UINT64_MAX)
		info_number("kernel_yama_ptrace_scope", scope);
	info_close();
	if (!err)
		return;
	snprintf(f->cma_why, sizeof(f->cma_why), "process_vm_readv between two processes: %s", result(err));
	if (scope != UINT64_MAX && scope > 1)
		info_warn("sysctl -w kernel.yama.ptrace_scope=1",
			  "%s (kernel.yama.ptrace_scope is %lu): heaps move by messages, which is slower",
			  f->cma_why, (unsigned long)scope);
	else
		info_warn("docker run --cap-add SYS_PTRACE ...",
			  "%s (a container's seccomp filter?): heaps move by messages, which is slower",
			  f->cma_why);
}

/* ---- what several hosts need: the same layout everywhere ---- */

static int try_personality(void *arg)
{
	int now = personality(0xffffffff);

	if (now < 0 || personality((unsigned long)now | ADDR_NO_RANDOMIZE) < 0)
		return nu_sys_errno;
	return personality(0xffffffff) & ADDR_NO_RANDOMIZE ? 0 : EPERM;
}

static int try_ptrace(void)
{
	int status, ret = 0;
	pid_t pid = fork();

	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(nu_sys_errno);
		raise(SIGSTOP);
		_exit(0);
	}
	if (pid < 0)
		return nu_sys_errno;
	if (waitpid(pid, &status, 0) != pid)
		return nu_sys_errno;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	if (!WIFSTOPPED(status) || ptrace(PTRACE_DETACH, pid, NULL, NULL))
		ret = EPERM;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return ret;
}

static void layout(struct info_findings *f)
{
	int personality_err = in_child(try_personality, NULL), ptrace_err = try_ptrace();

	f->fixed_layout = !personality_err && !ptrace_err;
	info_open("fixed_layout");
	info_bool("personality_addr_no_randomize", !personality_err);
	info_bool("ptrace", !ptrace_err);
	info_number("kernel_randomize_va_space",
		    info_file_number("/proc/sys/kernel/randomize_va_space", UINT64_MAX));
	info_close();
	if (f->fixed_layout)
		return;
	snprintf(f->fixed_why, sizeof(f->fixed_why), "%s: %s",
		 personality_err ? "personality(ADDR_NO_RANDOMIZE)" : "ptrace",
		 result(personality_err ? personality_err : ptrace_err));
	info_warn("docker run --security-opt seccomp=unconfined ...",
		  "%s: a job over several hosts cannot give its nodes the same layout here", f->fixed_why);
}

/* ---- seccomp and capabilities ---- */

static void status_line(const char *key, char *buf, size_t len)
{
	FILE *s = fopen("/proc/self/status", "re");
	char line[256];
	size_t n = strlen(key);

	buf[0] = '\0';
	while (s && fgets(line, sizeof(line), s)) {
		if (strncmp(line, key, n) || line[n] != ':')
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(buf, len, "%s", line + n + 1 + strspn(line + n + 1, " \t"));
	}
	if (s)
		fclose(s);
}

static void confinement(void)
{
	static const char *const modes[] = {"none", "strict", "filter"};
	char text[64];

	status_line("Seccomp", text, sizeof(text));
	info_string("seccomp", text[0] >= '0' && text[0] <= '2' ? modes[text[0] - '0'] : "unknown");
	status_line("CapEff", text, sizeof(text));
	info_string("capabilities", text);
	info_number("user", getuid());
}

/* ---- system calls ---- */

static bool has_dontunmap(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *from = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to;

	if (from == MAP_FAILED)
		return false;
	*from = 1;
	to = mremap(from, page, page, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	munmap(from, page);
	if (to == MAP_FAILED)
		return false;
	munmap(to, page);
	return true;
}

static bool has_populate(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool has;

	if (p == MAP_FAILED)
		return false;
	has = !madvise(p, page, MADV_POPULATE_WRITE);
	munmap(p, page);
	return has;
}

static bool has_pidfd(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool has_membarrier(void)
{
	return !syscall(SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

static void calls(void)
{
	static const struct {
		const char *key, *since, *without;
		bool (*try)(void);
		bool needed;
	} all[] = {
		{"mremap_dontunmap", "5.7", "a system call more for each extent of a heap that moves",
		 has_dontunmap, false},
		{"madvise_populate_write", "5.14", "pages are touched one by one before they are needed",
		 has_populate, false},
		{"membarrier_private_expedited", "4.14", NULL, has_membarrier, false},
		{"pidfd_open", "5.3", "nu_launch and the reader cma do not work", has_pidfd, true},
	};

	info_open("system_calls");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		bool has = all[i].try();

		info_bool(all[i].key, has);
		if (!has && all[i].without)
			(all[i].needed ? info_warn
				       : info_note)("", "the kernel has no %s (Linux %s, or a filter): %s",
						    all[i].key, all[i].since, all[i].without);
	}
	info_close();
}

void info_kernel(struct info_findings *f)
{
	info_open("permissions");
	confinement();
	reading(f);
	layout(f);
	calls();
	info_close();
}
