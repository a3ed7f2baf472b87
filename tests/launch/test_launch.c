/* SPDX-License-Identifier: MIT */
/*
 * nu_launch, a node's start and nu_ctl as processes: what is printed, what is returned, and that nothing is left.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOUND_MS 20000

struct run {
	pid_t pid;
	int fd[2];
	char *text[2];
	size_t len[2];
	int status; /* as a shell has it */
};

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void start_argv(struct run *r, char **argv)
{
	int out[2], err[2];
	memset(r, 0, sizeof(*r));
	cr_assert(!pipe2(out, O_CLOEXEC) && !pipe2(err, O_CLOEXEC));
	r->pid = fork();
	cr_assert(r->pid >= 0);
	if (!r->pid) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGINT, SIG_DFL); /* a test runner in the background has it ignored */
		int null = open("/dev/null", O_RDONLY);
		dup2(null, 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		execv(argv[0], argv);
		_exit(250);
	}
	close(out[1]);
	close(err[1]);
	r->fd[0] = out[0];
	r->fd[1] = err[0];
}

#define start(r, ...)  start_argv(r, (char *[]){__VA_ARGS__, NULL})
#define launch(r, ...) start(r, NU_LAUNCH, __VA_ARGS__)

/* Reads what comes; false: both are at their ends. */
static bool read_some(struct run *r, int64_t until_ms)
{
	struct pollfd p[2] = {{r->fd[0], POLLIN, 0}, {r->fd[1], POLLIN, 0}};
	if (r->fd[0] < 0 && r->fd[1] < 0)
		return false;
	int64_t left = until_ms - now_ms();
	int n = poll(p, 2, left > 0 ? (int)left : 0);
	if (n == 0) {
		kill(r->pid, SIGKILL);
		cr_assert_fail("no end in time; so far: %s\n%s", r->text[0] ? r->text[0] : "",
			       r->text[1] ? r->text[1] : "");
	}
	for (int i = 0; i < 2; i++) {
		if (p[i].fd < 0 || !p[i].revents)
			continue;
		r->text[i] = realloc(r->text[i], r->len[i] + 65537);
		ssize_t got = read(p[i].fd, r->text[i] + r->len[i], 65536);
		if (got <= 0) {
			close(r->fd[i]);
			r->fd[i] = -1;
			got = 0;
		}
		r->len[i] += (size_t)got;
		r->text[i][r->len[i]] = '\0';
	}
	return true;
}

static unsigned count_of(const char *text, const char *needle)
{
	unsigned n = 0;
	for (; text && (text = strstr(text, needle)); text++)
		n++;
	return n;
}

/* Until @needle has been printed @times times. */
static void wait_text(struct run *r, int which, const char *needle, unsigned times)
{
	int64_t until_ms = now_ms() + BOUND_MS;
	while (count_of(r->text[which], needle) < times)
		cr_assert(read_some(r, until_ms), "it ended without \"%s\"; stdout: %s stderr: %s", needle,
			  r->text[0], r->text[1]);
}

static int finish(struct run *r)
{
	int64_t until_ms = now_ms() + BOUND_MS;
	int st;
	while (read_some(r, until_ms))
		;
	cr_assert(waitpid(r->pid, &st, 0) == r->pid);
	r->status = WIFSIGNALED(st) ? 128 + WTERMSIG(st) : WEXITSTATUS(st);
	return r->status;
}

/* The numbers after each "pid " (or another word); the process's own descriptors, so that pids cannot be mistaken. */
static unsigned open_pids(const char *text, const char *word, int *fds, unsigned max)
{
	unsigned n = 0;
	for (; n < max && text && (text = strstr(text, word)); text++) {
		fds[n] = (int)syscall(SYS_pidfd_open, atoi(text + strlen(word)), 0);
		if (fds[n] >= 0 || errno != ESRCH)
			n++;
	}
	return n;
}

