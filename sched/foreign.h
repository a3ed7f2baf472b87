/* SPDX-License-Identifier: MIT */
/* Threads that are in a library that the program has called: where, and how they are caught when they return. foreign.c */
#pragma once

#include "sched/sched_int.h"

struct nu_foreign {
	uintptr_t pc;	  /* where it was interrupted */
	uintptr_t called; /* in the function that the program has called */
	uintptr_t *slot;  /* where on the stack that function's return address lies; NULL: it is not known */
	uintptr_t back;	  /* it */
};

/* Finds the C library's code and the processor's registers. Once, before threads run. */
void nu_foreign_init(void);
/*
 * The signal's handler, on @t's stack: whether @t, interrupted at @pc, is in a library that the program's code has called,
 * with no function of the runtime's in between, and where.
 */
bool nu_foreign_look(const struct nu_thread *t, uintptr_t pc, struct nu_foreign *o_p);
/* There: @t is to come to nu_preempt_point() when it returns to the program's code. Does nothing where that cannot be had. */
void nu_foreign_catch(struct nu_thread *t, const struct nu_foreign *o);
/* On @t's stack: whether it is still to come there. */
bool nu_foreign_is_caught(const struct nu_thread *t);
/* Whether @function is one of waits.c, which knows nothing of cores while it is in the C library. */
bool nu_waits_has(uintptr_t function);
/* Takes that back, so that the stack can be read. Signal-safe. */
void nu_foreign_release(struct nu_thread *t);

/* switch-ARCH.S: what a caught thread returns to; it calls nu_return_back() for where to go on. */
void nu_return_entry(void);
uintptr_t nu_return_back(void);
/* Registers that hold results, as bits of XCR0, and the bytes that XSAVE needs for them; 0: threads cannot be caught. */
extern uint32_t nu_return_mask, nu_return_bytes;
