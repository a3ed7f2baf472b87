/* SPDX-License-Identifier: MIT */
/* A GNU C nested function that uses its outer's variables: called by way of code on the stack, also after moves. */
#include <nu/nu.h>

#include <stdio.h>
#include <stdlib.h>

struct sorter {
	int turns;
};
NU_CLASS(sorter);
NU_METHOD(sorter, run, val(int), val(int, sign));

int sorter_init(struct sorter *self)
{
	return 0;
}

int sorter_do_run(struct sorter *self, int sign)
{
	int items[50], asked = 0, ret = 0;
	int compare(const void *a, const void *b)
	{
		asked++;
		return sign * (*(const int *)a - *(const int *)b);
	}

	for (unsigned turn = 0; turn < 6 && !ret; turn++) {
		for (int i = 0; i < 50; i++)
			items[i] = i * 37 % 50;
		qsort(items, 50, sizeof(items[0]), compare);
		if (!asked || items[0] != (sign < 0 ? 49 : 0))
			return -1;
		ret = nu_migrate(nu_self(), turn % nu_node_count());
	}
	return ret ? ret : items[0];
}

static int mainfunc(int argc, char **argv)
{
	int first = -1, ret;
	NU_SCOPED(sorter, p);

	ret = sorter_create(NULL, &p);
	if (!ret)
		ret = sorter_run(p, -1, &first);
	printf("%d came first, %s\n", first, nu_strerror(ret));
	return ret || first != 49;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, mainfunc, NULL);
}