static void must_be_gone(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct pollfd p = {.fd = fds[i], .events = POLLIN};
		cr_assert(poll(&p, 1, 5000) == 1, "process %u of %u is left", i, n);
		close(fds[i]);
	}
}

#define expect_text(r, which, needle)                                                                        \
	cr_assert((r)->text[which] && strstr((r)->text[which], needle), "no \"%s\" in: %s", needle,          \
		  (r)->text[which] ? (r)->text[which] : "")
#define expect_status(r, want)                                                                               \
	cr_assert((r)->status == (want), "status %d, stdout: %s stderr: %s", (r)->status,                    \
		  (r)->text[0] ? (r)->text[0] : "", (r)->text[1] ? (r)->text[1] : "")

TestSuite(launch, .timeout = 120);

Test(launch, exchange)
{
	static const char *const counts[] = {"1", "2", "3", "5", "8"};
	for (unsigned i = 0; i < 5; i++) {
		struct run r;
		launch(&r, "-n", (char *)counts[i], NODE_PROG, "exchange");
		finish(&r);
		expect_status(&r, 0);
		cr_assert_eq(count_of(r.text[0], "exchanged"), (unsigned)atoi(counts[i]));
		cr_assert(!strstr(r.text[0], "FAILED"));
	}
}

Test(launch, without_launcher)
{
	struct run r;
	start(&r, NODE_PROG, "exchange");
	cr_assert_eq(finish(&r), 0);
	expect_text(&r, 0, "exchanged");
	setenv("NU_CORES", "3", 1);
	setenv("NU_MEM", "64M", 1);
	start(&r, NODE_PROG, "info");
	cr_assert_eq(finish(&r), 0);
	expect_text(&r, 0, "node 0 of 1 cores 3 mem 67108864 ");
	setenv("NU_MEM", "64Q", 1);
	start(&r, NODE_PROG, "info");
	cr_assert_eq(finish(&r), 0);
	expect_text(&r, 1, "NU_MEM=64Q is not a size");
}

/* One layout, canary, pointer guard and secret in a job; others in the next job. */
Test(launch, same_layout_and_aslr)
{
	char first[2][256] = {"", ""};
	for (int job = 0; job < 2; job++) {
		struct run r;
		launch(&r, "-n", "4", NODE_PROG, "layout");
		finish(&r);
		expect_status(&r, 0);
		cr_assert_eq(count_of(r.text[0], "layout "), 4, "%s", r.text[0]);
		for (char *p = r.text[0]; (p = strstr(p, "layout ")); p++) {
			char line[256];
			snprintf(line, sizeof(line), "%.*s", (int)strcspn(p, "\n"), p);
			if (!first[job][0])
				strcpy(first[job], line);
			cr_assert_str_eq(line, first[job]);
		}
	}
	char *save[2], *a = strtok_r(first[0], " ", &save[0]), *b = strtok_r(first[1], " ", &save[1]);
	for (int field = 0; a && b; field++) {
		if (field) /* the word "layout" is first */
			cr_assert(strcmp(a, b), "field %d is %s in both jobs", field, a);
		a = strtok_r(NULL, " ", &save[0]);
		b = strtok_r(NULL, " ", &save[1]);
	}
}

Test(launch, options_reach_nodes)
{
	struct run r;
	launch(&r, "-n2", "--cores", "5", "--mem", "96M", "--reader", "cma", "--transport", "tcp,self",
	       NODE_PROG, "info");
	finish(&r);
	expect_status(&r, 0);
	expect_text(&r, 0,
		    "[0] node 0 of 2 cores 5 mem 100663296 reader cma transport tcp,self ucx n stdin 0 host "
		    "0 of 1 address \n");
	expect_text(&r, 0,
		    "[1] node 1 of 2 cores 5 mem 100663296 reader cma transport tcp,self ucx n stdin 0 host "
		    "0 of 1 address \n");
}

