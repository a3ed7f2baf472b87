/* SPDX-License-Identifier: MIT */
/* A class that the program and two shared objects declare, and whose methods lie in one of those. */
#pragma once

#include <nu/nu.h>

struct shelf {
	uint64_t sum;
	char *text; /* malloc'ed by the object's code: it lies in the proclet's heap */
};
typedef int (*shelf_fn)(int n);

NU_CLASS(shelf, str(text));
NU_CLASS_FINI(shelf);
NU_METHOD(shelf, add, val(uint64_t), val(uint64_t, n));
NU_METHOD(shelf, text, str);
NU_METHOD(shelf, compute, val(uint64_t), val(uint64_t, us));
NU_METHOD(shelf, apply, val(int), fn(shelf_fn, f), val(int, n));

/* What each object does with it. */
struct shelf_ops {
	int (*create)(unsigned node, const char *text, struct shelf_ref *ref_p);
	int (*add)(struct shelf_ref ref, uint64_t n, uint64_t *sum_p);
	shelf_fn twice;
};
extern const struct shelf_ops shelf_ops;
