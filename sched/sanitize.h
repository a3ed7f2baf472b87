/* SPDX-License-Identifier: MIT */
/*
 * Announces stacks and switches to the sanitizers. Without them everything here is empty.
 *
 * AddressSanitizer is told the bounds of the stack that goes on. (It must not keep frames elsewhere: they would not move
 * with the thread. core/sanitize.c sets its options so.)
 *
 * ThreadSanitizer has a fiber for each user-level thread that has run here, made at the first switch to it and kept by
 * stack slot on this node: the one that a thread had on another node means nothing here. A switch orders what came
 * before it on this core with what follows, as is true: it is one kernel thread.
 */
#pragma once

#include "sched/carrier.h"

#if defined(__SANITIZE_ADDRESS__)

#include <sanitizer/common_interface_defs.h>

static inline void nu_san_leave(struct nu_core *c, void **fake_p, struct nu_thread *from,
				struct nu_thread *next)
{
	(void)from;
	if (next)
		__sanitizer_start_switch_fiber(fake_p, next->stack_low,
					       (size_t)((char *)(next + 1) - (char *)next->stack_low));
	else
		__sanitizer_start_switch_fiber(fake_p, c->stack, c->stack_bytes);
}
static inline void nu_san_to_core(struct nu_carrier *k, struct nu_core *c)
{
	__sanitizer_start_switch_fiber(&k->fake_stack, c->stack, c->stack_bytes);
}
static inline void nu_san_to_carrier(struct nu_carrier *k)
{
	__sanitizer_start_switch_fiber(NULL, k->stack_low, k->stack_bytes);
}
static inline void nu_san_arrive(void *fake)
{
	__sanitizer_finish_switch_fiber(fake, NULL, NULL);
}
/* Frames that ended without returning, and frames about to be copied, have marks around their variables. */
static inline void nu_san_forget_frames(const struct nu_thread *t)
{
	nu_san_unpoison(t->stack_low, (size_t)((char *)t - (char *)t->stack_low));
}

#elif defined(__SANITIZE_THREAD__)

void __tsan_func_entry(void *pc);

/* A thread that comes from another node returns from functions that its fiber here has not seen it enter. */
#define NU_SAN_FRAMES 256

/* fiber.c */
int nu_san_fibers_init(void);
void nu_san_fibers_fini(uintptr_t part_low, uintptr_t part_next);
void **nu_san_fiber_slot(struct nu_thread *t);
/* The thread will not go on here: it has ended, or has left for another node. */
void nu_san_thread_gone(struct nu_thread *t);

static inline void nu_san_carrier_start(struct nu_carrier *k)
{
	k->fiber = __tsan_get_current_fiber();
}
/* Not functions, either: see the next. */
static inline __attribute__((always_inline)) void nu_san_to_core(struct nu_carrier *k, struct nu_core *c)
{
	(void)k;
	if (!c->fiber)
		c->fiber = __tsan_create_fiber(0);
	__tsan_switch_to_fiber(c->fiber, 0);
}
static inline __attribute__((always_inline)) void nu_san_to_carrier(struct nu_carrier *k)
{
	__tsan_switch_to_fiber(k->fiber, 0);
}

/* Not a function: what it entered on one fiber it would leave on the other. */
static inline __attribute__((always_inline)) void nu_san_leave(struct nu_core *c, void **fake_p,
							       struct nu_thread *from, struct nu_thread *next)
{
	bool born = false;
	void *fiber = c->fiber;

	(void)fake_p;
	if (next) {
		void **slot = nu_san_fiber_slot(next);

		born = !*slot;
		if (born)
			*slot = __tsan_create_fiber(0);
		fiber = *slot;
	}
	if (from) /* what nu_switch() does by storing 0 when the registers are saved */
		nu_san_release(&from->running);
	__tsan_switch_to_fiber(fiber, 0);
	for (unsigned i = 0; born && next->ran && i < NU_SAN_FRAMES; i++)
		__tsan_func_entry((void *)nu_thread_entry);
	if (next)
		next->ran = 1;
}
static inline void nu_san_arrive(void *fake)
{
	(void)fake;
}
static inline void nu_san_forget_frames(const struct nu_thread *t)
{
	(void)t;
}

#else

static inline void nu_san_leave(struct nu_core *c, void **fake_p, struct nu_thread *from,
				struct nu_thread *next)
{
	(void)c, (void)fake_p, (void)from, (void)next;
}
static inline void nu_san_to_core(struct nu_carrier *k, struct nu_core *c)
{
	(void)k, (void)c;
}
static inline void nu_san_to_carrier(struct nu_carrier *k)
{
	(void)k;
}
static inline void nu_san_arrive(void *fake)
{
	(void)fake;
}
static inline void nu_san_forget_frames(const struct nu_thread *t)
{
	(void)t;
}

#endif

#ifndef __SANITIZE_THREAD__
static inline int nu_san_fibers_init(void)
{
	return 0;
}
static inline void nu_san_fibers_fini(uintptr_t part_low, uintptr_t part_next)
{
	(void)part_low, (void)part_next;
}
static inline void nu_san_thread_gone(struct nu_thread *t)
{
	(void)t;
}
static inline void nu_san_carrier_start(struct nu_carrier *k)
{
	(void)k;
}
#endif
