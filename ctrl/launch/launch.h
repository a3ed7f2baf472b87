/* SPDX-License-Identifier: MIT */
/*
 * nu_launch's parts: conn.c framed streams that never block; writer.c its own stdout and stderr; relay.c nodes' output
 * by lines; spawn.c the one exec; crew.c the nodes of one machine; job.c the job's life, with hosts (host.h) that are
 * here.c or, behind an agent (agent.c), remote.c; hosts.c which hosts; operator.c nu_ctl's socket; main.c options.
 */
#pragma once

#include "ctrl/boot_proto.h"

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int64_t launch_now_ms(void);
/* One line "nu_launch: ..." on stderr, between whole lines of the nodes' output. */
void launch_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Lines go there instead. */
void launch_say_to(void (*fn)(const char *line, size_t len));
/* malloc or the end: the launcher's death ends the nodes too. */
void *launch_alloc(size_t len_bytes);

/* ---- signals.c: what is inherited ---- */

/* In a process of its own: nothing is ignored and nothing blocked from here on. */
void signals_reset(void);
/* The launcher: the same, but what it was started to ignore of a terminal's signals stays ignored. */
void signals_begin(void);
bool signals_ignores(int signo);

/* ---- conn.c ---- */

/* Bytes that several connections send, freed by the last. */
struct shared {
	unsigned refs;
	size_t len_bytes;
	unsigned char data[];
};
struct shared *shared_new(size_t len_bytes);
struct shared *shared_copy(const void *bytes, size_t len_bytes); /* NULL for no bytes */
void shared_put(struct shared *s);

struct out;
struct conn {
	int fd;	    /* -1: closed */
	int out_fd; /* the same, but for pipes */
	bool piped;
	bool heard; /* set whenever something came; the owner clears it */
	struct nu_boot_head head;
	size_t head_have, have;
	char *payload; /* with a NUL after it */
	uint32_t max_bytes;
	struct out *first, **last_p;
	size_t first_sent, queued_bytes;
};
/* Takes the payload's bytes for the call only. */
typedef void (*conn_fn)(void *arg, const struct nu_boot_head *head, const char *payload);

void conn_init(struct conn *c, int fd, uint32_t max_bytes);
void conn_init_pipes(struct conn *c, int in, int out, uint32_t max_bytes);
void conn_close(struct conn *c);
/* For sockets; with pipes, output is out_fd's. */
short conn_events(const struct conn *c);
/* There is something to read. */
bool conn_waiting(const struct conn *c);
/* Reads what is there and calls @fn for each message. False: the other end is gone or talks nonsense. */
bool conn_read(struct conn *c, conn_fn fn, void *arg);
/* Sends as much as goes; the rest waits for conn_flush(). Errors show up as an end of file later. */
void conn_send(struct conn *c, uint32_t type, int32_t arg, uint64_t id, const void *payload,
	       size_t len_bytes);
void conn_send_shared(struct conn *c, uint32_t type, int32_t arg, uint64_t id, struct shared *s);
void conn_send_node(struct conn *c, unsigned node, uint32_t type, int32_t arg, uint64_t id, struct shared *s);
/* Without a head. */
void conn_send_bare(struct conn *c, struct shared *s);
void conn_flush(struct conn *c);

/* ---- writer.c: a thread, since stdout may block and must not be made non-blocking (others share it) ---- */

struct relay;
struct writer {
	int fd, event_fd; /* event_fd: written when the queue has shrunk or failed */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	char *fill;
	size_t fill_len, fill_cap;
	size_t draining; /* bytes of an earlier fill that are being written */
	int error;	 /* errno of the first failed write; later output is dropped */
	/* relay.c's: whose line is begun and not ended, and when the last of it was passed on. The loop's thread alone. */
	const struct relay *open;
	int64_t opened_ms;
};
#define WRITER_HIGH_BYTES ((size_t)4 << 20) /* above: the nodes' pipes are not read */

int writer_start(struct writer *w, int fd, int event_fd);
void writer_push(struct writer *w, const char *data, size_t len_bytes);
size_t writer_queued(struct writer *w);
int writer_error(struct writer *w);

/* ---- relay.c ---- */

/* One node's stdout or stderr. */
struct relay {
	struct writer *to;
	char prefix[16];
	char *line; /* what waits: a line that is begun, or all that comes while another's is */
	size_t len, cap;
	int64_t held_ms; /* since when */
	bool returned;	 /* the last byte passed on was a carriage return */
};

void relay_init(struct relay *r, struct writer *to, int node); /* node -1: no prefix */
void relay_feed(struct relay *r, const char *data, size_t len);
/* Passes on what has waited long enough. Return: when it is to be called again, INT64_MAX: nothing waits. */
int64_t relay_timer(struct relay *r, int64_t now_ms);
/* The last, unended line is passed on; with prefixes it is ended. */
void relay_close(struct relay *r);

