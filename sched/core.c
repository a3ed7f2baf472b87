/* SPDX-License-Identifier: MIT */
/* Cores: kernel threads that run user-level threads; their loop, their start and their end. */
#include "sched/carrier.h"
#include "sched/foreign.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STOP_S_MAX  2  /* that a core may take to leave its threads */
#define CLOSE_S_MAX 15 /* and to say good-bye: many nodes that stop at once share few processors */

#ifdef __clang__
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noipa))
#endif
/* clang has no noipa: what it cannot see through it does not take for the same at each call. */
#define OPAQUE() __asm__ volatile("" ::: "memory")

struct nu_sched nu_sched;

_Static_assert(offsetof(struct nu_core, current) == offsetof(struct nu_here, current) &&
		       offsetof(struct nu_core, index) == offsetof(struct nu_here, index) &&
		       offsetof(struct nu_core, heap) == offsetof(struct nu_here, heap) &&
		       offsetof(struct nu_core, heap_cache) == offsetof(struct nu_here, cache) &&
		       offsetof(struct nu_thread, proclet) == offsetof(struct nu_runs, proclet),
	       "core/ knows how they begin");

NOINLINE void nu_core_set(struct nu_core *c)
{
	nu_here = (struct nu_here *)c;
}

unsigned nu_core_self(void)
{
	struct nu_core *c = nu_core_get();

	return c ? c->index : 0;
}

bool nu_on_core(void)
{
	return nu_core_get() != NULL;
}

NOINLINE int *nu_errno_location(void)
{
	OPAQUE();
	return __errno_location();
}

static struct nu_proclet *current_proclet(void)
{
	struct nu_thread *t = nu_thread_self();

	return t && t->proclet->heap ? t->proclet : NULL;
}

/* ---- registration, before the start ---- */

int nu_poller_add(const struct nu_poller *p)
{
	if (nu_sched.npollers == NU_MAX_POLLERS) {
		nu_err("pollers: at most %d", NU_MAX_POLLERS);
		return -ENOSPC;
	}
	nu_sched.pollers[nu_sched.npollers++] = *p;
	return 0;
}

void nu_sched_set_ops(const struct nu_sched_ops *ops)
{
	nu_sched.ops = *ops;
}

/* ---- posted functions ---- */

int nu_core_post(unsigned core, void (*fn)(void *arg), void *arg)
{
	struct nu_post *post;
	struct nu_core *c;

	if (core >= nu_sched.ncores)
		return -EINVAL;
	post = nu_alloc_patiently(sizeof(*post));
	if (!post)
		return -ENOMEM;
	*post = (struct nu_post){NULL, fn, arg};
	c = nu_sched.cores[core];
	nu_lock_acquire(&c->post_lock);
	*c->posts_tail = post;
	c->posts_tail = &post->next;
	atomic_store(&c->has_posts, true);
	nu_lock_release(&c->post_lock);
	nu_core_kick(c);
	return 0;
}

void nu_core_run_posts(struct nu_core *c)
{
	struct nu_post *post;

	if (!atomic_load_explicit(&c->has_posts, memory_order_relaxed))
		return;
	nu_lock_acquire(&c->post_lock);
	post = c->posts;
	c->posts = NULL;
	c->posts_tail = &c->posts;
	atomic_store(&c->has_posts, false);
	nu_lock_release(&c->post_lock);
	while (post) {
		struct nu_post p = *post;

		free(post);
		p.fn(p.arg);
		post = p.next;
	}
}

/* ---- the loop ---- */

static void flush_all(struct nu_core *c)
{
	for (unsigned i = 0; i < nu_sched.npollers; i++)
		if (nu_sched.pollers[i].flush)
			nu_sched.pollers[i].flush(c->index);
}

unsigned nu_core_poll(struct nu_core *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nu_sched.npollers; i++)
		if (nu_sched.pollers[i].poll)
			n += nu_sched.pollers[i].poll(c->index);
	return n;
}

/* Takes the expired timers and the queue of a core that is stuck; returns a thread to run first. */
static __attribute__((noinline)) struct nu_thread *help(struct nu_core *c)
{
	if (!atomic_exchange(&nu_sched.help, false))
		return NULL;
	nu_timers_help(c);
	atomic_store(&c->hungry, true);
	return nu_steal(c);
}

