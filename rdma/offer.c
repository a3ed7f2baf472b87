/* SPDX-License-Identifier: MIT */
/*
 * What a source makes readable for one hand-over, where the destination reads by offers: the pool's extents under the heap,
 * each with a key, and the live parts of stacks. What there is of the heap is offered while the proclet still runs, since
 * a device takes its time for it; its threads' pause is for what has come since. Nobody has the keys before that. Stacks are not in the pool, and so not known to a device: few bytes of
 * them go with the message, many are copied into an extent.
 */
#include "core/fault.h"
#include "rdma/move_int.h"

int nu_offer_init(struct nu_offer *o, unsigned to, int kind)
{
	*o = (struct nu_offer){.to = to};
	if (!kind)
		return 0;
	o->reader = nu_reader_of_kind(kind);
	if (o->reader)
		return 0;
	nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
	nu_warn("node %u wants an offer of kind %d, which there is not", to, kind);
	return -EBADMSG;
}

/* What of extent @e the first @left bytes of a heap's rest are. */
static size_t part_of(const struct nu_extent *e, size_t left)
{
	return e->len_bytes < left ? e->len_bytes : left;
}

static void withdraw(struct nu_offer *o, struct nu_offer_piece *piece)
{
	if (piece->len_bytes)
		o->reader->withdraw(o->to, piece);
	piece->len_bytes = 0;
}

/* Offers @len_bytes of @e; or is content with what was offered of it before, if that is as much. */
static int offer_extent(struct nu_offer *o, struct nu_offer_piece *piece, const struct nu_extent *e,
			size_t len_bytes)
{
	if (piece->len_bytes >= len_bytes)
		return 0;
	withdraw(o, piece);
	return o->reader->offer(o->to, e, len_bytes, piece);
}

/* *n_p: how many extents [0, used_bytes) takes. */
static int offer_heap(struct nu_offer *o, const struct nu_proclet *p, size_t used_bytes, unsigned *n_p)
{
	unsigned n = 0;

	/* A heap's extents stay as long as it does; more are added behind them. */
	for (; used_bytes; n++) {
		size_t len = part_of(&p->extents[n], used_bytes);
		int ret;

		if (n == o->n)
			o->pieces[o->n++].len_bytes = 0;
		ret = offer_extent(o, &o->pieces[n], &p->extents[n], len);
		if (ret)
			return ret;
		used_bytes -= len;
	}
	*n_p = n;
	return 0;
}

int nu_offer_ahead(struct nu_offer *o, struct nu_proclet *p, uint64_t id)
{
	size_t used = 0, mapped;
	unsigned n;
	int ret;

	if (!o->reader)
		return 0;
	nu_lock_acquire(&p->lock);
	if (p->id == id && p->state == NU_PROCLET_PRESENT) {
		used = nu_heap_used_end(p->heap);
		p->offered = true;
		o->p = p;
	}
	nu_lock_release(&p->lock);
	if (!o->p)
		return -ESTALE;
	/* Extents beyond that may be on their way in, or out again if they could not be installed. */
	mapped = __atomic_load_n(&p->mapped_bytes, __ATOMIC_ACQUIRE);
	ret = offer_heap(o, p, used < mapped ? used : mapped, &n);
	return ret ? ret : nu_fault(NU_FAULT_MOVE_AHEAD);
}

static void copy_stacks(char *to, const struct nu_handover_thread *threads, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		memcpy(to, (const void *)threads[i].low, threads[i].live_bytes);
		to += threads[i].live_bytes;
	}
}

static int offer_stacks(struct nu_offer *o, const struct nu_handover_thread *threads, unsigned n, size_t sum)
{
	int ret = nu_extent_get(sum, false, true, &o->stacks);

	if (ret) {
		o->stacks.len_bytes = 0;
		return ret;
	}
	copy_stacks(o->stacks.home, threads, n);
	return offer_extent(o, &o->stacks_piece, &o->stacks, sum);
}

/* The destination hears of as much as there is to read. Return: behind the last. */
static struct nu_offer_piece *put_pieces(const struct nu_offer *o, unsigned n, size_t used_bytes,
					 struct nu_offer_piece *to)
{
	for (unsigned i = 0; i < n; i++) {
		*to = o->pieces[i];
		if (to->len_bytes > used_bytes)
			to->len_bytes = used_bytes;
		used_bytes -= to++->len_bytes;
	}
	if (o->stacks.len_bytes)
		*to++ = o->stacks_piece;
	return to;
}

int nu_offer_make(struct nu_offer *o, const struct nu_proclet *p, const struct nu_handover *h,
		  const struct nu_handover_thread *threads, struct nu_bytes *blob_p)
{
	size_t sum = 0, len = sizeof(*h) + h->nthreads * sizeof(*threads);
	struct nu_offer_piece *pieces;
	struct nu_handover *to;
	unsigned n = 0;
	int ret = 0;

	if (o->reader) {
		for (unsigned i = 0; i < h->nthreads; i++)
			sum += threads[i].live_bytes;
		ret = offer_heap(o, p, h->used_bytes, &n);
		if (!ret && sum > NU_STACKS_INLINE_BYTES)
			ret = offer_stacks(o, threads, h->nthreads, sum);
		if (!ret)
			ret = nu_fault(NU_FAULT_MOVE_OFFERED);
		if (ret)
			return ret;
		len += o->stacks.len_bytes ? (n + 1) * sizeof(*pieces) : n * sizeof(*pieces) + sum;
	}
	to = malloc(len);
	if (!to)
		return -ENOMEM;
	*to = *h;
	memcpy(to + 1, threads, h->nthreads * sizeof(*threads));
	if (o->reader) {
		to->stacks = o->stacks.len_bytes ? NU_STACKS_OFFERED : NU_STACKS_INLINE;
		to->noffers = n;
		pieces = (void *)((char *)(to + 1) + h->nthreads * sizeof(*threads));
		pieces = put_pieces(o, n, h->used_bytes, pieces);
		if (to->stacks == NU_STACKS_INLINE)
			copy_stacks((char *)pieces, threads, h->nthreads);
	}
	*blob_p = (struct nu_bytes){to, len};
	return 0;
}

void nu_offer_end(struct nu_offer *o, bool unsure)
{
	if (!o->reader)
		return;
	if (unsure)
		o->reader->cut(o->to);
	withdraw(o, &o->stacks_piece);
	while (o->n)
		withdraw(o, &o->pieces[--o->n]);
	if (o->stacks.len_bytes)
		nu_extent_put(&o->stacks);
	o->reader = NULL;
	(void)nu_fault(NU_FAULT_MOVE_WITHDRAWN);
	if (!o->p)
		return;
	nu_lock_acquire(&o->p->lock);
	o->p->offered = false;
	nu_lock_release(&o->p->lock);
}
