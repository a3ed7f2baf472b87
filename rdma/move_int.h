/* SPDX-License-Identifier: MIT */
/* What source and destination of a move say to each other: internal methods of the nodes' own proclets. */
#pragma once

#include "rdma/rdma.h"

#include <stdlib.h>
#include <string.h>

/* 1. Source to destination: make room. */
struct nu_prepare_args {
	uint64_t id, location, from;
	uint64_t init;		 /* its class, by the constructor's descriptor */
	uint64_t capacity_bytes; /* of its segment */
	uint64_t used_bytes;	 /* of the heap, as it is now */
	struct nu_bytes threads; /* addresses of its threads, as they are now: uint64_t each */
};
#define NU_PREPARE_THREADS_MAX 1024u

/* 2. Hand over: this, then a record for each thread. */
struct nu_handover {
	uint64_t id, location, from;
	uint64_t used_bytes;
	uint64_t source_now_ns;	 /* node's clock when the threads had stopped */
	uint64_t proclet_now_ns; /* the proclet's clock then */
	uint64_t paused_at_ns;	 /* when the pause began */
	uint32_t calls_active, nthreads;
};
struct nu_handover_thread {
	uint64_t thread; /* control block */
	uint64_t low;	 /* live part of the stack: [low, low + live_bytes) */
	uint64_t live_bytes;
};
struct nu_handover_args {
	struct nu_bytes blob;
};

/* 3. Source to destination: it is yours. Or 2'. give up. */
struct nu_move_id_args {
	uint64_t id;
};
struct nu_move_args {
	uint64_t id;
	uint64_t to;
};

extern const struct nu_method nu_prepare_method, nu_handover_method, nu_relinquish_method, nu_abort_method,
	nu_move_method;
extern struct nu_move_ops nu_move_ops;

/* Calls an internal method of @node whose result is an int; the transport's error comes first. */
int nu_node_call(unsigned node, const struct nu_method *m, const void *args);
/* The last reference may have gone while it could not be noticed (moving): ends it then. */
void nu_move_check_refs(struct nu_proclet *p);

#define NU_NODE_METHOD(sym, text, fn, args_type, fields_, nfields_)                                          \
	__attribute__((section("nu_methods"), used)) const struct nu_method sym = {                          \
		.class_name = "node",                                                                        \
		.name = text,                                                                                \
		.run = fn,                                                                                   \
		.fields = fields_,                                                                           \
		.nfields = nfields_,                                                                         \
		.args_bytes = sizeof(args_type),                                                             \
		.result_bytes = sizeof(int),                                                                 \
		.result_kind = NU_RESULT_FIXED,                                                              \
		.magic = NU_METHOD_MAGIC,                                                                    \
		.cls = &nu_node_class,                                                                       \
	}
