/* SPDX-License-Identifier: MIT */
/*
 * Thousands of threads that wait in one proclet: moved at once, woken at the other end, and their stacks come back.
 *
 * usage: threads COUNT
 */
#include "tests/scale/scale.h"

#define ARRIVE_US (20u * 1000 * 1000)

struct hall {
	struct nu_sem gate;
	_Atomic uint64_t waiting, gone;
};
NU_CLASS(hall);
NU_METHOD(hall, fill, val(uint64_t), val(uint64_t, n));
NU_METHOD(hall, open, none);
NU_METHOD(hall, waiting, val(uint64_t));
NU_METHOD(hall, gone, val(uint64_t));

int hall_init(struct hall *h)
{
	nu_sem_init(&h->gate, 0);
	return 0;
}

static void guest_body(void *arg)
{
	struct hall *h = arg;

	h->waiting++;
	nu_sem_wait(&h->gate);
	h->gone++;
}

/* Return: how many could be started. */
uint64_t hall_do_fill(struct hall *h, uint64_t n)
{
	uint64_t i = 0;

	while (i < n && !nu_thread_spawn(guest_body, h, NULL))
		i++;
	return i;
}

void hall_do_open(struct hall *h)
{
	for (uint64_t n = h->waiting - h->gone; n; n--)
		nu_sem_post(&h->gate);
}

uint64_t hall_do_waiting(struct hall *h)
{
	return h->waiting;
}

uint64_t hall_do_gone(struct hall *h)
{
	return h->gone;
}

static unsigned guests;

static void wait_for(struct hall_ref h, int (*ask)(struct hall_ref, uint64_t *), uint64_t want)
{
	uint64_t end = nu_now_us() + ARRIVE_US, is = 0;

	do {
		CHECK_IS(ask(h, &is), 0);
		if (is != want)
			nu_sleep_us(CHECK_RETRY_US);
	} while (is != want && nu_now_us() < end);
	CHECK_IS(is, want);
}

static void a_hall_moves(void)
{
	struct hall_ref h = {{0}};
	uint64_t n = 0, begin;

	CHECK_IS(hall_create(&(struct nu_options){.node = NU_NODE(0)}, &h), 0);
	CHECK_IS(hall_fill(h, guests, &n), 0);
	CHECK_IS(n, guests);
	wait_for(h, hall_waiting, guests);
	scale_look();
	scale_print("full");
	begin = nu_now_us();
	for (unsigned to = 1; to <= nu_node_count(); to++)
		CHECK_IS(check_move(h.ref, to % nu_node_count()), 0);
	printf("%u threads: %.1f ms a move\n", guests, (double)(nu_now_us() - begin) / 1e3 / nu_node_count());
	CHECK_IS(check_move(h.ref, nu_node_count() - 1), 0);
	CHECK_IS(hall_open(h), 0);
	wait_for(h, hall_gone, guests);
	CHECK_IS(hall_ref_put(&h), 0);
	scale_nothing_left();
}

static int threads_main(int argc, char **argv)
{
	guests = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	if (scale_begin())
		return 1;
	CHECK_RUN(a_hall_moves);
	CHECK_RUN(a_hall_moves);
	scale_end();
	return check_done();
}
CHECK_PROGRAM(threads_main)
