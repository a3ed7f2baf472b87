/* SPDX-License-Identifier: MIT */
/* Carriers: the kernel threads that cores run on. carrier.c says how a core changes from one to another. */
#pragma once

#include "sched/sched_int.h"

#include <time.h>

#define NU_CARRIERS_DEFAULT 16 /* NU_CARRIERS: more kernel threads than cores that a node may have for them */

struct nu_carrier {
	struct nu_core
		side; /* in place of a core, for a thread that has stayed here when the core was left */

	/* Its own only. */
	void *sp; /* its own context, on the kernel thread's stack, while it carries a core or a stray thread */
	atomic_uint switching;
	int *errno_p;
	void *alt_stack;
	stack_t old_alt_stack;
	const void *stack_low;
	size_t stack_bytes;
	void *fake_stack; /* AddressSanitizer's and ThreadSanitizer's, of its own context */
	void *fiber;

	/* `core` is written first, then `order`, a futex, by the one that gives the order. */
	struct nu_core *core;
	atomic_uint order;
	atomic_uint started; /* futex */
	_Atomic int start_error;
	struct nu_carrier *next; /* of those that stand by */
	pthread_t pthread;
	bool has_kthread;
	pid_t tid;

	/* The monitor's. */
	uint64_t cpu_ns, look_ns, look_after_ns;
};

/* Starts a kernel thread for each core and lets them go. Errors: as nu_kthread_start(). */
int __must_check nu_carriers_start(void);
/* All cores have ended, or will not: ends the kernel threads. -ETIMEDOUT: one has not ended at @until (said), or on the clock of the day. */
int __must_check nu_carriers_stop(const struct timespec *until);
void nu_carriers_fini(void);

/* The scheduler's context of a core has a stack of its own, with a guard page. -ENOMEM */
int __must_check nu_core_stack_map(struct nu_core *c);
void nu_core_stack_unmap(struct nu_core *c);

/*
 * The monitor: has a carrier stand by for @c, whose thread cannot be interrupted where it is, so that the next signal leaves the
 * core to it. False: there is none (limit, said once). And takes that back.
 */
bool nu_carrier_relieve(struct nu_core *c);
void nu_carrier_keep(struct nu_core *c);
/* The monitor's look at threads that have stayed behind. Return: when it is to look again, UINT64_MAX: there are none. */
uint64_t nu_carriers_look(uint64_t now);
/*
 * The signal's handler, on the stack of @t, which is outside of the program's code at @o: leaves @c to the carrier that stands
 * by, if one does.
 */
struct nu_foreign;
bool nu_carrier_leave(struct nu_core *c, struct nu_thread *t, const struct nu_foreign *o);
