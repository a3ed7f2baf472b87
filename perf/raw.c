/* SPDX-License-Identifier: MIT */
/*
 * The limit of calls: active messages of UCX alone, between two processes that do nothing else. They are this program
 * again, started by a test with --raw-am, each on a processor of its own where there are two.
 */
#include "perf.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#define AM_ID	       0
#define UNFINISHED_MAX 64
#define LIMIT_S	       30

/* Descriptors of a pair: the other's address comes from one and ours goes to the other; the first says its result. */
enum { FD_FROM = 3, FD_TO, FD_RESULT };

struct raw {
	ucp_worker_h worker;
	ucp_ep_h ep;
	unsigned unfinished;
	uint64_t received;
	char *data;
	size_t size;
};

/* ---- in the new process ---- */

static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data, size_t len,
			       const ucp_am_recv_param_t *param)
{
	((struct raw *)arg)->received++;
	return UCS_OK;
}

static void on_sent(void *request, ucs_status_t status, void *arg)
{
	ucp_request_free(request);
	((struct raw *)arg)->unfinished--;
}

static int raw_send(struct raw *r)
{
	const ucp_request_param_t params = {
		.op_attr_mask =
			UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_AM_SEND_FLAG_EAGER,
		.cb.send = on_sent,
		.user_data = r,
	};
	ucs_status_ptr_t p = ucp_am_send_nbx(r->ep, AM_ID, NULL, 0, r->data, r->size, &params);

	if (UCS_PTR_IS_ERR(p))
		return -EIO;
	r->unfinished += p != NULL;
	while (r->unfinished > UNFINISHED_MAX)
		ucp_worker_progress(r->worker);
	return 0;
}

static void wait_for(struct raw *r, uint64_t n)
{
	while (r->received < n || r->unfinished)
		ucp_worker_progress(r->worker);
}

static int transfer(int fd, void *buf, size_t len, bool out)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = out ? write(fd, (char *)buf + done, len - done)
				: read(fd, (char *)buf + done, len - done);

		if (n <= 0)
			return -EPIPE;
		done += (size_t)n;
	}
	return 0;
}

static int raw_connect(struct raw *r)
{
	ucp_ep_params_t ep = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS};
	ucp_address_t *mine;
	size_t len, theirs_len;
	void *theirs;
	int ret;

	if (ucp_worker_get_address(r->worker, &mine, &len) != UCS_OK)
		return -EIO;
	ret = transfer(FD_TO, &len, sizeof(len), true);
	if (!ret)
		ret = transfer(FD_TO, mine, len, true);
	if (!ret)
		ret = transfer(FD_FROM, &theirs_len, sizeof(theirs_len), false);
	theirs = ret ? NULL : malloc(theirs_len);
	if (!theirs || transfer(FD_FROM, theirs, theirs_len, false))
		return -EIO;
	ep.address = theirs;
	return ucp_ep_create(r->worker, &ep, &r->ep) == UCS_OK ? 0 : -EIO;
}

static int raw_init(struct raw *r)
{
	const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM};
	const ucp_worker_params_t wp = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
					.thread_mode = UCS_THREAD_MODE_SINGLE};
	const ucp_am_handler_param_t handler = {
		.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
			      UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS,
		.id = AM_ID,
		.flags = UCP_AM_FLAG_WHOLE_MSG,
		.cb = on_message,
		.arg = r,
	};
	ucp_config_t *config;
	ucp_context_h context;

	if (ucp_config_read(NULL, NULL, &config) != UCS_OK || ucp_init(&params, config, &context) != UCS_OK ||
	    ucp_worker_create(context, &wp, &r->worker) != UCS_OK ||
	    ucp_worker_set_am_recv_handler(r->worker, &handler) != UCS_OK)
		return -EIO;
	ucp_config_release(config);
	return raw_connect(r);
}

static void pin(unsigned which)
{
	cpu_set_t allowed, one;
	unsigned seen = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) || CPU_COUNT(&allowed) < 2)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed) || seen++ != which)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		(void)!sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

/* Round trips; the median in ns. */
static double latency(struct raw *r, bool first, uint64_t n)
{
	uint64_t *samples = perf_samples(n), warm = n / 10;

	for (uint64_t i = 0; i < n + warm; i++) {
		uint64_t start = nu_testing_mono_ns();

		if (!first)
			wait_for(r, i + 1);
		if (raw_send(r))
			return 0;
		if (!first)
			continue;
		wait_for(r, i + 1);
		if (i >= warm)
			samples[i - warm] = nu_testing_mono_ns() - start;
	}
	wait_for(r, r->received);
	return perf_median(samples, n);
}

/* Messages one way, answered by a single one: ns for each. */
static double rate(struct raw *r, bool first, uint64_t n)
{
	uint64_t start = nu_testing_mono_ns();

	for (uint64_t i = 0; first && i < n; i++) {
		if (raw_send(r))
			return 0;
	}
	wait_for(r, first ? 1 : n);
	if (!first && raw_send(r))
		return 0;
	wait_for(r, r->received);
	return (double)(nu_testing_mono_ns() - start) / (double)n;
}

