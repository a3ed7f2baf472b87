/* SPDX-License-Identifier: MIT */
/*
 * Conservation: proclets full of threads in every state are moved thousands of times while they increment each other's
 * counters through references, directly and in nested chains. At the end nothing is lost and nothing ran twice.
 *
 * usage: conserve [PROCLETS [MOVES [SEED]]]
 */
#include "check.h"

#define PEERS	4
#define CALLERS 2

struct counter {
	struct nu_mutex mutex;
	struct nu_cond cond;
	struct nu_sem sem;
	uint64_t n;	/* increments that came */
	uint64_t acked; /* increments of others that were answered */
	uint64_t errors, early, spins, turns, naps;
	uint64_t turn;
	uint64_t seed;
	_Atomic bool stop;
	struct counter_ref *peers;
	unsigned npeers;
	struct nu_waitgroup running;
};

NU_STRUCT(totals, val(uint64_t, n), val(uint64_t, acked), val(uint64_t, errors), val(uint64_t, early),
	  val(uint64_t, spins), val(uint64_t, turns), val(uint64_t, naps));
NU_CLASS(counter, val(uint64_t, seed));
NU_METHOD(counter, add, none, val(uint64_t, k));
NU_METHOD(counter, relay, val(int), ref(counter, next), ref(counter, last), val(uint64_t, k));
NU_METHOD(counter, peer, val(int), ref(counter, other));
NU_METHOD(counter, start, val(int));
NU_METHOD(counter, stop, none);
NU_METHOD(counter, drop_peers, none);
NU_METHOD(counter, totals, obj(totals));

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

int counter_init(struct counter *self, uint64_t seed)
{
	self->seed = seed;
	self->peers = calloc(PEERS, sizeof(*self->peers));
	return self->peers ? 0 : -ENOMEM;
}

void counter_do_add(struct counter *self, uint64_t k)
{
	nu_mutex_lock(&self->mutex);
	self->n += k;
	nu_mutex_unlock(&self->mutex);
}

/* A chain of three: the caller waits for us while we wait for `next`, which waits for `last`. */
int counter_do_relay(struct counter *self, struct counter_ref next, struct counter_ref last, uint64_t k)
{
	int inner = 0, ret;

	if (!k)
		return counter_add(last, 1);
	ret = counter_relay(next, next, last, k - 1, &inner);
	return ret ? ret : inner;
}

int counter_do_peer(struct counter *self, struct counter_ref other)
{
	int ret;

	if (self->npeers == PEERS)
		return -ENOSPC;
	ret = counter_ref_get(other);
	if (!ret)
		self->peers[self->npeers++] = other;
	return ret;
}

static void caller_body(void *arg)
{
	struct counter *self = arg;
	uint64_t seed = self->seed * 7919 + (uint64_t)&seed, acked = 0, errors = 0;

	while (!self->stop) {
		struct counter_ref a = self->peers[next_random(&seed) % self->npeers];
		struct counter_ref b = self->peers[next_random(&seed) % self->npeers];
		int inner = 0, ret;

		if (next_random(&seed) % 4)
			ret = counter_add(a, 1);
		else
			ret = counter_relay(a, b, a, 1 + next_random(&seed) % 2, &inner);
		if (ret || inner)
			errors++;
		else
			acked++;
	}
	nu_mutex_lock(&self->mutex);
	self->acked += acked;
	self->errors += errors;
	nu_mutex_unlock(&self->mutex);
	nu_waitgroup_done(&self->running);
}

/* Computes without a runtime call, with live floating-point and vector registers. */
static void spinner_body(void *arg)
{
	struct counter *self = arg;
	double a = 1, b = 2, c = 3;

	while (!self->stop) {
		for (int i = 0; i < 1000; i++) {
			a += 1;
			b += 2;
			c += 3;
		}
		self->spins++;
		if (b != 2 * a || c != 3 * a)
			self->errors++;
		if (self->spins % 64 == 0)
			nu_yield();
	}
	nu_waitgroup_done(&self->running);
}

