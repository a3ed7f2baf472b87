/* SPDX-License-Identifier: MIT */
/*
 * What runs out. Each allocation, mapping and extent of an operation is failed in turn: the operation then works or fails
 * cleanly, the next one works, and nothing is left behind. Then limits that are really reached: heaps, a node's pool,
 * stacks. Three nodes: 0 main and controller, 1 and 2 with an agent that arms faults there.
 */
#include "../cluster/check.h"
#include "core/nu_testing.h"

#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#define NODES	 3u
#define AGAIN	 2000u
#define NTH_MAX	 300u
#define SPAN	 20000u
#define MIB	 (1u << 20)
#define STEP_US	 1000u
#define BOUND_US 10000000u

static const char *const points[] = {"alloc", "map", "extent"};

/* ---- an agent on each node ---- */

struct agent {
	int64_t seen[3];
};
NU_STRUCT(tally, val(uint64_t, present), val(uint64_t, arriving), val(uint64_t, held), val(uint64_t, stacks),
	  val(uint64_t, lent), val(uint64_t, pool_bytes), val(int64_t, live));
NU_CLASS(agent);
NU_METHOD(agent, arm, val(int), str(rules));
NU_METHOD(agent, disarm, val(int64_t), val(unsigned, point));
NU_METHOD(agent, pid, val(int));
NU_METHOD(agent, count, obj(tally), val(bool, log));

int agent_init(struct agent *a)
{
	return 0;
}

int agent_do_arm(struct agent *a, struct nu_str rules)
{
	for (unsigned i = 0; i < 3; i++)
		a->seen[i] = nu_testing_fault_hits(points[i]);
	return nu_testing_fault(rules.s);
}

/* Return: how often @point was reached since. */
int64_t agent_do_disarm(struct agent *a, unsigned point)
{
	int64_t n = nu_testing_fault_hits(points[point]) - a->seen[point];

	return nu_testing_fault(NULL) ? -1 : n;
}

int agent_do_pid(struct agent *a)
{
	return getpid();
}

struct tally agent_do_count(struct agent *a, bool log)
{
	struct nu_testing_census c;
	int64_t live = nu_testing_live(log);

	nu_testing_census(&c);
	return (struct tally){c.present, c.arriving, c.held, c.stacks, c.lent, c.pool_bytes, live};
}

/* ---- what is created, called and moved ---- */

struct thing {
	char *name;
	char **blocks;
	unsigned calls, turns;
	bool stop;
	struct nu_thread *thread;
	struct nu_sem gate, ended;
};
NU_CLASS(thing, str(name), bytes(filling));
NU_CLASS_FINI(thing);
NU_METHOD(thing, add, val(unsigned), val(unsigned, n));
NU_METHOD(thing, echo, bytes, bytes(b));
NU_METHOD(thing, name, str);
NU_METHOD(thing, threads, val(int), val(unsigned, n));
NU_METHOD(thing, start, val(int));
NU_METHOD(thing, turns, val(unsigned));
NU_METHOD(thing, stop, val(int));
NU_METHOD(thing, fill, val(uint64_t));
NU_METHOD(thing, empty, none);
NU_METHOD(thing, big, bytes, val(uint64_t, n));
NU_METHOD(thing, spawn_all, val(unsigned));
NU_METHOD(thing, hold, val(int), val(uint64_t, us), bytes(b));
NU_METHOD(thing, myself, ref(thing));
NU_CLOSURE(thing, twice, val(unsigned), val(unsigned, a), str(s));

int thing_init(struct thing *t, struct nu_str name, struct nu_bytes filling)
{
	t->name = malloc(name.len_bytes + filling.len_bytes + 1);
	if (!t->name)
		return -ENOMEM;
	memcpy(t->name, name.s, name.len_bytes + 1);
	return 0;
}

void thing_fini(struct thing *t)
{
	free(t->name);
}

