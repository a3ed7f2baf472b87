/* SPDX-License-Identifier: MIT */
/*
 * Looking at clients and nodes while the load runs: samples, live lines, latency by phase.
 */
#include "kvstore.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KV_SAMPLES_MAX ((size_t)1 << 20)

int kv_watch_init(struct kvstore *kv)
{
	struct kv_watch *w = &kv->watch;

	nu_mutex_init(&w->mutex);
	w->last = calloc(kv->nclients, sizeof(*w->last));
	w->first_stats = calloc(kv->nodes, sizeof(*w->first_stats));
	w->last_stats = calloc(kv->nodes, sizeof(*w->last_stats));
	if (w->last && w->first_stats && w->last_stats)
		return 0;
	kv_complain("no memory to watch %u nodes", kv->nodes);
	return -ENOMEM;
}

void kv_watch_fini(struct kvstore *kv)
{
	free(kv->watch.last);
	free(kv->watch.samples);
	free(kv->watch.first_stats);
	free(kv->watch.last_stats);
}

/* A node that does not answer keeps what it said before. */
static void kv_stats_read(struct kvstore *kv, struct nu_stats *stats)
{
	struct nu_stats now;

	for (unsigned i = 0; i < kv->nodes; i++) {
		if (!nu_stats(i, &now))
			stats[i] = now;
	}
}

struct kv_moves kv_watch_moves(const struct kvstore *kv)
{
	struct kv_moves m = {0};

	for (unsigned i = 0; kv->watch.last_stats && i < kv->nodes; i++) {
		const struct nu_stats *now = &kv->watch.last_stats[i], *first = &kv->watch.first_stats[i];

		m.moves += now->moves_in - first->moves_in;
		m.undone += now->moves_undone - first->moves_undone;
		m.bytes += now->move_bytes - first->move_bytes;
		for (unsigned b = 0; b < 64; b++)
			m.blackouts[b] += now->blackout_ns_hist[b] - first->blackout_ns_hist[b];
		if (now->blackout_ns_count != first->blackout_ns_count &&
		    now->blackout_ns_max > m.blackouts_max_ns)
			m.blackouts_max_ns = now->blackout_ns_max;
	}
	return m;
}

struct kv_counts kv_watch_counts(const struct kvstore *kv)
{
	struct kv_counts sum = {0};

	for (unsigned i = 0; kv->watch.last && i < kv->nclients; i++) {
		const struct kv_counts *c = &kv->watch.last[i].counts;

		sum.gets += c->gets;
		sum.puts += c->puts;
		sum.errors += c->errors;
		sum.missing += c->missing;
		sum.stale += c->stale;
		sum.corrupt += c->corrupt;
		sum.last_error = c->last_error ? c->last_error : sum.last_error;
	}
	return sum;
}

/* Adds what the clients did since the last look to the window and the phase. With the mutex held. */
static void kv_clients_read(struct kvstore *kv)
{
	struct kv_watch *w = &kv->watch;
	struct nu_bytes reply;

	for (unsigned i = 0; i < kv->nclients; i++) {
		reply = nu_bytes(NULL, 0);
		/* A client that does not answer now is read with the next look: its counters only grow. */
		if (!kv_client_read(kv->clients[i], &reply) && reply.len_bytes == sizeof(struct kv_reading)) {
			const struct kv_reading *now = reply.data;

			kv_hist_merge_delta(&w->window, &now->latency, &w->last[i].latency);
			kv_hist_merge_delta(&w->phases[w->phase], &now->latency, &w->last[i].latency);
			memcpy(&w->last[i], now, sizeof(*now));
		}
		free((void *)reply.data);
	}
}

void kv_watch_begin(struct kvstore *kv)
{
	struct kv_watch *w = &kv->watch;

	kv_stats_read(kv, w->first_stats);
	memcpy(w->last_stats, w->first_stats, kv->nodes * sizeof(*w->last_stats));
	w->begin_ns = w->phase_begin_ns = w->sample_begin_ns = nu_now_ns();
	printf("\n%8s %10s %9s %10s %7s  %s\n", "time s", "ops/s", "p50 us", "p99.9 us", "moves",
	       "proclets on node 0, 1, ...");
	fflush(stdout);
}

