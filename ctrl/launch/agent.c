/* SPDX-License-Identifier: MIT */
/*
 * nu_launch --agent: the launcher's hands on another host. It does for its host's nodes what the launcher does for those
 * of its own machine (crew.c), and says what happens over the stream that the remote shell gives it. When that ends, or
 * is silent for too long, it ends everything here.
 */
#include "agent.h"
#include "buildid.h"
#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNKILLABLE_S 10
#define FRAME_MAX    (NU_BOOT_NODES_MAX * (NU_BOOT_BLOB_MAX + 4u)) /* everybody's part of an exchange */

enum { AT_SIGNAL, AT_IN, AT_OUT, AT_INPUT, AT_CREW };

extern char **environ;

static struct agent {
	struct conn conn;
	struct crew crew;
	bool has_crew, finishing, said_gone;
	struct agent_start start;
	char *strings; /* of the start */
	char **argv;
	int program_fd; /* the program's file, brought by the launcher */
	size_t output_under_way;
	int input_fd; /* node 0's standard input; -1: elsewhere, or closed */
	char input[AGENT_INPUT_BYTES];
	size_t input_have;
	bool input_ended;
	int signal_fd;
	int64_t heard_ms, beat_ms;
} agent = {.program_fd = -1, .input_fd = -1};

static void say(uint32_t type, int32_t arg, const char *text)
{
	conn_send(&agent.conn, type, arg, 0, text, strlen(text));
}

/* Ends all that is here, and this process. */
static void __attribute__((noreturn)) leave(void)
{
	signal(SIGALRM, SIG_DFL);
	alarm(UNKILLABLE_S);
	if (agent.has_crew)
		crew_kill_all(&agent.crew, SIGKILL);
	crew_kill_orphans();
	_exit(1);
}

static void refuse(int status)
{
	say(AGENT_REFUSED, status, "");
}

void agent_say(const char *line, size_t len)
{
	conn_send(&agent.conn, AGENT_SAY, 0, 0, line, len);
}

/* ---- from the crew ---- */

static unsigned number_of(unsigned i)
{
	return agent.start.hello.first + i;
}

static void agent_forked(struct crew *c)
{
	int32_t pids[NU_BOOT_NODES_MAX];
	for (unsigned i = 0; i < c->count; i++)
		pids[i] = c->members[i].pid;
	conn_send(&agent.conn, AGENT_FORKED, 0, 0, pids, c->count * sizeof(pids[0]));
}

static void agent_message(struct crew *c, unsigned i, const struct nu_boot_head *head, const char *payload)
{
	struct shared *s;
	(void)c;
	if (head->type >= AGENT_HELLO) {
		say(AGENT_FAILED, 1,
		    "a node sent a message that makes no sense: is libnu of another version?");
		return;
	}
	s = shared_copy(payload, head->len_bytes);
	conn_send_node(&agent.conn, number_of(i), head->type, head->arg, head->id, s);
	shared_put(s);
}

static void agent_exited(struct crew *c, unsigned i, int wait_status)
{
	(void)c;
	conn_send_node(&agent.conn, number_of(i), AGENT_EXITED, wait_status, 0, NULL);
}

static void agent_ended(struct crew *c, int wait_status)
{
	(void)c;
	conn_send(&agent.conn, AGENT_ENDED, wait_status, 0, NULL, 0);
}

static void agent_failed(struct crew *c, const char *text)
{
	(void)c;
	say(AGENT_FAILED, 1, text);
}

static void agent_output(struct crew *c, unsigned i, unsigned stream, const char *data, size_t len_bytes)
{
	struct shared *s = shared_copy(data, len_bytes);
	(void)c;
	agent.output_under_way += len_bytes;
	conn_send_node(&agent.conn, number_of(i), AGENT_OUTPUT, (int32_t)stream, 0, s);
	shared_put(s);
}

static bool agent_may_output(struct crew *c, unsigned i, unsigned stream)
{
	(void)c;
	(void)i;
	(void)stream;
	return agent.output_under_way < AGENT_OUTPUT_BYTES;
}

static const struct crew_ops crew_ops = {agent_forked, agent_message, agent_exited,    agent_ended,
					 agent_failed, agent_output,  agent_may_output};

/* ---- standard input of node 0 ---- */

