/* SPDX-License-Identifier: MIT */
/*
 * Timers: a binary heap per core, fired by its owner's scheduler context. A thread's timer only claims its wake-up and
 * makes it ready, which an idle core does as well where the owner is stuck in code that cannot be interrupted; the thread leaves the list that it waited in by itself.
 */
#include "core/fault.h"
#include "sched/sched_int.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define FIRE_BATCH 32
#define OVERDUE_NS (2 * NU_TICK_NS) /* then other cores may fire a thread's timer */

struct nu_timer_fn {
	void (*fn)(void *arg);
	void *arg;
};

uint64_t nu_mono_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t nu_deadline_after_us(uint64_t timeout_us)
{
	uint64_t now = nu_mono_ns();

	return timeout_us > (UINT64_MAX / 2 - now) / 1000 ? UINT64_MAX / 2 : now + timeout_us * 1000;
}

int nu_timers_init(struct nu_core *c)
{
	size_t bytes = (NU_TIMERS_MAX + 1) * sizeof(struct nu_timer_slot);

	c->timers = nu_fault(NU_FAULT_MAP) ? MAP_FAILED
					   : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
						  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->timers == MAP_FAILED) {
		c->timers = NULL;
		nu_err("timers: no address space for %zu MiB", bytes >> 20);
		return -ENOMEM;
	}
	atomic_store(&c->next_deadline, UINT64_MAX);
	return 0;
}

void nu_timers_fini(struct nu_core *c)
{
	if (!c->timers)
		return;
	for (uint32_t i = 1; i <= c->ntimers; i++)
		if (c->timers[i].what & 1)
			free((void *)(c->timers[i].what & ~(uintptr_t)1));
	munmap(c->timers, (NU_TIMERS_MAX + 1) * sizeof(struct nu_timer_slot));
}

static void put(struct nu_core *c, uint32_t i, struct nu_timer_slot s)
{
	c->timers[i] = s;
	if (!(s.what & 1))
		__atomic_store_n(&((struct nu_thread *)s.what)->timer_index, i, __ATOMIC_RELEASE);
}

static void sift_up(struct nu_core *c, uint32_t i, struct nu_timer_slot s)
{
	while (i > 1 && c->timers[i / 2].deadline_ns > s.deadline_ns) {
		put(c, i, c->timers[i / 2]);
		i /= 2;
	}
	put(c, i, s);
}

static void sift_down(struct nu_core *c, uint32_t i, struct nu_timer_slot s)
{
	for (;;) {
		uint32_t child = 2 * i;

		if (child > c->ntimers)
			break;
		if (child < c->ntimers && c->timers[child + 1].deadline_ns < c->timers[child].deadline_ns)
			child++;
		if (c->timers[child].deadline_ns >= s.deadline_ns)
			break;
		put(c, i, c->timers[child]);
		i = child;
	}
	put(c, i, s);
}

static void note_first(struct nu_core *c)
{
	atomic_store_explicit(&c->next_deadline, c->ntimers ? c->timers[1].deadline_ns : UINT64_MAX,
			      memory_order_relaxed);
}

/* Lock held. True: it is the first now. */
static bool insert(struct nu_core *c, struct nu_timer_slot s)
{
	NU_ASSERT(c->ntimers < NU_TIMERS_MAX); /* threads are fewer: each needs a mapping */
	sift_up(c, ++c->ntimers, s);
	note_first(c);
	return c->timers[1].what == s.what;
}

/* Lock held. */
static void cut(struct nu_core *c, uint32_t i)
{
	struct nu_timer_slot last = c->timers[c->ntimers--];

	if (i <= c->ntimers) {
		if (i > 1 && c->timers[i / 2].deadline_ns > last.deadline_ns)
			sift_up(c, i, last);
		else
			sift_down(c, i, last);
	}
	note_first(c);
}

