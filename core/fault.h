/* SPDX-License-Identifier: MIT */
/*
 * Named fault points: places where a test lets something go wrong. Armed by NU_FAULT in the environment, or at run time
 * through nu_testing_fault(); else a point costs one load of a word that never changes.
 *
 *	NU_FAULT = RULE[;RULE...]    RULE = POINT[#N]:ACTION[=VALUE][@NODE]
 *
 * The rule acts at the Nth time (first: 1) that POINT is reached since it was armed, on node NODE (default: on each):
 *	kill[=K]     node K (default: the one that is there) is killed; goes on when that is so
 *	stop         the node stops itself (SIGSTOP)
 *	error=E      the place fails with -E (a number); a rule without #N fails each time
 *	delay=US     this kernel thread sleeps so long
 *	note         nothing but the line
 * If NU_FAULT_LOG names a file, each action appends "NODE POINT ACTION VALUE" to it before it acts; of an allocation the
 * function, too.
 *
 * ALLOC are the allocations that libnu's own code makes: from the C library, from proclets' heaps for what is the
 * runtime's, and of stacks. Those inside UCX and the C library are theirs to fail; that comes to us as an error of the
 * function that we called.
 */
#pragma once

#include "core/core.h"

/* Sorted by the order in which they are passed. A new one is entered here and in tests/fault. */
#define NU_FAULT_POINTS(X)                                                                                   \
	/* the start */                                                                                      \
	X(IMAGE_XSAVE, "image.xsave")                                                                        \
	/* memory: libnu's own allocations, extents, mappings */                                             \
	X(ALLOC, "alloc")                                                                                    \
	X(MAP, "map")                                                                                        \
	X(EXTENT, "extent")                                                                                  \
	/* a migration */                                                                                    \
	X(MOVE_CLAIMED, "move.claimed")                                                                      \
	X(MOVE_BEGUN, "move.begun")                                                                          \
	X(MOVE_ENTERED, "move.entered")                                                                      \
	X(MOVE_RESERVED, "move.reserved")                                                                    \
	X(MOVE_PREPARED, "move.prepared")                                                                    \
	X(MOVE_AHEAD, "move.ahead")                                                                          \
	X(MOVE_PAUSED, "move.paused")                                                                        \
	X(MOVE_OFFERED, "move.offered")                                                                      \
	X(MOVE_HANDED, "move.handed")                                                                        \
	X(MOVE_READING, "move.reading")                                                                      \
	X(MOVE_READ, "move.read")                                                                            \
	X(MOVE_RESUMED, "move.resumed")                                                                      \
	X(MOVE_PULLED, "move.pulled")                                                                        \
	X(MOVE_NOTED, "move.noted")                                                                          \
	X(MOVE_RELINQUISHED, "move.relinquished")                                                            \
	X(MOVE_SETTLED, "move.settled")                                                                      \
	X(MOVE_CONFIRMED, "move.confirmed")                                                                  \
	X(MOVE_WITHDRAWN, "move.withdrawn")                                                                  \
	X(MOVE_RELEASED, "move.released")                                                                    \
	X(MOVE_ENDED, "move.ended")                                                                          \
	X(MOVE_UNDONE, "move.undone")                                                                        \
	X(MOVE_ABORTED, "move.aborted")                                                                      \
	/* RDMA: a region, a connection, a work request, its completion, a window */                         \
	X(RDMA_REGISTER, "rdma.register")                                                                    \
	X(RDMA_CONNECT, "rdma.connect")                                                                      \
	X(RDMA_POST, "rdma.post")                                                                            \
	X(RDMA_COMPLETE, "rdma.complete")                                                                    \
	X(RDMA_BIND, "rdma.bind")                                                                            \
	/* a creation */                                                                                     \
	X(CREATE_PLACED, "create.placed")                                                                    \
	X(CREATE_ASKED, "create.asked")                                                                      \
	X(CREATE_LAID_OUT, "create.laid_out")                                                                \
	X(CREATE_CONSTRUCTED, "create.constructed")                                                          \
	X(CREATE_ANSWERED, "create.answered")                                                                \
	X(CREATE_READY, "create.ready")                                                                      \
	/* the end of a proclet */                                                                           \
	X(RETIRE_BEGUN, "retire.begun")                                                                      \
	X(RETIRE_UNMAPPED, "retire.unmapped")                                                                \
	X(RETIRE_FREED, "retire.freed")                                                                      \
	/* a drain */                                                                                        \
	X(DRAIN_BEGUN, "drain.begun")                                                                        \
	X(DRAIN_PLACED, "drain.placed")                                                                      \
	X(DRAIN_MOVED, "drain.moved")                                                                        \
	/* calls */                                                                                          \
	X(CALL_SENT, "call.sent")                                                                            \
	X(CALL_HELD, "call.held")                                                                            \
	X(CALL_FORWARDED, "call.forwarded")                                                                  \
	X(CALL_SERVED, "call.served")                                                                        \
	X(CALL_ANSWERED, "call.answered")

enum nu_fault_point {
#define X(sym, name) NU_FAULT_##sym,
	NU_FAULT_POINTS(X)
#undef X
		NU_FAULT_COUNT
};

extern bool nu_fault_armed;

/* Adds rules; NULL drops all. Any kernel thread. -EINVAL a rule that cannot be read (said in the log), -ENOSPC. */
int __must_check nu_fault_arm(const char *rules);
/* How often @point was reached while anything was armed. */
uint64_t nu_fault_hits(enum nu_fault_point point);
int nu_fault_reached(enum nu_fault_point point);

/* The same, for a place that is reached from many: @pc, an address in the one, is named in NU_FAULT_LOG. */
int nu_fault_reached_from(enum nu_fault_point point, const void *pc);

/* What libnu has allocated and not freed since the first arming. track.c */
extern bool nu_track_on;
/* Whether @pc lies in libnu's code. Any context. */
bool nu_track_is_own(const void *pc);
void nu_track_add(const void *ptr, const void *pc);
/* Return: whether it was counted. */
bool nu_track_del(const void *ptr);
unsigned nu_track_live(void);
/* Says where they come from. */
void nu_track_log(void);

/* At a point: 0, or the -errno that the place shall fail with. Any context, also before main(). */
static inline int nu_fault(enum nu_fault_point point)
{
	return likely(!nu_fault_armed) ? 0 : nu_fault_reached(point);
}
