/* SPDX-License-Identifier: MIT */
/* A job that does nothing costs nothing: processor time of each node while the main thread sleeps. */
#include "check.h"

#include <sys/resource.h>

#define IDLE_US	 5000000u
#define LIMIT_US (IDLE_US / 1000) /* 10 ms in 10 s */
#define WINDOWS	 3

struct meter {
	int unused;
};
NU_CLASS(meter);
NU_METHOD(meter, cpu_us, val(uint64_t));

int meter_init(struct meter *m)
{
	return 0;
}

uint64_t meter_do_cpu_us(struct meter *m)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u))
		return UINT64_MAX;
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Caches that other programs have emptied and interrupts make it dearer, never cheaper: the best of some windows counts. */
static void nodes_at_rest(void)
{
	struct meter_ref m[16] = {{{0}}};
	uint64_t before[16], after = 0, best[16];
	unsigned n = nu_node_count();
	bool over = true;

	for (unsigned i = 0; i < n; i++) {
		best[i] = UINT64_MAX;
		CHECK_IS(meter_create(&(struct nu_options){.node = NU_NODE(i), .pinned = true}, &m[i]), 0);
	}
	nu_sleep_us(1000000); /* what the start has left to do: reserves to back */
	for (unsigned window = 0; window < WINDOWS && over; window++) {
		over = false;
		for (unsigned i = 0; i < n; i++)
			CHECK_IS(meter_cpu_us(m[i], &before[i]), 0);
		nu_sleep_us(IDLE_US);
		for (unsigned i = 0; i < n; i++) {
			CHECK_IS(meter_cpu_us(m[i], &after), 0);
			if (after - before[i] < best[i])
				best[i] = after - before[i];
			over |= best[i] >= LIMIT_US;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		printf("     node %u: %lu us in %u s\n", i, (unsigned long)best[i], IDLE_US / 1000000);
		CHECK_MSG(best[i] < LIMIT_US, "node %u used %lu us in %u s of idling", i,
			  (unsigned long)best[i], IDLE_US / 1000000);
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