Test(launch, stdin_is_node_0s)
{
	struct run r;
	start(&r, "/bin/sh", "-c", "echo x | '" NU_LAUNCH "' -n 2 '" NODE_PROG "' info");
	finish(&r);
	expect_status(&r, 0);
	cr_assert_eq(count_of(r.text[0], "stdin 1 host"), 1);
	cr_assert(strstr(r.text[0], "stdin 1 host") > strstr(r.text[0], "node 0 of 2") ||
		  strstr(r.text[0], "[1] node"));
	expect_text(&r, 0, "stdin 0 host");
}

static void check_lines(const char *text, size_t len, unsigned nodes, unsigned count, bool prefix)
{
	unsigned next[8] = {0}, tails = 0;
	const char *end = text + len;
	while (text < end) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		cr_assert(nl || !prefix);
		size_t n = (size_t)((nl ? nl : end) - text);
		unsigned who, node, line;
		int used = 0;
		char copy[160]; /* sscanf measures all that follows */
		/* Without prefixes a text without an end is passed on at once, and nothing is added to end it. */
		for (; !prefix && n >= 6 && !memcmp(text, "a\0tail", 6); text += 6, n -= 6)
			tails++;
		if (!prefix && !n) {
			text = nl ? nl + 1 : end;
			continue;
		}
		snprintf(copy, sizeof(copy), "%.*s", (int)n, text);
		if (prefix) {
			cr_assert(sscanf(copy, "[%u] %n", &who, &used) == 1 && used == 4 && who < nodes);
			text += used;
			n -= (size_t)used;
		}
		if (n >= 6 && !memcmp(text, "a\0tail", 6)) {
			cr_assert(n == 6);
			tails++;
		} else {
			cr_assert(sscanf(strstr(copy, "node") ? strstr(copy, "node") : "",
					 "node %u line %u %n", &node, &line, &used) == 2 &&
				  node < nodes);
			cr_assert(!prefix || node == who);
			cr_assert_eq(line, next[node], "node %u: line %u, wanted %u", node, line, next[node]);
			next[node]++;
			size_t head = (size_t)snprintf(NULL, 0, "node %u line %u ", node, line);
			cr_assert_eq(n, head + line % 60);
			cr_assert_eq(strspn(text + head, "."), line % 60);
		}
		text = nl ? nl + 1 : end;
	}
	for (unsigned i = 0; i < nodes; i++)
		cr_assert_eq(next[i], count, "node %u: %u lines", i, next[i]);
	cr_assert_eq(tails, nodes);
}

Test(launch, lines_stay_whole)
{
	struct run r;
	launch(&r, "-n", "2", NODE_PROG, "lines", "10000");
	finish(&r);
	expect_status(&r, 0);
	check_lines(r.text[0], r.len[0], 2, 10000, true);
	launch(&r, "-n", "3", "--no-prefix", NODE_PROG, "lines", "3000");
	finish(&r);
	expect_status(&r, 0);
	check_lines(r.text[0], r.len[0], 3, 3000, false);
}

/* Nobody reads the launcher's output (20 MB, more than it and the pipes hold) while it answers operators. */
Test(launch, back_pressure)
{
	struct run r, c;
	char pid[16];
	launch(&r, "-n", "2", NODE_PROG, "lines", "150000");
	snprintf(pid, sizeof(pid), "%d", r.pid);
	wait_text(&r, 0, "line 100 ", 1);
	start(&c, NU_CTL, "--job", pid, "nodes");
	finish(&c);
	expect_status(&c, 1); /* an answer: node 0 is not ready */
	expect_text(&c, 1, "try again when the program has started");
	finish(&r);
	expect_status(&r, 0);
	check_lines(r.text[0], r.len[0], 2, 150000, true);
}