/* --raw-am FIRST RATE SIZE COUNT */
int perf_raw_main(char **argv)
{
	bool first = *argv[0] == '1';
	uint64_t n = strtoull(argv[3], NULL, 10);
	struct raw r = {.size = strtoull(argv[2], NULL, 10)};
	double ns;
	char end = 'e';

	alarm(LIMIT_S);
	pin(!first);
	r.data = calloc(1, r.size);
	if (!r.data || raw_init(&r))
		return 1;
	ns = *argv[1] == '1' ? rate(&r, first, n) : latency(&r, first, n);
	if (first && transfer(FD_RESULT, &ns, sizeof(ns), true))
		return 1;
	/* Neither leaves before the other has what it wants. */
	if (transfer(FD_TO, &end, 1, true))
		return 1;
	while (read(FD_FROM, &end, 1) < 0)
		ucp_worker_progress(r.worker);
	_exit(0); /* UCX would wait for a peer that has left */
}

/* ---- in the test ---- */

/* The environment of a process that nobody has launched, and whose UCX uses @tls alone. */
static char **environment(const char *tls)
{
	static char setting[64];
	size_t n = 0, used = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(n + 5, sizeof(*env));
	for (size_t i = 0; env && i < n; i++) {
		if (strncmp(environ[i], "NU_", 3) && strncmp(environ[i], "UCX_", 4))
			env[used++] = environ[i];
	}
	if (!env)
		return NULL;
	snprintf(setting, sizeof(setting), "UCX_TLS=%s", tls);
	env[used++] = setting;
	env[used++] = "UCX_MEM_EVENTS=n";
	env[used++] = "UCX_VFS_ENABLE=n";
	if (!strncmp(tls, "tcp", 3))
		env[used++] = "UCX_NET_DEVICES=lo";
	return env;
}

static int start_one(bool first, bool want_rate, size_t size, uint64_t count, char **env, const int fds[3],
		     pid_t *pid_p)
{
	char n[24], s[24];
	char *argv[] = {"nu_perf", "--raw-am", first ? "1" : "0", want_rate ? "1" : "0", s, n, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int ret;

	snprintf(s, sizeof(s), "%zu", size);
	snprintf(n, sizeof(n), "%llu", (unsigned long long)count);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	for (int i = 0; i < 3; i++)
		posix_spawn_file_actions_adddup2(&files, fds[i], FD_FROM + i);
	ret = posix_spawn(pid_p, "/proc/self/exe", &files, &attr, argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -ret;
}

/* What UCX is to use where we use @transport; NULL: nothing that is there to be compared. */
static const char *tls_of(const char *transport)
{
	if (!strncmp(transport, "shm/", 4) || !strncmp(transport, "posix/", 6) ||
	    !strncmp(transport, "sysv/", 5))
		return "posix,sysv,self";
	return strcmp(transport, "tcp/lo") ? NULL : "tcp,self";
}

/* Above those that the new processes are given. */
static int high_pipe(int fds[2])
{
	int low[2];

	if (pipe(low))
		return -errno;
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 64);
		close(low[i]);
	}
	return fds[0] < 0 || fds[1] < 0 ? -EMFILE : 0;
}

double perf_raw_am(const char *transport, bool want_rate, size_t size, uint64_t count)
{
	const char *tls = tls_of(transport);
	char **env = tls ? environment(tls) : NULL;
	int there[2], back[2], result[2];
	double ns = 0;
	pid_t pids[2];
	cpu_set_t mine, all;

	if (!env || high_pipe(there) || high_pipe(back) || high_pipe(result))
		return 0;
	/* This core is pinned; they are not to be. */
	memset(&all, 0xff, sizeof(all));
	sched_getaffinity(0, sizeof(mine), &mine);
	sched_setaffinity(0, sizeof(all), &all);
	if (!start_one(true, want_rate, size, count, env, (int[]){back[0], there[1], result[1]}, &pids[0])) {
		if (!start_one(false, want_rate, size, count, env, (int[]){there[0], back[1], result[1]},
			       &pids[1])) {
			close(result[1]);
			close(back[1]);
			close(there[1]);
			result[1] = back[1] = there[1] = -1;
			if (transfer(result[0], &ns, sizeof(ns), false))
				ns = 0;
			while (waitpid(pids[1], NULL, 0) < 0 && errno == EINTR)
				;
		} else {
			kill(pids[0], SIGKILL);
		}
		while (waitpid(pids[0], NULL, 0) < 0 && errno == EINTR)
			;
	}
	sched_setaffinity(0, sizeof(mine), &mine);
	for (unsigned i = 0; i < 2; i++) {
		close(there[i]);
		close(back[i]);
		close(result[i]);
	}
	free(env);
	return ns;
}
