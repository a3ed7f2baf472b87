/* SPDX-License-Identifier: MIT */
/*
 * What a peer says its addresses are. Input: which peer, one on this host or one on another, and the blob, with a right
 * head in front of it or without.
 */
#include "fuzz.h"

#include "rpc/wire_int.h"

/* In place of UCX, which takes its own addresses apart and is not chosen here. */
static int link_init(const struct nu_wire_options *o, enum nu_reach reach)
{
	return 0;
}
static void link_fini(void)
{
}
static int link_create(unsigned core)
{
	return 0;
}
static void link_destroy(unsigned core)
{
}
static int link_address(unsigned core, void **addr_p, size_t *len_p)
{
	*addr_p = strdup("here");
	*len_p = 4;
	return *addr_p ? 0 : -ENOMEM;
}
const struct nu_link_ops nu_ucx_link = {
	.name = "rig",
	.id = 1,
	.init = link_init,
	.fini = link_fini,
	.worker_create = link_create,
	.worker_destroy = link_destroy,
	.address = link_address,
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct nu_wire_options o = {.transport = "auto", .address = "127.0.0.1"};

	nu_node.count = 3;
	nu_node.cores = 2;
	nu_node.hosts = 2;
	nu_node.host_of[2] = 1;
	FUZZ_CHECK(!nu_wire_init(&o));
	return 0;
}

/* Whether what was kept is what a connection may be made with. */
static void check_peer(unsigned node)
{
	const struct nu_peer *p = &nu_peers[node];

	FUZZ_CHECK(p->ncores && p->ncores <= NU_MAX_CORES && p->rx);
	FUZZ_CHECK(p->link == (node == 2 ? &nu_tcp_link : &nu_shm_link));
	for (unsigned core = 0; core < p->ncores; core++) {
		FUZZ_CHECK(p->addresses[core] && p->address_lens[core]);
		FUZZ_CHECK(!p->link->check(node, p->addresses[core], p->address_lens[core]));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint32_t head[] = {0x3261754e, 1, 1, 0};
	struct in in = {data, len};
	uint8_t how = in_u8(&in);
	unsigned node = 1 + how % 2;
	size_t used = how & 2 ? sizeof(head) : 0, total = used + in.left;
	char *blob = malloc(total + !total); /* no byte more: a sanitizer sees who reads on */

	FUZZ_CHECK(blob);
	if (used)
		memcpy(blob, head, used);
	in_take(&in, blob + used, total - used);
	if (!nu_wire_set_peer(node, blob, total)) {
		check_peer(node);
		FUZZ_CHECK(nu_wire_set_peer(node, blob, total) == -EEXIST);
	}
	nu_peer_forget(&nu_peers[node]);
	free(blob);
	return 0;
}
