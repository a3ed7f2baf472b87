/* SPDX-License-Identifier: MIT */
/*
 * "All threads wait for each other": node 0 asks the others when it has been idle itself for a second. The job is at its end
 * if in two successive rounds every node was asleep (asleep.c), nothing had begun there from one to the other, and the calls
 * that are waited for are those that are served. Then at the moment between the rounds all slept and nothing was under way:
 * whatever could still happen would have to be begun by what sleeps. tests/abuse/deadlock_model.py tries all orders of it.
 *
 * An idle node does nothing for it but to compare a counter four times a second; one that is busy is never looked at.
 */
#include "ctrl/asleep.h"

#include <stdlib.h>

#define QUIET_TICKS  4u	 /* of the node's report loop, a second: then it is looked at */
#define REST_TICKS   16u /* at most, between two looks in vain */
#define OWN_SWITCHES 12u /* that the runtime itself may need in a tick */
#define ASK_US	     500000u
#define SAY_US	     5000000u

static struct {
	bool off;
	uint64_t switches;
	atomic_uint quiet;	 /* ticks that this node has been idle for */
	_Atomic uint64_t served; /* calls of the methods below, which are no activity */
	/* Node 0 */
	unsigned rest, rests;
	bool again; /* the last round found all asleep */
	struct nu_asleep last[NU_MAX_NODES];
} watch;

/* ---- on each node ---- */

static bool is_quiet(void)
{
	return !watch.off && atomic_load(&watch.quiet) >= QUIET_TICKS;
}

struct asleep_args {
	uint64_t say;
};

static void asleep_run(void *self, void *args, void *result, struct nu_out *out)
{
	uint64_t served = atomic_fetch_add(&watch.served, 1);
	struct nu_asleep *a = result;

	*a = (struct nu_asleep){0};
	if (((struct asleep_args *)args)->say)
		nu_waiting_say();
	else if (is_quiet())
		nu_asleep_look(a, served);
}
__attribute__((section("nu_methods"), used)) static const struct nu_method asleep_method = {
	.class_name = "node",
	.name = "asleep",
	.run = asleep_run,
	.args_bytes = sizeof(struct asleep_args),
	.result_bytes = sizeof(struct nu_asleep),
	.result_kind = NU_RESULT_FIXED,
	.magic = NU_METHOD_MAGIC,
	.cls = &nu_node_class,
};

static int ask(unsigned node, bool say, struct nu_asleep *a)
{
	struct asleep_args args = {say};
	int err;

	if (node == nu_node.self) {
		if (say)
			nu_waiting_say();
		else
			nu_asleep_look(a, atomic_load(&watch.served));
		return 0;
	}
	(void)nu_deadline_set_us(say ? SAY_US : ASK_US);
	err = nu_call((struct nu_ref){nu_id_of_node(node)}, &asleep_method, &args, a);
	(void)nu_deadline_set_us(0);
	return err;
}

/* ---- node 0 ---- */

/* One round. Whether all are asleep, and nothing is under way; *same_p: as they were in the last. */
static bool watch_round(bool *same_p)
{
	uint64_t waits = 0, serves = 0, threads = 0;

	*same_p = watch.again;
	for (unsigned n = 0; n < nu_node.count; n++) {
		struct nu_asleep a, *last = &watch.last[n];

		if (ask(n, false, &a) || !a.asleep)
			return false;
		*same_p &= last->waits == a.waits && last->serves == a.serves && last->threads == a.threads &&
			   last->activity == a.activity;
		*last = a;
		waits += a.waits;
		serves += a.serves;
		threads += a.threads;
	}
	return waits == serves && threads;
}

static void say_deadlock(void)
{
	struct nu_asleep ignored;

	nu_err("deadlock: every thread of the job waits for another, and nothing else is to come "
	       "(NU_DEADLOCK=0 "
	       "turns this report off)");
	for (unsigned n = 0; n < nu_node.count; n++)
		(void)!ask(n, true, &ignored);
}

bool nu_deadlock_tick(void)
{
	uint64_t switches = nu_stat_sum(NU_STAT_SWITCHES);
	bool busy = switches - watch.switches > OWN_SWITCHES, same;

	watch.switches = switches;
	if (busy || watch.off) {
		atomic_store(&watch.quiet, 0);
		watch.again = false;
		watch.rest = watch.rests = 0;
		return false;
	}
	atomic_fetch_add(&watch.quiet, 1);
	if (nu_node.self != 0 || !is_quiet() || watch.rest-- > 0)
		return false;
	watch.rest = 0;
	if (!watch_round(&same)) {
		watch.again = false;
		watch.rests = !watch.rests		 ? QUIET_TICKS
			      : watch.rests < REST_TICKS ? 2 * watch.rests
							 : REST_TICKS;
		watch.rest = watch.rests;
		return false;
	}
	watch.again = true;
	if (!same)
		return false;
	watch.off = true; /* said once */
	say_deadlock();
	return true;
}

void nu_deadlock_init(void)
{
	const char *env = getenv("NU_DEADLOCK");

	watch.off = env && !atoi(env);
	nu_asleep_except(nu_thread_self());
}
