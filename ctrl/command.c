/* SPDX-License-Identifier: MIT */
/* An operator's commands, as nu_ctl sends them: each runs in a thread of node 0 and answers with text. */
#include "ctrl/boot.h"
#include "ctrl/ctrl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
	uint64_t number;
	char *words[4];
	unsigned nwords;
	char text[256];
	bool said; /* why it failed */
};

static const char *node_state(enum nu_node_state s)
{
	return s == NU_NODE_UP ? "up" : s == NU_NODE_DRAINING ? "draining" : s == NU_NODE_DEAD ? "dead" : "-";
}

static int parse_u64(const char *word, uint64_t *v_p)
{
	char *end;
	uint64_t v = strtoull(word, &end, 0);

	if (!*word || *end || *word == '-')
		return -EINVAL;
	*v_p = v;
	return 0;
}

static int parse_node(struct request *r, unsigned i, FILE *f, unsigned *node_p)
{
	uint64_t v;

	if (i >= r->nwords || parse_u64(r->words[i], &v) || v >= nu_node.count) {
		fprintf(f, "nodes are numbered 0 to %u\n", nu_node.count - 1);
		r->said = true;
		return -EINVAL;
	}
	*node_p = (unsigned)v;
	return 0;
}

static int cmd_nodes(struct request *r, FILE *f)
{
	struct nu_node_info infos[NU_MAX_NODES];
	int n = nu_client_nodes(infos, NU_MAX_NODES);

	if (n < 0)
		return n;
	fprintf(f, "%5s %-9s %6s %9s %10s %10s\n", "NODE", "STATE", "CORES", "PROCLETS", "USED[MiB]",
		"MEM[MiB]");
	for (int i = 0; i < n; i++)
		fprintf(f, "%5u %-9s %6u %9" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n", infos[i].node,
			node_state(infos[i].state), infos[i].cores, infos[i].proclets,
			infos[i].mem_used_bytes / NU_MIB, infos[i].mem_total_bytes / NU_MIB);
	return 0;
}

static const char *life(const struct nu_ctrl_info *i)
{
	if (i->moving_to != NU_CTRL_NO_NODE)
		return "moving";
	return i->life == NU_CTRL_NEW	 ? "new"
	       : i->life == NU_CTRL_LOST ? "lost"
	       : i->pinned		 ? "pinned"
					 : "live";
}

static int cmd_proclets(struct request *r, FILE *f)
{
	struct nu_ctrl_info *infos = calloc(256, sizeof(*infos));
	unsigned only = NU_CTRL_NO_NODE;
	uint64_t cursor = 0;
	int n = infos ? 0 : -ENOMEM;

	if (!n && r->nwords > 1)
		n = parse_node(r, 1, f, &only);
	if (n >= 0)
		fprintf(f, "%18s %5s %8s %-7s %14s\n", "ID", "NODE", "LOCATION", "STATE", "CAPACITY[MiB]");
	while (n >= 0 && cursor != UINT64_MAX) {
		n = nu_client_list(&cursor, infos, 256);
		for (int i = 0; i < n; i++) {
			if (only == NU_CTRL_NO_NODE || infos[i].node == only)
				fprintf(f, "%#18" PRIx64 " %5u %8" PRIu64 " %-7s %14" PRIu64 "\n",
					infos[i].id, infos[i].node, infos[i].location, life(&infos[i]),
					infos[i].capacity_bytes / NU_MIB);
		}
	}
	free(infos);
	return n < 0 ? n : 0;
}

static int cmd_migrate(struct request *r, FILE *f)
{
	unsigned node;
	uint64_t id;
	int ret;

	if (r->nwords < 3 || parse_u64(r->words[1], &id)) {
		fprintf(f, "usage: migrate ID NODE\n");
		r->said = true;
		return -EINVAL;
	}
	ret = parse_node(r, 2, f, &node);
	if (!ret)
		ret = nu_migrate((struct nu_ref){id}, node);
	if (!ret)
		fprintf(f, "proclet %#" PRIx64 " is at node %u\n", id, node);
	return ret;
}