unsigned thing_do_add(struct thing *t, unsigned n)
{
	return t->calls += n;
}

void thing_do_echo(struct thing *t, struct nu_bytes b, struct nu_out *out)
{
	nu_out_bytes(out, b.data, b.len_bytes);
}

void thing_do_name(struct thing *t, struct nu_out *out)
{
	nu_out_str(out, t->name);
}

static void nothing(void *arg)
{
	++*(unsigned *)arg;
}

int thing_do_threads(struct thing *t, unsigned n)
{
	int ret = 0;

	for (unsigned i = 0; i < n && !ret; i++) {
		struct nu_thread *th;

		ret = nu_thread_spawn(nothing, &t->calls, &th);
		if (!ret)
			ret = nu_thread_join(th);
	}
	return ret;
}

static void turn(void *arg)
{
	struct thing *t = arg;

	while (!t->stop) {
		t->turns++;
		nu_sleep_us(200);
	}
}

int thing_do_start(struct thing *t)
{
	return nu_thread_spawn(turn, t, &t->thread);
}

unsigned thing_do_turns(struct thing *t)
{
	return t->turns;
}

int thing_do_stop(struct thing *t)
{
	t->stop = true;
	return nu_thread_join(t->thread);
}

/* Blocks in a row until there are no more. Return: how many bytes they are; 0 if errno was not right. */
uint64_t thing_do_fill(struct thing *t)
{
	static const size_t sizes[] = {65536, 4096, 64};
	uint64_t sum = 0;

	for (unsigned i = 0; i < 3; i++) {
		char **block;

		errno = 0;
		while ((block = malloc(sizes[i]))) {
			*block = (char *)t->blocks;
			t->blocks = block;
			sum += sizes[i];
		}
		if (errno != ENOMEM)
			return 0;
	}
	return sum;
}

void thing_do_empty(struct thing *t)
{
	while (t->blocks) {
		char **next = (char **)*t->blocks;

		free(t->blocks);
		t->blocks = next;
	}
}

void thing_do_big(struct thing *t, uint64_t n, struct nu_out *out)
{
	static const char zeroes[MIB];

	nu_out_bytes(out, zeroes, n < MIB ? n : MIB);
}

static void through_gate(void *arg)
{
	struct thing *t = arg;

	nu_sem_wait(&t->gate);
	nu_sem_post(&t->ended);
}

/* Threads until there are no more; then they end. Return: how many, 0: the error was another. */
unsigned thing_do_spawn_all(struct thing *t)
{
	unsigned n = 0;
	int ret;

	nu_sem_init(&t->gate, 0);
	nu_sem_init(&t->ended, 0);
	while (!(ret = nu_thread_spawn(through_gate, t, NULL)))
		n++;
	for (unsigned i = 0; i < n; i++)
		nu_sem_post(&t->gate);
	for (unsigned i = 0; i < n; i++)
		nu_sem_wait(&t->ended);
	return ret == -ENOMEM ? n : 0;
}

int thing_do_hold(struct thing *t, uint64_t us, struct nu_bytes b)
{
	nu_sleep_us(us);
	t->calls++;
	return 0;
}

struct thing_ref thing_do_myself(struct thing *t)
{
	return (struct thing_ref){nu_self()};
}

unsigned thing_do_twice(struct thing *t, unsigned a, struct nu_str s)
{
	return 2 * a + (unsigned)s.len_bytes;
}

/* ---- the main proclet ---- */

static struct agent_ref agents[NODES];
static char span[SPAN];

/* What a test itself needs of a node where a fault waits. */
#define SURELY(expr)                                                                                         \
	({                                                                                                   \
		int ret_ = -ENOMEM;                                                                          \
		for (unsigned i_ = 0; i_ < AGAIN && (ret_ == -ENOMEM || ret_ == -EBUSY); i_++)               \
			ret_ = (expr);                                                                       \
		ret_;                                                                                        \
	})