Test(launch, reader_that_leaves)
{
	struct run r;
	start(&r, "/bin/bash", "-c",
	      "'" NU_LAUNCH "' -n 2 '" NODE_PROG "' lines 150000 | head -n 1; exit ${PIPESTATUS[0]}");
	finish(&r);
	expect_status(&r, 128 + SIGPIPE);
	cr_assert_eq(r.len[1], 0, "%s", r.text[1]);
}

Test(launch, status)
{
	struct run r;
	launch(&r, "-n", "3", NODE_PROG, "status", "42");
	cr_assert_eq(finish(&r), 42);
	cr_assert_eq(count_of(r.text[0], "end 42"), 3, "%s", r.text[0]);
	launch(&r, "-n", "3", NODE_PROG, "status", "0");
	cr_assert_eq(finish(&r), 0);
	/* All end before they join, as a program does that prints its help. */
	launch(&r, "-n", "3", NODE_PROG, "exit", "0");
	cr_assert_eq(finish(&r), 0);
	cr_assert_eq(r.len[1], 0);
	launch(&r, "-n", "3", NODE_PROG, "exit", "9");
	cr_assert_eq(finish(&r), 9);
	launch(&r, "-n", "3", NODE_PROG, "early", "6");
	cr_assert_eq(finish(&r), 6);
	expect_text(&r, 1, "node 1 (pid ");
	launch(&r, "-n", "3", NODE_PROG, "early-main", "0");
	cr_assert_eq(finish(&r), 1);
	expect_text(&r, 1, "exited with status 0 before the job's end");
	cr_assert_eq(count_of(r.text[1], "nu_launch:"), 1, "%s", r.text[1]);
}

Test(launch, refusal)
{
	struct run r;
	launch(&r, "-n", "3", NODE_PROG, "fail");
	cr_assert_eq(finish(&r), 1);
	cr_assert_str_eq(r.text[1], "nu_launch: node 1: the layouts differ\n");
}

Test(launch, crash)
{
	struct run r;
	int64_t t = now_ms();
	launch(&r, "-n", "3", NODE_PROG, "signal", "2");
	cr_assert_eq(finish(&r), 128 + SIGSEGV);
	expect_text(&r, 1, "nu_launch: node 2 (pid ");
	expect_text(&r, 1, "was killed by signal 11 (Segmentation fault)");
	cr_assert_eq(count_of(r.text[1], "nu_launch:"), 1, "%s", r.text[1]);
	cr_assert(now_ms() - t < 10000);
}

/* The pid that node @n printed. */
static pid_t pid_of(struct run *r, unsigned n)
{
	char label[32];
	snprintf(label, sizeof(label), "[%u] pid ", n);
	const char *at = strstr(r->text[0], label);
	cr_assert(at);
	return atoi(at + strlen(label));
}

/* Until it has stopped: a SIGTERM that comes before that would be taken first. */
static void stop_node(struct run *r, unsigned n)
{
	char path[64], text[512] = "";
	pid_t pid = pid_of(r, n);
	int64_t until_ms = now_ms() + BOUND_MS;
	kill(pid, SIGSTOP);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	while (!strstr(text, ") T ")) {
		FILE *f = fopen(path, "r");
		cr_assert(f && now_ms() < until_ms);
		text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
		fclose(f);
		sched_yield();
	}
}

Test(launch, node_killed)
{
	struct run r;
	int fds[3];
	launch(&r, "-n", "3", NODE_PROG, "hang");
	wait_text(&r, 0, "pid ", 3);
	cr_assert_eq(open_pids(r.text[0], "pid ", fds, 3), 3);
	kill(pid_of(&r, 1), SIGKILL);
	cr_assert_eq(finish(&r), 128 + SIGKILL);
	expect_text(&r, 1, "nu_launch: node 1 (pid ");
	must_be_gone(fds, 3);
}