static int cmd_drain(struct request *r, FILE *f)
{
	bool back = !strcmp(r->words[0], "restore");
	unsigned node, moved = 0;
	int ret = parse_node(r, 1, f, &node);

	if (ret)
		return ret;
	ret = back ? nu_node_restore(node, &moved) : nu_node_drain(node, &moved);
	if (!back && ret == -EINVAL && !moved) {
		fprintf(f,
			"node %u is the last that takes proclets: it cannot be drained (restore another "
			"first)\n",
			node);
		r->said = true;
		return ret;
	}
	fprintf(f, "%u proclets moved %s node %u\n", moved, back ? "back to" : "away from", node);
	return ret;
}

static int stats_of(unsigned node, FILE *f)
{
	struct nu_stats s;
	int ret = nu_service_stats(node, &s);

	if (ret)
		return ret;
	fprintf(f,
		"node %u: proclets %" PRIu64 " (created %" PRIu64 ", freed %" PRIu64 "), heaps %" PRIu64
		" MiB, pool %" PRIu64 " MiB\n"
		"  calls: local %" PRIu64 ", sent %" PRIu64 ", served %" PRIu64 ", forwarded %" PRIu64
		", held %" PRIu64 ", stale %" PRIu64 "\n"
		"  wire: batches %" PRIu64 ", bytes %" PRIu64 ", nudges %" PRIu64 ", bad messages %" PRIu64
		"\n"
		"  threads: spawned %" PRIu64 ", switches %" PRIu64 ", steals %" PRIu64
		", preemptions %" PRIu64 "\n"
		"  moves: in %" PRIu64 ", out %" PRIu64 ", undone %" PRIu64 ", bytes %" PRIu64
		", blackout max %.1f us\n"
		"  reads: cma %" PRIu64 ", verbs %" PRIu64 ", am %" PRIu64 " bytes\n",
		node, s.proclets_now, s.proclets_created, s.proclets_freed, s.heap_bytes_now / NU_MIB,
		s.pool_bytes_now / NU_MIB, s.calls_local, s.calls_sent, s.calls_served, s.calls_forwarded,
		s.calls_held, s.stale_calls, s.batches_sent, s.bytes_sent, s.nudges_sent, s.bad_messages,
		s.threads_spawned, s.switches, s.steals, s.preemptions, s.moves_in, s.moves_out,
		s.moves_undone, s.move_bytes, (double)s.blackout_ns_max / 1e3, s.read_bytes_cma,
		s.read_bytes_verbs, s.read_bytes_am);
	return 0;
}

static int cmd_stats(struct request *r, FILE *f)
{
	unsigned node;
	int ret = 0;

	if (r->nwords > 1) {
		ret = parse_node(r, 1, f, &node);
		return ret ? ret : stats_of(node, f);
	}
	for (node = 0; node < nu_node.count && !ret; node++) {
		if (!nu_node.dead[node])
			ret = stats_of(node, f);
	}
	return ret;
}

static const struct {
	const char *name;
	int (*run)(struct request *r, FILE *f);
} commands[] = {
	{"nodes", cmd_nodes}, {"proclets", cmd_proclets}, {"migrate", cmd_migrate},
	{"drain", cmd_drain}, {"restore", cmd_drain},	  {"stats", cmd_stats},
};

static void body(void *arg)
{
	struct request *r = arg;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	int ret = -ENOSYS;

	for (size_t i = 0; f && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (r->nwords && !strcmp(commands[i].name, r->words[0]))
			ret = commands[i].run(r, f);
	}
	if (f && ret == -ENOSYS)
		fprintf(f, "unknown command\n");
	else if (f && ret && !r->said)
		fprintf(f, "%s\n", nu_strerror(ret));
	if (f)
		fclose(f);
	nu_boot_ctl_reply(r->number, ret, f ? text : "no memory\n");
	free(text);
	free(r);
}

void nu_command(uint64_t request, const char *command)
{
	struct request *r = calloc(1, sizeof(*r));
	char *save;

	if (!r) {
		nu_boot_ctl_reply(request, -ENOMEM, "no memory\n");
		return;
	}
	r->number = request;
	snprintf(r->text, sizeof(r->text), "%s", command);
	for (char *w = strtok_r(r->text, " ", &save); w && r->nwords < 4; w = strtok_r(NULL, " ", &save))
		r->words[r->nwords++] = w;
	if (nu_node_spawn(body, r)) {
		nu_boot_ctl_reply(request, -ENOMEM, "no thread is left\n");
		free(r);
	}
}