static int make(unsigned node, struct thing_ref *t_p)
{
	return thing_create(&(struct nu_options){.node = NU_NODE(node), .capacity_bytes = MIB},
			    nu_str("thing"), nu_bytes(span, 9000), t_p);
}

static struct thing_ref subject; /* of the operations that need one: on the node of the fault or on node 0 */

static int op_create(unsigned node)
{
	struct thing_ref t;
	int ret = make(node, &t);

	if (ret)
		return ret;
	return thing_ref_put(&t);
}

static int op_create_async(unsigned node)
{
	struct thing_create_future f;
	struct thing_ref t;
	int ret = thing_create_async(&(struct nu_options){.node = NU_NODE(node), .capacity_bytes = MIB},
				     nu_str("thing"), nu_bytes(span, 9000), &f);

	if (!ret)
		ret = thing_create_wait(&f, &t);
	return ret ? ret : thing_ref_put(&t);
}

static int op_call(unsigned node)
{
	unsigned n;

	return thing_add(subject, 1, &n);
}

static int op_span(unsigned node)
{
	struct nu_bytes got = {NULL, 0};
	int ret = thing_echo(subject, nu_bytes(span, SPAN), &got);

	CHECK(ret || (got.len_bytes == SPAN && !memcmp(got.data, span, SPAN)));
	free((void *)got.data);
	return ret;
}

static int op_string(unsigned node)
{
	struct nu_str got;
	int ret = thing_name(subject, &got);

	if (ret)
		return ret;
	CHECK(!strcmp(got.s, "thing"));
	free((void *)got.s);
	return 0;
}

static int op_async(unsigned node)
{
	struct thing_echo_future a, b;
	struct nu_bytes got = {NULL, 0};
	int ret = thing_echo_async(subject, nu_bytes(span, SPAN), &a), ret_b;

	if (ret)
		return ret;
	ret_b = thing_echo_async(subject, nu_bytes(span, 100), &b);
	ret = thing_echo_wait(&a, &got);
	free((void *)got.data);
	got.data = NULL;
	if (!ret_b)
		ret_b = thing_echo_wait(&b, &got);
	free((void *)got.data);
	return ret ? ret : ret_b;
}

static int op_closure(unsigned node)
{
	unsigned n;
	int ret = thing_twice(subject, 20, nu_str("xx"), &n);

	CHECK(ret || n == 42);
	return ret;
}

static int op_spawn(unsigned node)
{
	int got = 0, ret = thing_threads(subject, 3, &got);

	return ret ? ret : got;
}

static int op_refs(unsigned node)
{
	struct thing_ref self;
	int ret = thing_myself(subject, &self), put;

	if (ret)
		return ret;
	ret = thing_ref_get(subject);
	put = thing_ref_put(&self);
	if (!ret) {
		struct thing_ref again = subject;

		ret = thing_ref_put(&again);
	}
	return ret ? ret : put;
}

/* Away and back: the node of the fault is the destination, then the source. */
static int op_move(unsigned node)
{
	unsigned from = node ? 0 : 1, before, after;
	int there = nu_migrate(subject.ref, node), back = check_move(subject.ref, from);

	CHECK_IS(SURELY(thing_turns(subject, &before)), 0);
	nu_sleep_us(STEP_US);
	CHECK_IS(SURELY(thing_turns(subject, &after)), 0);
	return there ? there : back;
}

static const struct op {
	const char *name;
	int (*run)(unsigned node);
	bool has_subject, moves;
} ops[] = {
	{"create", op_create, false, false},  {"create async", op_create_async, false, false},
	{"call", op_call, true, false},	      {"span", op_span, true, false},
	{"string", op_string, true, false},   {"async", op_async, true, false},
	{"closure", op_closure, true, false}, {"spawn", op_spawn, true, false},
	{"references", op_refs, true, false}, {"move", op_move, true, true},
};

