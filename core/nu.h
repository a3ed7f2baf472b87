/* SPDX-License-Identifier: MIT */
/*
 * Nu: logical processes in C. The one header a program includes: `#include <nu/nu.h>`.
 *
 * A logical process is one program running as one UNIX process per node. Its state is split into proclets: a
 * root object, a heap in an address segment of its own, and the user-level threads that run in it. Proclets talk
 * by method calls and shipped closures only, and any of them can be moved to another node while its threads run.
 *
 * Conventions: functions return 0 or a negative errno; outputs come last, are named *_p and stay untouched on
 * failure; times carry their unit in their name; every struct of options means "the default" when zeroed.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#error "nu.h is a C interface: its class macros use C17 with GNU extensions"
#endif

/* Kinds of arguments are words that a program may have macros for (nu_args.h); these two stand below, too. */
#pragma push_macro("fn")
#pragma push_macro("ref")
#undef fn
#undef ref

#define NU_API __attribute__((__visibility__("default")))
#ifndef __must_check
#define __must_check __attribute__((__warn_unused_result__))
#endif

/*
 * errno belongs to the user-level thread. gcc keeps the address of the C library's errno over a thread switch,
 * and a thread may go on in another kernel thread or another node, so the address is asked for each time.
 */
NU_API int *nu_errno_location(void);
#undef errno
#define errno (*nu_errno_location())

/* ---- values that cross between proclets ---- */

/* An untyped reference to a proclet; 0 refers to nothing. Programs use the typed `struct CLASS_ref`. */
struct nu_ref {
	uint64_t id;
};

/* A string with its length; `s` is followed by a NUL that is not counted. */
struct nu_str {
	const char *s;
	size_t len_bytes;
};

/* A span of bytes. As a result, `data` is NULL if the method gave none, else heap memory that the caller frees. */
struct nu_bytes {
	const void *data;
	size_t len_bytes;
};

/* The string as an argument: nu_str("abc"). Borrowed for the call; NULL is the empty string. */
NU_API struct nu_str nu_str(const char *s);
#define nu_bytes(ptr, len) ((struct nu_bytes){(ptr), (len)})

#include "nu_thread.h"
#include "nu_class.h"

/* ---- the program ---- */

/* Options of a run. Zero is the default everywhere. */
struct nu_run_options {
	/*
	 * Called once in each node before any proclet exists there, to fill in the program's globals; the same on
	 * every node or the nodes differ. After it the program's writable data is write-protected. May be NULL.
	 */
	int (*node_init)(unsigned node);
	/* Leave the program's globals writable after node_init: each node then has its own copies. */
	bool writable_globals;
	/* Heap capacity of the main proclet in bytes, rounded up to a power of two, 1 MiB..1 TiB; 0: 1 GiB. */
	size_t main_capacity_bytes;
};

typedef int (*nu_main_fn)(int argc, char **argv);

/* What nu_run() needs to know about the program's own image; filled in by the macro below. */
struct nu_image {
	const struct nu_method *methods;
	const struct nu_method *methods_end;
};
extern const struct nu_method __start_nu_methods[] __attribute__((__weak__, __visibility__("hidden")));
extern const struct nu_method __stop_nu_methods[] __attribute__((__weak__, __visibility__("hidden")));

/* Called by constructors that NU_CLASS makes, once for each object that has classes. */
NU_API void nu_image_add(const struct nu_image *image);

/*
 * Runs the logical process: joins the job that nu_launch started, or a one-node job if there is none, and runs
 * `main_fn` as the first thread of the main proclet, on node 0. Other nodes serve until the job ends.
 * @options may be NULL. Call it once, from main().
 *
 * Return: what main_fn returned (on every node), to be used as the exit status; a negative errno if the node
 * could not start or the job failed, with the cause on stderr.
 * Errors: -EINVAL called twice or within a proclet, or without a main function; -ENOMEM no memory for the pool; -EPROTO
 * this node's layout differs from the others'; -EHOSTDOWN a node died; -ELIBBAD malloc is another object's, or a
 * sanitizer's that libnu was built without (nothing has begun then).
 */
NU_API int nu_run_image(int argc, char **argv, nu_main_fn main_fn, const struct nu_run_options *options,
			const struct nu_image *image);
#define nu_run(argc, argv, main_fn, options)                                                                 \
	nu_run_image((argc), (argv), (main_fn), (options),                                                   \
		     &(const struct nu_image){__start_nu_methods, __stop_nu_methods})

/* The name and meaning of an error that a Nu function returned (positive or negative). Static memory. */
NU_API const char *nu_strerror(int err);

/* ---- proclets ---- */

/* For nu_options.node: place on node n. A bare number there is refused, since 1 may have been meant as node 0 or 1. */
#define NU_NODE(n)   (NU_NODE_BASE + (unsigned)(n))
#define NU_NODE_BASE 0x4e550000u

/* How to create a proclet. Zero is the default everywhere. */
struct nu_options {
	size_t capacity_bytes; /* most that the heap may hold; rounded up to a power of two, 1 MiB..1 TiB; 0: 1 GiB */
	bool pinned;	       /* never moved */
	unsigned node;	       /* NU_NODE(n): on that node; 0: where most memory is free */
};

