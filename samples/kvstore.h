/* SPDX-License-Identifier: MIT */
/*
 * kvstore as its main proclet sees it: loading, running, watching, verifying, reporting. All of it lies in the main
 * proclet's heap; the program has no variables of its own, since those are write-protected once it runs.
 */
#pragma once

#include "hashtable.h"
#include "kvstore_client.h"
#include "kvstore_file.h"
#include "kvstore_options.h"

#define KV_NODES_MAX 256u
#define KV_TICK_US   200000u /* between live lines */

/* What is being done to the drained node: latency is kept for each apart. */
enum kv_phase { KV_BEFORE, KV_DRAINING, KV_DRAINED, KV_RESTORING, KV_AFTER, KV_PHASES };

/* One live line, for the plot. */
struct kv_sample {
	double at_s;
	double ops_per_s;
	uint64_t p50_ns, p99_ns, p999_ns;
	uint64_t moves;
};

/* The runtime's counters of all nodes, since the load began. */
struct kv_moves {
	uint64_t moves, undone, bytes;
	uint64_t blackouts_max_ns;
	uint64_t blackouts[64];
};

/* Who looks at clients and nodes while the load runs. */
struct kv_watch {
	struct nu_mutex mutex; /* two threads look: one ticks, one drains and restores */
	uint64_t begin_ns, end_ns;
	uint64_t phase_begin_ns, sample_begin_ns;
	enum kv_phase phase;
	struct kv_hist window, phases[KV_PHASES]; /* latency since the last sample, and in each phase */
	uint64_t phase_ns[KV_PHASES];
	struct kv_reading *last; /* by client: what was read of it last */
	struct kv_sample *samples;
	size_t nsamples;
	struct nu_stats *first_stats, *last_stats; /* by node */
};

/* A drain or restore that took place. */
struct kv_span {
	bool done;
	int err;
	unsigned moved;
	double begin_s, end_s;
};

struct kvstore {
	struct kv_options options;
	struct kv_file file;
	unsigned nodes; /* of the job */
	struct ht table;
	struct kv_client_ref *clients;
	unsigned nclients;
	struct kv_watch watch;
	struct kv_span drain, restore;
	bool events_over;
	struct kv_journal *journal; /* by record, from all clients */
	uint64_t verified, lost, wrong;
	bool failed; /* something else that makes the exit status non-zero */
};

/* One line on stderr: "kvstore: ...". */
void kv_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- kvstore_load.c: each logs its own failure ---- */
int kv_table_load(struct kvstore *kv);
int kv_clients_create(struct kvstore *kv);

/* ---- kvstore_watch.c ---- */
int kv_watch_init(struct kvstore *kv);
void kv_watch_fini(struct kvstore *kv);
/* The clients are about to start. */
void kv_watch_begin(struct kvstore *kv);
/* Takes a sample and prints it as a live line. */
void kv_watch_tick(struct kvstore *kv);
/* What comes from now on belongs to @phase. Return: the time in s since the beginning. */
double kv_watch_phase(struct kvstore *kv, enum kv_phase phase);
/* The clients have stopped: takes what is left. */
void kv_watch_end(struct kvstore *kv);
/* Sum of the clients' counters as last read. */
struct kv_counts kv_watch_counts(const struct kvstore *kv);
struct kv_moves kv_watch_moves(const struct kvstore *kv);

/* ---- kvstore_verify.c: fills in journal, verified, lost, wrong ---- */
void kv_verify(struct kvstore *kv);

/* ---- kvstore_report.c, kvstore_plot.c ---- */
void kv_report(const struct kvstore *kv);
/* Writes the data and a script beside the picture, and has gnuplot draw it. */
void kv_plot(struct kvstore *kv);
