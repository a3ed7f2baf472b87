/* SPDX-License-Identifier: MIT */
/* Whose memory malloc hands out: the proclet's to the program's code, the C library's to everybody else. */
#include "core/core.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE ((char *)0x300000000000)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
Test(malloc, the_sanitizer_brings_its_own)
{
	cr_skip("malloc is the sanitizer's in this build");
}
#else
int __asprintf_chk(char **str_p, int flag, const char *fmt, ...);
ssize_t __getdelim(char **line_p, size_t *len_p, int delim, FILE *f);

static struct nu_proclet proclets[2];
static struct nu_proclet *current;

static struct nu_proclet *get_current(void)
{
	return current;
}

static void make_proclet(struct nu_proclet *p, uint64_t id, char *base, size_t capacity)
{
	struct nu_proclet_head *head =
		mmap(base, capacity, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	cr_assert_eq((char *)head, base);
	p->heap = nu_heap_init(base, capacity, capacity);
	p->head = head;
	p->id = id;
	*head = (struct nu_proclet_head){.id = id, .heap = p->heap, .capacity_bytes = capacity};
}

static void setup(void)
{
	nu_layout.seg_base = (uintptr_t)BASE;
	nu_layout.seg_region_bytes = (size_t)1 << 45;
	nu_node.cores = 1;
	make_proclet(&proclets[0], nu_id_make(0, 7), BASE, 4 * NU_MIB);
	make_proclet(&proclets[1], nu_id_make(16, 9), BASE + 16 * NU_MIB, 4 * NU_MIB);
	cr_assert_eq(nu_image_init(NULL), 0);
	nu_current_proclet_fn = get_current;
}

/* Runs in proclet 0. The compiler must not see through it. */
static void enter(void)
{
	current = &proclets[0];
	__asm__ volatile("" : : : "memory");
}

static void leave(void)
{
	__asm__ volatile("" : : : "memory");
	current = NULL;
}

static void *opaque(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static size_t opaque_size(size_t n)
{
	__asm__ volatile("" : "+r"(n));
	return n;
}

static bool in_heap(const void *p)
{
	return (uintptr_t)p - (uintptr_t)BASE < 4 * NU_MIB;
}

static size_t live(void)
{
	return nu_heap_live_bytes(proclets[0].heap);
}

Test(malloc, outside_of_proclets_it_is_libc)
{
	/* Nothing is set up yet: no layout, no image, no current proclet. */
	void *p = opaque(malloc(100));
	cr_assert(p);
	p = opaque(realloc(p, 100000));
	cr_assert_geq(malloc_usable_size(p), 100000);
	free(p);
	nu_current_proclet_fn = NULL;
	free(opaque(malloc(10)));
	setup();
	p = opaque(malloc(100));
	cr_assert_not(nu_addr_in_segments(p));
	enter();
	free(p); /* by address */
	leave();
	cr_assert_eq(live(), 0);
}

Test(malloc, the_family_in_a_proclet, .init = setup)
{
	void *p[10];
	unsigned n = 0;
	int err;

	enter();
	p[n++] = malloc(100);
	p[n++] = calloc(10, 30);
	p[n++] = aligned_alloc(64, 128);
	err = posix_memalign(&p[n++], 4096, 5000);
	p[n++] = memalign(24, 100); /* rounds up to 32 */
	p[n++] = valloc(10);
	p[n++] = pvalloc(10);
	p[n++] = reallocarray(NULL, 7, 9);
	p[n++] = strdup("a string");
	p[n++] = strndup("a string", 3);
	leave();
	cr_assert_eq(err, 0);
	for (unsigned i = 0; i < n; i++)
		cr_assert(p[i] && in_heap(p[i]), "%u is %p", i, p[i]);
	cr_assert_eq((uintptr_t)p[2] % 64, 0);
	cr_assert_eq((uintptr_t)p[3] % 4096, 0);
	cr_assert_eq((uintptr_t)p[4] % 32, 0);
	cr_assert_eq((uintptr_t)p[5] % 4096, 0);
	cr_assert_eq((uintptr_t)p[6] % 4096, 0);
	cr_assert_str_eq(p[8], "a string");
	cr_assert_str_eq(p[9], "a s");
	cr_assert_gt(live(), 5000);
	enter();
	size_t usable = malloc_usable_size(p[3]);
	while (n)
		free(p[--n]);
	free(NULL);
	leave();
	cr_assert_geq(usable, 5000);
	cr_assert_eq(live(), 0);
	cr_assert_eq(nu_heap_check(proclets[0].heap), 0);
}

Test(malloc, calloc_clears_used_memory, .init = setup)
{
	for (unsigned round = 0; round < 3; round++) {
		for (size_t len = 8; len < 200000; len *= 3) {
			enter();
			char *p = opaque(malloc(len));
			memset(p, 0xff, len);
			free(p);
			p = opaque(calloc(1, len));
			leave();
			cr_assert(in_heap(p));
			for (size_t i = 0; i < len; i++)
				cr_assert_eq(p[i], 0);
			enter();
			free(p);
			leave();
		}
	}
}

Test(malloc, realloc_keeps_contents, .init = setup)
{
	static const size_t lens[] = {10, 24, 100, 90, 5000, 70000, 69000, 500000, 300, 1};
	size_t old = 0;
	unsigned char *p = NULL;

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		enter();
		p = opaque(realloc(p, lens[i]));
		leave();
		cr_assert(in_heap(p));
		for (size_t k = 0; k < old && k < lens[i]; k++)
			cr_assert_eq(p[k], (unsigned char)(k * 7));
		for (size_t k = 0; k < lens[i]; k++)
			p[k] = (unsigned char)(k * 7);
		old = lens[i];
	}
	cr_assert_leq(live(), 16); /* it shrank */
	enter();
	p = opaque(realloc(p, 0));
	leave();
	cr_assert_null(p);
	cr_assert_eq(live(), 0);
}

Test(malloc, a_libc_block_resized_in_a_proclet_becomes_its, .init = setup)
{
	char *p = opaque(strdup("from outside"));

	cr_assert_not(in_heap(p));
	enter();
	p = opaque(realloc(p, 1000));
	leave();
	cr_assert(in_heap(p));
	cr_assert_str_eq(p, "from outside");
}

Test(malloc, full_heap_gives_enomem, .init = setup)
{
	void *p[8];
	int errs[8], err;
	char *s, *keep, *grown;

	enter();
	keep = malloc(100);
	strcpy(keep, "keep");
	errno = 0, p[0] = malloc(opaque_size(5 * NU_MIB)), errs[0] = errno;
	errno = 0, p[1] = calloc(opaque_size(SIZE_MAX / 2), 3), errs[1] = errno;
	errno = 0, p[2] = reallocarray(opaque(keep), opaque_size(SIZE_MAX / 2), 3), errs[2] = errno;
	errno = 0, p[3] = realloc(opaque(keep), opaque_size(5 * NU_MIB)), errs[3] = errno;
	errno = 0, p[4] = aligned_alloc(64, opaque_size(64 * NU_MIB)), errs[4] = errno;
	errno = 0, p[5] = pvalloc(opaque_size(SIZE_MAX - 10)), errs[5] = errno;
	errno = 0, p[6] = malloc(opaque_size(SIZE_MAX)), errs[6] = errno;
	errno = 0, p[7] = calloc(opaque_size(5), NU_MIB), errs[7] = errno;
	errno = 0;
	err = posix_memalign((void **)&s, 64, 64 * NU_MIB);
	leave();
	for (unsigned i = 0; i < 8; i++) {
		cr_assert_null(p[i], "%u", i);
		cr_assert_eq(errs[i], ENOMEM, "%u", i);
	}
	cr_assert_eq(err, ENOMEM);
	cr_assert_eq(errno, 0, "posix_memalign leaves errno alone");
	cr_assert_str_eq(keep, "keep");
	enter();
	err = posix_memalign((void **)&s, opaque_size(24), 64);
	errno = 0;
	p[0] = aligned_alloc(opaque_size(48), 96);
	errs[0] = errno;
	grown = realloc(opaque(keep), 200000);
	leave();
	cr_assert_eq(err, EINVAL);
	cr_assert_null(p[0]);
	cr_assert_eq(errs[0], EINVAL);
	cr_assert(in_heap(grown));
	cr_assert_str_eq(grown, "keep");
}

static int via_list(char **p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vasprintf(p, fmt, ap);
	va_end(ap);
	return n;
}

Test(malloc, formatted_strings, .init = setup)
{
	static char longer[1000];
	char *a, *b, *c, *d;
	int n[4];

	memset(longer, 'x', sizeof(longer) - 1);
	enter();
	n[0] = asprintf(&a, "%d+%s", 17, "b");
	n[1] = asprintf(&b, "%s|%s", longer, longer);
	n[2] = via_list(&c, "%5.1f", 2.5);
	n[3] = __asprintf_chk(&d, 1, "%s!", longer);
	leave();
	cr_assert(in_heap(a) && in_heap(b) && in_heap(c) && in_heap(d));
	cr_assert_str_eq(a, "17+b");
	cr_assert_str_eq(c, "  2.5");
	cr_assert_eq(n[0], 4);
	cr_assert_eq(n[1], 1999);
	cr_assert_eq(n[1], (int)strlen(b));
	cr_assert_eq(b[999], '|');
	cr_assert_eq(n[2], 5);
	cr_assert_eq(n[3], 1000);
	cr_assert_eq(d[999], '!');
}

Test(malloc, lines, .init = setup)
{
	static char text[9000];
	char *line = NULL;
	size_t len = 0;
	ssize_t got[6];
	FILE *f;
	int err;

	memset(text, 'y', sizeof(text));
	memcpy(text, "one\n\n", 5);
	memcpy(text + 8000, "\nlast", 5);
	f = fmemopen(text, 8005, "r");
	enter();
	got[0] = getline(&line, &len, f);
	leave();
	cr_assert(in_heap(line));
	cr_assert_str_eq(line, "one\n");
	enter();
	got[1] = getline(&line, &len, f);
	got[2] = getdelim(&line, &len, '\n', f);
	leave();
	cr_assert_eq(line[7995], '\n');
	cr_assert_gt(len, 7996);
	enter();
	got[3] = __getdelim(&line, &len, 'a', f);
	leave();
	cr_assert_str_eq(line, "la");
	enter();
	got[4] = getline(&line, &len, f);
	got[5] = getline(&line, &len, f);
	errno = 0;
	ssize_t bad = getline(NULL, &len, f);
	err = errno;
	free(line);
	leave();
	cr_assert_eq(got[0], 4);
	cr_assert_eq(got[1], 1);
	cr_assert_eq(got[2], 7996);
	cr_assert_eq(got[3], 2);
	cr_assert_eq(got[4], 2);
	cr_assert_eq(got[5], -1);
	cr_assert_eq(bad, -1);
	cr_assert_eq(err, EINVAL);
	fclose(f);
	cr_assert_eq(live(), 0);
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

Test(malloc, the_c_library_never_allocates_in_a_heap, .init = setup)
{
	static int big[300000];
	char *name, buf[100];
	FILE *f;

	enter();
	f = fopen("/proc/self/status", "r");
	name = fgets(buf, sizeof(buf), f); /* makes stdio's buffer */
	size_t after = live();
	fclose(f);
	qsort(big, 300000, sizeof(big[0]), compare); /* takes a buffer */
	name = realpath("/proc/..", NULL);
	size_t end = live();
	leave();
	cr_assert_eq(after, 0);
	cr_assert_eq(end, 0);
	cr_assert_str_eq(name, "/");
	cr_assert_not(nu_addr_in_segments(name));
	enter();
	free(name);
	leave();
}

Test(malloc, freeing_another_proclets_block_aborts, .init = setup, .signal = SIGABRT)
{
	enter();
	void *p = opaque(malloc(10));
	current = &proclets[1];
	free(p);
}

Test(malloc, freeing_a_heap_block_outside_of_proclets_aborts, .init = setup, .signal = SIGABRT)
{
	enter();
	void *p = opaque(malloc(10));
	leave();
	free(p);
}

Test(malloc, the_message_names_both_proclets, .init = setup)
{
	struct nu_proclet *owner;
	char text[2000] = "";
	int fds[2], status;
	size_t n = 0;
	ssize_t k;
	pid_t pid;

	cr_assert_eq(nu_proclet_table_init(), 0);
	cr_assert_eq(nu_proclet_enter(proclets[0].id, &owner), 0);
	owner->head = proclets[0].head;
	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		enter();
		void *p = opaque(malloc(10));
		current = &proclets[1];
		free(p);
		_exit(0);
	}
	close(fds[1]);
	while (n < sizeof(text) - 1 && (k = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)k;
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert(strstr(text, "proclet 0x80000000009"), "%s", text);
	cr_assert(strstr(text, "of proclet 0x7"), "%s", text);
}

Test(malloc, resizing_another_proclets_block_aborts, .init = setup, .signal = SIGABRT)
{
	enter();
	void *p = opaque(malloc(10));
	current = &proclets[1];
	p = opaque(realloc(p, 20));
}
#endif