void nu_timer_arm(struct nu_core *c, struct nu_thread *t, uint64_t deadline_ns)
{
	bool first;

	if (unlikely(nu_core_is_side(c)))
		c = nu_core_any();
	t->deadline_ns = deadline_ns;
	nu_lock_acquire(&c->timer_lock);
	t->timer_core = (uint16_t)c->index;
	first = insert(c, (struct nu_timer_slot){deadline_ns, (uintptr_t)t});
	nu_lock_release(&c->timer_lock);
	if (first && c != nu_core_get())
		nu_core_kick(c);
}

void nu_timer_cancel(struct nu_thread *t)
{
	struct nu_core *c;

	/* 0 is stored after the last look at the thread: no lock is needed then. */
	if (!__atomic_load_n(&t->timer_index, __ATOMIC_ACQUIRE))
		return;
	c = nu_sched.cores[t->timer_core];
	nu_lock_acquire(&c->timer_lock);
	if (t->timer_index) {
		cut(c, t->timer_index);
		t->timer_index = 0;
	}
	nu_lock_release(&c->timer_lock);
}

int nu_timer_call(uint64_t after_ns, void (*fn)(void *arg), void *arg)
{
	struct nu_core *c = nu_core_get();
	struct nu_timer_fn *f;
	bool full;

	if (!c)
		return -EINVAL;
	f = nu_alloc_patiently(sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct nu_timer_fn){fn, arg};
	nu_lock_acquire(&c->timer_lock);
	full = c->ntimers >= NU_TIMERS_MAX;
	if (!full)
		insert(c, (struct nu_timer_slot){nu_mono_ns() + after_ns, (uintptr_t)f | 1});
	nu_lock_release(&c->timer_lock);
	if (full) {
		free(f);
		return -ENOMEM;
	}
	return 0;
}

/* Lock held: takes an expired thread's timer off. True: its wake-up is ours. */
static bool expire(struct nu_core *c, struct nu_thread *t)
{
	bool won = nu_wake_claim(t);

	if (won) {
		t->timed_out = 1;
		t->deadline_ns = 0;
	}
	cut(c, 1);
	__atomic_store_n(&t->timer_index, 0, __ATOMIC_RELEASE);
	return won;
}

/* @own: the calling core's. Else its threads only: a function wants the core that it was left with. */
static unsigned fire_some(struct nu_core *c, uint64_t now, bool own)
{
	uintptr_t due[FIRE_BATCH];
	unsigned n = 0;

	nu_lock_acquire(&c->timer_lock);
	while (n < FIRE_BATCH && c->ntimers && c->timers[1].deadline_ns <= now) {
		uintptr_t what = c->timers[1].what;

		if ((what & 1) && !own)
			break;
		if (what & 1)
			cut(c, 1);
		else if (!expire(c, (struct nu_thread *)what))
			continue;
		due[n++] = what;
	}
	nu_lock_release(&c->timer_lock);
	for (unsigned i = 0; i < n; i++) {
		struct nu_timer_fn *f = (void *)(due[i] & ~(uintptr_t)1);

		if (!(due[i] & 1)) {
			nu_thread_ready((struct nu_thread *)due[i]);
			continue;
		}
		struct nu_timer_fn call = *f;

		free(f);
		call.fn(call.arg);
	}
	return n;
}

unsigned nu_timers_run(struct nu_core *c)
{
	uint64_t first = atomic_load_explicit(&c->next_deadline, memory_order_relaxed), now;
	unsigned n, sum = 0;

	if (first == UINT64_MAX)
		return 0;
	now = nu_mono_ns();
	if (first > now)
		return 0;
	do {
		n = fire_some(c, now, true);
		sum += n;
	} while (n == FIRE_BATCH);
	return sum;
}

bool nu_timers_overdue(struct nu_core *c, uint64_t now)
{
	uint64_t first = atomic_load_explicit(&c->next_deadline, memory_order_relaxed);

	return first < now && now - first > OVERDUE_NS;
}

unsigned nu_timers_help(struct nu_core *self)
{
	uint64_t now = nu_mono_ns();
	unsigned n = 0;

	for (unsigned i = 0; i < nu_sched.ncores; i++)
		if (nu_sched.cores[i] != self && nu_timers_overdue(nu_sched.cores[i], now))
			n += fire_some(nu_sched.cores[i], now, false);
	return n;
}
