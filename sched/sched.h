/* SPDX-License-Identifier: MIT */
/*
 * sched/ as the folders above see it: user-level threads, cores, pausing, timers, pollers.
 *
 * A thread belongs to one proclet for life. Its control block lies at the top of its stack, whose address is unique
 * in the cluster, so thread and stack move as one run of bytes [sp - NU_RED_ZONE, top) and waiter lists in a heap
 * stay valid. Nothing outside that run may be needed to go on.
 */
#pragma once

#include "core/core.h"

#define NU_RED_ZONE 128

enum nu_thread_state {
	NU_THREAD_NEW,	    /* allocated, never ran */
	NU_THREAD_RUNNABLE, /* in a run queue */
	NU_THREAD_RUNNING,
	NU_THREAD_BLOCKED, /* see `wait` */
	NU_THREAD_PARKED,  /* would be runnable, but its proclet is frozen: in nu_proclet.parked */
	NU_THREAD_DONE,
	NU_THREAD_SPARE, /* between two local calls: linked, kept by a core for the next one. handoff.c */
};

enum nu_wait {
	NU_WAIT_NONE,
	NU_WAIT_SYNC, /* mutex, condition, rwlock, semaphore, barrier, wait group, join */
	NU_WAIT_SLEEP,
	NU_WAIT_REPLY_LOCAL,  /* a call that was handed off on this node */
	NU_WAIT_REPLY_REMOTE, /* a call that was sent */
	NU_WAIT_CREDIT,
	NU_WAIT_OUTPUT, /* its proclet has just moved: output is held until "relinquished" */
	NU_WAIT_OTHER,
};

/* What NU_WAIT_SYNC is for: set where the thread joins the list of waiters. */
enum nu_wait_on {
	NU_ON_NOTHING,
	NU_ON_MUTEX,
	NU_ON_COND,
	NU_ON_READ, /* an rwlock */
	NU_ON_WRITE,
	NU_ON_SEM,
	NU_ON_BARRIER,
	NU_ON_WAITGROUP,
	NU_ON_JOIN, /* of the thread `joins` */
};

/* One thread. At the top of its stack, so every byte of it moves. */
struct nu_thread {
	/* What a switch touches: first line. */
	void *sp;
	atomic_uint
		running; /* 1 from being picked until its registers are saved again: nobody may touch its stack */
	uint32_t state;		    /* enum nu_thread_state */
	struct nu_proclet *proclet; /* this node's control block: set anew on arrival */
	struct nu_list link;	    /* run queue, parked list, waiter list, output waiters */
	int saved_errno;
	uint16_t core; /* where it runs or last ran */
	uint8_t wait;  /* enum nu_wait, while BLOCKED */
	uint8_t detached;

	struct nu_list proclet_link; /* nu_proclet.threads */
	uint64_t proclet_id;
	nu_thread_fn fn; /* body */
	void *arg;
	void *stack_low;      /* lowest usable byte (below it nothing is mapped) */
	void *room;	      /* what is reserved for its body begins here; where its stack begins */
	uint32_t preempt_off; /* nesting: must not be interrupted */
	uint32_t home_node;   /* whose part of the stack region this stack is */
	atomic_uint wake;     /* claimed by the first of waker, time-out, kill: see nu_wake_claim() */
	uint32_t joiner_gone;
	struct nu_thread *joiner;
	struct nu_lock join_lock;
	uint32_t timed_out;

	/* In a primitive's waiter list (in the heap), apart from `link`: a time-out queues a thread that still waits. */
	struct nu_waitq *waitq; /* the list that it is in, or NULL; under that list's lock */
	struct nu_thread *wait_next, *wait_prev;
	struct nu_thread *joins;
	uint8_t claimable;  /* BLOCKED: its waker must win nu_wake_claim() first */
	uint8_t pause_seen; /* freeze.c, under the proclet's lock */
	uint8_t wait_on;    /* enum nu_wait_on: of its last wait */

	/* Timer: index in its core's timer heap (0: none); deadline on the node's monotonic clock (0: none), kept while its
	 * proclet is frozen. timer.c */
	uint64_t deadline_ns;
	uint32_t timer_index;
	uint16_t timer_core;

	/* handoff.c */
	struct nu_proclet *
		handed_by; /* serving a local call: its caller's, while both have stayed on this node; or NULL */
	struct nu_spares *spares;    /* where it may be kept then, ... */
	struct nu_core *spares_core; /* ... by this core */
	struct nu_thread *spare_next;
	uint32_t may_spare; /* it serves such a call that it can be spare after */
	uint32_t moves;	    /* from node to node */
	uint32_t pmutexes;  /* pthread mutexes that it holds, as far as is known: pmutex.c */

