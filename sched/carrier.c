/* SPDX-License-Identifier: MIT */
/*
 * Carriers: the kernel threads that cores run on.
 *
 * A core (its run queue, timers, polls, the scheduler's context on a stack of its own) is carried by one kernel thread at a
 * time, which hardly ever changes. But a user-level thread may be inside the C library, or another library that is
 * not moved, for long: a read() that waits, strlen() of a huge text. It cannot be switched away there, because it may hold
 * that library's locks. Then the monitor has another carrier stand by (nu_carrier_relieve()), and the signal's handler, on
 * the stuck thread's own stack, leaves the core to it: the thread stays with its kernel thread, and the core goes on with
 * the other one from where it had switched to the thread.
 *
 * A thread that has been left so is `stray`: what its kernel thread finds in nu_here is the carrier's `side`, which looks like
 * a core but is none: nothing polls there and nothing is queued there. So the thread comes back before the runtime does
 * anything for it that needs a core: preempt_req stays set on a side, and `ticks` is past every limit, so that each shorter
 * way ends at nu_preempt_point(); and the monitor interrupts it once it is in the program's own code. What may be called from
 * inside a library, where a thread must not be switched, works on a side: malloc and free (without a cache), the clock, ready.
 *
 * The core may be left only where no function of the runtime is under way on the thread's stack, since that may know the core:
 * foreign.c looks at the frames.
 */
#include "sched/carrier.h"
#include "sched/foreign.h"
#include "sched/sanitize.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CORE_STACK    ((size_t)512 << 10) /* of a scheduler's context, whatever RLIMIT_STACK says */
#define CARRIER_STACK ((size_t)512 << 10) /* the program's thread-local variables are part of it */
#define SIDE_LOOK_NS  64000000u /* between two looks at a stray thread that sleeps in a system call, at most */

_Static_assert(NU_STAT_CORES == NU_MAX_CORES + NU_CARRIERS_MAX, "a side counts what its stray thread does");

enum { ORDER_NONE, ORDER_CARRY, ORDER_STOP };

static struct {
	struct nu_lock lock; /* free, n */
	struct nu_carrier *all[NU_CARRIERS_MAX];
	struct nu_carrier *standby; /* by next */
	unsigned n;
	unsigned extra_max; /* NU_CARRIERS: besides those that the cores begin with */
	cpu_set_t allowed;
} carriers;

