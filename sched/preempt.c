/* SPDX-License-Identifier: MIT */
/*
 * Interrupting a running thread. The signal's handler runs on the thread's own stack and switches to the scheduler from
 * inside: the kernel has put the whole register file into the frame there, and sigreturn restores it, perhaps on
 * another node. Only where the interrupted instruction is the program's own; else a request is left that runtime calls
 * look at. A monitor thread asks for it when others wait; it sleeps while nothing runs.
 */
#include "sched/carrier.h"
#include "sched/foreign.h"
#include "sched/sanitize.h"

#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* Ignored by default: a program that resets the handlers of all signals is not killed by it. Debuggers let it pass, too. */
#define PREEMPT_SIGNAL SIGURG
#define STUCK_TICKS    4
#define RELIEF_TICKS                                                                                         \
	2 /* at which the same thread has refused to be interrupted, before its core is taken from it */
#define UNHEARD_TICKS 100
#define SAY_NS_MIN    500000000u

bool (*nu_preempt_pc_ok)(const void *pc) = nu_image_movable;

static struct {
	pthread_t pthread;
	bool catches, started;
	atomic_bool stop;
	atomic_uint asleep; /* futex: 1 while the monitor waits for a thread to run */
	struct sigaction old;
} monitor;

/* What is blocked on every core's kernel thread: the same on all, for signal frames carry it from one to another. */
void nu_signal_mask(sigset_t *set_p)
{
	static const int open[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};

	sigfillset(set_p);
	for (unsigned i = 0; i < sizeof(open) / sizeof(open[0]); i++)
		sigdelset(set_p, open[i]);
	sigdelset(set_p, PREEMPT_SIGNAL);
}

/* After the switch back: what the frame says about the kernel thread that it was taken on must fit this one. */
static __attribute__((noinline)) void frame_fit(ucontext_t *uc)
{
	struct nu_core *c = nu_core_get();
	sigset_t mask;

	nu_signal_mask(&mask);
	memcpy(&uc->uc_sigmask, &mask, 8); /* the kernel's part */
	uc->uc_stack.ss_sp = c->alt_stack;
	uc->uc_stack.ss_size = NU_ALT_STACK;
	uc->uc_stack.ss_flags = 0;
}

static NU_NO_TSAN bool may_stop_at(const void *pc)
{
	if (NU_SAN_IN_PROGRAM && nu_preempt_pc_ok == nu_image_movable)
		return false;
	return nu_preempt_pc_ok(pc);
}

/* In the program's own code, where the C library's locks are not held. */
static void __attribute__((cold)) say_tiles(const struct nu_thread *t)
{
	static atomic_bool said;

	if (!atomic_exchange(&said, true))
		nu_warn("proclet %#lx: its thread %p has live AMX tiles: until it releases them it is "
			"neither "
			"moved nor interrupted, since another process may not be allowed to have them",
			(unsigned long)t->proclet_id, (const void *)t);
}

/*
 * The thread goes on until it comes to a call of the runtime's, or back to the program's code if it is in a library's. Others
 * that wait for the core have to wait, unless somebody stands by to carry it.
 */
static NU_NO_TSAN void refuse(struct nu_core *c, struct nu_thread *t, uintptr_t pc, bool on_stack)
{
	bool relief = atomic_load_explicit(&c->relief, memory_order_relaxed);
	struct nu_foreign o;
	bool found;

	atomic_store_explicit(&c->preempt_req, 1, memory_order_relaxed);
	/* One look at a time: another signal may come meanwhile, and would look at this one's frames. */
	if (!NU_SAN_IN_PROGRAM && on_stack && !t->preempt_off && !c->looks &&
	    (relief || (nu_return_bytes && !nu_foreign_is_caught(t)))) {
		c->looks = true;
		atomic_signal_fence(memory_order_seq_cst);
		found = nu_foreign_look(t, pc, &o);
		atomic_signal_fence(memory_order_seq_cst);
		c->looks = false;
		if (found)
			nu_foreign_catch(t, &o);
		if (found && relief && nu_carrier_leave(c, t, &o))
			return;
	}
	atomic_store_explicit(&c->refused_pc, (const void *)pc, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->refusals, 1, memory_order_relaxed);
	c->ticks = NU_POLL_TICKS * NU_HANDOFF_TICKS; /* its next local call goes by way of the scheduler */
	atomic_store_explicit(&c->signalled, false, memory_order_relaxed);
}