static void sleeper_body(void *arg)
{
	struct counter *self = arg;
	uint64_t seed = self->seed + 17;

	while (!self->stop) {
		uint64_t nap = next_random(&seed) % 2000, until = nu_now_us() + nap;

		nu_sleep_us(nap);
		if (nu_now_us() < until)
			self->early++;
		self->naps++;
	}
	nu_waitgroup_done(&self->running);
}

struct turner {
	struct counter *counter;
	uint64_t parity;
};

/* Two threads take turns under a mutex and a condition variable. */
static void turner_body(void *arg)
{
	struct turner *t = arg;
	struct counter *self = t->counter;

	nu_mutex_lock(&self->mutex);
	while (!self->stop) {
		while (self->turn % 2 != t->parity && !self->stop)
			nu_cond_wait(&self->cond, &self->mutex);
		self->turn++;
		self->turns++;
		nu_cond_broadcast(&self->cond);
	}
	nu_cond_broadcast(&self->cond);
	nu_mutex_unlock(&self->mutex);
	free(t);
	nu_waitgroup_done(&self->running);
}

static int spawn(struct counter *self, nu_thread_fn fn, void *arg)
{
	int ret;

	nu_waitgroup_add(&self->running, 1);
	ret = nu_thread_spawn(fn, arg, NULL);
	if (ret)
		nu_waitgroup_done(&self->running);
	return ret;
}

int counter_do_start(struct counter *self)
{
	int ret = spawn(self, spinner_body, self);

	for (int i = 0; i < CALLERS && !ret; i++)
		ret = spawn(self, caller_body, self);
	if (!ret)
		ret = spawn(self, sleeper_body, self);
	for (uint64_t i = 0; i < 2 && !ret; i++) {
		struct turner *t = malloc(sizeof(*t));

		if (!t)
			return -ENOMEM;
		*t = (struct turner){self, i};
		ret = spawn(self, turner_body, t);
	}
	return ret;
}

void counter_do_stop(struct counter *self)
{
	self->stop = true;
	nu_mutex_lock(&self->mutex);
	nu_cond_broadcast(&self->cond);
	nu_mutex_unlock(&self->mutex);
	nu_waitgroup_wait(&self->running);
}

void counter_do_drop_peers(struct counter *self)
{
	while (self->npeers)
		counter_ref_put(&self->peers[--self->npeers]);
}

struct totals counter_do_totals(struct counter *self)
{
	return (struct totals){.n = self->n,
			       .acked = self->acked,
			       .errors = self->errors,
			       .early = self->early,
			       .spins = self->spins,
			       .turns = self->turns,
			       .naps = self->naps};
}

/* ---- main proclet ---- */

struct job {
	unsigned nproclets, moves;
	uint64_t seed;
	struct counter_ref *p;
	_Atomic unsigned done;
	unsigned failed, busy;
	struct nu_waitgroup movers;
};

#define MORE_MOVES 20u /* until a thread has been paused in every state */

/* With one core a node's thread that pauses takes the processor first: none is then paused while it runs. */
static bool spare_core(void)
{
	struct nu_node_info info;

	return nu_nodes(&info, 1) > 0 && info.cores > 1;
}

static void sum_pauses(uint64_t *sum)
{
	for (unsigned n = 0; n < nu_node_count(); n++) {
		struct nu_stats s;

		CHECK(nu_stats(n, &s) == 0);
		for (unsigned i = 0; i < NU_STATS_PAUSES; i++)
			sum[i] += s.pauses[i];
	}
}

static bool saw_all_pauses(void)
{
	uint64_t sum[NU_STATS_PAUSES] = {0};

	sum_pauses(sum);
	for (unsigned i = 0; i < NU_STATS_PAUSES; i++) {
		if (!sum[i] && (i || spare_core()))
			return false;
	}
	return true;
}

