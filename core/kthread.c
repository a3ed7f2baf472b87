/* SPDX-License-Identifier: MIT */
/* The kernel threads that a node has of its own: cores, monitor, control, service. */
#include "core/core.h"

#include <signal.h>
#include <string.h>

int nu_kthread_start(pthread_t *thread_p, const char *what, size_t stack_bytes, void *(*fn)(void *),
		     void *arg)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int err;

	pthread_attr_init(&attr);
	if (stack_bytes)
		pthread_attr_setstacksize(&attr, stack_bytes);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(thread_p, &attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (err)
		nu_err("%s: cannot start its kernel thread: %s%s", what, strerror(err),
		       err == EAGAIN ? " (RLIMIT_NPROC, or a cgroup's pids.max)" : "");
	return -err;
}
