/* SPDX-License-Identifier: MIT */
/*
 * The life of a job: the program starts and forks the nodes (BOOT), they run (RUN), the last one is gone and output is
 * passed on (FINISH). `ending` is set once, with the job's status: after that nodes are expected to leave.
 */
#include "crew.h"
#include "host.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define DEATH_GRACE_MS	1500 /* the others are gone within 2 s */
#define SIGNAL_GRACE_MS 2000
#define DONE_GRACE_MS	5000
#define STUCK_OUTPUT_MS 2000
#define UNKILLABLE_MS	10000
#define SILENT_WARN_MS	10000
#define INIT_WARN_MS	10000
#define LOST_STATUS	255 /* as the remote shell's, when it fails */

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

/* "node 3 (pid 1234)", "node 3 (pid 1234 on b)" */
static const char *name_of(const struct node *node, char *buf, size_t len)
{
	if (node->host->name)
		snprintf(buf, len, "node %u (pid %d on %.200s)", node->number, node->pid, node->host->name);
	else
		snprintf(buf, len, "node %u (pid %d)", node->number, node->pid);
	return buf;
}

static void send_shared(struct node *n, uint32_t type, int32_t arg, uint64_t id, struct shared *s)
{
	n->host->ops->send(n->host, n, type, arg, id, s);
}

void job_send(struct node *n, uint32_t type, int32_t arg, uint64_t id, const void *payload, size_t len_bytes)
{
	struct shared *s = shared_copy(payload, len_bytes);
	send_shared(n, type, arg, id, s);
	shared_put(s);
}

static void kill_everything(struct job *job, int signo)
{
	for (unsigned i = 0; i < job->nhosts; i++)
		job->hosts[i]->ops->kill_nodes(job->hosts[i], NULL, signo);
}

static bool hosts_are_gone(struct job *job)
{
	for (unsigned i = 0; i < job->nhosts; i++) {
		if (!job->hosts[i]->ops->gone(job->hosts[i]))
			return false;
	}
	return true;
}

static void all_gone_check(struct job *job)
{
	if (job->alive || job->phase == JOB_FINISH || job->phase == JOB_OVER)
		return;
	if (job->phase == JOB_BOOT && !(job->ending && hosts_are_gone(job)))
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
		job_send(node, NU_BOOT_END, job->status, 0, NULL, 0);
		/* Nobody listens there yet; at a normal end it soon will. */
		if (!node->ready && !kill_why)
			node->host->ops->kill_nodes(node->host, node, SIGTERM);
	}
}

/* ---- what nodes say ---- */

