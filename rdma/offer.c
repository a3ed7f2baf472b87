/* SPDX-License-Identifier: MIT */
/*
 * What a source makes readable for one hand-over, where the destination reads by offers: the pool's extents under the heap,
 * each with a key, and the live parts of stacks. Stacks are not in the pool, and so not known to a device: few bytes of
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

static int offer_extent(struct nu_offer *o, const struct nu_extent *e, size_t len_bytes)
{
	int ret = o->reader->offer(o->to, e, len_bytes, &o->pieces[o->n]);

	if (!ret)
		o->n++;
	return ret;
}

static int offer_heap(struct nu_offer *o, const struct nu_proclet *p, size_t used_bytes)
{
	int ret = 0;

	for (unsigned i = 0; i < p->nextents && used_bytes && !ret; i++) {
		size_t len = p->extents[i].len_bytes < used_bytes ? p->extents[i].len_bytes : used_bytes;

		ret = offer_extent(o, &p->extents[i], len);
		used_bytes -= len;
	}
	return ret;
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
	return offer_extent(o, &o->stacks, sum);
}

int nu_offer_make(struct nu_offer *o, const struct nu_proclet *p, const struct nu_handover *h,
		  const struct nu_handover_thread *threads, struct nu_bytes *blob_p)
{
	size_t sum = 0, len = sizeof(*h) + h->nthreads * sizeof(*threads);
	struct nu_handover *to;
	char *at;
	int ret = 0;

	if (o->reader) {
		for (unsigned i = 0; i < h->nthreads; i++)
			sum += threads[i].live_bytes;
		ret = offer_heap(o, p, h->used_bytes);
		if (!ret && sum > NU_STACKS_INLINE_BYTES)
			ret = offer_stacks(o, threads, h->nthreads, sum);
		if (!ret)
			ret = nu_fault(NU_FAULT_MOVE_OFFERED);
		if (ret)
			return ret;
		len += o->n * sizeof(o->pieces[0]) + (o->stacks.len_bytes ? 0 : sum);
	}
	to = malloc(len);
	if (!to)
		return -ENOMEM;
	*to = *h;
	at = (char *)(to + 1);
	memcpy(at, threads, h->nthreads * sizeof(*threads));
	at += h->nthreads * sizeof(*threads);
	if (o->reader) {
		to->stacks = o->stacks.len_bytes ? NU_STACKS_OFFERED : NU_STACKS_INLINE;
		to->noffers = o->n - (to->stacks == NU_STACKS_OFFERED);
		memcpy(at, o->pieces, o->n * sizeof(o->pieces[0]));
		at += o->n * sizeof(o->pieces[0]);
		if (to->stacks == NU_STACKS_INLINE)
			copy_stacks(at, threads, h->nthreads);
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
	while (o->n)
		o->reader->withdraw(o->to, &o->pieces[--o->n]);
	if (o->stacks.len_bytes)
		nu_extent_put(&o->stacks);
	o->reader = NULL;
	(void)nu_fault(NU_FAULT_MOVE_WITHDRAWN);
}
