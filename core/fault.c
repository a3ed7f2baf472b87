/* SPDX-License-Identifier: MIT */
/* Fault points: the rules, and what they do. Nothing here allocates: a point may lie inside an allocation. */
#include "core/fault.h"
#include "core/nu_testing.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RULES_MAX     16
#define KILL_WAIT_MS  5000
#define ANY_NODE      (~0u)
#define RULE_TEXT_MAX 128

enum action { KILL, STOP, ERROR, DELAY, NOTE, ACTIONS };
static const char *const action_names[ACTIONS] = {"kill", "stop", "error", "delay", "note"};
static const char *const point_names[NU_FAULT_COUNT] = {
#define X(sym, name) name,
	NU_FAULT_POINTS(X)
#undef X
};

struct rule {
	enum nu_fault_point point;
	enum action action;
	unsigned node;
	bool each;
	uint64_t nth, value;
	bool has_value;
	atomic_ulong seen;
	atomic_bool ready; /* written last */
};

static struct rule rules[RULES_MAX];
static atomic_ulong hits[NU_FAULT_COUNT];
static const char *log_path;

bool nu_fault_armed;

/* ---- reading rules ---- */

static int index_of(const char *text, size_t len, const char *const *names, int n)
{
	for (int i = 0; i < n; i++) {
		if (strlen(names[i]) == len && !memcmp(names[i], text, len))
			return i;
	}
	return -1;
}

/* A number at *at, which is moved behind it. */
static bool number(const char **at, uint64_t *v_p)
{
	char *end;

	if (**at < '0' || **at > '9')
		return false;
	*v_p = strtoull(*at, &end, 10);
	*at = end;
	return true;
}

static int read_rule(const char *text, struct rule *r)
{
	const char *at = text + strcspn(text, "#:");
	int point = index_of(text, (size_t)(at - text), point_names, NU_FAULT_COUNT), action;
	uint64_t node = ANY_NODE;
	size_t len;

	r->nth = 1;
	r->each = true;
	if (*at == '#') {
		at++;
		if (!number(&at, &r->nth) || !r->nth)
			return -EINVAL;
		r->each = false;
	}
	if (point < 0 || *at++ != ':')
		return -EINVAL;
	len = strcspn(at, "=@");
	action = index_of(at, len, action_names, ACTIONS);
	if (action < 0)
		return -EINVAL;
	at += len;
	r->has_value = *at == '=';
	if (r->has_value) {
		at++;
		if (!number(&at, &r->value))
			return -EINVAL;
	}
	if (*at == '@') {
		at++;
		if (!number(&at, &node))
			return -EINVAL;
	}
	if (*at || (!r->has_value && (action == ERROR || action == DELAY)))
		return -EINVAL;
	r->point = (enum nu_fault_point)point;
	r->action = (enum action)action;
	r->node = (unsigned)node;
	r->each = r->each && action == ERROR;
	return 0;
}

static struct rule *free_rule(void)
{
	for (unsigned i = 0; i < RULES_MAX; i++) {
		if (!atomic_load_explicit(&rules[i].ready, memory_order_acquire))
			return &rules[i];
	}
	return NULL;
}

static int arm_one(const char *text, size_t len)
{
	char copy[RULE_TEXT_MAX];
	struct rule *r = free_rule(), read = {0};

	if (!r)
		return -ENOSPC;
	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (read_rule(copy, &read)) {
		nu_err("fault rule \"%s\": want POINT[#N]:ACTION[=VALUE][@NODE]", copy);
		return -EINVAL;
	}
	r->point = read.point;
	r->action = read.action;
	r->node = read.node;
	r->each = read.each;
	r->nth = read.nth;
	r->value = read.value;
	r->has_value = read.has_value;
	atomic_store_explicit(&r->seen, 0, memory_order_relaxed);
	atomic_store_explicit(&r->ready, true, memory_order_release);
	return 0;
}

int nu_fault_arm(const char *text)
{
	int ret = 0;

	if (!text) {
		nu_fault_armed = false;
		for (unsigned i = 0; i < RULES_MAX; i++)
			atomic_store_explicit(&rules[i].ready, false, memory_order_release);
		return 0;
	}
	while (*text && !ret) {
		size_t len = strcspn(text, ";");

		if (len)
			ret = arm_one(text, len);
		text += len + (text[len] == ';');
	}
	if (!ret)
		nu_fault_armed = nu_track_on = true;
	return ret;
}

