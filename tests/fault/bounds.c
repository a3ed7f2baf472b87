/* SPDX-License-Identifier: MIT */
/*
 * Bounds that a job can reach: all of the segment space, from the largest segments to the smallest; and what is held for a
 * proclet that moves. Three nodes of two cores; bounds.py reads what is said.
 */
#include "../cluster/check.h"
#include "core/nu_testing.h"

#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#define NODES	 3u
#define MIB	 (1ull << 20)
#define STEP_US	 1000u
#define BOUND_US 20000000u

/* ---- an agent on each node ---- */

struct agent {
	int dummy;
};
NU_CLASS(agent);
NU_METHOD(agent, arm, val(int), str(rules));
NU_METHOD(agent, disarm, val(int));
NU_METHOD(agent, pid, val(int));
NU_METHOD(agent, held, val(uint64_t));
NU_METHOD(agent, libc_mib, val(uint64_t));
NU_METHOD(agent, call_all, val(unsigned), val(uint64_t, sink), val(unsigned, from), val(unsigned, n));

int agent_init(struct agent *a)
{
	return 0;
}

int agent_do_arm(struct agent *a, struct nu_str rules)
{
	return nu_testing_fault(rules.s);
}

int agent_do_disarm(struct agent *a)
{
	return nu_testing_fault(NULL);
}

int agent_do_pid(struct agent *a)
{
	return getpid();
}

/* Messages that wait here for proclets. */
uint64_t agent_do_held(struct agent *a)
{
	struct nu_testing_census c;

	nu_testing_census(&c);
	return c.held;
}

uint64_t agent_do_libc_mib(struct agent *a)
{
	struct mallinfo2 m = mallinfo2();

	return (m.uordblks + m.hblkhd) >> 20;
}

/* ---- what is called ---- */

#define CALLS_MAX 200u

struct sink {
	unsigned char got[CALLS_MAX];
};
NU_CLASS(sink);
NU_METHOD(sink, put, val(int), val(unsigned, i), bytes(b));
NU_METHOD(sink, wrong, val(unsigned), val(unsigned, n));

int sink_init(struct sink *s)
{
	return 0;
}

int sink_do_put(struct sink *s, unsigned i, struct nu_bytes b)
{
	const char *c = b.data;

	s->got[i]++;
	return b.len_bytes == MIB && c[0] == (char)i && c[MIB - 1] == 0 ? 0 : -EILSEQ;
}

/* How many of the first @n were not run once. */
unsigned sink_do_wrong(struct sink *s, unsigned n)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < n; i++)
		wrong += s->got[i] != 1;
	return wrong;
}

struct caller {
	struct sink_ref sink;
	unsigned i;
	int ret;
	struct nu_thread *thread;
};

static void call_one(void *arg)
{
	struct caller *c = arg;
	char *block = calloc(1, MIB); /* of this proclet's heap */
	int got = -1;

	c->ret = -ENOMEM;
	if (!block)
		return;
	block[0] = (char)c->i;
	c->ret = sink_put(c->sink, c->i, nu_bytes(block, MIB), &got);
	if (!c->ret)
		c->ret = got;
	free(block);
}

/* Calls number @from and the @n - 1 behind it at once, each of 1 MiB. Return: how many failed. */
unsigned agent_do_call_all(struct agent *a, uint64_t sink, unsigned from, unsigned n)
{
	struct caller *c = calloc(n, sizeof(*c));
	unsigned failed = 0;

	for (unsigned i = 0; i < n; i++) {
		c[i] = (struct caller){.sink = {{sink}}, .i = from + i};
		if (nu_thread_spawn(call_one, &c[i], &c[i].thread))
			return n;
	}
	for (unsigned i = 0; i < n; i++) {
		(void)!nu_thread_join(c[i].thread);
		if (c[i].ret)
			printf("call %u: %s\n", c[i].i, nu_strerror(c[i].ret));
		failed += c[i].ret != 0;
	}
	free(c);
	return failed;
}

/* ---- the main proclet ---- */

static struct agent_ref agents[NODES];

/* Segments of 1 TiB until there are no more, then of half of that, and so on: in the end not one of 1 MiB is left. */
static void all_segments(void)
{
	enum { MANY = 512 };
	struct sink_ref *s = calloc(MANY, sizeof(*s)), small;
	struct nu_options o = {.node = NU_NODE(1)};
	unsigned n = 0, wrong = 0;
	uint64_t end;
	int ret = 0;

	for (o.capacity_bytes = MIB << 20; o.capacity_bytes >= MIB; o.capacity_bytes /= 2) {
		while (n < MANY && !(ret = sink_create(&o, &s[n])))
			n++;
		CHECK_IS(ret, -ENOMEM);
	}
	CHECK_MSG(n > NODES && n < MANY, "%u segments", n);
	printf("     %u segments are all there is\n", n);
	o.capacity_bytes = MIB;
	CHECK_IS(sink_create(&o, &small), -ENOMEM);
	for (unsigned i = 0; i < n; i++)
		CHECK_IS(sink_wrong(s[i], 0, &wrong), 0);
	CHECK_IS(check_move(s[0].ref, 2), 0); /* needs none */
	CHECK_IS(sink_ref_put(&s[--n]), 0);
	/* It is free when its nodes have confirmed that nothing is left of it. */
	for (end = nu_now_us() + BOUND_US; (ret = sink_create(&o, &small)) == -ENOMEM && nu_now_us() < end;)
		nu_sleep_us(STEP_US);
	CHECK_IS(ret, 0);
	CHECK_IS(sink_wrong(small, 0, &wrong), 0);
	CHECK_IS(sink_ref_put(&small), 0);
	while (n)
		CHECK_IS(sink_ref_put(&s[--n]), 0);
	free(s);
	check_left(NODES);
	/* All of it has come together again. */
	o.capacity_bytes = MIB << 20;
	for (end = nu_now_us() + BOUND_US; (ret = sink_create(&o, &small)) == -ENOMEM && nu_now_us() < end;)
		nu_sleep_us(STEP_US);
	CHECK_IS(ret, 0);
	CHECK_IS(sink_ref_put(&small), 0);
	check_left(NODES);
}

