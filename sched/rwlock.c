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

static bool take_read(struct nu_rwlock *l)
{
	if (l->held == WRITER || l->writers.head)
		return false;
	l->held++;
	return true;
}

static bool take_write(struct nu_rwlock *l)
{
	if (l->held)
		return false;
	l->held = WRITER;
	return true;
}

static void lock(struct nu_rwlock *l, bool (*take)(struct nu_rwlock *), struct nu_waitq *q)
{
	nu_preempt_point();
	nu_lock_acquire(lock_of(l));
	if (take(l)) {
		nu_lock_release(lock_of(l));
		return;
	}
	nu_waitq_push(q, nu_thread_self());
	nu_waitq_wait(q, lock_of(l), 0);
}

static bool trylock(struct nu_rwlock *l, bool (*take)(struct nu_rwlock *))
{
	bool ok;

	nu_preempt_point();
	nu_lock_acquire(lock_of(l));
	ok = take(l);
	nu_lock_release(lock_of(l));
	return ok;
}

void nu_rwlock_rdlock(struct nu_rwlock *l)
{
	lock(l, take_read, &l->readers);
}

void nu_rwlock_wrlock(struct nu_rwlock *l)
{
	lock(l, take_write, &l->writers);
}

bool nu_rwlock_tryrdlock(struct nu_rwlock *l)
{
	return trylock(l, take_read);
}

bool nu_rwlock_trywrlock(struct nu_rwlock *l)
{
	return trylock(l, take_write);
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
	if (was_writer)
		chain = let_readers_in(l);
	if (!l->held)
		chain = let_writer_in(l);
	if (!l->held && l->readers.head)
		chain = let_readers_in(l);
	nu_lock_release(lock_of(l));
	nu_waitq_ready_all(chain);
}
