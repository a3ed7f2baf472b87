/* SPDX-License-Identifier: MIT */
/* Errors in words, and nu_str(). */
#include "core/core.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

Test(error, names_and_meanings)
{
	cr_assert_str_eq(nu_strerror(-ESTALE), "ESTALE: no such proclet any more");
	cr_assert_eq(nu_strerror(ESTALE), nu_strerror(-ESTALE));
	cr_assert_str_eq(nu_strerror(-EHOSTDOWN), "EHOSTDOWN: the node died, and the proclet with it");
	cr_assert_str_eq(nu_strerror(-ENOENT), "ENOENT: No such file or directory");
	cr_assert_eq(nu_strerror(-ENOENT), nu_strerror(ENOENT));
	cr_assert_str_eq(nu_strerror(0), "no error");
	cr_assert_str_eq(nu_strerror(INT32_MIN), "unknown error");
	cr_assert_str_eq(nu_strerror(100000), "unknown error");
}

Test(error, every_known_number_has_its_name)
{
	for (int e = 1; e < 134; e++) {
		const char *name = strerrorname_np(e);
		if (name)
			cr_assert(!strncmp(nu_strerror(-e), name, strlen(name)) &&
					  nu_strerror(e)[strlen(name)] == ':',
				  "%s", nu_strerror(e));
		else
			cr_assert_str_eq(nu_strerror(e), "unknown error");
	}
}

static void *ask(void *arg)
{
	(void)arg;
	for (int e = 1; e < 134; e++)
		if (strerrorname_np(e) &&
		    strncmp(nu_strerror(e), strerrorname_np(e), strlen(strerrorname_np(e))))
			return (void *)1;
	return NULL;
}

Test(error, several_threads_ask)
{
	pthread_t t[4];
	void *bad;

	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, ask, NULL), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &bad);
		cr_assert_null(bad);
	}
}

Test(error, strings_as_arguments)
{
	cr_assert_eq(nu_str("abc").len_bytes, 3);
	cr_assert_str_eq(nu_str("abc").s, "abc");
	cr_assert_eq(nu_str(NULL).len_bytes, 0);
	cr_assert_str_eq(nu_str(NULL).s, "");
}