/* Until the place is known to be the program's own it may be a sanitizer's, which must not be entered again. */
NU_NO_TSAN void nu_preempt_handler(int signo, siginfo_t *info, void *frame)
{
	struct nu_core *c = nu_core_get();
	ucontext_t *uc = frame;
	struct nu_thread *t;
	bool on_stack;

	if (!c)
		return;
	t = atomic_load_explicit(&c->current, memory_order_relaxed);
	if (!t) {
		atomic_store_explicit(&c->signalled, false, memory_order_relaxed);
		return;
	}
	/* Another stack is that of a handler of the program's own, which cannot be left for another core. */
	on_stack = (uintptr_t)frame - (uintptr_t)t->stack_low < (uintptr_t)t - (uintptr_t)t->stack_low;
	if (t->preempt_off || !on_stack || !may_stop_at((const void *)NU_FRAME_PC(uc))) {
		refuse(c, t, NU_FRAME_PC(uc), on_stack);
		return;
	}
	if (unlikely(nu_cpu_frame_has_tiles(uc))) {
		say_tiles(t);
		refuse(c, t, NU_FRAME_PC(uc), on_stack);
		return;
	}
	atomic_store_explicit(&c->signalled, false, memory_order_relaxed);
	nu_thread_preempt(c, t); /* saves errno, too */
	frame_fit(uc);
}

/* Where the program has done it, in a method: no thread on that core can be interrupted any more. */
static bool is_blocked(const struct nu_core *c)
{
	unsigned long long blocked = 0;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)c->tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f) && sscanf(line, "SigBlk: %llx", &blocked) != 1)
		;
	if (f)
		fclose(f);
	return blocked >> (PREEMPT_SIGNAL - 1) & 1;
}

void nu_preempt_say_stuck(const struct nu_core *c, const struct nu_thread *t, const char *hinders)
{
	static _Atomic uint64_t said_ns; /* who tries again and again need not say it each time */
	const void *pc = atomic_load_explicit(&c->refused_pc, memory_order_relaxed);
	const struct nu_method *m = t->serve_method;
	struct nu_symbol s = {0};
	const char *object;
	uint64_t last = atomic_load(&said_ns), now = nu_mono_ns();

	if ((last && now - last < SAY_NS_MIN) || !atomic_compare_exchange_strong(&said_ns, &last, now))
		return;
	if (is_blocked(c)) {
		nu_warn("proclet %#lx: its thread %p%s%s%s%s cannot be interrupted, since the program has "
			"blocked SIGURG on core %u; %s",
			(unsigned long)t->proclet_id, (const void *)t, m ? ", method " : "",
			m ? m->class_name : "", m ? "." : "", m ? m->name : "", c->index, hinders);
		return;
	}
	if (pc)
		nu_symbol_find(pc, &s);
	object = strrchr(s.object, '/');
	nu_warn("proclet %#lx: its thread %p%s%s%s%s cannot be interrupted where it is: %s%s(%s+%#lx); %s",
		(unsigned long)t->proclet_id, (const void *)t, m ? ", method " : "", m ? m->class_name : "",
		m ? "." : "", m ? m->name : "", s.name, *s.name ? " " : "", object ? object + 1 : "?",
		(unsigned long)s.offset, hinders);
}

static int catch_signal(struct sigaction *old_p)
{
	struct sigaction sa = {.sa_sigaction = nu_preempt_entry,
			       .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};

	sigemptyset(&sa.sa_mask);
	return NU_SAN_SIGACTION(PREEMPT_SIGNAL, &sa, old_p) ? -nu_sys_errno : 0;
}

