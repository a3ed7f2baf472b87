/* SPDX-License-Identifier: MIT */
/*
 * What a launcher and its agents say to each other, over the standard input and output of a remote shell: nothing
 * listens, the secret is in no argument or environment, and the end of the connection is the end of the agent and of
 * its nodes. Messages between launcher and nodes pass as they are, with the node's number in their heads; the others have
 * types of their own.
 */
#pragma once

#include "ctrl/boot_proto.h"

#include <stddef.h>

/* The agent's first word: what a login shell may print before it is skipped. */
#define AGENT_MAGIC "\001nu-agent\002\n"
/* Instead, with --copy: nu_launch's own bytes, please. */
#define AGENT_COPY_MAGIC   "\001nu-need-\002\n"
#define AGENT_VERSION	   (NU_BOOT_VERSION * 1000 + 1)
#define AGENT_ALL	   UINT32_MAX
#define AGENT_BEAT_MS	   1000
#define AGENT_SILENCE_MS   10000
#define AGENT_OUTPUT_BYTES (1u << 20) /* of nodes' output under way */
#define AGENT_INPUT_BYTES  (256u << 10)
#define AGENT_CHUNK_BYTES  65536u

enum agent_type {
	AGENT_HELLO = 64, /* agent: arg AGENT_VERSION; facts of the host, "KEY VALUE" lines */
	AGENT_START,	  /* launcher: struct agent_start, then strings: directory, arguments, environment */
	AGENT_NEED,	  /* agent: the program's file, please */
	AGENT_FILE,	  /* launcher: some of it; without payload: that was all */
	AGENT_REFUSED,	  /* agent: the program cannot be started; arg the job's status */
	AGENT_FORKED,	  /* agent: int32_t pids */
	AGENT_ENDED,	  /* agent: the program left without having started nodes; arg wait status */
	AGENT_FAILED,	  /* agent: what the program says before it ends the job */
	AGENT_EXITED,	  /* agent: node; arg wait status */
	AGENT_OUTPUT,	  /* agent: node, arg 0 stdout, 1 stderr; without payload: at its end */
	AGENT_INPUT,	  /* launcher: for node 0's stdin; without payload: at its end */
	AGENT_TAKEN,	  /* either: arg bytes of output, or input, have been taken */
	AGENT_SAY,	  /* agent: text for the user */
	AGENT_KILL,	  /* launcher: node or AGENT_ALL, arg signal */
	AGENT_GONE,	  /* agent: nothing of the job runs there */
	AGENT_FINISH,	  /* launcher: end what the nodes left behind, pass the last output on */
	AGENT_BYE,	  /* agent: done */
	AGENT_ALIVE,	  /* either, each AGENT_BEAT_MS */
};

struct agent_start {
	struct nu_boot_hello hello;
	uint32_t argc, envc;
	uint32_t has_stdin; /* node 0 is there, and reads what the launcher reads */
	uint32_t may_copy;
	uint32_t silence_ms; /* 0: for ever */
	uint32_t spare;
	char id[96]; /* of the program's file: buildid.c; "": unknown */
};

/* nu_launch --agent */
int agent_main(void);
void agent_say(const char *line, size_t len);
/* Facts for AGENT_HELLO, malloc'ed. facts.c */
char *agent_facts(void);
