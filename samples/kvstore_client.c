/* SPDX-License-Identifier: MIT */
/*
 * The client proclet: feeding, starting, stopping and reading it. What its threads do is in kvstore_worker.c.
 */
#include "kvstore_client.h"

#include "kvstore_worker.h"

#include <stdlib.h>
#include <string.h>

int kv_client_init(struct kv_client *self, struct kv_client_plan plan, struct nu_bytes table)
{
	self->plan = plan;
	self->records = calloc(plan.records + 1u, sizeof(*self->records));
	self->known = calloc(plan.records + 1u, sizeof(*self->known));
	if (plan.first < plan.threads_all && plan.step)
		self->nworkers = (plan.threads_all - plan.first + plan.step - 1) / plan.step;
	self->workers = calloc(self->nworkers + 1u, sizeof(*self->workers));
	/* What is left is freed with the heap. */
	if (!self->records || !self->known || !self->workers)
		return -ENOMEM;
	return ht_attach(&self->table, table);
}

int kv_client_do_feed(struct kv_client *self, struct nu_bytes records)
{
	char *chunk = malloc(records.len_bytes + 1), *p = chunk, *end;
	char **chunks = realloc(self->chunks, (self->nchunks + 1) * sizeof(*chunks));
	uint32_t lens[2];

	if (chunks)
		self->chunks = chunks;
	if (!chunk || !chunks) {
		free(chunk);
		return -ENOMEM;
	}
	self->chunks[self->nchunks++] = chunk;
	memcpy(chunk, records.data, records.len_bytes);
	for (end = chunk + records.len_bytes; p < end; p += sizeof(lens) + lens[0] + lens[1]) {
		if (self->nrecords == self->plan.records || (size_t)(end - p) < sizeof(lens))
			return -EINVAL;
		memcpy(lens, p, sizeof(lens));
		if ((size_t)(end - p) - sizeof(lens) < (size_t)lens[0] + lens[1])
			return -EINVAL;
		self->records[self->nrecords++] = p;
	}
	return 0;
}

int kv_client_do_start(struct kv_client *self)
{
	int err = self->nrecords == self->plan.records ? 0 : -EINVAL;

	for (uint32_t i = 0; !err && i < self->nworkers; i++)
		err = kv_worker_start(&self->workers[i], self, self->plan.first + i * self->plan.step);
	if (err)
		kv_client_do_stop(self);
	return err;
}

void kv_client_do_stop(struct kv_client *self)
{
	__atomic_store_n(&self->stop, true, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < self->nworkers; i++) {
		if (self->workers[i].thread)
			nu_thread_join(self->workers[i].thread);
		self->workers[i].thread = NULL;
	}
}

static void kv_counts_add(struct kv_counts *to, const struct kv_counts *from)
{
#define KV_ADD(field) to->field += __atomic_load_n(&from->field, __ATOMIC_RELAXED)
	KV_ADD(gets);
	KV_ADD(puts);
	KV_ADD(errors);
	KV_ADD(missing);
	KV_ADD(stale);
	KV_ADD(corrupt);
#undef KV_ADD
	if (__atomic_load_n(&from->last_error, __ATOMIC_RELAXED))
		to->last_error = __atomic_load_n(&from->last_error, __ATOMIC_RELAXED);
}

void kv_client_do_read(struct kv_client *self, struct nu_out *out)
{
	struct kv_reading *r = calloc(1, sizeof(*r)); /* too large for a stack */

	if (!r)
		return;
	for (uint32_t i = 0; i < self->nworkers; i++) {
		kv_counts_add(&r->counts, &self->workers[i].counts);
		kv_hist_merge(&r->latency, &self->workers[i].latency);
	}
	nu_out_bytes(out, r, sizeof(*r));
	free(r);
}

void kv_client_do_journal(struct kv_client *self, uint32_t worker, uint32_t from, struct nu_out *out)
{
	const struct kv_worker *w = &self->workers[worker];
	uint32_t n;

	if (worker >= self->nworkers || from > w->owned || (w->owned && !w->journal))
		return;
	n = w->owned - from < KV_JOURNAL_CALL ? w->owned - from : KV_JOURNAL_CALL;
	nu_out_bytes(out, n ? (const void *)(w->journal + from) : (const void *)"", n * sizeof(*w->journal));
}

void kv_client_do_detach(struct kv_client *self)
{
	ht_release(&self->table);
}
