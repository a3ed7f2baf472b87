/* SPDX-License-Identifier: MIT */
/*
 * A node's talk with the launcher: exchange at start-up, then a control thread that hears of deaths, the job's end and
 * operators' commands.
 */
#include "boot_int.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXCHANGE_TIMEOUT_S_MAX 1000000000ul
#define EXCHANGE_TIMEOUT_S     30 /* NU_BOOT_TIMEOUT_S overrides it (a debugger stops nodes for longer) */

static pthread_mutex_t send_lock = PTHREAD_MUTEX_INITIALIZER; /* one message at a time on the socket */
static const struct nu_boot_ops *boot_ops;
static int exchange_round;
static int exchange_broken;	      /* the error after which rounds no longer match */
static bool died_early[NU_MAX_NODES]; /* heard of before the control thread ran */

bool nu_boot_launched(void)
{
	return nu_boot_state.launched;
}

static int send_message(uint32_t type, int32_t arg, uint64_t id, const void *payload, size_t len)
{
	struct nu_boot_head head = {.type = type, .len_bytes = (uint32_t)len, .arg = arg, .id = id};
	pthread_mutex_lock(&send_lock);
	int err = nu_boot_write(nu_boot_state.fd, &head, payload);
	pthread_mutex_unlock(&send_lock);
	return err;
}

/* *payload_p is malloc'ed, with a NUL after it. */
static int receive_message(struct nu_boot_head *head, char **payload_p, size_t max, uint64_t deadline_ns)
{
	int err = nu_boot_read(nu_boot_state.fd, head, sizeof(*head), deadline_ns);
	if (err)
		return err;
	if (head->len_bytes > max)
		return -EPROTO;
	char *payload = malloc((size_t)head->len_bytes + 1);
	if (!payload)
		return -ENOMEM;
	err = nu_boot_read(nu_boot_state.fd, payload, head->len_bytes, deadline_ns);
	if (err) {
		free(payload);
		return err;
	}
	payload[head->len_bytes] = '\0';
	*payload_p = payload;
	return 0;
}

static unsigned long exchange_timeout_s(void)
{
	const char *env = getenv("NU_BOOT_TIMEOUT_S");
	unsigned long s = env ? strtoul(env, NULL, 10) : 0;
	if (s > EXCHANGE_TIMEOUT_S_MAX)
		s = EXCHANGE_TIMEOUT_S_MAX;
	return s ? s : EXCHANGE_TIMEOUT_S;
}

static uint64_t exchange_deadline_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return ((uint64_t)t.tv_sec + exchange_timeout_s()) * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Cuts the launcher's answer into one block for each node. */
static int split_all(const char *payload, size_t len, void *all[], size_t lens[])
{
	unsigned n;
	int err = -EPROTO;
	for (n = 0; n < nu_node.count; n++) {
		uint32_t part;
		if (len < sizeof(part))
			goto free_parts;
		memcpy(&part, payload, sizeof(part));
		payload += sizeof(part);
		len -= sizeof(part);
		if (part > len)
			goto free_parts;
		all[n] = malloc(part ? part : 1);
		if (!all[n]) {
			err = -ENOMEM;
			goto free_parts;
		}
		memcpy(all[n], payload, part);
		lens[n] = part;
		payload += part;
		len -= part;
	}
	if (!len)
		return 0;
free_parts:
	while (n--) {
		free(all[n]);
		all[n] = NULL;
	}
	return err;
}

static int exchange_wait(void *all[], size_t lens[])
{
	uint64_t deadline_ns = exchange_deadline_ns();
	size_t max = nu_node.count * (size_t)(NU_BOOT_BLOB_MAX + sizeof(uint32_t));
	for (;;) {
		struct nu_boot_head head;
		char *payload;
		int err = receive_message(&head, &payload, max, deadline_ns);
		if (err)
			return err == -EPIPE ? -EHOSTDOWN : err;
		if (head.type == NU_BOOT_END) {
			free(payload);
			_exit(head.arg); /* the job ended while it started; the launcher has said why */
		}
		if (head.type == NU_BOOT_DEAD) {
			if ((unsigned)head.arg < nu_node.count)
				died_early[head.arg] = true;
			free(payload);
			continue;
		}
		if (head.type != NU_BOOT_ALL || head.arg != exchange_round)
			err = -EPROTO;
		else
			err = head.id ? -EHOSTDOWN : split_all(payload, head.len_bytes, all, lens);
		free(payload);
		return err;
	}
}

int nu_boot_exchange(const void *mine, size_t len, void *all[NU_MAX_NODES], size_t lens[NU_MAX_NODES])
{
	if (len > NU_BOOT_BLOB_MAX) {
		nu_err("exchange: %zu bytes, the most is %u", len, NU_BOOT_BLOB_MAX);
		return -EMSGSIZE;
	}
	if (boot_ops) {
		nu_err("exchange: too late, the control thread reads the launcher's socket");
		return -EINVAL;
	}
	if (!nu_boot_state.launched) {
		void *copy = malloc(len ? len : 1);
		if (!copy)
			return -ENOMEM;
		if (len)
			memcpy(copy, mine, len);
		all[0] = copy;
		lens[0] = len;
		return 0;
	}
	if (exchange_broken)
		return exchange_broken;
	int err = send_message(NU_BOOT_BLOB, exchange_round, 0, mine, len);
	err = err == -EPIPE ? -EHOSTDOWN : err;
	if (!err)
		err = exchange_wait(all, lens);
	if (err) {
		/* Half an answer may be left in the socket. */
		exchange_broken = err;
		if (err == -ETIMEDOUT)
			nu_err("the other nodes did not come within %lu s (NU_BOOT_TIMEOUT_S)",
			       exchange_timeout_s());
		else
			nu_err("exchange %d with the other nodes failed: %s", exchange_round, strerror(-err));
		return err;
	}
	exchange_round++;
	return 0;
}

