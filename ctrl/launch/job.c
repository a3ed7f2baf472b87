/* SPDX-License-Identifier: MIT */
/*
 * The life of a job: the program starts and forks the nodes (BOOT), they run (RUN), the last one is gone and output is
 * passed on (FINISH). `ending` is set once, with the job's status: after that nodes are expected to leave.
 */
#include "launch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEATH_GRACE_MS	1500 /* the others are gone within 2 s */
#define SIGNAL_GRACE_MS 2000
#define DONE_GRACE_MS	5000
#define STUCK_OUTPUT_MS 2000
#define UNKILLABLE_MS	10000
#define SILENT_WARN_MS	10000

static void earlier(int64_t *at_p, int64_t when)
{
	if (!*at_p || when < *at_p)
		*at_p = when;
}

static const char *how_it_ended(int wait_status, char *buf, size_t len)
{
	if (WIFSIGNALED(wait_status)) {
		int signo = WTERMSIG(wait_status);
		snprintf(buf, len, "was killed by signal %d (%s)%s", signo, strsignal(signo),
			 WCOREDUMP(wait_status) ? ", core dumped" : "");
	} else {
		snprintf(buf, len, "exited with status %d", WEXITSTATUS(wait_status));
	}
	return buf;
}

static int code_of(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* Before the launcher is their parent (GO not sent) nodes end by the closing of their sockets; pids may be unknown. */
static void kill_everything(struct job *job, int signo)
{
	for (unsigned n = 0; n < job->count; n++) {
		if (job->nodes[n].alive)
			kill(job->nodes[n].pid, signo);
	}
	if (job->phase == JOB_BOOT) {
		for (unsigned n = 0; n < job->count; n++)
			conn_close(&job->nodes[n].conn);
		conn_close(&job->seed);
	}
	if (!job->program_gone)
		kill(job->program, signo);
}

static void all_gone_check(struct job *job)
{
	if (job->alive || job->phase == JOB_FINISH || job->phase == JOB_OVER)
		return;
	if (job->phase == JOB_BOOT && !(job->ending && job->program_gone))
		return;
	if (!job->ending)
		job_end(job, job->early_status, 0, NULL);
	job->phase = JOB_FINISH;
}

/* The first caller sets the status; a later one can only shorten the grace. */
void job_end(struct job *job, int status, int grace_ms, const char *kill_why)
{
	earlier(&job->kill_at_ms, launch_now_ms() + grace_ms);
	if (job->ending)
		return;
	job->ending = true;
	job->status = status & 0xff;
	job->kill_why = kill_why;
	if (job->phase == JOB_BOOT) {
		kill_everything(job, SIGKILL);
		return;
	}
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		if (!node->alive)
			continue;
		conn_send(&node->conn, NU_BOOT_END, job->status, 0, NULL, 0);
		/* Nobody listens there yet; at a normal end it soon will. */
		if (!node->ready && !kill_why)
			kill(node->pid, SIGTERM);
	}
}

/* ---- what nodes say ---- */

static void report_death(struct job *job, struct node *node)
{
	char how[96];
	how_it_ended(node->wait_status, how, sizeof(how));
	int code = code_of(node->wait_status);
	if (job->options->keep_going && node->number) {
		launch_say("node %u (pid %d) %s; the others go on", node->number, node->pid, how);
		return;
	}
	launch_say("node %u (pid %d) %s before the job's end", node->number, node->pid, how);
	job_end(job, code ? code : 1, DEATH_GRACE_MS, NULL);
}

static void forget_blobs(struct job *job)
{
	for (unsigned n = 0; n < job->count; n++) {
		shared_put(job->nodes[n].blob);
		job->nodes[n].blob = NULL;
		job->nodes[n].has_blob = false;
	}
}

/* Answers the exchange when everybody has spoken; with a dead node it can only fail. */
static void exchange_check(struct job *job)
{
	size_t total = 0, used = 0;
	bool failed = false;
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		failed |= node->dead;
		total += sizeof(uint32_t) + (node->blob ? node->blob->len_bytes : 0);
	}
	for (unsigned n = 0; n < job->count && !failed; n++) {
		if (!job->nodes[n].has_blob)
			return;
	}
	struct shared *all = shared_new(failed ? 0 : total);
	for (unsigned n = 0; n < job->count && !failed; n++) {
		struct shared *blob = job->nodes[n].blob;
		uint32_t len = blob ? (uint32_t)blob->len_bytes : 0;
		memcpy(all->data + used, &len, sizeof(len));
		used += sizeof(len);
		if (len)
			memcpy(all->data + used, blob->data, len);
		used += len;
	}
	for (unsigned n = 0; n < job->count; n++) {
		if (job->nodes[n].has_blob)
			conn_send_shared(&job->nodes[n].conn, NU_BOOT_ALL, job->round, failed, all);
	}
	shared_put(all);
	forget_blobs(job);
	if (!failed)
		job->round++;
}