void nu_core_loop(struct nu_core *c)
{
	while (likely(!atomic_load_explicit(&nu_sched.stop, memory_order_relaxed))) {
		struct nu_thread *t = c->next;

		c->ticks = 0;
		c->ran_within = 0;
		atomic_store_explicit(&c->preempt_req, 0, memory_order_relaxed);
		atomic_store_explicit(&c->rounds, atomic_load_explicit(&c->rounds, memory_order_relaxed) + 1,
				      memory_order_relaxed);
		c->next = NULL;
		/* First what the threads that just ran have sent, since somebody waits for it. */
		flush_all(c);
		/* Unless that is what the idle core has just come from. */
		if (c->polled || nu_core_poll(c))
			c->idle_since = 0;
		c->polled = false;
		nu_timers_run(c);
		nu_core_run_posts(c);
		if (unlikely(atomic_load_explicit(&nu_sched.help, memory_order_relaxed)) && !t)
			t = help(c);
		if (!t)
			t = nu_runq_pop(c);
		if (!t)
			t = nu_steal(c);
		if (t) {
			c->idle_since = 0;
			nu_thread_run(c, t);
		} else {
			flush_all(c); /* polling may have answered */
			if (!c->idle_since)
				nu_spares_trim(c);
			nu_core_idle(c);
		}
	}
}

/* ---- start and end ---- */

/* The processor that core @index of this node is pinned to; -1: none. */
static int core_cpu(unsigned index)
{
	unsigned want = index, seen = 0;
	cpu_set_t allowed;

	for (unsigned n = 0; n < nu_node.self; n++)
		want += nu_node.cores_of[n] ? nu_node.cores_of[n] : nu_node.cores;
	if (!nu_sched.pin || sched_getaffinity(0, sizeof(allowed), &allowed))
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && seen++ == want)
			return cpu;
	return -1;
}

void nu_core_stop_pollers(struct nu_core *c)
{
	for (unsigned i = nu_sched.npollers; i--;)
		if (nu_sched.pollers[i].core_stop)
			nu_sched.pollers[i].core_stop(c->index);
}

void nu_core_carried(struct nu_core *c)
{
	for (unsigned i = 0; i < nu_sched.npollers; i++)
		if (nu_sched.pollers[i].core_carried)
			nu_sched.pollers[i].core_carried(c->index);
}

static void core_destroy(struct nu_core *c)
{
	if (!c)
		return;
	if (c->event_fd >= 0)
		close(c->event_fd);
	nu_timers_fini(c);
	while (c->posts) {
		struct nu_post *post = c->posts;

		c->posts = post->next;
		free(post);
	}
	nu_core_stack_unmap(c);
	free(c);
}

static struct nu_core *core_create(unsigned index)
{
	struct nu_core *c = aligned_alloc(NU_CACHE_LINE, NU_ALIGN_UP(sizeof(*c), NU_CACHE_LINE));

	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->index = index;
	c->lives = ~((uint64_t)index << 25);
	c->cache_max = nu_valgrind_runs_us() ? 0 : NU_STACK_CACHE;
	c->spin_ns = nu_sched.spin_ns;
	c->stats = nu_stat_cores[index].v;
	c->posts_tail = &c->posts;
	nu_list_init(&c->queue);
	c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->cpu = core_cpu(index);
	if (c->event_fd < 0 || nu_core_stack_map(c) || nu_timers_init(c)) {
		core_destroy(c);
		return NULL;
	}
	return c;
}

static unsigned online_cpus(void)
{
	cpu_set_t allowed;

	return sched_getaffinity(0, sizeof(allowed), &allowed) ? 1 : (unsigned)CPU_COUNT(&allowed);
}

/* With a processor for every core of every node of this host cores are pinned and may spin. NU_PIN and NU_SPIN_US say
 * otherwise: two jobs on one host would be pinned to the same processors. */
static void choose(void)
{
	const char *pin_env = getenv("NU_PIN"), *spin_env = getenv("NU_SPIN_US");
	unsigned all = 0;
	bool room;

	for (unsigned n = 0; n < nu_node.count || n == 0; n++)
		all += n < nu_node.count && nu_node.cores_of[n] ? nu_node.cores_of[n] : nu_node.cores;
	room = all <= online_cpus();
	nu_sched.pin = pin_env ? atoi(pin_env) != 0 : room;
	nu_sched.spin_ns = spin_env ? strtoul(spin_env, NULL, 10) * 1000 : room ? 20000 : 0;
	nu_sched.spin_grows = !spin_env;
}

static int start_cores(void)
{
	for (unsigned i = 0; i < nu_node.cores; i++) {
		nu_sched.cores[i] = core_create(i);
		if (!nu_sched.cores[i]) {
			nu_err("core %u: no memory or file descriptors", i);
			return -ENOMEM;
		}
	}
	/* All are there before the first runs: it looks at the others. */
	nu_sched.ncores = nu_node.cores;
	return nu_carriers_start();
}