#define HELD_MIB  64u /* NU_HELD_BYTES_MAX */
#define REMOTE	  100u
#define LOCAL	  30u
#define EXTRA_MIB 48u /* what lies in the wire's queues and rings, and in the local callers' hands */

struct journey {
	struct sink_ref sink;
	int ret;
};

static void travel(void *arg)
{
	struct journey *j = arg;

	j->ret = nu_migrate(j->sink.ref, 2);
}

static bool is_stopped(int pid)
{
	char path[64], line[256];
	const char *state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	state = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	if (f)
		fclose(f);
	return state && state[1] && state[2] == 'T';
}

static uint64_t sent_by_me(void)
{
	struct nu_stats s;

	return nu_stats(0, &s) ? 0 : s.calls_sent;
}

/*
 * The destination stands still in the middle of a move; calls of 1 MiB from node 0, and of the source itself, come for
 * what moves. The source holds so many; the others are tried again until there is room. @rules: how the move ends.
 */
static void hold(const char *rules, int want, unsigned at)
{
	struct agent_call_all_future near, far;
	struct journey j = {.ret = 1};
	struct nu_thread *t;
	uint64_t end = nu_now_us() + BOUND_US, held = 0, most = 0, mib = 0, before = 0, sent;
	unsigned wrong = 0;
	int pid = 0, ret = -1;

	CHECK_IS(sink_create(&(struct nu_options){.node = NU_NODE(1)}, &j.sink), 0);
	CHECK_IS(agent_pid(agents[2], &pid), 0);
	CHECK_IS(agent_libc_mib(agents[1], &before), 0);
	CHECK_IS(agent_arm(agents[2], nu_str(rules), &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(nu_thread_spawn(travel, &j, &t), 0);
	while (!is_stopped(pid) && nu_now_us() < end)
		nu_sleep_us(STEP_US);
	CHECK(is_stopped(pid));
	sent = sent_by_me();
	CHECK_IS(agent_call_all_async(agents[0], j.sink.ref.id, 0, REMOTE, &far), 0);
	CHECK_IS(agent_call_all_async(agents[1], j.sink.ref.id, REMOTE, LOCAL, &near), 0);
	/* Until it is full, and calls have been refused for it: then they are sent again, as what counts them shows. */
	while ((most + 2 < HELD_MIB || sent_by_me() - sent < 3 * REMOTE) && nu_now_us() < end) {
		CHECK_IS(agent_held(agents[1], &held), 0);
		most = held > most ? held : most;
		nu_sleep_us(STEP_US);
	}
	CHECK_IS(agent_libc_mib(agents[1], &mib), 0);
	CHECK_MSG(most + 2 >= HELD_MIB && most <= HELD_MIB, "%lu calls of 1 MiB are held",
		  (unsigned long)most);
	CHECK_MSG(mib <= before + HELD_MIB + EXTRA_MIB, "%lu MiB, %lu before", (unsigned long)mib,
		  (unsigned long)before);
	printf("     %lu calls of 1 MiB held, %lu MiB more, %lu calls sent\n", (unsigned long)most,
	       (unsigned long)(mib - before), (unsigned long)(sent_by_me() - sent));
	CHECK_IS(kill(pid, SIGCONT), 0);
	CHECK_IS(nu_thread_join(t), 0);
	CHECK_IS(j.ret, want);
	CHECK_IS(agent_call_all_wait(&far, &wrong), 0);
	CHECK_IS(wrong, 0);
	CHECK_IS(agent_call_all_wait(&near, &wrong), 0);
	CHECK_IS(wrong, 0);
	CHECK_IS(sink_wrong(j.sink, REMOTE + LOCAL, &wrong), 0);
	CHECK_MSG(!wrong, "%u calls were not run once", wrong);
	CHECK_IS(nu_locate(j.sink.ref), at);
	CHECK_IS(agent_disarm(agents[2], &ret), 0);
	CHECK_IS(agent_held(agents[1], &held), 0);
	CHECK_IS(held, 0);
	CHECK_IS(sink_ref_put(&j.sink), 0);
	check_left(NODES);
}

static void held_and_moved(void)
{
	hold("move.reading#1:stop", 0, 2);
}

static void held_and_undone(void)
{
	hold("move.reading#1:stop;move.read#1:error=5", -EIO, 1);
}

static int test_main(int argc, char **argv)
{
	for (unsigned i = 0; i < NODES; i++)
		CHECK_IS(agent_create(&(struct nu_options){.node = NU_NODE(i), .pinned = true}, &agents[i]),
			 0);
	if (argc < 2)
		CHECK_RUN(all_segments);
	CHECK_RUN(held_and_moved);
	CHECK_RUN(held_and_undone);
	return check_done();
}

CHECK_PROGRAM(test_main)
