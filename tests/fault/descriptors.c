/* SPDX-License-Identifier: MIT */
/*
 * File descriptors run out on one node of a job that runs: when it connects to a peer for the first time, when a peer
 * connects to it, on either side of a move. What was there goes on, what needs a descriptor waits and the core sleeps
 * meanwhile, and it is done when the limit is raised again. descriptors.py reads what is said.
 * usage: descriptors [moves]
 *
 * Eight nodes of a core: each test has two that have not talked to each other.
 */
#include "../cluster/check.h"

#include "core/nu_testing.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define NODES	  8u
#define WINDOW_US 150000u
#define CALLS	  50u
#define LOWEST	  4u /* who polls more descriptors than the limit is told that it is wrong */
/* A retry each 2 ms, a listener's rest each 20 ms, the calls that come meanwhile; a spinning core makes 100,000. */
#define SLEEPS_MAX 2000u

struct agent {
	struct rlimit was;
	int first, last; /* descriptors that fill all there is room for */
	unsigned calls;
};
NU_CLASS(agent);
NU_METHOD(agent, lower, val(int), val(bool, fill));
NU_METHOD(agent, raise, val(int));
NU_METHOD(agent, sleeps, val(uint64_t));
NU_METHOD(agent, linked, val(int), val(unsigned, node));
NU_METHOD(agent, ping, val(unsigned));
NU_METHOD(agent, ask, val(int), val(uint64_t, other), val(uint64_t, us));

int agent_init(struct agent *a)
{
	a->first = a->last = -1;
	return 0;
}

/* Below all that is free; or, with @fill, to what is used up then. */
int agent_do_lower(struct agent *a, bool fill)
{
	struct rlimit low;

	if (getrlimit(RLIMIT_NOFILE, &a->was))
		return -errno;
	low = (struct rlimit){fill ? 256 : LOWEST, a->was.rlim_max};
	if (setrlimit(RLIMIT_NOFILE, &low))
		return -errno;
	for (int fd; fill && (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0; a->last = fd)
		a->first = a->first < 0 ? fd : a->first;
	return open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 && errno == EMFILE ? 0 : -EEXIST;
}

int agent_do_raise(struct agent *a)
{
	if (a->first >= 0)
		close_range((unsigned)a->first, (unsigned)a->last, 0);
	a->first = a->last = -1;
	return setrlimit(RLIMIT_NOFILE, &a->was) ? -errno : 0;
}

uint64_t agent_do_sleeps(struct agent *a)
{
	return nu_testing_sleeps();
}

/* -ENOTCONN: nothing has been said to @node yet. */
int agent_do_linked(struct agent *a, unsigned node)
{
	char text[64];

	return nu_testing_transport(node, text, sizeof(text));
}

unsigned agent_do_ping(struct agent *a)
{
	return ++a->calls;
}

/* Calls the agent @other, with a deadline unless @us is 0. */
int agent_do_ask(struct agent *a, uint64_t other, uint64_t us)
{
	unsigned n;
	int ret;

	nu_deadline_set_us(us);
	ret = agent_ping((struct agent_ref){{other}}, &n);
	nu_deadline_set_us(0);
	return ret;
}

/* ---- what is moved ---- */

#define CARGO_WORDS (128u << 10)

struct cargo {
	uint64_t *words;
	unsigned calls;
};
NU_CLASS(cargo);
NU_METHOD(cargo, sum, val(uint64_t));

int cargo_init(struct cargo *c)
{
	c->words = malloc(CARGO_WORDS * sizeof(*c->words));
	if (!c->words)
		return -ENOMEM;
	for (unsigned i = 0; i < CARGO_WORDS; i++)
		c->words[i] = i;
	return 0;
}

uint64_t cargo_do_sum(struct cargo *c)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < CARGO_WORDS; i++)
		sum += c->words[i];
	return sum;
}

/* ---- the main proclet ---- */

static struct agent_ref agents[NODES];

/* One that has been asked for does not come about until @limited has descriptors again. */
static void window(unsigned limited)
{
	uint64_t before = 0, after = 0;
	unsigned n;

	CHECK_IS(agent_sleeps(agents[limited], &before), 0);
	for (unsigned i = 0; i < CALLS; i++) {
		nu_sleep_us(WINDOW_US / CALLS);
		CHECK_IS(agent_ping(agents[limited], &n), 0);
	}
	CHECK_IS(agent_sleeps(agents[limited], &after), 0);
	CHECK_MSG(after - before < SLEEPS_MAX, "the core of node %u went to sleep %lu times", limited,
		  (unsigned long)(after - before));
	printf("     node %u: %lu sleeps\n", limited, (unsigned long)(after - before));
}

