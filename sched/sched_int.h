/* SPDX-License-Identifier: MIT */
/*
 * What the files of sched/ share: cores, run queues, the switch.
 *
 * Who may run a thread. A thread is picked (state RUNNING) under a run-queue lock or by nu_thread_claim() under its
 * proclet's lock; the picker then waits until `running` is 0, sets it and loads its registers. The switch clears
 * `running` once the registers of the thread that leaves are saved, so a waker may make a thread ready that has not
 * quite left yet. Nobody waits for another thread's `running` before his own registers are saved (two such could wait
 * for each other): a thread that picked one which is still leaving goes to the scheduler's context and waits there.
 */
#pragma once

#include "sched/sched.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>

#define NU_POLL_TICKS	 32 /* switches between two rounds of the scheduler's loop */
#define NU_HANDOFF_TICKS 8  /* hand-offs that count as one of them: local calls last nanoseconds */
#define NU_TICK_NS	 1000000
#define NU_MAX_POLLERS	 8
#define NU_TIMERS_MAX	 (1u << 20) /* per core; address space only */
#define NU_STACK_CACHE	 64	    /* hot stacks per core */
#define NU_SPARE_PLACES	 64	    /* proclets per core for whose calls it keeps threads */
#define NU_ALT_STACK	 ((size_t)64 << 10)
#define NU_CARRIERS_MAX	 128 /* kernel threads for cores: carrier.c */

struct nu_timer_slot {
	uint64_t deadline_ns;
	uintptr_t what; /* struct nu_thread *, or struct nu_timer_fn * | 1 */
};

struct nu_post {
	struct nu_post *next;
	void (*fn)(void *arg);
	void *arg;
};

/* Threads that one core keeps for calls of one proclet. */
struct nu_spares {
	uint64_t id; /* 0: none */
	struct nu_proclet *proclet;
	struct nu_thread *first; /* by spare_next */
};

struct nu_carrier;

struct nu_core {
	/* The kernel thread that carries the core only (others look at `current`). What a switch touches. */
	struct nu_thread *_Atomic current;
	unsigned index;
	struct nu_heap *heap; /* as in struct nu_here */
	struct nu_heap_cache *heap_cache;
	struct nu_thread *next; /* picked, to be run by the scheduler's context */
	struct nu_thread *dead; /* ended; to be freed by whoever runs next */
	uint64_t lives;		/* nu_thread.reply_seq of the next thread that is made here */
	void *sched_sp;
	int *errno_p;	     /* the C library's errno of the kernel thread that carries it */
	uint64_t *stats;     /* nu_stat_cores[index] */
	uint32_t ticks;	     /* in units of 1 / NU_HANDOFF_TICKS of a switch */
	uint32_t ran_within; /* since the last round of the loop */
	bool looks;	     /* the signal's handler is at nu_foreign_look() */
	bool within; /* the scheduler's context is in a poller, and goes on there: nu_thread_run_now() */
	atomic_uint preempt_req;
	atomic_uint sched_running; /* what the switch clears when the scheduler's context leaves */

	/* Run queue: anybody, under lock. */
	alignas(NU_CACHE_LINE) struct nu_lock lock;
	atomic_uint nqueued;
	struct nu_list queue;
	struct nu_thread *seen; /* head at the last look of a thief: thieves leave short waits alone */
	uint64_t seen_switches;

	/* Sleep: the sleeper sets `sleeping`; who takes it back writes the event. */
	alignas(NU_CACHE_LINE) atomic_uint sleeping;
	atomic_bool hungry;    /* woken to steal: takes anything */
	atomic_bool signalled; /* a preemption signal is on its way */
	atomic_bool has_posts;
	atomic_uint refusals;		/* signals at which its thread could not be interrupted, ... */
	const void *_Atomic refused_pc; /* where the last one came */
	int event_fd;
	struct nu_lock post_lock;
	struct nu_post *posts, **posts_tail;
	_Atomic uint64_t rounds;  /* of the scheduler's loop */
	_Atomic uint64_t away_ns; /* when the monitor last found it in a thread for too long */

	/* Timers, a binary heap from index 1: anybody, under lock; the owner fires them. */
	alignas(NU_CACHE_LINE) struct nu_lock timer_lock;
	uint32_t ntimers;
	_Atomic uint64_t next_deadline; /* of the first timer; UINT64_MAX: none */
	struct nu_timer_slot *timers;