/* A node is missed: the job ends, or the others hear of it. */
static void mourn(struct node *node)
{
	struct job *job = node->job;
	report_death(job, node);
	if (job->ending)
		return;
	for (unsigned n = 0; n < job->count; n++) {
		if (job->nodes[n].alive)
			conn_send(&job->nodes[n].conn, NU_BOOT_DEAD, (int32_t)node->number, 0, NULL, 0);
	}
	exchange_check(job);
}

static void broken_protocol(struct node *node, const struct nu_boot_head *head)
{
	launch_say("node %u sent a message that makes no sense (type %u, argument %d, %u bytes): is libnu of "
		   "another "
		   "version?",
		   node->number, head->type, head->arg, head->len_bytes);
	job_end(node->job, 1, DEATH_GRACE_MS, NULL);
}

static void on_blob(struct node *node, const struct nu_boot_head *head, const char *payload)
{
	struct job *job = node->job;
	if (node->has_blob || head->arg != job->round || head->len_bytes > NU_BOOT_BLOB_MAX) {
		broken_protocol(node, head);
		return;
	}
	node->has_blob = true;
	if (head->len_bytes) {
		node->blob = shared_new(head->len_bytes);
		memcpy(node->blob->data, payload, head->len_bytes);
	}
	exchange_check(job);
}

/* From here on a node that leaves is missed, so those that had left before are too. */
static void first_word(struct job *job)
{
	job->any_joined = true;
	for (unsigned n = 0; n < job->count && !job->ending; n++) {
		if (job->nodes[n].dead)
			mourn(&job->nodes[n]);
	}
}

static void on_fail(struct job *job, const char *who, const char *payload)
{
	if (!job->ending)
		launch_say("%s%s", who, payload);
	job_end(job, 1, DEATH_GRACE_MS, NULL);
}

/* The program may end the job from any node; where others go on, one node's exit is its death alone. */
static void on_exit_called(struct node *node, int status)
{
	struct job *job = node->job;

	if (job->ending || (job->options->keep_going && node->number))
		return;
	if (status)
		launch_say("the program called exit(%d) on node %u: the job ends", status, node->number);
	job_end(job, status, DONE_GRACE_MS, "did not leave within 5 s of the job's end");
}

static void on_message(void *arg, const struct nu_boot_head *head, const char *payload)
{
	struct node *node = arg;
	struct job *job = node->job;
	char who[32];

	node->joined = true;
	if (!job->any_joined)
		first_word(job);
	switch (head->type) {
	case NU_BOOT_BLOB:
		on_blob(node, head, payload);
		break;
	case NU_BOOT_READY:
		node->ready = true;
		break;
	case NU_BOOT_DONE:
		if (node->number)
			broken_protocol(node, head);
		else
			job_end(job, head->arg, DONE_GRACE_MS, "did not leave within 5 s of the job's end");
		break;
	case NU_BOOT_EXIT:
		on_exit_called(node, head->arg);
		break;
	case NU_BOOT_FAIL:
		snprintf(who, sizeof(who), "node %u: ", node->number);
		on_fail(job, who, payload);
		break;
	case NU_BOOT_ANSWER:
		operator_answer(head->id, head->arg, payload, head->len_bytes);
		break;
	default:
		broken_protocol(node, head);
	}
}

void job_on_node(struct node *n)
{
	if (!conn_read(&n->conn, on_message, n))
		conn_close(&n->conn); /* its death is heard of in its own way */
}

/* ---- the program's start ---- */

static void on_seed_message(void *arg, const struct nu_boot_head *head, const char *payload)
{
	struct job *job = arg;
	int32_t pid;
	if (head->type == NU_BOOT_FAIL) {
		on_fail(job, "", payload);
		return;
	}
	if (head->type != NU_BOOT_FORKED || head->len_bytes != (1 + job->count) * sizeof(pid) ||
	    job->seed_pidfd >= 0) {
		on_fail(job, "", "libnu of the program and nu_launch are of different versions");
		return;
	}
	for (unsigned n = 0; n <= job->count; n++) {
		memcpy(&pid, payload + n * sizeof(pid), sizeof(pid));
		if (pid <= 1) {
			on_fail(job, "",
				"the program says that it has a process with a number that none has");
			return;
		}
		if (n)
			job->nodes[n - 1].pid = pid;
		else
			job->seed_pid = pid;
	}
	/* It waits for RELEASE, so the pid is still its own. Its end, not the socket's, says that the nodes are ours. */
	job->seed_pidfd = (int)syscall(SYS_pidfd_open, job->seed_pid, 0);
	if (job->seed_pidfd < 0) {
		on_fail(job, "pidfd_open: ", strerror(errno));
		return;
	}
	conn_send(&job->seed, NU_BOOT_RELEASE, 0, 0, NULL, 0);
}

