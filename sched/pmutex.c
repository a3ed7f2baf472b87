/* SPDX-License-Identifier: MIT */
/*
 * The C library's mutexes belong to kernel threads, and a thread of a proclet changes those whenever it waits, is interrupted or
 * moves. One that is unlocked by another kernel thread than took it, or taken by one that has it, on behalf of two threads, is
 * misuse that shows elsewhere: EPERM, a core that stands still, two in one critical section. So it is said where it can be
 * seen, once each, at the price of a look at the owner; what is done is up to the C library as ever.
 *
 * Not in builds with a sanitizer, which stand in for these functions themselves.
 */
#include "sched/sched_int.h"

#include <dlfcn.h>

typedef int (*mutex_fn)(pthread_mutex_t *m);

static mutex_fn find(_Atomic(mutex_fn) *fn_p, const char *name)
{
	mutex_fn fn = (mutex_fn)dlsym(RTLD_NEXT, name);

	NU_ASSERT(fn);
	atomic_store_explicit(fn_p, fn, memory_order_relaxed);
	return fn;
}

static __attribute__((cold, noinline)) void pmutex_say(const pthread_mutex_t *m, const void *caller,
						       bool unlocks)
{
	static atomic_bool said[2];
	struct nu_symbol s = {0};

	if (atomic_exchange(&said[unlocks], true))
		return;
	(void)nu_symbol_find(caller, &s);
	if (unlocks)
		nu_warn("the pthread mutex at %p, unlocked in %s, was locked on another kernel thread: it "
			"was held "
			"over a call in which its thread waited, was interrupted or moved; a struct nu_mutex "
			"can be",
			(const void *)m, *s.name ? s.name : "?");
	else
		nu_warn("the pthread mutex at %p, locked in %s, is held by this core itself, on which it is "
			"now "
			"waited for: "
			"it was held over a call in which its thread waited or was interrupted; a struct "
			"nu_mutex can be",
			(const void *)m, *s.name ? s.name : "?");
}

NU_API int pthread_mutex_lock(pthread_mutex_t *m)
{
	static _Atomic(mutex_fn) libc_fn;
	mutex_fn fn = atomic_load_explicit(&libc_fn, memory_order_relaxed);
	const struct nu_core *c = nu_core_get();
	struct nu_thread *t = c ? atomic_load_explicit(&c->current, memory_order_relaxed) : NULL;

	/* Kinds that wait in this case: normal ones (0) and those that adapt (3). */
	if (unlikely(c && __atomic_load_n(&m->__data.__owner, __ATOMIC_RELAXED) == c->tid) &&
	    ((m->__data.__kind & 0x7f) == PTHREAD_MUTEX_TIMED_NP ||
	     (m->__data.__kind & 0x7f) == PTHREAD_MUTEX_ADAPTIVE_NP))
		pmutex_say(m, __builtin_return_address(0), false);
	if (unlikely(!fn))
		fn = find(&libc_fn, "pthread_mutex_lock");
	/* Before, and not undone where it fails: a thread that is never caught only has to be found elsewhere. By a jump, so
	 * that no function of ours is on the stack while it waits: foreign.c. */
	if (t)
		t->pmutexes++;
	return fn(m);
}

NU_API int pthread_mutex_unlock(pthread_mutex_t *m)
{
	static _Atomic(mutex_fn) libc_fn;
	mutex_fn fn = atomic_load_explicit(&libc_fn, memory_order_relaxed);
	const struct nu_core *c = nu_core_get();
	struct nu_thread *t = c ? atomic_load_explicit(&c->current, memory_order_relaxed) : NULL;
	int owner = c ? __atomic_load_n(&m->__data.__owner, __ATOMIC_RELAXED) : 0;

	if (unlikely(owner && owner != c->tid))
		pmutex_say(m, __builtin_return_address(0), true);
	if (unlikely(!fn))
		fn = find(&libc_fn, "pthread_mutex_unlock");
	if (t && t->pmutexes)
		t->pmutexes--;
	return fn(m);
}
