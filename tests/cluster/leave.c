/* SPDX-License-Identifier: MIT */
/* The job ends in the middle of moves: nodes leave while heaps are being read, without a crash or an error. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#define HEAP_BYTES (6u << 20)
#define MOVERS	   3u
#define MOVES_MIN  4u

struct baggage {
	char *bytes;
};

NU_CLASS(baggage);

int baggage_init(struct baggage *self)
{
	self->bytes = malloc(HEAP_BYTES);
	if (self->bytes)
		memset(self->bytes, 0x5a, HEAP_BYTES);
	return self->bytes ? 0 : -ENOMEM;
}

static volatile unsigned moves, errors;

static void mover_body(void *arg)
{
	struct baggage_ref *p = arg;

	for (unsigned to = 1;; to = (to + 1) % nu_node_count()) {
		int ret = nu_migrate(p->ref, to);

		if (ret && ret != -EBUSY)
			__atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&moves, 1, __ATOMIC_RELAXED);
	}
}

static void leaves_in_mid_move(void)
{
	static struct baggage_ref p[MOVERS];

	for (unsigned i = 0; i < MOVERS; i++) {
		CHECK_IS(baggage_create(&(struct nu_options){.node = NU_NODE(0)}, &p[i]), 0);
		CHECK_IS(nu_thread_spawn(mover_body, &p[i], NULL), 0);
	}
	while (moves < MOVES_MIN)
		nu_sleep_us(500);
	CHECK_IS(errors, 0);
}

static int leave_main(int argc, char **argv)
{
	CHECK_RUN(leaves_in_mid_move);
	return check_done();
}
CHECK_PROGRAM(leave_main)