Test(launch, node_killed_others_go_on)
{
	struct run r;
	int fds[3];
	launch(&r, "-n", "3", "--keep-going", NODE_PROG, "watch-death");
	wait_text(&r, 0, "pid ", 3);
	open_pids(r.text[0], "pid ", fds, 3);
	kill(pid_of(&r, 2), SIGKILL);
	cr_assert_eq(finish(&r), 7);
	expect_text(&r, 0, "[0] saw the death of 2\n");
	expect_text(&r, 1, "the others go on");
	must_be_gone(fds, 3);
	launch(&r, "-n", "3", "--keep-going", NODE_PROG, "watch-death");
	wait_text(&r, 0, "pid ", 3);
	kill(pid_of(&r, 0), SIGKILL);
	cr_assert_eq(finish(&r), 128 + SIGKILL);
}

Test(launch, launcher_killed)
{
	static char *const what[] = {"hang", "unjoined", "stubborn"};
	for (int i = 0; i < 3; i++) {
		struct run r;
		int fds[3];
		launch(&r, "-n", "3", NODE_PROG, what[i]);
		wait_text(&r, 0, "pid ", 3);
		cr_assert(open_pids(r.text[0], "pid ", fds, 3) == 3);
		kill(r.pid, SIGKILL);
		cr_assert_eq(finish(&r), 128 + SIGKILL);
		must_be_gone(fds, 3);
	}
}

/* The program runs, but has not forked its nodes. */
Test(launch, launcher_or_program_killed_before_fork)
{
	setenv("NU_TEST_BEFORE_BOOT", "stall", 1);
	for (int victim = 0; victim < 3; victim++) {
		struct run r;
		int fd, pid;
		launch(&r, "-n", "3", NODE_PROG, "hang");
		wait_text(&r, 1, "stalled ", 1);
		wait_text(&r, 1, "\n", 1);
		cr_assert_eq(open_pids(r.text[1], "stalled ", &fd, 1), 1);
		pid = atoi(strstr(r.text[1], "stalled ") + 8);
		kill(victim == 1 ? pid : r.pid, victim == 2 ? SIGTERM : SIGKILL);
		finish(&r);
		expect_status(&r, victim == 2 ? 143 : 137);
		if (victim == 1)
			expect_text(&r, 1,
				    "was killed by signal 9 (Killed) without having started its nodes\n");
		must_be_gone(&fd, 1);
	}
}

/* At any moment of the start. */
Test(launch, launcher_killed_at_start)
{
	for (int i = 0; i < 40; i++) {
		struct run r;
		struct timespec t = {.tv_nsec = i * 100000};
		launch(&r, "-n", "3", NODE_PROG, "hang");
		nanosleep(&t, NULL);
		kill(r.pid, SIGKILL);
		/* The pipes end when the last process that holds them has: a node left behind fails this. */
		cr_assert_eq(finish(&r), 137);
	}
}

Test(launch, interrupts)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	static char *const what[] = {"hang", "unjoined"};
	for (int i = 0; i < 6; i++) {
		struct run r;
		int fds[3], signo = signals[i / 2];
		int64_t t;
		launch(&r, "-n", "3", NODE_PROG, what[i % 2]);
		wait_text(&r, 0, "pid ", 3);
		cr_assert_eq(open_pids(r.text[0], "pid ", fds, 3), 3);
		t = now_ms();
		kill(r.pid, signo);
		finish(&r);
		expect_status(&r, 128 + signo);
		cr_assert(now_ms() - t < 1500, "it took %d ms", (int)(now_ms() - t));
		must_be_gone(fds, 3);
	}
}