/* ---- spawn.c ---- */

struct options {
	unsigned nodes, cores;
	size_t mem_bytes;
	char reader[16], transport[64], rdma[256];
	bool keep_going, no_prefix;
	double time_out_s; /* 0: none */
	char **argv;
	struct hosts *hosts; /* hosts.h; NULL: this machine alone */
};

/* What is started, and what its constructor is told. */
struct spawn {
	struct nu_boot_hello hello;
	char **argv;
	int program_fd; /* of the program's file; -1: argv[0] is looked for */
	int stdin_fd;	/* -1: ours */
};
struct spawned {
	pid_t pid;
	int seed;	 /* socket to the constructor */
	int *nodes;	 /* control sockets */
	int (*pipes)[2]; /* stdout and stderr of each, to read */
};
/* The rest of a hello of @o, for @here nodes from @first. */
void spawn_hello(struct nu_boot_hello *hello, const struct options *o);
/* Starts the program. 0, or the launcher's exit status with the cause said: 127 not found, 126 cannot be run, 1. */
int spawn_program(const struct spawn *how, struct spawned *s_p);

/* ---- layout.c: the same layout in processes that are not forked from one ---- */

/* Chooses a layout for the whole job. 0 or -errno. */
int __attribute__((warn_unused_result)) layout_choose(struct nu_boot_hello *hello);
/* What the program's constructor will put back. */
void layout_note(struct nu_boot_hello *hello);
/* In the child, before the exec: 0, or -errno with *@what_p what is forbidden. */
int __attribute__((warn_unused_result)) layout_apply(const struct nu_boot_hello *hello, int *what_p);
/* In its parent: waits for the exec and sets AT_RANDOM. 0, or -errno; the child has been killed. */
int __attribute__((warn_unused_result)) layout_finish(pid_t pid, const struct nu_boot_hello *hello);
const char *layout_forbidden(int what); /* and how to allow it */

/* ---- job.c ---- */

struct host;
struct node {
	unsigned number;
	struct job *job;
	struct host *host;
	pid_t pid;
	struct relay out, err;
	bool alive, dead, joined, ready, has_blob;
	bool lost;	 /* with its host */
	int64_t init_ms; /* in node_init since then; 0: it is not */
	bool init_said;
	int wait_status;
	struct shared *blob;
};

enum job_phase { JOB_BOOT, JOB_RUN, JOB_FINISH, JOB_OVER };

struct job {
	const struct options *options;
	enum job_phase phase;
	bool ending, killed, finishing, quiet;
	int status;
	int signals_seen;
	int64_t started_ms, warn_at_ms, time_out_at_ms, kill_at_ms, give_up_at_ms;
	const char *kill_why;

	struct host *hosts[NU_BOOT_NODES_MAX];
	unsigned nhosts;
	struct node *nodes;
	unsigned count, alive;
	bool any_joined;
	int early_status; /* of nodes that left before any joined */
	int round;
	struct writer out, err;
	int writer_event;
};

/* Nodes without hosts yet. */
void job_init(struct job *job, const struct options *o);
/* One more host, with its part of the nodes. */
void job_add_host(struct job *job, struct host *h);
void job_send(struct node *n, uint32_t type, int32_t arg, uint64_t id, const void *payload, size_t len_bytes);
/* The program has been started, and should be heard of soon. */
void job_expect_program(struct job *job);
void job_on_sigchld(struct job *job);
void job_on_signal(struct job *job, int signo);
void job_on_writer(struct job *job);
/* Acts on what is due; returns ms until the next thing is, or -1. */
int job_timers(struct job *job);
/* Every node is gone: passes the last output on. Moves to JOB_OVER when all is written. */
void job_finish(struct job *job);
/* @kill_why: what is said of a node that must be killed when @grace_ms are over; NULL: the end is not a normal one, and
 * nodes that do not listen yet are sent SIGTERM at once. */
void job_end(struct job *job, int status, int grace_ms, const char *kill_why);

/* ---- operator.c ---- */

#define OPERATORS_MAX 16
int operator_listen(void);	/* descriptor or -1, said */
bool operator_may_accept(void); /* false: for a while, for want of descriptors */
void operator_accept(struct job *job, int listener);
/* Enters the clients' descriptors; returns how many. The order is the one operator_dispatch() expects. */
unsigned operator_poll(struct pollfd *p);
void operator_dispatch(struct job *job, const struct pollfd *p, unsigned count);
void operator_answer(uint64_t request, int status, const char *text, size_t len_bytes);
void operator_node0_died(void);
int64_t operator_next_ms(void); /* when the next client is given up; INT64_MAX: none */