	/* Owner only. */
	alignas(NU_CACHE_LINE) struct nu_thread *cache[NU_STACK_CACHE];
	unsigned ncache, cache_max;
	alignas(NU_CACHE_LINE) struct nu_proclet *_Atomic marks[2]; /* handoff.c; others look */
	alignas(NU_CACHE_LINE) struct nu_spares spares[NU_SPARE_PLACES];
	uint64_t idle_since, spin_ns, spun_ns;
	unsigned spins_in_vain, spin_skips;
	bool rests;  /* nu_core_rest() */
	bool polled; /* with events, by the idle core: the loop need not */
	unsigned steal_from;

	/* Of the kernel thread that carries it, set by that. */
	struct nu_carrier *carrier;
	pid_t tid;
	void *alt_stack;
	int cpu;     /* that it is pinned to; -1: none */
	char *stack; /* of the scheduler's context */
	size_t stack_bytes;
	bool begun;			   /* that context */
	atomic_bool leaving;		   /* its threads; its pollers say good-bye */
	atomic_uint ended;		   /* futex */
	struct nu_carrier *_Atomic relief; /* stands by to carry it, should its thread stay where it is */
	const void *called_pc;		   /* of a side: in the function that its stray thread has called */
	_Atomic uint64_t signal_ns;	   /* of a side: when it was last signalled */

	uint64_t tick_switches, tick_rounds; /* the monitor's */
	struct nu_thread *tick_current;
	unsigned tick_same, tick_refusals;
	unsigned tick_refused; /* looks at which the same thread had refused a signal */
	unsigned tick_unheard; /* looks at which a signal was still on its way */
	void *fake_stack;      /* AddressSanitizer's, of the scheduler's context */
	void *fiber;	       /* ThreadSanitizer's, of the scheduler's context */
};

struct nu_sched {
	unsigned ncores;
	struct nu_core *cores[NU_MAX_CORES + NU_CARRIERS_MAX]; /* the carriers' sides behind the cores */
	atomic_bool stop;
	atomic_bool help; /* some core is stuck: the next that comes by takes its work */
	atomic_uint nsleeping;
	unsigned npollers;
	struct nu_poller pollers[NU_MAX_POLLERS];
	struct nu_sched_ops ops;
	uint64_t spin_ns; /* of a core that nobody wakes soon */
	bool spin_grows;  /* for others: idle.c */
	bool pin;
	bool has_barrier; /* membarrier() */
	pid_t pid;
};
extern struct nu_sched nu_sched;

/* Where a thread may be interrupted: nu_image_movable(); tests that link the runtime statically narrow it. */
extern bool (*nu_preempt_pc_ok)(const void *pc);

/* ---- switch-ARCH.S ---- */
/* Saves the caller's context, *save_p = its stack pointer, loads the context at @to, then clears *running. */
void nu_switch(void **save_p, void *to, atomic_uint *running);
/*
 * The same, but what is turned to is body(t, arg), called on the empty stack that ends at @top; it is for the body to say
 * that the caller no longer runs. It returns a context that is to go on, saved here, or does not return. Return: whether a
 * body's return has led here, and not nu_switch().
 */
bool nu_switch_call(void **save_p, void *top, struct nu_thread *t, void *arg, nu_handed_fn body);
/* Goes on with a context that was saved there, as if the body had returned it. */
void nu_switch_back(void *to) __attribute__((noreturn));
void nu_thread_entry(void);
/* Lays down a context at @top (16-aligned) that begins at nu_thread_entry(). */
void *nu_switch_prepare(void *top);
/* The preemption signal's handler: calls nu_preempt_handler(), which may return on another node. */
void nu_preempt_entry(int signo, siginfo_t *info, void *frame);

/* ---- core.c, idle.c ---- */
/* NULL on foreign kernel threads. */
static inline struct nu_core *nu_core_get(void)
{
	struct nu_core *c;

	NU_TLS_LOAD(c, nu_here);
	return c;
}
void nu_core_set(struct nu_core *c);
void nu_core_loop(struct nu_core *c);
/* Wakes @c if it sleeps. */
void nu_core_kick(struct nu_core *c);
/* Wakes one sleeping core to steal, if any. */
void nu_core_kick_thief(struct nu_core *but);
void nu_core_idle(struct nu_core *c);
/* Return: events that the pollers have handled. */
unsigned nu_core_poll(struct nu_core *c);
void nu_core_run_posts(struct nu_core *c);
void nu_core_stop_pollers(struct nu_core *c);
/* Another kernel thread carries @c from now on, and calls this: whoever has noted the one before is to note it. */
void nu_core_carried(struct nu_core *c);

