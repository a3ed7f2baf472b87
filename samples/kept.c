/* SPDX-License-Identifier: MIT */
/* References kept in proclets' heaps: a chain of cells, each kept alive by the one before it alone. */
#include <nu/nu.h>
#include <stdio.h>

NU_CLASS_DECLARE(cell, val(int, value), ref(cell, next)); /* first, because a cell holds a reference to one */
struct cell {
	int value;
	struct cell_ref next; /* counted, or none */
};
NU_CLASS_DEFINE(cell);
NU_CLASS_FINI(cell);
NU_METHOD(cell, sum, val(int));

int cell_init(struct cell *self, int value, struct cell_ref next)
{
	*self = (struct cell){value, next};
	return next.ref.id ? cell_ref_get(next) : 0; /* an argument is borrowed: this keeps it */
}

void cell_fini(struct cell *self)
{
	cell_ref_put(&self->next); /* what is kept is given back */
}

/* The sum from here on, wherever the next cells are; a negative errno if one cannot be reached. */
int cell_do_sum(struct cell *self)
{
	int rest = 0, ret = self->next.ref.id ? cell_sum(self->next, &rest) : 0;

	return ret ? ret : rest < 0 ? rest : self->value + rest;
}

static int main_fn(int argc, char **argv)
{
	NU_SCOPED(cell, first);
	int i, sum = 0, ret;

	for (i = 1; i <= 5; i++) {
		struct nu_options options = {.node = NU_NODE((unsigned)i % nu_node_count())};
		NU_SCOPED(cell,
			  next); /* given back at the end of each round: `first` has it in its heap by then */

		next = first;
		first = (struct cell_ref){0};
		if ((ret = cell_create(&options, i, next, &first)))
			return ret;
	}
	if (!(ret = cell_sum(first, &sum)))
		printf("the cells hold %d\n", sum);
	return ret || sum < 0; /* `first` is given back here, and with it goes the chain, cell by cell */
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, main_fn, NULL);
}
