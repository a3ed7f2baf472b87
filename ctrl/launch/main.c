/* SPDX-License-Identifier: MIT */
/*
 * nu_launch: runs a program as a logical process of several nodes, on this machine or on several.
 */
#include "agent.h"
#include "crew.h"
#include "host.h"
#include "hosts.h"
#include "loop.h"
#include "remote.h"

#include "core/size.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define CORES_MAX     64
#define NODES_DEFAULT 2
#define MEM_MIN	      ((size_t)16 << 20)

static struct job job;
static struct hosts hosts = {.silence_s = AGENT_SILENCE_MS / 1000.0};
static bool writers_run;
static void (*say_to)(const char *line, size_t len);

int64_t launch_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void *launch_alloc(size_t len_bytes)
{
	void *p = malloc(len_bytes ? len_bytes : 1);
	if (!p) {
		static const char text[] = "nu_launch: out of memory\n";
		if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
			_exit(1);
		_exit(1);
	}
	return p;
}

void launch_say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n = snprintf(line, sizeof(line), "nu_launch: ");
	va_start(ap, fmt);
	int more = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	size_t len = (size_t)n + (size_t)(more < 0 ? 0 : more);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	if (say_to) {
		say_to(line + n, len - (size_t)n);
		return;
	}
	line[len++] = '\n';
	if (writers_run) {
		if (job.err.open) /* a line that a node has begun */
			writer_push(&job.err, "\n", 1);
		job.err.open = NULL;
		writer_push(&job.err, line, len);
	} else if (write(STDERR_FILENO, line, len) < 0)
		return; /* nowhere to complain */
}

void launch_say_to(void (*fn)(const char *line, size_t len))
{
	say_to = fn;
}

unsigned launch_processors(void)
{
	cpu_set_t cpus;
	return sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : (unsigned)CPU_COUNT(&cpus);
}

static void help(void)
{
	printf("Usage: nu_launch [options] PROG [ARGS...]\n"
	       "\n"
	       "Runs PROG, a program linked with libnu, as a logical process of several nodes, on this "
	       "machine or on\n"
	       "several.\n"
	       "\n"
	       "  -n, --nodes N       nodes, 1 to %d (2; with hosts, their slots)\n"
	       "  -c, --cores K       kernel threads for user-level threads in each node, 1 to %d "
	       "(processors / N, here %u "
	       "/ N)\n"
	       "  -m, --mem SIZE      each node's budget for heaps: 512M, 4G (half of memory / N)\n"
	       "  -r, --reader R      how heaps are read when they move: auto, cma, verbs, am (auto)\n"
	       "      --rdma LIST     KEY=VALUE,... of the RDMA reader: see nu_launch(1)\n"
	       "  -t, --transport T   shm, tcp, or a list as for UCX_TLS (auto)\n"
	       "  -k, --keep-going    a node's death does not end the job, unless it is node 0's (it does)\n"
	       "  -T, --time-out S    end the job with status 124 after S seconds (no limit)\n"
	       "      --no-prefix     do not put \"[n] \" before the nodes' lines (put it)\n"
	       "  -h, --help          show this\n"
	       "\n"
	       "Several hosts:\n"
	       "      --hosts LIST    hosts, as in a,b:4 (b has 4 slots: so many nodes) (this machine)\n"
	       "      --hostfile F    lines \"HOST [slots=K] [cores=K] [mem=SIZE] [interface=IF]\", # "
	       "comments\n"
	       "      --rsh CMD       is run as CMD HOST COMMAND-LINE (NU_RSH, else ssh)\n"
	       "      --interface IF  interface, address or ADDRESS/LEN by which hosts reach each other\n"
	       "      --wdir DIR      directory there (this one)\n"
	       "  -x, --export NAME[=VALUE]  environment there, beside NU_*, UCX_* and LD_*\n"
	       "      --copy          take the program there if it is missing or another\n"
	       "      --agent-path P  nu_launch there (where it is here)\n"
	       "      --host-time-out S  a host that is silent for S seconds is dead (10; 0: never)\n"
	       "\n"
	       "Exit status: what PROG's main proclet returned; 128 + signal or the status of a node that "
	       "died; 124 timed\n"
	       "out; 126 PROG cannot be run; 127 there is no PROG; 130 Ctrl-C; 2 wrong usage; 255 a host "
	       "could not "
	       "be\n"
	       "reached or was lost.\n",
	       NU_BOOT_NODES_MAX, CORES_MAX, launch_processors());
}

static void __attribute__((noreturn, format(printf, 1, 2))) usage(const char *fmt, ...)
{
	va_list ap;
	fprintf(stderr, "nu_launch: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'nu_launch --help'.\n");
	exit(2);
}

