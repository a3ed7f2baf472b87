/* SPDX-License-Identifier: MIT */
/* The proclet table: tenants come and go, stale ids find nobody. */
#include <criterion/criterion.h>

#include "core/core.h"

#include <pthread.h>
#include <sched.h>

static struct nu_proclet *enter(uint64_t id)
{
	struct nu_proclet *p = NULL;

	cr_assert_eq(nu_proclet_enter(id, &p), 0);
	cr_assert_not_null(p);
	return p;
}

Test(table, enter_look_up_leave)
{
	uint64_t id = nu_id_make(NU_SEG_MAIN, 7);
	struct nu_proclet *p, *other = NULL;

	cr_assert_eq(nu_proclet_table_init(), 0);
	cr_expect_null(nu_proclet_lookup(id));
	p = enter(id);
	cr_expect_eq(nu_proclet_lookup(id), p);
	cr_expect_eq(atomic_load(&p->state), NU_PROCLET_NONE);
	cr_expect(nu_list_empty(&p->threads) && nu_list_empty(&p->parked) && nu_list_empty(&p->held) &&
		  nu_list_empty(&p->output_waiters));
	cr_expect_null(nu_proclet_lookup(nu_id_make(NU_SEG_MAIN, 8)), "another generation");
	cr_expect_null(nu_proclet_lookup(nu_id_make(NU_SEG_MAIN + 1, 7)), "another segment");
	cr_expect_eq(nu_proclet_enter(id, &other), -EEXIST);
	cr_expect_eq(nu_proclet_enter(nu_id_make(NU_SEG_MAIN, 8), &other), -EEXIST);
	cr_expect_eq(nu_proclet_enter(0, &other), -EINVAL);
	cr_expect_null(other);
	nu_proclet_leave(p);
	cr_expect_null(nu_proclet_lookup(id));
}

struct old_reader {
	struct nu_proclet *block;
	pthread_barrier_t has_lock;
	unsigned changed;
};

/* Has found a tenant and goes on looking at it under its lock while that leaves and the next one comes. */
static void *read_on(void *arg)
{
	struct old_reader *r = arg;
	uint64_t id = atomic_load(&r->block->id);

	nu_lock_acquire(&r->block->lock);
	pthread_barrier_wait(&r->has_lock);
	for (int i = 0; i < 2000; i++) {
		r->changed += atomic_load(&r->block->id) != id || r->block->nextents != 3;
		sched_yield();
	}
	nu_lock_release(&r->block->lock);
	return NULL;
}

/* A recycled block shows nothing of its former tenant, and nothing of the change to who still looks at the old one. */
Test(table, blocks_are_recycled_clean)
{
	struct nu_proclet *p, *q;
	struct nu_list thread;
	struct old_reader r = {0};
	pthread_t reader;

	cr_assert_eq(nu_proclet_table_init(), 0);
	p = enter(nu_id_make(5000, 1));
	nu_list_add_tail(&p->threads, &thread);
	p->nthreads = 1;
	p->hold_output = true;
	p->nextents = 3;
	p->moved_location = 9;
	atomic_store(&p->frozen, true);
	atomic_store(&p->state, NU_PROCLET_DYING);
	r.block = p;
	cr_assert_eq(pthread_barrier_init(&r.has_lock, NULL, 2), 0);
	cr_assert_eq(pthread_create(&reader, NULL, read_on, &r), 0);
	pthread_barrier_wait(&r.has_lock);
	nu_proclet_leave(p);
	q = enter(nu_id_make(5000, 2));
	cr_assert_eq(q, p, "the block is used again");
	cr_assert_eq(pthread_join(reader, NULL), 0);
	cr_expect_eq(r.changed, 0);
	cr_expect_eq(atomic_load(&q->state), NU_PROCLET_NONE);
	cr_expect_not(atomic_load(&q->frozen));
	cr_expect(nu_list_empty(&q->threads));
	cr_expect_eq(q->nthreads, 0);
	cr_expect_eq(q->nextents, 0);
	cr_expect_eq(q->moved_location, 0);
	cr_expect_not(q->hold_output);
	cr_expect_null(nu_proclet_lookup(nu_id_make(5000, 1)));
	cr_expect_eq(nu_proclet_lookup(nu_id_make(5000, 2)), q);
}

Test(table, ends_of_the_table_are_different_slots)
{
	uint64_t ids[] = {NU_ID_CTRL,	       nu_id_make(1, 1), nu_id_make(1023, 1),
			  nu_id_make(1024, 1), nu_id_of_node(0), nu_id_of_node(NU_MAX_NODES - 1)};
	struct nu_proclet *p[6];

	cr_assert_eq(nu_proclet_table_init(), 0);
	for (int i = 0; i < 6; i++)
		p[i] = enter(ids[i]);
	for (int i = 0; i < 6; i++)
		cr_expect_eq(nu_proclet_lookup(ids[i]), p[i]);
	for (int i = 0; i < 6; i++)
		nu_proclet_leave(p[i]);
}

static void count(struct nu_proclet *p, void *arg)
{
	*(uint64_t *)arg += nu_id_gen(atomic_load(&p->id));
}

Test(table, for_each_sees_all)
{
	struct nu_proclet *p[1000];
	uint64_t sum = 0;

	cr_assert_eq(nu_proclet_table_init(), 0);
	for (uint32_t i = 0; i < 1000; i++)
		p[i] = enter(nu_id_make(i * 1024, i + 1));
	nu_proclet_for_each(count, &sum);
	cr_expect_eq(sum, 1000 * 1001 / 2);
	for (int i = 0; i < 1000; i += 2)
		nu_proclet_leave(p[i]);
	sum = 0;
	nu_proclet_for_each(count, &sum);
	cr_expect_eq(sum, 500 * 1001 / 2 + 250, "the even generations");
}

static atomic_bool stop;
static atomic_ulong seen, wrong;

/* Looks for tenants that come and go; whoever is found carries the id that was asked for, or has just left. */
static void *reader(void *arg)
{
	while (!atomic_load(&stop)) {
		for (uint64_t gen = 1; gen <= 64; gen++) {
			uint64_t id = nu_id_make(2048, gen);
			struct nu_proclet *p = nu_proclet_lookup(id);
			if (!p)
				continue;
			nu_lock_acquire(&p->lock);
			uint64_t now = atomic_load(&p->id);
			/* root is set to the generation under the lock by the tenant's maker. */
			if (now == id && p->root && (uint64_t)(uintptr_t)p->root != gen)
				atomic_fetch_add(&wrong, 1);
			nu_lock_release(&p->lock);
			atomic_fetch_add(&seen, 1);
		}
	}
	return NULL;
}

Test(table, readers_beside_tenants)
{
	pthread_t t;
	unsigned long rounds = 0;

	cr_assert_eq(nu_proclet_table_init(), 0);
	pthread_create(&t, NULL, reader, NULL);
	for (; rounds < 20000 || (!atomic_load(&seen) && rounds < 50000000); rounds++) {
		uint64_t gen = rounds % 64 + 1;
		struct nu_proclet *p = enter(nu_id_make(2048, gen));
		nu_lock_acquire(&p->lock);
		p->root = (void *)(uintptr_t)gen;
		nu_lock_release(&p->lock);
		nu_proclet_leave(p);
	}
	atomic_store(&stop, true);
	pthread_join(t, NULL);
	cr_expect_gt(atomic_load(&seen), 0);
	cr_expect_eq(atomic_load(&wrong), 0);
}
