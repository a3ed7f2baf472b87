/* SPDX-License-Identifier: MIT */
/* Running something once. */
#include "sched/sched_int.h"

void nu_once(struct nu_once *o, void (*fn)(void *arg), void *arg)
{
	if (likely(atomic_load_explicit(&o->done, memory_order_acquire)))
		return;
	nu_mutex_lock(&o->mutex);
	if (!atomic_load_explicit(&o->done, memory_order_relaxed)) {
		fn(arg);
		atomic_store_explicit(&o->done, 1, memory_order_release);
	}
	nu_mutex_unlock(&o->mutex);
}
