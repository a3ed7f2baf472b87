/* SPDX-License-Identifier: MIT */
/*
 * A host of a job, as job.c sees it: the launcher's own (here.c), or one behind an agent (remote.c). Both tell job.c what
 * happens there through the job_on_ functions.
 */
#pragma once

#include "launch.h"

struct host;
struct host_ops {
	void (*send)(struct host *h, struct node *n, uint32_t type, int32_t arg, uint64_t id,
		     struct shared *s);
	void (*kill_nodes)(struct host *h, struct node *n,
			   int signo); /* @n NULL: everything of the job there */
	bool (*gone)(struct host *h);  /* nothing of the job runs there */
	/* All nodes are gone: ends what they left behind and passes on the last output; true when that is done. */
	bool (*finish)(struct host *h);
	void (*poll)(struct host *h, struct pollfd *p); /* enters h->npoll descriptors */
	void (*dispatch)(struct host *h, const struct pollfd *p);
	int64_t (*timers)(struct host *h, int64_t now_ms);	    /* acts; when next, or INT64_MAX */
	bool (*reaped)(struct host *h, pid_t pid, int wait_status); /* a child of ours is gone: whether its */
};

struct host {
	const struct host_ops *ops;
	struct job *job;
	const char *name; /* NULL: this machine */
	unsigned first, count;
	unsigned npoll;
	bool forked; /* its nodes wait for GO */
};

/* The launcher's own machine, with all nodes of the job. */
struct host *here_create(struct job *job, const struct spawned *s, unsigned count);

/* ---- what hosts say to job.c ---- */
void job_on_forked(struct host *h, const pid_t *pids);
void job_on_message(struct node *n, const struct nu_boot_head *head, const char *payload);
/* @len_bytes 0: at its end */
void job_on_output(struct node *n, unsigned stream, const char *data, size_t len_bytes);
bool job_may_output(struct node *n, unsigned stream);
void job_on_exit(struct node *n, int wait_status);
/* The host does not answer any more; the node is as good as dead. */
void job_on_lost(struct node *n);
/* The program is gone without having started its nodes. */
void job_on_program_end(struct host *h, int wait_status);
void job_on_fail(struct host *h, const char *text);