void job_on_seed(struct job *job)
{
	if (!conn_read(&job->seed, on_seed_message, job))
		conn_close(&job->seed);
}

static bool is_child(pid_t pid)
{
	siginfo_t info;
	return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
}

static bool is_double(const struct job *job, unsigned node)
{
	for (unsigned n = 0; n < node; n++) {
		if (job->nodes[n].pid == job->nodes[node].pid)
			return true;
	}
	return false;
}

/* The nodes are our children now: let them go on. */
void job_on_seed_exit(struct job *job)
{
	int32_t pids[NU_BOOT_NODES_MAX];
	close(job->seed_pidfd);
	job->seed_pidfd = -1;
	conn_close(&job->seed);
	if (job->ending)
		return;
	for (unsigned n = 0; n < job->count; n++) {
		/* Signals go to what it says, so it is made sure of; one that has died is a child still. */
		if (!is_child(job->nodes[n].pid) || is_double(job, n)) {
			on_fail(job, "", "a process that the program says is a node is none of ours");
			return;
		}
	}
	job->phase = JOB_RUN;
	job->warn_at_ms = 0;
	job->alive = job->count;
	for (unsigned n = 0; n < job->count; n++)
		pids[n] = job->nodes[n].pid;
	for (unsigned n = 0; n < job->count; n++) {
		job->nodes[n].alive = true;
		conn_send(&job->nodes[n].conn, NU_BOOT_GO, 0, 0, pids, job->count * sizeof(pids[0]));
	}
}

static void program_ended(struct job *job, int wait_status)
{
	char how[96];
	job->program_gone = true;
	job->program_status = wait_status;
	if (job->phase != JOB_BOOT || job->seed_pidfd >= 0)
		return;
	job_on_seed(job); /* what it said before its end */
	if (job->seed_pidfd >= 0)
		return;
	if (!job->ending) {
		int code = code_of(wait_status);
		launch_say("%s %s without having started its nodes%s", job->options->argv[0],
			   how_it_ended(wait_status, how, sizeof(how)),
			   WIFEXITED(wait_status) ? ": is it linked with libnu?" : "");
		job_end(job, code ? code : 1, 0, NULL);
	}
}

/* ---- deaths ---- */

static void node_died(struct node *node, int wait_status)
{
	struct job *job = node->job;
	char how[96];
	job_on_node(node); /* its last words */
	conn_close(&node->conn);
	node->alive = false;
	node->dead = true;
	node->wait_status = wait_status;
	job->alive--;
	if (!node->number)
		operator_node0_died();
	if (job->ending) {
		int signo = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
		if (signo && signo != SIGTERM && signo != SIGKILL)
			launch_say("node %u (pid %d) %s while it left", node->number, node->pid,
				   how_it_ended(wait_status, how, sizeof(how)));
		return;
	}
	/* All may leave before any has joined: a program that only prints its help does. */
	if (WIFEXITED(wait_status) && !job->any_joined) {
		if (!job->early_status || !node->number)
			job->early_status = code_of(wait_status) ? code_of(wait_status) : job->early_status;
		return;
	}
	mourn(node);
}

void job_on_sigchld(struct job *job)
{
	int wait_status;
	pid_t pid;
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		bool known = false;
		for (unsigned n = 0; n < job->count && !known; n++) {
			if (job->nodes[n].alive && job->nodes[n].pid == pid) {
				node_died(&job->nodes[n], wait_status);
				known = true;
			}
		}
		if (!known && pid == job->program && !job->program_gone)
			program_ended(job, wait_status);
	}
	all_gone_check(job);
}

void job_on_signal(struct job *job, int signo)
{
	job->signals_seen++;
	if (job->phase == JOB_FINISH) { /* somebody does not read our output */
		job->phase = JOB_OVER;
		return;
	}
	job_end(job, 128 + signo, SIGNAL_GRACE_MS, NULL);
	if (job->signals_seen > 1)
		job->kill_at_ms = launch_now_ms();
}

