/* SPDX-License-Identifier: MIT */
/*
 * Whether all threads of a job wait for each other, with nothing else to come: asleep.c finds out for a node, deadlock.c for
 * the job, waiting.c says who waits for what.
 */
#pragma once

#include "ctrl/ctrl.h"

/* A node as it was at one moment. Two that are equal: nothing has run between them. */
struct nu_asleep {
	uint64_t asleep; /* 0: something runs, or will by itself; the rest means nothing */
	uint64_t
		waits; /* sums over the calls that are waited for, and those that are served, wherever the other is */
	uint64_t serves;
	uint64_t threads;  /* that wait */
	uint64_t activity; /* what has ever begun here, but for the looks themselves */
};

/* In this order: what kernel threads the program has can be told only so. From the kernel thread that starts the node. */
enum nu_asleep_step { NU_ASLEEP_BEGIN, NU_ASLEEP_INIT, NU_ASLEEP_INIT_DONE, NU_ASLEEP_DONE };
void nu_asleep_start(enum nu_asleep_step step);
/* The calling thread, of the runtime, is not looked at: it sleeps and wakes by itself. */
void nu_asleep_except(const struct nu_thread *t);
const struct nu_thread *nu_asleep_excepted(void);
/* A look at this node. @served: calls of such looks that were served here before. Thread context. */
void nu_asleep_look(struct nu_asleep *a, uint64_t served);
/* Logs each thread of this node that waits, up to a number. Thread context. */
void nu_waiting_say(void);