/* Deaf nodes: killed after 2 s, at once at the second signal, after 5 s when main has returned. */
Test(launch, deaf_nodes)
{
	struct run r;
	int64_t t;
	launch(&r, "-n", "2", NODE_PROG, "stubborn");
	wait_text(&r, 0, "pid ", 2);
	t = now_ms();
	cr_assert_eq(finish(&r), 4);
	cr_assert(now_ms() - t > 3000 && now_ms() - t < 9000);
	expect_text(&r, 1, "did not leave within 5 s of the job's end: killed");
	launch(&r, "-n", "2", NODE_PROG, "unjoined");
	wait_text(&r, 0, "pid ", 2);
	stop_node(&r, 0);
	stop_node(&r, 1);
	kill(r.pid, SIGTERM);
	t = now_ms();
	cr_assert_eq(finish(&r), 143);
	cr_assert(now_ms() - t > 1500 && now_ms() - t < 6000);
	launch(&r, "-n", "2", NODE_PROG, "unjoined");
	wait_text(&r, 0, "pid ", 2);
	stop_node(&r, 0);
	stop_node(&r, 1);
	t = now_ms();
	kill(r.pid, SIGINT);
	kill(r.pid, SIGTERM); /* another one, since two of a kind may be merged */
	finish(&r);
	cr_assert(r.status == 130 || r.status == 143);
	cr_assert(now_ms() - t < 1500);
}

Test(launch, no_orphans)
{
	struct run r;
	int fds[2];
	launch(&r, "-n", "2", NODE_PROG, "orphan");
	cr_assert_eq(finish(&r), 0);
	cr_assert_eq(count_of(r.text[0], "orphan "), 2);
	cr_assert_eq(open_pids(r.text[0], "orphan ", fds, 2), 0);
}

Test(launch, bad_programs)
{
	struct run r;
	launch(&r, "-n", "2", "./no such program");
	cr_assert_eq(finish(&r), 127);
	cr_assert_str_eq(r.text[1], "nu_launch: ./no such program: no such program\n");
	launch(&r, "-n", "2", "/etc/passwd");
	cr_assert_eq(finish(&r), 126);
	expect_text(&r, 1, "/etc/passwd: Permission denied");
	launch(&r, "-n", "2", "/bin/true");
	cr_assert_eq(finish(&r), 1);
	expect_text(
		&r, 1,
		"/bin/true exited with status 0 without having started its nodes: is it linked with libnu?");
	launch(&r, "-n", "2", "/bin/sh", "-c", "exit 3");
	cr_assert_eq(finish(&r), 3);
	setenv("NU_TEST_BEFORE_BOOT", "thread", 1);
	launch(&r, "-n", "2", NODE_PROG, "status", "0");
	cr_assert_eq(finish(&r), 1);
	cr_assert_eq(count_of(r.text[1], "\n"), 1);
	expect_text(&r, 1, "a library has started 1 kernel thread(s)");
}

Test(launch, through_a_script_and_spaces)
{
	struct run r;
	char dir[] = "/tmp/nu launch XXXXXX", path[64];
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a program", dir);
	cr_assert(!symlink(NODE_PROG, path));
	launch(&r, "-n", "2", path, "status", "12");
	finish(&r);
	unlink(path);
	rmdir(dir);
	expect_status(&r, 12);
	launch(&r, "-n", "2", "/bin/sh", "-c", "'" NODE_PROG "' status 13; exit 0");
	cr_assert_eq(finish(&r), 13);
}

Test(launch, time_out)
{
	struct run r;
	int64_t t = now_ms();
	launch(&r, "-n", "2", "--time-out", "0.5", NODE_PROG, "hang");
	cr_assert_eq(finish(&r), 124);
	cr_assert(now_ms() - t >= 500);
	cr_assert_str_eq(r.text[1], "nu_launch: the job ran longer than 0.5 s\n");
}

