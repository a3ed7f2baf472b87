/* SPDX-License-Identifier: MIT */
/*
 * A node of three in one process, with its scheduler, pool, controller and all handlers, whose peers are the input. In
 * place of rpc/ucx.c and rdma/reader.c stand doubles: what is sent is checked and dropped, what is read comes from an
 * image of a proclet that the rig keeps.
 */
#pragma once

#include "ctrl/controller.h"
#include "ctrl/ctrl.h"
#include "fuzz.h"
#include "rdma/move_int.h"
#include "rpc/rpc_int.h"

NU_CLASS_DECLARE(box, val(unsigned, n));
NU_CLASS_DECLARE(other, str(name));

#define RIG_KEY	     0x6b65796b65796b65ull
#define RIG_WAITERS  4u
#define RIG_CAPACITY NU_MIB
/* Proclets that are always there, and ids of others: a mover whose image the rig has, some that are elsewhere. */
#define RIG_BOX	   nu_id_make(2048, 11)
#define RIG_OTHER  nu_id_make(2049, 12)
#define RIG_MAIN   nu_id_make(NU_SEG_MAIN, 1)
#define RIG_MOVER  nu_id_make(2050, 13)
#define RIG_REMOTE nu_id_make(2060, 14)

/* @transport: "shm" stands for the link's double, "tcp" is the real one. */
void rig_start(const char *transport);
/* Threads of the box wait for answers from node 1: their addresses and sequence numbers. */
void rig_waiters_start(void);
extern struct nu_thread *rig_waiter[RIG_WAITERS];
/* One batch arrives, as if from a peer. Returns when its handlers have. */
void rig_receive(const void *batch, size_t len);
/* Lets the threads that it has started run for a while. */
void rig_pause(void);
/* Sends what is in batches. */
void rig_flush(void);
/* Lets everything that the input has begun come to its end, and takes away what it left behind. */
void rig_settle(bool reset_controller);
/* How the image is changed before it is read: 0 not at all, else one of RIG_DAMAGES, all of which must be noticed. */
extern unsigned rig_damage;
extern bool rig_by_offer; /* what node 1 is read by */
#define RIG_DAMAGES 16u
uint64_t rig_image_bytes(void);
/* Headers of the messages that the node has sent to peers since this was set to 0. */
#define RIG_SENT_MAX 64u
extern struct nu_msg rig_sent[RIG_SENT_MAX];
extern unsigned rig_nsent;
/* Times that methods of the residents have run. */
extern unsigned rig_runs;
/* Bit i: waiter i had a result. */
extern unsigned rig_results;
/* The descriptor of a method by its class and name. */
const struct nu_method *rig_method(const struct nu_class *cls, const char *name);
/* The control block of the i-th stack of @node's part. */
struct nu_thread *rig_stack(unsigned node, unsigned i);
