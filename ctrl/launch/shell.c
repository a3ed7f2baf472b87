/* SPDX-License-Identifier: MIT */
/* The remote shell that runs an agent: CMD HOST COMMAND-LINE, or srun, or none at all for this machine. */
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS_MAX 64

/* What cannot be answered must fail, and in a bounded time. */
#define SSH_COMMAND "ssh -x -T -oBatchMode=yes -oConnectTimeout=10"
#define SRUN_COMMAND                                                                                         \
	"srun --quiet --unbuffered --overlap --cpu-bind=none --nodes=1 --ntasks=1 --ntasks-per-node=1"

static const char *command_of(const struct remote *r)
{
	if (r->hosts->rsh)
		return r->hosts->rsh;
	return r->hosts->slurm ? SRUN_COMMAND : SSH_COMMAND;
}

static bool is_this_machine(const struct remote *r)
{
	char self[256] = "";
	if (r->hosts->rsh || r->hosts->slurm)
		return false;
	gethostname(self, sizeof(self) - 1);
	return !strcmp(r->spec->name, "localhost") || !strcmp(r->spec->name, self);
}

/* Cuts @command (which is changed) at blanks; quotes hold words together. */
static unsigned split(char *command, char **words, unsigned max)
{
	unsigned n = 0;
	for (char *p = command; *p && n < max;) {
		char quote = 0, *to;
		p += strspn(p, " \t");
		if (!*p)
			break;
		words[n++] = to = p;
		for (; *p && (quote || (*p != ' ' && *p != '\t')); p++) {
			if (quote ? *p == quote : *p == '\'' || *p == '"')
				quote = quote ? 0 : *p;
			else
				*to++ = *p;
		}
		if (*p)
			p++;
		*to = '\0';
	}
	return n;
}

/* The first word, without its directory. */
const char *shell_name(const struct remote *r)
{
	static char name[64];
	const char *c = command_of(r), *slash;
	char *copy, *words[1] = {(char *)""};
	if (is_this_machine(r))
		return "its agent";
	copy = launch_alloc(strlen(c) + 1);
	strcpy(copy, c);
	(void)split(copy, words, 1);
	slash = strrchr(words[0], '/');
	snprintf(name, sizeof(name), "%.60s", slash ? slash + 1 : words[0]);
	free(copy);
	return name;
}

/* For a POSIX shell. */
static char *quoted(const char *text)
{
	char *q = launch_alloc(4 * strlen(text) + 3), *to = q;
	*to++ = '\'';
	for (; *text; text++) {
		if (*text == '\'')
			to = stpcpy(to, "'\\''");
		else
			*to++ = *text;
	}
	strcpy(to, "'");
	return q;
}

/* Ours, as it lies here, unless it was said where it is there. */
static int agent_path(const struct remote *r, char *path, size_t size)
{
	ssize_t n;
	if (r->hosts->agent_path)
		return (size_t)snprintf(path, size, "%s", r->hosts->agent_path) < size ? 0 : -ENAMETOOLONG;
	n = readlink("/proc/self/exe", path, size - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	return 0;
}

static void __attribute__((noreturn))
child(char **argv, const int *in, const int *out, const int *err, pid_t launcher)
{
	/* A terminal's signals are the launcher's affair: a session of its own. */
	setsid();
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) || getppid() != launcher)
		_exit(255);
	signals_reset();
	if (dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0 || dup2(err[1], 2) < 0)
		_exit(255);
	execvp(argv[0], argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(255);
}

static int run(struct remote *r, char **argv)
{
	int in[2], out[2] = {-1, -1}, err[2] = {-1, -1};
	pid_t self = getpid();
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		return -errno;
	r->shell = fork();
	if (r->shell < 0) {
		r->shell = 0;
		return -errno;
	}
	if (!r->shell)
		child(argv, in, out, err, self);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	conn_init_pipes(&r->conn, out[0], in[1], NU_BOOT_TEXT_MAX);
	r->err_fd = err[0];
	fcntl(r->err_fd, F_SETFL, O_NONBLOCK);
	return 0;
}