/* The proclet that the calling thread runs in, as a weak reference (not counted). Any context in a proclet. */
NU_API struct nu_ref nu_self(void);

/*
 * Takes one more counted reference to @ref for the calling proclet: how a method keeps a reference that it was
 * passed (arguments are borrowed until the method returns), and how a weak reference is made strong.
 * Context: a proclet's thread; may switch. Errors: -ESTALE the proclet is gone; -EHOSTDOWN its node died.
 */
NU_API int __must_check nu_ref_get(struct nu_ref ref);

/*
 * Gives one counted reference of the calling proclet back; the last one of all frees the proclet: its threads end,
 * its heap goes. A reference that the calling proclet does not hold is refused. @ref may be nothing.
 * Context: a proclet's thread; may switch. Errors: -EINVAL not held by this proclet (a second release).
 */
NU_API int nu_ref_put(struct nu_ref ref);

/* The node where @ref is now, or a negative errno: -ESTALE it is gone. It may have moved when this returns. */
NU_API int __must_check nu_locate(struct nu_ref ref);

/*
 * Moves a proclet to @node with its threads running; returns when it runs there and the source has let go.
 * Context: a proclet's thread, also one of the proclet that is moved; may switch.
 * Errors: -ESTALE gone; -EPERM pinned; -EBUSY already being moved, or its move is not possible now;
 * -ENOMEM no room at the destination; -ETIMEDOUT its threads could not be paused in time (it goes on where it
 * was); -EHOSTDOWN either node died; -EINVAL no such node.
 */
NU_API int __must_check nu_migrate(struct nu_ref ref, unsigned node);

/* ---- nodes ---- */

enum nu_node_state {
	NU_NODE_UP = 1,
	NU_NODE_DRAINING,
	NU_NODE_DEAD,
};

struct nu_node_info {
	unsigned node;
	enum nu_node_state state;
	unsigned cores;
	uint64_t proclets;	  /* proclets that live there now */
	uint64_t mem_total_bytes; /* the node's budget for heaps */
	uint64_t mem_used_bytes;
};

/* The node that the caller runs on now (0 first). It may have changed when the caller looks at it. */
NU_API unsigned nu_node_self(void);
/* How many nodes the job started with. */
NU_API unsigned nu_node_count(void);

/*
 * Fills @infos with up to @max nodes. Return: how many there are. Context: a proclet's thread; may switch. Errors: -EINVAL
 * @infos is NULL with a @max.
 */
NU_API int __must_check nu_nodes(struct nu_node_info *infos, unsigned max);

/*
 * Empties a node: nothing new is placed there, and every proclet that is not pinned moves to the others.
 * @moved_p (may be NULL) gets the number moved. Context: a proclet's thread; may switch.
 * Errors: -ENOMEM some found no room (the rest is drained); -EINVAL no such node, or no other node is left.
 */
NU_API int nu_node_drain(unsigned node, unsigned *moved_p);

/* Makes a drained node available again and brings back the proclets that the drain moved away and still live. */
NU_API int nu_node_restore(unsigned node, unsigned *moved_p);

/* ---- counters ---- */

#define NU_STATS_PAUSES 7

/* Figures of one node since its start, or as they are now where the name says `now`. */
struct nu_stats {
	uint64_t calls_local, calls_sent, calls_served, calls_forwarded, calls_held;
	uint64_t replies_sent, bytes_sent, batches_sent;
	uint64_t
		nudges_sent; /* interruptions of cores of other nodes that computed while a step of a move waited */
	uint64_t threads_spawned, switches, steals, preemptions;
	uint64_t proclets_created, proclets_freed, proclets_now;
	uint64_t moves_in, moves_out, moves_undone, move_bytes;
	/* Bytes that this node has read of others' memory for moves, by reader. */
	uint64_t read_bytes_cma, read_bytes_verbs, read_bytes_am;
	uint64_t heap_bytes_now, pool_bytes_now;
	uint64_t blackout_ns_count, blackout_ns_sum, blackout_ns_max; /* of moves in, from pause to resume */
	uint64_t blackout_ns_hist[64]; /* bucket i: from 2^(i/2) ns for even i, 1.5 * 2^((i-1)/2) for odd */
	uint64_t bad_messages, stale_calls;
	/* Threads paused for a move, by what they were doing: running, runnable, sleeping, blocked on a primitive, waiting
	 * for a local call's reply, for a remote call's, serving a call whose caller has moved. */
	uint64_t pauses[NU_STATS_PAUSES];
};

/* Reads the counters of @node. Context: a proclet's thread; may switch. Errors: -EINVAL no such node, or
 * @stats_p is NULL; -EHOSTDOWN. */
NU_API int __must_check nu_stats(unsigned node, struct nu_stats *stats_p);

/* ---- calls ---- */

/*
 * Sets the deadline for the calls that this thread issues from now on: @timeout_us from now, 0 for none. A call
 * that is not answered by then returns -ETIMEDOUT, which means that nobody knows whether it ran. Calls nested in
 * a method do not inherit it. One beyond what the clock can say (290 years) is for ever. Return: what was left of the earlier
 * deadline in us, 1 if it has passed, 0 if there was none.
 */
NU_API uint64_t nu_deadline_set_us(uint64_t timeout_us);

#pragma pop_macro("fn")
#pragma pop_macro("ref")
