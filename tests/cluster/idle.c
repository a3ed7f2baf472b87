/* SPDX-License-Identifier: MIT */
/*
 * A job that does nothing costs nothing: how often each node's threads wake while the main thread sleeps, which other
 * programs' load does not change, and that none of them spins.
 */
#include "check.h"

#include <sys/resource.h>

#define IDLE_S	  5u
#define WAKES_MAX (20u * IDLE_S)
#define CPU_US	  (IDLE_S * 1000000u / 500) /* four times what it takes; twice that was seen on a busy machine */
#define WINDOWS	  3

NU_STRUCT(use, val(uint64_t, cpu_us), val(uint64_t, wakes));

struct meter {
	int unused;
};
NU_CLASS(meter);
NU_METHOD(meter, look, obj(use));

int meter_init(struct meter *m)
{
	return 0;
}

struct use meter_do_look(struct meter *m)
{
	struct rusage u = {0};

	CHECK_IS(getrusage(RUSAGE_SELF, &u), 0);
	return (struct use){(uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
				    (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec),
			    (uint64_t)u.ru_nvcsw};
}

static bool is_over(const struct use *u)
{
	return u->wakes > WAKES_MAX || u->cpu_us > CPU_US;
}

/* What the start has left to do may fall into the first of some windows. */
static void nodes_at_rest(void)
{
	struct meter_ref m[16] = {{{0}}};
	struct use before[16], best[16] = {{0, 0}}, after;
	unsigned n = nu_node_count();
	bool over = true;

	for (unsigned i = 0; i < n; i++)
		CHECK_IS(meter_create(&(struct nu_options){.node = NU_NODE(i), .pinned = true}, &m[i]), 0);
	nu_sleep_us(1000000);
	for (unsigned window = 0; window < WINDOWS && over; window++) {
		over = false;
		for (unsigned i = 0; i < n; i++)
			CHECK_IS(meter_look(m[i], &before[i]), 0);
		nu_sleep_us(IDLE_S * 1000000u);
		for (unsigned i = 0; i < n; i++) {
			CHECK_IS(meter_look(m[i], &after), 0);
			best[i] =
				(struct use){after.cpu_us - before[i].cpu_us, after.wakes - before[i].wakes};
			over |= is_over(&best[i]);
		}
	}
	for (unsigned i = 0; i < n; i++) {
		printf("     node %u: %lu wake-ups, %lu us in %u s\n", i, (unsigned long)best[i].wakes,
		       (unsigned long)best[i].cpu_us, IDLE_S);
		CHECK_MSG(!is_over(&best[i]), "node %u does not rest: at most %u wake-ups and %u us", i,
			  WAKES_MAX, CPU_US);
		meter_ref_put(&m[i]);
	}
	check_left(0);
}

static int idle_main(int argc, char **argv)
{
	CHECK_RUN(nodes_at_rest);
	return check_done();
}
CHECK_PROGRAM(idle_main)
