/* SPDX-License-Identifier: MIT */
/* A proclet's blocks are what they were after moves, by whatever means they were made; else the program must not start. */
#include <nu/nu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 500

struct keeper {
	char *block[BLOCKS];
	char *text;
};
NU_CLASS(keeper);
NU_METHOD(keeper, check, val(int));

int keeper_init(struct keeper *self)
{
	for (int i = 0; i < BLOCKS; i++) {
		self->block[i] = malloc(100 + i);
		memset(self->block[i], i % 120 + 1, 100 + i);
	}
	return asprintf(&self->text, "%d blocks", BLOCKS) < 0 ? -ENOMEM : 0;
}

int keeper_do_check(struct keeper *self)
{
	int bad = strcmp(self->text, "500 blocks") != 0;

	for (int i = 0; i < BLOCKS; i++) {
		for (int k = 0; k < 100 + i; k++)
			bad += self->block[i][k] != i % 120 + 1;
		self->block[i] = realloc(self->block[i], 100 + i);
	}
	free(self->text);
	self->text = strdup("500 blocks");
	return bad;
}

static int mainfunc(int argc, char **argv)
{
	struct nu_options here = {.node = NU_NODE(0)};
	int bad = 0, ret;
	NU_SCOPED(keeper, p);

	ret = keeper_create(&here, &p);
	for (unsigned i = 0; i < 6 && !ret && !bad; i++) {
		ret = nu_migrate(p.ref, i % nu_node_count());
		if (!ret)
			ret = keeper_check(p, &bad);
	}
	printf("%d bytes are wrong, %s\n", bad, nu_strerror(ret));
	return ret || bad;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, mainfunc, NULL);
}