/* After the log's constructor, before nodes are forked: each has the rules. */
static void __attribute__((constructor(102))) fault_read_env(void)
{
	const char *text = getenv("NU_FAULT");

	log_path = getenv("NU_FAULT_LOG");
	if (text && *text && nu_fault_arm(text))
		_exit(2); /* a test that tests nothing */
}

/* ---- acting ---- */

static void note(const struct rule *r, const void *pc)
{
	static struct nu_symbol sym; /* large; two at once would mix up a name */
	char line[2 * RULE_TEXT_MAX];
	int fd, n;

	if (!log_path)
		return;
	fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (!pc || !nu_symbol_find(pc, &sym))
		sym.name[0] = '\0';
	n = snprintf(line, sizeof(line), "%u %s %s %lu %s\n", nu_node.self, point_names[r->point],
		     action_names[r->action], (unsigned long)r->value, sym.name);
	ssize_t written __attribute__((unused)) = write(fd, line, (size_t)n);
	close(fd);
}

/* Returns when the node is no more. */
static void kill_node(unsigned node)
{
	struct pollfd pfd = {-1, POLLIN, 0};
	int n;

	if (node == nu_node.self)
		kill(getpid(), SIGKILL);
	if (node >= nu_node.count || node == nu_node.self || nu_node.pids[node] <= 0)
		return; /* one on another host has no pid here */
	pfd.fd = (int)syscall(SYS_pidfd_open, nu_node.pids[node], 0);
	kill(nu_node.pids[node], SIGKILL);
	if (pfd.fd < 0)
		return;
	do
		n = poll(&pfd, 1, KILL_WAIT_MS);
	while (n < 0 && nu_sys_errno == EINTR);
	close(pfd.fd);
}

static int act(const struct rule *r, const void *pc)
{
	struct timespec left = {(time_t)(r->value / 1000000), (long)(r->value % 1000000) * 1000};

	note(r, pc);
	switch (r->action) {
	case KILL:
		kill_node(r->has_value ? (unsigned)r->value : nu_node.self);
		return 0;
	case STOP:
		raise(SIGSTOP); /* to this thread: another would be stopped first, and this one later, somewhere */
		return 0;
	case ERROR:
		return -(int)r->value;
	case DELAY:
		while (nanosleep(&left, &left) && nu_sys_errno == EINTR)
			;
		return 0;
	default:
		return 0;
	}
}

int nu_fault_reached(enum nu_fault_point point)
{
	return nu_fault_reached_from(point, NULL);
}

int nu_fault_reached_from(enum nu_fault_point point, const void *pc)
{
	int saved = nu_sys_errno, ret = 0;

	atomic_fetch_add_explicit(&hits[point], 1, memory_order_relaxed);
	for (unsigned i = 0; i < RULES_MAX && !ret; i++) {
		struct rule *r = &rules[i];
		uint64_t seen;

		if (!atomic_load_explicit(&r->ready, memory_order_acquire) || r->point != point ||
		    (r->node != ANY_NODE && r->node != nu_node.self))
			continue;
		seen = atomic_fetch_add_explicit(&r->seen, 1, memory_order_relaxed) + 1;
		if (r->each || seen == r->nth)
			ret = act(r, pc);
	}
	nu_sys_errno = saved;
	return ret;
}

uint64_t nu_fault_hits(enum nu_fault_point point)
{
	return atomic_load_explicit(&hits[point], memory_order_relaxed);
}

int nu_testing_fault(const char *text)
{
	return nu_fault_arm(text);
}

int64_t nu_testing_fault_hits(const char *point)
{
	int i = index_of(point, strlen(point), point_names, NU_FAULT_COUNT);

	return i < 0 ? -EINVAL : (int64_t)nu_fault_hits((enum nu_fault_point)i);
}

const char *nu_testing_fault_name(unsigned i)
{
	return i < NU_FAULT_COUNT ? point_names[i] : NULL;
}

int64_t nu_testing_live(bool log)
{
	if (log)
		nu_track_log();
	return nu_track_live();
}
