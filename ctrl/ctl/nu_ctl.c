/* SPDX-License-Identifier: MIT */
/*
 * nu_ctl: an operator's commands to a running job, through the launcher's socket. What a command means is node 0's
 * business; here are its syntax and its answer.
 */
#include "ctrl/boot_proto.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TIME_OUT_S   30
#define JOB_QUERY_MS 2000
#define JOBS_MAX     256
#define JOB_FORMAT   "%d\t%u\t%u\t%15[^\t]\t%lld\t%n" /* what "job" is answered with */

struct job_name {
	unsigned uid;
	int pid;
};

static void __attribute__((noreturn, format(printf, 2, 3))) die(int status, const char *fmt, ...)
{
	va_list ap;
	fflush(stdout);
	fprintf(stderr, "nu_ctl: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, status == 2 ? "\nTry 'nu_ctl --help'.\n" : "\n");
	exit(status);
}

static void help(void)
{
	printf("Usage: nu_ctl [--job PID] COMMAND\n"
	       "\n"
	       "Looks at and steers a logical process that nu_launch runs on this machine.\n"
	       "\n"
	       "  nodes               the nodes, their state and load\n"
	       "  proclets [NODE]     the proclets, of all nodes or of one\n"
	       "  migrate ID NODE     move a proclet\n"
	       "  drain NODE          move every proclet away and place no new ones there\n"
	       "  restore NODE        undo a drain\n"
	       "  stats [NODE]        counters, of all nodes or of one\n"
	       "  jobs                the jobs that run here\n"
	       "\n"
	       "  -j, --job PID       the job whose nu_launch has this pid (the only one that runs)\n"
	       "  -T, --time-out S    wait so many seconds for the answer (30)\n"
	       "  -h, --help          show this\n"
	       "\n"
	       "Exit status: 0; 1 the command failed; 2 wrong usage.\n");
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- what there is ---- */

/* Other users' jobs are left out unless we are root. */
static unsigned find_jobs(struct job_name *jobs, int wanted)
{
	FILE *f = fopen("/proc/net/unix", "re");
	char line[512];
	unsigned count = 0;
	if (!f)
		die(1, "/proc/net/unix: %s", strerror(errno));
	while (count < JOBS_MAX && fgets(line, sizeof(line), f)) {
		struct job_name j;
		char *at = strstr(line, " @nu-");
		char flags[16], end = 0;
		/* Num RefCount Protocol Flags: only the listening socket, not the connections that it accepted */
		if (!at || sscanf(line, "%*s %*s %*s %15s", flags) != 1 || strcmp(flags, "00010000") ||
		    sscanf(at, " @" NU_BOOT_CTL_NAME "%c", &j.uid, &j.pid, &end) != 3 || end != '\n')
			continue;
		/* Anybody may fill the table with names that look like ours: the one that is wanted is still found. */
		if ((getuid() == 0 || j.uid == getuid()) && (!wanted || j.pid == wanted))
			jobs[count++] = j;
	}
	fclose(f);
	return count;
}

/* Anybody may take a name in the abstract name space: the other end must be who the name says. */
static int job_connect(const struct job_name *j, char *why, size_t why_len)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct ucred who;
	socklen_t len = sizeof(who);
	int n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, NU_BOOT_CTL_NAME, j->uid, j->pid);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
	    connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n))) {
		snprintf(why, why_len, "no job answers there: %s", strerror(errno));
	} else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || who.uid != j->uid ||
		   who.pid != j->pid) {
		snprintf(why, why_len, "its socket belongs to process %d of user %u", who.pid, who.uid);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* 0, or why not. */
static const char *read_full(int fd, void *buf, size_t len, int64_t until_ms)
{
	char *to = buf;
	while (len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = until_ms - now_ms();
		int n = left > 0 ? poll(&p, 1, (int)left) : 0;
		if (n == 0)
			return "no answer in time";
		if (n < 0)
			continue;
		ssize_t got = recv(fd, to, len, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return "the job ended, or refused the connection, before it answered";
		to += got;
		len -= (size_t)got;
	}
	return NULL;
}

/* The text is malloc'ed. NULL: *why_p says why. */
static char *ask(int fd, const char *command, int timeout_ms, int *status_p, const char **why_p)
{
	size_t len = strlen(command);
	struct nu_boot_head head = {.type = NU_BOOT_ASK, .len_bytes = (uint32_t)len};
	int64_t until_ms = now_ms() + timeout_ms;
	char *message = malloc(sizeof(head) + len);
	*why_p = "out of memory";
	if (!message)
		return NULL;
	memcpy(message, &head, sizeof(head));
	memcpy(message + sizeof(head), command, len);
	/* It fits a fresh socket's buffer, so it goes whole or not at all. */
	ssize_t sent = send(fd, message, sizeof(head) + len, MSG_NOSIGNAL);
	free(message);
	if (sent != (ssize_t)(sizeof(head) + len)) {
		*why_p = "the job refused the connection";
		return NULL;
	}
	*why_p = read_full(fd, &head, sizeof(head), until_ms);
	if (*why_p)
		return NULL;
	if (head.type != NU_BOOT_ANSWER || head.len_bytes > NU_BOOT_TEXT_MAX) {
		*why_p = "the answer makes no sense: nu_launch is of another version";
		return NULL;
	}
	char *text = malloc((size_t)head.len_bytes + 1);
	*why_p = text ? read_full(fd, text, head.len_bytes, until_ms) : "out of memory";
	if (*why_p) {
		free(text);
		return NULL;
	}
	text[head.len_bytes] = '\0';
	*status_p = head.arg;
	return text;
}

static int list_jobs(void)
{
	struct job_name jobs[JOBS_MAX];
	unsigned count = find_jobs(jobs, 0);
	printf("%8s %8s %6s %6s %-10s %8s %s\n", "PID", "UID", "NODES", "ALIVE", "STATE", "AGE_S", "PROGRAM");
	for (unsigned i = 0; i < count; i++) {
		char why[128], state[16];
		const char *reason = why;
		unsigned nodes, alive;
		long long age;
		int status = 0, pid, used = 0, fd = job_connect(&jobs[i], why, sizeof(why));
		char *text = fd < 0 ? NULL : ask(fd, "job", JOB_QUERY_MS, &status, &reason);
		if (text && sscanf(text, JOB_FORMAT, &pid, &nodes, &alive, state, &age, &used) == 5)
			printf("%8d %8u %6u %6u %-10s %8lld %s\n", jobs[i].pid, jobs[i].uid, nodes, alive,
			       state, age, text + used);
		else
			fprintf(stderr, "nu_ctl: job %d: %s\n", jobs[i].pid, reason);
		free(text);
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

/* ---- syntax ---- */

struct command {
	const char *name;
	int min_args, max_args;
	const char *args;
};
static const struct command commands[] = {
	{"nodes", 0, 0, ""},	  {"proclets", 0, 1, " [NODE]"}, {"migrate", 2, 2, " ID NODE"},
	{"drain", 1, 1, " NODE"}, {"restore", 1, 1, " NODE"},	 {"stats", 0, 1, " [NODE]"},
	{"jobs", 0, 0, ""},
};

static bool is_number(const char *s, int base, unsigned long long max)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(s, &end, base);
	return *s >= '0' && *s <= '9' && !*end && !errno && v <= max && strlen(s) <= 20;
}

/* An id is written as tables print it, 0x1234, or in decimal. */
static bool is_id(const char *s)
{
	return is_number(s, 0, ~0ull);
}

static const struct command *check(int argc, char **argv)
{
	const struct command *c = NULL;
	if (!argc)
		die(2, "no command given");
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(argv[0], commands[i].name))
			c = &commands[i];
	}
	if (!c)
		die(2, "there is no command '%s'", argv[0]);
	if (argc - 1 < c->min_args || argc - 1 > c->max_args)
		die(2, "usage: nu_ctl %s%s", c->name, c->args);
	for (int i = 1; i < argc; i++) {
		if (i == 1 && !strcmp(c->name, "migrate")) {
			if (!is_id(argv[i]))
				die(2, "'%s' is not a proclet's id", argv[i]);
		} else if (!is_number(argv[i], 10, NU_BOOT_NODES_MAX - 1)) {
			die(2, "'%s' is not a node's number (0 to %d)", argv[i], NU_BOOT_NODES_MAX - 1);
		}
	}
	return c;
}

static struct job_name choose_job(int wanted)
{
	struct job_name jobs[JOBS_MAX];
	unsigned count = find_jobs(jobs, wanted);
	for (unsigned i = 0; wanted && i < count; i++) {
		if (jobs[i].pid == wanted)
			return jobs[i];
	}
	if (wanted)
		die(1, "no job %d runs here (nu_ctl jobs lists them)", wanted);
	if (!count)
		die(1, "no job of nu_launch runs here");
	if (count > 1) {
		fprintf(stderr, "nu_ctl: %u jobs run: name one with --job. Their pids:", count);
		for (unsigned i = 0; i < count; i++)
			fprintf(stderr, " %d", jobs[i].pid);
		fprintf(stderr, "\n");
		exit(1);
	}
	return jobs[0];
}

static int run_command(int argc, char **argv, int wanted, int timeout_s)
{
	char command[NU_BOOT_ASK_MAX] = "", why[128];
	const char *reason;
	struct job_name job = choose_job(wanted);
	int status = 0, fd = job_connect(&job, why, sizeof(why));
	if (fd < 0)
		die(1, "job %d: %s", job.pid, why);
	for (int i = 0; i < argc; i++) {
		strcat(command, i ? " " : "");
		strcat(command, argv[i]); /* numbers and known words: they are short */
	}
	char *text = ask(fd, command, timeout_s * 1000, &status, &reason);
	close(fd);
	if (!text)
		die(1, "job %d: %s", job.pid, reason);
	if (status)
		die(1, "%s: %s", argv[0], *text ? text : strerror(status < 0 ? -status : status));
	size_t len = strlen(text);
	fputs(text, stdout);
	if (len && text[len - 1] != '\n')
		putchar('\n');
	free(text);
	if (fflush(stdout))
		die(1, "standard output: %s", strerror(errno));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"job", required_argument, NULL, 'j'},
					      {"time-out", required_argument, NULL, 'T'},
					      {"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	int c, wanted = 0, timeout_s = TIME_OUT_S;
	while ((c = getopt_long(argc, argv, "+j:T:h", longs, NULL)) != -1) {
		switch (c) {
		case 'j':
			if (!is_number(optarg, 10, 1 << 30) || !(wanted = atoi(optarg)))
				die(2, "--job takes a process id, not '%s'", optarg);
			break;
		case 'T':
			if (!is_number(optarg, 10, 86400) || !(timeout_s = atoi(optarg)))
				die(2, "--time-out takes a number of seconds from 1 to 86400, not '%s'",
				    optarg);
			break;
		case 'h':
			help();
			return 0;
		default:
			fprintf(stderr, "Try 'nu_ctl --help'.\n");
			return 2;
		}
	}
	argc -= optind;
	argv += optind;
	const struct command *command = check(argc, argv);
	return strcmp(command->name, "jobs") ? run_command(argc, argv, wanted, timeout_s) : list_jobs();
}
