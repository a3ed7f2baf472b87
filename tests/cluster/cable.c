/* SPDX-License-Identifier: MIT */
/*
 * The cable of a host is pulled while a heap is being read: after the first READ has come and before the last can have.
 * The move fails at the destination and is undone at the source, the proclet goes on there with every call that was
 * acknowledged, nothing of it is left at the destination, and when the cable is in again it can be moved.
 *
 * usage: cable PULL PUSH    shell commands, for any node; two nodes that read by RDMA, on two hosts
 */
#include "check.h"

#include <nu/nu_testing.h>

#define MIB	 ((size_t)1 << 20)
#define BLOCKS	 8u
#define FIRST	 (16 * MIB) /* doubled when a move was over before the cable was out */
#define LARGEST	 (128 * MIB)
#define BREAK_US 60000000u /* for the device to give up, beside which a busy machine does other things */
#define LOOK_US	 500u
#define CALM_US	 5000u

static char *pull_command, *push_command;

/* ---- who is moved ---- */

struct load {
	uint64_t *blocks[BLOCKS];
	size_t words;
	uint64_t calls;
	_Atomic uint64_t beats;
	_Atomic bool stop;
	struct nu_waitgroup out;
};
NU_CLASS(load);
NU_METHOD(load, fill, val(int), val(size_t, bytes));
NU_METHOD(load, wrong, val(uint64_t));
NU_METHOD(load, add, val(uint64_t));
NU_METHOD(load, beats, val(uint64_t));
NU_METHOD(load, finish, none);

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
	nu_waitgroup_add(&l->out, 1);
	return nu_thread_spawn(beat, l, NULL);
}

int load_do_fill(struct load *l, size_t bytes)
{
	l->words = bytes / BLOCKS / sizeof(**l->blocks);
	for (unsigned k = 0; k < BLOCKS; k++) {
		l->blocks[k] = malloc(l->words * sizeof(**l->blocks));
		if (!l->blocks[k])
			return -ENOMEM;
		for (size_t i = 0; i < l->words; i++)
			l->blocks[k][i] = word(k, i);
	}
	return 0;
}

