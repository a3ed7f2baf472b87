/* SPDX-License-Identifier: MIT */
/*
 * RDMA: a device is opened, its limits are made options, and peers are told where it listens.
 *
 * What devices differ in, and where that is dealt with:
 *
 *	ConnectX (mlx5)	RoCE v2 by the GID of the chosen address (device_choose.c; rdmacm goes by default_roce_mode);
 *			16 READs under way on a queue pair (max_qp_init_rd_atom, agreed on by connecting); windows of
 *			type 2B; a window is made by a firmware command, so they are kept (verbs_offer.c)
 *	InfiniBand	no GRH within a subnet, and the path's MTU from the subnet manager: rdmacm's doing, taken over by
 *			rdma_init_qp_attr(); addresses are IP over InfiniBand's
 *	iWARP		the sink of a READ is written to by the peer's device: REMOTE_WRITE for the pool's regions and for
 *			the reader's queue pairs; the side that connects must send first, which is the reader with its first
 *			READ; one local piece a READ (max_sge_rd); the driver changes the queue pair's states
 *	rxe		no inline data (READs need none); 128 READs under way; posting is a system call; a queue pair is held
 *			by windows that are bound on it (they go first: nu_lane_cut()); its socket is in the initial network
 *			namespace: other namespaces of that machine are no other hosts to it
 *	siw		as iWARP
 */
#include "rdma/verbs_int.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#define QUEUE_PAIRS 2u
#define READ_BYTES  ((unsigned)NU_MIB)
#define TIMEOUT	    14u /* 67 ms */
#define RETRY	    7u
#define RNR_RETRY   7u /* for ever */
#define SPIN_US	    50u

#define CARD_MAGIC   0x6472636eu
#define CARD_VERSION 1u

struct card {
	uint32_t magic, version;
	uint64_t nonce;
	uint8_t transport; /* enum nu_rdma_transport */
	uint8_t family;	   /* 4 or 6 */
	uint16_t port;	   /* network order */
	uint8_t address[16];
	char device[64];
};

struct nu_verbs nu_verbs = {.wake_fd = -1};
struct nu_verbs_atomic_counts nu_verbs_count;
static enum nu_rdma_transport transport;

/* ---- opening ---- */

static int log_error(const char *what)
{
	int err = nu_sys_errno ? nu_sys_errno : ENODEV;

	nu_err("device %s: %s: %s", nu_verbs.device, what, strerror(err));
	return -err;
}

static void say_none(const struct nu_rdma_options *o, const char *why)
{
	if (o->why)
		snprintf(o->why, o->why_bytes, "%s", why);
	else
		nu_info("no RDMA: %s", why);
}

/* Which device, port and address: copied, since the list goes. */
static int choose(const struct nu_rdma_options *o, const char *wished, char address[46])
{
	struct nu_rdma_devices list;
	struct nu_rdma_choice choice;
	char why[256] = "";
	int ret = nu_rdma_devices_list(&list, why, sizeof(why));

	if (ret) {
		say_none(o, why);
		return -ENODEV;
	}
	ret = nu_rdma_choose(&list, o, wished, &choice);
	if (ret) {
		say_none(o, choice.reason);
	} else {
		const struct nu_rdma_candidate *c = choice.chosen;

		nu_info("RDMA by %s", choice.reason);
		memcpy(nu_verbs.device, c->device->name, sizeof(nu_verbs.device));
		memcpy(nu_verbs.netdev, c->gid->netdev, sizeof(nu_verbs.netdev));
		memcpy(address, c->gid->address, sizeof(c->gid->address));
		nu_verbs.port = c->port->number;
		nu_verbs.gid_index = c->gid->index;
		transport = c->port->transport;
		nu_verbs.iwarp = c->device->read_needs_rw;
	}
	nu_rdma_choice_free(&choice);
	nu_rdma_devices_free(&list);
	return ret;
}

static unsigned or_default(unsigned v, unsigned other)
{
	return v ? v : other;
}

