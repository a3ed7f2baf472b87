/* SPDX-License-Identifier: MIT */
/* The image: whose code is movable, which descriptors are genuine, protected globals, the digest. */
#include <criterion/criterion.h>

#include "core/core.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void run_nothing(void *self, void *args, void *result, struct nu_out *out)
{
}

/* As the class macros make them. */
#define METHOD(id)                                                                                           \
	static const struct nu_method id __attribute__((section("nu_methods"), used)) = {                    \
		.class_name = "test", .name = #id, .run = run_nothing, .magic = NU_METHOD_MAGIC}
METHOD(first);
METHOD(second);
static const struct nu_method unlisted = {.run = run_nothing, .magic = NU_METHOD_MAGIC};
static const struct nu_method spoilt __attribute__((section("nu_methods"), used)) = {.magic = 1};

static const struct nu_image image = {__start_nu_methods, __stop_nu_methods};

extern const char __start_nu_text[] __attribute__((weak, visibility("hidden")));
extern const char __stop_nu_text[] __attribute__((weak, visibility("hidden")));

static bool runtime_is_marked(void)
{
	return (uintptr_t)__start_nu_text != (uintptr_t)__stop_nu_text;
}

Test(image, movable_is_the_programs_code)
{
	int on_stack;

	cr_expect_not(nu_image_movable((const void *)run_nothing), "before init");
	cr_assert_eq(nu_image_init(&image), 0);
	cr_expect(nu_image_movable((const void *)run_nothing));
	if (!NU_SAN_IN_PROGRAM) /* it has functions of the C library's */
		cr_expect_not(nu_image_movable(dlsym(RTLD_DEFAULT, "qsort")), "the C library");
	cr_expect_not(nu_image_movable(NULL));
	cr_expect_not(nu_image_movable(&on_stack));
	cr_expect_not(nu_image_movable(&image), "data");
	if (runtime_is_marked())
		cr_expect_not(nu_image_movable(__start_nu_text));
}

Test(image, only_genuine_methods)
{
	struct nu_method *copy = aligned_alloc(64, sizeof(*copy));

	*copy = first;
	cr_expect_not(nu_image_is_method(&first), "before init");
	cr_assert_eq(nu_image_init(&image), 0);
	cr_expect(nu_image_is_method(&first));
	cr_expect(nu_image_is_method(&second));
	cr_expect_not(nu_image_is_method(&unlisted));
	cr_expect_not(nu_image_is_method(copy));
	cr_expect_not(nu_image_is_method(&spoilt));
	cr_expect_not(nu_image_is_method((const struct nu_method *)((const char *)&first + 8)));
	cr_expect_not(nu_image_is_method(image.methods_end));
	cr_expect_not(
		nu_image_is_method((const struct nu_method *)((uintptr_t)image.methods - sizeof(first))));
	cr_expect_not(nu_image_is_method(NULL));
	cr_expect_not(nu_image_is_method((const struct nu_method *)16));
	cr_expect_not(nu_image_is_method((const struct nu_method *)UINTPTR_MAX));
	free(copy);
}

/* ---- write protection ---- */

static volatile int in_data = 5;
static volatile int in_bss;
static volatile int in_large_bss[8192];

static void protect_only(void)
{
}

static void write_data(void)
{
	in_data = 6;
}

static void write_bss(void)
{
	in_bss = 6;
}

static void write_large(void)
{
	in_large_bss[4096] = 6;
}

/* Functions that the program has not called yet: lazily bound ones write to its table of calls. */
static void call_libraries(void)
{
	char buf[64];
	time_t t = 0;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !asctime_r(&tm, buf) || strcspn(buf, "J") > 20 || getppid() < 0)
		_exit(1);
	free(strdup(buf));
}

static void unprotect_and_write(void)
{
	if (nu_image_protect(false))
		_exit(1);
	in_data = in_bss = in_large_bss[4096] = 7;
}

/* How a child that is protected and calls @fn ends: 0, or the signal. */
static int ends_with(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		if (nu_image_protect(true))
			_exit(1);
		fn();
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

Test(image, protected_globals_fault_when_written)
{
	/* A runtime inside the program's own object cannot be protected from itself: then nothing is. */
	int fault = runtime_is_marked() || NU_SAN_IN_PROGRAM ? 0 : SIGSEGV;

	cr_assert_eq(nu_image_init(&image), 0);
	cr_expect_eq(ends_with(protect_only), 0);
	cr_expect_eq(ends_with(write_data), fault);
	cr_expect_eq(ends_with(write_bss), fault);
	cr_expect_eq(ends_with(write_large), fault);
	cr_expect_eq(ends_with(call_libraries), 0);
	cr_expect_eq(ends_with(unprotect_and_write), 0);
}

/* ---- the digest ---- */

Test(image, digest_is_stable_and_tells_differences)
{
	uint64_t a, b, c;
	char *text_a, *text_b, *text_c;

	cr_assert_eq(nu_image_digest(&a, &text_a), 0);
	cr_assert_eq(nu_image_digest(&b, &text_b), 0);
	cr_expect_eq(a, b);
	cr_expect_str_eq(text_a, text_b);
	cr_expect(strstr(text_a, "object (program) at 0x"), "%s", text_a);
	cr_expect(strstr(text_a, "libc.so.6"));
	cr_expect(strstr(text_a, "build-id "));
	cr_expect(strstr(text_a, "page size 4096\n"));
	cr_expect(strstr(text_a, "\ncpu "));
	cr_expect_not(strstr(text_a, "vdso"));
	nu_layout.stack_bytes *= 2;
	cr_assert_eq(nu_image_digest(&c, &text_c), 0);
	cr_expect_neq(a, c);
	cr_expect_str_neq(text_a, text_c);
	free(text_a);
	free(text_b);
	free(text_c);
}

/* The same file loaded elsewhere is another image. */
Test(image, digest_changes_with_the_objects)
{
	uint64_t a, b;
	char *text_a, *text_b;
	void *dl;

	cr_assert_eq(nu_image_digest(&a, &text_a), 0);
	dl = dlopen("libBrokenLocale.so.1", RTLD_NOW);
	cr_assert_not_null(dl);
	cr_assert_eq(nu_image_digest(&b, &text_b), 0);
	cr_expect_neq(a, b);
	cr_expect_gt(strlen(text_b), strlen(text_a));
	free(text_a);
	free(text_b);
}
