/* SPDX-License-Identifier: MIT */
/* Which program a file holds. */
#pragma once

#include <stddef.h>

/* The file that execvp(3) would take for @name. 0, -ENOENT, -EACCES. */
int __attribute__((warn_unused_result)) buildid_find(const char *name, char *path, size_t size);
/* "build-id HEX", or, of a file without one, "hash HEX" of all of it. 0 or -errno. */
int __attribute__((warn_unused_result)) buildid_of(const char *path, char *id, size_t size);
