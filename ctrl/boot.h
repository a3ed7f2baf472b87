/* SPDX-License-Identifier: MIT */
/*
 * How a node comes to be and hears of the others: the launcher execs the program once, libnu's constructor forks the
 * nodes before main() (so that all have one layout under kernel ASLR), and each keeps a socket to the launcher. boot.c
 */
#pragma once

#include "core/core.h"

struct nu_boot_options { /* from nu_launch through the environment and the socket */
	unsigned cores;
	size_t mem_bytes;
	char reader[16], transport[64];
	char rdma[256];	  /* nu_rdma_options_parse() */
	char address[64]; /* numeric; where other hosts reach this one; "": there are none */
	uint8_t secret[32];
};
extern struct nu_boot_options nu_boot_options;

/* What the launcher tells a node later. Called on the control kernel thread (a foreign one: no user-level thread). */
struct nu_boot_ops {
	void (*node_dead)(unsigned node);
	/* The job is over: leave with @status. */
	void (*end)(int status);
	/* An operator's request (nu_ctl): answer it with nu_boot_ctl_reply(), from any kernel thread, exactly once. */
	void (*ctl)(uint64_t request, const char *command);
};

/* True in a node of a launched job. Without a launcher nu_node is set up for one node by this too. */
bool nu_boot_launched(void);
/* Every node gives @mine and gets everybody's: *all_p[n] (malloc'ed) with lens_p[n] bytes. Blocks; -ETIMEDOUT after 30 s,
 * -EHOSTDOWN the launcher is gone or a node died. Before nu_boot_control_start(). May be called several times. */
int __must_check nu_boot_exchange(const void *mine, size_t len, void *all[NU_MAX_NODES],
				  size_t lens[NU_MAX_NODES]);
/* Refuse to go on: the launcher prints the reason and ends the job. */
void nu_boot_fail(const char *reason);
int __must_check nu_boot_control_start(const struct nu_boot_ops *ops);
/* What the others use is about to be taken down: the control thread passes on no deaths and no operator's requests any more
 * (those are answered with -ESHUTDOWN), and passes none on just now when this returns. */
void nu_boot_leave(void);
/* Node 0: main returned; the launcher ends the job on every node (nu_boot_ops.end). In a one-node job calls end itself. */
void nu_boot_main_done(int status);
/* node_init runs here: should it not come to an end, the launcher knows why the others wait. */
void nu_boot_init_runs(bool on);
/* The program has called exit(@status) here: the launcher ends the job, or, where nodes may die, lets this one go. */
void nu_boot_exit_called(int status);
void nu_boot_ctl_reply(uint64_t request, int status, const char *text);
