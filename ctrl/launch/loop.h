/* SPDX-License-Identifier: MIT */
/*
 * The launcher's event loop.
 */
#pragma once

#include "launch.h"

struct loop {
	int signal_fd, listener, event_fd;
};
/* Blocks the signals that the loop takes; before any thread is made. */
int loop_init(struct loop *l);
/* Until the job is over. */
void loop_run(struct loop *l, struct job *job);
