/* SPDX-License-Identifier: MIT */
/*
 * The nodes of a job on this machine: the program that was started here, the nodes that it forked, their sockets and
 * pipes, their deaths. The launcher has one for a job on its own machine, an agent has one for its host's share; what
 * is made of what happens is their affair.
 */
#pragma once

#include "launch.h"

struct crew;
struct crew_ops {
	void (*forked)(struct crew *c); /* the members are children of ours now, and their pids known */
	void (*message)(struct crew *c, unsigned i, const struct nu_boot_head *head, const char *payload);
	void (*exited)(struct crew *c, unsigned i, int wait_status);
	void (*ended)(struct crew *c, int wait_status); /* the program, without having started its nodes */
	void (*fail)(struct crew *c, const char *text);
	/* @stream 0 stdout, 1 stderr; @len_bytes 0: it is at its end */
	void (*output)(struct crew *c, unsigned i, unsigned stream, const char *data, size_t len_bytes);
	bool (*may_output)(struct crew *c, unsigned i, unsigned stream);
};

struct member {
	struct crew *crew;
	pid_t pid;
	struct conn conn;
	int output[2]; /* pipes of stdout and stderr; -1: at their ends */
	bool alive;
};

struct crew {
	const struct crew_ops *ops;
	void *arg;
	pid_t program; /* our child; the seed, or something that runs it */
	bool program_gone;
	bool owned;  /* the members are our children */
	bool killed; /* before they were */
	struct conn seed;
	pid_t seed_pid;
	int seed_pidfd;
	struct member *members;
	unsigned count, alive;
};

/* Takes over what spawn_program() has made. */
void crew_init(struct crew *c, const struct crew_ops *ops, void *arg, unsigned count,
	       const struct spawned *s);
#define CREW_POLL(count) (2 + 3 * (count))
/* Enters CREW_POLL(count) descriptors. */
void crew_poll(struct crew *c, struct pollfd *p);
void crew_dispatch(struct crew *c, const struct pollfd *p);
/* A child of ours is gone; false: none of this crew's. */
bool crew_reaped(struct crew *c, pid_t pid, int wait_status);
void crew_send(struct crew *c, unsigned i, uint32_t type, int32_t arg, uint64_t id, struct shared *s);
void crew_kill(struct crew *c, unsigned i, int signo);
/* Everybody, the program too; before they are our children they end by the closing of their sockets. */
void crew_kill_all(struct crew *c, int signo);
/* Nothing of it runs. */
bool crew_gone(const struct crew *c);
/* Passes on what output is left; false: there is more than may be passed on now. */
bool crew_drain(struct crew *c);
/* What nodes started and left behind is ours, since we are the subreaper. */
void crew_kill_orphans(void);
