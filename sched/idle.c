/* SPDX-License-Identifier: MIT */
/* A core with nothing to run: spins a while, then sleeps on its event, its pollers' descriptors and its first timer. */
#include "sched/sched_int.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

static void wake(struct nu_core *c)
{
	uint64_t one = 1;

	/* Only a full counter fails, and then it is readable. */
	ssize_t ignored = write(c->event_fd, &one, sizeof(one));
	(void)ignored;
}

static bool take_sleep(struct nu_core *c)
{
	unsigned yes = 1;

	if (!atomic_compare_exchange_strong(&c->sleeping, &yes, 0))
		return false;
	atomic_fetch_sub(&nu_sched.nsleeping, 1);
	return true;
}

void nu_core_kick(struct nu_core *c)
{
	/* Pairs with the sleeper's: either it sees what was queued or we see it asleep. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&c->sleeping, memory_order_relaxed) && take_sleep(c))
		wake(c);
}

void nu_core_kick_thief(struct nu_core *but)
{
	for (unsigned i = 0; i < nu_sched.ncores; i++) {
		struct nu_core *c = nu_sched.cores[i];

		if (c == but || !atomic_load_explicit(&c->sleeping, memory_order_relaxed) || !take_sleep(c))
			continue;
		atomic_store(&c->hungry, true);
		wake(c);
		return;
	}
}

static bool has_work(struct nu_core *c)
{
	return atomic_load(&c->nqueued) || atomic_load(&c->has_posts) || atomic_load(&nu_sched.stop);
}

/* Somebody else's backlog, which he may have built up before he could see us asleep. */
static bool others_have_work(struct nu_core *c)
{
	for (unsigned i = 0; i < nu_sched.ncores; i++)
		if (nu_sched.cores[i] != c && atomic_load(&nu_sched.cores[i]->nqueued) >= 2)
			return true;
	return false;
}

/* Fills in what to sleep on. False: a poller has events, do not sleep. */
static bool arm_all(struct nu_core *c, struct pollfd *fds, nfds_t *n_p)
{
	nfds_t n = 0;

	fds[n++] = (struct pollfd){.fd = c->event_fd, .events = POLLIN};
	for (unsigned i = 0; i < nu_sched.npollers; i++) {
		int fd = nu_sched.pollers[i].arm ? nu_sched.pollers[i].arm(c->index) : -1;

		if (fd == -EBUSY)
			return false;
		if (fd >= 0)
			fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	*n_p = n;
	return true;
}

static void sleep_on(struct nu_core *c, struct pollfd *fds, nfds_t n)
{
	uint64_t first = atomic_load_explicit(&c->next_deadline, memory_order_relaxed), now;
	struct timespec ts, *timeout = NULL;

	if (first != UINT64_MAX) {
		now = nu_mono_ns();
		if (first <= now)
			return;
		ts.tv_sec = (time_t)((first - now) / 1000000000u);
		ts.tv_nsec = (long)((first - now) % 1000000000u);
		timeout = &ts;
	}
	ppoll(fds, n, timeout, NULL);
}

static void core_sleep(struct nu_core *c)
{
	struct pollfd fds[NU_MAX_POLLERS + 1];
	nfds_t n = 0;
	uint64_t count;

	nu_stat_add(c->index, NU_STAT_SLEEPS, 1);
	atomic_store(&c->sleeping, 1);
	atomic_fetch_add(&nu_sched.nsleeping, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (!has_work(c) && !others_have_work(c) && arm_all(c, fds, &n))
		sleep_on(c, fds, n);
	if (!take_sleep(c)) { /* a waker took it and has written, or is about to */
		ssize_t got = read(c->event_fd, &count, sizeof(count));
		(void)got;
	}
	c->idle_since = 0;
}

void nu_core_idle(struct nu_core *c)
{
	uint64_t now;

	if (nu_sched.spin_ns) {
		now = nu_mono_ns();
		if (!c->idle_since)
			c->idle_since = now;
		if (now - c->idle_since < nu_sched.spin_ns) {
			nu_cpu_relax();
			return;
		}
	} else if (!c->idle_since) {
		extern int sched_yield(void);
		c->idle_since = 1;
		sched_yield();
		return;
	}
	atomic_store(&c->hungry, false);
	if (!nu_timers_help(c))
		core_sleep(c);
}