/* Before each signal: with another handler, or none, no thread could be moved. */
static void keep_handler(void)
{
	static atomic_bool said;
	struct sigaction now;

	if (!monitor.catches || NU_SAN_SIGACTION(PREEMPT_SIGNAL, NULL, &now) ||
	    likely(now.sa_sigaction == nu_preempt_entry) || catch_signal(NULL))
		return;
	for (unsigned i = 0; i < nu_sched.ncores; i++) /* what the other one took */
		atomic_store(&nu_sched.cores[i]->signalled, false);
	if (!atomic_exchange(&said, true))
		nu_warn("the program has replaced the handler of SIGURG, by which threads are interrupted: "
			"ours is put back");
}

void nu_preempt_signal(struct nu_core *c)
{
	uint64_t now;

	keep_handler();
	if (unlikely(nu_core_is_side(
		    c))) { /* most likely its thread sleeps in a system call, which each signal breaks */
		now = nu_mono_ns();
		if (now - atomic_load_explicit(&c->signal_ns, memory_order_relaxed) < NU_TICK_NS)
			return;
		atomic_store_explicit(&c->signal_ns, now, memory_order_relaxed);
	}
	/* One is enough. */
	if (!atomic_exchange(&c->signalled, true))
		syscall(SYS_tgkill, nu_sched.pid, c->tid, PREEMPT_SIGNAL);
}

void nu_preempt_other(pid_t pid, pid_t tid)
{
	syscall(SYS_tgkill, pid, tid, PREEMPT_SIGNAL);
}

uint64_t nu_core_away_ns(void)
{
	return atomic_load_explicit(&nu_core_get()->away_ns, memory_order_relaxed);
}

void nu_preempt_point(void)
{
	struct nu_core *c = nu_core_get();
	struct nu_thread *t;

	if (likely(!c || !atomic_load_explicit(&c->preempt_req, memory_order_relaxed)))
		return;
	t = atomic_load_explicit(&c->current, memory_order_relaxed);
	if (t && !t->preempt_off)
		nu_thread_preempt(c, t);
}

void nu_preempt_disable(void)
{
	struct nu_thread *t = nu_thread_self();

	if (t)
		t->preempt_off++;
}

void nu_preempt_enable(void)
{
	struct nu_thread *t = nu_thread_self();

	if (t && !--t->preempt_off)
		nu_preempt_point();
}

/* ---- the monitor ---- */

