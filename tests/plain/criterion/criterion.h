/* SPDX-License-Identifier: MIT */
/*
 * The part of Criterion's interface that the suites here use, for builds in which Criterion itself cannot run: it puts
 * its arena where ThreadSanitizer does not allow one, execs itself, which user-mode emulators do not do well, and its
 * processes end in a way that passes LeakSanitizer by. Each test runs in a forked child (main.c).
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

struct plain_options {
	void (*init)(void);
	void (*fini)(void);
	double timeout; /* seconds; 0: PLAIN_TIMEOUT_S */
	int signal;	/* the one that must end it; 0: none may */
	int exit_code;
	bool disabled;
	const char *description;
};

struct plain_test {
	const char *suite, *name;
	void (*body)(void);
	struct plain_options options;
	struct plain_test *next;
};

struct plain_suite {
	const char *name;
	struct plain_options options;
	struct plain_suite *next;
};

void plain_enter_test(struct plain_test *t);
void plain_enter_suite(struct plain_suite *s);
/* Says that @expr does not hold. Any kernel thread, any child of the test. */
void plain_failed(const char *file, int line, const char *expr, const char *fmt, ...)
	__attribute__((cold, format(printf, 4, 5)));
void plain_end(void) __attribute__((cold, noreturn));
void plain_skip(const char *fmt, ...) __attribute__((cold, noreturn, format(printf, 1, 2)));
void cr_redirect_stdout(void);
void cr_redirect_stderr(void);

#define Test(suite_, name_, ...)                                                                             \
	static void suite_##_##name_##_body(void);                                                           \
	static struct plain_test suite_##_##name_##_test = {.suite = #suite_,                                \
							    .name = #name_,                                  \
							    .body = suite_##_##name_##_body,                 \
							    .options = {__VA_ARGS__}};                       \
	static __attribute__((constructor)) void suite_##_##name_##_enter(void)                              \
	{                                                                                                    \
		plain_enter_test(&suite_##_##name_##_test);                                                  \
	}                                                                                                    \
	static void suite_##_##name_##_body(void)

#define TestSuite(suite_, ...)                                                                               \
	static struct plain_suite suite_##_suite = {.name = #suite_, .options = {__VA_ARGS__}};              \
	static __attribute__((constructor)) void suite_##_suite_enter(void)                                  \
	{                                                                                                    \
		plain_enter_suite(&suite_##_suite);                                                          \
	}                                                                                                    \
	_Static_assert(true, "")

/* A message may follow, as printf() takes it; it begins with a string literal. */
#define PLAIN_CHECK(fatal, cond, text, ...)                                                                  \
	do {                                                                                                 \
		if ((cond))                                                                                  \
			break;                                                                               \
		plain_failed(__FILE__, __LINE__, text, " " __VA_ARGS__);                                     \
		if (fatal)                                                                                   \
			plain_end();                                                                         \
	} while (0)
#define PLAIN_FLOAT_EQ(a, b, eps) (((a) > (b) ? (a) - (b) : (b) - (a)) <= (eps))

#define cr_skip(...)	      plain_skip(" " __VA_ARGS__)
#define cr_skip_test(...)     plain_skip(" " __VA_ARGS__)
#define cr_log_info(fmt, ...) fprintf(stderr, fmt "\n" __VA_OPT__(, ) __VA_ARGS__)
#define cr_fail(...)	      PLAIN_CHECK(false, false, "fail", __VA_ARGS__)
#define cr_assert_fail(...)   PLAIN_CHECK(true, false, "fail", __VA_ARGS__)

#define cr_assert(cond, ...)		    PLAIN_CHECK(true, cond, #cond, __VA_ARGS__)
#define cr_assert_not(cond, ...)	    PLAIN_CHECK(true, !(cond), "!(" #cond ")", __VA_ARGS__)
#define cr_assert_null(p, ...)		    PLAIN_CHECK(true, (p) == NULL, #p " == NULL", __VA_ARGS__)
#define cr_assert_not_null(p, ...)	    PLAIN_CHECK(true, (p) != NULL, #p " != NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...)		    PLAIN_CHECK(true, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...)	    PLAIN_CHECK(true, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...)		    PLAIN_CHECK(true, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...)	    PLAIN_CHECK(true, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...)		    PLAIN_CHECK(true, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...)	    PLAIN_CHECK(true, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)	    PLAIN_CHECK(true, !strcmp(a, b), #a " == " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)	    PLAIN_CHECK(true, strcmp(a, b), #a " != " #b, __VA_ARGS__)
#define cr_assert_str_empty(a, ...)	    PLAIN_CHECK(true, !*(a), #a " == \"\"", __VA_ARGS__)
#define cr_assert_str_not_empty(a, ...)	    PLAIN_CHECK(true, *(a), #a " != \"\"", __VA_ARGS__)
#define cr_assert_arr_eq(a, b, bytes, ...)  PLAIN_CHECK(true, !memcmp(a, b, bytes), #a " == " #b, __VA_ARGS__)
#define cr_assert_arr_neq(a, b, bytes, ...) PLAIN_CHECK(true, memcmp(a, b, bytes), #a " != " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, eps, ...)                                                                   \
	PLAIN_CHECK(true, PLAIN_FLOAT_EQ(a, b, eps), #a " == " #b, __VA_ARGS__)

#define cr_expect(cond, ...)		    PLAIN_CHECK(false, cond, #cond, __VA_ARGS__)
#define cr_expect_not(cond, ...)	    PLAIN_CHECK(false, !(cond), "!(" #cond ")", __VA_ARGS__)
#define cr_expect_null(p, ...)		    PLAIN_CHECK(false, (p) == NULL, #p " == NULL", __VA_ARGS__)
#define cr_expect_not_null(p, ...)	    PLAIN_CHECK(false, (p) != NULL, #p " != NULL", __VA_ARGS__)
#define cr_expect_eq(a, b, ...)		    PLAIN_CHECK(false, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...)	    PLAIN_CHECK(false, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...)		    PLAIN_CHECK(false, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...)	    PLAIN_CHECK(false, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...)		    PLAIN_CHECK(false, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...)	    PLAIN_CHECK(false, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)	    PLAIN_CHECK(false, !strcmp(a, b), #a " == " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...)	    PLAIN_CHECK(false, strcmp(a, b), #a " != " #b, __VA_ARGS__)
#define cr_expect_str_empty(a, ...)	    PLAIN_CHECK(false, !*(a), #a " == \"\"", __VA_ARGS__)
#define cr_expect_str_not_empty(a, ...)	    PLAIN_CHECK(false, *(a), #a " != \"\"", __VA_ARGS__)
#define cr_expect_arr_eq(a, b, bytes, ...)  PLAIN_CHECK(false, !memcmp(a, b, bytes), #a " == " #b, __VA_ARGS__)
#define cr_expect_arr_neq(a, b, bytes, ...) PLAIN_CHECK(false, memcmp(a, b, bytes), #a " != " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, eps, ...)                                                                   \
	PLAIN_CHECK(false, PLAIN_FLOAT_EQ(a, b, eps), #a " == " #b, __VA_ARGS__)
