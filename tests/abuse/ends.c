/* SPDX-License-Identifier: MIT */
/*
 * Ends of a program: abuse_ends WHERE HOW [STATUS]. WHERE: method (on the last node), thread (that it spawned), main,
 * handler (method, with a handler of SIGUSR1), pthread (a kernel thread of the program's own, on node 0), first (a handler that interrupts it), init (node_init on the last
 * node), before (main(), before nu_run). What a normal end sets off says so, and writes globals and frees what main() has
 * allocated, as such functions do.
 */
#include <nu/nu.h>

#include <err.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct ends {
	int unused;
};
NU_CLASS(ends);
NU_METHOD(ends, act, none, str(how), val(int, status));
NU_METHOD(ends, act_in_thread, none, str(how), val(int, status));

static char *from_main; /* of the C library's heap */
static int at_exit_runs, destructor_runs;

static void say_end(const char *what, int runs)
{
	char large[32 << 10], line[64];

	memset(large, 0, sizeof(large)); /* more than a proclet's thread might have left */
	snprintf(line, sizeof(line), "node %u: %s %d\n", nu_node_self(), what, runs);
	if (write(1, line, strlen(line)) < 0)
		_exit(90);
}

static void at_end(void)
{
	free(from_main);
	from_main = NULL;
	say_end("atexit", ++at_exit_runs);
}

static void late_end(void)
{
	say_end("late atexit", ++at_exit_runs);
}

static void quick_end(void)
{
	say_end("at_quick_exit", ++at_exit_runs);
}

static __attribute__((destructor)) void destructor(void)
{
	say_end("destructor", ++destructor_runs);
}

static void child_exits(int status)
{
	int got = 0;
	pid_t pid = fork();

	if (!pid)
		exit(status);
	waitpid(pid, &got, 0);
	printf("the child's status: %d\n", WEXITSTATUS(got));
}

static void write_too_much(void)
{
	const struct rlimit limit = {4096, 4096};
	char name[] = "/tmp/nu-abuse-XXXXXX", block[8192] = "";
	int fd = mkstemp(name);

	unlink(name);
	setrlimit(RLIMIT_FSIZE, &limit);
	for (int i = 0; i < 2; i++)
		if (write(fd, block, sizeof(block)) < 0)
			perror("write");
}

static void compute_too_long(void)
{
	const struct rlimit limit = {1, RLIM_INFINITY};

	setrlimit(RLIMIT_CPU, &limit);
	for (volatile unsigned long n = 0;; n++)
		;
}

static void broken_pipe(void)
{
	int fds[2];

	if (pipe(fds))
		return;
	close(fds[0]);
	printf("write: %s\n", write(fds[1], "x", 1) < 0 && errno == EPIPE ? "EPIPE" : "?");
}

static void act(const char *how, int status)
{
	if (!strcmp(how, "exit"))
		exit(status);
	if (!strcmp(how, "late")) {
		atexit(late_end);
		exit(status);
	}
	if (!strcmp(how, "err")) /* the C library's own call of exit() */
		errx(status, "the program gives up");
	if (!strcmp(how, "quick"))
		quick_exit(status);
	if (!strcmp(how, "at-once"))
		_exit(status);
	if (!strcmp(how, "child"))
		child_exits(status);
	if (!strcmp(how, "raise"))
		printf("raise: %d\n", raise(status));
	if (!strcmp(how, "fsize"))
		write_too_much();
	if (!strcmp(how, "cpu"))
		compute_too_long();
	if (!strcmp(how, "pipe"))
		broken_pipe();
	if (!strcmp(how, "pthread-exit"))
		pthread_exit(NULL);
}

int ends_init(struct ends *e)
{
	return 0;
}

void ends_do_act(struct ends *e, struct nu_str how, int status)
{
	act(how.s, status);
}

struct order {
	char how[32];
	int status;
};

static void thread_acts(void *arg)
{
	struct order *o = arg;

	act(o->how, o->status);
}

void ends_do_act_in_thread(struct ends *e, struct nu_str how, int status)
{
	struct order o = {.status = status};
	struct nu_thread *t;

	snprintf(o.how, sizeof(o.how), "%s", how.s);
	if (!nu_thread_spawn(thread_acts, &o, &t))
		(void)!nu_thread_join(t);
}

/* ---- where ---- */

static struct {
	const char *where, *how;
	int status;
	pthread_t pthread;
	int begin[2];
} todo;

static void *pthread_acts(void *arg)
{
	char byte;

	if (read(todo.begin[0], &byte, 1) == 1)
		act(todo.how, todo.status);
	return NULL;
}

static void on_term(int signo)
{
	act(todo.how, todo.status);
}

static void on_usr1(int signo)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "handled %d\n", signo);

	if (write(1, line, (size_t)len) < 0)
		_exit(93);
}

static int node_init(unsigned node)
{
	if (!strcmp(todo.where, "handler"))
		signal(SIGUSR1, on_usr1);
	if (!strcmp(todo.where, "init") && node == nu_node_count() - 1)
		act(todo.how, todo.status);
	if (!strcmp(todo.where, "pthread") && node == 0)
		return pipe(todo.begin) ? -errno : -pthread_create(&todo.pthread, NULL, pthread_acts, NULL);
	if (!strcmp(todo.where, "first"))
		signal(SIGTERM, on_term);
	return 0;
}

static int mainfunc(int argc, char **argv)
{
	struct nu_options far = {.node = NU_NODE(nu_node_count() - 1)};
	NU_SCOPED(ends, ref);
	int ret = ends_create(&far, &ref);

	if (ret)
		return 91;
	if (!strcmp(todo.where, "main"))
		act(todo.how, todo.status);
	else if (!strcmp(todo.where, "method") || !strcmp(todo.where, "handler"))
		ret = ends_act(ref, nu_str(todo.how), todo.status);
	else if (!strcmp(todo.where, "thread"))
		ret = ends_act_in_thread(ref, nu_str(todo.how), todo.status);
	else if (!strcmp(todo.where, "first"))
		kill(getpid(), SIGTERM);
	else if (!strcmp(todo.where, "pthread") && write(todo.begin[1], "", 1) < 0)
		return 92;
	if (!strcmp(todo.where, "pthread") || !strcmp(todo.where, "first"))
		nu_sleep_us(20000000);
	printf("it went on: %s\n", nu_strerror(ret));
	return 0;
}

int main(int argc, char **argv)
{
	struct nu_run_options options = {.node_init = node_init};

	if (argc < 3)
		return 99;
	todo.where = argv[1];
	todo.how = argv[2];
	todo.status = argc > 3 ? atoi(argv[3]) : 0;
	from_main = strdup("of main");
	atexit(at_end);
	at_quick_exit(quick_end);
	if (!strcmp(todo.where, "before"))
		act(todo.how, todo.status);
	return nu_run(argc, argv, mainfunc, &options);
}
