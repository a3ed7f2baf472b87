/* SPDX-License-Identifier: MIT */
/*
 * exit() while the node runs. The program may call it on any thread, but what it sets off (functions given to atexit(),
 * destructors, of the program and of the libraries that the cores use) must find the runtime taken down, globals that may be
 * written, and a large stack outside of all proclets, where free() takes what main() has allocated. So whoever calls it only
 * says so and waits for the end; the process's first thread, which waits in nu_run(), takes everything down and calls it again.
 *
 * The C library's own callers (err(3), error(3), argp) do not come to the exit() here: they come to exit_heard(), which is
 * registered last before the node runs, and so is called before what the program and the loader have registered.
 */
#include "ctrl/boot.h"
#include "ctrl/ctrl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PARKED_US 1000000000u

typedef void (*exit_fn)(int status) __attribute__((noreturn));

static struct {
	const struct nu_exit_ops *ops;
	atomic_int pid; /* of the process that runs, 0: none does; a child that it forks only leaves */
	atomic_bool called;
	bool heard; /* registered */
} exits;

static exit_fn exit_real(const char *name)
{
	exit_fn fn = (exit_fn)dlsym(RTLD_NEXT, name);

	if (!fn)
		nu_misuse("the C library has no %s()", name);
	return fn;
}

/* A proclet's thread leaves its core to others; any other thread just stays. */
static void __attribute__((noreturn)) exit_park(void)
{
	for (;;) {
		if (nu_thread_self())
			nu_sleep_us(PARKED_US);
		else
			pause();
	}
}

/*
 * Returns if the caller is to go on with its exit(): nothing runs here any more, or it is a handler of the program's own that
 * has interrupted the first thread.
 */
static void exit_begin(int status)
{
	int pid = atomic_load(&exits.pid);

	if (!pid)
		return;
	if (pid != getpid() || (nu_on_core() && !nu_thread_self())) {
		fflush(NULL); /* a child, which has no threads but this; or a handler in the midst of the scheduler */
		_exit(status);
	}
	if (atomic_exchange(&exits.called, true))
		exit_park();
	nu_boot_exit_called(status & 0xff);
	if (syscall(SYS_gettid) == pid) {
		exits.ops->down(status & 0xff);
		return;
	}
	exits.ops->end(status & 0xff);
	exit_park();
}

static void exit_heard(int status, void *arg)
{
	(void)arg;
	exit_begin(status);
}

NU_API void exit(int status)
{
	exit_begin(status);
	exit_real("exit")(status);
}

/* Takes nothing down, by its nature: neither do we. */
NU_API void quick_exit(int status)
{
	int pid = atomic_load(&exits.pid);

	if (pid && pid == getpid() && !atomic_exchange(&exits.called, true)) {
		exits.ops->unprotect();
		nu_boot_exit_called(status & 0xff);
	}
	exit_real("quick_exit")(status);
}

void nu_exits_on(const struct nu_exit_ops *ops)
{
	exits.ops = ops;
	if (!exits.heard && on_exit(exit_heard, NULL))
		nu_warn("no room to be called at exit(): err(3) and its like would crash at the program's "
			"end");
	exits.heard = true;
	atomic_store(&exits.pid, getpid());
}

void nu_exits_off(void)
{
	atomic_store(&exits.pid, 0);
}

bool nu_exit_is_called(void)
{
	return atomic_load(&exits.called);
}
