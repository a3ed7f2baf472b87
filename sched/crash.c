/* SPDX-License-Identifier: MIT */
/* A thread that crashes: said who it was, a stack overflow named as such; then the default action. */
#include "sched/sched_int.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
#define NSIGNALS (sizeof(crash_signals) / sizeof(crash_signals[0]))
static struct sigaction old_actions[NSIGNALS];
static bool installed;

/* printf is not for signal handlers. */
struct line {
	char text[256];
	size_t len;
};

static void add(struct line *l, const char *s)
{
	while (*s && l->len < sizeof(l->text) - 1)
		l->text[l->len++] = *s++;
}

static void add_number(struct line *l, uint64_t v, unsigned base)
{
	char digits[24];
	size_t i = sizeof(digits) - 1;

	digits[i] = 0;
	do {
		digits[--i] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (base == 16)
		add(l, "0x");
	add(l, digits + i);
}

static const char *signal_name(int signo)
{
	switch (signo) {
	case SIGSEGV:
		return "SIGSEGV";
	case SIGBUS:
		return "SIGBUS";
	case SIGILL:
		return "SIGILL";
	default:
		return "SIGFPE";
	}
}

static void describe(struct nu_thread *t, int signo, void *addr)
{
	uintptr_t slot = t ? nu_stack_slot(t) : 0;
	struct line l = {.len = 0};

	add(&l, "nu: node ");
	add_number(&l, nu_node.self, 10);
	if (slot && (uintptr_t)addr - slot < PAGE) {
		add(&l, ": stack overflow in thread ");
	} else {
		add(&l, ": ");
		add(&l, signal_name(signo));
		add(&l, " at ");
		add_number(&l, (uintptr_t)addr, 16);
		add(&l, t ? " in thread " : " in the runtime of core ");
	}
	add_number(&l, t ? (uintptr_t)t : nu_core_self(), t ? 16 : 10);
	if (t) {
		add(&l, " of proclet ");
		add_number(&l, t->proclet_id, 16);
	}
	if (slot && (uintptr_t)addr - slot < PAGE) {
		add(&l, " (stacks have ");
		add_number(&l, nu_layout.stack_bytes >> 10, 10);
		add(&l, " KiB: NU_STACK_KIB)");
	}
	add(&l, "\n");
	ssize_t ignored = write(STDERR_FILENO, l.text, l.len);
	(void)ignored;
}

static void on_crash(int signo, siginfo_t *info, void *frame)
{
	struct nu_thread *t = nu_thread_self();

	if (nu_on_core()) {
		describe(t, signo, info->si_addr);
		if (nu_sched.ops.crashed)
			nu_sched.ops.crashed(t, signo, info->si_addr);
	}
	signal(signo, SIG_DFL);
	if (info->si_code <= 0) /* sent, not caused: returning would not bring it again */
		syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), signo);
}

int nu_crash_init(void)
{
	struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < NSIGNALS; i++)
		if (sigaction(crash_signals[i], &sa, &old_actions[i]))
			return -nu_sys_errno;
	installed = true;
	return 0;
}

void nu_crash_fini(void)
{
	for (unsigned i = 0; installed && i < NSIGNALS; i++)
		sigaction(crash_signals[i], &old_actions[i], NULL);
	installed = false;
}
