/* SPDX-License-Identifier: MIT */
/*
 * What a destination reads, and to where. The pages of the heap are in their segment already. Most readers read it in
 * place, as one piece; a device knows only the pool's addresses, and reads by offers from extents into extents, whose
 * boundaries are not the same on both sides.
 */
#include "core/fault.h"
#include "rdma/move_int.h"

bool nu_handed_parse(const void *blob, size_t len, struct nu_handed *d)
{
	const struct nu_handover *h = blob;
	size_t rest = len - sizeof(*h), n;

	if (len < sizeof(*h) || h->from >= nu_node.count || h->calls_active > h->nthreads ||
	    h->nthreads > rest / sizeof(*d->threads) || h->noffers > NU_EXTENTS_MAX ||
	    h->stacks > NU_STACKS_OFFERED || !h->noffers != (h->stacks == NU_STACKS_IN_PLACE))
		return false;
	*d = (struct nu_handed){.h = h, .threads = (const struct nu_handover_thread *)(h + 1)};
	for (unsigned i = 0; i < h->nthreads; i++) {
		const struct nu_handover_thread *t = &d->threads[i];

		if (!nu_stack_may_hold((struct nu_thread *)t->thread, t->low, t->live_bytes))
			return false;
		d->stacks_bytes += t->live_bytes;
	}
	d->offers = (const struct nu_offer_piece *)(d->threads + h->nthreads);
	rest -= h->nthreads * sizeof(*d->threads);
	n = h->noffers + (h->stacks == NU_STACKS_OFFERED);
	if (n * sizeof(*d->offers) > rest)
		return false;
	rest -= n * sizeof(*d->offers);
	d->stacks = (const char *)(d->offers + n);
	return rest == (h->stacks == NU_STACKS_INLINE ? d->stacks_bytes : 0);
}

/* ---- in place ---- */

static int read_in_place(const struct nu_handed *d)
{
	const struct nu_handover *h = d->h;
	struct nu_piece *pieces = malloc((1 + (size_t)h->nthreads) * sizeof(*pieces));
	uint64_t base = (uint64_t)nu_seg_addr(nu_id_seg(h->id));
	unsigned n = 0;
	int ret;

	if (!pieces)
		return -ENOMEM;
	pieces[n++] = (struct nu_piece){(void *)base, base, h->used_bytes};
	for (unsigned i = 0; i < h->nthreads; i++)
		pieces[n++] = (struct nu_piece){(void *)d->threads[i].low, d->threads[i].low,
						d->threads[i].live_bytes};
	ret = nu_reader_read((unsigned)h->from, pieces, n);
	free(pieces);
	return ret;
}

/* ---- by offers ---- */

#define PIECES_MAX (2 * NU_EXTENTS_MAX + 2)

struct row {
	struct nu_piece pieces[PIECES_MAX];
	unsigned n;
};

/* A row of offers to a row of extents: cut where either ends. */
static bool heap_pieces(const struct nu_proclet *p, const struct nu_handed *d, struct row *r)
{
	uint64_t left = d->h->used_bytes, from = 0, to = 0;
	unsigned o = 0, e = 0;

	while (left) {
		const struct nu_offer_piece *src = &d->offers[o];
		uint64_t len = left;

		if (o == d->h->noffers || e == p->nextents || from >= src->len_bytes)
			return false;
		if (len > src->len_bytes - from)
			len = src->len_bytes - from;
		if (len > p->extents[e].len_bytes - to)
			len = p->extents[e].len_bytes - to;
		r->pieces[r->n++] = (struct nu_piece){
			(char *)p->extents[e].home + to, src->address + from, len, src->rkey, src->lane,
			(char *)p->extents[e].at + to};
		from += len;
		to += len;
		left -= len;
		if (from == src->len_bytes) {
			o++;
			from = 0;
		}
		if (to == p->extents[e].len_bytes) {
			e++;
			to = 0;
		}
	}
	return o == d->h->noffers && !from;
}

static void put_stacks(const struct nu_handed *d, const char *from)
{
	for (unsigned i = 0; i < d->h->nthreads; i++) {
		memcpy((void *)d->threads[i].low, from, d->threads[i].live_bytes);
		from += d->threads[i].live_bytes;
	}
}

static int read_offered(struct nu_proclet *p, const struct nu_handed *d)
{
	const struct nu_handover *h = d->h;
	bool offered = h->stacks == NU_STACKS_OFFERED;
	struct nu_extent stacks = {.len_bytes = 0};
	struct row r = {.n = 0};
	int ret;

	if (!heap_pieces(p, d, &r))
		return -EBADMSG;
	if (offered) {
		const struct nu_offer_piece *src = &d->offers[h->noffers];

		if (src->len_bytes != d->stacks_bytes || !d->stacks_bytes)
			return -EBADMSG;
		ret = nu_extent_get(d->stacks_bytes, false, true, &stacks);
		if (ret)
			return ret;
		r.pieces[r.n++] = (struct nu_piece){stacks.home, src->address, src->len_bytes,
						    src->rkey,	 src->lane,    stacks.home};
	}
	ret = nu_reader_read((unsigned)h->from, r.pieces, r.n);
	if (!ret)
		put_stacks(d, offered ? stacks.home : d->stacks);
	if (offered)
		nu_extent_put(&stacks);
	return ret;
}

int nu_pull(struct nu_proclet *p, const struct nu_handed *d)
{
	bool by_offer = nu_reader_offer_kind((unsigned)d->h->from) != 0;

	if (by_offer != (d->h->stacks != NU_STACKS_IN_PLACE))
		return -EBADMSG;
	return by_offer ? read_offered(p, d) : read_in_place(d);
}
