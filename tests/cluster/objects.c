/* SPDX-License-Identifier: MIT */
/* Classes in shared objects: cluster_objects OBJECT. One is linked with the program, the other opened before nu_run(). */
#include "check.h"
#include "objects.h"

#include <dlfcn.h>

#define COMPUTE_US 300000u
#define TEXT	   "malloc'ed by an object"

static const struct shelf_ops *opened;

static void check_text(struct shelf_ref s)
{
	struct nu_str text = {NULL, 0};

	CHECK_IS(shelf_text(s, &text), 0);
	CHECK(text.s && !strcmp(text.s, TEXT));
	free((void *)text.s);
}

static void shelf_of(int (*create)(unsigned node, const char *text, struct shelf_ref *ref_p))
{
	NU_SCOPED(shelf, s);
	uint64_t sum = 0, want = 0;

	CHECK_IS(create(1, TEXT, &s), 0);
	for (unsigned node = 0; node < nu_node_count(); node++) {
		int got = 0;

		CHECK_IS(check_move(s.ref, node), 0);
		check_text(s);
		CHECK_IS(shelf_add(s, 1, &sum), 0);
		CHECK_IS(shelf_ops.add(s, 10, &sum), 0);
		CHECK_IS(opened->add(s, 100, &sum), 0);
		want += 111;
		CHECK_IS(sum, want);
		CHECK_IS(shelf_apply(s, shelf_ops.twice, 21, &got), 0);
		CHECK_IS(got, 42);
		CHECK_IS(shelf_apply(s, opened->twice, 4, &got), 0);
		CHECK_IS(got, 8);
	}
}

static int own_create(unsigned node, const char *text, struct shelf_ref *ref_p)
{
	return shelf_create(&(struct nu_options){.node = NU_NODE(node)}, nu_str(text), ref_p);
}

static void created_by_the_program(void)
{
	shelf_of(own_create);
}

static void created_by_a_linked_object(void)
{
	shelf_of(shelf_ops.create);
}

static void created_by_an_opened_object(void)
{
	shelf_of(opened->create);
}

/* The object's code is interrupted like the program's. */
static void moved_while_it_computes(void)
{
	NU_SCOPED(shelf, s);
	NU_SCOPED_FUTURE(shelf, compute, f);
	uint64_t at = 0;

	CHECK_IS(own_create(1, TEXT, &s), 0);
	CHECK_IS(shelf_compute_async(s, COMPUTE_US, &f), 0);
	CHECK_IS(nu_migrate(s.ref, 0), 0);
	CHECK_IS(shelf_compute_wait(&f, &at), 0);
	CHECK_IS(at, 0);
	check_text(s);
}

static int objects_main(int argc, char **argv)
{
	CHECK_RUN(created_by_the_program);
	CHECK_RUN(created_by_a_linked_object);
	CHECK_RUN(created_by_an_opened_object);
	CHECK_RUN(moved_while_it_computes);
	return check_done();
}

int main(int argc, char **argv)
{
	void *handle = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;

	opened = handle ? dlsym(handle, "shelf_ops") : NULL;
	if (!opened) {
		fprintf(stderr, "%s: %s\n", argc == 2 ? argv[1] : "usage: cluster_objects OBJECT", dlerror());
		return 2;
	}
	return nu_run(argc, argv, objects_main, &(struct nu_run_options){.writable_globals = true});
}
