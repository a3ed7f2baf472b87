/* SPDX-License-Identifier: MIT */
/*
 * Two files of one program include the same class header: both must use the same descriptors, since a descriptor's
 * address is what travels, and the section must be an array of whole ones.
 */
#include "kinds.h"

#include <stdio.h>
#include <string.h>

extern const struct nu_method *methods_of_b[];
extern const struct nu_class *class_of_b;

static int failures;
#define CHECK(e) ((e) ? (void)0 : (void)(failures++, printf("line %d: %s\n", __LINE__, #e)))

static void check_section(void)
{
	size_t bytes = (size_t)((const char *)__stop_nu_methods - (const char *)__start_nu_methods);
	int read = 0, doubled = 0;

	CHECK(bytes && bytes % sizeof(struct nu_method) == 0);
	for (const struct nu_method *m = __start_nu_methods; m < __stop_nu_methods; m++) {
		CHECK(m->magic == NU_METHOD_MAGIC);
		read += !strcmp(m->class_name, "gauge") && !strcmp(m->name, "read");
		doubled += !strcmp(m->class_name, "gauge") && !strcmp(m->name, "doubled");
	}
	CHECK(read >= 1 && read <= 2); /* a file's own copy may stay behind, unused */
	CHECK(doubled == 1);
}

int main(void)
{
	struct kinds root = {0};

	CHECK(methods_of_b[0] == &kinds_all_method);
	CHECK(methods_of_b[1] == &gauge_init_method);
	CHECK(methods_of_b[2] >= __start_nu_methods && methods_of_b[2] < __stop_nu_methods);
	CHECK(&kinds_all_method >= __start_nu_methods && &kinds_all_method < __stop_nu_methods);
	CHECK(class_of_b == &kinds_class);
	CHECK(kinds_class.init == &kinds_init_method);
	CHECK(gauge_class.fini == NULL);
	CHECK(kinds_class.fini != NULL);
	if (kinds_class.fini)
		kinds_class.fini(&root);
	CHECK(root.sum == 99);
	check_section();
	return failures != 0;
}
