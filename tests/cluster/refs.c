/* SPDX-License-Identifier: MIT */
/*
 * Counted references over moves of those who hold and of what is held: passed on, kept, given back in any order; a
 * proclet is freed exactly once, with its last reference, and what held it then gives back what it held itself.
 */
#include "check.h"

#define HOLDERS 6
#define KEPT	256
#define THINGS	8
#define ROUNDS	150

/* ---- the ledger: things report their beginning and end to it ---- */

struct ledger {
	struct nu_mutex mutex;
	uint64_t begun, ended, twice;
	bool alive[4096];
};
NU_STRUCT(entries, val(uint64_t, begun), val(uint64_t, ended), val(uint64_t, twice));
NU_CLASS(ledger);
NU_METHOD(ledger, begin, none, val(uint32_t, number));
NU_METHOD(ledger, end, none, val(uint32_t, number));
NU_METHOD(ledger, read, obj(entries));

int ledger_init(struct ledger *l)
{
	return 0;
}

void ledger_do_begin(struct ledger *l, uint32_t number)
{
	nu_mutex_lock(&l->mutex);
	l->begun++;
	l->alive[number % 4096] = true;
	nu_mutex_unlock(&l->mutex);
}

void ledger_do_end(struct ledger *l, uint32_t number)
{
	nu_mutex_lock(&l->mutex);
	l->ended++;
	if (!l->alive[number % 4096])
		l->twice++;
	l->alive[number % 4096] = false;
	nu_mutex_unlock(&l->mutex);
}

struct entries ledger_do_read(struct ledger *l)
{
	struct entries now;

	nu_mutex_lock(&l->mutex);
	now = (struct entries){.begun = l->begun, .ended = l->ended, .twice = l->twice};
	nu_mutex_unlock(&l->mutex);
	return now;
}

/* ---- a thing that is held ---- */

struct thing {
	uint32_t number;
	struct ledger_ref ledger;
};
NU_CLASS(thing, val(uint32_t, number), ref(ledger, ledger), val(int, fail_with));
NU_CLASS_FINI(thing);
NU_METHOD(thing, number, val(uint32_t));

int thing_init(struct thing *t, uint32_t number, struct ledger_ref ledger, int fail_with)
{
	int ret = ledger_ref_get(ledger);

	if (ret)
		return ret;
	t->ledger = ledger;
	t->number = number;
	if (fail_with)
		return fail_with; /* with a reference in hand: it must come back all the same */
	return ledger_begin(ledger, number);
}

void thing_fini(struct thing *t)
{
	if (ledger_end(t->ledger, t->number))
		abort();
	/* The reference to the ledger is given back by the runtime. */
}

uint32_t thing_do_number(struct thing *t)
{
	return t->number;
}

/* ---- a holder: keeps things and passes them on ---- */

struct holder {
	struct nu_mutex mutex;
	struct thing_ref kept[KEPT];
	unsigned nkept;
	uint64_t wrong;
};
NU_CLASS(holder);
NU_METHOD(holder, keep, val(int), ref(thing, t));
NU_METHOD(holder, give_back, val(int), val(uint32_t, which));
NU_METHOD(holder, pass, val(int), ref(holder, to), val(uint32_t, which));
NU_METHOD(holder, make, val(int), val(uint32_t, number), ref(ledger, ledger));
NU_METHOD(holder, any, ref(thing));
NU_METHOD(holder, ask_all, val(uint64_t));
NU_METHOD(holder, put_twice, val(int), ref(thing, t));

int holder_init(struct holder *h)
{
	return 0;
}

int holder_do_keep(struct holder *h, struct thing_ref t)
{
	int ret = thing_ref_get(t);

	if (ret)
		return ret;
	nu_mutex_lock(&h->mutex);
	if (h->nkept == KEPT)
		ret = -ENOSPC;
	else
		h->kept[h->nkept++] = t;
	nu_mutex_unlock(&h->mutex);
	if (ret)
		thing_ref_put(&t);
	return ret;
}

static struct thing_ref take(struct holder *h, uint32_t which)
{
	struct thing_ref t = {{0}};

	nu_mutex_lock(&h->mutex);
	if (h->nkept) {
		which %= h->nkept;
		t = h->kept[which];
		h->kept[which] = h->kept[--h->nkept];
	}
	nu_mutex_unlock(&h->mutex);
	return t;
}

int holder_do_give_back(struct holder *h, uint32_t which)
{
	struct thing_ref t = take(h, which);

	return thing_ref_put(&t);
}