static void input_close(void)
{
	if (agent.input_fd >= 0)
		close(agent.input_fd);
	agent.input_fd = -1;
}

static void input_push(void)
{
	while (agent.input_have && agent.input_fd >= 0) {
		ssize_t n = write(agent.input_fd, agent.input, agent.input_have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			input_close(); /* nobody reads it any more */
			break;
		}
		agent.input_have -= (size_t)n;
		memmove(agent.input, agent.input + n, agent.input_have);
		conn_send(&agent.conn, AGENT_TAKEN, (int32_t)n, 0, NULL, 0);
	}
	if (agent.input_fd < 0 && agent.input_have) {
		conn_send(&agent.conn, AGENT_TAKEN, (int32_t)agent.input_have, 0, NULL, 0);
		agent.input_have = 0;
	}
	if (agent.input_ended && !agent.input_have)
		input_close();
}

static void on_input(const char *data, size_t len)
{
	if (!len)
		agent.input_ended = true;
	if (len > sizeof(agent.input) - agent.input_have)
		leave(); /* more than was agreed */
	memcpy(agent.input + agent.input_have, data, len);
	agent.input_have += len;
	input_push();
}

/* ---- the program's start ---- */

static bool next_string(char **at_p, const char *end, char **s_p)
{
	char *nul = memchr(*at_p, '\0', (size_t)(end - *at_p));
	if (!nul)
		return false;
	*s_p = *at_p;
	*at_p = nul + 1;
	return true;
}

/* What the dynamic linker looks at must be the same on all hosts. */
static void clear_linker_environment(void)
{
	for (char **e = environ; e && *e;) {
		size_t len = strcspn(*e, "=");
		char name[256];
		if ((strncmp(*e, "LD_", 3) && strncmp(*e, "GLIBC_TUNABLES=", 15)) || len >= sizeof(name)) {
			e++;
			continue;
		}
		memcpy(name, *e, len);
		name[len] = '\0';
		unsetenv(name);
		e = environ;
	}
}

/* Directory, arguments, environment. */
static bool take_start(const char *payload, size_t len)
{
	char *at, *end, *dir, *entry;
	if (len < sizeof(agent.start))
		return false;
	memcpy(&agent.start, payload, sizeof(agent.start));
	len -= sizeof(agent.start);
	agent.strings = at = launch_alloc(len);
	memcpy(at, payload + sizeof(agent.start), len);
	end = at + len;
	if (agent.start.hello.version != NU_BOOT_VERSION || !agent.start.hello.here ||
	    agent.start.hello.here > NU_BOOT_NODES_MAX || !agent.start.argc || agent.start.argc > len ||
	    !next_string(&at, end, &dir))
		return false;
	agent.argv = launch_alloc((agent.start.argc + 1) * sizeof(*agent.argv));
	for (unsigned i = 0; i < agent.start.argc; i++) {
		if (!next_string(&at, end, &agent.argv[i]))
			return false;
	}
	agent.argv[agent.start.argc] = NULL;
	clear_linker_environment();
	for (unsigned i = 0; i < agent.start.envc; i++) {
		if (!next_string(&at, end, &entry) || !strchr(entry, '=') || putenv(entry))
			return false;
	}
	if (!chdir(dir))
		return true;
	launch_say("there is no directory %s (--wdir): %s", dir, strerror(errno));
	refuse(1);
	return true;
}

static void start_program(void)
{
	struct spawn how = {.hello = agent.start.hello,
			    .argv = agent.argv,
			    .program_fd = agent.program_fd,
			    .stdin_fd = -1};
	struct spawned s;
	int in[2] = {-1, -1};
	if (agent.start.has_stdin && pipe2(in, O_CLOEXEC)) {
		launch_say("no pipe for the standard input: %s", strerror(errno));
		refuse(1);
		return;
	}
	how.stdin_fd = in[0];
	int status = spawn_program(&how, &s);
	explicit_bzero(how.hello.secret, sizeof(how.hello.secret));
	explicit_bzero(agent.start.hello.secret, sizeof(agent.start.hello.secret));
	if (agent.program_fd >= 0)
		close(agent.program_fd);
	if (in[0] >= 0)
		close(in[0]);
	agent.input_fd = in[1];
	if (in[1] >= 0)
		fcntl(in[1], F_SETFL, O_NONBLOCK);
	if (status) {
		refuse(status);
		return;
	}
	crew_init(&agent.crew, &crew_ops, NULL, agent.start.hello.here, &s);
	agent.has_crew = true;
	input_push();
}

