/* SPDX-License-Identifier: MIT */
/*
 * A large heap goes to and fro between two hosts until a move fails whose bytes were being read, since somebody has pulled
 * the cable. The move is undone, the proclet goes on where it was with every call that was acknowledged and every byte of
 * its heap, and when the cable is in again it moves as before. tests/rdma pulls and pushes, and looks at what is printed.
 */
#include "check.h"

#define BYTES	     ((size_t)8 << 20)
#define BLOCKS	     8u
#define FAILS_US_MAX 100000000u
#define BACK_US_MAX  60000000u
#define CALM_US	     5000u

struct load {
	uint64_t *blocks[BLOCKS];
	uint64_t calls;
	_Atomic uint64_t beats;
	_Atomic bool stop;
	struct nu_waitgroup out;
};
NU_CLASS(load);
NU_METHOD(load, wrong, val(uint64_t));
NU_METHOD(load, add, val(uint64_t));
NU_METHOD(load, beats, val(uint64_t));
NU_METHOD(load, finish, none);

#define WORDS (BYTES / BLOCKS / sizeof(uint64_t))

static uint64_t word(unsigned k, size_t i)
{
	return (k + 1) * 0x9e3779b97f4a7c15ull + i;
}

static void beat(void *arg)
{
	struct load *l = arg;

	while (!l->stop) {
		l->beats++;
		nu_sleep_us(CALM_US);
	}
	nu_waitgroup_done(&l->out);
}

int load_init(struct load *l)
{
	for (unsigned k = 0; k < BLOCKS; k++) {
		l->blocks[k] = malloc(WORDS * sizeof(**l->blocks));
		if (!l->blocks[k])
			return -ENOMEM;
		for (size_t i = 0; i < WORDS; i++)
			l->blocks[k][i] = word(k, i);
	}
	nu_waitgroup_add(&l->out, 1);
	return nu_thread_spawn(beat, l, NULL);
}

uint64_t load_do_wrong(struct load *l)
{
	uint64_t wrong = 0;

	for (unsigned k = 0; k < BLOCKS; k++) {
		for (size_t i = 0; i < WORDS; i++)
			wrong += l->blocks[k][i] != word(k, i);
	}
	return wrong;
}

uint64_t load_do_add(struct load *l)
{
	return ++l->calls;
}

uint64_t load_do_beats(struct load *l)
{
	return l->beats;
}

void load_do_finish(struct load *l)
{
	l->stop = true;
	nu_waitgroup_wait(&l->out);
}

struct caller {
	struct load_ref to;
	_Atomic bool stop;
	uint64_t acknowledged, failed;
};

static void call_on(void *arg)
{
	struct caller *c = arg;
	uint64_t n;

	while (!c->stop) {
		if (load_add(c->to, &n))
			c->failed++;
		else
			c->acknowledged++;
		nu_sleep_us(CALM_US);
	}
}

static void check_lives(struct load_ref l, int node)
{
	uint64_t before = 0, now = 0, wrong = 1, end = nu_now_us() + BACK_US_MAX;

	CHECK_IS(nu_locate(l.ref), node);
	CHECK_IS(load_beats(l, &before), 0);
	do {
		nu_sleep_us(CALM_US);
		CHECK_IS(load_beats(l, &now), 0);
	} while (now <= before && nu_now_us() < end);
	CHECK_MSG(now > before, "its thread has stopped");
	CHECK_IS(load_wrong(l, &wrong), 0);
	CHECK_IS(wrong, 0);
}

/* To and fro from node *at_p, until a move returns @want or the time is over. Return: moves that were made; -1: too late. */
static long move_until(struct load_ref l, int want, int *at_p, uint64_t us_max)
{
	uint64_t end = nu_now_us() + us_max;
	long moves = 0;

	while (nu_now_us() < end) {
		int ret = nu_migrate(l.ref, (unsigned)(1 - *at_p));

		if (!ret) {
			*at_p = 1 - *at_p;
			moves++;
		}
		if (ret == want)
			return moves;
		/* Not paused, or no connection: nothing was being read. */
		CHECK_MSG(!ret || ret == -ETIMEDOUT || ret == -EBUSY || ret == -EHOSTUNREACH, "move: %s",
			  nu_strerror(ret));
		if (ret)
			nu_sleep_us(CALM_US);
	}
	return -1;
}

static void cut_while_it_is_read(void)
{
	struct caller c = {{{0}}, false, 0, 0};
	struct nu_thread *caller;
	uint64_t sum = 0;
	int at = 0;
	long moves;
	NU_SCOPED(load, load);

	CHECK_IS(load_create(&(struct nu_options){.node = NU_NODE(0), .capacity_bytes = 8 * BYTES}, &load),
		 0);
	c.to = load;
	CHECK_IS(nu_thread_spawn(call_on, &c, &caller), 0);
	CHECK(move_until(load, 0, &at, BACK_US_MAX) == 1); /* all is connected now */
	printf("to and fro\n");
	fflush(stdout);
	moves = move_until(load, -EIO, &at, FAILS_US_MAX);
	if (moves >= 0)
		printf("cut: after %ld moves one was undone, it stays on node %d\n", moves, at);
	else
		printf("not cut: no move failed\n");
	fflush(stdout);
	check_lives(load, at);
	CHECK(move_until(load, 0, &at, BACK_US_MAX) == 1);
	check_lives(load, at);
	c.stop = true;
	CHECK_IS(nu_thread_join(caller), 0);
	CHECK_IS(c.failed, 0);
	CHECK_IS(load_add(load, &sum), 0);
	CHECK_IS(sum, c.acknowledged + 1);
	CHECK_IS(load_finish(load), 0);
}

static int cable_main(int argc, char **argv)
{
	CHECK_RUN(cut_while_it_is_read);
	return check_done();
}
CHECK_PROGRAM(cable_main)
