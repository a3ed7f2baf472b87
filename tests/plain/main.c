/* SPDX-License-Identifier: MIT */
/*
 * Runs the tests that this program holds, each in a forked child with a bound on its time, and sums up.
 *
 * usage: PROGRAM [--filter=SUITE/NAME] [--list] [--here]
 * --filter takes a file name pattern; --here runs the first test that fits in this process, for a debugger.
 * PLAIN_PATIENCE multiplies every bound: for emulators and sanitizers.
 */
#include "criterion/criterion.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PLAIN_TIMEOUT_S 120.0
#ifndef PLAIN_PATIENCE_DEFAULT
#define PLAIN_PATIENCE_DEFAULT 1
#endif
#define STATUS_FAILED 1

static struct plain_test *tests, **tests_end = &tests;
static struct plain_suite *suites;

/* Shared with the child that runs a test, and with its children. */
static struct report {
	unsigned failed; /* checks */
	bool skipped;
	char why[256];
} * report;

void plain_enter_test(struct plain_test *t)
{
	*tests_end = t;
	tests_end = &t->next;
}

void plain_enter_suite(struct plain_suite *s)
{
	s->next = suites;
	suites = s;
}

void plain_failed(const char *file, int line, const char *expr, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fflush(stdout);
	dprintf(STDERR_FILENO, "%s:%d: does not hold: %s%s%s\n", file, line, expr, text[1] ? ":" : "",
		text[1] ? text : "");
	__atomic_fetch_add(&report->failed, 1, __ATOMIC_RELAXED);
}

void plain_end(void)
{
	_exit(STATUS_FAILED);
}

void plain_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(report->why, sizeof(report->why), fmt, ap);
	va_end(ap);
	report->skipped = true;
	_exit(0);
}

static void redirect(int fd)
{
	FILE *f = tmpfile();

	if (!f || dup2(fileno(f), fd) < 0) {
		plain_failed(__FILE__, __LINE__, "a file for the output", " errno %d", errno);
		plain_end();
	}
}

void cr_redirect_stdout(void)
{
	fflush(stdout);
	redirect(STDOUT_FILENO);
}

void cr_redirect_stderr(void)
{
	redirect(STDERR_FILENO);
}

/* What a test does not say its suite may say for it. */
static struct plain_options options_of(const struct plain_test *t)
{
	struct plain_options o = t->options;

	for (const struct plain_suite *s = suites; s; s = s->next) {
		if (strcmp(s->name, t->suite))
			continue;
		o.init = o.init ? o.init : s->options.init;
		o.fini = o.fini ? o.fini : s->options.fini;
		o.timeout = o.timeout > 0 ? o.timeout : s->options.timeout;
		o.signal = o.signal ? o.signal : s->options.signal;
		o.exit_code = o.exit_code ? o.exit_code : s->options.exit_code;
		o.disabled |= s->options.disabled;
	}
	if (o.timeout <= 0)
		o.timeout = PLAIN_TIMEOUT_S;
	return o;
}

static __attribute__((noreturn)) void run_here(const struct plain_test *t, const struct plain_options *o)
{
	if (o->init)
		o->init();
	t->body();
	if (o->fini)
		o->fini();
	fflush(NULL);
	exit(__atomic_load_n(&report->failed, __ATOMIC_RELAXED) ? STATUS_FAILED : 0);
}

static double patience(void)
{
	const char *s = getenv("PLAIN_PATIENCE");
	double times = s ? strtod(s, NULL) : PLAIN_PATIENCE_DEFAULT;

	return times >= 1 ? times : 1;
}

/* SIGCHLD is blocked: it comes as an answer. False: the time is over. */
static bool wait_child(pid_t pid, double seconds, int *status_p)
{
	struct timespec now, end;
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (time_t)seconds + 1;
	while (waitpid(pid, status_p, WNOHANG) != pid) {
		struct timespec left;

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= end.tv_sec)
			return false;
		left = (struct timespec){end.tv_sec - now.tv_sec, 0};
		sigtimedwait(&child, NULL, &left);
	}
	return true;
}

/* Why a test that ended with @status has failed, or NULL. */
static const char *verdict(const struct plain_options *o, int status, char *why, size_t len)
{
	int signo = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	if (signo != o->signal && o->signal)
		snprintf(why, len, "signal %d should have ended it; status %#x", o->signal, status);
	else if (signo != o->signal)
		snprintf(why, len, "signal %d (%s) ended it", signo, strsignal(signo));
	else if (!signo && WEXITSTATUS(status) != o->exit_code)
		snprintf(why, len, "exit status %d", WEXITSTATUS(status));
	else if (report->failed)
		snprintf(why, len, "%u checks failed", report->failed);
	else
		return NULL;
	return why;
}

enum outcome { PASSED, FAILED, SKIPPED };

static enum outcome run_test(const struct plain_test *t, const struct plain_options *o)
{
	double seconds = o->timeout * patience();
	const char *failure;
	sigset_t none;
	int status = 0;
	char why[128];
	pid_t pid;

	memset(report, 0, sizeof(*report));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return FAILED;
	}
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		run_here(t, o);
	}
	setpgid(pid, pid);
	if (wait_child(pid, seconds, &status)) {
		failure = verdict(o, status, why, sizeof(why));
		kill(-pid, SIGKILL); /* what it has left behind */
	} else {
		kill(-pid, SIGKILL);
		waitpid(pid, &status, 0);
		snprintf(why, sizeof(why), "still ran after %.0f s", seconds);
		failure = why;
	}
	if (failure)
		printf("FAIL %s/%s: %s\n", t->suite, t->name, failure);
	else if (report->skipped)
		printf("SKIP %s/%s:%s\n", t->suite, t->name, report->why);
	return failure ? FAILED : report->skipped ? SKIPPED : PASSED;
}

static int run_all(const char *filter)
{
	unsigned n[3] = {0, 0, 0};

	for (const struct plain_test *t = tests; t; t = t->next) {
		struct plain_options o = options_of(t);
		char name[256];

		snprintf(name, sizeof(name), "%s/%s", t->suite, t->name);
		if (filter && fnmatch(filter, name, 0))
			continue;
		if (o.disabled) {
			printf("SKIP %s: disabled\n", name);
			n[SKIPPED]++;
			continue;
		}
		n[run_test(t, &o)]++;
	}
	printf("%u passed, %u failed, %u skipped\n", n[PASSED], n[FAILED], n[SKIPPED]);
	return n[FAILED] || !(n[PASSED] + n[SKIPPED]) ? STATUS_FAILED : 0;
}

static int show(const char *filter, bool here)
{
	for (const struct plain_test *t = tests; t; t = t->next) {
		struct plain_options o = options_of(t);
		char name[256];

		snprintf(name, sizeof(name), "%s/%s", t->suite, t->name);
		if (filter && fnmatch(filter, name, 0))
			continue;
		if (here)
			run_here(t, &o);
		puts(name);
	}
	return here ? STATUS_FAILED : 0;
}

int main(int argc, char **argv)
{
	const char *filter = NULL;
	bool list = false, here = false;
	sigset_t child;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--filter=", 9)) {
			filter = argv[i] + 9;
		} else if (!strcmp(argv[i], "--list")) {
			list = true;
		} else if (!strcmp(argv[i], "--here")) {
			here = true;
		} else {
			fprintf(stderr, "usage: %s [--filter=SUITE/NAME] [--list] [--here]\n", argv[0]);
			return 2;
		}
	}
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (report == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	if (list || here)
		return show(filter, here);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	return run_all(filter);
}
