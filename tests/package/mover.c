/* SPDX-License-Identifier: MIT */
/*
 * Moves a proclet there and back while one of its threads computes and another is in and out of libnu and the C library:
 * allocating, sorting, locking, yielding. What they compute tells whether a move broke one of them.
 */
#include <nu/nu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOVES 14
#define ITEMS 64

struct mover {
	_Atomic bool stop;
	_Atomic uint64_t computed, used; /* rounds of each thread */
	_Atomic uint64_t wrong;
	struct nu_mutex mutex;
	struct nu_thread *compute, *use;
};

NU_CLASS(mover);
NU_METHOD(mover, rounds, val(uint64_t), val(bool, of_use));
NU_METHOD(mover, node, val(unsigned));
NU_METHOD(mover, finish, val(uint64_t));

/* A generator whose state lives in registers; after 2^16 rounds from the same seed it is always at the same place. */
static uint64_t churn(void)
{
	uint64_t x = 88172645463325252ull;

	for (unsigned i = 0; i < 1u << 16; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

static void compute(void *arg)
{
	struct mover *m = arg;
	uint64_t first = churn();

	while (!atomic_load(&m->stop)) {
		if (churn() != first)
			atomic_fetch_add(&m->wrong, 1);
		atomic_fetch_add(&m->computed, 1);
	}
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static bool sorts(uint32_t seed)
{
	uint32_t *items = malloc(ITEMS * sizeof(*items));
	bool ok = items;

	for (unsigned i = 0; ok && i < ITEMS; i++)
		items[i] = (seed + i) * 2654435761u;
	if (ok)
		qsort(items, ITEMS, sizeof(*items), compare);
	for (unsigned i = 1; ok && i < ITEMS; i++)
		ok = items[i - 1] <= items[i];
	free(items);
	return ok;
}

static void use(void *arg)
{
	struct mover *m = arg;

	for (uint32_t i = 0; !atomic_load(&m->stop); i++) {
		nu_mutex_lock(&m->mutex);
		if (!sorts(i))
			atomic_fetch_add(&m->wrong, 1);
		nu_mutex_unlock(&m->mutex);
		atomic_fetch_add(&m->used, 1);
		if (i % 8 == 0)
			nu_yield();
	}
}

int mover_init(struct mover *self)
{
	int ret = nu_thread_spawn(compute, self, &self->compute);

	return ret ? ret : nu_thread_spawn(use, self, &self->use);
}

uint64_t mover_do_rounds(struct mover *self, bool of_use)
{
	return of_use ? atomic_load(&self->used) : atomic_load(&self->computed);
}

unsigned mover_do_node(struct mover *self)
{
	(void)self;
	return nu_node_self();
}

uint64_t mover_do_finish(struct mover *self)
{
	atomic_store(&self->stop, true);
	nu_thread_join(self->compute);
	nu_thread_join(self->use);
	return atomic_load(&self->wrong);
}

/* Both threads have gone on since they had @from rounds; the job's time-out ends a wait for one that has not. */
static int go_on(struct mover_ref p, uint64_t from[2])
{
	for (int of_use = 0; of_use < 2; of_use++) {
		uint64_t now = from[of_use];
		int ret = 0;

		while (!ret && now == from[of_use]) {
			nu_yield();
			ret = mover_rounds(p, of_use, &now);
		}
		if (ret)
			return ret;
		from[of_use] = now;
	}
	return 0;
}

static int main_fn(int argc, char **argv)
{
	struct nu_options here = {.node = NU_NODE(0)};
	uint64_t rounds[2] = {0, 0}, wrong = 1;
	unsigned node, moved = 0;
	NU_SCOPED(mover, p);
	int ret = mover_create(&here, &p);

	(void)argc;
	(void)argv;
	if (!ret)
		ret = go_on(p, rounds);
	for (unsigned i = 0; i < MOVES && !ret; i++) {
		unsigned to = (i + 1) % 2;

		ret = nu_migrate(p.ref, to);
		if (!ret)
			ret = mover_node(p, &node);
		if (!ret && node != to)
			ret = -EIO;
		if (!ret)
			ret = go_on(p, rounds);
		moved += !ret;
	}
	if (!ret)
		ret = mover_finish(p, &wrong);
	printf("%u moves, %llu wrong: %s\n", moved, (unsigned long long)wrong, nu_strerror(ret));
	return ret || wrong || moved != MOVES;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, main_fn, NULL);
}