/* What a shell there is to do. A copy of ours is used where there is none, or one of another version. */
static char *command_line(const struct remote *r, const char *path)
{
	static const char copying[] =
		"f=%s; if [ \"$(\"$f\" --agent-says 2>/dev/null </dev/null)\" = %d ]; then exec \"$f\" "
		"--agent; fi; "
		"f=$(mktemp \"${TMPDIR:-/tmp}/nu_launch.XXXXXX\") && printf '\\001nu-need-\\002\\n' && "
		"head -c %llu >\"$f\" && chmod 700 \"$f\" && exec \"$f\" --agent-copied \"$f\"; "
		"s=$?; rm -f \"$f\"; exit $s";
	char *where = quoted(path), *script = NULL, *line = NULL, *whole = NULL;
	struct stat st = {0};
	int n;
	if (!r->hosts->copy) {
		n = asprintf(&line, "exec %s --agent", where);
	} else {
		(void)!stat("/proc/self/exe", &st);
		n = asprintf(&script, copying, where, AGENT_VERSION, (unsigned long long)st.st_size);
		whole = quoted(n < 0 ? "" : script);
		n = asprintf(&line, "exec /bin/sh -c %s", whole); /* the login shell may be any */
	}
	free(where);
	free(script);
	free(whole);
	return n < 0 ? NULL : line;
}

int shell_start(struct remote *r)
{
	char path[PATH_MAX], list[300];
	char *words[WORDS_MAX + 8], *command = NULL, *line = NULL;
	unsigned n = 0;
	int err = agent_path(r, path, sizeof(path));
	if (err)
		return err;
	if (is_this_machine(r)) {
		words[n++] = path;
		words[n++] = (char *)"--agent";
	} else {
		const char *c = command_of(r);
		command = launch_alloc(strlen(c) + 1);
		strcpy(command, c);
		n = split(command, words, WORDS_MAX);
		if (r->hosts->slurm) {
			snprintf(list, sizeof(list), "--nodelist=%s", r->spec->name);
			words[n++] = list;
			words[n++] = (char *)"/bin/sh";
			words[n++] = (char *)"-c";
		} else {
			words[n++] = r->spec->name;
		}
		words[n++] = line = command_line(r, path);
	}
	words[n] = NULL;
	err = !n || !words[n - 1] ? -ENOMEM : run(r, words);
	free(command);
	free(line);
	return err;
}

void shell_send_agent(struct remote *r)
{
	struct stat st;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct shared *s;
	if (fd < 0 || fstat(fd, &st)) {
		if (fd >= 0)
			close(fd);
		return; /* it will wait until it is given up */
	}
	s = shared_new((size_t)st.st_size);
	if (read(fd, s->data, s->len_bytes) == (ssize_t)s->len_bytes)
		conn_send_bare(&r->conn, s);
	shared_put(s);
	close(fd);
}

static void end_line(struct remote *r)
{
	while (r->err_len && (r->err_line[r->err_len - 1] == '\r' || r->err_line[r->err_len - 1] == ' '))
		r->err_len--;
	r->err_line[r->err_len] = '\0';
	if (r->err_len) {
		memcpy(r->last_err, r->err_line, r->err_len + 1);
		/* Before the agent has spoken the last line is kept for the message that may be due. */
		if (r->facts)
			launch_say("host %s: %s", r->spec->name, r->err_line);
	}
	r->err_len = 0;
}

void shell_read_err(struct remote *r)
{
	char buf[4096];
	ssize_t n;
	while (r->err_fd >= 0 && (n = read(r->err_fd, buf, sizeof(buf))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] == '\n')
				end_line(r);
			else if (r->err_len < sizeof(r->err_line) - 1)
				r->err_line[r->err_len++] = buf[i];
		}
		if (n < 0)
			break;
	}
	end_line(r);
	if (r->err_fd >= 0)
		close(r->err_fd);
	r->err_fd = -1;
}
