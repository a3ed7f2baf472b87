/* SPDX-License-Identifier: MIT */
/*
 * Nu: logical processes in C. The one header a program includes: `#include <nu/nu.h>`.
 *
 * A logical process is one program running as one UNIX process per node. Its state is split into proclets: a
 * root object, a heap in an address segment of its own, and the user-level threads that run in it. Proclets talk
 * by method calls and shipped closures only, and any of them can be moved to another node while its threads run.
 *
 * Conventions: functions return 0 or a negative errno; outputs come last, are named *_p and stay untouched on
 * failure; times carry their unit in their name; every struct of options means "the default" when zeroed. Pointers
 * that a function is passed are borrowed until it returns, unless its comment says otherwise.
 *
 * Each function's comment is its contract. `Context:` says from where it may be called, and whether it may switch
 * threads: one that may can return on another kernel thread, and on another node if its proclet was moved meanwhile.
 *   proclet's thread       runs the main function, a constructor, C_fini(), a method, a closure, or a function that
 *                          nu_thread_spawn() was given; also in a callback from nu_once(), qsort() or a library.
 *                          A callback may call what may switch only while the library holds no lock of its own.
 *   node_init              that of struct nu_run_options: there is no proclet yet on the node
 *   foreign kernel thread  runs no proclet: one of pthread_create(), or the one of main() before and after nu_run()
 * Nothing here may be called in the handler of a signal, unless it says so. `Errors:` lists the negative errnos, each
 * with its condition. `Source:` is a section of the paper on Nu (NSDI '23).
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
 * Where errno lies just now: what the macro below stands for. errno belongs to the user-level thread. gcc keeps
 * the address of the C library's errno over a thread switch, and a thread may go on in another kernel thread or
 * another node, so the address is asked for each time. It must not be kept over anything that may switch.
 * Context: anywhere, a signal's handler included; does not switch.
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

/*
 * The string as an argument: nu_str("abc"). The result borrows @s, which ends in a NUL and must stay as long as
 * the result is used; NULL is the empty string.
 * Context: anywhere, a signal's handler included; does not switch.
 */
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

/*
 * Makes the methods between image->methods and image->methods_end known to nu_run(): called by constructors
 * that NU_CLASS makes. @image is copied; the methods themselves must stay, and naming them twice does nothing.
 * Up to 64 shared objects can have classes; for more, nu_run() fails.
 * Context: before nu_run(), on any kernel thread; does not switch.
 */
NU_API void nu_image_add(const struct nu_image *image);

/*
 * Runs the logical process: joins the job that nu_launch started, or a one-node job if there is none, and runs
 * @main_fn, with @argc and @argv, as the first thread of the main proclet, which begins on node 0. Other nodes
 * serve until the job ends. Programs use the macro nu_run(), which fills in @image. @argv, @options and what
 * @options names must stay until it returns; @options may be NULL.
 *
 * Return: on every node, to be used as the exit status: the value that main_fn returned; the status of
 * nu_launch(1) if the job was ended otherwise; 1 if the main proclet could not be made; a negative errno, or
 * what node_init returned, if this node could not start, with the cause on stderr. If exit() ended the job it
 * does not return.
 * Context: once, from main(), on the process's first thread; it blocks this kernel thread. Elsewhere: -EINVAL
 * (a proclet's thread, node_init).
 * Errors: -EINVAL called a second time or by a proclet's thread, @main_fn is NULL, or NU_STACK_KIB is no size
 * of a stack; -ELIBBAD malloc is another object's, or a sanitizer's that libnu was built without (nothing has
 * begun then); -ENOEXEC a shared object has brought a second libnu; -EOVERFLOW more than 64 shared objects have
 * classes, or they and the program have too many segments of code; -EEXIST the addresses of heaps or stacks are
 * taken; -EOPNOTSUPP the kernel's pages are not of 4 KiB; -ENOMEM no memory for the pool or the node's tables;
 * -EPROTO this node's program or layout differs from the others'; -ETIMEDOUT the other nodes did not come
 * within NU_BOOT_TIMEOUT_S; -EHOSTDOWN a node died while the job started. An error of the system beside these
 * (sockets, devices, mappings) is returned as it is.
 * Source: 3.1, 3.2.
 */
NU_API int nu_run_image(int argc, char **argv, nu_main_fn main_fn, const struct nu_run_options *options,
			const struct nu_image *image);
#define nu_run(argc, argv, main_fn, options)                                                                 \
	nu_run_image((argc), (argv), (main_fn), (options),                                                   \
		     &(const struct nu_image){__start_nu_methods, __stop_nu_methods})

/*
 * The name and meaning of an error that a Nu function returned, of either sign: "ESTALE: no such proclet any
 * more". The text is static memory of the node, not to be freed; "unknown error" for other numbers.
 * Context: anywhere but a signal's handler; does not switch.
 */
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

/*
 * The proclet that the calling thread runs in, as a weak reference (not counted).
 * Context: proclet's thread, callbacks included; does not switch. node_init, foreign kernel thread: it is
 * nothing (0).
 */
NU_API struct nu_ref nu_self(void);

/*
 * Takes one more counted reference to @ref for the calling proclet: how a method keeps a reference that it was
 * passed (arguments are borrowed until the method returns), and how a weak reference is made strong. The
 * calling proclet owns the count; those that it still has at its end are given back then.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -ESTALE the proclet is gone, or @ref is nothing; -EHOSTDOWN its node died, and the proclet with it;
 * -ENOMEM no room for the count in either proclet's heap; -EINVAL no proclet's thread; else as nu_call(), of
 * which -ETIMEDOUT may leave a count that nobody gives back.
 * Source: 3.2, naming and reference counting.
 */
