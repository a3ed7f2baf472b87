/* SPDX-License-Identifier: MIT */
/*
 * The C library's waits that a signal ends with EINTR whatever SA_RESTART says (signal(7)): threads are interrupted by one
 * each millisecond that others wait for their core. All other signals are blocked there, so no wait that the program's code
 * begins on a core ends with EINTR because of somebody else.
 *
 * Sleeps of a proclet's thread become sleeps of that thread, and its core runs others. Waits for descriptors go on with the time
 * that is left; the core is left to another kernel thread meanwhile (carrier.c). What other code calls, or the program on a kernel
 * thread of its own, is the C library's.
 */
#include "sched/foreign.h"

#include <dlfcn.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000u

/* Fortified programs call these. */
NU_API int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room);
NU_API int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
		       size_t room);

static struct {
	int (*nanosleep)(const struct timespec *ts, struct timespec *left);
	int (*clock_nanosleep)(clockid_t clock, int flags, const struct timespec *ts, struct timespec *left);
	unsigned (*sleep)(unsigned s);
	int (*usleep)(useconds_t us);
	int (*poll)(struct pollfd *fds, nfds_t n, int timeout_ms);
	int (*ppoll)(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
	int (*poll_chk)(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room);
	int (*ppoll_chk)(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
			 size_t room);
	int (*select)(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout);
	int (*pselect)(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
		       const sigset_t *mask);
	int (*epoll_wait)(int fd, struct epoll_event *events, int max, int timeout_ms);
	int (*epoll_pwait)(int fd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask);
	atomic_bool found;
} found;

#define LIBC_FIND(symbol, field) found.field = (__typeof__(found.field))dlsym(RTLD_NEXT, symbol)

static __attribute__((cold, noinline)) void waits_find(void)
{
	LIBC_FIND("nanosleep", nanosleep);
	LIBC_FIND("clock_nanosleep", clock_nanosleep);
	LIBC_FIND("sleep", sleep);
	LIBC_FIND("usleep", usleep);
	LIBC_FIND("poll", poll);
	LIBC_FIND("ppoll", ppoll);
	LIBC_FIND("__poll_chk", poll_chk);
	LIBC_FIND("__ppoll_chk", ppoll_chk);
	LIBC_FIND("select", select);
	LIBC_FIND("pselect", pselect);
	LIBC_FIND("epoll_wait", epoll_wait);
	LIBC_FIND("epoll_pwait", epoll_pwait);
	atomic_store_explicit(&found.found, true, memory_order_release);
}

/* Not in a constructor of ours: those of the libraries that we need come before, and may wait. */
static __typeof__(found) *libc(void)
{
	if (unlikely(!atomic_load_explicit(&found.found, memory_order_acquire)))
		waits_find();
	return &found;
}

/* Whether code at @pc waits as a user-level thread. */
static bool waits_as_thread(const void *pc)
{
	struct nu_thread *t = nu_running();

	return t && !t->preempt_off && nu_preempt_pc_ok(pc);
}

static bool waits_again(int ret)
{
	return ret < 0 && nu_sys_errno == EINTR && nu_running();
}

/* ---- sleeps ---- */

static bool is_time(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < (long)NS_PER_S;
}

static uint64_t time_ns(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec > UINT64_MAX / 2 / NS_PER_S
		       ? UINT64_MAX / 2
		       : (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
	nu_sleep_us((ns + 999) / 1000);
}

NU_API unsigned sleep(unsigned s)
{
	if (!waits_as_thread(__builtin_return_address(0)))
		return libc()->sleep(s);
	nu_sleep_us((uint64_t)s * 1000000);
	return 0;
}

NU_API int usleep(useconds_t us)
{
	if (!waits_as_thread(__builtin_return_address(0)))
		return libc()->usleep(us);
	nu_sleep_us(us);
	return 0;
}

NU_API int nanosleep(const struct timespec *ts, struct timespec *left)
{
	if (!waits_as_thread(__builtin_return_address(0)) || !is_time(ts))
		return libc()->nanosleep(ts, left);
	sleep_ns(time_ns(ts));
	return 0;
}

/* Until @ts on @clock, which the user may set meanwhile. */
static int sleep_until(clockid_t clock, const struct timespec *ts)
{
	struct timespec now;
	uint64_t when = time_ns(ts), now_ns;

	for (;;) {
		if (clock_gettime(clock, &now))
			return EINVAL;
		now_ns = time_ns(&now);
		if (now_ns >= when)
			return 0;
		sleep_ns(when - now_ns);
	}
}

NU_API int clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts, struct timespec *left)
{
	/* Others count a thread's or a process's processor time. */
	bool known = clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME ||
		     clock == CLOCK_TAI;

	if (!known || !is_time(ts) || !waits_as_thread(__builtin_return_address(0)))
		return libc()->clock_nanosleep(clock, flags, ts, left);
	if (flags & TIMER_ABSTIME)
		return sleep_until(clock, ts);
	sleep_ns(time_ns(ts));
	return 0;
}

/* ---- descriptors ---- */

/* When a wait of @timeout_ms ends, for ever: UINT64_MAX; and what is left of it then, rounded up. */
static uint64_t end_of_ms(int timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX : nu_mono_ns() + (uint64_t)timeout_ms * 1000000;
}

static int left_ms(uint64_t end_ns)
{
	uint64_t now = nu_mono_ns();

	return end_ns == UINT64_MAX ? -1 : now >= end_ns ? 0 : (int)((end_ns - now + 999999) / 1000000);
}

static uint64_t end_of(const struct timespec *timeout)
{
	return timeout && is_time(timeout) ? nu_mono_ns() + time_ns(timeout) : UINT64_MAX;
}

/* What is left of @timeout, which stays as it is if it is none or invalid. */
static const struct timespec *left_of(const struct timespec *timeout, uint64_t end_ns, struct timespec *left)
{
	uint64_t now = nu_mono_ns(), ns = now >= end_ns ? 0 : end_ns - now;

	if (end_ns == UINT64_MAX)
		return timeout;
	*left = (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
	return left;
}

/* Errors come back as the C library's: on this kernel thread still, since nothing here switches. */
NU_API int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	uint64_t end = end_of_ms(timeout_ms);
	int ret;

	while (waits_again(ret = libc()->poll(fds, n, timeout_ms)))
		timeout_ms = left_ms(end);
	return ret;
}

int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room)
{
	uint64_t end = end_of_ms(timeout_ms);
	int ret;

	while (waits_again(ret = libc()->poll_chk(fds, n, timeout_ms, room)))
		timeout_ms = left_ms(end);
	return ret;
}