static struct tally count(unsigned node)
{
	struct tally t = {0};

	CHECK_IS(SURELY(agent_count(agents[node], false, &t)), 0);
	return t;
}

/* Polls until what @node holds is what it held. */
static void check_same(const char *what, unsigned node, const struct tally *was)
{
	uint64_t end = nu_now_us() + BOUND_US;
	struct tally now = count(node);

	while (nu_now_us() < end &&
	       (now.present != was->present || now.arriving || now.held || now.stacks > was->stacks ||
		now.lent > was->lent || now.pool_bytes != was->pool_bytes)) {
		nu_sleep_us(STEP_US);
		now = count(node);
	}
	CHECK_MSG(now.present == was->present && !now.arriving && !now.held && now.stacks <= was->stacks &&
			  now.lent <= was->lent && now.pool_bytes == was->pool_bytes,
		  "%s: node %u: proclets %lu, was %lu; arriving %lu, held %lu; stacks %lu, was %lu; lent "
		  "%lu, was "
		  "%lu; pool %lu, was %lu",
		  what, node, now.present, was->present, now.arriving, now.held, now.stacks, was->stacks,
		  now.lent, was->lent, now.pool_bytes, was->pool_bytes);
}

static bool clean(const struct op *op, int ret)
{
	return !ret || ret == -ENOMEM || (op->moves && (ret == -EBUSY || ret == -ETIMEDOUT));
}

/* One operation with the @nth reach of @point on @node failed. False: it was not reached so often. */
static bool fail_one(const struct op *op, unsigned node, unsigned point, unsigned nth, unsigned *failed_p)
{
	char rule[64];
	int64_t reached = 0;
	int ret = 0, armed = 0;

	snprintf(rule, sizeof(rule), "%s#%u:error=12", points[point], nth);
	CHECK_IS(SURELY(agent_arm(agents[node], nu_str(rule), &armed)), 0);
	CHECK_IS(armed, 0);
	ret = op->run(node);
	CHECK_IS(SURELY(agent_disarm(agents[node], point, &reached)), 0);
	CHECK_MSG(clean(op, ret), "%s, %s %u on node %u: %d (%s)", op->name, points[point], nth, node, ret,
		  nu_strerror(ret));
	*failed_p += ret != 0;
	ret = op->moves ? SURELY(op->run(node)) : op->run(node);
	CHECK_MSG(!ret, "%s, after %s %u on node %u: %d (%s)", op->name, points[point], nth, node, ret,
		  nu_strerror(ret));
	return reached >= (int64_t)nth;
}

static void sweep(const struct op *op, unsigned node)
{
	unsigned home = op->moves ? (node ? 0 : 1) : node, ignored;
	struct tally was[NODES];
	unsigned n[3] = {0}, failed = 0;
	int started;

	if (op->has_subject) {
		CHECK_IS(make(home, &subject), 0);
		if (op->moves) {
			CHECK_IS(thing_start(subject, &started), 0);
			CHECK_IS(started, 0);
		}
	}
	for (unsigned i = 0; i < 4; i++)
		(void)!SURELY(op->run(node)); /* what is kept for good */
	check_left(NODES + op->has_subject);
	for (unsigned i = 0; i < NODES; i++)
		was[i] = count(i);
	for (unsigned point = 0; point < 3; point++) {
		for (n[point] = 1; n[point] < NTH_MAX && fail_one(op, node, point, n[point], &failed);)
			n[point]++;
		CHECK_MSG(n[point] < NTH_MAX, "%s: %s is reached again and again", op->name, points[point]);
	}
	for (unsigned i = 0; i < NODES; i++)
		check_same(op->name, i, &was[i]);
	if (op->moves)
		CHECK_IS(thing_stop(subject, &started), 0);
	if (op->has_subject)
		CHECK_IS(thing_ref_put(&subject), 0);
	ignored = printf("     %-12s node %u: %3u allocations, %2u mappings, %2u extents failed: %u errors\n",
			 op->name, node, n[0] - 1, n[1] - 1, n[2] - 1, failed);
	(void)ignored;
}