void job_on_writer(struct job *job)
{
	int error = writer_error(&job->out);
	if (!error || job->quiet)
		return;
	job->quiet = true;
	/* A reader that has seen enough (head) is no fault, and ends the job as SIGPIPE would. */
	if (error != EPIPE)
		launch_say("standard output: %s", strerror(error));
	job_end(job, error == EPIPE ? 128 + SIGPIPE : 1, SIGNAL_GRACE_MS, NULL);
}

/* ---- time ---- */

static bool due(int64_t at_ms, int64_t now)
{
	return at_ms && now >= at_ms;
}

static void kill_stragglers(struct job *job)
{
	for (unsigned n = 0; n < job->count; n++) {
		if (job->nodes[n].alive && job->kill_why)
			launch_say("node %u (pid %d) %s: killed", n, job->nodes[n].pid, job->kill_why);
	}
	kill_everything(job, SIGKILL);
	job->killed = true;
	job->give_up_at_ms = launch_now_ms() + UNKILLABLE_MS;
}

int job_timers(struct job *job)
{
	int64_t now = launch_now_ms(), next = operator_next_ms();
	all_gone_check(job);
	if (due(job->warn_at_ms, now)) {
		job->warn_at_ms = 0;
		launch_say("%s has not started its nodes yet: is it linked with libnu?",
			   job->options->argv[0]);
	}
	if (due(job->time_out_at_ms, now) && !job->ending) {
		launch_say("the job ran longer than %g s", job->options->time_out_s);
		job_end(job, 124, SIGNAL_GRACE_MS, NULL);
	}
	if (due(job->kill_at_ms, now) && !job->killed && job->phase != JOB_FINISH)
		kill_stragglers(job);
	if (due(job->give_up_at_ms, now)) {
		if (job->phase != JOB_FINISH)
			launch_say("%u node(s) cannot be killed", job->alive);
		job->phase = JOB_OVER;
	}
	const int64_t at[] = {job->warn_at_ms, job->ending ? 0 : job->time_out_at_ms,
			      job->killed || job->phase == JOB_FINISH ? 0 : job->kill_at_ms,
			      job->give_up_at_ms};
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		if (at[i] && at[i] < next)
			next = at[i];
	}
	return next == INT64_MAX ? -1 : next <= now ? 0 : (int)(next - now > 60000 ? 60000 : next - now);
}

/* ---- the end ---- */

/* What nodes started and left behind is ours, since we are the subreaper. */
static void kill_orphans(void)
{
	for (int rounds = 0; rounds < 100; rounds++) {
		FILE *f = fopen("/proc/thread-self/children", "re");
		int pid, found = 0;
		while (f && fscanf(f, "%d", &pid) == 1) {
			kill(pid, SIGKILL);
			found++;
		}
		if (f)
			fclose(f);
		if (!found)
			return;
		for (; found; found--)
			waitpid(-1, NULL, 0);
	}
}

static bool drain(struct relay *r)
{
	while (r->fd >= 0 && relay_may_read(r)) {
		if (relay_pump(r) != RELAY_EMPTY)
			continue;
		relay_close(r);
	}
	return r->fd < 0;
}

void job_finish(struct job *job)
{
	bool empty = true;
	if (job->give_up_at_ms == 0 || job->killed) {
		kill_orphans();
		job->killed = false;
		/* After a signal nobody wants to wait for a reader that has stopped reading. */
		job->give_up_at_ms = job->signals_seen ? launch_now_ms() + STUCK_OUTPUT_MS : INT64_MAX;
	}
	for (unsigned n = 0; n < job->count; n++)
		empty = drain(&job->nodes[n].out) & drain(&job->nodes[n].err) & empty;
	if (empty && !writer_queued(&job->out) && !writer_queued(&job->err))
		job->phase = JOB_OVER;
}

void job_start(struct job *job, const struct options *o, struct spawned *s)
{
	*job = (struct job){.options = o,
			    .started_ms = launch_now_ms(),
			    .program = s->pid,
			    .seed_pidfd = -1,
			    .count = o->nodes,
			    .writer_event = -1};
	job->warn_at_ms = job->started_ms + SILENT_WARN_MS;
	if (o->time_out_s > 0)
		job->time_out_at_ms = job->started_ms + (int64_t)(o->time_out_s * 1000);
	conn_init(&job->seed, s->seed, NU_BOOT_BLOB_MAX);
	job->nodes = launch_alloc(job->count * sizeof(*job->nodes));
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		int label = o->no_prefix ? -1 : (int)n;
		*node = (struct node){.number = n, .job = job};
		conn_init(&node->conn, s->nodes[n], NU_BOOT_TEXT_MAX);
		relay_init(&node->out, s->pipes[n][0], &job->out, label);
		relay_init(&node->err, s->pipes[n][1], &job->err, label);
	}
}