NU_API int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t end = end_of(timeout);
	struct timespec left;
	int ret;

	while (waits_again(ret = libc()->ppoll(fds, n, timeout, mask)))
		timeout = left_of(timeout, end, &left);
	return ret;
}

int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
		size_t room)
{
	uint64_t end = end_of(timeout);
	struct timespec left;
	int ret;

	while (waits_again(ret = libc()->ppoll_chk(fds, n, timeout, mask, room)))
		timeout = left_of(timeout, end, &left);
	return ret;
}

NU_API int select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
	int ret;

	/* The kernel has put what is left into *timeout, and the sets are as they were. */
	do
		ret = libc()->select(n, r, w, e, timeout);
	while (waits_again(ret));
	return ret;
}

NU_API int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
		   const sigset_t *mask)
{
	uint64_t end = end_of(timeout);
	struct timespec left;
	int ret;

	while (waits_again(ret = libc()->pselect(n, r, w, e, timeout, mask)))
		timeout = left_of(timeout, end, &left);
	return ret;
}

NU_API int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
	uint64_t end = end_of_ms(timeout_ms);
	int ret;

	while (waits_again(ret = libc()->epoll_wait(fd, events, max, timeout_ms)))
		timeout_ms = left_ms(end);
	return ret;
}

NU_API int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
	uint64_t end = end_of_ms(timeout_ms);
	int ret;

	while (waits_again(ret = libc()->epoll_pwait(fd, events, max, timeout_ms, mask)))
		timeout_ms = left_ms(end);
	return ret;
}

/* ---- for foreign.c ---- */

/* By names of our own: the public ones may lead to what the program has for them. */
#define WAITS_OWN(name)                                                                                      \
	extern __typeof__(name) nu_waits_##name __attribute__((alias(#name), visibility("hidden")))
WAITS_OWN(poll);
WAITS_OWN(ppoll);
WAITS_OWN(__poll_chk);
WAITS_OWN(__ppoll_chk);
WAITS_OWN(select);
WAITS_OWN(pselect);
WAITS_OWN(epoll_wait);
WAITS_OWN(epoll_pwait);

bool nu_waits_has(uintptr_t function)
{
	const uintptr_t waits[] = {
		(uintptr_t)nu_waits_poll,	(uintptr_t)nu_waits_ppoll,
		(uintptr_t)nu_waits___poll_chk, (uintptr_t)nu_waits___ppoll_chk,
		(uintptr_t)nu_waits_select,	(uintptr_t)nu_waits_pselect,
		(uintptr_t)nu_waits_epoll_wait, (uintptr_t)nu_waits_epoll_pwait,
	};

	for (unsigned i = 0; i < sizeof(waits) / sizeof(waits[0]); i++)
		if (waits[i] == function)
			return true;
	return false;
}