uint64_t load_do_wrong(struct load *l)
{
	uint64_t wrong = 0;

	for (unsigned k = 0; k < BLOCKS; k++) {
		for (size_t i = 0; i < l->words; i++)
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

/* ---- who pulls the cable: on the node that reads, since it can see how far that is ---- */

NU_STRUCT(cut, val(int, status), val(uint64_t, completed), val(uint64_t, broken),
	  val(uint64_t, broken_after));
struct hand {
	bool unused;
};
NU_CLASS(hand);
NU_METHOD(hand, warm_up, val(int));
NU_METHOD(hand, cut, obj(cut));
NU_METHOD(hand, left_behind, val(uint64_t));

int hand_init(struct hand *h)
{
	return 0;
}

/* What the commands take is in the guest's cache from then on. */
int hand_do_warm_up(struct hand *h)
{
	return system(push_command);
}

static struct nu_testing_reads reads_here(void)
{
	struct nu_testing_reads r;

	nu_testing_reads(&r);
	return r;
}

/* Waits for the next READ to come in, pulls, waits for the device to give up, pushes the cable in again. */
struct cut hand_do_cut(struct hand *h)
{
	struct nu_testing_reads before = reads_here(), r;
	uint64_t end = nu_now_us() + BREAK_US;
	struct cut c = {.status = -ETIMEDOUT};

	while ((r = reads_here()).completions == before.completions && nu_now_us() < end)
		nu_yield();
	c.completed = r.completions - before.completions;
	c.status = c.completed ? system(pull_command) : -ETIMEDOUT;
	if (c.status)
		return c;
	c.broken = reads_here().broken - before.broken;
	for (end = nu_now_us() + BREAK_US; nu_now_us() < end && !c.broken_after;) {
		nu_sleep_us(LOOK_US);
		r = reads_here();
		c.broken_after = r.broken - before.broken;
	}
	c.status = system(push_command);
	return c;
}

/* Of proclets that did not arrive. */
uint64_t hand_do_left_behind(struct hand *h)
{
	struct nu_testing_census c;

	nu_testing_census(&c);
	return c.arriving + c.held + c.pool_bytes;
}

/* ---- the test ---- */

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

static void check_lives(struct load_ref l, unsigned node)
{
	uint64_t before = 0, now = 0, wrong = 1, end = nu_now_us() + BREAK_US;

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

/* One try with so large a heap. False: the move was over too early. */
static bool try_it(unsigned to, struct hand_ref hand, size_t bytes)
{
	unsigned from = 1 - to;
	struct caller c = {{{0}}, false, 0, 0};
	struct nu_thread *caller;
	uint64_t sum = 0, left = 1;
	struct cut cut = {0};
	NU_SCOPED(load, load);
	NU_SCOPED_FUTURE(hand, cut, cutting);
	bool in_time;
	int ret = -1;

	CHECK_IS(load_create(&(struct nu_options){.node = NU_NODE(from)}, &load), 0);
	/* Small, there and back: queue pairs and routes are there then. */
	CHECK_IS(check_shuttle(load.ref, 2), 0);
	CHECK_IS(load_fill(load, bytes, &ret), 0);
	CHECK_IS(ret, 0);
	c.to = load;
	CHECK_IS(nu_thread_spawn(call_on, &c, &caller), 0);
	CHECK_IS(hand_cut_async(hand, &cutting), 0);
	do
		ret = nu_migrate(load.ref, to);
	while (ret == -ETIMEDOUT); /* its threads could not be paused */
	CHECK_IS(hand_cut_wait(&cutting, &cut), 0);
	CHECK_IS(cut.status, 0);
	in_time = ret != 0;
	if (in_time) {
		CHECK_IS(ret, -EIO);
		CHECK(cut.completed > 0);
		CHECK_MSG(!cut.broken, "%lu queue pairs were broken before the cable was out",
			  (unsigned long)cut.broken);
		CHECK(cut.broken_after > 0);
		check_lives(load, from);
		CHECK_IS(hand_left_behind(hand, &left), 0);
		CHECK_IS(left, 0);
		CHECK_IS(check_move(load.ref, to), 0);
		check_lives(load, to);
		printf("     to node %u: %zu MiB, cut after %lu completions\n", to, bytes / MIB,
		       (unsigned long)cut.completed);
	}
	c.stop = true;
	CHECK_IS(nu_thread_join(caller), 0);
	CHECK_IS(c.failed, 0);
	CHECK_IS(load_add(load, &sum), 0);
	CHECK_IS(sum, c.acknowledged + 1);
	CHECK_IS(load_finish(load), 0);
	return in_time;
}

static void check_pulled(unsigned to)
{
	size_t bytes = FIRST;
	NU_SCOPED(hand, hand);
	int ret = -1;

	CHECK_IS(hand_create(&(struct nu_options){.node = NU_NODE(to), .pinned = true}, &hand), 0);
	CHECK_IS(hand_warm_up(hand, &ret), 0);
	CHECK_IS(ret, 0);
	while (bytes <= LARGEST && !try_it(to, hand, bytes))
		bytes *= 2;
	CHECK_MSG(bytes <= LARGEST, "the moves were over before the cable was out");
}

static void pulled_while_the_other_host_reads(void)
{
	check_pulled(0);
}

static void pulled_while_this_host_reads(void)
{
	check_pulled(1);
}

static int cable_main(int argc, char **argv)
{
	if (nu_node_count() != 2) {
		CHECK_SKIP("cable", "it takes two nodes");
		return 0;
	}
	CHECK_RUN(pulled_while_the_other_host_reads);
	CHECK_RUN(pulled_while_this_host_reads);
	check_left(0);
	return check_done();
}

int main(int argc, char **argv)
{
	static const struct nu_run_options options = {.writable_globals = true};

	if (argc != 3) {
		fprintf(stderr, "usage: cable PULL PUSH\n");
		return 2;
	}
	pull_command = argv[1];
	push_command = argv[2];
	return nu_run(argc, argv, cable_main, &options);
}
