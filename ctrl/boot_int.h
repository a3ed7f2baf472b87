/* SPDX-License-Identifier: MIT */
/*
 * Between the two halves of a node's start: boot_fork.c (the constructor) and boot.c (the talk with the launcher).
 */
#pragma once

#include "boot.h"
#include "boot_proto.h"

/* Everything here runs on kernel threads that no user-level thread's switch can replace in mid-function (the
 * constructor, foreign threads, or runtime code, which is not preempted), and before sched/ is up. So the C library's
 * errno is right, and the program's is left alone. */
#undef errno
#define errno (*__errno_location())

struct nu_boot_state {
	bool launched;
	int fd; /* control socket to the launcher; -1 without one */
};
extern struct nu_boot_state nu_boot_state;

/* Blocking, whole: 0, -EPIPE the other end is gone, -ETIMEDOUT (deadline in ns of CLOCK_MONOTONIC; 0: none), -errno. */
int nu_boot_read(int fd, void *buf, size_t len_bytes, uint64_t deadline_ns);
int nu_boot_write(int fd, const struct nu_boot_head *head, const void *payload);