/* The options as they are, from what was asked for and what the device can. */
static int settle_options(const struct nu_rdma_options *asked)
{
	const unsigned can = IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B;
	struct nu_rdma_options *o = &nu_verbs.o;
	unsigned most = (unsigned)nu_verbs.attr.max_qp_init_rd_atom;
	int sge = nu_verbs.attr.max_sge_rd > 0 ? nu_verbs.attr.max_sge_rd : nu_verbs.attr.max_sge;

	*o = *asked;
	o->queue_pairs = or_default(o->queue_pairs, QUEUE_PAIRS);
	o->read_bytes = or_default(o->read_bytes, READ_BYTES);
	o->timeout = or_default(o->timeout, TIMEOUT);
	o->retry = or_default(o->retry, RETRY);
	o->rnr_retry = or_default(o->rnr_retry, RNR_RETRY);
	o->spin_us = or_default(o->spin_us, SPIN_US);
	if (most > UINT8_MAX)
		most = UINT8_MAX; /* what messages of connections can say */
	if (o->depth > most)
		nu_warn("device %s has %u READs under way on a queue pair, not %u", nu_verbs.device, most,
			o->depth);
	o->depth = o->depth && o->depth < most ? o->depth : most;
	nu_verbs.sge = sge < 1 ? 1 : sge > (int)NU_LANE_SGE_MAX ? NU_LANE_SGE_MAX : (unsigned)sge;
	nu_verbs.windows = o->windows == NU_WINDOWS_ON ||
			   (o->windows == NU_WINDOWS_AUTO && NU_WINDOWS_BY_DEFAULT &&
			    nu_verbs.attr.device_cap_flags & can && nu_verbs.attr.max_mw > 0);
	if (o->windows == NU_WINDOWS_ON && !(nu_verbs.attr.device_cap_flags & can)) {
		nu_err("device %s has no memory windows of type 2 (option windows=on)", nu_verbs.device);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* Nodes that fork would take the pages of regions with them. */
static void look_at_fork(void)
{
	if (ibv_is_fork_initialized() != IBV_FORK_UNNEEDED)
		nu_info("this kernel does not copy registered memory for a forked child (Linux 5.12 does): "
			"programs "
			"that fork in a node should only exec then");
}

static int open_device(const struct nu_rdma_options *o, const char *address)
{
	int ret;

	nu_verbs.events = rdma_create_event_channel();
	if (!nu_verbs.events)
		return log_error("rdma_create_event_channel (/dev/infiniband/rdma_cm, module rdma_ucm?)");
	ret = nu_cm_listen(address);
	if (ret)
		return ret;
	nu_verbs.context = nu_verbs.listener->verbs;
	if (!nu_verbs.context ||
	    strcmp(ibv_get_device_name(nu_verbs.context->device), nu_verbs.device) != 0) {
		nu_err("rdmacm takes %s for %s, not for %s", address,
		       nu_verbs.context ? ibv_get_device_name(nu_verbs.context->device) : "no device",
		       nu_verbs.device);
		nu_verbs.context = NULL;
		return -ENODEV;
	}
	if (ibv_query_device(nu_verbs.context, &nu_verbs.attr))
		return log_error("ibv_query_device");
	ret = settle_options(o);
	if (ret)
		return ret;
	nu_verbs.pd = ibv_alloc_pd(nu_verbs.context);
	if (!nu_verbs.pd)
		return log_error("ibv_alloc_pd");
	nu_verbs.completions = ibv_create_comp_channel(nu_verbs.context);
	if (!nu_verbs.completions)
		return log_error("ibv_create_comp_channel");
	nu_verbs.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (nu_verbs.wake_fd < 0)
		return log_error("eventfd");
	look_at_fork();
	return nu_regions_try();
}

static void make_key(uint64_t key)
{
	static const char purpose[] = "queue pairs";
	uint8_t half[16] = {0};
	uint64_t other;

	memcpy(half, &key, sizeof(key));
	other = nu_siphash(half, purpose, sizeof(purpose));
	memcpy(nu_verbs.key, &key, sizeof(key));
	memcpy(nu_verbs.key + sizeof(key), &other, sizeof(other));
}

int nu_verbs_open(const struct nu_rdma_options *o, const char *address, uint64_t key)
{
	static const struct nu_rdma_options defaults = {.gid_index = -1};
	char at[46];
	int ret;

	if (nu_verbs.open)
		return -EINVAL;
	o = o ? o : &defaults;
	make_key(key);
	atomic_store(&nu_verbs.removed, false);
	if (getrandom(&nu_verbs.nonce, sizeof(nu_verbs.nonce), 0) != sizeof(nu_verbs.nonce))
		return -nu_sys_errno;
	ret = choose(o, address, at);
	if (!ret)
		ret = open_device(o, at);
	if (!ret)
		ret = nu_cm_start();
	if (ret) {
		nu_verbs_close();
		return ret;
	}
	nu_verbs.open = true;
	nu_info("RDMA by %s: %u queue pairs to read each node by, %u READs of up to %u KiB under way on "
		"each, %s",
		nu_verbs.device, nu_verbs.o.queue_pairs, nu_verbs.o.depth, nu_verbs.o.read_bytes >> 10,
		nu_verbs.windows ? "memory windows for what is offered" : "offers by the keys of chunks");
	return 0;
}

void nu_verbs_stop(void)
{
	nu_cm_stop();
}

void nu_verbs_close(void)
{
	nu_cm_stop();
	nu_cm_close();
	nu_windows_close();
	nu_regions_close();
	nu_verbs.open = false;
	if (nu_verbs.completions)
		ibv_destroy_comp_channel(nu_verbs.completions);
	if (nu_verbs.pd && ibv_dealloc_pd(nu_verbs.pd))
		nu_warn("device %s: its protection domain is still in use", nu_verbs.device);
	if (nu_verbs.listener)
		rdma_destroy_id(nu_verbs.listener);
	if (nu_verbs.events)
		rdma_destroy_event_channel(nu_verbs.events);
	if (nu_verbs.wake_fd >= 0)
		close(nu_verbs.wake_fd);
	nu_verbs.completions = NULL;
	nu_verbs.pd = NULL;
	nu_verbs.listener = NULL;
	nu_verbs.context = NULL;
	nu_verbs.events = NULL;
	nu_verbs.wake_fd = -1;
	memset(&nu_verbs.address, 0, sizeof(nu_verbs.address));
	explicit_bzero(nu_verbs.key, sizeof(nu_verbs.key));
	for (unsigned n = 0; n < NU_MAX_NODES; n++)
		free(atomic_exchange(&nu_verbs.peers[n], NULL));
}

const char *nu_verbs_device(void)
{
	static char text[80];

	snprintf(text, sizeof(text), "%s:%u", nu_verbs.device, nu_verbs.port);
	return nu_verbs.open ? text : NULL;
}

/* ---- peers ---- */

int nu_verbs_card(void **blob_p, size_t *len_p)
{
	const struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&nu_verbs.address;
	const struct sockaddr_in *v4 = (struct sockaddr_in *)&nu_verbs.address;
	struct card *c;

	if (!nu_verbs.open)
		return -ENODEV;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->magic = CARD_MAGIC;
	c->version = CARD_VERSION;
	c->nonce = nu_verbs.nonce;
	c->transport = (uint8_t)transport;
	memcpy(c->device, nu_verbs.device, sizeof(c->device));
	if (nu_verbs.address.ss_family == AF_INET6) {
		c->family = 6;
		c->port = v6->sin6_port;
		memcpy(c->address, &v6->sin6_addr, 16);
	} else {
		c->family = 4;
		c->port = v4->sin_port;
		memcpy(c->address, &v4->sin_addr, 4);
	}
	*blob_p = c;
	*len_p = sizeof(*c);
	return 0;
}

static bool read_card(struct nu_verbs_peer *p, const void *blob, size_t len)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&p->address;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&p->address;
	struct card c;

	if (len != sizeof(c))
		return false;
	memcpy(&c, blob, sizeof(c));
	if (c.magic != CARD_MAGIC || c.version != CARD_VERSION || (c.family != 4 && c.family != 6) ||
	    !memchr(c.device, 0, sizeof(c.device)) || !c.nonce)
		return false;
	p->nonce = c.nonce;
	memcpy(p->device, c.device, sizeof(p->device));
	if (c.family == 6) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = c.port;
		memcpy(&v6->sin6_addr, c.address, 16);
	} else {
		v4->sin_family = AF_INET;
		v4->sin_port = c.port;
		memcpy(&v4->sin_addr, c.address, 4);
	}
	p->known = true;
	if (c.transport == transport && p->address.ss_family == nu_verbs.address.ss_family)
		return true;
	/* Its nonce counts for the job's number all the same. */
	snprintf(p->why, sizeof(p->why), "its device %.32s is %s at an IPv%u address, ours is %s", c.device,
		 nu_rdma_transport_name((enum nu_rdma_transport)c.transport), c.family,
		 nu_rdma_transport_name(transport));
	return true;
}