static int start_first(struct nu_proclet *p, nu_thread_fn first, void *arg)
{
	struct nu_thread *t;

	if (!first)
		return 0;
	t = nu_thread_alloc(p);
	if (!t)
		return -ENOMEM;
	nu_thread_prepare(t, first, arg, 0);
	t->detached = 1;
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	nu_ready_on(nu_sched.cores[0], t, false);
	nu_core_kick(nu_sched.cores[0]);
	return 0;
}

/* A forked child has this one thread, which must not be switched away: caught in fork() itself, or in sleep(). */
static void in_child(void)
{
	struct nu_thread *t = nu_thread_self();

	if (t)
		t->preempt_off++;
}

static void note_forks(void)
{
	static bool noted;

	if (!noted && !pthread_atfork(NULL, NULL, in_child))
		noted = true;
}

int nu_sched_start(struct nu_proclet *p, nu_thread_fn first, void *arg)
{
	int err;

	if (!nu_node.cores || nu_node.cores > NU_MAX_CORES || nu_sched.ncores) {
		nu_err("scheduler: %u cores wanted, 1 to %d are possible", nu_node.cores, NU_MAX_CORES);
		return -EINVAL;
	}
	nu_sched.pid = getpid();
	atomic_store(&nu_sched.stop, false);
	choose();
	nu_quick_init();
	nu_foreign_init();
	note_forks();
	err = nu_stacks_init();
	if (err)
		return err;
	err = nu_crash_init();
	/* Before the first core runs: another node's call may be served at once, and what it allocates is its proclet's. */
	nu_current_proclet_fn = current_proclet;
	nu_current_core_fn = nu_core_self;
	if (!err)
		err = nu_preempt_catch();
	if (!err)
		err = start_cores();
	if (!err)
		err = nu_preempt_init();
	if (!err)
		err = start_first(p, first, arg);
	if (err)
		(void)!nu_sched_stop();
	return err;
}

static struct nu_proclet *no_proclet(void)
{
	return NULL;
}

static unsigned core_zero(void)
{
	return 0;
}

/* Waits until @c has ended, @until on the monotonic clock. */
static bool core_ends(struct nu_core *c, uint64_t until_ns)
{
	uint64_t now;

	while (!atomic_load(&c->ended) && (now = nu_mono_ns()) < until_ns) {
		struct timespec left = {(time_t)((until_ns - now) / 1000000000u),
					(long)((until_ns - now) % 1000000000u)};

		syscall(SYS_futex, &c->ended, FUTEX_WAIT_PRIVATE, 0, &left, NULL, 0);
	}
	return atomic_load(&c->ended);
}

/* Waits for @c's end, not for ever: its thread may be in a system call. */
static int core_join(struct nu_core *c, uint64_t until_ns)
{
	struct nu_thread *t;

	if (!c->carrier) /* it was never carried */
		return 0;
	if (core_ends(c, until_ns) || ((atomic_load(&c->leaving) || !atomic_load(&c->current)) &&
				       core_ends(c, until_ns + CLOSE_S_MAX * 1000000000ull)))
		return 0;
	t = atomic_load(&c->current);
	if (t)
		nu_preempt_say_stuck(c, t, "the node leaves without it");
	else
		nu_warn("core %u does not end", c->index);
	return -ETIMEDOUT;
}

int nu_sched_stop(void)
{
	uint64_t until_ns = nu_mono_ns() + STOP_S_MAX * 1000000000ull;
	struct timespec until;
	int err = 0;

	NU_ASSERT(!nu_on_core());
	atomic_store(&nu_sched.stop, true);
	for (unsigned i = 0; i < nu_sched.ncores; i++)
		nu_core_kick(nu_sched.cores[i]);
	for (unsigned i = 0; i < nu_sched.ncores && !err; i++)
		err = core_join(nu_sched.cores[i], until_ns);
	if (err)
		return err;
	/* Anew: the pollers' good-bye may have taken longer. (ThreadSanitizer does not know pthread_clockjoin_np().) */
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_S_MAX;
	err = nu_carriers_stop(&until);
	if (err)
		return err;
	nu_preempt_fini();
	nu_carriers_fini();
	nu_current_proclet_fn = no_proclet;
	nu_current_core_fn = core_zero;
	nu_sched.ncores = 0;
	for (unsigned i = 0; i < NU_MAX_CORES; i++) {
		core_destroy(nu_sched.cores[i]);
		nu_sched.cores[i] = NULL;
	}
	atomic_store(&nu_sched.nsleeping, 0);
	nu_crash_fini();
	nu_stacks_fini();
	return 0;
}

bool nu_sched_has_queued(void)
{
	return atomic_load_explicit(&nu_sched.cores[nu_core_self()]->nqueued, memory_order_relaxed) != 0;
}

bool nu_sched_crowded(void)
{
	return !nu_sched.pin;
}
