/* SPDX-License-Identifier: MIT */
/* Worker addresses: a node's own, of each of its links, as one blob to give away, and what the others have said. */
#include "rpc/wire_int.h"

#define ADDRESS_MAGIC	  0x3261754eu
#define ADDRESS_BYTES_MAX 65536u

/*
 * Magic, cores, links; for each link its id, then for each core length and bytes of the worker's address, padded to 8.
 * A reader skips links that it does not know.
 */
struct address_head {
	uint32_t magic, ncores, nlinks, spare;
};

struct link_head {
	uint32_t id, spare;
};

struct blob {
	char *bytes;
	size_t len;
};

static int append(struct blob *b, const void *bytes, size_t len)
{
	size_t padded = NU_ALIGN_UP(len, 8);
	char *bigger = realloc(b->bytes, b->len + padded);

	if (!bigger)
		return -ENOMEM;
	b->bytes = bigger;
	memcpy(b->bytes + b->len, bytes, len);
	memset(b->bytes + b->len + len, 0, padded - len);
	b->len += padded;
	return 0;
}

static int append_worker(struct blob *b, const struct nu_link_ops *l, unsigned core)
{
	void *addr;
	size_t got;
	uint64_t len;
	int err = l->address(core, &addr, &got);

	if (err)
		return err;
	len = got;
	err = append(b, &len, sizeof(len));
	if (!err)
		err = append(b, addr, got);
	free(addr);
	return err;
}

int nu_wire_address(void **blob_p, size_t *len_p)
{
	struct address_head head = {.magic = ADDRESS_MAGIC, .ncores = nu_node.cores};
	struct blob b = {NULL, 0};
	int err;

	while (nu_links[head.nlinks])
		head.nlinks++;
	err = append(&b, &head, sizeof(head));
	for (unsigned i = 0; i < head.nlinks && !err; i++) {
		struct link_head lh = {.id = nu_links[i]->id};

		err = append(&b, &lh, sizeof(lh));
		for (unsigned core = 0; core < nu_node.cores && !err; core++)
			err = append_worker(&b, nu_links[i], core);
	}
	if (err) {
		free(b.bytes);
		return err;
	}
	*blob_p = b.bytes;
	*len_p = b.len;
	return 0;
}

void nu_peer_forget(struct nu_peer *p)
{
	for (unsigned i = 0; i < NU_MAX_CORES; i++) {
		free(p->addresses[i]);
		p->addresses[i] = NULL;
	}
	free(p->rx);
	p->rx = NULL;
	p->link = NULL;
	p->ncores = 0;
}

/* ---- reading ---- */

struct span {
	const char *at;
	size_t len;
};

struct parsed {
	struct address_head head;
	uint32_t ids[NU_LINKS_MAX];
	struct span workers[NU_LINKS_MAX][NU_MAX_CORES];
};

static bool take(struct span *from, void *to, size_t len)
{
	if (from->len < len)
		return false;
	memcpy(to, from->at, len);
	from->at += len;
	from->len -= len;
	return true;
}

static bool take_worker(struct span *from, struct span *worker)
{
	uint64_t len;

	if (!take(from, &len, sizeof(len)) || !len || len > ADDRESS_BYTES_MAX ||
	    NU_ALIGN_UP(len, 8) > from->len)
		return false;
	*worker = (struct span){from->at, len};
	from->at += NU_ALIGN_UP(len, 8);
	from->len -= NU_ALIGN_UP(len, 8);
	return true;
}

static bool parse(struct span from, struct parsed *d)
{
	const struct address_head *h = &d->head;

	if (!take(&from, &d->head, sizeof(d->head)) || h->magic != ADDRESS_MAGIC || !h->ncores ||
	    h->ncores > NU_MAX_CORES || !h->nlinks || h->nlinks > NU_LINKS_MAX)
		return false;
	for (unsigned i = 0; i < h->nlinks; i++) {
		struct link_head lh;

		if (!take(&from, &lh, sizeof(lh)) || lh.id > 31)
			return false;
		d->ids[i] = lh.id;
		for (unsigned core = 0; core < h->ncores; core++) {
			if (!take_worker(&from, &d->workers[i][core]))
				return false;
		}
	}
	return !from.len;
}

/* Takes what @d says of @link, which it has. */
static int keep(unsigned node, const struct nu_link_ops *link, const struct parsed *d)
{
	struct nu_peer *p = &nu_peers[node];
	unsigned i = 0;

	while (d->ids[i] != link->id)
		i++;
	p->rx = calloc(d->head.ncores, sizeof(*p->rx));
	if (!p->rx)
		return -ENOMEM;
	for (unsigned core = 0; core < d->head.ncores; core++) {
		const struct span *w = &d->workers[i][core];
		int err = link->check && node != nu_node.self ? link->check(node, w->at, w->len) : 0;

		if (err)
			return err;
		p->addresses[core] = malloc(w->len);
		if (!p->addresses[core])
			return -ENOMEM;
		memcpy(p->addresses[core], w->at, w->len);
		p->address_lens[core] = w->len;
	}
	p->link = link;
	p->ncores = d->head.ncores;
	return 0;
}

int nu_wire_set_peer(unsigned node, const void *blob, size_t len)
{
	const struct nu_link_ops *link;
	struct parsed d;
	uint32_t offered = 0;
	int err;

	if (node >= nu_node.count)
		return -EINVAL;
	if (nu_peers[node].ncores)
		return -EEXIST;
	if (!parse((struct span){blob, len}, &d)) {
		nu_err("node %u sent %zu bytes that are no wire address", node, len);
		return -EBADMSG;
	}
	for (unsigned i = 0; i < d.head.nlinks; i++)
		offered |= 1u << d.ids[i];
	link = nu_link_choose(node, offered);
	if (!link)
		return -EPROTO;
	err = keep(node, link, &d);
	if (err) {
		nu_peer_forget(&nu_peers[node]);
		return err;
	}
	for (unsigned core = 0; core < nu_node.cores && node != nu_node.self; core++) {
		nu_wire_cores[core].conns[node].link = link;
		nu_wire_cores[core].conns[node].lasting = link->lasting;
	}
	return 0;
}

int nu_wire_peer_address(unsigned node, void *was_p, size_t len, const void *now)
{
	struct nu_peer *p = &nu_peers[node];

	if (node >= nu_node.count || !p->ncores || p->address_lens[0] != len)
		return -EINVAL;
	if (was_p)
		memcpy(was_p, p->addresses[0], len);
	if (now)
		memcpy(p->addresses[0], now, len);
	return 0;
}
