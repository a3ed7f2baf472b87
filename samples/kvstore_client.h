/* SPDX-License-Identifier: MIT */
/*
 * A client: a proclet whose threads load the store and keep the journal of what was acknowledged. There is one on each
 * node to begin with; they move like any other proclet.
 *
 * Record i belongs to client thread i % threads, which alone writes it, so each thread knows without asking anybody
 * which version the store must hold.
 */
#pragma once

#include "hashtable.h"
#include "kvstore_hist.h"
#include "kvstore_zipf.h"

/* Counters of a client since its start. Each is only ever raised. */
NU_STRUCT(kv_counts, val(uint64_t, gets), val(uint64_t, puts),
	  val(uint64_t, errors),  /* calls that failed: whether they ran is unknown */
	  val(uint64_t, missing), /* gets that found no such key */
	  val(uint64_t, stale),	  /* gets that found an older version than one already acknowledged or seen */
	  val(uint64_t, corrupt), /* gets whose value was not what anybody wrote */
	  val(int32_t, last_error));

/* What a client is to do. */
NU_STRUCT(kv_client_plan, val(uint32_t, records), /* that kv_client_feed() will bring */
	  val(uint32_t, threads_all),		  /* of all clients together */
	  val(uint32_t, first),			  /* this client's threads are first, first + step, ... */
	  val(uint32_t, step), val(double, get_percent), val(double, zipf), val(uint64_t, value_bytes));

/* For a record: the newest version whose put was acknowledged, and the newest that was sent. */
struct kv_journal {
	uint32_t acked, tried;
};

struct kv_client;

struct kv_worker {
	struct kv_client *client;
	struct nu_thread *thread;
	uint32_t number; /* among the threads of all clients */
	uint32_t owned;	 /* records number, number + threads_all, ... */
	struct kv_rng rng;
	struct kv_zipf reads, writes;
	struct kv_journal *journal; /* by own record */
	char *value;		    /* the next one to put */
	struct kv_counts counts;
	struct kv_hist latency;
};

struct kv_client {
	struct kv_client_plan plan;
	struct ht table;
	const char **records; /* as they were fed: two lengths, key, value */
	uint32_t nrecords;
	char **chunks; /* that the records lie in */
	size_t nchunks;
	/* By record: the newest version that any thread here knows to have been stored. Raised only. */
	uint32_t *known;
	struct kv_worker *workers;
	uint32_t nworkers;
	bool stop;
};

NU_CLASS(kv_client, obj(kv_client_plan, plan), bytes(table));
/* Gives more records: for each the lengths of key and value (uint32_t), key, value. Result: 0 or a negative errno. */
NU_METHOD(kv_client, feed, val(int), bytes(records));
/* Starts the threads. */
NU_METHOD(kv_client, start, val(int));
/* Ends them; returns when the last operation has. */
NU_METHOD(kv_client, stop, none);
/* A struct kv_reading. */
NU_METHOD(kv_client, read, bytes);
/* The journal of worker @worker of this client from own record @from on, as far as one message goes. */
NU_METHOD(kv_client, journal, bytes, val(uint32_t, worker), val(uint32_t, from));
/* Gives the table back. */
NU_METHOD(kv_client, detach, none);

#define KV_JOURNAL_CALL ((uint32_t)64 << 10) /* entries in one answer */

/* What a client has done so far, its threads together. */
struct kv_reading {
	struct kv_counts counts;
	struct kv_hist latency;
};