static const char *only; /* of the operations */

static void every_allocation(void)
{
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		for (unsigned node = 0; node < NODES - 1 && (!only || !strcmp(only, ops[i].name)); node++)
			sweep(&ops[i], node);
	}
}

/* Blocks of libnu: after a second round there may be no more than after the first. */
static void no_leak(void)
{
	int64_t first[NODES], second[NODES];
	struct tally t = {0};

	for (unsigned i = 0; i < NODES; i++)
		first[i] = count(i).live;
	every_allocation();
	for (unsigned i = 0; i < NODES; i++) {
		second[i] = count(i).live;
		CHECK_MSG(second[i] <= first[i] + 16, "node %u: %ld blocks of libnu, %ld before", i,
			  (long)second[i], (long)first[i]);
		if (second[i] > first[i] + 16)
			(void)!agent_count(agents[i], true, &t);
	}
}

/* ---- limits that are reached ---- */

static void full_heap(void)
{
	struct thing_ref t;
	struct nu_bytes got = {NULL, 0};
	uint64_t sum = 0;
	unsigned n;

	for (unsigned node = 0; node < 2; node++) {
		CHECK_IS(make(node, &t), 0);
		CHECK_IS(thing_fill(t, &sum), 0);
		CHECK_MSG(sum > MIB / 2 && sum < MIB, "%lu bytes fitted", (unsigned long)sum);
		/* A result and arguments that do not fit; what needs none goes on. */
		CHECK_IS(thing_big(t, 40000, &got), -ENOMEM);
		CHECK_IS(thing_add(t, 1, &n), 0);
		CHECK_IS(thing_echo(t, nu_bytes(span, SPAN), &got), -ENOMEM);
		CHECK_IS(thing_empty(t), 0);
		CHECK_IS(thing_big(t, 40000, &got), 0);
		CHECK_IS(got.len_bytes, 40000);
		free((void *)got.data);
		CHECK_IS(thing_ref_put(&t), 0);
	}
}

/* Node 2's pool, by proclets of 1 MiB there; one more cannot be created, moved or grow. */
static void full_pool(void)
{
	enum { MANY = 256 };
	struct thing_ref *t = calloc(MANY, sizeof(*t)), mover;
	unsigned n = 0, calls;
	uint64_t sum;
	int ret = 0;

	CHECK_IS(make(0, &mover), 0);
	while (n < MANY && !(ret = make(2, &t[n]))) {
		n++;
		if (thing_fill(t[n - 1], &sum))
			break;
	}
	CHECK_IS(ret, -ENOMEM);
	CHECK_MSG(n > 8 && n < MANY, "%u proclets of 1 MiB", n);
	CHECK_IS(check_move(mover.ref, 2), -ENOMEM);
	CHECK_IS(nu_locate(mover.ref), 0);
	CHECK_IS(thing_add(mover, 1, &calls), 0);
	for (unsigned i = 0; i < n; i++)
		CHECK_IS(thing_add(t[i], 1, &calls), 0);
	/* What goes makes room. */
	for (unsigned i = 0; i < 3 && i < n; i++)
		CHECK_IS(thing_ref_put(&t[--n]), 0);
	check_left((long)n + 1 + NODES);
	CHECK_IS(check_move(mover.ref, 2), 0);
	while (n)
		CHECK_IS(thing_ref_put(&t[--n]), 0);
	CHECK_IS(thing_ref_put(&mover), 0);
	free(t);
	check_left(NODES);
}

