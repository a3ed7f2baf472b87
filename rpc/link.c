/* SPDX-License-Identifier: MIT */
/*
 * Which link carries what: shared memory between nodes of a host, our TCP sockets between hosts, or one of them, or UCX,
 * for every peer if the user says so. A node makes those that it needs, and polls both.
 */
#include "rpc/wire_int.h"

#include <stdio.h>

/* A look at the second link's sockets is a system call: the first, which polls memory, must not wait for it each time. */
#define SECOND_NS 1000u

const struct nu_link_ops *nu_links[NU_LINKS_MAX + 1];
static bool by_host; /* each peer's host decides */
static const struct nu_link_ops *here_link;

static unsigned nodes_here(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nu_node.count; i++)
		n += nu_node.host_of[i] == nu_node.host_of[nu_node.self];
	return n;
}

static bool is_here(unsigned node)
{
	return nu_node.host_of[node] == nu_node.host_of[nu_node.self];
}

/* ---- start and end ---- */

/* UCX's shared memory does not survive a peer that is killed (shm.c); it is for who asks for it, or has no other. */
static const struct nu_link_ops *choose_here(const char *transport)
{
	bool ours = !strcmp(transport, "shm") || (!strcmp(transport, "auto") && !getenv("UCX_TLS"));

	return ours && nu_shm_is_possible() ? &nu_shm_link : &nu_ucx_link;
}

static int link_start(const struct nu_link_ops *l, const struct nu_wire_options *o, enum nu_reach reach)
{
	unsigned n = nu_links[0] ? 1 : 0;
	int err;

	nu_links[n] = l; /* first: what is begun is taken down by nu_links_fini() */
	err = l->init(o, reach);
	for (unsigned core = 0; !err && core < nu_node.cores; core++)
		err = l->worker_create(core);
	return err;
}

int nu_links_init(const struct nu_wire_options *o)
{
	const char *transport = o->transport ? o->transport : "auto";
	bool several = nu_node.hosts > 1;
	int err = 0;

	by_host = several && !strcmp(transport, "auto");
	if (several && !strcmp(transport, "shm")) {
		nu_err("transport shm: nodes on %u hosts share no memory; \"auto\" uses it within each",
		       nu_node.hosts);
		return -EINVAL;
	}
	/* UCX 1.13 ends the process when a connection of its TCP breaks while it is being made: ours is in its place. */
	if (!strcmp(transport, "tcp"))
		return link_start(&nu_tcp_link, o, NU_REACH_ALL);
	here_link = choose_here(transport);
	if (!by_host)
		return link_start(here_link, o, several ? NU_REACH_ALL : NU_REACH_HOST);
	if (nodes_here() > 1)
		err = link_start(here_link, o, NU_REACH_HOST);
	return err ? err : link_start(&nu_tcp_link, o, NU_REACH_ALL);
}

void nu_links_fini(void)
{
	for (unsigned i = 0; i < NU_LINKS_MAX && nu_links[i]; i++) {
		for (unsigned core = 0; nu_wire_cores && core < nu_node.cores; core++)
			nu_links[i]->worker_destroy(core);
		nu_links[i]->fini();
		nu_links[i] = NULL;
	}
}

/* ---- the choice ---- */

const struct nu_link_ops *nu_link_choose(unsigned node, uint32_t theirs)
{
	const struct nu_link_ops *l = nu_links[0];
	const char *why = "--transport says so", *others = "";

	if (by_host && node != nu_node.self) {
		bool here = is_here(node);

		l = here ? here_link : &nu_tcp_link;
		why = here ? "it is on this host" : "it is on another host";
		others = here ? "; TCP is slower"
			      : "; shared memory ends at the host, UCX over RDMA is used if --transport asks "
				"for it";
	} else if (nu_node.hosts <= 1) {
		why = "all nodes are on this host";
	}
	if (!(theirs & 1u << l->id)) {
		nu_err("node %u is to be reached by %s since %s, and does not offer it", node, l->name, why);
		return NULL;
	}
	if (node != nu_node.self)
		nu_info("node %u on host %u: %s, since %s%s", node, nu_node.host_of[node], l->name, why,
			others);
	return l;
}

/* ---- progress ---- */

unsigned nu_second_progress(unsigned core)
{
	struct wire_core *wc = &nu_wire_cores[core];
	uint64_t now = nu_mono_ns();

	if (now - wc->second_ns < SECOND_NS && !wc->look)
		return 0;
	wc->look = false;
	wc->second_ns = now;
	return nu_links[1]->progress(core);
}

int nu_links_arm(unsigned core)
{
	nu_wire_cores[core].look = true;
	return nu_links[0]->arm(core);
}

int nu_second_arm(unsigned core)
{
	return nu_links[1]->arm(core);
}

void nu_links_carried(unsigned core)
{
	for (unsigned i = 0; nu_links[i]; i++)
		if (nu_links[i]->carried)
			nu_links[i]->carried(core);
}

int nu_links_drain(unsigned core, uint64_t timeout_ns)
{
	int ret = 0;

	for (unsigned i = 0; nu_links[i]; i++) {
		int err = nu_links[i]->drain ? nu_links[i]->drain(core, timeout_ns) : 0;

		ret = ret ? ret : err;
	}
	return ret;
}