static unsigned number(const char *option, const char *text, unsigned max)
{
	char *end;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || v < 1 || v > max)
		usage("%s takes a number from 1 to %u, not '%s'", option, max, text);
	return (unsigned)v;
}

static void word(const char *option, const char *text, char *to, size_t size)
{
	if (!*text || strlen(text) >= size)
		usage("%s takes a word of 1 to %zu characters, not '%s'", option, size - 1, text);
	memset(to, 0, size);
	strcpy(to, text);
}

static double seconds(const char *option, const char *text, double min)
{
	char *end;
	double s = strtod(text, &end);
	if (end == text || *end || !(s >= min) || s > 1e6)
		usage("%s takes a number of seconds from %g to 1e6, not '%s'", option, min, text);
	return s;
}

enum {
	HOSTS = 256,
	HOSTFILE,
	RSH,
	INTERFACE,
	WDIR,
	COPY,
	AGENT_PATH,
	HOST_TIME_OUT,
	AGENT,
	AGENT_COPIED,
	AGENT_SAYS
};

static void take_host_option(int c)
{
	switch (c) {
	case HOSTS:
		if (!hosts_parse(&hosts, optarg))
			exit(2);
		break;
	case HOSTFILE:
		if (!hosts_read(&hosts, optarg))
			exit(2);
		break;
	case RSH:
		if (!optarg[strspn(optarg, " \t")])
			usage("--rsh takes a command");
		hosts.rsh = optarg;
		break;
	case INTERFACE:
		hosts.interface = optarg;
		break;
	case WDIR:
		hosts.wdir = optarg;
		break;
	case COPY:
		hosts.copy = true;
		break;
	case AGENT_PATH:
		hosts.agent_path = optarg;
		break;
	case HOST_TIME_OUT:
		hosts.silence_s = seconds("--host-time-out", optarg, 0);
		if (hosts.silence_s > 0 && hosts.silence_s < 2)
			usage("--host-time-out: less than 2 s says nothing of a host");
		break;
	case 'x':
		if (!hosts_export(&hosts, optarg))
			exit(2);
		break;
	case AGENT_SAYS: /* which version it is */
		printf("%d\n", AGENT_VERSION);
		exit(0);
	case AGENT_COPIED: /* into a file for this once */
		unlink(optarg);
		__attribute__((fallthrough));
	case AGENT:
		launch_say_to(agent_say);
		exit(agent_main());
	default:
		fprintf(stderr, "Try 'nu_launch --help'.\n");
		exit(2);
	}
}

static void take_option(int c, struct options *o)
{
	char *end;
	switch (c) {
	case 'n':
		o->nodes = number("--nodes", optarg, NU_BOOT_NODES_MAX);
		break;
	case 'c':
		o->cores = number("--cores", optarg, CORES_MAX);
		break;
	case 'm':
		if (!nu_size_parse(optarg, &o->mem_bytes))
			usage("--mem takes a size such as 512M or 4G, not '%s'", optarg);
		if (o->mem_bytes < MEM_MIN)
			usage("--mem: a node needs at least %zuM", MEM_MIN >> 20);
		break;
	case 'r':
		word("--reader", optarg, o->reader, sizeof(o->reader));
		break;
	case 't':
		word("--transport", optarg, o->transport, sizeof(o->transport));
		break;
	case 'R':
		word("--rdma", optarg, o->rdma, sizeof(o->rdma));
		break;
	case 'k':
		o->keep_going = true;
		setenv("NU_DEADLOCK", "0", 0); /* what waits may be let go by a node's death */
		break;
	case 'T':
		o->time_out_s = strtod(optarg, &end);
		if (end == optarg || *end || !(o->time_out_s > 0) || o->time_out_s > 1e9)
			usage("--time-out takes a number of seconds, above 0 and up to 1e9, not '%s'",
			      optarg);
		break;
	case 'p':
		o->no_prefix = true;
		break;
	case 'h':
		help();
		exit(0);
	default:
		take_host_option(c);
	}
}

/* Cores are left to each host. */
static void take_hosts(struct options *o)
{
	if (!hosts_deal(&hosts, &o->nodes))
		exit(2);
	if (!hosts.rsh && getenv("NU_RSH") && *getenv("NU_RSH"))
		hosts.rsh = getenv("NU_RSH");
	if (!hosts.wdir)
		hosts.wdir = getcwd(NULL, 0);
	if (!hosts.wdir) {
		launch_say("the working directory has no name: %s (--wdir)", strerror(errno));
		exit(1);
	}
	o->hosts = &hosts;
}

