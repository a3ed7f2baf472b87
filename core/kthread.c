/* SPDX-License-Identifier: MIT */
/* The kernel threads that a node has of its own: cores, monitor, control, service. */
#include "core/core.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint live;

struct start {
	void *(*fn)(void *);
	void *arg;
};

unsigned nu_kthreads_live(void)
{
	return atomic_load(&live);
}

static void *kthread_main(void *arg)
{
	struct start s = *(struct start *)arg;
	void *ret;

	free(arg);
	ret = s.fn(s.arg);
	atomic_fetch_sub(&live, 1);
	return ret;
}

int nu_kthread_start(pthread_t *thread_p, const char *what, size_t stack_bytes, void *(*fn)(void *),
		     void *arg)
{
	pthread_attr_t attr;
	struct start *s = malloc(sizeof(*s));
	sigset_t all, old;
	int err;

	if (!s) {
		nu_err("%s: no memory for its kernel thread", what);
		return -ENOMEM;
	}
	*s = (struct start){fn, arg};
	atomic_fetch_add(&live, 1);

	pthread_attr_init(&attr);
	if (stack_bytes)
		pthread_attr_setstacksize(&attr, stack_bytes);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(thread_p, &attr, kthread_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (err) {
		atomic_fetch_sub(&live, 1);
		free(s);
		nu_err("%s: cannot start its kernel thread: %s%s", what, strerror(err),
		       err == EAGAIN ? " (RLIMIT_NPROC, or a cgroup's pids.max)" : "");
	}
	return -err;
}