int holder_do_pass(struct holder *h, struct holder_ref to, uint32_t which)
{
	struct thing_ref t = take(h, which);
	int inner = 0, ret = t.ref.id ? holder_keep(to, t, &inner) : 0, put = thing_ref_put(&t);

	return ret ? ret : inner ? inner : put;
}

int holder_do_make(struct holder *h, uint32_t number, struct ledger_ref ledger)
{
	struct thing_ref t = {{0}};
	int put, ret = thing_create(NULL, number, ledger, 0, &t);

	if (ret)
		return ret;
	ret = holder_do_keep(h, t);
	put = thing_ref_put(&t);
	return ret ? ret : put;
}

struct thing_ref holder_do_any(struct holder *h)
{
	struct thing_ref t = {{0}};

	nu_mutex_lock(&h->mutex);
	if (h->nkept)
		t = h->kept[0];
	nu_mutex_unlock(&h->mutex);
	return t;
}

/* What is held must answer. Return: how many do not. */
uint64_t holder_do_ask_all(struct holder *h)
{
	uint64_t dead = 0;

	for (unsigned i = 0; i < h->nkept; i++) {
		uint32_t n;

		dead += thing_number(h->kept[i], &n) != 0;
	}
	return dead;
}

/* A borrowed reference is not ours to give back; one that we got is, once. */
int holder_do_put_twice(struct holder *h, struct thing_ref t)
{
	struct thing_ref copy = t, again = t;
	int ret;

	if (nu_ref_put(t.ref) != -EINVAL)
		return 1;
	ret = thing_ref_get(t);
	if (ret)
		return ret;
	if (thing_ref_put(&copy))
		return 2;
	return thing_ref_put(&again) == -EINVAL ? 0 : 3;
}

/* ---- tests ---- */

static struct ledger_ref ledger;

static void check_ledger(uint64_t begun, uint64_t ended)
{
	struct entries e = {0};
	uint64_t end = nu_now_us() + CHECK_FREED_US_MAX;

	do {
		CHECK_IS(ledger_read(ledger, &e), 0);
		if (e.ended < ended)
			nu_sleep_us(CHECK_RETRY_US);
	} while (e.ended < ended && nu_now_us() < end);
	CHECK_IS(e.begun, begun);
	CHECK_IS(e.ended, ended);
	CHECK_IS(e.twice, 0);
}

static bool begin_ledger(void)
{
	int ret = ledger_create(NULL, &ledger);

	CHECK_IS(ret, 0);
	return !ret;
}

/* The main proclet's own is the last reference to it. */
static void end_ledger(void)
{
	CHECK_IS(ledger_ref_put(&ledger), 0);
	check_left(0);
}