	/* foreign.c: where on its stack the way back from a library was diverted, and where that leads; or NULL */
	uintptr_t *return_slot;
	uintptr_t return_pc;

	/* Calls: rpc/ owns these. */
	/* Identity of the call that it serves, from which nested ones, counted in call_index, derive theirs. If call_nth: not
	 * worked out yet; it is that call of the one with identity call_outer. */
	uint64_t call_id, call_outer, call_nth;
	uint64_t call_index;
	uint64_t
		wait_seq; /* sequence of the call whose reply it waits for; unique in the cluster with its address */
	int32_t wait_status;
	uint32_t wait_dest; /* node that was sent the call */
	void *wait_result;
	const struct nu_method *wait_method;
	uint64_t call_deadline_ns; /* nu_deadline_set_us; 0: none */
	uint64_t reply_proclet;	   /* serving: whom to answer: proclet, thread, sequence; 0: nobody */
	struct nu_thread *reply_thread;
	uint64_t
		reply_seq; /* serving none: a number of its own. With its address it tells a thread from all others */
	uint32_t reply_node;  /* where that proclet was when it called: a hint */
	uint32_t serve_flags; /* errno of a span result that could not be taken */
	const struct nu_method *serve_method;
	void *serve_args, *serve_result;
	void *serve_buffer;	   /* heap block of the callee that holds large arguments, or NULL */
	struct nu_bytes serve_out; /* span result as given so far */
	uint64_t wait_target;	   /* proclet that the pending call is for */
	uint64_t wait_hint[2];	   /* REFUSED: node and location number */
	uint32_t wait_done;	   /* the answer is here; with wait_seq under the proclet's lock */
	uint32_t patient;	   /* a thread of the runtime that lets others run while it waits */
	uint32_t
		due_us; /* one whose answer is not expected before so long: it sleeps until then; 0: at once */
#ifdef __SANITIZE_THREAD__
	uint32_t ran; /* it has frames that the sanitizer must not miss: sanitize.h */
#endif
};

/* What runs user-level threads, on one kernel thread at a time. Index in nu_node.cores. */
struct nu_core;

/* ---- where am I: both are noinline and re-read the thread pointer, since a switch may change kernel threads ---- */
struct nu_thread *nu_thread_self(void); /* NULL in the scheduler and on foreign kernel threads */
unsigned nu_core_self(void);		/* index of the calling core; 0 on foreign kernel threads */
bool nu_on_core(void);

/* Whether this host has fewer processors than the nodes on it have cores: who polls should let others run. */
bool nu_sched_crowded(void);
/* What is waited for is far off: should the calling core have nothing to do now, it sleeps at once. */
void nu_core_rest(void);
/* Whether a thread waits for the calling core. */
bool nu_sched_has_queued(void);

/* ---- start and stop ---- */
/*
 * Makes nu_node.cores cores, each carried by a kernel thread (not the caller's), pinned to processors where there are enough,
 * stacks for this node, and the preemption signal. @first runs as a thread of @p on core 0.
 */
int __must_check nu_sched_start(struct nu_proclet *p, nu_thread_fn first, void *arg);
/* Crashes are named from here on, also those of node_init; nu_sched_start() does it else. Until nu_sched_stop(). */
int __must_check nu_crash_init(void);
/* Asks every core to leave its loop, joins the kernel threads that carry them. From a foreign kernel thread. Parked threads are lost.
 * -ETIMEDOUT: a thread that cannot be interrupted keeps a core; nothing was taken down, the process can only exit. */
int nu_sched_stop(void);

/* ---- threads ---- */
/* A thread of @p, from this core's cache of hot stacks; not yet in p->threads, not runnable. NULL: stack region or
 * mapping limit is used up (logged once with the limit). Core or foreign kernel thread. */
struct nu_thread *nu_thread_alloc(struct nu_proclet *p);
/* For one that the program starts: leaves some stacks to calls, which give theirs back. */
struct nu_thread *nu_thread_alloc_start(struct nu_proclet *p);
/* For one by which something is freed: gets one of those that the node's own proclet has. */
struct nu_thread *nu_thread_alloc_step(struct nu_proclet *p);
/* Gives the stack back to this core's cache, or to its home node (nu_sched_ops.stack_home). Not the running one. */
void nu_thread_free(struct nu_thread *t);
/* Enters @t into p->threads / takes it out; p->lock held. */
void nu_thread_link(struct nu_thread *t);
void nu_thread_unlink(struct nu_thread *t);
/*
 * Scheduler context, a handler of a poller's: whether the calling core may run a thread in between, then picks @t (NEW,
 * linked, its proclet's lock held and not frozen), then runs it. That returns when @t ends, blocks, yields or is
 * interrupted; no other thread runs meanwhile but those that @t calls here.
 */