static void report_death(struct job *job, struct node *node)
{
	char how[96], name[256];
	bool go_on = job->options->keep_going && node->number;
	int code = node->lost ? LOST_STATUS : code_of(node->wait_status);
	if (!node->lost) /* else the host's loss has been said */
		launch_say("%s %s%s", name_of(node, name, sizeof(name)),
			   how_it_ended(node->wait_status, how, sizeof(how)),
			   go_on ? "; the others go on" : " before the job's end");
	if (!go_on)
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
			send_shared(&job->nodes[n], NU_BOOT_ALL, job->round, failed, all);
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
			job_send(&job->nodes[n], NU_BOOT_DEAD, (int32_t)node->number, 0, NULL, 0);
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

/* @by could wait no longer for those that have not come so far. */
static void say_missing(struct node *by)
{
	struct job *job = by->job;
	char name[256];
	for (unsigned n = 0; n < job->count && by->has_blob && !job->ending; n++) {
		struct node *node = &job->nodes[n];
		if (!node->alive || node->has_blob)
			continue;
		if (node->init_ms)
			launch_say("%s does not return from node_init: it has been there for %.1f s",
				   name_of(node, name, sizeof(name)),
				   (double)(launch_now_ms() - node->init_ms) / 1000);
		else
			launch_say("%s is late: the others have waited for it in vain",
				   name_of(node, name, sizeof(name)));
	}
}

static int64_t init_timer(struct node *node, int64_t now)
{
	char name[256];
	if (!node->alive || !node->init_ms || node->init_said || node->job->ending)
		return INT64_MAX;
	if (now - node->init_ms < INIT_WARN_MS)
		return node->init_ms + INIT_WARN_MS;
	node->init_said = true;
	launch_say("%s has been in node_init for %d s", name_of(node, name, sizeof(name)),
		   INIT_WARN_MS / 1000);
	return INT64_MAX;
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

void job_on_message(struct node *node, const struct nu_boot_head *head, const char *payload)
{
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
	case NU_BOOT_INIT:
		node->init_ms = head->arg ? launch_now_ms() : 0;
		break;
	case NU_BOOT_FAIL:
		say_missing(node);
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

/* ---- the program's start ---- */

void job_expect_program(struct job *job)
{
	if (!job->warn_at_ms)
		job->warn_at_ms = launch_now_ms() + SILENT_WARN_MS;
}

static void let_go(struct job *job)
{
	int32_t pids[NU_BOOT_NODES_MAX];
	job->phase = JOB_RUN;
	job->warn_at_ms = 0;
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		if (!node->alive)
			continue;
		/* Pids mean something on one host only. */
		for (unsigned i = 0; i < job->count; i++)
			pids[i] = job->nodes[i].host == node->host ? job->nodes[i].pid : 0;
		job_send(node, NU_BOOT_GO, 0, 0, pids, job->count * sizeof(pids[0]));
	}
}

/* The nodes of a host are children of ours now, or of its agent: those of all hosts may go on. */
void job_on_forked(struct host *h, const pid_t *pids)
{
	struct job *job = h->job;
	bool all = true;
	h->forked = true;
	for (unsigned i = 0; i < h->count; i++) {
		struct node *node = &job->nodes[h->first + i];
		node->pid = pids[i];
		node->alive = true;
		job->alive++;
	}
	for (unsigned i = 0; i < job->nhosts; i++)
		all &= job->hosts[i]->forked;
	if (all && !job->ending)
		let_go(job);
	else if (job->ending)
		h->ops->kill_nodes(h, NULL, SIGKILL);
}

void job_on_program_end(struct host *h, int wait_status)
{
	struct job *job = h->job;
	char how[96];
	int code = code_of(wait_status);
	if (job->ending)
		return;
	launch_say("%s%s%s %s without having started its nodes%s", job->options->argv[0],
		   h->name ? " on " : "", h->name ? h->name : "", how_it_ended(wait_status, how, sizeof(how)),
		   WIFEXITED(wait_status) ? ": is it linked with libnu?" : "");
	job_end(job, code ? code : 1, 0, NULL);
}

void job_on_fail(struct host *h, const char *text)
{
	char who[256] = "";
	if (h->name)
		snprintf(who, sizeof(who), "host %.200s: ", h->name);
	on_fail(h->job, who, text);
}

/* ---- output ---- */

static struct relay *relay_of(struct node *n, unsigned stream)
{
	return stream ? &n->err : &n->out;
}

void job_on_output(struct node *n, unsigned stream, const char *data, size_t len_bytes)
{
	if (len_bytes)
		relay_feed(relay_of(n, stream), data, len_bytes);
	else
		relay_close(relay_of(n, stream));
}

bool job_may_output(struct node *n, unsigned stream)
{
	return writer_queued(relay_of(n, stream)->to) < WRITER_HIGH_BYTES;
}

/* ---- deaths ---- */

void job_on_exit(struct node *node, int wait_status)
{
	struct job *job = node->job;
	char how[96], name[256];
	if (!node->alive)
		return;
	node->alive = false;
	node->dead = true;
	node->wait_status = wait_status;
	job->alive--;
	if (!node->number)
		operator_node0_died();
	if (job->ending) {
		int signo = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
		if (signo && signo != SIGTERM && signo != SIGKILL)
			launch_say("%s %s while it left", name_of(node, name, sizeof(name)),
				   how_it_ended(wait_status, how, sizeof(how)));
		return;
	}
	/* All may leave before any has joined: a program that only prints its help does. */
	if (WIFEXITED(wait_status) && !job->any_joined && !node->lost) {
		if (!job->early_status || !node->number)
			job->early_status = code_of(wait_status) ? code_of(wait_status) : job->early_status;
		return;
	}
	mourn(node);
}

void job_on_lost(struct node *node)
{
	node->lost = true;
	job_on_exit(node, 0);
}

void job_on_sigchld(struct job *job)
{
	int wait_status;
	pid_t pid;
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < job->nhosts; i++) {
			if (job->hosts[i]->ops->reaped(job->hosts[i], pid, wait_status))
				break;
		}
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
	char name[256];
	for (unsigned n = 0; n < job->count; n++) {
		if (job->nodes[n].alive && job->kill_why)
			launch_say("%s %s: killed", name_of(&job->nodes[n], name, sizeof(name)),
				   job->kill_why);
	}
	kill_everything(job, SIGKILL);
	job->killed = true;
	job->give_up_at_ms = launch_now_ms() + UNKILLABLE_MS;
}

int job_timers(struct job *job)
{
	int64_t now = launch_now_ms(), next = operator_next_ms();
	for (unsigned i = 0; i < job->nhosts; i++) {
		int64_t due_ms = job->hosts[i]->ops->timers(job->hosts[i], now);
		next = due_ms < next ? due_ms : next;
	}
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		const int64_t due_ms[] = {init_timer(node, now), relay_timer(&node->out, now),
					  relay_timer(&node->err, now)};
		for (unsigned i = 0; i < sizeof(due_ms) / sizeof(due_ms[0]); i++)
			next = due_ms[i] < next ? due_ms[i] : next;
	}
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

void job_finish(struct job *job)
{
	bool done = true;
	if (!job->finishing) {
		job->finishing = true;
		job->killed = false;
		/* After a signal nobody wants to wait for a reader that has stopped reading. */
		job->give_up_at_ms = job->signals_seen ? launch_now_ms() + STUCK_OUTPUT_MS : INT64_MAX;
	}
	for (unsigned i = 0; i < job->nhosts; i++)
		done &= job->hosts[i]->ops->finish(job->hosts[i]);
	if (done && !writer_queued(&job->out) && !writer_queued(&job->err))
		job->phase = JOB_OVER;
}

void job_init(struct job *job, const struct options *o)
{
	*job = (struct job){.options = o,
			    .started_ms = launch_now_ms(),
			    .count = o->nodes,
			    .writer_event = -1};
	if (o->time_out_s > 0)
		job->time_out_at_ms = job->started_ms + (int64_t)(o->time_out_s * 1000);
	job->nodes = launch_alloc(job->count * sizeof(*job->nodes));
	for (unsigned n = 0; n < job->count; n++) {
		struct node *node = &job->nodes[n];
		int label = o->no_prefix ? -1 : (int)n;
		*node = (struct node){.number = n, .job = job};
		relay_init(&node->out, &job->out, label);
		relay_init(&node->err, &job->err, label);
	}
}

void job_add_host(struct job *job, struct host *h)
{
	job->hosts[job->nhosts++] = h;
	for (unsigned n = 0; n < h->count; n++)
		job->nodes[h->first + n].host = h;
}
