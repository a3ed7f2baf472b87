/* SPDX-License-Identifier: MIT */
/* A shared object that has a class: PART is 1 for the one that the program is linked with, 2 for the one that it opens. */
#include "objects.h"

#include <stdlib.h>
#include <string.h>

static int part_create(unsigned node, const char *text, struct shelf_ref *ref_p)
{
	return shelf_create(&(struct nu_options){.node = NU_NODE(node)}, nu_str(text), ref_p);
}

static int part_add(struct shelf_ref ref, uint64_t n, uint64_t *sum_p)
{
	return shelf_add(ref, n, sum_p);
}

static int part_twice(int n)
{
	return 2 * n;
}

__attribute__((visibility("default"))) const struct shelf_ops shelf_ops = {part_create, part_add, part_twice};

#if PART == 1
#define SHELF_API __attribute__((visibility("default")))

SHELF_API int shelf_init(struct shelf *self, struct nu_str text)
{
	self->text = strdup(text.s);
	return self->text ? 0 : -ENOMEM;
}

SHELF_API void shelf_fini(struct shelf *self)
{
	free(self->text);
}

SHELF_API uint64_t shelf_do_add(struct shelf *self, uint64_t n)
{
	return self->sum += n;
}

SHELF_API void shelf_do_text(struct shelf *self, struct nu_out *out)
{
	nu_out_str(out, self->text);
}

SHELF_API int shelf_do_apply(struct shelf *self, shelf_fn f, int n)
{
	return f(n);
}

SHELF_API uint64_t shelf_do_compute(struct shelf *self, uint64_t us)
{
	uint64_t end = nu_now_us() + us;

	while (nu_now_us() < end)
		for (volatile unsigned i = 0; i < 100000; i++)
			;
	return nu_node_self();
}
#endif