bool nu_may_run_now(void);
void nu_thread_pick(struct nu_thread *t);
void nu_thread_run_now(struct nu_thread *t);
/* Prepares @t (NEW) to run fn(arg) from its stack's top; @reserve_bytes below the control block are left for the
 * caller's use (arguments): their address is returned. Fits the stack or returns NULL. */
void *nu_thread_prepare(struct nu_thread *t, nu_thread_fn fn, void *arg, size_t reserve_bytes);
/* A thread whose body returned ends here: joins are answered, it is unlinked and freed. */
void nu_thread_exit(void) __attribute__((noreturn));

/*
 * Makes a NEW or BLOCKED thread runnable: on the calling core's queue (or the next core's, from a foreign kernel
 * thread, which is then woken). If its proclet is frozen it is parked there instead. Never switches. Any context;
 * takes the run-queue lock, and the proclet's lock only if it is frozen.
 */
void nu_thread_ready(struct nu_thread *t);
/* The same, at the head of the queue: it runs next. */
void nu_thread_ready_first(struct nu_thread *t);

/*
 * The calling thread blocks: state BLOCKED with @wait, @unlock (may be NULL) is released once it can be woken (its
 * waker may run it at once on another core; `running` keeps that core off its stack until its registers are saved).
 * Returns when somebody made it ready. Runs the next runnable thread, or the scheduler.
 */
void nu_thread_block(enum nu_wait wait, struct nu_lock *unlock);
/*
 * Blocks with a deadline (ns, node's monotonic clock; 0: none). A waker must win nu_wake_claim(t) before it makes the
 * thread ready; the timer wins it otherwise. Returns 0, or -ETIMEDOUT when the timer won.
 * Before: nu_wake_arm(self) under the lock that orders it with its wakers.
 */
int nu_thread_block_until(enum nu_wait wait, struct nu_lock *unlock, uint64_t deadline_ns);
static inline void nu_wake_arm(struct nu_thread *t)
{
	atomic_store_explicit(&t->wake, 1, memory_order_release); /* after `running`: freeze.c, is_still() */
}
static inline bool nu_wake_claim(struct nu_thread *t)
{
	return atomic_exchange_explicit(&t->wake, 0, memory_order_seq_cst) == 1; /* runq.c, nu_runq_skip() */
}

/*
 * Local calls: direct hand-off. The calling thread blocks with NU_WAIT_REPLY_LOCAL and @to (NEW, linked, claimed) runs at
 * once on this core, through no queue: @body, on its empty stack. (Now and then @to goes by way of the scheduler all the
 * same, and then runs what it was prepared for.) Returns when somebody makes the caller ready or hands back to it.
 * Return: true if @to has handed back.
 *
 * The body begins with nu_thread_begun(), after which the thread that handed off may be moved: until then it is held, and
 * so is what it points to. It ends by returning what nu_thread_handback() returns, or in nu_thread_exit_to() and the like.
 */
typedef void *(*nu_handed_fn)(struct nu_thread *t, void *arg);
bool nu_thread_handoff(struct nu_thread *to, nu_handed_fn body, void *arg);
/* The same with a spare thread of proclet @id: one that this core keeps since it has served a call of it, so that what
 * such calls have in common is as they left it. reply_thread is set. Errors: -EINVAL the caller is no thread; -EAGAIN
 * nothing was done: there is none, or the caller's calls are not that simple (a deadline, its proclet not at rest). */
enum nu_handoff_end { NU_HANDED_BACK, NU_HANDED_OFF /* the caller was woken otherwise */ };
int __must_check nu_spare_handoff(uint64_t id, const struct nu_method *m, nu_handed_fn body, void *arg);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
void nu_thread_landed(void);
#else
static inline void nu_thread_landed(void)
{
}
#endif
static inline void nu_thread_begun(struct nu_thread *from)
{
	nu_thread_landed();
	atomic_store_explicit(&from->running, 0, memory_order_release);
}
/*
 * @t, the calling thread, hands the core back to @to, a thread of proclet @id that waits in one of the two above for the
 * @result_bytes at @t's serve_result (at its wait_result, if any), and becomes spare. NULL: not so simply (either proclet is
 * paused, has moved, ends; nowhere to keep @t): nothing was done.
 */