static void take_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"nodes", required_argument, NULL, 'n'},
		{"cores", required_argument, NULL, 'c'},
		{"mem", required_argument, NULL, 'm'},
		{"reader", required_argument, NULL, 'r'},
		{"transport", required_argument, NULL, 't'},
		{"rdma", required_argument, NULL, 'R'},
		{"keep-going", no_argument, NULL, 'k'},
		{"time-out", required_argument, NULL, 'T'},
		{"no-prefix", no_argument, NULL, 'p'},
		{"help", no_argument, NULL, 'h'},
		{"hosts", required_argument, NULL, HOSTS},
		{"hostfile", required_argument, NULL, HOSTFILE},
		{"rsh", required_argument, NULL, RSH},
		{"interface", required_argument, NULL, INTERFACE},
		{"wdir", required_argument, NULL, WDIR},
		{"export", required_argument, NULL, 'x'},
		{"copy", no_argument, NULL, COPY},
		{"agent-path", required_argument, NULL, AGENT_PATH},
		{"host-time-out", required_argument, NULL, HOST_TIME_OUT},
		{"agent", no_argument, NULL, AGENT},
		{"agent-copied", required_argument, NULL, AGENT_COPIED},
		{"agent-says", no_argument, NULL, AGENT_SAYS},
		{NULL, 0, NULL, 0},
	};
	int c;
	/* "+": what follows the program's name is the program's. */
	while ((c = getopt_long(argc, argv, "+n:c:m:r:t:kT:x:h", longs, NULL)) != -1)
		take_option(c, o);
	o->argv = argv + optind;
	if (!o->argv[0])
		usage("no program given");
	if (!o->argv[0][0])
		usage("the program's name is empty");
	if (hosts.count || hosts_from_slurm(&hosts)) {
		take_hosts(o);
		return;
	}
	if (!o->nodes)
		o->nodes = NODES_DEFAULT;
	unsigned each = launch_processors() / o->nodes;
	if (!o->cores)
		o->cores = each < 1 ? 1 : each > CORES_MAX ? CORES_MAX : each;
}

static int start_here(const struct options *o)
{
	struct spawn how = {.argv = o->argv, .program_fd = -1, .stdin_fd = -1};
	struct spawned s;
	spawn_hello(&how.hello, o);
	if (getrandom(how.hello.secret, sizeof(how.hello.secret), 0) != (ssize_t)sizeof(how.hello.secret)) {
		launch_say("no randomness for the job's secret: %s", strerror(errno));
		return 1;
	}
	int status = spawn_program(&how, &s);
	explicit_bzero(how.hello.secret, sizeof(how.hello.secret));
	if (status)
		return status;
	job_init(&job, o);
	job_add_host(&job, here_create(&job, &s, o->nodes));
	job_expect_program(&job);
	return 0;
}

static int start_remote(const struct options *o)
{
	/* Standard input is read ahead of the program that may want it: at a terminal, only in the foreground. */
	signal(SIGTTIN, SIG_IGN);
	job_init(&job, o);
	for (unsigned i = 0; i < hosts.count; i++) {
		struct remote *r = remote_create(&job, &hosts, &hosts.list[i]);
		if (!r)
			return 255; /* the other shells end with us */
		job_add_host(&job, &r->host);
	}
	return 0;
}

static bool start_writers(struct job *j, int *event_fd_p)
{
	*event_fd_p = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*event_fd_p < 0) {
		launch_say("output: eventfd: %s", strerror(errno));
		return false;
	}
	int err = writer_start(&j->out, STDOUT_FILENO, *event_fd_p);
	if (!err)
		err = writer_start(&j->err, STDERR_FILENO, *event_fd_p);
	if (err)
		launch_say("output threads: %s (RLIMIT_NPROC, or a cgroup's pids.max)", strerror(-err));
	return !err;
}

int main(int argc, char **argv)
{
	struct options o = {.reader = "auto", .transport = "auto"};
	struct loop l;

	signals_begin();
	hosts_export_defaults(&hosts);
	take_options(argc, argv, &o);
	signal(SIGPIPE, SIG_IGN);
	/* The nodes' parent exits once it has forked them; they, and whatever they leave behind, come to us. */
	if (!o.hosts && prctl(PR_SET_CHILD_SUBREAPER, 1)) {
		launch_say("PR_SET_CHILD_SUBREAPER: %s", strerror(errno));
		return 1;
	}
	int err = loop_init(&l);
	if (err) {
		launch_say("signals: %s", strerror(-err));
		return 1;
	}
	int status = o.hosts ? start_remote(&o) : start_here(&o);
	if (status)
		return status;
	/* After the fork: the child had one thread. */
	if (!start_writers(&job, &l.event_fd)) {
		crew_kill_orphans(); /* the program, or the remote shells */
		return 1;
	}
	writers_run = true;
	loop_run(&l, &job);
	/* Not exit(): a writer may be stuck in a write that nobody reads. */
	_exit(job.status);
}