/* What a stray thread's kernel thread finds in place of its core: carrier.c */
static inline bool nu_core_is_side(const struct nu_core *c)
{
	return c->index >= NU_MAX_CORES;
}
/* One of the cores, in turn. */
struct nu_core *nu_core_any(void);
/* The core, or the carrier's side, of that index; NULL: there is none. */
static inline struct nu_core *nu_core_at(unsigned index)
{
	return index < NU_MAX_CORES + NU_CARRIERS_MAX ? nu_sched.cores[index] : NULL;
}

static inline uint64_t nu_core_switches(const struct nu_core *c)
{
	const uint64_t *v = nu_stat_cores[c->index].v;

	return __atomic_load_n(&v[NU_STAT_SWITCHES], __ATOMIC_RELAXED) +
	       __atomic_load_n(&v[NU_STAT_CALLS_QUICK], __ATOMIC_RELAXED);
}

/* nu_thread_self() and nu_preempt_point() where a call would take as long as what is done. */
static inline struct nu_thread *nu_running(void)
{
	struct nu_core *c = nu_core_get();

	return likely(c) ? atomic_load_explicit(&c->current, memory_order_relaxed) : NULL;
}
static inline void nu_point(void)
{
	struct nu_core *c = nu_core_get();

	if (unlikely(c && atomic_load_explicit(&c->preempt_req, memory_order_relaxed)))
		nu_preempt_point();
}
/* Both at once. */
static inline struct nu_thread *nu_running_point(void)
{
	struct nu_core *c = nu_core_get();

	if (unlikely(!c))
		return NULL;
	if (unlikely(atomic_load_explicit(&c->preempt_req, memory_order_relaxed))) {
		nu_preempt_point();
		c = nu_core_get();
	}
	return atomic_load_explicit(&c->current, memory_order_relaxed);
}
/* What tells @t from the next thread at its address. A lock's holder may have ended long ago: others may unlock it. */
static inline uint32_t nu_thread_life(const struct nu_thread *t)
{
	return (uint32_t)__atomic_load_n(&t->reply_seq, __ATOMIC_RELAXED);
}

/* ---- thread.c ---- */
static inline uint32_t nu_thread_state(const struct nu_thread *t)
{
	return __atomic_load_n(&t->state, __ATOMIC_ACQUIRE);
}
static inline void nu_thread_set_state(struct nu_thread *t, uint32_t state)
{
	__atomic_store_n(&t->state, state, __ATOMIC_RELEASE);
}
/* Where it runs or last ran, for those who do not hold it still: a hint. */
static inline unsigned nu_thread_core(const struct nu_thread *t)
{
	return __atomic_load_n(&t->core, __ATOMIC_RELAXED);
}
/* Waits until @t has left its core. Not with registers of one's own unsaved that somebody else may wait for. */
void nu_thread_wait_saved(struct nu_thread *t);
/* The running thread @t, already queued, parked or blocked, leaves for @next (NULL: the scheduler's context). */
void nu_thread_switch(struct nu_core *c, struct nu_thread *t, struct nu_thread *next);
/* The scheduler's context runs @t, which it has picked. */
void nu_thread_run(struct nu_core *c, struct nu_thread *t);
/* The running thread goes to the scheduler's context and stays runnable (or is parked). */
void nu_thread_preempt(struct nu_core *c, struct nu_thread *t);
void nu_thread_main(void) __attribute__((noreturn));
/* To be called by every context that goes on. */
void nu_thread_switched(void);
/* Bookkeeping of @c's turning to @t, whose registers are saved. */
static inline void nu_thread_turn_to(struct nu_core *c, struct nu_thread *t)
{
	uint64_t *switches = &nu_stat_cores[c->index].v[NU_STAT_SWITCHES];

	atomic_store_explicit(&t->running, 1, memory_order_relaxed);
	__atomic_store_n(&t->core, (uint16_t)c->index, __ATOMIC_RELAXED);
	__atomic_store_n(switches, *switches + 1, __ATOMIC_RELAXED);
}

/* ---- handoff.c ---- */
void nu_quick_init(void);
/* Of the threads that @c keeps, those that only deep recursion needs end. */
void nu_spares_trim(struct nu_core *c);
/* Hand-offs pass by the run queue; now and then the pollers must have their turn all the same. */
static inline bool nu_handoff_ticks(struct nu_core *c)
{
	return unlikely(++c->ticks >= NU_POLL_TICKS * NU_HANDOFF_TICKS);
}
/*
 * @to is claimed: running = 1 already. For the scheduler's context, which waits for 0, it counts as just picked. If others
 * wait it joins them: a thread that only makes local calls would never let them run.
 */
void nu_handoff_by_queue(struct nu_core *c, struct nu_thread *to);