void nu_preempt_awake(void)
{
	/* Not relaxed: the look must come after the caller's store, and only two sequentially consistent ones stay in order. */
	if (unlikely(atomic_load_explicit(&monitor.asleep, memory_order_seq_cst)) &&
	    atomic_exchange(&monitor.asleep, 0))
		syscall(SYS_futex, &monitor.asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Whether something waits for @c's scheduler context that it does not come to by itself. */
static bool loop_wanted(struct nu_core *c, uint64_t now)
{
	return nu_sched.npollers || atomic_load_explicit(&c->has_posts, memory_order_relaxed) ||
	       atomic_load_explicit(&c->next_deadline, memory_order_relaxed) <= now ||
	       atomic_load_explicit(&nu_sched.stop, memory_order_relaxed);
}

/* It has had no signal for so long: perhaps it is not to have one. */
static void __attribute__((cold)) say_unheard(const struct nu_core *c)
{
	static atomic_bool said;

	if (is_blocked(c) && !atomic_exchange(&said, true))
		nu_warn("core %u cannot be interrupted, since the program has blocked SIGURG there: what "
			"runs "
			"there holds up everything else on that core",
			c->index);
}

/* One look at @c. Returns whether it runs threads. */
static bool look_at(struct nu_core *c, uint64_t now)
{
	struct nu_thread *t = atomic_load(&c->current);
	uint64_t switches = nu_core_switches(c);
	uint64_t rounds = atomic_load_explicit(&c->rounds, memory_order_relaxed);
	bool same = t && t == c->tick_current && switches == c->tick_switches;
	bool queued = atomic_load_explicit(&c->nqueued, memory_order_relaxed) != 0;
	bool starved = t && rounds == c->tick_rounds && loop_wanted(c, now);
	bool active = t || switches != c->tick_switches;
	bool overdue = nu_timers_overdue(c, now);
	unsigned refusals = atomic_load_explicit(&c->refusals, memory_order_relaxed);

	c->tick_current = t;
	c->tick_switches = switches;
	c->tick_rounds = rounds;
	c->tick_same = same ? c->tick_same + 1 : 0;
	c->tick_refused = same && refusals != c->tick_refusals ? c->tick_refused + 1 : 0;
	c->tick_refusals = refusals;
	if (c->tick_same >= STUCK_TICKS && (queued || overdue))
		atomic_store(&nu_sched.help,
			     true); /* it cannot be interrupted: busy cores take its work, too */
	if (t && (queued || overdue) && atomic_load_explicit(&nu_sched.nsleeping, memory_order_relaxed))
		nu_core_kick_thief(c);
	if (starved)
		atomic_store_explicit(&c->away_ns, now, memory_order_relaxed);
	if (c->tick_refused >= RELIEF_TICKS)
		(void)nu_carrier_relieve(c);
	else
		nu_carrier_keep(c);
	if ((same && queued) || starved) {
		c->tick_unheard =
			atomic_load_explicit(&c->signalled, memory_order_relaxed) ? c->tick_unheard + 1 : 0;
		if (unlikely(c->tick_unheard == UNHEARD_TICKS)) {
			c->tick_unheard = 0;
			say_unheard(c);
		}
		nu_preempt_signal(c);
	}
	return active;
}

static bool any_runs(void)
{
	for (unsigned i = 0; i < nu_sched.ncores; i++)
		if (atomic_load(&nu_sched.cores[i]->current))
			return true;
	return false;
}

/* Until a core runs a thread, or @until. */
static void monitor_sleep(uint64_t until)
{
	uint64_t now;

	atomic_store(&monitor.asleep, 1);
	while (!any_runs() && !atomic_load(&monitor.stop) && atomic_load(&monitor.asleep) &&
	       (now = nu_mono_ns()) < until) {
		struct timespec left = {(time_t)((until - now) / 1000000000u),
					(long)((until - now) % 1000000000u)};

		syscall(SYS_futex, &monitor.asleep, FUTEX_WAIT_PRIVATE, 1, until == UINT64_MAX ? NULL : &left,
			NULL, 0);
	}
	atomic_store(&monitor.asleep, 0);
}

static void *monitor_main(void *arg)
{
	const struct timespec tick = {0, NU_TICK_NS};
	unsigned quiet = 0;

	while (!atomic_load_explicit(&monitor.stop, memory_order_relaxed)) {
		uint64_t now = nu_mono_ns(), strays;
		bool active = false;

		for (unsigned i = 0; i < nu_sched.ncores; i++)
			active |= look_at(nu_sched.cores[i], now);
		strays = nu_carriers_look(now);
		quiet = active ? 0 : quiet + 1;
		if (quiet >= 2) {
			monitor_sleep(strays);
			quiet = 0;
		} else {
			nanosleep(&tick, NULL);
		}
	}
	return NULL;
}

int nu_preempt_catch(void)
{
	int err = catch_signal(&monitor.old);

	monitor.catches = !err;
	return err;
}

int nu_preempt_init(void)
{
	int err;

	atomic_store(&monitor.stop, false);
	atomic_store(&monitor.asleep, 0);
	err = nu_kthread_start(&monitor.pthread, "monitor", 0, monitor_main, NULL);
	monitor.started = !err;
	return err;
}

/* After the cores are gone: until then it fetches them out of threads that do not give way. */
void nu_preempt_fini(void)
{
	if (monitor.started) {
		atomic_store(&monitor.stop, true);
		nu_preempt_awake();
		pthread_join(monitor.pthread, NULL);
		monitor.started = false;
	}
	if (monitor.catches)
		NU_SAN_SIGACTION(PREEMPT_SIGNAL, &monitor.old, NULL);
	monitor.catches = false;
}
