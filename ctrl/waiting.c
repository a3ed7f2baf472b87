/* SPDX-License-Identifier: MIT */
/* Who waits on this node, for what, and where: for the report of a deadlock. */
#include "ctrl/asleep.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define SAY_MAX	  64u
#define WORDS_MAX 256

#define OBJECT_OF(q, type, member) ((const type *)((const char *)(q)-offsetof(type, member)))

struct saying {
	unsigned n;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "function+0x12 (object+0x3456)" */
static void place_words(const void *pc, char *words)
{
	struct nu_symbol s;

	if (!pc || !nu_symbol_find(pc, &s))
		snprintf(words, WORDS_MAX, "%p", pc);
	else
		snprintf(words, WORDS_MAX, "%.100s+0x%lx (%.100s+0x%lx)", *s.name ? s.name : "?",
			 (unsigned long)s.into, base_name(s.object), (unsigned long)s.offset);
}

static void rwlock_words(const struct nu_rwlock *l, const char *how, char *words)
{
	snprintf(words, WORDS_MAX, "the rwlock at %p for %s, held by %s %p", (const void *)l, how,
		 l->held < 0	? "writer"
		 : l->held == 1 ? "a reader, last known"
				: "readers, last known",
		 (const void *)l->owner);
}

static void sync_words(const struct nu_thread *t, char *words)
{
	const struct nu_waitq *q = t->waitq;

	switch ((enum nu_wait_on)t->wait_on) {
	case NU_ON_MUTEX:
		snprintf(words, WORDS_MAX, "the mutex at %p, held by thread %p",
			 (const void *)OBJECT_OF(q, struct nu_mutex, waiters),
			 (const void *)OBJECT_OF(q, struct nu_mutex, waiters)->owner);
		break;
	case NU_ON_COND:
		snprintf(words, WORDS_MAX, "the condition at %p",
			 (const void *)OBJECT_OF(q, struct nu_cond, waiters));
		break;
	case NU_ON_READ:
		rwlock_words(OBJECT_OF(q, struct nu_rwlock, readers), "reading", words);
		break;
	case NU_ON_WRITE:
		rwlock_words(OBJECT_OF(q, struct nu_rwlock, writers), "writing", words);
		break;
	case NU_ON_SEM:
		snprintf(words, WORDS_MAX, "the semaphore at %p",
			 (const void *)OBJECT_OF(q, struct nu_sem, waiters));
		break;
	case NU_ON_BARRIER: {
		const struct nu_barrier *b = OBJECT_OF(q, struct nu_barrier, waiters);

		snprintf(words, WORDS_MAX, "the barrier at %p, where %u of %u are", (const void *)b,
			 b->arrived, b->parties);
		break;
	}
	case NU_ON_WAITGROUP:
		snprintf(words, WORDS_MAX, "the wait group at %p, %ld to go",
			 (const void *)OBJECT_OF(q, struct nu_waitgroup, waiters),
			 (long)OBJECT_OF(q, struct nu_waitgroup, waiters)->count);
		break;
	case NU_ON_JOIN:
		snprintf(words, WORDS_MAX, "the end of thread %p", (const void *)t->joins);
		break;
	default:
		snprintf(words, WORDS_MAX, "something");
	}
}

static void wait_words(const struct nu_thread *t, char *words)
{
	const struct nu_method *m = t->wait_method;

	if (t->wait == NU_WAIT_SYNC && (t->waitq || t->wait_on == NU_ON_JOIN))
		sync_words(t, words);
	else if (t->wait == NU_WAIT_SYNC)
		snprintf(words, WORDS_MAX, "a wake-up");
	else
		snprintf(words, WORDS_MAX, "the call %s.%s to proclet %#lx", m->class_name, m->name,
			 (unsigned long)t->wait_target);
}

static void who_words(const struct nu_thread *t, char *words)
{
	const struct nu_method *m = t->serve_method;
	char begun[WORDS_MAX];

	if (m) {
		snprintf(words, WORDS_MAX, "method %s.%s", m->class_name, m->name);
		return;
	}
	place_words((const void *)t->fn, begun);
	snprintf(words, WORDS_MAX, "begun at %.200s", begun);
}

static void say_thread(const struct nu_proclet *p, const struct nu_thread *t)
{
	char who[WORDS_MAX], what[WORDS_MAX], where[WORDS_MAX] = "";
	const void *place = nu_thread_place(t);

	who_words(t, who);
	wait_words(t, what);
	if (place) /* else its body is just what it has called */
		place_words(place, where);
	nu_err("  thread %p of proclet %#lx (%s), %s, waits for %s%s%s", (const void *)t,
	       (unsigned long)t->proclet_id, p->cls ? p->cls->name : "main", who, what, place ? ", in " : "",
	       where);
}

static void say_proclet(struct nu_proclet *p, void *arg)
{
	struct saying *s = arg;
	struct nu_list *l;

	nu_lock_acquire(&p->lock);
	nu_list_for_each (l, &p->threads) {
		const struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if (__atomic_load_n(&t->state, __ATOMIC_ACQUIRE) != NU_THREAD_BLOCKED ||
		    t->wait == NU_WAIT_SLEEP || atomic_load(&t->running) || t == nu_asleep_excepted())
			continue;
		if (s->n++ < SAY_MAX)
			say_thread(p, t);
	}
	nu_lock_release(&p->lock);
}

void nu_waiting_say(void)
{
	struct saying s = {0};

	nu_proclet_for_each(say_proclet, &s);
	if (s.n > SAY_MAX)
		nu_err("  and %u more", s.n - SAY_MAX);
}
