/* SPDX-License-Identifier: MIT */
/*
 * What tests may do to the stand-in for the runtime.
 */
#pragma once

#include <nu/nu.h>

/* Called before each call, if set. A negative errno makes the call fail with it, not run; 1 makes it succeed, not run. */
extern int (*fake_nu_fault)(struct nu_ref target, const struct nu_method *m);
/* How many proclets there are. */
unsigned fake_nu_proclets(void);