static void counted_once(void)
{
	struct holder_ref h = {{0}};
	struct thing_ref t = {{0}}, got = {{0}}, stale;
	struct thing_weak weak;
	int ret = -1;

	if (!begin_ledger())
		return;
	CHECK_IS(holder_create(&(struct nu_options){.node = NU_NODE(nu_node_count() - 1)}, &h), 0);
	CHECK_IS(thing_create(NULL, 1, ledger, 0, &t), 0);
	weak = thing_weak(t);
	CHECK_IS(holder_put_twice(h, t, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(holder_keep(h, t, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(check_shuttle(t.ref, 3), 0);
	CHECK_IS(check_shuttle(h.ref, 2), 0);
	CHECK_IS(thing_weak_get(weak, &got), 0);
	stale = got;
	CHECK_IS(thing_ref_put(&got), 0);
	CHECK_IS(thing_ref_put(&t), 0);
	CHECK_IS(thing_ref_put(&stale), -EINVAL);
	check_ledger(1, 0); /* the holder still has one */
	CHECK_IS(holder_any(h, &got), 0);
	CHECK_IS(holder_give_back(h, 0, &ret), 0);
	CHECK_IS(ret, 0);
	check_ledger(1, 0); /* and now only we */
	CHECK_IS(thing_ref_put(&got), 0);
	check_ledger(1, 1);
	CHECK_IS(thing_weak_get(weak, &got), -ESTALE);
	CHECK_IS(nu_ref_get((struct nu_ref){0}), -ESTALE);
	CHECK_IS(nu_ref_put((struct nu_ref){0}), 0);
	CHECK_IS(holder_ref_put(&h), 0);
	end_ledger();
}

/* A proclet that ends gives back what it held, and so down a chain. */
static void the_dead_give_back(void)
{
	struct holder_ref h = {{0}};
	int ret = -1;

	if (!begin_ledger())
		return;
	for (unsigned round = 0; round < 3; round++) {
		CHECK_IS(holder_create(NULL, &h), 0);
		for (uint32_t i = 0; i < THINGS; i++) {
			CHECK_IS(holder_make(h, round * THINGS + i, ledger, &ret), 0);
			CHECK_IS(ret, 0);
		}
		CHECK_IS(check_shuttle(h.ref, round), 0);
		check_ledger((round + 1) * THINGS, round * THINGS);
		CHECK_IS(holder_ref_put(&h), 0);
		check_ledger((round + 1) * THINGS, (round + 1) * THINGS);
	}
	end_ledger();
}

static void constructors_that_fail(void)
{
	struct thing_ref t = {{0}};

	if (!begin_ledger())
		return;
	for (unsigned i = 0; i < 20; i++) {
		struct nu_options o = {.node = NU_NODE(i % nu_node_count())};

		CHECK_IS(thing_create(&o, i, ledger, -EDOM, &t), -EDOM);
		CHECK_IS(t.ref.id, 0);
	}
	check_left(1);
	check_ledger(0, 0);
	end_ledger(); /* nothing of them holds it */
}

static struct holder_ref holders[HOLDERS];
static _Atomic bool stop;
static _Atomic unsigned errors;
static _Atomic uint32_t made;
static struct nu_waitgroup out, moving;

static uint32_t next_random(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*s >> 33);
}

static void trader_body(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (unsigned n = 0; n < ROUNDS; n++) {
		struct holder_ref a = holders[next_random(&seed) % HOLDERS],
				  b = holders[next_random(&seed) % HOLDERS];
		int ret = 0, err;

		err = holder_make(a, made++, ledger, &ret);
		for (unsigned k = 0; !err && !ret && k < 3; k++)
			err = holder_pass(a, b, next_random(&seed), &ret);
		if (!err && !ret && n % 2) /* half of them stay */
			err = holder_give_back(b, next_random(&seed), &ret);
		if (!err && !ret)
			err = holder_pass(b, a, next_random(&seed), &ret);
		if (err || ret) {
			errors++;
			printf("trade: %d %d\n", err, ret);
		}
	}
	nu_waitgroup_done(&out);
}

static void mover_body(void *arg)
{
	uint64_t seed = 99;

	while (!stop) {
		struct thing_ref t = {{0}};
		struct holder_ref h = holders[next_random(&seed) % HOLDERS];
		int ret = check_move(h.ref, next_random(&seed) % nu_node_count());

		if (!ret)
			ret = holder_any(h, &t);
		if (ret == -ESTALE)
			ret = 0; /* given back by another thread while it was on its way to us */
		if (!ret && t.ref.id)
			ret = check_move(t.ref, next_random(&seed) % nu_node_count());
		if (!ret && !(next_random(&seed) % 4))
			ret = check_move(ledger.ref, next_random(&seed) % nu_node_count());
		thing_ref_put(&t);
		if (ret) {
			errors++;
			printf("move: %d\n", ret);
		}
	}
	nu_waitgroup_done(&moving);
}

/* Things change hands while their holders, they themselves and the ledger move. */
static void any_order(void)
{
	struct entries e = {0};

	if (!begin_ledger())
		return;
	stop = false;
	errors = made = 0;
	for (unsigned i = 0; i < HOLDERS; i++)
		CHECK_IS(holder_create(NULL, &holders[i]), 0);
	nu_waitgroup_add(&out, 3);
	for (uintptr_t i = 1; i <= 3; i++)
		CHECK_IS(nu_thread_spawn(trader_body, (void *)i, NULL), 0);
	nu_waitgroup_add(&moving, 1);
	CHECK_IS(nu_thread_spawn(mover_body, NULL, NULL), 0);
	nu_waitgroup_wait(&out);
	stop = true;
	nu_waitgroup_wait(&moving);
	CHECK_IS(errors, 0);
	for (unsigned i = 0; i < HOLDERS; i++) {
		uint64_t dead = 1;

		CHECK_IS(holder_ask_all(holders[i], &dead), 0);
		CHECK_IS(dead, 0);
	}
	CHECK_IS(ledger_read(ledger, &e), 0);
	CHECK_MSG(e.begun == made, "%lu things began, %u were made", (unsigned long)e.begun, made);
	CHECK(e.ended < e.begun);
	for (unsigned i = 0; i < HOLDERS; i++)
		CHECK_IS(holder_ref_put(&holders[i]), 0);
	check_ledger(made, made);
	end_ledger();
}

static int refs_main(int argc, char **argv)
{
	CHECK_RUN(counted_once);
	CHECK_RUN(the_dead_give_back);
	CHECK_RUN(constructors_that_fail);
	CHECK_RUN(any_order);
	return check_done();
}
CHECK_PROGRAM(refs_main)