void *nu_thread_handback(struct nu_thread *t, struct nu_thread *to, uint64_t id, size_t result_bytes);
/* What a spare thread has room for at its stack's top. */
#define NU_SPARE_ARGS_MAX   256u
#define NU_SPARE_RESULT_MAX 256u
/* Whether a call of @m, of a proclet whose root object is a @cls, can be served by a spare thread, with its arguments as
 * they are at the caller. */
static inline bool nu_spare_can(const struct nu_method *m, const struct nu_class *cls)
{
	return !m->nfields && m->result_kind <= NU_RESULT_FIXED && m->args_bytes <= NU_SPARE_ARGS_MAX &&
	       m->result_bytes <= NU_SPARE_RESULT_MAX && (m->cls == cls || !m->cls);
}
/* Some words mostly, for which a call of memcpy() takes longer. */
static inline void nu_copy_small(void *to, const void *from, size_t bytes)
{
	char *a = to;
	const char *b = from;

	for (; bytes >= 8; bytes -= 8, a += 8, b += 8) {
		__builtin_memcpy(a, b, 8);
		__asm__ volatile("" : "+r"(a)); /* else the compiler finds that this is memcpy() */
	}
	for (; bytes; bytes--, a++, b++) {
		*a = *b;
		__asm__ volatile("" : "+r"(a));
	}
}
static inline bool nu_thread_is_spare(const struct nu_thread *t)
{
	return __atomic_load_n(&t->state, __ATOMIC_ACQUIRE) == NU_THREAD_SPARE;
}
/* Local calls may be quick from now on, if the proclet's state allows it; p->lock held. */
void nu_quick_open(struct nu_proclet *p);
/* None is from now on: none is about to begin or end without the lock, and there are no spare threads; p->lock held. */
void nu_quick_close(struct nu_proclet *p);

/* The calling thread ends and @to, claimed, runs at once. */
void nu_thread_exit_to(struct nu_thread *to) __attribute__((noreturn));
/* Marks @t (NEW or BLOCKED) as about to run here, for the above; p->lock of its proclet held, not frozen. Spins until its
 * registers are saved. */
void nu_thread_claim(struct nu_thread *t);

/* ---- pausing ---- */
/*
 * Stops every thread of @p where it is: runnable ones leave the run queues, running ones are interrupted (poll first,
 * then signal, retried while they are in code that must not be interrupted), timers are taken down. On success
 * p->frozen is set, no thread of @p has running = 1, runnable ones are in p->parked, blocked ones stay in their lists,
 * and nothing but the caller touches heap or stacks. Counts NU_STAT_PAUSE_* per thread. The caller may be any thread
 * that is not of @p, or a foreign kernel thread. p->frozen must be set by one caller at a time (the caller's state
 * machine sees to that).
 * Errors: -ETIMEDOUT after @timeout_us: everything goes on as before (thawed).
 */
int __must_check nu_freeze(struct nu_proclet *p, uint64_t timeout_us);
/* Ends a freeze here, or after arrival: parked threads become runnable, timers are armed again. */
void nu_thaw(struct nu_proclet *p);
/* Discards every thread of a frozen proclet (their stacks are freed), for its end. */
void nu_threads_discard(struct nu_proclet *p);
/* Where in the program the waiting thread @t has called what it waits in; NULL: not known. It does not run. place.c */
const void *nu_thread_place(const struct nu_thread *t);
/* Lets a pause or another thread in if that was asked for while this thread could not be interrupted. Any context. */
void nu_preempt_point(void);
/*
 * At the beginning of what the program may call and that needs a core, to send or to wait: the calling thread @t may have
 * stayed behind on a kernel thread that carries none (carrier.c), and is back on one when this returns.
 */
static inline void nu_thread_come_back(const struct nu_thread *t)
{
	if (unlikely(__atomic_load_n(&t->core, __ATOMIC_RELAXED) >= NU_MAX_CORES))
		nu_preempt_point();
}
/* A user-level thread must not be interrupted between these (nests); cheap. */
void nu_preempt_disable(void);
void nu_preempt_enable(void);
/*
 * Interrupts a core of another process of the job, by the ids of its kernel thread: if a thread computes there it gives
 * way to the scheduler, as at the monitor's tick. Any context. Nothing happens where the core does not compute or is gone.
 */
