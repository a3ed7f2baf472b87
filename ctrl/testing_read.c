/* SPDX-License-Identifier: MIT */
/*
 * Raw reads for benchmarks: nu_testing_source. A reader by offers reads nothing that it was not offered, and only into
 * the pool; so the node that is read keeps an extent for each source, and offers it for as long as the source lasts.
 */
#include "core/nu_testing.h"
#include "ctrl/ctrl.h"

#include <stdlib.h>
#include <string.h>

#define SOURCES_MAX 16

static struct source {
	struct nu_extent extent;
	struct nu_offer_piece piece;
	const struct nu_reader_ops *reader; /* NULL: it needs no offers */
	unsigned to;
	bool used;
} sources[SOURCES_MAX];
static struct nu_lock lock; /* leaf: `used` */

struct open_args {
	uint64_t len_bytes, to, kind;
};

struct open_result {
	struct nu_offer_piece piece;
	int ret;
	unsigned slot;
};

/* ---- the node that is read ---- */

static struct source *take_slot(unsigned *slot_p)
{
	struct source *s = NULL;

	nu_lock_acquire(&lock);
	for (unsigned i = 0; i < SOURCES_MAX && !s; i++) {
		if (sources[i].used)
			continue;
		s = &sources[i];
		*s = (struct source){.used = true};
		*slot_p = i;
	}
	nu_lock_release(&lock);
	return s;
}

static void free_slot(struct source *s)
{
	nu_lock_acquire(&lock);
	s->used = false;
	nu_lock_release(&lock);
}

static int open_source(const struct open_args *a, struct open_result *r)
{
	struct source *s = take_slot(&r->slot);
	int ret;

	if (!s)
		return -ENOSPC;
	ret = nu_extent_get(a->len_bytes, false, true, &s->extent);
	if (ret)
		goto free_slot;
	memset(s->extent.at, 0x5a, a->len_bytes);
	s->piece = (struct nu_offer_piece){.address = (uint64_t)s->extent.at, .len_bytes = a->len_bytes};
	s->to = (unsigned)a->to;
	s->reader = a->kind ? nu_reader_of_kind((int)a->kind) : NULL;
	if (a->kind && !s->reader)
		ret = -ENODEV;
	else if (s->reader)
		ret = s->reader->offer(s->to, &s->extent, a->len_bytes, &s->piece);
	if (ret)
		goto put_extent;
	r->piece = s->piece;
	return 0;

put_extent:
	nu_extent_put(&s->extent);
free_slot:
	free_slot(s);
	return ret;
}

static void open_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct open_result *r = result;

	*r = (struct open_result){0};
	r->ret = open_source(args, r);
}

static void close_run(void *self, void *args, void *result, struct nu_out *out)
{
	uint64_t slot = *(uint64_t *)args;
	struct source *s = slot < SOURCES_MAX && sources[slot].used ? &sources[slot] : NULL;

	*(int *)result = s ? 0 : -EINVAL;
	if (!s)
		return;
	if (s->reader)
		s->reader->withdraw(s->to, &s->piece);
	nu_extent_put(&s->extent);
	free_slot(s);
}

#define NODE_METHOD(sym, text, fn, args_size, result_size)                                                   \
	__attribute__((section("nu_methods"), used)) static const struct nu_method sym = {                   \
		.class_name = "node",                                                                        \
		.name = text,                                                                                \
		.run = fn,                                                                                   \
		.args_bytes = args_size,                                                                     \
		.result_bytes = result_size,                                                                 \
		.result_kind = NU_RESULT_FIXED,                                                              \
		.magic = NU_METHOD_MAGIC,                                                                    \
		.cls = &nu_node_class,                                                                       \
	}

NODE_METHOD(open_method, "testing_open", open_run, sizeof(struct open_args), sizeof(struct open_result));
NODE_METHOD(close_method, "testing_close", close_run, sizeof(uint64_t), sizeof(int));

