/* SPDX-License-Identifier: MIT */
/*
 * The program that the launcher's tests run: a node without a runtime above it, which does what its first argument says.
 */
#include "ctrl/boot.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <unistd.h>

#undef errno
#define errno (*__errno_location())

static sem_t death_seen;
static unsigned dead_node;
static bool stubborn, quiet;

/* sched/ is not linked. */
int *nu_errno_location(void)
{
	return __errno_location();
}

static void on_dead(unsigned node)
{
	dead_node = node;
	sem_post(&death_seen);
}

static void on_end(int status)
{
	if (stubborn)
		return;
	if (!quiet) {
		printf("end %d\n", status);
		fflush(stdout);
	}
	_exit(status);
}

static void on_ctl(uint64_t request, const char *command)
{
	char text[256];
	if (!strcmp(command, "migrate 0x10 1")) {
		nu_boot_ctl_reply(request, -EBUSY, "it is being moved");
		return;
	}
	if (!strcmp(command, "proclets")) { /* more than a socket's buffer */
		size_t len = 3000000;
		char *big = malloc(len + 1);
		memset(big, 'x', len);
		big[len] = '\0';
		nu_boot_ctl_reply(request, 0, big);
		free(big);
		return;
	}
	if (!strcmp(command, "stats")) /* no answer */
		return;
	if (!strcmp(command, "drain 0")) {
		kill(getpid(), SIGKILL);
		return;
	}
	snprintf(text, sizeof(text), "node %u heard: %s", nu_node.self, command);
	nu_boot_ctl_reply(request, 0, text);
}

static const struct nu_boot_ops ops = {.node_dead = on_dead, .end = on_end, .ctl = on_ctl};

static void fail(const char *what)
{
	printf("FAILED: %s\n", what);
	exit(99);
}

static void barrier(void)
{
	void *all[NU_MAX_NODES];
	size_t lens[NU_MAX_NODES];
	if (nu_boot_exchange(NULL, 0, all, lens))
		fail("barrier");
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (lens[n])
			fail("barrier's length");
		free(all[n]);
	}
}

static void join_job(void)
{
	barrier();
	if (nu_boot_control_start(&ops))
		fail("control thread");
}

static void __attribute__((noreturn)) wait_for_end(void)
{
	for (;;)
		pause();
}

static void __attribute__((noreturn)) done(int status)
{
	if (!nu_node.self)
		nu_boot_main_done(status);
	if (!nu_boot_launched())
		exit(status);
	wait_for_end();
}

static unsigned char pattern(unsigned node, unsigned round, size_t i)
{
	return (unsigned char)(node * 37 + round * 11 + i * 7 + (i >> 9));
}

static size_t blob_len(unsigned node, unsigned round)
{
	static const size_t lens[] = {0, 1, 100, 65537, 1 << 20};
	return lens[(node + round) % 5];
}

static void do_exchange(void)
{
	unsigned char *mine = malloc(1 << 20);
	void *all[NU_MAX_NODES];
	size_t lens[NU_MAX_NODES];
	for (unsigned round = 0; round < 10; round++) {
		for (size_t i = 0; i < blob_len(nu_node.self, round); i++)
			mine[i] = pattern(nu_node.self, round, i);
		if (nu_boot_exchange(mine, blob_len(nu_node.self, round), all, lens))
			fail("exchange");
		for (unsigned n = 0; n < nu_node.count; n++) {
			if (lens[n] != blob_len(n, round))
				fail("length");
			for (size_t i = 0; i < lens[n]; i++) {
				if (((unsigned char *)all[n])[i] != pattern(n, round, i))
					fail("bytes");
			}
			free(all[n]);
		}
	}
	if (nu_boot_exchange(mine, (1 << 20) + 1, all, lens) != -EMSGSIZE)
		fail("a blob that is too big was taken");
	free(mine);
	/* Said before the last barrier: node 0 may end the job at any time after it. */
	printf("exchanged\n");
	join_job();
	if (nu_boot_exchange(NULL, 0, all, lens) != -EINVAL)
		fail("exchange beside the control thread");
	done(0);
}

/* The stack protector's word and the one that setjmp() hides pointers with. */
#if defined(__x86_64__)
#define READ_GUARDS(canary, guard)                                                                           \
	do {                                                                                                 \
		asm("mov %%fs:0x28, %0" : "=r"(canary));                                                     \
		asm("mov %%fs:0x30, %0" : "=r"(guard));                                                      \
	} while (0)
#else
extern uintptr_t __stack_chk_guard, __pointer_chk_guard;
#define READ_GUARDS(canary, guard) ((canary) = __stack_chk_guard, (guard) = __pointer_chk_guard)
#endif