void nu_boot_fail(const char *reason)
{
	if (!nu_boot_state.launched || send_message(NU_BOOT_FAIL, 1, 0, reason, strlen(reason)))
		fprintf(stderr, "nu: node %u: %s\n", nu_node.self, reason);
}

/*
 * What the control thread hears is passed on as long as there is somebody to hear it. The mutex comes before every lock of the
 * runtime; who leaves waits for it as long as a death takes to be passed on, at most some 5 s (deaths.c).
 */
static struct {
	pthread_mutex_t mutex;
	bool leaving;
} hearing = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void nu_boot_leave(void)
{
	pthread_mutex_lock(&hearing.mutex);
	hearing.leaving = true;
	pthread_mutex_unlock(&hearing.mutex);
}

static void hear_death(const struct nu_boot_ops *ops, unsigned node)
{
	pthread_mutex_lock(&hearing.mutex);
	if (!hearing.leaving && ops->node_dead && node < nu_node.count)
		ops->node_dead(node);
	pthread_mutex_unlock(&hearing.mutex);
}

static void hear_operator(const struct nu_boot_ops *ops, uint64_t id, const char *text)
{
	pthread_mutex_lock(&hearing.mutex);
	if (hearing.leaving)
		nu_boot_ctl_reply(id, -ESHUTDOWN, "this node leaves");
	else if (ops->ctl)
		ops->ctl(id, text);
	else
		nu_boot_ctl_reply(id, -ENOSYS, "this program answers no operators");
	pthread_mutex_unlock(&hearing.mutex);
}

static void *control_thread(void *arg)
{
	const struct nu_boot_ops *ops = arg;
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (died_early[n])
			hear_death(ops, n);
	}
	for (;;) {
		struct nu_boot_head head;
		char *payload;
		/* The launcher is gone or no longer understood: nobody could end this node later. */
		if (receive_message(&head, &payload, NU_BOOT_TEXT_MAX, 0))
			_exit(1);
		switch (head.type) {
		case NU_BOOT_DEAD:
			hear_death(ops, (unsigned)head.arg);
			break;
		case NU_BOOT_END:
			if (!ops->end)
				_exit(head.arg);
			ops->end(head.arg);
			break;
		case NU_BOOT_ASK:
			hear_operator(ops, head.id, payload);
			break;
		default: /* an ALL that came after its exchange timed out */
			break;
		}
		free(payload);
	}
	return NULL;
}

/* Of a job without a launcher: its main may return before there is anybody to be told. */
static struct {
	pthread_mutex_t mutex;
	bool ended;
	int status;
} early_end = {.mutex = PTHREAD_MUTEX_INITIALIZER};

int nu_boot_control_start(const struct nu_boot_ops *ops)
{
	pthread_t thread;
	bool ended;
	int err;

	if (boot_ops)
		return -EINVAL;
	pthread_mutex_lock(&early_end.mutex);
	boot_ops = ops;
	ended = early_end.ended;
	pthread_mutex_unlock(&early_end.mutex);
	if (!nu_boot_state.launched) {
		if (ended && ops->end)
			ops->end(early_end.status);
		return 0;
	}
	err = nu_kthread_start(&thread, "control", 0, control_thread, (void *)ops);
	if (err) {
		boot_ops = NULL;
		return err;
	}
	pthread_setname_np(thread, "nu-control");
	pthread_detach(thread);
	err = send_message(NU_BOOT_READY, 0, 0, NULL, 0);
	if (err)
		nu_err("the launcher is gone: %s", strerror(-err));
	return err == -EPIPE ? -EHOSTDOWN : err;
}

void nu_boot_main_done(int status)
{
	if (nu_boot_state.launched) {
		int err = send_message(NU_BOOT_DONE, status, 0, NULL, 0);
		if (err)
			nu_err("cannot tell the launcher that main returned: %s", strerror(-err));
		return;
	}
	const struct nu_boot_ops *ops;

	pthread_mutex_lock(&early_end.mutex);
	ops = boot_ops;
	early_end.ended = true;
	early_end.status = status;
	pthread_mutex_unlock(&early_end.mutex);
	if (ops && ops->end)
		ops->end(status);
}

void nu_boot_init_runs(bool on)
{
	if (nu_boot_state.launched)
		(void)!send_message(NU_BOOT_INIT, on, 0, NULL, 0);
}

void nu_boot_exit_called(int status)
{
	if (nu_boot_state.launched)
		(void)!send_message(NU_BOOT_EXIT, status, 0, NULL, 0);
}

void nu_boot_ctl_reply(uint64_t request, int status, const char *text)
{
	if (!nu_boot_state.launched)
		return;
	size_t len = text ? strlen(text) : 0;
	if (len > NU_BOOT_TEXT_MAX)
		len = NU_BOOT_TEXT_MAX;
	int err = send_message(NU_BOOT_ANSWER, status, request, text, len);
	if (err)
		nu_err("an operator's answer could not be sent: %s", strerror(-err));
}