NU_API int __must_check nu_ref_get(struct nu_ref ref);

/*
 * Gives one counted reference of the calling proclet back; the last one of all frees the proclet: C_fini() runs
 * once the calls in it have ended, its other threads end, its heap goes. That it has gone already is no error,
 * nor is a @ref that is nothing. A reference that the calling proclet does not hold is refused.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL, but 0
 * for nothing.
 * Errors: -EINVAL not held by this proclet (a second release), or no proclet's thread; else as nu_call(), and
 * then the calling proclet holds it no more: -ENOMEM after 10 s of trying.
 * Source: 3.2, naming and reference counting.
 */
NU_API int nu_ref_put(struct nu_ref ref);

/*
 * The node where @ref is now, 0 first. It may have moved when this returns.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -ESTALE it is gone, or @ref is nothing; -EHOSTDOWN its node died, and the proclet with it; -EAGAIN
 * one of the nodes of its move died, and for 2 s nobody could say where it is; -EINVAL no proclet's thread;
 * else as nu_call().
 * Source: 4.4.
 */
NU_API int __must_check nu_locate(struct nu_ref ref);

/*
 * Moves a proclet to @node with its threads running; returns when it runs there and the source has let go. If
 * it is there already, nothing is done. No reference need be held.
 * Context: proclet's thread, also one of the proclet that is moved, callbacks included; may switch. node_init,
 * foreign kernel thread: -EINVAL.
 * Errors: -ESTALE it is gone, or @ref is nothing; -EPERM it is pinned; -EBUSY it is being moved already, @node
 * is being drained, or it was elsewhere each time that it was looked for; -ENOMEM no room at the destination,
 * or no memory for the move; -ETIMEDOUT its threads could not be paused within 20 ms, or one waits on a stack
 * that the program has made, and it goes on where it was; also, the calling thread's deadline passed, and
 * nobody knows whether it moves; -EHOSTDOWN either node died; -EIO, -EACCES or -EPERM its memory cannot be read
 * by the destination, and it goes on where it was; -EINVAL no such node, or no proclet's thread; else as
 * nu_call().
 * Source: 4.3.
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

/*
 * The node that the caller runs on now, 0 first. It may have changed when the caller looks at it.
 * Context: anywhere, also before nu_run() and in a signal's handler; does not switch.
 */
NU_API unsigned nu_node_self(void);

/*
 * How many nodes the job started with, those that have died since included.
 * Context: anywhere, also before nu_run() and in a signal's handler; does not switch.
 */
NU_API unsigned nu_node_count(void);

/*
 * Fills @infos, the caller's array of @max items, with the nodes that have joined, in the order of their
 * numbers. Dead ones are among them. Nodes report their memory in use every 250 ms, if it has changed by a MiB.
 * Return: how many were filled in; nu_node_count() says how many there are.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -EINVAL @infos is NULL with a @max, or no proclet's thread; else as nu_call().
 */
NU_API int __must_check nu_nodes(struct nu_node_info *infos, unsigned max);

/*
 * Empties a node: nothing new is placed there, and every proclet that is not pinned moves to the others. It
 * stays so until nu_node_restore(), also if not all found room. @moved_p (may be NULL) gets the number moved,
 * also if some could not be.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -EINVAL no such node, no other node is up, or no proclet's thread; -EHOSTDOWN @node has died; -ENOMEM
 * some found no room (the rest has moved); -EBUSY, -ETIMEDOUT or another error of nu_migrate(): some could not
 * be moved in eight rounds, the last one for that reason; else as nu_call().
 * Source: 4.3, 4.4.
 */
NU_API int nu_node_drain(unsigned node, unsigned *moved_p);

/*
 * Makes a drained node available again and brings back the proclets that the drain moved away and that still
 * live. @moved_p (may be NULL) gets the number brought back, also if some could not be.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -EINVAL no such node, or no proclet's thread; -EHOSTDOWN @node has died; an error of nu_migrate():
 * some could not be brought back, the last one for that reason, and stay where they are; else as nu_call().
 */
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

/*
 * Reads the counters of @node into *stats_p. They are read one after the other while the node runs, so that
 * sums of several need not agree.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -EINVAL no such node, @stats_p is NULL, or no proclet's thread; -EHOSTDOWN it died; else as
 * nu_call().
 */
NU_API int __must_check nu_stats(unsigned node, struct nu_stats *stats_p);

/* ---- calls ---- */

/*
 * Sets the deadline for the calls that this thread issues from now on: @timeout_us from now, 0 for none. A call
 * that is not answered by then returns -ETIMEDOUT, which means that nobody knows whether it ran. The deadline
 * holds for everything that asks another proclet or the controller: nu_create(), nu_ref_get(), nu_locate(),
 * nu_migrate(), nu_nodes() and their like, too. Asynchronous calls have the deadline of the thread that starts
 * them; calls nested in a method and threads of nu_thread_spawn() do not inherit it. One beyond what the clock
 * can say (290 years) is for ever.
 * Return: how much was left of the earlier deadline in us, 1 if it has passed, 0 if there was none.
 * Context: proclet's thread, callbacks included; does not switch. node_init, foreign kernel thread: 0, and
 * nothing is set.
 */
NU_API uint64_t nu_deadline_set_us(uint64_t timeout_us);

#pragma pop_macro("fn")
#pragma pop_macro("ref")
