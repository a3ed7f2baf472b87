/* SPDX-License-Identifier: MIT */
/* What source and destination of a move say to each other: internal methods of the nodes' own proclets. */
#pragma once

#include "rdma/rdma.h"

#include <stdlib.h>
#include <string.h>

/* 1. Source to destination: make room. The answer may be positive: how to offer what is to be read (nu_reader_of_kind). */
struct nu_prepare_args {
	uint64_t id, location, from;
	uint64_t init;		 /* its class, by the constructor's descriptor */
	uint64_t capacity_bytes; /* of its segment */
	uint64_t used_bytes;	 /* of the heap, as it is now */
	struct nu_bytes threads; /* addresses of its threads, as they are now: uint64_t each */
};
#define NU_PREPARE_THREADS_MAX 1024u

/*
 * 2. Hand over: this, then a record for each thread. If the destination reads by offers, these follow: `noffers` that
 * hold the heap in a row, one more with the copied stacks if `stacks` says so; or the stacks themselves.
 */
enum nu_handover_stacks {
	NU_STACKS_IN_PLACE, /* to be read where they are */
	NU_STACKS_INLINE,   /* live parts, one after the other, at the end */
	NU_STACKS_OFFERED,  /* the same, in an extent */
};
struct nu_handover {
	uint64_t id, location, from;
	uint64_t used_bytes;
	uint64_t source_now_ns;	 /* node's clock when the threads had stopped */
	uint64_t proclet_now_ns; /* the proclet's clock then */
	uint64_t paused_at_ns;	 /* when the pause began */
	uint32_t calls_active, nthreads;
	uint32_t noffers, stacks;
};
struct nu_handover_thread {
	uint64_t thread; /* control block */
	uint64_t low;	 /* live part of the stack: [low, low + live_bytes) */
	uint64_t live_bytes;
};
_Static_assert(sizeof(struct nu_handover) % 8 == 0 && sizeof(struct nu_handover_thread) % 8 == 0 &&
		       sizeof(struct nu_offer_piece) % 8 == 0,
	       "all of a hand-over is aligned");
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

/* What of a hand-over is where; every pointer into its bytes. */
struct nu_handed {
	const struct nu_handover *h;
	const struct nu_handover_thread *threads;
	const struct nu_offer_piece *offers; /* noffers, and one for the stacks */
	const char *stacks;		     /* INLINE */
	uint64_t stacks_bytes;		     /* sum of the live parts */
};

/* ---- offer.c: what the source makes readable for one hand-over ---- */

#define NU_STACKS_INLINE_BYTES 16384u
struct nu_offer {
	const struct nu_reader_ops *reader; /* NULL: nothing is offered */
	struct nu_proclet *p;		    /* whose extents are */
	unsigned to, n;
	struct nu_offer_piece pieces[NU_EXTENTS_MAX]; /* of p's extents in a row; len_bytes 0: none */
	struct nu_offer_piece stacks_piece;
	struct nu_extent stacks; /* copies; len_bytes 0: none */
};
/* Whether @kind, the destination's word, can be done here. */
int __must_check nu_offer_init(struct nu_offer *o, unsigned to, int kind);
/* Offers the heap of proclet @id as it is now, while it runs: within the pause only what has come since then is left to be
 * offered. The destination hears of it in the hand-over. -ESTALE: it has ended. Errors as a reader's. */
int __must_check nu_offer_ahead(struct nu_offer *o, struct nu_proclet *p, uint64_t id);
/* Offers [0, used) of a frozen proclet's heap, and its stacks; builds the hand-over from @h and @threads. malloc'ed. */
int __must_check nu_offer_make(struct nu_offer *o, const struct nu_proclet *p, const struct nu_handover *h,
			       const struct nu_handover_thread *threads, struct nu_bytes *blob_p);
/* The end of what was offered. @unsure: the destination may still be reading. */
void nu_offer_end(struct nu_offer *o, bool unsure);

/* ---- pull.c: the destination reads ---- */

/* False: the bytes make no sense in themselves. The stacks' places are checked, each by itself. */
bool nu_handed_parse(const void *blob, size_t len_bytes, struct nu_handed *d);
/* Reads heap and stacks to where they belong; extents are installed, stacks adopted. Errors as a reader's; -EBADMSG the
 * offers do not hold what is to be read; -ENOMEM. */
int __must_check nu_pull(struct nu_proclet *p, const struct nu_handed *d);

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
