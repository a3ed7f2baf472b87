/* SPDX-License-Identifier: MIT */
/*
 * What nu_launch, the nodes and nu_ctl say to each other: framed messages on stream sockets of one machine. Only the C
 * library is needed here, so that the tools stay small.
 *
 * The launcher execs the program once on each host, with NU_BOOT="VERSION:FD" naming a socket; in it wait HELLO and, as
 * ancillary data of FDS messages, three descriptors for each of the host's nodes: control socket, stdout pipe, stderr
 * pipe. The constructor forks the nodes, says FORKED, waits for RELEASE (the launcher then holds a pidfd of it) and
 * exits; its exit hands the nodes to the launcher, which says GO to each. On another host an agent stands in the
 * launcher's place (launch/agent.h).
 */
#pragma once

#include <stdint.h>

#define NU_BOOT_ENV	  "NU_BOOT"
#define NU_BOOT_VERSION	  4
#define NU_BOOT_NODES_MAX 256
#define NU_BOOT_BLOB_MAX  (1u << 20)  /* one node's part of an exchange */
#define NU_BOOT_TEXT_MAX  (16u << 20) /* an operator's answer; longer ones are cut */
#define NU_BOOT_ASK_MAX	  4096u	      /* an operator's command */
#define NU_BOOT_FDS_PER	  64u /* nodes whose descriptors come in one message (253 descriptors at most) */

enum nu_boot_type {
	NU_BOOT_HELLO = 1, /* launcher to seed: struct nu_boot_hello */
	NU_BOOT_FDS,	   /* launcher to seed: no payload; arg nodes, three descriptors each */
	NU_BOOT_FORKED,	   /* seed to launcher: int32_t pids, the seed's own first */
	NU_BOOT_RELEASE,   /* launcher to seed */
	NU_BOOT_GO,	   /* launcher to node: int32_t pids[count], 0 on other hosts */
	NU_BOOT_BLOB,	   /* node to launcher: its part of exchange number arg */
	NU_BOOT_ALL, /* launcher to node: for each node uint32_t length and bytes; id 1: failed, a node is dead */
	NU_BOOT_READY,	/* node to launcher: its control thread listens */
	NU_BOOT_DEAD,	/* launcher to node: node arg died */
	NU_BOOT_END,	/* launcher to node: leave with status arg */
	NU_BOOT_DONE,	/* node 0 to launcher: main returned arg */
	NU_BOOT_EXIT,	/* node to launcher: the program called exit(arg) there */
	NU_BOOT_FAIL,	/* seed or node to launcher: text; ends the job */
	NU_BOOT_ASK,	/* nu_ctl to launcher, launcher to node 0: a command, id is the request */
	NU_BOOT_ANSWER, /* node 0 to launcher, launcher to nu_ctl: status arg and text, id is the request */
	NU_BOOT_INIT,	/* node to launcher: arg 1 node_init begins there, 0 it is over */
};

struct nu_boot_head {
	uint32_t type;
	uint32_t len_bytes; /* of the payload that follows */
	int32_t arg;
	uint32_t node; /* between launcher and agents: whose message it is */
	uint64_t id;
};

struct nu_boot_hello {
	uint32_t version;
	uint32_t count;	      /* nodes of the job */
	uint32_t first, here; /* of them on this host */
	uint32_t hosts;
	int32_t launcher;   /* parent of the nodes on this host: the launcher or an agent */
	uint32_t cores;	    /* of each node on this host */
	uint32_t persona;   /* with chosen: what personality(2) said before */
	uint64_t mem_bytes; /* 0: each node takes its part of what core/ found */
	/* Several hosts: the layout was chosen by RLIMIT_STACK and AT_RANDOM; what the limit is to be. */
	uint64_t chosen, stack_soft, stack_hard;
	char reader[16];
	char transport[64];
	char rdma[256];
	char address[64]; /* of this host, for the others; "": there are none */
	uint8_t secret[32];
	uint8_t random[16]; /* with chosen: what AT_RANDOM must be */
	uint8_t host_of[NU_BOOT_NODES_MAX];
	uint8_t cores_of[NU_BOOT_NODES_MAX];
};

/* The launcher's socket for operators, in the abstract name space (a leading NUL stands before it): uid and pid. */
#define NU_BOOT_CTL_NAME "nu-%u-%d"
