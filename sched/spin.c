/* SPDX-License-Identifier: MIT */
/* The program's spin locks. Their holders can be interrupted, so spinners yield. */
#include "sched/sched_int.h"

#define SPINS 100

void nu_spin_lock(struct nu_spin *s)
{
	unsigned spins = 0;

	nu_preempt_point();
	while (atomic_exchange_explicit(&s->held, 1, memory_order_acquire)) {
		while (atomic_load_explicit(&s->held, memory_order_relaxed)) {
			nu_cpu_relax();
			if (++spins >= SPINS) {
				spins = 0;
				nu_yield();
			}
		}
	}
}

bool nu_spin_trylock(struct nu_spin *s)
{
	return !atomic_exchange_explicit(&s->held, 1, memory_order_acquire);
}

void nu_spin_unlock(struct nu_spin *s)
{
	atomic_store_explicit(&s->held, 0, memory_order_release);
}
