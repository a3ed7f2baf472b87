/* SPDX-License-Identifier: MIT */
/*
 * What a proclet's thread does to itself by the C library: raise() and pthread_exit(). The kernel threads that run it block nearly
 * all signals, so a signal raised there would stay pending for ever; and it is no kernel thread that could exit.
 */
#include "ctrl/boot.h"
#include "ctrl/ctrl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <threads.h>

typedef int (*raise_fn)(int signo);
typedef void (*pthread_exit_fn)(void *value) __attribute__((noreturn));
typedef void (*thrd_exit_fn)(int value) __attribute__((noreturn));

/* "thread 0x... of proclet 0x..., method a.b" */
static const char *thread_name(const struct nu_thread *t, char *buf, size_t len)
{
	const struct nu_method *m = t->serve_method;

	snprintf(buf, len, "thread %p of proclet %#lx%s%s%s%s", (const void *)t, (unsigned long)t->proclet_id,
		 m ? ", method " : "", m ? m->class_name : "", m ? "." : "", m ? m->name : "");
	return buf;
}

static bool raise_kills(int signo)
{
	static const int spare[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU};
	struct sigaction sa;

	for (unsigned i = 0; i < sizeof(spare) / sizeof(spare[0]); i++) {
		if (spare[i] == signo)
			return false;
	}
	if (sigaction(signo, NULL, &sa))
		return false;
	/* Nodes ignore these two for the launcher's sake, who takes the terminal's: not for the program's own. */
	return sa.sa_handler == SIG_DFL ||
	       (sa.sa_handler == SIG_IGN && nu_boot_launched() && (signo == SIGINT || signo == SIGHUP));
}

NU_API int raise(int signo)
{
	raise_fn real = (raise_fn)dlsym(RTLD_NEXT, "raise");
	struct nu_thread *t = nu_thread_self();
	sigset_t blocked, one;
	char name[160];
	int ret;

	if (!t || pthread_sigmask(SIG_BLOCK, NULL, &blocked) || sigismember(&blocked, signo) != 1)
		return real(signo);
	if (raise_kills(signo)) {
		nu_err("SIG%s is raised in %s: the node ends by it",
		       sigabbrev_np(signo) ? sigabbrev_np(signo) : "?", thread_name(t, name, sizeof(name)));
		signal(signo, SIG_DFL);
	}
	/* A handler runs before raise() returns, as elsewhere, and on this core: the mask is its own. */
	t->preempt_off++;
	sigemptyset(&one);
	sigaddset(&one, signo);
	pthread_sigmask(SIG_UNBLOCK, &one, NULL);
	ret = real(signo);
	pthread_sigmask(SIG_BLOCK, &one, NULL);
	t->preempt_off--;
	return ret;
}

static void no_exit(const char *what)
{
	struct nu_thread *t = nu_thread_self();
	char name[160];

	if (t)
		nu_misuse("%s() in %s: a proclet's thread ends when its function returns", what,
			  thread_name(t, name, sizeof(name)));
}

NU_API void pthread_exit(void *value)
{
	no_exit("pthread_exit");
	((pthread_exit_fn)dlsym(RTLD_NEXT, "pthread_exit"))(value);
}

NU_API void thrd_exit(int value)
{
	no_exit("thrd_exit");
	((thrd_exit_fn)dlsym(RTLD_NEXT, "thrd_exit"))(value);
}
