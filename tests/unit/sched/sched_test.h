/* SPDX-License-Identifier: MIT */
/* What the scheduler's tests share: starting it in the test's process and code that may be interrupted. */
#pragma once

#include "sched/sched_int.h"

#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* The runtime is linked statically here, so where a thread may be interrupted is told by this section. */
#define USER __attribute__((section("nu_user_text"), noinline))
extern const char __start_nu_user_text[], __stop_nu_user_text[];

static struct nu_proclet user_proclet, node_proclet;
static char user_heap; /* only told from NULL: the user proclet's threads are not the runtime's */
static sem_t main_done;
static void (*main_body)(void);
static unsigned start_as; /* the node that this process is: whose stacks are its own */

static __attribute__((unused)) NU_NO_TSAN bool in_user_text(const void *pc)
{
	return (const char *)pc >= __start_nu_user_text && (const char *)pc < __stop_nu_user_text;
}

static __attribute__((used)) USER void user_text_exists(void)
{
}

/* A look at what others write under a lock: for waiting until something has happened. */
static __attribute__((unused)) NU_NO_TSAN uint32_t peek(const volatile uint32_t *p)
{
	return *p;
}

static void proclet_make(struct nu_proclet *p, uint64_t id, bool user)
{
	memset(p, 0, sizeof(*p));
	p->id = id;
	p->state = NU_PROCLET_PRESENT;
	nu_list_init(&p->threads);
	nu_list_init(&p->parked);
	nu_list_init(&p->held);
	nu_list_init(&p->output_waiters);
	p->heap = user ? (struct nu_heap *)&user_heap : NULL;
}

/* A small region of our own: the test driver's arena may lie anywhere in the default ones. */
static void layout_make(void)
{
#ifdef __SANITIZE_THREAD__ /* its builds have no such driver, and no memory of ours there */
	nu_layout.stack_node_bytes = nu_layout.stack_region_bytes / 4;
	nu_layout.stack_slot_bytes = 128 * NU_KIB;
#else
	nu_layout.stack_base = 0x200000000000;
	nu_layout.stack_region_bytes = 64 * NU_GIB;
	nu_layout.stack_node_bytes = 16 * NU_GIB;
	nu_layout.stack_slot_bytes = NU_MIB;
#endif
	nu_layout.stack_bytes = 64 * NU_KIB;
}

static void main_thread(void *arg)
{
	main_body();
	sem_post(&main_done);
}

static void start_in(struct nu_proclet *p, unsigned cores, void (*body)(void))
{
	sem_init(&main_done, 0, 0);
	main_body = body;
	nu_node.self = start_as;
	nu_node.count = 1;
	nu_node.cores = cores;
	nu_node.cores_of[0] = (uint8_t)cores;
	nu_preempt_pc_ok = in_user_text;
	setenv("NU_PIN", "0", 0); /* tests run side by side */
	proclet_make(&user_proclet, 0x1234567, true);
	proclet_make(&node_proclet, nu_id_of_node(0), false);
	layout_make();
	cr_assert_eq(nu_sched_start(p, body ? main_thread : NULL, NULL), 0);
}

static void wait_main(void)
{
	while (sem_wait(&main_done))
		;
}

/* Runs body() as a thread of the user proclet. */
static __attribute__((unused)) void run(unsigned cores, void (*body)(void))
{
	start_in(&user_proclet, cores, body);
	wait_main();
	nu_sched_stop();
}

/* Runs body() as a thread of the node's own proclet: it may freeze the user proclet. */
static __attribute__((unused)) void run_node(unsigned cores, void (*body)(void))
{
	start_in(&node_proclet, cores, body);
	wait_main();
	nu_sched_stop();
}

/* A thread of the user proclet, from anywhere; joinable within the proclet. */
static __attribute__((unused)) struct nu_thread *user_thread(nu_thread_fn fn, void *arg, bool detached)
{
	struct nu_thread *t = nu_thread_alloc(&user_proclet);

	cr_assert_not_null(t);
	nu_thread_prepare(t, fn, arg, 0);
	t->detached = detached;
	nu_lock_acquire(&user_proclet.lock);
	nu_thread_link(t);
	nu_lock_release(&user_proclet.lock);
	nu_thread_ready(t);
	return t;
}

/* Lets the others run until *v is at least @want; fails after 20 s. */
static __attribute__((unused)) void await_at_least(atomic_int *v, int want)
{
	uint64_t end = nu_mono_ns() + 20000000000u;

	while (atomic_load(v) < want) {
		cr_assert_lt(nu_mono_ns(), end, "waited for %d, is %d", want, atomic_load(v));
		nu_yield();
	}
}

static __attribute__((unused)) uint64_t cpu_us(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

#define spawn(...) cr_assert_eq(nu_thread_spawn(__VA_ARGS__), 0)
