/* SPDX-License-Identifier: MIT */
/*
 * Reader `am-offer`: a checking stand-in for `verbs` on machines without a device. Offers have keys, and reads name the
 * pool's addresses as a device's do; but messages carry the bytes, and the source looks at each read: whether exactly
 * that was offered, to that node, and not withdrawn. What is refused is counted and said. It is chosen by name alone.
 */
#include "rdma/rdma.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)256 << 10)
#define RETRY_US    20u

struct entry {
	struct nu_list link;
	struct nu_offer_piece piece;
	char *at; /* where the pages are: the home may be empty */
	unsigned to, readers;
	bool withdrawn;
};

static struct nu_lock lock; /* leaf: the list, readers, withdrawn */
static struct nu_list entries = {&entries, &entries};
static uint32_t last_key;

/* ---- source ---- */

static int am_offer(unsigned to, const struct nu_extent *e, size_t len_bytes, struct nu_offer_piece *piece_p)
{
	struct entry *n = malloc(sizeof(*n));

	if (!n)
		return -ENOMEM;
	nu_lock_acquire(&lock);
	last_key = last_key * 1664525u + 1013904223u; /* each once in 2^32, and none is another's neighbour */
	*n = (struct entry){.piece = {(uint64_t)e->home, len_bytes, last_key, to}, .at = e->at, .to = to};
	nu_list_add_tail(&entries, &n->link);
	nu_lock_release(&lock);
	*piece_p = n->piece;
	return 0;
}

static struct entry *find(const struct nu_offer_piece *piece, unsigned to)
{
	struct nu_list *pos;

	nu_list_for_each (pos, &entries) {
		struct entry *e = nu_list_entry(pos, struct entry, link);

		if (e->piece.rkey == piece->rkey && e->to == to && piece->lane == e->piece.lane &&
		    piece->address >= e->piece.address &&
		    piece->address - e->piece.address <= e->piece.len_bytes &&
		    piece->len_bytes <= e->piece.len_bytes - (piece->address - e->piece.address))
			return e;
	}
	return NULL;
}

static void am_withdraw(unsigned to, const struct nu_offer_piece *piece)
{
	struct entry *e;
	bool busy;

	nu_lock_acquire(&lock);
	e = find(piece, to);
	NU_ASSERT(e && !e->withdrawn);
	e->withdrawn = true;
	nu_lock_release(&lock);
	for (;;) {
		nu_lock_acquire(&lock);
		busy = e->readers != 0;
		if (!busy)
			nu_list_del(&e->link);
		nu_lock_release(&lock);
		if (!busy)
			break;
		nu_sleep_us(RETRY_US);
	}
	free(e);
}

static void am_cut(unsigned peer)
{
	/* The copies are made here: withdrawing waits for those that are under way. */
}

struct read_args {
	struct nu_offer_piece piece;
	uint64_t by;
};

static void read_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct read_args *a = args;
	struct entry *e;

	nu_lock_acquire(&lock);
	e = a->piece.len_bytes <= CHUNK_BYTES ? find(&a->piece, (unsigned)a->by) : NULL;
	if (e && e->withdrawn)
		e = NULL;
	if (e)
		e->readers++;
	nu_lock_release(&lock);
	if (!e) {
		nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
		nu_warn("refused to read %lu bytes at %#lx to node %lu: not offered to it with key %#x",
			(unsigned long)a->piece.len_bytes, (unsigned long)a->piece.address,
			(unsigned long)a->by, a->piece.rkey);
		return;
	}
	nu_out_bytes(out, e->at + (a->piece.address - e->piece.address), a->piece.len_bytes);
	nu_lock_acquire(&lock);
	e->readers--;
	nu_lock_release(&lock);
}
__attribute__((section("nu_methods"), used)) static const struct nu_method read_method = {
	.class_name = "node",
	.name = "read_offered",
	.run = read_run,
	.args_bytes = sizeof(struct read_args),
	.result_kind = NU_RESULT_SPAN,
	.result_item_bytes = 1,
	.magic = NU_METHOD_MAGIC,
	.cls = &nu_node_class,
};

/* ---- destination ---- */

static int am_probe(unsigned peer, char *why, size_t why_len)
{
	return 0;
}

static int read_piece(unsigned peer, const struct nu_piece *p)
{
	for (size_t done = 0; done < p->len_bytes;) {
		size_t left = p->len_bytes - done, len = left < CHUNK_BYTES ? left : CHUNK_BYTES;
		struct read_args a = {{p->remote + done, len, p->rkey, p->lane}, nu_node.self};
		struct nu_bytes got = {NULL, 0};
		int ret = nu_call((struct nu_ref){nu_id_of_node(peer)}, &read_method, &a, &got);

		if (!ret && got.len_bytes == len)
			memcpy((char *)p->at + done, got.data, len);
		else if (!ret)
			ret = -EACCES;
		nu_proclet_free(nu_thread_self()->proclet, (void *)got.data);
		if (ret)
			return ret;
		done += len;
	}
	return 0;
}

static int am_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	int ret = 0;

	for (unsigned i = 0; i < npieces && !ret; i++)
		ret = read_piece(peer, &pieces[i]);
	return ret;
}

const struct nu_reader_ops nu_reader_am_offer = {
	.name = "am-offer",
	.bytes = NU_STAT_READ_BYTES_AM,
	.by_offer = true,
	.probe = am_probe,
	.read = am_read,
	.offer = am_offer,
	.withdraw = am_withdraw,
	.cut = am_cut,
};