Test(launch, usage)
{
	static char *const bad[][2] = {{"-n", "0"},
				       {"-n", "257"},
				       {"-n", "2x"},
				       {"-n", "-1"},
				       {"--cores", "65"},
				       {"--cores", ""},
				       {"--mem", "1Q"},
				       {"--mem", "1K"},
				       {"--mem", "-4G"},
				       {"--reader", ""},
				       {"--time-out", "x"},
				       {"--time-out", "0"},
				       {"--reader", "0123456789abcdef"},
				       {"--bogus", "1"}};
	struct run r;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		launch(&r, bad[i][0], bad[i][1], NODE_PROG, "status", "0");
		finish(&r);
		expect_status(&r, 2);
		expect_text(&r, 1, "--help");
	}
	launch(&r, "-n", "2");
	cr_assert_eq(finish(&r), 2);
	launch(&r, "--help");
	cr_assert_eq(finish(&r), 0);
	expect_text(&r, 0, "Usage: nu_launch");
}

static int ctl(struct run *c, pid_t job, char *a, char *b, char *d)
{
	char pid[16];
	snprintf(pid, sizeof(pid), "%d", job);
	start(c, NU_CTL, "--job", pid, a, b, d);
	return finish(c);
}

Test(launch, operators)
{
	struct run r, c;
	char pid[16];
	launch(&r, "-n", "2", NODE_PROG, "hang");
	wait_text(&r, 0, "pid ", 2);
	cr_assert_eq(ctl(&c, r.pid, "nodes", NULL, NULL), 0);
	cr_assert_str_eq(c.text[0], "node 0 heard: nodes\n");
	cr_assert_eq(ctl(&c, r.pid, "migrate", "0x123abc", "1"), 0);
	cr_assert_str_eq(c.text[0], "node 0 heard: migrate 0x123abc 1\n");
	cr_assert_eq(ctl(&c, r.pid, "migrate", "0x10", "1"), 1);
	cr_assert_str_eq(c.text[1], "nu_ctl: migrate: it is being moved\n");
	cr_assert_eq(ctl(&c, r.pid, "proclets", NULL, NULL), 0);
	cr_assert_eq(c.len[0], 3000001);
	cr_assert_eq(ctl(&c, r.pid, "migrate", "1", NULL), 2);
	cr_assert_eq(ctl(&c, r.pid, "migrate", "xyz", "1"), 2);
	cr_assert_eq(ctl(&c, r.pid, "drain", "one", NULL), 2);
	cr_assert_eq(ctl(&c, r.pid, "bogus", NULL, NULL), 2);
	start(&c, NU_CTL, "jobs");
	cr_assert_eq(finish(&c), 0);
	snprintf(pid, sizeof(pid), "%8d ", r.pid);
	expect_text(&c, 0, pid);
	snprintf(pid, sizeof(pid), "%d", r.pid);
	start(&c, NU_CTL, "--job", pid, "--time-out", "1", "stats");
	cr_assert_eq(finish(&c), 1);
	expect_text(&c, 1, "no answer in time");
	/* Node 0 dies instead of answering. */
	cr_assert_eq(ctl(&c, r.pid, "drain", "0", NULL), 1);
	cr_assert_eq(finish(&r), 137);
	cr_assert_eq(ctl(&c, r.pid, "nodes", NULL, NULL), 1);
	expect_text(&c, 1, "no job ");
}

/* A node that never joins, or cannot any more. */
Test(launch, exchange_fails)
{
	struct run r;
	setenv("NU_BOOT_TIMEOUT_S", "1", 1);
	launch(&r, "-n", "3", NODE_PROG, "absent");
	finish(&r);
	expect_status(&r, 99);
	expect_text(&r, 1, "the other nodes did not come within 1 s (NU_BOOT_TIMEOUT_S)");
	setenv("NU_BOOT_TIMEOUT_S", "15", 1);
	launch(&r, "-n", "3", "--keep-going", NODE_PROG, "killed");
	finish(&r);
	expect_status(&r, 99);
	expect_text(&r, 1, "failed: Host is down");
}

Test(launch, many_nodes)
{
	struct run r;
	launch(&r, "-n", "32", NODE_PROG, "status", "3");
	cr_assert_eq(finish(&r), 3);
	cr_assert_eq(count_of(r.text[0], "end 3"), 32, "%s", r.text[0]);
}
