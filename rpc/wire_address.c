/* SPDX-License-Identifier: MIT */
/* Worker addresses: a node's own as one blob to give away, and what the others have said. */
#include "rpc/wire_int.h"

#define ADDRESS_MAGIC	  0x3161754eu
#define ADDRESS_BYTES_MAX 65536u

/* ---- addresses: magic, cores, then length and bytes of each worker's address, 8-aligned ---- */

struct address_head {
	uint32_t magic, ncores;
};

int nu_wire_address(void **blob_p, size_t *len_p)
{
	struct address_head head = {ADDRESS_MAGIC, nu_node.cores};
	char *blob = malloc(sizeof(head));
	size_t len = sizeof(head);

	if (!blob)
		return -ENOMEM;
	memcpy(blob, &head, sizeof(head));
	for (unsigned core = 0; core < nu_node.cores; core++) {
		void *addr;
		uint64_t addr_len;
		size_t got;
		char *bigger;
		int err = nu_link->address(core, &addr, &got);

		if (err) {
			free(blob);
			return err;
		}
		addr_len = got;
		bigger = realloc(blob, len + sizeof(addr_len) + NU_ALIGN_UP(got, 8));
		if (!bigger) {
			free(addr);
			free(blob);
			return -ENOMEM;
		}
		blob = bigger;
		memset(blob + len, 0, sizeof(addr_len) + NU_ALIGN_UP(got, 8));
		memcpy(blob + len, &addr_len, sizeof(addr_len));
		memcpy(blob + len + sizeof(addr_len), addr, got);
		len += sizeof(addr_len) + NU_ALIGN_UP(got, 8);
		free(addr);
	}
	*blob_p = blob;
	*len_p = len;
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
	p->ncores = 0;
}

/* Copies one worker's address from @at; -EBADMSG if it does not fit. */
static int read_address(const char **at_p, const char *end, void **addr_p, size_t *len_p)
{
	uint64_t len;

	if ((size_t)(end - *at_p) < sizeof(len))
		return -EBADMSG;
	memcpy(&len, *at_p, sizeof(len));
	*at_p += sizeof(len);
	if (!len || len > ADDRESS_BYTES_MAX || NU_ALIGN_UP(len, 8) > (size_t)(end - *at_p))
		return -EBADMSG;
	*addr_p = malloc(len);
	if (!*addr_p)
		return -ENOMEM;
	memcpy(*addr_p, *at_p, len);
	*at_p += NU_ALIGN_UP(len, 8);
	*len_p = len;
	return 0;
}

int nu_wire_set_peer(unsigned node, const void *blob, size_t len)
{
	struct address_head head;
	const char *at = blob, *end = at + len;
	struct nu_peer *p;
	int err = 0;

	if (node >= nu_node.count)
		return -EINVAL;
	p = &nu_peers[node];
	if (p->ncores)
		return -EEXIST;
	if (len < sizeof(head))
		goto bad_blob;
	memcpy(&head, at, sizeof(head));
	at += sizeof(head);
	if (head.magic != ADDRESS_MAGIC || !head.ncores || head.ncores > NU_MAX_CORES)
		goto bad_blob;
	for (unsigned core = 0; core < head.ncores && !err; core++)
		err = read_address(&at, end, &p->addresses[core], &p->address_lens[core]);
	if (err == -EBADMSG || (!err && at != end))
		goto bad_blob;
	p->rx = err ? NULL : calloc(head.ncores, sizeof(*p->rx));
	if (!err && !p->rx)
		err = -ENOMEM;
	if (err)
		nu_peer_forget(p);
	else
		p->ncores = head.ncores;
	return err;

bad_blob:
	nu_err("node %u sent %zu bytes that are no wire address", node, len);
	nu_peer_forget(p);
	return -EBADMSG;
}