/* The program's file here is the launcher's, or may be brought, or the job is refused. */
static void check_program(void)
{
	char id[sizeof(agent.start.id)], path[4096];
	int err = buildid_find(agent.argv[0], path, sizeof(path));
	if (!err)
		err = buildid_of(path, id, sizeof(id));
	agent.start.id[sizeof(agent.start.id) - 1] = '\0';
	if (!*agent.start.id || (!err && !strcmp(id, agent.start.id))) {
		start_program();
		return;
	}
	if (agent.start.may_copy) {
		agent.program_fd = (int)memfd_create("nu-program", MFD_CLOEXEC);
		if (agent.program_fd >= 0) {
			conn_send(&agent.conn, AGENT_NEED, 0, 0, NULL, 0);
			return;
		}
		launch_say("no memory for a copy of the program: %s", strerror(errno));
	} else if (err) {
		launch_say("%s: %s (--copy takes it there)", agent.argv[0],
			   err == -ENOENT ? "no such program" : strerror(-err));
	} else {
		launch_say("%s is not the same program as here: %s there, %s here (--copy takes it there)",
			   path, id, agent.start.id);
	}
	refuse(err == -ENOENT ? 127 : err ? 126 : 1);
}

static void on_file(const char *data, size_t len)
{
	if (agent.program_fd < 0 || agent.has_crew)
		leave();
	if (!len) {
		start_program();
		return;
	}
	while (len) {
		ssize_t n = write(agent.program_fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			launch_say("the program's copy: %s", strerror(errno));
			refuse(1);
			leave();
		}
		data += n;
		len -= (size_t)n;
	}
}

/* ---- from the launcher ---- */

static void pass_on(const struct nu_boot_head *head, const char *payload)
{
	unsigned i = head->node - agent.start.hello.first;
	struct shared *s;
	if (!agent.has_crew || (head->node != AGENT_ALL && i >= agent.crew.count))
		return;
	s = shared_copy(payload, head->len_bytes);
	if (head->node != AGENT_ALL)
		crew_send(&agent.crew, i, head->type, head->arg, head->id, s);
	for (i = 0; head->node == AGENT_ALL && i < agent.crew.count; i++)
		crew_send(&agent.crew, i, head->type, head->arg, head->id, s);
	shared_put(s);
}

static void on_kill(const struct nu_boot_head *head)
{
	unsigned i = head->node - agent.start.hello.first;
	if (!agent.has_crew)
		return;
	if (head->node == AGENT_ALL)
		crew_kill_all(&agent.crew, head->arg);
	else if (i < agent.crew.count)
		crew_kill(&agent.crew, i, head->arg);
}

static void on_frame(void *arg, const struct nu_boot_head *head, const char *payload)
{
	(void)arg;
	switch (head->type) {
	case AGENT_START:
		if (agent.argv || !take_start(payload, head->len_bytes))
			leave();
		check_program();
		break;
	case AGENT_FILE:
		on_file(payload, head->len_bytes);
		break;
	case AGENT_INPUT:
		on_input(payload, head->len_bytes);
		break;
	case AGENT_TAKEN:
		agent.output_under_way -= (size_t)head->arg < agent.output_under_way ? (size_t)head->arg
										     : agent.output_under_way;
		break;
	case AGENT_KILL:
		on_kill(head);
		break;
	case AGENT_FINISH:
		if (!agent.finishing)
			crew_kill_orphans();
		agent.finishing = true;
		break;
	case AGENT_ALIVE:
		break;
	default:
		if (head->type < AGENT_HELLO)
			pass_on(head, payload);
	}
}

/* ---- the loop ---- */

static void on_signals(void)
{
	struct signalfd_siginfo si;
	int wait_status;
	pid_t pid;
	while (read(agent.signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			continue;
		launch_say("the agent was asked to end by signal %u", si.ssi_signo);
		leave();
	}
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		if (agent.has_crew)
			crew_reaped(&agent.crew, pid, wait_status);
	}
}