/* "88 87 88", or with a mark: 0! is a dead node, 3- one that is being emptied or is empty. */
static void kv_proclets_line(struct kvstore *kv, char *line, size_t len)
{
	unsigned max = kv->nodes < KV_NODES_MAX ? kv->nodes : KV_NODES_MAX;
	struct nu_node_info *infos = calloc(max, sizeof(*infos));
	int n = infos ? nu_nodes(infos, max) : 0;
	size_t at = 0;

	line[0] = 0;
	for (int i = 0; i < n && i < (int)max && at + 16 < len; i++)
		at += (size_t)snprintf(line + at, len - at, " %5" PRIu64 "%s", infos[i].proclets,
				       infos[i].state == NU_NODE_DEAD	    ? "!"
				       : infos[i].state == NU_NODE_DRAINING ? "-"
									    : " ");
	free(infos);
}

static void kv_sample_keep(struct kv_watch *w, const struct kv_sample *s)
{
	struct kv_sample *more;

	/* A power of two is full: double it. */
	if (!(w->nsamples & (w->nsamples - 1))) {
		more = w->nsamples < KV_SAMPLES_MAX
			       ? realloc(w->samples, (w->nsamples ? w->nsamples * 2 : 1) * sizeof(*more))
			       : NULL;
		if (!more)
			return; /* the plot ends early */
		w->samples = more;
	}
	w->samples[w->nsamples++] = *s;
}

static void kv_sample_print(struct kvstore *kv, const struct kv_sample *s)
{
	char proclets[512];

	kv_proclets_line(kv, proclets, sizeof(proclets));
	printf("%8.1f %10.0f %9.1f %10.1f %7" PRIu64 " %s\n", s->at_s, s->ops_per_s, (double)s->p50_ns / 1e3,
	       (double)s->p999_ns / 1e3, s->moves, proclets);
	fflush(stdout);
}

void kv_watch_tick(struct kvstore *kv)
{
	struct kv_watch *w = &kv->watch;
	struct kv_sample s;
	uint64_t now_ns;

	nu_mutex_lock(&w->mutex);
	kv_clients_read(kv);
	kv_stats_read(kv, w->last_stats);
	now_ns = nu_now_ns();
	s.at_s = (double)(now_ns - w->begin_ns) / 1e9;
	s.ops_per_s = (double)kv_hist_count(&w->window) * 1e9 / (double)(now_ns - w->sample_begin_ns + 1);
	s.p50_ns = kv_hist_quantile_ns(&w->window, 0.5);
	s.p99_ns = kv_hist_quantile_ns(&w->window, 0.99);
	s.p999_ns = kv_hist_quantile_ns(&w->window, 0.999);
	s.moves = kv_watch_moves(kv).moves;
	w->sample_begin_ns = now_ns;
	memset(&w->window, 0, sizeof(w->window));
	kv_sample_keep(w, &s);
	nu_mutex_unlock(&w->mutex);
	kv_sample_print(kv, &s);
}

static void kv_phase_end(struct kv_watch *w, uint64_t now_ns)
{
	w->phase_ns[w->phase] += now_ns - w->phase_begin_ns;
	w->phase_begin_ns = now_ns;
}

double kv_watch_phase(struct kvstore *kv, enum kv_phase phase)
{
	struct kv_watch *w = &kv->watch;
	uint64_t now_ns = nu_now_ns(); /* before a client is asked: it may be busy with moving */

	nu_mutex_lock(&w->mutex);
	kv_clients_read(kv);
	kv_phase_end(w, now_ns > w->phase_begin_ns ? now_ns : w->phase_begin_ns);
	w->phase = phase;
	nu_mutex_unlock(&w->mutex);
	return (double)(now_ns - w->begin_ns) / 1e9;
}

void kv_watch_end(struct kvstore *kv)
{
	struct kv_watch *w = &kv->watch;

	nu_mutex_lock(&w->mutex);
	kv_clients_read(kv);
	kv_stats_read(kv, w->last_stats);
	w->end_ns = nu_now_ns();
	kv_phase_end(w, w->end_ns);
	nu_mutex_unlock(&w->mutex);
}