static void mover_body(void *arg)
{
	struct job *j = arg;
	uint64_t seed = j->seed + (uint64_t)&seed;

	while (j->done < j->moves || (j->done < MORE_MOVES * j->moves && !saw_all_pauses())) {
		int ret = nu_migrate(j->p[next_random(&seed) % j->nproclets].ref,
				     (unsigned)next_random(&seed) % nu_node_count());

		if (!ret)
			j->done++;
		else if (ret == -EBUSY)
			j->busy++; /* the other mover has it */
		else if (ret != -ETIMEDOUT) {
			j->failed++;
			printf("a move failed: %s\n", nu_strerror(ret));
		}
	}
	nu_waitgroup_done(&j->movers);
}

static void check_pauses(void)
{
	static const char *const names[NU_STATS_PAUSES] = {"running",
							   "runnable",
							   "sleeping",
							   "blocked",
							   "waiting for a local reply",
							   "waiting for a remote reply",
							   "serving a caller that has moved"};
	uint64_t sum[NU_STATS_PAUSES] = {0};

	sum_pauses(sum);
	for (unsigned i = 0; i < NU_STATS_PAUSES; i++) {
		printf("paused while %-34s %10lu\n", names[i], (unsigned long)sum[i]);
		if (i == 0 && !spare_core())
			continue;
		CHECK_MSG(sum[i] > 0, "no thread was ever paused while %s", names[i]);
	}
}

static int arg_count;
static char **args;

static void conserve(void)
{
	int argc = arg_count;
	char **argv = args;
	struct job j = {.nproclets = argc > 1 ? (unsigned)atoi(argv[1]) : 24,
			.moves = argc > 2 ? (unsigned)atoi(argv[2]) : 5000,
			.seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 42};
	struct totals sum = {0};

	j.p = calloc(j.nproclets, sizeof(*j.p));
	for (unsigned i = 0; i < j.nproclets; i++) {
		struct nu_options o = {.node = NU_NODE(i % nu_node_count())};

		CHECK(counter_create(&o, j.seed + i, &j.p[i]) == 0);
	}
	for (unsigned i = 0; i < j.nproclets; i++) {
		for (unsigned k = 1; k <= PEERS; k++) {
			int ret;

			CHECK(counter_peer(j.p[i], j.p[(i + k * k) % j.nproclets], &ret) == 0 && ret == 0);
		}
	}
	for (unsigned i = 0; i < j.nproclets; i++) {
		int ret;

		CHECK(counter_start(j.p[i], &ret) == 0 && ret == 0);
	}
	for (int i = 0; i < 3; i++) {
		nu_waitgroup_add(&j.movers, 1);
		CHECK(nu_thread_spawn(mover_body, &j, NULL) == 0);
	}
	nu_waitgroup_wait(&j.movers);
	for (unsigned i = 0; i < j.nproclets; i++)
		CHECK(counter_stop(j.p[i]) == 0);
	for (unsigned i = 0; i < j.nproclets; i++) {
		struct totals t;

		CHECK(counter_totals(j.p[i], &t) == 0);
		sum.n += t.n;
		sum.acked += t.acked;
		sum.errors += t.errors;
		sum.early += t.early;
		sum.spins += t.spins;
		sum.turns += t.turns;
		sum.naps += t.naps;
		CHECK_MSG(t.spins && t.turns && t.naps && t.acked, "threads of proclet %u stood still", i);
	}
	printf("%u moves (%u found busy, %u failed); %lu increments counted, %lu acknowledged, %lu errors, "
	       "%lu early wake-ups\n",
	       j.done, j.busy, j.failed, (unsigned long)sum.n, (unsigned long)sum.acked,
	       (unsigned long)sum.errors, (unsigned long)sum.early);
	CHECK(j.failed == 0);
	CHECK(sum.n == sum.acked);
	CHECK(sum.errors == 0);
	CHECK(sum.early == 0);
	check_pauses();
	for (unsigned i = 0; i < j.nproclets; i++)
		CHECK(counter_drop_peers(j.p[i]) == 0);
	for (unsigned i = 0; i < j.nproclets; i++)
		counter_ref_put(&j.p[i]);
	check_left(0);
	check_print_reads();
}

static int conserve_main(int argc, char **argv)
{
	arg_count = argc;
	args = argv;
	CHECK_RUN(conserve);
	return check_done();
}

CHECK_PROGRAM(conserve_main)
