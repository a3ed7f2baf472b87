/* SPDX-License-Identifier: MIT */
/*
 * Nodes that were started apart: a thread that has gone deep, every frame with a stack protector's word, is taken over
 * all hosts and returns there through each of them; and what the frames hold of code and libraries is the same.
 */
#include "../cluster/check.h"

#include <math.h>

#define DEPTH 60
#define MOVES 24

struct diver {
	unsigned seen[64]; /* by node: how often the bottom was there */
	bool stop, down;
};

NU_CLASS(diver);
NU_METHOD(diver, dive, val(uint64_t), val(unsigned, depth));
NU_METHOD(diver, come_up, val(int));
NU_METHOD(diver, is_down, val(bool));
NU_METHOD(diver, addresses, val(uint64_t));

int diver_init(struct diver *d)
{
	return 0;
}

static uint64_t mix(const volatile char *bytes, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum = sum * 31 + (unsigned char)bytes[i];
	return sum;
}

/* At the bottom: goes on being moved until it is told to come up. */
static __attribute__((noinline)) void bottom(struct diver *d)
{
	d->down = true;
	while (!d->stop) {
		unsigned node = nu_node_self();

		if (node < 64)
			d->seen[node]++;
		nu_sleep_us(200);
	}
}

/* Its array makes it one that the compiler guards. Return: 0, or how many frames were not as they were left. */
static __attribute__((noinline)) uint64_t dive(struct diver *d, unsigned depth)
{
	volatile char bytes[96];
	uint64_t before, bad;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(depth * 7 + i);
	before = mix(bytes, sizeof(bytes));
	if (depth) {
		bad = dive(d, depth - 1);
	} else {
		bad = 0;
		bottom(d);
	}
	return bad + (before != mix(bytes, sizeof(bytes)));
}

uint64_t diver_do_dive(struct diver *d, unsigned depth)
{
	return dive(d, depth);
}

int diver_do_come_up(struct diver *d)
{
	int nodes = 0;

	for (unsigned n = 0; n < nu_node_count() && n < 64; n++)
		nodes += d->seen[n] > 0;
	d->stop = true;
	return nodes;
}

bool diver_do_is_down(struct diver *d)
{
	return d->down;
}

/* Where the program's and the libraries' code is, and the words that the C library hides things with. */
uint64_t diver_do_addresses(struct diver *d)
{
	uint64_t guard = 0;
	const void *const at[] = {(void *)dive, (void *)printf, (void *)nu_migrate, (void *)cos,
				  (void *)strtod};

#if defined(__x86_64__)
	asm("mov %%fs:0x30, %0" : "=r"(guard));
	asm("xor %%fs:0x28, %0" : "+r"(guard));
#endif
	return mix((const char *)at, sizeof(at)) ^ guard;
}

static void returns_on_another_host(void)
{
	NU_SCOPED(diver, d);
	NU_SCOPED_FUTURE(diver, dive, f);
	uint64_t bad = 99;
	bool down = false;
	int nodes = 0;

	CHECK_IS(diver_create(NULL, &d), 0);
	CHECK_IS(diver_dive_async(d, DEPTH, &f), 0);
	while (!down && !diver_is_down(d, &down))
		nu_sleep_us(1000);
	CHECK_IS(check_shuttle(d.ref, MOVES + 1), 0); /* it ends where it did not begin */
	CHECK_IS(diver_come_up(d, &nodes), 0);
	CHECK_IS(diver_dive_wait(&f, &bad), 0);
	CHECK_IS(bad, 0);
	CHECK_IS(nodes, nu_node_count());
}

static void layout_is_equal(void)
{
	uint64_t first = 0;

	for (unsigned n = 0; n < nu_node_count(); n++) {
		NU_SCOPED(diver, d);
		uint64_t sum = 0;

		CHECK_IS(diver_create(NULL, &d), 0);
		CHECK_IS(check_move(d.ref, n), 0);
		CHECK_IS(diver_addresses(d, &sum), 0);
		if (!n)
			first = sum;
		CHECK(sum);
		CHECK_IS(sum, first);
	}
}

static int frames_main(int argc, char **argv)
{
	CHECK_RUN(layout_is_equal);
	CHECK_RUN(returns_on_another_host);
	return check_done();
}
CHECK_PROGRAM(frames_main)
