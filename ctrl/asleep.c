/* SPDX-License-Identifier: MIT */
/*
 * A look at a node: does every thread wait for another one, and can nothing wake them from outside? In doubt it does not.
 *
 * A call is waited for by the thread that made it and served by another, which names the first and the call's number. Each
 * side adds up what it has, here or on other nodes; over all nodes the sums are equal if no call and no answer is under way.
 */
#include "ctrl/asleep.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define FIRST_RT_SIGNAL 34 /* those before are the C library's own */

static struct {
	int program, libraries, last; /* kernel threads: the program's at its start; UCX's and the like */
	const struct nu_thread *except;
} asleep;

/* ---- what is not of the runtime ---- */

/* Kernel threads beside the first one and the runtime's. */
static int foreign_threads(void)
{
	struct stat st;

	if (stat("/proc/self/task", &st))
		return 1;
	return (int)st.st_nlink - 2 - 1 - (int)nu_kthreads_live();
}

void nu_asleep_start(enum nu_asleep_step step)
{
	int now = foreign_threads(), more = now - asleep.last;

	if (step == NU_ASLEEP_BEGIN || step == NU_ASLEEP_INIT_DONE)
		asleep.program += more;
	else
		asleep.libraries += more;
	asleep.last = now;
}

void nu_asleep_except(const struct nu_thread *t)
{
	asleep.except = t;
}

const struct nu_thread *nu_asleep_excepted(void)
{
	return asleep.except;
}

/* UCX's own, for SIGHUP where it may, wakes nobody. */
static bool is_of_ucx(const struct sigaction *sa)
{
	struct nu_symbol s;
	const char *name;

	if (!nu_symbol_find((const void *)sa->sa_handler, &s))
		return false;
	name = strrchr(s.object, '/');
	return !strncmp(name ? name + 1 : s.object, "libucs", 6);
}

/* A handler of a signal may wake somebody. */
static bool handles_signals(void)
{
	static const int ours[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGURG};
	struct sigaction sa;

	for (int s = 1; s < NSIG; s++) {
		bool own = s >= SIGSYS + 1 && s < FIRST_RT_SIGNAL;

		for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
			own |= ours[i] == s;
		if (!own && !sigaction(s, NULL, &sa) && sa.sa_handler != SIG_DFL &&
		    sa.sa_handler != SIG_IGN && !is_of_ucx(&sa))
			return true;
	}
	return false;
}

/* A call whose caller's deadline has passed is waited for by nobody, and may be on its way all the same. */
static bool has_sent(void)
{
	return nu_stat_sum(NU_STAT_BATCHES_KEPT) != nu_stat_sum(NU_STAT_BATCHES_SETTLED);
}

static bool may_be_woken_from_outside(void)
{
	return has_sent() || atomic_load(&nu_node.any_dead) || foreign_threads() != asleep.libraries ||
	       handles_signals();
}

/* ---- threads ---- */

static uint64_t mix(uint64_t thread, uint64_t seq)
{
	uint64_t x = thread ^ seq * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Its proclet's lock is held. False: it runs, or will by itself. */
static bool look_at_thread(const struct nu_thread *t, struct nu_asleep *a)
{
	uint32_t state = __atomic_load_n(&t->state, __ATOMIC_ACQUIRE);
	uint64_t seq = __atomic_load_n(&t->wait_seq, __ATOMIC_ACQUIRE);
	uint64_t deadline = __atomic_load_n(&t->deadline_ns, __ATOMIC_RELAXED);

	if (state == NU_THREAD_SPARE || state == NU_THREAD_DONE)
		return true;
	if (state != NU_THREAD_BLOCKED || atomic_load(&t->running) || deadline)
		return false;
	switch (t->wait) {
	case NU_WAIT_SYNC:
		break;
	case NU_WAIT_REPLY_LOCAL:
	case NU_WAIT_REPLY_REMOTE:
		if (!seq || t->wait_done)
			return false;
		a->waits += mix((uint64_t)t, seq);
		break;
	default:
		return false;
	}
	if (t->reply_proclet)
		a->serves += mix((uint64_t)t->reply_thread, t->reply_seq);
	a->threads++;
	return true;
}

static void look_at_proclet(struct nu_proclet *p, void *arg)
{
	const struct nu_thread *self = nu_thread_self();
	struct nu_asleep *a = arg;
	struct nu_list *l;

	if (!a->asleep)
		return;
	nu_lock_acquire(&p->lock);
	a->asleep = !p->frozen && !p->nheld && !p->hold_output && !p->move_claimed && !p->arriving_busy &&
		    (p->state == NU_PROCLET_PRESENT || p->state == NU_PROCLET_MOVED ||
		     p->state == NU_PROCLET_NONE);
	nu_list_for_each (l, &p->threads) {
		const struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if (t != self && t != asleep.except && !look_at_thread(t, a)) {
			a->asleep = 0;
			break;
		}
	}
	nu_lock_release(&p->lock);
}

void nu_asleep_look(struct nu_asleep *a, uint64_t served)
{
	*a = (struct nu_asleep){.asleep = !may_be_woken_from_outside()};
	if (a->asleep)
		nu_proclet_for_each(look_at_proclet, a);
	if (!a->asleep)
		*a = (struct nu_asleep){0};
	a->activity = nu_stat_sum(NU_STAT_CALLS_SERVED) - served + nu_stat_sum(NU_STAT_THREADS_SPAWNED) +
		      nu_stat_sum(NU_STAT_PROCLETS_CREATED) + nu_stat_sum(NU_STAT_PROCLETS_FREED) +
		      nu_stat_sum(NU_STAT_MOVES_IN);
}