static void futex_wake(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void carrier_order(struct nu_carrier *k, unsigned order)
{
	atomic_store_explicit(&k->order, order, memory_order_release);
	futex_wake(&k->order);
}

static void standby_push(struct nu_carrier *k)
{
	nu_lock_acquire(&carriers.lock);
	k->next = carriers.standby;
	carriers.standby = k;
	nu_lock_release(&carriers.lock);
}

/* ---- a kernel thread's life ---- */

static void carrier_bounds(struct nu_carrier *k)
{
	pthread_attr_t attr;
	void *low;

	if (pthread_getattr_np(pthread_self(), &attr))
		return;
	if (!pthread_attr_getstack(&attr, &low, &k->stack_bytes))
		k->stack_low = low;
	pthread_attr_destroy(&attr);
}

static int carrier_prepare(struct nu_carrier *k)
{
	stack_t ss = {.ss_sp = k->alt_stack, .ss_size = NU_ALT_STACK};
	sigset_t mask;

	k->tid = (pid_t)syscall(SYS_gettid);
	k->errno_p = nu_errno_location();
	carrier_bounds(k);
	nu_san_carrier_start(k);
	prctl(PR_SET_TIMERSLACK, 1000ul); /* the default of 50 us is long against a sleep of 10 */
	if (sigaltstack(&ss, &k->old_alt_stack))
		return -nu_sys_errno;
	nu_signal_mask(&mask);
	return -pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* Binds the calling kernel thread to the processor that is @c's; the stray ones run anywhere. */
static void carrier_pin(const struct nu_core *c)
{
	cpu_set_t one;

	if (c->cpu < 0)
		return;
	CPU_ZERO(&one);
	CPU_SET(c->cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		nu_info("core %u: not pinned to processor %d", c->index, c->cpu);
}

/* The scheduler's context of @c, from beginning to end, on one kernel thread after another. Return: the context to go on with. */
static void *core_body(struct nu_thread *ignored, void *arg)
{
	struct nu_core *c = arg;

	nu_san_arrive(NULL);
	nu_core_loop(c);
	atomic_store(&c->leaving, true);
	nu_core_stop_pollers(c);
	atomic_store(&c->ended, 1);
	futex_wake(&c->ended);
	nu_san_to_carrier(c->carrier);
	return c->carrier->sp;
}

/* Goes on with @c where it was left. Returns when @c has ended here, or the thread that stayed here has left. */
static void carrier_carry(struct nu_carrier *k, struct nu_core *c)
{
	c->carrier = k;
	c->tid = k->tid;
	c->errno_p = k->errno_p;
	c->alt_stack = k->alt_stack;
	nu_core_set(c);
	carrier_pin(c);
	/* What was sent to the one before has reached that one, or will. */
	atomic_store(&c->signalled, false);
	nu_san_to_core(k, c);
	if (!c->begun) {
		c->begun = true;
		nu_switch_call(&k->sp, c->stack + c->stack_bytes, NULL, c, core_body);
	} else {
		nu_core_carried(c);
		nu_switch(&k->sp, c->sched_sp, &k->switching);
	}
	nu_san_arrive(k->fake_stack);
}

static void *carrier_main(void *arg)
{
	struct nu_carrier *k = arg;
	unsigned order;

	atomic_store(&k->start_error, carrier_prepare(k));
	atomic_store(&k->started, 1);
	futex_wake(&k->started);
	for (;;) {
		while (!(order = atomic_load_explicit(&k->order, memory_order_acquire)))
			syscall(SYS_futex, &k->order, FUTEX_WAIT_PRIVATE, ORDER_NONE, NULL, NULL, 0);
		if (order == ORDER_STOP)
			break;
		carrier_carry(k, k->core);
		nu_core_set(NULL);
		/* One that its core ended on waits for its end; one that a stray thread has left stands by. */
		order = ORDER_CARRY;
		atomic_compare_exchange_strong(&k->order, &order, ORDER_NONE);
		standby_push(k);
	}
	/* AddressSanitizer unmaps what it finds there, thinking it its own. */
	sigaltstack(&k->old_alt_stack, NULL);
	return NULL;
}

static void carrier_destroy(struct nu_carrier *k)
{
	if (!k)
		return;
	free(k->alt_stack);
	free(k);
}

static struct nu_carrier *carrier_create(unsigned index)
{
	struct nu_carrier *k = aligned_alloc(NU_CACHE_LINE, NU_ALIGN_UP(sizeof(*k), NU_CACHE_LINE));

	if (!k)
		return NULL;
	memset(k, 0, sizeof(*k));
	k->side.index = NU_MAX_CORES + index;
	k->side.stats = nu_stat_cores[k->side.index].v;
	k->side.carrier = k;
	nu_list_init(&k->side.queue);
	atomic_store(&k->side.next_deadline, UINT64_MAX);
	k->alt_stack = malloc(NU_ALT_STACK);
	if (k->alt_stack)
		return k;
	carrier_destroy(k);
	return NULL;
}

static int carrier_start(const char *name, struct nu_carrier **k_p)
{
	struct nu_carrier *k = carrier_create(carriers.n);
	int err = k ? nu_kthread_start(&k->pthread, name, CARRIER_STACK, carrier_main, k) : -ENOMEM;

	if (err) {
		carrier_destroy(k);
		return err;
	}
	k->has_kthread = true;
	while (!atomic_load(&k->started))
		syscall(SYS_futex, &k->started, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	nu_lock_acquire(&carriers.lock);
	carriers.all[carriers.n] = k;
	nu_sched.cores[k->side.index] = &k->side;
	carriers.n++;
	nu_lock_release(&carriers.lock);
	*k_p = k;
	return atomic_load(&k->start_error);
}

static unsigned carriers_wanted(unsigned max)
{
	const char *env = getenv("NU_CARRIERS");
	unsigned long n = NU_CARRIERS_DEFAULT;
	char *end;

	if (NU_SAN_IN_PROGRAM)
		return 0;
	if (env) {
		n = strtoul(env, &end, 10);
		if (*env < '0' || *env > '9' || *end || n > max) {
			nu_warn("NU_CARRIERS is \"%s\", want 0 to %u: taking %d", env, max,
				NU_CARRIERS_DEFAULT);
			n = NU_CARRIERS_DEFAULT;
		}
	}
	return n < max ? (unsigned)n : max;
}

int nu_carriers_start(void)
{
	struct nu_carrier *k;
	char name[16];
	int err = 0;

	carriers.extra_max = carriers_wanted(NU_CARRIERS_MAX - nu_sched.ncores);
	CPU_ZERO(&carriers.allowed);
	if (sched_getaffinity(0, sizeof(carriers.allowed), &carriers.allowed))
		return -nu_sys_errno;
	for (unsigned i = 0; i < nu_sched.ncores && !err; i++) {
		snprintf(name, sizeof(name), "core %u", i);
		err = carrier_start(name, &k);
		if (!err)
			k->core = nu_sched.cores[i];
	}
	for (unsigned i = 0; i < nu_sched.ncores && !err; i++) {
		nu_sched.cores[i]->carrier =
			carriers.all[i]; /* nu_sched_stop() waits for its end from here on */
		carrier_order(carriers.all[i], ORDER_CARRY);
	}
	return err;
}

/* ---- a core's own stack ---- */

int nu_core_stack_map(struct nu_core *c)
{
	size_t guard = NU_PAGE_BYTES, bytes = CORE_STACK + guard;
	char *low = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (low == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(low, guard, PROT_NONE)) {
		munmap(low, bytes);
		return -ENOMEM;
	}
	c->stack = low + guard;
	c->stack_bytes = CORE_STACK;
	nu_valgrind_stack(c->stack, c->stack_bytes);
	return 0;
}

void nu_core_stack_unmap(struct nu_core *c)
{
	if (c->stack)
		munmap(c->stack - NU_PAGE_BYTES, c->stack_bytes + NU_PAGE_BYTES);
	c->stack = NULL;
}

/* ---- leaving a core to another kernel thread ---- */

static struct nu_carrier *standby_pop(void)
{
	struct nu_carrier *k;

	nu_lock_acquire(&carriers.lock);
	k = carriers.standby;
	if (k)
		carriers.standby = k->next;
	nu_lock_release(&carriers.lock);
	return k;
}

/* As many as may be are in use: cores wait again for what is stuck on them. */
static void __attribute__((cold)) say_used_up(const struct nu_core *c)
{
	static atomic_bool said;

	if (carriers.extra_max && !atomic_exchange(&said, true))
		nu_warn("core %u waits for its thread, which is in code that cannot be interrupted: all of "
			"NU_CARRIERS=%u "
			"kernel threads for such cores are in use",
			c->index, carriers.extra_max);
}

bool nu_carrier_relieve(struct nu_core *c)
{
	struct nu_carrier *k;

	if (atomic_load_explicit(&c->relief, memory_order_relaxed))
		return true;
	k = standby_pop();
	if (!k) {
		if (carriers.n >= nu_sched.ncores + carriers.extra_max) {
			say_used_up(c);
			return false;
		}
		if (carrier_start("carrier", &k))
			return false;
	}
	k->core = c;
	atomic_store_explicit(&c->relief, k, memory_order_release);
	return true;
}

void nu_carrier_keep(struct nu_core *c)
{
	struct nu_carrier *k;

	if (likely(!atomic_load_explicit(&c->relief, memory_order_relaxed)))
		return;
	k = atomic_exchange(&c->relief, NULL);
	if (k)
		standby_push(k);
}

bool nu_carrier_leave(struct nu_core *c, struct nu_thread *t, const struct nu_foreign *o)
{
	struct nu_carrier *k = c->carrier, *relief;
	int saved = nu_sys_errno;
	struct nu_core *s;

	if (nu_core_is_side(c)) /* a stray thread has left its core already */
		return false;
	relief = atomic_exchange(&c->relief, NULL);
	if (!relief)
		return false;
	s = &k->side;
	s->sched_sp = k->sp;
	s->tid = k->tid;
	s->errno_p = k->errno_p;
	s->alt_stack = k->alt_stack;
	s->heap_cache = NULL;
	s->ticks = NU_POLL_TICKS * NU_HANDOFF_TICKS;
	s->called_pc = (const void *)o->called;
	atomic_store(&s->refused_pc, (const void *)o->pc);
	atomic_store(&s->signalled, false);
	atomic_store(&s->preempt_req, 1);
	__atomic_store_n(&t->core, (uint16_t)s->index, __ATOMIC_RELAXED);
	atomic_store(&s->current, t);
	nu_core_set(s);
	nu_stat_add(s->index, NU_STAT_CORES_LEFT, 1);
	if (c->cpu >= 0)
		sched_setaffinity(0, sizeof(carriers.allowed), &carriers.allowed);
	atomic_store(&c->preempt_req, 0);
	atomic_store_explicit(&c->current, NULL, memory_order_release);
	carrier_order(relief, ORDER_CARRY);
	nu_sys_errno = saved;
	return true;
}

struct nu_core *nu_core_any(void)
{
	static atomic_uint turn;

	return nu_sched.cores[atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % nu_sched.ncores];
}

/* ---- the monitor's look at stray threads ---- */

static uint64_t carrier_cpu_ns(const struct nu_carrier *k)
{
	struct timespec ts;
	clockid_t clock;

	if (pthread_getcpuclockid(k->pthread, &clock) || clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* One that has used the processor since the last look may have come to where it can be interrupted. */
static void look_at_stray(struct nu_carrier *k, uint64_t now)
{
	uint64_t cpu;

	if (now < k->look_ns)
		return;
	cpu = carrier_cpu_ns(k);
	if (cpu - k->cpu_ns > NU_TICK_NS / 10) {
		k->look_after_ns = NU_TICK_NS;
		nu_preempt_signal(&k->side);
	} else if (k->look_after_ns < SIDE_LOOK_NS) {
		k->look_after_ns = k->look_after_ns ? 2 * k->look_after_ns : NU_TICK_NS;
	}
	k->cpu_ns = carrier_cpu_ns(k);
	k->look_ns = now + k->look_after_ns;
}

uint64_t nu_carriers_look(uint64_t now)
{
	uint64_t next = UINT64_MAX;
	unsigned n = __atomic_load_n(&carriers.n, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < n; i++) {
		struct nu_carrier *k = carriers.all[i];

		if (!atomic_load_explicit(&k->side.current, memory_order_relaxed)) {
			k->look_ns = k->look_after_ns = 0;
			continue;
		}
		look_at_stray(k, now);
		next = k->look_ns < next ? k->look_ns : next;
	}
	return next;
}

/* ---- the end ---- */

static int carrier_join(struct nu_carrier *k, const struct timespec *until)
{
	if (!k->has_kthread)
		return 0;
	if (pthread_timedjoin_np(k->pthread, NULL, until))
		return -ETIMEDOUT;
	k->has_kthread = false;
	return 0;
}

int nu_carriers_stop(const struct timespec *until)
{
	int err = 0;

	for (unsigned i = 0; i < carriers.n; i++)
		carrier_order(carriers.all[i], ORDER_STOP);
	for (unsigned i = 0; i < carriers.n; i++) {
		struct nu_thread *t = atomic_load(&carriers.all[i]->side.current);

		if (!carrier_join(carriers.all[i], until))
			continue;
		err = -ETIMEDOUT;
		if (t)
			nu_preempt_say_stuck(&carriers.all[i]->side, t, "the node leaves without it");
		else
			nu_warn("kernel thread %d does not end", (int)carriers.all[i]->tid);
	}
	return err;
}

void nu_carriers_fini(void)
{
	for (unsigned i = 0; i < carriers.n; i++) {
		nu_sched.cores[NU_MAX_CORES + i] = NULL;
		carrier_destroy(carriers.all[i]);
		carriers.all[i] = NULL;
	}
	carriers.n = 0;
	carriers.standby = NULL;
}