static void lower(unsigned node, bool fill)
{
	int ret = -1;

	CHECK_IS(agent_lower(agents[node], fill, &ret), 0);
	CHECK_IS(ret, 0);
}

static void raise_again(unsigned node)
{
	int ret = -1;

	CHECK_IS(agent_raise(agents[node], &ret), 0);
	CHECK_IS(ret, 0);
}

static void check_apart(unsigned from, unsigned to)
{
	int ret = 0;

	CHECK_IS(agent_linked(agents[from], to, &ret), 0);
	CHECK_MSG(ret == -ENOTCONN, "nodes %u and %u have talked to each other already: %d", from, to, ret);
}

/* The first word from node @from to node @to, one of which has no descriptor. */
static void first_word(unsigned from, unsigned to, unsigned limited, bool fill)
{
	struct agent_ask_future f;
	int ret = 0;

	check_apart(from, to);
	check_apart(to, from);
	lower(limited, fill);
	CHECK_IS(agent_ask(agents[from], agents[to].ref.id, WINDOW_US, &ret), 0);
	CHECK_IS(ret, -ETIMEDOUT);
	ret = -1;
	CHECK_IS(agent_ask_async(agents[from], agents[to].ref.id, 0, &f), 0);
	window(limited);
	raise_again(limited);
	CHECK_IS(agent_ask_wait(&f, &ret), 0);
	CHECK_IS(ret, 0);
}

static void connect_without(void)
{
	first_word(1, 2, 1, false);
}

static void accept_without(void)
{
	first_word(1, 3, 3, false);
}

static void connect_when_full(void)
{
	first_word(2, 3, 2, true);
}

static void accept_when_full(void)
{
	first_word(2, 4, 4, true);
}

struct journey {
	struct cargo_ref cargo;
	unsigned to;
	int ret;
};

static void travel(void *arg)
{
	struct journey *j = arg;

	j->ret = nu_migrate(j->cargo.ref, j->to);
}

/* A move that has to make its way first, and then one that finds it made: with no descriptor either. */
static void move_between(unsigned from, unsigned to, unsigned limited, bool fill)
{
	struct journey j = {.to = to, .ret = 1};
	struct nu_thread *t;
	uint64_t sum = 0;

	CHECK_IS(cargo_create(&(struct nu_options){.node = NU_NODE(from)}, &j.cargo), 0);
	check_apart(from, to);
	lower(limited, fill);
	CHECK_IS(nu_thread_spawn(travel, &j, &t), 0);
	window(limited);
	CHECK_IS(cargo_sum(j.cargo, &sum), 0); /* it goes on where it is */
	CHECK_IS(nu_locate(j.cargo.ref), from);
	raise_again(limited);
	CHECK_IS(nu_thread_join(t), 0);
	CHECK_IS(j.ret, 0);
	lower(from, fill);
	lower(to, fill);
	CHECK_IS(check_move(j.cargo.ref, from), 0);
	CHECK_IS(check_move(j.cargo.ref, to), 0);
	raise_again(from);
	raise_again(to);
	CHECK_IS(cargo_sum(j.cargo, &sum), 0);
	CHECK(sum == (uint64_t)CARGO_WORDS * (CARGO_WORDS - 1) / 2);
	CHECK_IS(nu_locate(j.cargo.ref), to);
	CHECK_IS(cargo_ref_put(&j.cargo), 0);
	check_left(NODES);
}

static void move_destination_without(void)
{
	move_between(4, 5, 5, false);
}

static void move_source_without(void)
{
	move_between(5, 6, 5, false);
}

static void move_destination_full(void)
{
	move_between(6, 7, 7, true);
}

static void move_source_full(void)
{
	move_between(7, 5, 7, true);
}

static int test_main(int argc, char **argv)
{
	for (unsigned i = 0; i < NODES; i++)
		CHECK_IS(agent_create(&(struct nu_options){.node = NU_NODE(i), .pinned = true}, &agents[i]),
			 0);
	if (argc < 2) {
		CHECK_RUN(connect_without);
		CHECK_RUN(accept_without);
		CHECK_RUN(connect_when_full);
		CHECK_RUN(accept_when_full);
	}
	CHECK_RUN(move_destination_without);
	CHECK_RUN(move_source_without);
	CHECK_RUN(move_destination_full);
	CHECK_RUN(move_source_full);
	return check_done();
}

CHECK_PROGRAM(test_main)