int nu_verbs_set_peer(unsigned node, const void *blob, size_t len)
{
	struct nu_verbs_peer *p;

	if (!nu_verbs.open || node == nu_node.self)
		return 0;
	if (node >= NU_MAX_NODES || nu_verbs_peer(node))
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	for (unsigned i = 0; i < NU_LANES_MAX; i++) {
		nu_lane_init(&p->out[i], node, i, true);
		nu_lane_init(&p->in[i], node, i, false);
	}
	if (len && !read_card(p, blob, len)) {
		free(p);
		nu_err("node %u's RDMA device cannot be made out: %zu bytes", node, len);
		return -EBADMSG;
	}
	atomic_store_explicit(&nu_verbs.peers[node], p, memory_order_release);
	return 0;
}

void nu_verbs_peer_dead(unsigned node)
{
	struct nu_verbs_peer *p = nu_verbs_peer(node);

	if (!p)
		return;
	for (unsigned i = 0; i < NU_LANES_MAX; i++) {
		nu_lock_acquire(&p->in[i].lock);
		nu_lane_cut(&p->in[i], -EHOSTDOWN);
		nu_lane_signal_all(&p->in[i].waiters);
		nu_lock_release(&p->in[i].lock);
		nu_lock_acquire(&p->out[i].lock);
		nu_lane_break(&p->out[i], -EHOSTDOWN);
		nu_lane_signal_all(&p->out[i].waiters);
		nu_lock_release(&p->out[i].lock);
	}
	nu_cm_poke();
}

/* ---- counts ---- */

void nu_verbs_counts(struct nu_verbs_counts *c_p)
{
	const struct nu_verbs_atomic_counts *c = &nu_verbs_count;

	*c_p = (struct nu_verbs_counts){
		.reads_posted = atomic_load(&c->reads_posted),
		.read_bytes = atomic_load(&c->read_bytes),
		.completions = atomic_load(&c->completions),
		.polls = atomic_load(&c->polls),
		.sleeps = atomic_load(&c->sleeps),
		.connects = atomic_load(&c->connects),
		.refused = atomic_load(&c->refused),
		.broken = atomic_load(&c->broken),
		.windows_bound = atomic_load(&c->windows_bound),
		.queue_pairs = atomic_load(&c->queue_pairs),
		.regions = atomic_load(&c->regions),
		.windows = atomic_load(&c->windows),
	};
}
