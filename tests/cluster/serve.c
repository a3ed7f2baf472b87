/* SPDX-License-Identifier: MIT */
/*
 * A job for an operator to steer: counters with threads of their own, one of them pinned, live until a file appears.
 * Then each must have counted without a gap, and the exit status is 7.
 *
 * usage: serve FILE
 */
#include "check.h"

#include <unistd.h>

#define COUNTERS 5

struct ticker {
	_Atomic uint64_t ticks, wrong;
	_Atomic bool stop;
	struct nu_waitgroup out;
};
NU_CLASS(ticker);
NU_METHOD(ticker, start, val(int));
NU_METHOD(ticker, finish, val(uint64_t));

int ticker_init(struct ticker *t)
{
	return 0;
}

static void tick_body(void *arg)
{
	struct ticker *t = arg;
	uint64_t mine = 0;

	while (!t->stop) {
		mine++;
		if (++t->ticks != mine)
			t->wrong++;
		nu_sleep_us(1000);
	}
	nu_waitgroup_done(&t->out);
}

int ticker_do_start(struct ticker *t)
{
	nu_waitgroup_add(&t->out, 1);
	return nu_thread_spawn(tick_body, t, NULL);
}

/* Return: ticks, 0 if one was lost. */
uint64_t ticker_do_finish(struct ticker *t)
{
	t->stop = true;
	nu_waitgroup_wait(&t->out);
	return t->wrong ? 0 : t->ticks;
}

static int serve_main(int argc, char **argv)
{
	struct ticker_ref t[COUNTERS];
	bool bad = false;

	if (argc < 2)
		return 2;
	for (unsigned i = 0; i < COUNTERS; i++) {
		struct nu_options o = {.node = NU_NODE(1 % nu_node_count()), .pinned = i == 0};
		int ret, inner;

		ret = ticker_create(&o, &t[i]);
		if (!ret)
			ret = ticker_start(t[i], &inner);
		if (ret || inner)
			return 1;
		printf("%s %#lx\n", i ? "counter" : "pinned", (unsigned long)t[i].ref.id);
	}
	printf("ready\n");
	fflush(stdout);
	while (access(argv[1], F_OK))
		nu_sleep_us(10000);
	for (unsigned i = 0; i < COUNTERS; i++) {
		uint64_t ticks = 0;

		bad |= ticker_finish(t[i], &ticks) || !ticks;
		ticker_ref_put(&t[i]);
	}
	printf("%s\n", bad ? "bad" : "good");
	return bad ? 1 : 7;
}
CHECK_PROGRAM(serve_main)
