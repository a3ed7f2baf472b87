/* SPDX-License-Identifier: MIT */
/*
 * For perf/ and tests only; not installed, no promise. Raw access below the API, so that a figure can be put beside its
 * limit in the same run.
 */
#pragma once

#include "nu.h"

/* Reads @len_bytes at @remote of node @node's memory into @local, one-sidedly, by the reader chosen for that pair.
 * Errors: -ENODEV no reader; -EIO; -EHOSTDOWN. */
NU_API int __must_check nu_testing_read(unsigned node, void *local, const void *remote, size_t len_bytes);
/* Name of the reader for @node ("cma"), and of the transport of the calling core's connection to it ("posix/memory"). */
NU_API const char *nu_testing_reader(unsigned node);
NU_API int __must_check nu_testing_transport(unsigned node, char *buf, size_t len);
/* The node's own clock, which does not stand still over a move: comparable between nodes of one host. */
NU_API uint64_t nu_testing_mono_ns(void);
