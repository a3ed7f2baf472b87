/* SPDX-License-Identifier: MIT */
/* The launcher's own machine as the only host of a job. */
#include "crew.h"
#include "host.h"

#include <stdlib.h>

struct here {
	struct host host;
	struct crew crew;
	bool finishing;
};

static struct here *here_of(struct host *h)
{
	return (struct here *)h; /* the first member */
}

static struct node *node_of(struct crew *c, unsigned i)
{
	struct here *h = c->arg;
	return &h->host.job->nodes[h->host.first + i];
}

/* ---- from the crew ---- */

static void here_on_forked(struct crew *c)
{
	struct here *h = c->arg;
	pid_t *pids = launch_alloc(c->count * sizeof(*pids));
	for (unsigned i = 0; i < c->count; i++)
		pids[i] = c->members[i].pid;
	job_on_forked(&h->host, pids);
	free(pids);
}

static void here_on_message(struct crew *c, unsigned i, const struct nu_boot_head *head, const char *payload)
{
	job_on_message(node_of(c, i), head, payload);
}

static void here_on_exited(struct crew *c, unsigned i, int wait_status)
{
	job_on_exit(node_of(c, i), wait_status);
}

static void here_on_ended(struct crew *c, int wait_status)
{
	struct here *h = c->arg;
	job_on_program_end(&h->host, wait_status);
}

static void here_on_fail(struct crew *c, const char *text)
{
	struct here *h = c->arg;
	job_on_fail(&h->host, text);
}

static void here_on_output(struct crew *c, unsigned i, unsigned stream, const char *data, size_t len_bytes)
{
	job_on_output(node_of(c, i), stream, data, len_bytes);
}

static bool here_may_output(struct crew *c, unsigned i, unsigned stream)
{
	return job_may_output(node_of(c, i), stream);
}

static const struct crew_ops crew_ops = {here_on_forked, here_on_message, here_on_exited, here_on_ended,
					 here_on_fail,	 here_on_output,  here_may_output};

/* ---- from the job ---- */

static void here_send(struct host *h, struct node *n, uint32_t type, int32_t arg, uint64_t id,
		      struct shared *s)
{
	crew_send(&here_of(h)->crew, n->number - h->first, type, arg, id, s);
}

static void here_kill(struct host *h, struct node *n, int signo)
{
	if (n)
		crew_kill(&here_of(h)->crew, n->number - h->first, signo);
	else
		crew_kill_all(&here_of(h)->crew, signo);
}

static bool here_gone(struct host *h)
{
	return crew_gone(&here_of(h)->crew);
}

static bool here_finish(struct host *h)
{
	struct here *here = here_of(h);
	if (!here->finishing)
		crew_kill_orphans();
	here->finishing = true;
	return crew_drain(&here->crew);
}

static void here_poll(struct host *h, struct pollfd *p)
{
	crew_poll(&here_of(h)->crew, p);
}

static void here_dispatch(struct host *h, const struct pollfd *p)
{
	crew_dispatch(&here_of(h)->crew, p);
}

static int64_t here_timers(struct host *h, int64_t now_ms)
{
	(void)h;
	(void)now_ms;
	return INT64_MAX;
}

static bool here_reaped(struct host *h, pid_t pid, int wait_status)
{
	return crew_reaped(&here_of(h)->crew, pid, wait_status);
}

struct host *here_create(struct job *job, const struct spawned *s, unsigned count)
{
	static const struct host_ops ops = {here_send, here_kill,     here_gone,   here_finish,
					    here_poll, here_dispatch, here_timers, here_reaped};
	struct here *h = launch_alloc(sizeof(*h));
	*h = (struct here){.host = {.ops = &ops, .job = job, .count = count, .npoll = CREW_POLL(count)}};
	crew_init(&h->crew, &crew_ops, h, count, s);
	return &h->host;
}
