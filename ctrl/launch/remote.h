/* SPDX-License-Identifier: MIT */
/*
 * Hosts behind agents: remote.c the talk with one, shell.c the remote shell that starts it, start.c what each is given.
 */
#pragma once

#include "agent.h"
#include "host.h"
#include "hosts.h"

struct remote {
	struct host host;
	const struct hosts *hosts;
	const struct host_spec *spec;
	pid_t shell; /* 0: it is gone */
	int err_fd;  /* its stderr; -1: at its end */
	char err_line[512];
	size_t err_len;	    /* of a line that has begun */
	char last_err[512]; /* the last whole one */
	struct conn conn;
	char window[16]; /* the last bytes before AGENT_MAGIC */
	bool spoke;	 /* it has come */
	char *facts;	 /* NULL: it has not said its hello yet */
	bool started, gone, finishing, over, lost;
	int64_t created_ms, heard_ms, beat_ms, closed_ms, over_ms;
	size_t input_under_way;
	bool input_ended;
	size_t output_taken; /* not yet acknowledged */
	char address[64];
};

/* Starts the remote shell. NULL, said. */
struct remote *remote_create(struct job *job, const struct hosts *hosts, const struct host_spec *spec);

/* ---- shell.c ---- */

/* Runs the agent of @r there: pipes to and from it in @r. 0 or -errno. */
int __attribute__((warn_unused_result)) shell_start(struct remote *r);
/* What runs it, for messages. */
const char *shell_name(const struct remote *r);
/* nu_launch's own bytes, which a shell there waits for. */
void shell_send_agent(struct remote *r);
/* What is in its stderr. */
void shell_read_err(struct remote *r);

/* ---- start.c ---- */

/* All have said hello: tells each what to start, or ends the job with the reason said. */
void start_all(struct job *job);
/* The bytes of the program for @r. */
void start_copy(struct remote *r);
/* The value of @key in the facts of @r, copied to @value: 0th, 1st... False: there are no more. */
bool remote_fact(const struct remote *r, const char *key, unsigned nth, char *value, size_t size);
static inline struct remote *remote_of(struct host *h)
{
	return (struct remote *)h; /* the first member */
}
