/* SPDX-License-Identifier: MIT */
/*
 * A core with nothing to run: spins a while, then sleeps on its event, its pollers' descriptors and its first timer.
 *
 * How long it spins follows what sleeping has brought. To wake a processor takes tens of microseconds, and a peer that waits
 * that long goes to sleep itself: two that only just miss each other would wake each other from then on for every batch. So
 * a core that was woken soon by a message spins SPIN_GROWTH times as long the next time, and goes on so until that was in
 * vain. If it is mostly in vain (two virtual processors may take turns on one) it is tried ever more seldom.
 */
#include "sched/sched_int.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#define SPIN_POLLS    16u /* between two looks at the clock and at the rest of the loop's work */
#define SPIN_GROWTH   10
#define IN_VAIN_SHIFT 6 /* at most every 64th time */

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
	uint64_t first = atomic_load_explicit(&c->next_deadline, memory_order_relaxed), now = nu_mono_ns();
	struct timespec ts, *timeout = NULL;

	if (first != UINT64_MAX) {
		if (first <= now)
			return;
		ts.tv_sec = (time_t)((first - now) / 1000000000u);
		ts.tv_nsec = (long)((first - now) % 1000000000u);
		timeout = &ts;
	}
	/* A timer's time is known: to spin until then would gain nothing. */
	if (ppoll(fds, n, timeout, NULL) <= 0 || nu_mono_ns() - now >= nu_sched.spin_ns * SPIN_GROWTH)
		return;
	if (c->spin_skips)
		c->spin_skips--;
	else if (nu_sched.spin_grows)
		c->spin_ns = nu_sched.spin_ns * SPIN_GROWTH;
}

/* Until there is something to do, for a while. */
static void poll_on(struct nu_core *c)
{
	for (unsigned i = 0; i < SPIN_POLLS; i++) {
		if (nu_core_poll(c)) {
			c->polled = true;
			return;
		}
		if (atomic_load_explicit(&c->nqueued, memory_order_relaxed) ||
		    atomic_load_explicit(&c->has_posts, memory_order_relaxed))
			return;
		nu_cpu_relax();
	}
}

void nu_core_rest(void)
{
	nu_core_get()->rests = true;
}

/* Return: whether @c is to go on spinning. */
static bool spin(struct nu_core *c)
{
	uint64_t now;

	if (c->rests) {
		c->rests = false;
		c->spun_ns = 0;
		return false;
	}
	now = nu_mono_ns();
	if (!c->idle_since) {
		if (c->spun_ns > nu_sched.spin_ns) /* the last time, and then there was something to do */
			c->spins_in_vain = 0;
		c->idle_since = now;
	}
	c->spun_ns = now - c->idle_since;
	if (c->spun_ns < c->spin_ns)
		return true;
	if (c->spin_ns > nu_sched.spin_ns) {
		c->spin_skips = 1u << c->spins_in_vain;
		c->spins_in_vain += c->spins_in_vain < IN_VAIN_SHIFT;
	}
	c->spin_ns = nu_sched.spin_ns;
	c->spun_ns = 0;
	return false;
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
	if (nu_sched.spin_ns) {
		if (spin(c)) {
			poll_on(c);
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
