/* SPDX-License-Identifier: MIT */
/*
 * For perf/ and tests only; not installed, no promise. Raw access below the API, so that a figure can be put beside its
 * limit in the same run.
 */
#pragma once

#include "nu.h"

/*
 * Memory of node @node to be read again and again by any reader, those by offers too, and memory here to read it into.
 * A reader without offers (am refuses all but heaps and stacks) is given @remote, as many bytes of a proclet there.
 * Context: a proclet's thread; may switch. Errors: -EINVAL, -ENOMEM, -ENOSPC too many there; -ENODEV no reader; -EIO; -EHOSTDOWN.
 */
struct nu_testing_source {
	void *local; /* what was read */
	size_t len_bytes, local_bytes;
	uint64_t address;
	uint32_t rkey, lane;
	unsigned node, slot;
	bool by_offer;
};
NU_API int __must_check nu_testing_source_open(unsigned node, size_t len_bytes,
					       struct nu_testing_source *s_p);
NU_API int __must_check nu_testing_source_read(const struct nu_testing_source *s, const void *remote);
/* The same bytes, but in pieces of @each_bytes (a divisor of all), as a heap's extents are read. */
NU_API int __must_check nu_testing_source_reads(const struct nu_testing_source *s, const void *remote,
						size_t each_bytes);
/* The limit of that where node's memory is read by verbs: READs posted by hand, @depth at a time, and polled for. -ENODEV:
 * by another reader. Further errors as the device's. */
NU_API int __must_check nu_testing_source_reads_bare(const struct nu_testing_source *s, size_t each_bytes,
						     unsigned depth);
NU_API int nu_testing_source_close(struct nu_testing_source *s);
/* What the calling node's reader has done since its start: requests to the device, completions taken, looks for some and
 * sleeps for want of one (verbs), bytes; system calls that read another's memory (cma); queue pairs that broke, and windows
 * that were bound for others (verbs). */
struct nu_testing_reads {
	uint64_t requests, completions, polls, sleeps, bytes, syscalls, broken, windows;
};
NU_API void nu_testing_reads(struct nu_testing_reads *r);
/* What a move of the calling proclet has to carry, but for stacks: *used_p bytes from *low_p on, the same on any node. -EINVAL:
 * not in a proclet. */
NU_API int __must_check nu_testing_heap(void **low_p, size_t *used_p);
/* Does now what the calling node does of its pool's memory in the background, four times a second: the reserve is filled up,
 * what is beyond it given back. */
NU_API void nu_testing_settle(void);
/* Processor time of the calling node's process so far, microseconds. */
NU_API uint64_t nu_testing_cpu_us(void);
/* How often cores of the calling node have gone to sleep, or tried to. */
NU_API uint64_t nu_testing_sleeps(void);
/* Name of the reader for @node ("cma"), and of the transport of the calling core's connection to it ("shm/ring"). */
NU_API const char *nu_testing_reader(unsigned node);
NU_API int __must_check nu_testing_transport(unsigned node, char *buf, size_t len);
/* Whether the program was started without nu_launch; and the calling node's cores. Also before nu_run(). */
NU_API bool nu_testing_alone(void);
NU_API unsigned nu_testing_cores(void);
/* The node's own clock, which does not stand still over a move: comparable between nodes of one host. */
NU_API uint64_t nu_testing_mono_ns(void);
/* Fault points of the calling node: rules as NU_FAULT has them (core/fault.h), added to those there; NULL drops all.
 * Errors: -EINVAL a rule that cannot be read; -ENOSPC too many. */
NU_API int __must_check nu_testing_fault(const char *rules);
/* How often @point was reached on the calling node while anything was armed; -EINVAL: there is no such point. */
NU_API int64_t nu_testing_fault_hits(const char *point);
/* Blocks that libnu on the calling node has allocated and not freed since the first arming there. With @log it says whose
 * they are. */
NU_API int64_t nu_testing_live(bool log);
/* Takes so many of the calling node's mappings that @left more can be made; a later call gives them back first, and with
 * UINT_MAX takes none. Errors: -EINVAL there are not so many. */
NU_API int __must_check nu_testing_maps_leave(unsigned left);
/* Name of the @i-th point; NULL behind the last. */
NU_API const char *nu_testing_fault_name(unsigned i);
/* What the calling node holds now, to find what a death or a failure has leaked. */
struct nu_testing_census {
	uint64_t present;    /* proclets with a heap here, also those that move or end */
	uint64_t notes;	     /* where proclets went */
	uint64_t arriving;   /* announced, and not here yet */
	uint64_t held;	     /* messages that wait for proclets */
	uint64_t stacks;     /* in use here, whoever's they are */
	uint64_t lent;	     /* ours, with threads that went elsewhere */
	uint64_t pool_bytes; /* of extents that no proclet has */
};
NU_API void nu_testing_census(struct nu_testing_census *c_p);

/* The calling node's connections that outlive their endpoints (TCP): batches that are not yet acknowledged, sent again,
 * not taken because they had come before; endpoints that broke. */
struct nu_testing_wire {
	uint64_t kept, resent, refused, broken;
};
NU_API void nu_testing_wire(struct nu_testing_wire *w);
/* The calling node's address of @node's core 0, as the transport knows it: reads it, then, with @now, changes it.
 * Errors: -EINVAL it is not so long. */
NU_API int __must_check nu_testing_address(unsigned node, void *was_p, size_t len, const void *now);