/* ---- the node that reads ---- */

static int ask_close(const struct nu_testing_source *s)
{
	uint64_t slot = s->slot;
	int ret = 0, err = nu_call((struct nu_ref){nu_id_of_node(s->node)}, &close_method, &slot, &ret);

	return err ? err : ret;
}

NU_API int nu_testing_source_open(unsigned node, size_t len_bytes, struct nu_testing_source *s_p)
{
	struct nu_testing_source s = {.node = node, .len_bytes = len_bytes};
	struct open_args a = {len_bytes, nu_node.self, 0};
	struct open_result r;
	struct nu_extent sink;
	int ret;

	if (node >= nu_node.count || node == nu_node.self || !len_bytes)
		return -EINVAL;
	a.kind = (uint64_t)nu_reader_offer_kind(node);
	ret = a.kind ? nu_reader_connect(node) : 0; /* an offer waits for it */
	if (ret)
		return ret;
	ret = nu_call((struct nu_ref){nu_id_of_node(node)}, &open_method, &a, &r);
	if (ret || r.ret)
		return ret ? ret : r.ret;
	s.by_offer = a.kind;
	s.slot = r.slot;
	s.address = r.piece.address;
	s.rkey = r.piece.rkey;
	s.lane = r.piece.lane;
	ret = nu_extent_get(len_bytes, false, true, &sink);
	if (ret) {
		ask_close(&s);
		return ret;
	}
	s.local = sink.at;
	s.local_bytes = sink.len_bytes;
	*s_p = s;
	return 0;
}

NU_API int nu_testing_source_read(const struct nu_testing_source *s, const void *remote)
{
	struct nu_piece piece = {.local = s->local,
				 .remote = s->by_offer ? s->address : (uint64_t)remote,
				 .len_bytes = s->len_bytes,
				 .rkey = s->rkey,
				 .lane = s->lane,
				 .at = s->local};

	return nu_reader_read(s->node, &piece, 1);
}

/* In an order in which no two that lie together follow each other: else the reader may make one read of them. */
NU_API int nu_testing_source_reads(const struct nu_testing_source *s, const void *remote, size_t each_bytes)
{
	size_t n = each_bytes ? s->len_bytes / each_bytes : 0;
	struct nu_piece *pieces = n && n <= UINT32_MAX ? malloc(n * sizeof(*pieces)) : NULL;
	int ret;

	if (!pieces)
		return n ? -ENOMEM : -EINVAL;
	for (size_t i = 0; i < n; i++) {
		size_t at = n % 2 || n < 4 ? i : i / 2 + i % 2 * (n / 2), off = at * each_bytes;

		pieces[i] = (struct nu_piece){.local = (char *)s->local + off,
					      .remote = (s->by_offer ? s->address : (uint64_t)remote) + off,
					      .len_bytes = each_bytes,
					      .rkey = s->rkey,
					      .lane = s->lane,
					      .at = (char *)s->local + off};
	}
	ret = nu_reader_read(s->node, pieces, (unsigned)n);
	free(pieces);
	return ret;
}

NU_API int nu_testing_source_reads_bare(const struct nu_testing_source *s, size_t each_bytes, unsigned depth)
{
	struct nu_piece piece = {.local = s->local,
				 .remote = s->address,
				 .len_bytes = s->len_bytes,
				 .rkey = s->rkey,
				 .lane = s->lane};

	if (strcmp(nu_reader_name(s->node), nu_reader_verbs.name) != 0)
		return -ENODEV;
	return each_bytes && depth ? nu_verbs_read_bare(s->node, &piece, each_bytes, depth) : -EINVAL;
}

NU_API int nu_testing_source_close(struct nu_testing_source *s)
{
	struct nu_extent sink = {s->local, s->local, s->local_bytes};
	int ret = s->local ? ask_close(s) : 0;

	if (s->local)
		nu_extent_put(&sink);
	s->local = NULL;
	return ret;
}