/* ---- runq.c ---- */
/* False: its proclet is frozen, nothing was done. */
bool nu_runq_put(struct nu_core *c, struct nu_thread *t, bool first);
struct nu_thread *nu_runq_pop(struct nu_core *c);
/* For thread context: the next thread that may be switched to directly; NULL: go to the scheduler's context. */
struct nu_thread *nu_runq_next(struct nu_core *c, struct nu_thread *self);
/* The running thread @self goes to the end of the queue (or is parked): who runs instead (@self: go on). */
struct nu_thread *nu_runq_yield(struct nu_core *c, struct nu_thread *self);
/*
 * The calling thread, which goes on no longer, has claimed @t's wake-up and would run it at once: may it, then it is
 * picked. False: nu_thread_ready().
 */
bool nu_runq_skip(struct nu_core *c, struct nu_thread *t);
struct nu_thread *nu_steal(struct nu_core *c);
/* Puts @t into its proclet's parked list; false: not frozen (any more). */
bool nu_thread_park(struct nu_thread *t);
/* nu_thread_ready() onto @c. */
void nu_ready_on(struct nu_core *c, struct nu_thread *t, bool first);

/* ---- stack.c ---- */
int nu_stacks_init(void);
void nu_stacks_fini(void);
/* The lowest byte of the slot that holds @addr, or 0 outside the region. */
uintptr_t nu_stack_slot(const void *addr);
struct nu_thread *nu_stack_thread(uintptr_t slot_low);

/* valgrind.c or valgrind_stub.c */
bool nu_valgrind_runs_us(void);
/* Memory that will be a stack, for as long as the process lives. */
void nu_valgrind_stack(void *low, size_t len_bytes);
/* What the thread that has ended left on its stack is nobody's, but the next one's to write. */
void nu_valgrind_stack_free(void *low, size_t len_bytes);

/* ---- timer.c ---- */
int nu_timers_init(struct nu_core *c);
void nu_timers_fini(struct nu_core *c);
void nu_timer_arm(struct nu_core *c, struct nu_thread *t, uint64_t deadline_ns);
/* Takes @t's timer down if it is armed; when it returns the timer no longer looks at @t. */
void nu_timer_cancel(struct nu_thread *t);
unsigned nu_timers_run(struct nu_core *c);
/* Whether @c does not come to its timers; fires those of other cores that do not. */
bool nu_timers_overdue(struct nu_core *c, uint64_t now);
unsigned nu_timers_help(struct nu_core *self);

/* ---- preempt.c, crash.c ---- */
/* The signal: before the first core runs, since a thread of it may have to be paused at once. Then who sends it. */
int nu_preempt_catch(void);
int nu_preempt_init(void);
void nu_preempt_handler(int signo, siginfo_t *info, void *frame);
void nu_preempt_fini(void);
/* Warns of @t, which cannot be interrupted: whose it is, where it is stuck, and what that hinders. */
void nu_preempt_say_stuck(const struct nu_core *c, const struct nu_thread *t, const char *hinders);
/* Signals @c's kernel thread, unless a signal is on its way. */
void nu_preempt_signal(struct nu_core *c);
/* The monitor may be asleep: a thread has begun to run. */
void nu_preempt_awake(void);
void nu_signal_mask(sigset_t *set_p);
void nu_crash_fini(void);

/* ---- waitq.c: a primitive's waiters. Lists lie in the heap, only threads of the proclet touch them. ---- */
static inline struct nu_lock *nu_waitq_lock(struct nu_waitq *q)
{
	_Static_assert(sizeof(struct nu_lock) == sizeof(q->lock), "a waiter list's lock is a struct nu_lock");
	return (struct nu_lock *)&q->lock;
}
/* The calling thread joins the end of @q, of an object of kind @on (q's lock, or the lock that stands for it, is held). */
void nu_waitq_push(struct nu_waitq *q, struct nu_thread *self, enum nu_wait_on on);
/* Whether @owner of what the calling thread is about to wait for waits itself until that has ended: then neither goes on. */
bool nu_wait_is_circle(const struct nu_thread *self, const struct nu_thread *owner, uint32_t owner_life);
/* The first waiter whose wake-up could be claimed, out of the list; NULL: none. */
struct nu_thread *nu_waitq_pop(struct nu_waitq *q);
/* All of them, chained by wait_next; for nu_waitq_ready_all() after the lock is released. */
struct nu_thread *nu_waitq_pop_all(struct nu_waitq *q, uint32_t *n_p);
void nu_waitq_ready_all(struct nu_thread *chain);
/* Waits; @lock guards @q and is released. 0 or -ETIMEDOUT, and then the caller is out of @q. */
int nu_waitq_wait(struct nu_waitq *q, struct nu_lock *lock, uint64_t deadline_ns);