/* Everything that a thread's stack may hold and that must be the same on all nodes. */
static void do_layout(void)
{
	uintptr_t canary, guard;
	int here;
	char hex[65];
	READ_GUARDS(canary, guard);
	for (unsigned i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", nu_boot_options.secret[i]);
	printf("layout %p %p %p %zx %zx %s\n", (void *)do_layout, (void *)printf, (void *)&here, canary,
	       guard, hex);
	join_job();
	done(0);
}

static void do_info(void)
{
	char stdin_byte;
	for (unsigned n = 0; n < nu_node.count; n++) {
		bool near = nu_node.host_of[n] == nu_node.host_of[nu_node.self];
		if (nu_node.pids[nu_node.self] != getpid() || (nu_node.pids[n] > 0) != near ||
		    (near && nu_node.cores_of[n] != nu_node.cores))
			fail("pids or cores");
	}
	if (getenv("NU_BOOT"))
		fail("NU_BOOT is still set");
	ssize_t n = read(0, &stdin_byte, 1);
	printf("node %u of %u cores %u mem %zu reader %s transport %s ucx %s stdin %zd host %u of %u address "
	       "%s\n",
	       nu_node.self, nu_node.count, nu_node.cores, nu_node.mem_bytes, nu_boot_options.reader,
	       nu_boot_options.transport, getenv("UCX_MEM_EVENTS") ? getenv("UCX_MEM_EVENTS") : "unset", n,
	       nu_node.host_of[nu_node.self], nu_node.hosts, nu_boot_options.address);
	join_job();
	done(0);
}

/* All of standard input, where it is. */
static void do_stdin(void)
{
	unsigned long bytes = 0, sum = 0;
	unsigned char buf[10000];
	ssize_t n;
	while ((n = read(0, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			sum = sum * 31 + buf[i];
		bytes += (unsigned long)n;
	}
	printf("stdin %lu bytes sum %lu\n", bytes, sum);
	join_job();
	done(0);
}

static void do_env(const char *name)
{
	struct rlimit lim;
	char dir[4096];
	pthread_attr_t attr;
	size_t stack = 0;
	getrlimit(RLIMIT_STACK, &lim);
	if (!pthread_getattr_default_np(&attr))
		pthread_attr_getstacksize(&attr, &stack);
	printf("env %s=%s in %s stack limit %llu threads %zu personality %x\n", name,
	       getenv(name) ? getenv(name) : "(unset)", getcwd(dir, sizeof(dir)),
	       (unsigned long long)lim.rlim_cur, stack, (unsigned)personality(0xffffffff));
	join_job();
	done(0);
}

/* Lines torn into pieces on purpose; the last has a NUL and no end. Node 0 ends the job when all have written. */
static void do_lines(unsigned count)
{
	static const char dots[] = "............................................................";
	for (unsigned i = 0; i < count; i++) {
		char line[128];
		int len = snprintf(line, sizeof(line), "node %u line %u %.*s\n", nu_node.self, i,
				   (int)(i % 60), dots);
		size_t cut = i % 7 ? (size_t)len : (size_t)len / 2;
		if (write(1, line, cut) != (ssize_t)cut || write(1, line + cut, (size_t)len - cut) < 0)
			fail("write");
	}
	if (write(1, "a\0tail", 6) != 6)
		fail("write");
	quiet = true;
	join_job();
	done(0);
}

static void do_orphan(void)
{
	pid_t pid = fork();
	if (!pid) {
		setsid();
		for (;;)
			pause();
	}
	printf("orphan %d\n", pid);
	join_job();
	done(0);
}

static void do_watch_death(void)
{
	join_job();
	printf("pid %d\n", getpid());
	if (nu_node.self == 0) {
		while (sem_wait(&death_seen))
			;
		printf("saw the death of %u\n", dead_node);
		done(7);
	}
	wait_for_end();
}

static void run(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "help";
	int number = argc > 2 ? atoi(argv[2]) : 0;

	if (!strcmp(what, "exchange"))
		do_exchange();
	if (!strcmp(what, "layout"))
		do_layout();
	if (!strcmp(what, "info"))
		do_info();
	if (!strcmp(what, "stdin"))
		do_stdin();
	if (!strcmp(what, "env"))
		do_env(argv[2]);
	if (!strcmp(what, "lines"))
		do_lines((unsigned)number);
	if (!strcmp(what, "orphan"))
		do_orphan();
	if (!strcmp(what, "watch-death"))
		do_watch_death();
	if (!strcmp(what, "exit")) /* a program that ends before it joins */
		exit(number);
	if (!strcmp(what, "early")) { /* node 1 leaves before the others have said a word */
		if (nu_node.self == 1)
			exit(number);
		barrier();
	}
	if (!strcmp(what, "early-main")) { /* joins, then leaves without saying that main is done */
		join_job();
		if (nu_node.self == 1)
			exit(number);
		wait_for_end();
	}
	if (!strcmp(what, "fail")) {
		if (nu_node.self == 1) {
			nu_boot_fail("the layouts differ");
			exit(3);
		}
		barrier();
	}
	if (!strcmp(what, "absent") || !strcmp(what, "killed")) {
		if (nu_node.self == 1 && !strcmp(what, "killed"))
			raise(SIGKILL);
		if (nu_node.self == 1)
			wait_for_end();
		barrier();
	}
	if (!strcmp(what, "unjoined")) {
		printf("pid %d\n", getpid());
		wait_for_end();
	}
	stubborn = !strcmp(what, "stubborn");
	if (stubborn)
		printf("pid %d\n", getpid());
	join_job();
	if (!strcmp(what, "status"))
		done(number);
	if (!strcmp(what, "signal") && nu_node.self == (unsigned)number) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer takes it */
		raise(SIGSEGV);
	}
	if (stubborn)
		done(4);
	printf("pid %d\n", getpid());
	wait_for_end();
}

/* Before libnu's constructor (103): what a launcher's death, or another library, can do in between. */
static void *idle(void *arg)
{
	pause();
	return arg;
}

static void __attribute__((constructor(102))) before_boot(void)
{
	const char *what = getenv("NU_TEST_BEFORE_BOOT");
	pthread_t t;
	if (!what)
		return;
	if (!strcmp(what, "stall")) {
		dprintf(2, "stalled %d\n", getpid());
		for (;;)
			pause();
	}
	if (!strcmp(what, "thread") && pthread_create(&t, NULL, idle, NULL))
		_exit(98);
}

int main(int argc, char **argv)
{
	sem_init(&death_seen, 0, 0);
	run(argc, argv);
	return 0;
}
