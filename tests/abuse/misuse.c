/* SPDX-License-Identifier: MIT */
/* Ways to use the interface that it is not made for: abuse_misuse HOW [ARG]. What must come of each is in misuse.py. */
#include <nu/nu.h>

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONG_US 60000000u

extern char **environ;

struct mis {
	struct nu_mutex mutex;
	struct nu_rwlock rwlock;
	struct nu_sem sem;
	_Atomic uint64_t rounds;
	int fds[2];
};
NU_CLASS(mis);
NU_METHOD(mis, act, val(int), str(how), val(int, arg));
NU_METHOD(mis, rounds, val(uint64_t));

int mis_init(struct mis *m)
{
	return 0;
}

uint64_t mis_do_rounds(struct mis *m)
{
	return m->rounds;
}

/* That a method has begun, said by a file: a core whose thread is in a system call answers nobody. */
static void flag_set(void)
{
	close(open(getenv("ABUSE_FLAG"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

static int child_status(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && *__errno_location() == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* What a child finds open, one a line. */
static char fds_shell[] = "ls -l /proc/self/fd; exit 7";

static int fork_and_exec(void)
{
	pid_t pid = fork();

	if (!pid) {
		execl("/bin/sh", "sh", "-c", fds_shell, NULL);
		_exit(1);
	}
	return child_status(pid);
}

static int spawn_child(void)
{
	char *argv[] = {"sh", "-c", fds_shell, NULL};
	pid_t pid;

	return posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) ? -1 : child_status(pid);
}

/* A child without exec that leaves by exit(): the job must not notice. */
static int fork_and_exit(int status)
{
	pid_t pid = fork();

	if (!pid)
		exit(status);
	return child_status(pid);
}

static void *counts(void *arg)
{
	free(malloc(100));
	++*(_Atomic int *)arg;
	return NULL;
}

static int plain_threads(void)
{
	static const int want = 4;
	_Atomic int n = 0;
	pthread_t t[4];

	for (int i = 0; i < want; i++)
		if (pthread_create(&t[i], NULL, counts, &n))
			return -1;
	for (int i = 0; i < want; i++)
		pthread_join(t[i], NULL);
	return n == want ? 0 : -1;
}

static void nothing(void *arg)
{
}

static void takes(void *arg)
{
	nu_mutex_lock(arg);
}

static int join_twice(void)
{
	struct nu_thread *t;
	int first, second, self;

	if (nu_thread_spawn(nothing, NULL, &t))
		return -1;
	first = nu_thread_join(t);
	second = nu_thread_join(t);
	self = nu_thread_detach(t) ? -EINVAL : 0;
	printf("joined: %d, again: %s, detached: %s\n", first, nu_strerror(second), nu_strerror(self));
	return first || second != -EINVAL || self != -EINVAL;
}

/* Within one thread, past its own frames only: what setjmp() can do. */
static __attribute__((noinline)) void jump(jmp_buf env)
{
	longjmp(env, 5);
}

static int long_jump(void)
{
	jmp_buf env;
	int got = setjmp(env);

	if (!got)
		jump(env);
	return got == 5 ? 0 : -1;
}

static void own_handler(int signo)
{
	static const char line[] = "the program's own handler\n";

	(void)!write(STDOUT_FILENO, line, sizeof(line) - 1);
	if (signo == SIGSEGV)
		_exit(17);
}

/* Signals that the runtime uses, long after its start. */
static void set_handlers(const char *how)
{
	int interrupts = SIGURG;
	sigset_t set;

	sigemptyset(&set);
	if (!strcmp(how, "replaced"))
		signal(interrupts, own_handler);
	if (!strcmp(how, "default"))
		signal(interrupts, SIG_DFL);
	if (!strcmp(how, "ignored"))
		signal(interrupts, SIG_IGN);
	if (!strcmp(how, "blocked")) {
		sigaddset(&set, interrupts);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
	}
	if (!strncmp(how, "crash", 5)) {
		sigaddset(&set, SIGSEGV);
		if (!strcmp(how, "crash-own"))
			signal(SIGSEGV, own_handler);
		else
			pthread_sigmask(SIG_BLOCK, &set, NULL);
		memset((void *)(uintptr_t)getppid(), 1, 1); /* no memory is there */
	}
}

static void reads(void *arg)
{
	struct mis *m = arg;
	char c;

	flag_set();
	(void)!read(m->fds[0], &c, 1);
}

int mis_do_act(struct mis *m, struct nu_str how, int arg)
{
	struct nu_thread *t;
	char c;

	if (!strcmp(how.s, "exit"))
		exit(arg);
	if (!strcmp(how.s, "exec"))
		return fork_and_exec();
	if (!strcmp(how.s, "spawn"))
		return spawn_child();
	if (!strcmp(how.s, "fork"))
		return fork_and_exit(arg);
	if (!strcmp(how.s, "pthreads"))
		return plain_threads();
	if (!strcmp(how.s, "join"))
		return join_twice();
	if (!strcmp(how.s, "longjmp"))
		return long_jump();
	if (!strcmp(how.s, "unlock-free"))
		nu_mutex_unlock(&m->mutex);
	if (!strcmp(how.s, "unlock-other") && !nu_thread_spawn(takes, &m->mutex, &t)) {
		nu_thread_join(t);
		nu_mutex_unlock(&m->mutex);
	}
	if (!strcmp(how.s, "unlock-rw"))
		nu_rwlock_unlock(&m->rwlock);
	if (!strncmp(how.s, "handler-", 8))
		set_handlers(how.s + 8);
	if (!strcmp(how.s, "spin") || !strncmp(how.s, "handler-", 8)) {
		flag_set();
		while (arg)
			m->rounds++;
	}
	if (!strcmp(how.s, "read")) {
		if (pipe2(m->fds, O_CLOEXEC))
			return -1;
		flag_set();
		return read(m->fds[0], &c, 1) == 1 ? 0 : -1;
	}
	if (!strcmp(how.s, "read-thread"))
		return pipe2(m->fds, O_CLOEXEC) ? -1 : nu_thread_spawn(reads, m, NULL);
	if (!strcmp(how.s, "block")) {
		flag_set();
		nu_sem_wait(&m->sem);
	}
	return 0;
}

/* ---- calls from where no proclet runs ---- */

static void say_outside(const char *when, struct mis_ref ref)
{
	struct nu_node_info info;
	struct nu_stats stats;
	struct mis_rounds_future f;
	struct mis_ref made;
	uint64_t n;

	/* So that it is our own check that is met, not the table's. */
	if (!ref.ref.id)
		ref.ref.id = 77;
	printf("%s: call %d create %d async %d get %d put %d locate %d migrate %d nodes %d drain %d stats %d "
	       "spawn %d\n",
	       when, mis_rounds(ref, &n), mis_create(NULL, &made), mis_rounds_async(ref, &f),
	       nu_ref_get(ref.ref), nu_ref_put(ref.ref), nu_locate(ref.ref), nu_migrate(ref.ref, 0),
	       nu_nodes(&info, 1) < 0 ? -EINVAL : 0, nu_node_drain(0, NULL), nu_stats(0, &stats),
	       nu_thread_spawn(nothing, NULL, NULL));
	nu_sleep_us(1000);
	nu_yield();
	nu_deadline_set_us(5);
	fflush(stdout);
}

static struct mis_ref outside_ref;

static void *outside(void *arg)
{
	say_outside("pthread", outside_ref);
	return NULL;
}

static struct nu_sem *outside_sem;

static void *outside_waits(void *arg)
{
	nu_sem_wait(outside_sem);
	return NULL;
}

static int from_pthread(struct mis_ref ref, bool waits)
{
	struct nu_sem sem = {0};
	pthread_t t;

	outside_ref = ref;
	outside_sem = &sem;
	if (pthread_create(&t, NULL, waits ? outside_waits : outside, NULL))
		return 1;
	pthread_join(t, NULL);
	return 0;
}

/* ---- a thread that is in the way ---- */

struct call {
	struct mis_ref ref;
	const char *how;
	int ret;
};

static void calls(void *arg)
{
	struct call *c = arg;
	int inner;

	c->ret = mis_act(c->ref, nu_str(c->how), 1, &inner);
}

/* Another thread is in the method; returns when it is. */
static int go_in(struct call *c, struct nu_thread **t_p)
{
	int ret = nu_thread_spawn(calls, c, t_p);

	while (!ret && access(getenv("ABUSE_FLAG"), F_OK))
		nu_sleep_us(1000);
	return ret;
}

static int in_the_way(struct mis_ref ref, const char *how, const char *then)
{
	struct call c = {.ref = ref, .how = how};
	uint64_t before = 0, after = 0;
	unsigned moved = 0, last = nu_node_count() - 1;
	struct nu_thread *t;
	int ret = go_in(&c, &t);

	if (ret)
		return 1;
	if (!strcmp(then, "end"))
		return 21;
	if (!strcmp(then, "drop"))
		ret = nu_ref_put(ref.ref);
	if (!strcmp(then, "move"))
		ret = nu_migrate(ref.ref, 0);
	if (!strcmp(then, "drain"))
		ret = nu_node_drain(last, &moved);
	printf("%s: %s, %u moved, it is on node %d\n", then, nu_strerror(ret), moved, nu_locate(ref.ref));
	if (strcmp(how, "read-thread") && strcmp(then, "drop")) {
		(void)!mis_rounds(ref, &before);
		for (int i = 0; i < 1000 && before >= after; i++) {
			nu_sleep_us(1000);
			(void)!mis_rounds(ref, &after);
		}
		printf("it %s\n", after > before ? "goes on" : "stands still");
	}
	if (!strcmp(then, "drop"))
		nu_sleep_us(3000000); /* it is ended in the background, if it can be */
	return 22;
}

static int mainfunc(int argc, char **argv)
{
	struct nu_options far = {.node = NU_NODE(nu_node_count() - 1)};
	struct mis_ref ref;
	int inner = 0, ret, arg = argc > 3 ? atoi(argv[3]) : 0;
	const char *how = argv[1];

	if (!strcmp(how, "main-exit"))
		exit(arg);
	ret = mis_create(&far, &ref);
	if (ret)
		return 1;
	if (!strcmp(how, "outside"))
		return from_pthread(ref, false);
	if (!strcmp(how, "outside-waits"))
		return from_pthread(ref, true);
	if (argc > 2 && *argv[2])
		return in_the_way(ref, how, argv[2]);
	ret = mis_act(ref, nu_str(how), arg, &inner);
	printf("it returned %d, %s\n", inner, nu_strerror(ret));
	return 0;
}

int main(int argc, char **argv)
{
	struct mis_ref none = {{0}};
	struct nu_run_options options = {.node_init = NULL};
	int ret;

	if (argc < 2)
		return 99;
	options.writable_globals = !strncmp(argv[1], "outside", 7); /* what its kernel thread is told */
	if (!strcmp(argv[1], "outside") && nu_node_self() == 0)
		say_outside("before", none);
	ret = nu_run(argc, argv, mainfunc, &options);
	if (!strcmp(argv[1], "outside") && nu_node_self() == 0)
		say_outside("after", none);
	if (!strcmp(argv[1], "outside") && nu_node_self() == 0)
		printf("again: %d\n", nu_run(argc, argv, mainfunc, NULL));
	return ret;
}