static void no_more_threads(void)
{
	struct thing_ref t, other;
	unsigned n = 0, calls;

	for (unsigned node = 0; node < 2; node++) {
		CHECK_IS(make(node, &t), 0);
		CHECK_IS(thing_spawn_all(t, &n), 0);
		CHECK_MSG(n > 100, "%u threads", n);
		CHECK_IS(make(node, &other), 0);
		CHECK_IS(thing_add(other, 1, &calls), 0);
		CHECK_IS(thing_ref_put(&other), 0);
		CHECK_IS(thing_ref_put(&t), 0);
	}
	check_left(NODES);
}

/* ---- a peer that has stopped ---- */

#define FLOOD_CALLS 300u
#define FLOOD_BYTES MIB
#define WIRE_MIB_MAX                                                                                         \
	24u /* NU_QUEUED_BYTES_MAX, a message more for each core, what batches and the allocator add */

/* Blocks of the C library in this process: the wire's copies are there, the callers' own are in a heap. */
static size_t libc_mib(void)
{
	struct mallinfo2 m = mallinfo2();

	return (m.uordblks + m.hblkhd) >> 20;
}

static void send_big(void *arg)
{
	struct thing_ref *t = arg;
	static const char zeroes[FLOOD_BYTES];
	int got = -1;

	if (thing_hold(*t, 0, nu_bytes(zeroes, FLOOD_BYTES), &got) || got)
		abort();
}

/* Calls of 1 MiB to a node that stands still: they wait for each other, not for memory; each is run once. */
static void flood(void)
{
	struct nu_thread *threads[FLOOD_CALLS];
	struct thing_ref t;
	size_t before, most = 0, now;
	unsigned n = 0;
	int pid = 0;

	CHECK_IS(thing_create(&(struct nu_options){.node = NU_NODE(1)}, nu_str("flooded"), nu_bytes(span, 1),
			      &t),
		 0);
	CHECK_IS(agent_pid(agents[1], &pid), 0);
	send_big(&t);
	before = libc_mib();
	CHECK_IS(kill(pid, SIGSTOP), 0);
	for (unsigned i = 0; i < FLOOD_CALLS; i++)
		CHECK_IS(nu_thread_spawn(send_big, &t, &threads[i]), 0);
	for (unsigned i = 0; i < 200; i++) { /* they have all got as far as they can after a few of these */
		nu_sleep_us(STEP_US);
		now = libc_mib();
		if (now > most)
			most = now;
	}
	CHECK_IS(kill(pid, SIGCONT), 0);
	for (unsigned i = 0; i < FLOOD_CALLS; i++)
		CHECK_IS(nu_thread_join(threads[i]), 0);
	CHECK_IS(thing_add(t, 0, &n), 0);
	CHECK_MSG(n == FLOOD_CALLS + 1, "%u of %u calls were run", n, FLOOD_CALLS + 1);
	CHECK_MSG(most > before + 8, "the flood did not come about: %zu MiB, %zu before", most, before);
	CHECK_MSG(most <= before + WIRE_MIB_MAX, "%zu MiB of calls wait, %zu before", most, before);
	printf("     %u calls of 1 MiB to a stopped node: %zu MiB wait on the wire\n", FLOOD_CALLS,
	       most - before);
	CHECK_IS(thing_ref_put(&t), 0);
	check_left(NODES);
}

static int test_main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "faults";

	if (argc > 2)
		only = argv[2];
	for (unsigned i = 0; i < NODES; i++)
		CHECK_IS(agent_create(&(struct nu_options){.node = NU_NODE(i), .pinned = true}, &agents[i]),
			 0);
	for (unsigned i = 0; i < SPAN; i++)
		span[i] = (char)(i * 7);
	if (!strcmp(what, "faults")) {
		CHECK_RUN(every_allocation);
		CHECK_RUN(no_leak);
	} else if (!strcmp(what, "flood")) {
		CHECK_RUN(flood);
	} else {
		CHECK_RUN(full_heap);
		CHECK_RUN(full_pool);
		CHECK_RUN(no_more_threads);
	}
	return check_done();
}

CHECK_PROGRAM(test_main)
