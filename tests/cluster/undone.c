/* SPDX-License-Identifier: MIT */
/*
 * Moves that the destination gives up after it has made room: answers that are given there for the proclet meanwhile wait
 * for it, and must go to where it stays.
 */
#include "check.h"

#include <nu/nu_testing.h>

#define CALLERS	    8
#define MOVES	    300
#define MOVE_ERR    5 /* EIO */
#define HELD_MAX_US 20000000u

/* Pinned on node 1: answers after a moment, and has moves to there fail. */
struct server {
	uint64_t served;
};
NU_CLASS(server);
NU_METHOD(server, serve, val(uint64_t), val(uint64_t, n));
NU_METHOD(server, fail_moves, val(int), val(int, on));
NU_METHOD(server, held, val(uint64_t));

struct client {
	bool stop;
	uint64_t done, wrong;
	struct nu_thread *threads[CALLERS];
	struct server_ref server;
};
NU_CLASS(client, ref(server, server));
NU_METHOD(client, start, val(int));
NU_METHOD(client, done, val(uint64_t));
NU_METHOD(client, finish, val(uint64_t));

int server_init(struct server *s)
{
	return 0;
}

uint64_t server_do_serve(struct server *s, uint64_t n)
{
	nu_sleep_us(n % 4 * 20);
	return n + 1;
}

int server_do_fail_moves(struct server *s, int on)
{
	char rules[64];

	snprintf(rules, sizeof(rules), "move.read:error=%d;move.read:delay=300", MOVE_ERR);
	return nu_testing_fault(on ? rules : NULL);
}

uint64_t server_do_held(struct server *s)
{
	struct nu_stats stats;

	return nu_stats(nu_node_self(), &stats) ? 0 : stats.calls_held;
}

int client_init(struct client *c, struct server_ref server)
{
	c->server = server; /* counted for us while we hold it */
	return server_ref_get(server);
}

static void call_on(void *arg)
{
	struct client *c = arg;

	for (uint64_t n = 0; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); n++) {
		uint64_t got = 0;
		int ret = server_serve(c->server, n, &got);

		if (ret || got != n + 1)
			__atomic_add_fetch(&c->wrong, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&c->done, 1, __ATOMIC_RELAXED);
	}
}

int client_do_start(struct client *c)
{
	int ret = 0;

	for (unsigned i = 0; i < CALLERS && !ret; i++)
		ret = nu_thread_spawn(call_on, c, &c->threads[i]);
	return ret;
}

uint64_t client_do_done(struct client *c)
{
	return __atomic_load_n(&c->done, __ATOMIC_RELAXED);
}

uint64_t client_do_finish(struct client *c)
{
	__atomic_store_n(&c->stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < CALLERS; i++)
		nu_thread_join(c->threads[i]);
	(void)!server_ref_put(&c->server);
	return c->wrong;
}

static void answers_reach_a_caller_that_stays(void)
{
	uint64_t held = 0, more = 0, end = nu_now_us() + HELD_MAX_US, wrong = 1;
	unsigned tries = 0;
	int status = -1;
	NU_SCOPED(server, server);
	NU_SCOPED(client, client);

	CHECK_IS(server_create(&(struct nu_options){.node = NU_NODE(1), .pinned = true}, &server), 0);
	CHECK_IS(client_create(&(struct nu_options){.node = NU_NODE(0)}, server, &client), 0);
	CHECK_IS(client_start(client, &status), 0);
	CHECK_IS(status, 0);
	CHECK_IS(server_fail_moves(server, 1, &status), 0);
	CHECK_IS(status, 0);
	CHECK_IS(server_held(server, &held), 0);
	/* At least some of the answers must have come upon an arrival. */
	while (tries < MOVES || (more - held < CALLERS && nu_now_us() < end)) {
		int ret = nu_migrate(client.ref, 1);

		CHECK_MSG(ret == -MOVE_ERR || ret == -EBUSY || ret == -ETIMEDOUT, "move: %s",
			  nu_strerror(ret));
		CHECK_IS(nu_locate(client.ref), 0);
		tries++;
		CHECK_IS(server_held(server, &more), 0);
	}
	CHECK_MSG(more > held, "no answer was held in %u moves", tries);
	CHECK_IS(server_fail_moves(server, 0, &status), 0);
	CHECK_IS(client_finish(client, &wrong), 0);
	CHECK_IS(wrong, 0);
	CHECK_IS(nu_migrate(client.ref, 1), 0);
	CHECK_IS(nu_locate(client.ref), 1);
}

static int undone_main(int argc, char **argv)
{
	CHECK_RUN(answers_reach_a_caller_that_stays);
	return check_done();
}
CHECK_PROGRAM(undone_main)