/* Beats, and ends everything when the launcher's stop. Returns ms until it is to be called again. */
static int timers(void)
{
	int64_t now = launch_now_ms(), silence = agent.argv ? agent.start.silence_ms : AGENT_SILENCE_MS;
	if (agent.conn.heard)
		agent.heard_ms = now;
	agent.conn.heard = false;
	/* Whoever was stopped himself finds what was said meanwhile. */
	if (silence && now - agent.heard_ms >= silence && !conn_waiting(&agent.conn))
		leave();
	if (now - agent.beat_ms >= AGENT_BEAT_MS) {
		agent.beat_ms = now;
		conn_send(&agent.conn, AGENT_ALIVE, 0, 0, NULL, 0);
	}
	return (int)(agent.beat_ms + AGENT_BEAT_MS - now);
}

static void enter(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){.fd = fd, .events = events};
}

static void turn(struct pollfd *p, int timeout_ms)
{
	unsigned n = AT_CREW + (agent.has_crew ? CREW_POLL(agent.crew.count) : 0);
	enter(&p[AT_SIGNAL], agent.signal_fd, POLLIN);
	enter(&p[AT_IN], agent.conn.fd, POLLIN);
	enter(&p[AT_OUT], agent.conn.first ? agent.conn.out_fd : -1, POLLOUT);
	enter(&p[AT_INPUT], agent.input_have ? agent.input_fd : -1, POLLOUT);
	if (agent.has_crew)
		crew_poll(&agent.crew, p + AT_CREW);
	bool had_crew = agent.has_crew;
	if (poll(p, n, timeout_ms) < 0)
		return;
	if (p[AT_OUT].revents)
		conn_flush(&agent.conn);
	if (p[AT_INPUT].revents)
		input_push();
	if (had_crew)
		crew_dispatch(&agent.crew, p + AT_CREW);
	if (p[AT_IN].revents && !conn_read(&agent.conn, on_frame, NULL))
		leave();
	if (p[AT_SIGNAL].revents)
		on_signals();
}

/* Everything was passed on: the launcher's answer is the end of the stream. */
static void bye(void)
{
	conn_send(&agent.conn, AGENT_BYE, 0, 0, NULL, 0);
	for (int i = 0; agent.conn.first && i < 100; i++) {
		struct pollfd p = {.fd = agent.conn.out_fd, .events = POLLOUT};
		poll(&p, 1, 100);
		conn_flush(&agent.conn);
	}
	_exit(0);
}

static void run(void)
{
	struct pollfd *p = launch_alloc((AT_CREW + CREW_POLL(NU_BOOT_NODES_MAX)) * sizeof(*p));
	agent.heard_ms = agent.beat_ms = launch_now_ms();
	for (;;) {
		turn(p, timers());
		if (agent.has_crew && !agent.said_gone && crew_gone(&agent.crew)) {
			agent.said_gone = true;
			conn_send(&agent.conn, AGENT_GONE, 0, 0, NULL, 0);
		}
		if (agent.finishing && (!agent.has_crew || crew_drain(&agent.crew)))
			bye();
	}
}

/* The stream away from where our children would find it; they get nothing to read. */
static bool take_stream(void)
{
	int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (in < 0 || out < 0 || null < 0 || isatty(in) || isatty(out) || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0)
		return false;
	conn_init_pipes(&agent.conn, in, out, FRAME_MAX);
	return true;
}

int agent_main(void)
{
	sigset_t set;
	char *facts;
	if (!take_stream()) {
		fprintf(stderr, "nu_launch: --agent is for nu_launch itself, on other hosts\n");
		return 2;
	}
	signals_reset();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	agent.signal_fd =
		sigprocmask(SIG_BLOCK, &set, NULL) ? -1 : signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	facts = agent_facts();
	if (agent.signal_fd < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) || !facts ||
	    write(agent.conn.out_fd, AGENT_MAGIC, strlen(AGENT_MAGIC)) != (ssize_t)strlen(AGENT_MAGIC)) {
		fprintf(stderr, "nu_launch --agent: %s\n", strerror(errno));
		return 1;
	}
	say(AGENT_HELLO, AGENT_VERSION, facts);
	free(facts);
	run();
	return 0;
}
