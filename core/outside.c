/* SPDX-License-Identifier: MIT */
/* Functions of the API that are for a proclet's threads, called by a kernel thread that runs none. */
#include "core/core.h"

static atomic_bool in_node_init;

void nu_outside_init(bool on)
{
	atomic_store(&in_node_init, on);
}

bool nu_outside_is_init(void)
{
	return atomic_load(&in_node_init);
}

/* Elsewhere the caller may well try and look at what comes: in node_init it is a mistake that all know of too late. */
int nu_outside(const char *what, const char *more)
{
	if (nu_outside_is_init())
		nu_err("%s%s%s is called in node_init, before there is any proclet: call it from the main "
		       "function or "
		       "from a method",
		       what, *more ? "." : "", more);
	return -EINVAL;
}
