/* SPDX-License-Identifier: MIT */
/* What the files of ctrl/ share: a node's own services, the way to the controller, start and end of a node. */
#pragma once

#include "ctrl/state.h"
#include "rdma/rdma.h"

/* ---- the start: join.c. On the kernel thread that starts the node; each is a round with all others but the second ---- */

/* Every node must have the same code at the same addresses: threads that move have return addresses on their stacks. */
int __must_check nu_join_alike(void);
/* A node's budget for heaps, as it said then. */
uint64_t nu_join_mem_bytes(unsigned node);
/* Opens the RDMA device if this job is to use one; the pool then registers what it has. If that was asked for
 * and there is none: -ENODEV, and why in @reason. */
int __must_check nu_join_device(const struct nu_pool_ops **pool_ops_p, char *reason, size_t reason_bytes);
/* Where everybody is reached. */
int __must_check nu_join_connect(void);
/* All have come so far. */
int __must_check nu_join_barrier(void);

/* ---- a job in which everybody waits for another: deadlock.c. The thread of the report loop, four times a second ---- */

#define NU_DEADLOCK_STATUS 123
void nu_deadlock_init(void);
/* True once: it has been said, and the job is to end. */
bool nu_deadlock_tick(void);

/* ---- instances: proclets that begin and end on this node. instance.c ---- */

/* Makes proclet @id here with an empty heap and a zeroed root object; @holder has its first reference (0: it is never
 * freed). Not constructed yet. Errors: -ENOMEM, -EEXIST. */
int __must_check nu_instance_make(uint64_t id, const struct nu_class *cls, size_t capacity_bytes, bool pinned,
				  uint64_t holder, struct nu_proclet **p_p);
/* Frees a proclet that nobody can call any more: ends its threads, unmaps it, gives its references back, tells the
 * controller. Thread of the node's own proclet. */
void nu_instance_retire(struct nu_proclet *p);
/* The capacity of a segment for @wanted_bytes (0: the default). -EINVAL: above 1 TiB, said in the log. */
int __must_check nu_instance_capacity(size_t wanted_bytes, size_t *bytes_p);
/* nu_rpc_ops.create */
int nu_instance_create(const struct nu_class *cls, const struct nu_options *o, const void *args,
		       struct nu_ref *ref_p);

/* ---- exit() while the node runs: exit.c ---- */

struct nu_exit_ops {
	void (*end)(
		int status); /* any thread but the first: the first is to take all down with this status */
	void (*down)(int status); /* the first thread itself, in a handler that calls exit() */
	void (*unprotect)(void);  /* the program's globals; signal-safe */
};
/* From here on until it is off, exit() from anywhere ends the job with that status; the first thread, once it has taken all
 * down, calls exit() again. On the first thread. */
void nu_exits_on(const struct nu_exit_ops *ops);
void nu_exits_off(void);
bool nu_exit_is_called(void);

/* ---- to the controller: client.c. Thread context; each is a call to it ---- */

struct nu_place {
	uint64_t id;
	unsigned node;
};
/* @node: instead of o->node; NU_CTRL_NO_NODE: wherever */
int __must_check nu_client_new(const struct nu_options *o, unsigned node, struct nu_place *place_p);
int __must_check nu_client_main(uint64_t capacity_bytes, uint64_t *id_p);
int __must_check nu_client_locate(uint64_t id, unsigned *node_p, uint64_t *location_p);
int nu_client_ready(uint64_t id);
/* It is gone; nodes that held it are told to forget it, then its segment may be used again. */
int nu_client_free(uint64_t id, unsigned node);
int __must_check nu_client_move_begin(uint64_t id, unsigned to, uint64_t *location_p);
int nu_client_move_end(uint64_t id, unsigned at, uint64_t location, bool moved);
int __must_check nu_client_join(unsigned node, unsigned cores, uint64_t mem_bytes);
int nu_client_report(unsigned node, uint64_t used_bytes);
int nu_client_node_dead(unsigned node);
/* Moves that a death left in doubt; and what asking the other node gave (NU_CTRL_NO_NODE: it is lost). */
int __must_check nu_client_doubts(struct nu_ctrl_doubt *doubts, unsigned max);
int nu_client_resolve(uint64_t id, unsigned node, uint64_t location);
/* Proclets under construction, and who asked for them. Return: how many. */
int __must_check nu_client_fresh(struct nu_ctrl_fresh *fresh, unsigned max);
/* Ended or lost ones of which nodes other than their last still hold something. Return: how many. */
int __must_check nu_client_waiting(uint64_t *ids, unsigned max);
/* Has every node that holds something of @id forget it, whoever began that. */
void nu_client_forget(uint64_t id);
int __must_check nu_client_set_state(unsigned node, enum nu_node_state state);
int __must_check nu_client_place(uint64_t id, unsigned *node_p);
/* Proclets of @node beyond @after by rising id: movable ones, or those that a drain took away. Return: how many. */
int __must_check nu_client_victims(unsigned node, uint64_t after, uint64_t *ids, unsigned max);
int __must_check nu_client_away(unsigned node, uint64_t after, uint64_t *ids, unsigned max);
int __must_check nu_client_nodes(struct nu_node_info *infos, unsigned max);
/* A page of all proclets; *cursor from 0 to ~0. Return: how many. */
int __must_check nu_client_list(uint64_t *cursor, struct nu_ctrl_info *infos, unsigned max);

/* ---- a node's services: service.c: internal methods of its own proclet ---- */
int nu_service_forget(unsigned node, uint64_t id);
int nu_service_stats(unsigned node, struct nu_stats *s);

/* ---- deaths.c ---- */
/* A node has died: whoever hears of it says so here. Any kernel thread; the first time counts. */
void nu_death_note(unsigned node);

/* ---- an operator's commands: command.c ---- */
/* Answers nu_ctl's @command in a thread of node 0; nu_boot_ops.ctl. */
void nu_command(uint64_t request, const char *command);

/* The controller proclet's class and its only instance. */
int __must_check nu_controller_start(void);