void nu_preempt_other(pid_t pid, pid_t tid);
/* When the monitor last had to fetch the calling core out of a thread that computes, nu_mono_ns(); 0: never. */
uint64_t nu_core_away_ns(void);

/* ---- stacks that come from other nodes ---- */
/* Bytes of @t to carry: [*low_p, *low_p + *len_p), frozen thread. */
void nu_stack_live(const struct nu_thread *t, void **low_p, size_t *len_p);
/* Makes [low, top) of a foreign (or returning) thread's stack writable here, the live part backed by pages. -ENOMEM. */
int __must_check nu_stack_adopt(struct nu_thread *t_addr, size_t live_bytes);
/* Whether @t can be a control block and [live_low, live_low + live_bytes) the live part of its stack: a peer's word. */
bool nu_stack_may_hold(const struct nu_thread *t, uint64_t live_low, uint64_t live_bytes);
/* The thread has left: its stack's pages are dropped here; the address stays reserved for it until it ends (if the stack
 * is ours) or is forgotten (if not). */
void nu_stack_depart(struct nu_thread *t_addr);
/* The bytes are here: joins thread to @p (p->lock held, p frozen): links it, parks it if it was PARKED. */
void nu_thread_arrived(struct nu_thread *t, struct nu_proclet *p);
/* A stack of ours that a thread of @proclet had ended elsewhere and comes home. Any core. */
void nu_stack_returned(void *stack_top, uint64_t proclet);
/* Our stacks that are elsewhere, one by one: the proclets that have them. *cursor from 0. Any kernel thread. */
bool nu_stacks_next_lent(size_t *cursor, uint64_t *proclet_p);
/* @proclet was lost with its node: its threads' stacks are ours to use again. */
void nu_stacks_take_back(uint64_t proclet);
/* Whether @addr, if it lies on a stack, is in the part that a thread of @p uses: as far as is known while that runs. */
bool nu_stack_in_use(const struct nu_proclet *p, const void *addr);
/* Stacks in use on this node, and its own ones whose threads are elsewhere. For tests. */
void nu_stacks_count(size_t *here_p, size_t *lent_p);
/* Whether @t is the address of a control block that is mapped here now (a peer's word is checked with it). */
bool nu_thread_is_here(const struct nu_thread *t);

/* ---- timers ---- */
uint64_t nu_mono_ns(void); /* the node's monotonic clock */
/* @timeout_us from now on that clock; never beyond UINT64_MAX / 2. */
uint64_t nu_deadline_after_us(uint64_t timeout_us);
/* Calls @fn(arg) in scheduler context of the calling core after @after_ns; one shot; must not block. */
int __must_check nu_timer_call(uint64_t after_ns, void (*fn)(void *arg), void *arg);

/* ---- calling up ---- */

/* Something that a core polls (UCX workers, completion queues). Each is called on each core. */
struct nu_poller {
	/* Progress; returns events handled. Scheduler context: no thread, must not block; may make threads ready. */
	unsigned (*poll)(unsigned core);
	/* Send what is batched; called when the queue has run dry and every NU_POLL_TICKS switches. */
	void (*flush)(unsigned core);
	/* Before sleeping: arm; returns a file descriptor to wait on (readable: poll again), -1 for none, -EBUSY if events
	 * are pending and the core must not sleep. */
	int (*arm)(unsigned core);
	/* In the core's scheduler context, at its end. */
	void (*core_stop)(unsigned core);
	/* Another kernel thread carries the core from now on: the calling one. May be in the midst of a poll: stores only. */
	void (*core_carried)(unsigned core);
};
int __must_check nu_poller_add(const struct nu_poller *p); /* before nu_sched_start */

struct nu_sched_ops {
	/* A stack of node @home ended here, with a thread of @proclet. */
	void (*stack_home)(unsigned home, void *stack_top, uint64_t proclet);
	/* Whether @owner waits, directly or by others that are on this node, for the end of @t, the calling thread: it serves a
	 * call of @owner's, at any depth, or is joined by it. */
	bool (*is_waited_for)(const struct nu_thread *t, const struct nu_thread *owner);
	/* A thread ran over its stack's guard page, or crashed: names it (signal context; must be signal-safe). */
	void (*crashed)(struct nu_thread *t, int signo, void *addr);
};
void nu_sched_set_ops(const struct nu_sched_ops *ops);

/* Runs fn(arg) soon in scheduler context of @core (from any kernel thread), waking it. */
int __must_check nu_core_post(unsigned core, void (*fn)(void *arg), void *arg);
