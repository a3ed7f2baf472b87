/* SPDX-License-Identifier: MIT */
/*
 * Readers-writer locks. A waiting writer keeps new readers out; a writer that leaves lets in all readers that wait,
 * so neither kind starves. Handed over like mutexes. One lock guards both lists.
 */
#include "sched/sched_int.h"

#define WRITER (-1)

static struct nu_lock *lock_of(struct nu_rwlock *l)
{
	return (struct nu_lock *)&l->lock;
}

void nu_rwlock_init(struct nu_rwlock *l)
{
	*l = (struct nu_rwlock){0};
}

static inline void rwlock_own(struct nu_rwlock *l, struct nu_thread *t)
{
	l->owner = t;
	if (likely(t))
		l->owner_life = nu_thread_life(t);
}

static inline bool rwlock_is_mine(const struct nu_rwlock *l, const struct nu_thread *self)
{
	return self && l->owner == self && l->owner_life == nu_thread_life(self);
}

static inline bool take_read(struct nu_rwlock *l, struct nu_thread *self)
{
	if (l->held == WRITER || l->writers.head)
		return false;
	l->held++;
	rwlock_own(l, self);
	return true;
}

static inline bool take_write(struct nu_rwlock *l, struct nu_thread *self)
{
	if (l->held)
		return false;
	l->held = WRITER;
	rwlock_own(l, self);
	return true;
}

/* As of mutexes: who holds it and wants more of it waits for itself, be it by a writer that waits for both. */
static __attribute__((cold, noinline)) void rwlock_never_free(const struct nu_rwlock *l, enum nu_wait_on on)
{
	const struct nu_thread *self = nu_running();
	const char *how = on == NU_ON_READ ? "reading" : "writing";

	if (rwlock_is_mine(l, self))
		nu_misuse("the rwlock at %p is locked for %s by thread %p, which holds it for %s already: it "
			  "would wait "
			  "for itself for ever",
			  (const void *)l, how, (const void *)self,
			  l->held == WRITER ? "writing" : "reading");
	nu_misuse(
		"the rwlock at %p is locked for %s by thread %p, but thread %p, which holds it, waits until "
		"that has "
		"ended: neither can go on",
		(const void *)l, how, (const void *)self, (const void *)l->owner);
}

/* The lock is held, and released. */
static __attribute__((noinline)) void lock_slow(struct nu_rwlock *l, struct nu_waitq *q, enum nu_wait_on on)
{
	struct nu_thread *self = nu_thread_self(), *owner;
	uint32_t life;
	bool circle;

	if (unlikely(rwlock_is_mine(l, self))) {
		nu_lock_release(lock_of(l));
		rwlock_never_free(l, on);
	}
	/* Not with the lock held: it looks at proclets. It may have been unlocked before its holder began to wait. */
	owner = l->owner;
	life = l->owner_life;
	nu_lock_release(lock_of(l));
	circle = nu_wait_is_circle(self, owner, life);
	nu_lock_acquire(lock_of(l));
	if (unlikely(circle && l->owner == owner && l->owner_life == life)) {
		nu_lock_release(lock_of(l));
		rwlock_never_free(l, on);
	}
	if (on == NU_ON_READ ? take_read(l, self) : take_write(l, self)) {
		nu_lock_release(lock_of(l));
		return;
	}
	nu_waitq_push(q, self, on);
	nu_waitq_wait(q, lock_of(l), 0);
}

void nu_rwlock_rdlock(struct nu_rwlock *l)
{
	struct nu_thread *self = nu_running_point();

	nu_lock_acquire(lock_of(l));
	if (likely(take_read(l, self))) {
		nu_lock_release(lock_of(l));
		return;
	}
	lock_slow(l, &l->readers, NU_ON_READ);
}

void nu_rwlock_wrlock(struct nu_rwlock *l)
{
	struct nu_thread *self = nu_running_point();

	nu_lock_acquire(lock_of(l));
	if (likely(take_write(l, self))) {
		nu_lock_release(lock_of(l));
		return;
	}
	lock_slow(l, &l->writers, NU_ON_WRITE);
}

bool nu_rwlock_tryrdlock(struct nu_rwlock *l)
{
	struct nu_thread *self = nu_running_point();
	bool ok;

	nu_lock_acquire(lock_of(l));
	ok = take_read(l, self);
	nu_lock_release(lock_of(l));
	return ok;
}

bool nu_rwlock_trywrlock(struct nu_rwlock *l)
{
	struct nu_thread *self = nu_running_point();
	bool ok;

	nu_lock_acquire(lock_of(l));
	ok = take_write(l, self);
	nu_lock_release(lock_of(l));
	return ok;
}

static struct nu_thread *let_readers_in(struct nu_rwlock *l)
{
	uint32_t n;
	struct nu_thread *chain = nu_waitq_pop_all(&l->readers, &n);

	l->held = (int32_t)n;
	return chain;
}

static struct nu_thread *let_writer_in(struct nu_rwlock *l)
{
	struct nu_thread *t = nu_waitq_pop(&l->writers);

	if (t) {
		t->wait_next = NULL;
		l->held = WRITER;
		rwlock_own(l, t);
	}
	return t;
}

void nu_rwlock_unlock(struct nu_rwlock *l)
{
	struct nu_thread *chain = NULL;
	bool was_writer;

	nu_lock_acquire(lock_of(l));
	was_writer = l->held == WRITER;
	if (unlikely(!l->held)) {
		nu_lock_release(lock_of(l));
		nu_misuse("the rwlock at %p is unlocked, but nobody holds it", (void *)l);
	}
	l->held = was_writer ? 0 : l->held - 1;
	l->owner = NULL; /* whose it is of the readers that stay is not known */
	if (was_writer)
		chain = let_readers_in(l);
	if (!l->held)
		chain = let_writer_in(l);
	if (!l->held && l->readers.head)
		chain = let_readers_in(l);
	nu_lock_release(lock_of(l));
	if (unlikely(chain))
		nu_waitq_ready_all(chain);
}
