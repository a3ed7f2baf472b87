/* SPDX-License-Identifier: MIT */
/*
 * kvstore: a key-value store on the sharded hash table, under load, while one of its nodes is emptied and filled again.
 * At the end every key is read back and compared with the file and with the journals of what was acknowledged.
 */
#include "kvstore.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void kv_complain(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fflush(stdout); /* so that lines come in the order in which things happened */
	fprintf(stderr, "kvstore: %s\n", line);
}

/* One drain or restore, at its time. */
static void kv_event_run(struct kvstore *kv, const struct kv_event *event, struct kv_span *span, bool drain)
{
	nu_sleep_until_us(kv->watch.begin_ns / 1000 + (uint64_t)(event->at_s * 1e6));
	printf("          node %u: %s\n", event->node, drain ? "drain begins" : "its proclets come back");
	fflush(stdout);
	span->begin_s = kv_watch_phase(kv, drain ? KV_DRAINING : KV_RESTORING);
	span->err =
		drain ? nu_node_drain(event->node, &span->moved) : nu_node_restore(event->node, &span->moved);
	span->end_s = kv_watch_phase(kv, drain ? KV_DRAINED : KV_AFTER);
	span->done = true;
	if (span->err) {
		kv_complain("%s of node %u: %s", drain ? "drain" : "restore", event->node,
			    nu_strerror(span->err));
		__atomic_store_n(&kv->failed, true, __ATOMIC_RELAXED);
		return;
	}
	printf("          node %u: %s, %u proclets moved in %.1f ms\n", event->node,
	       drain ? "drained" : "restored", span->moved, (span->end_s - span->begin_s) * 1e3);
	fflush(stdout);
}

static void kv_events_run(void *arg)
{
	struct kvstore *kv = arg;

	if (kv->options.drain.wanted)
		kv_event_run(kv, &kv->options.drain, &kv->drain, true);
	if (kv->options.restore.wanted)
		kv_event_run(kv, &kv->options.restore, &kv->restore, false);
	__atomic_store_n(&kv->events_over, true, __ATOMIC_RELEASE);
}

static int kv_clients_start(struct kvstore *kv)
{
	int result = 0, err;

	for (unsigned i = 0; i < kv->nclients; i++) {
		err = kv_client_start(kv->clients[i], &result);
		if (!err)
			err = result;
		if (err) {
			kv_complain("client %u does not start: %s", i, nu_strerror(err));
			return err;
		}
	}
	return 0;
}

static void kv_clients_stop(struct kvstore *kv)
{
	int err;

	for (unsigned i = 0; i < kv->nclients; i++) {
		err = kv_client_stop(kv->clients[i]);
		if (err) {
			kv_complain("client %u does not stop: %s", i, nu_strerror(err));
			kv->failed = true;
		}
	}
}

/* The load with its drain and restore. Lasts as long as the user said, or until both are done. */
static int kv_load_run(struct kvstore *kv)
{
	struct nu_thread *events = NULL;
	uint64_t begin_us, tick = 1;
	int err;

	kv_watch_begin(kv);
	err = kv_clients_start(kv);
	if (!err) {
		err = nu_thread_spawn(kv_events_run, kv, &events);
		if (err)
			kv_complain("no thread for drain and restore: %s", nu_strerror(err));
	}
	begin_us = kv->watch.begin_ns / 1000;
	while (!err && (nu_now_us() < begin_us + (uint64_t)(kv->options.seconds * 1e6) ||
			!__atomic_load_n(&kv->events_over, __ATOMIC_ACQUIRE))) {
		nu_sleep_until_us(begin_us + tick * KV_TICK_US);
		kv_watch_tick(kv);
		/* A tick that took long is followed by one at the next time that lies ahead. */
		tick = (nu_now_us() - begin_us) / KV_TICK_US + 1;
	}
	if (events)
		nu_thread_join(events);
	kv_clients_stop(kv);
	kv_watch_end(kv);
	return err;
}

static void kv_clean_up(struct kvstore *kv)
{
	for (unsigned i = 0; i < kv->nclients; i++) {
		(void)!kv_client_detach(kv->clients[i]); /* a client that is gone holds nothing */
		kv_client_ref_put(&kv->clients[i]);
	}
	free(kv->clients);
	ht_release(&kv->table);
	kv_watch_fini(kv);
	free(kv->journal);
	kv_file_fini(&kv->file);
	free(kv);
}

/* Everything after the file was read. Return: the exit status. */
static int kv_run(struct kvstore *kv)
{
	struct kv_counts counts;

	if (kv_table_load(kv))
		return 1;
	if (kv->file.count) {
		if (kv_clients_create(kv) || kv_watch_init(kv) || kv_load_run(kv))
			return 1;
	} else {
		printf("no records, so no load\n");
	}
	kv_verify(kv);
	counts = kv_watch_counts(kv);
	kv_report(kv);
	if (kv->options.plot && kv->file.count)
		kv_plot(kv);
	return kv->failed || kv->lost || kv->wrong || counts.missing || counts.stale || counts.corrupt;
}

static int kv_main(int argc, char **argv)
{
	struct kvstore *kv = calloc(1, sizeof(*kv));
	char cause[320];
	int status = 1;

	if (!kv) {
		kv_complain("no memory");
		return 1;
	}
	if (kv_options_parse(&kv->options, argc, argv, cause, sizeof(cause))) {
		kv_complain("%s", cause);
		status = 2;
		goto out;
	}
	if (kv->options.help) {
		kv_options_help();
		fflush(stdout);
		status = 0;
		goto out;
	}
	kv->nodes = nu_node_count();
	if (kv_options_fit(&kv->options, kv->nodes, cause, sizeof(cause))) {
		kv_complain("%s", cause);
		status = 2;
		goto out;
	}
	if (*cause)
		kv_complain("%s", cause);
	if (kv_file_read(&kv->file, kv->options.file)) {
		kv_complain("%s", kv->file.cause);
		goto out;
	}
	status = kv_run(kv);
	fflush(stdout);
out:
	kv_clean_up(kv);
	return status;
}

int main(int argc, char **argv)
{
	int status = nu_run(argc, argv, kv_main, NULL);

	return status < 0 ? 1 : status;
}
