/* SPDX-License-Identifier: MIT */
/* Which RDMA device, port and GID to use: a comparison of candidates, and the words for its outcome. */
#include "rdma/device.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What candidates are compared by, the most important first; more is better. */
enum {
	BY_HARDWARE,
	BY_ADDRESS,
	BY_INTERFACE,
	BY_GID_TYPE,
	BY_RATE,
	BY_FAMILY,
	BY_MTU,
	NCRITERIA,
};

struct wish {
	const struct nu_rdma_options *o;
	const char *address;	       /* NULL: none */
	const char *address_interface; /* what has it, among what is known */
};

const char *nu_rdma_port_state_name(enum nu_rdma_port_state state)
{
	static const char *const names[] = {"NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"};

	return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

const char *nu_rdma_transport_name(enum nu_rdma_transport transport)
{
	static const char *const names[] = {"InfiniBand", "RoCE", "iWARP", "other"};

	return (unsigned)transport < sizeof(names) / sizeof(names[0]) ? names[transport] : "unknown";
}

const char *nu_rdma_gid_type_name(const struct nu_rdma_port *port, const struct nu_rdma_gid *gid)
{
	if (port->transport == NU_RDMA_IWARP)
		return "iWARP";
	return gid->type == NU_RDMA_GID_ROCE_V2	  ? "RoCE v2"
	       : gid->type == NU_RDMA_GID_ROCE_V1 ? "RoCE v1"
						  : "IB";
}

/* ---- what cannot be used at all ---- */

static bool same_address(const char *a, const char *b)
{
	struct in6_addr x, y;
	int family = strchr(a, ':') ? AF_INET6 : AF_INET;

	return inet_pton(family, a, &x) == 1 && inet_pton(family, b, &y) == 1 &&
	       !memcmp(&x, &y, family == AF_INET ? 4 : 16);
}

static bool is_loopback(const char *address)
{
	return !strncmp(address, "127.", 4) || !strcmp(address, "::1");
}

static void check_device(const struct wish *w, struct nu_rdma_candidate *c)
{
	const struct nu_rdma_device *d = c->device;

	if (w->o->device[0] && strcmp(w->o->device, d->name) != 0)
		snprintf(c->why, sizeof(c->why), "not the device that was asked for (%.32s)", w->o->device);
	else if (d->error[0])
		snprintf(c->why, sizeof(c->why), "%s", d->error);
	else if (!d->max_qp_init_rd_atom || !d->max_qp_rd_atom)
		snprintf(c->why, sizeof(c->why),
			 "it has no RDMA READ (max_qp_init_rd_atom %u, max_qp_rd_atom %u)",
			 d->max_qp_init_rd_atom, d->max_qp_rd_atom);
	else if (!d->nports)
		snprintf(c->why, sizeof(c->why), "it has no ports");
}

static void check_port(const struct wish *w, struct nu_rdma_candidate *c)
{
	const struct nu_rdma_port *p = c->port;

	if (w->o->port && w->o->port != p->number)
		snprintf(c->why, sizeof(c->why), "not the port that was asked for (%u)", w->o->port);
	else if (p->transport == NU_RDMA_OTHER)
		snprintf(c->why, sizeof(c->why), "its transport has no reliable connections");
	else if (p->state != NU_RDMA_PORT_ACTIVE && p->state != NU_RDMA_PORT_DEFER)
		snprintf(c->why, sizeof(c->why), "port %u is %s", p->number,
			 nu_rdma_port_state_name(p->state));
	else if (!p->ngids)
		snprintf(c->why, sizeof(c->why), "port %u has no GID", p->number);
}

static void check_gid(const struct wish *w, struct nu_rdma_candidate *c)
{
	const struct nu_rdma_gid *g = c->gid;

	if (w->o->gid_index >= 0 && (unsigned)w->o->gid_index != g->index)
		snprintf(c->why, sizeof(c->why), "not the GID that was asked for (%d)", w->o->gid_index);
	else if (!g->address[0])
		snprintf(c->why, sizeof(c->why), "%s has no IP address, which rdmacm needs",
			 g->netdev[0] ? g->netdev : "its network interface");
	else if (!g->bound)
		snprintf(c->why, sizeof(c->why), "no network interface has its address %s", g->address);
}

/* ---- comparison ---- */

static unsigned family_rank(const char *address)
{
	if (!strchr(address, ':'))
		return 3;
	return strncasecmp(address, "fe80:", 5) ? 2 : 1;
}

static uint64_t value(const struct wish *w, const struct nu_rdma_candidate *c, int criterion)
{
	switch (criterion) {
	case BY_HARDWARE:
		return !c->device->software;
	case BY_ADDRESS:
		return w->address && same_address(w->address, c->gid->address);
	case BY_INTERFACE:
		return w->address_interface && !strcmp(w->address_interface, c->gid->netdev);
	case BY_GID_TYPE:
		return c->gid->type != NU_RDMA_GID_ROCE_V1;
	case BY_RATE:
		return c->port->rate_mbit_s;
	case BY_FAMILY:
		return family_rank(c->gid->address);
	case BY_MTU:
		return c->port->active_mtu_bytes;
	default:
		return 0;
	}
}

/* The first criterion by which @a is better (> 0, plus one) or worse (< 0) than @b; 0: alike. */
static int compare(const struct wish *w, const struct nu_rdma_candidate *a, const struct nu_rdma_candidate *b)
{
	for (int i = 0; i < NCRITERIA; i++) {
		uint64_t x = value(w, a, i), y = value(w, b, i);

		if (x != y)
			return x > y ? i + 1 : -(i + 1);
	}
	return 0;
}

static void say_lost(const struct wish *w, struct nu_rdma_candidate *c, const struct nu_rdma_candidate *best)
{
	unsigned long long rate = c->port->rate_mbit_s, other = best->port->rate_mbit_s;

	switch (compare(w, best, c) - 1) {
	case BY_HARDWARE:
		snprintf(c->why, sizeof(c->why), "it is in software, %s is not", best->device->name);
		break;
	case BY_ADDRESS:
	case BY_INTERFACE:
		if (w->address_interface && !strcmp(w->address_interface, c->gid->netdev))
			snprintf(c->why, sizeof(c->why), "its address is not %s", w->address);
		else
			snprintf(c->why, sizeof(c->why), "not the network interface of %s", w->address);
		break;
	case BY_GID_TYPE:
		snprintf(c->why, sizeof(c->why), "GID %u is RoCE v1", c->gid->index);
		break;
	case BY_RATE:
		snprintf(c->why, sizeof(c->why), "slower: %llu.%llu Gbit/s, %s has %llu.%llu", rate / 1000,
			 rate % 1000 / 100, best->device->name, other / 1000, other % 1000 / 100);
		break;
	case BY_FAMILY:
		snprintf(c->why, sizeof(c->why), "%s comes before %s", best->gid->address, c->gid->address);
		break;
	case BY_MTU:
		snprintf(c->why, sizeof(c->why), "MTU %u, %s has %u", c->port->active_mtu_bytes,
			 best->device->name, best->port->active_mtu_bytes);
		break;
	default:
		snprintf(c->why, sizeof(c->why), "as good as %s port %u GID %u, which comes first",
			 best->device->name, best->port->number, best->gid->index);
	}
}

/* ---- all of them ---- */

static unsigned count(const struct nu_rdma_devices *list)
{
	unsigned n = 0;

	for (unsigned d = 0; d < list->n; d++) {
		n++;
		for (unsigned p = 0; p < list->devices[d].nports; p++)
			n += 1 + list->devices[d].ports[p].ngids;
	}
	return n;
}

static struct nu_rdma_candidate *add(struct nu_rdma_choice *choice, const struct nu_rdma_device *d,
				     const struct nu_rdma_port *p, const struct nu_rdma_gid *g)
{
	struct nu_rdma_candidate *c = &choice->candidates[choice->n++];

	*c = (struct nu_rdma_candidate){.device = d, .port = p, .gid = g};
	return c;
}

static void collect_port(const struct wish *w, struct nu_rdma_choice *choice, const struct nu_rdma_device *d,
			 const struct nu_rdma_port *p)
{
	struct nu_rdma_candidate *c = add(choice, d, p, NULL);

	check_port(w, c);
	if (c->why[0])
		return;
	choice->n--;
	for (unsigned g = 0; g < p->ngids; g++) {
		c = add(choice, d, p, &p->gids[g]);
		check_gid(w, c);
		c->usable = !c->why[0];
	}
}

static void collect(const struct wish *w, const struct nu_rdma_devices *list, struct nu_rdma_choice *choice)
{
	for (unsigned i = 0; i < list->n; i++) {
		const struct nu_rdma_device *d = &list->devices[i];
		struct nu_rdma_candidate *c = add(choice, d, NULL, NULL);

		check_device(w, c);
		if (c->why[0])
			continue;
		choice->n--;
		for (unsigned p = 0; p < d->nports; p++)
			collect_port(w, choice, d, &d->ports[p]);
	}
}

static const char *interface_of(const struct nu_rdma_devices *list, const char *address)
{
	for (unsigned d = 0; d < list->n; d++) {
		for (unsigned p = 0; p < list->devices[d].nports; p++) {
			const struct nu_rdma_port *port = &list->devices[d].ports[p];

			for (unsigned g = 0; g < port->ngids; g++) {
				if (port->gids[g].netdev[0] && same_address(port->gids[g].address, address))
					return port->gids[g].netdev;
			}
		}
	}
	return NULL;
}

static void say_chosen(const struct wish *w, struct nu_rdma_choice *choice, unsigned usable)
{
	const struct nu_rdma_candidate *c = choice->chosen;
	char asked[96] = "", alone[64] = "";
	bool matches = w->address && same_address(w->address, c->gid->address);

	if (w->o->device[0] || w->o->port || w->o->gid_index >= 0)
		snprintf(asked, sizeof(asked), ", as was asked for");
	if (usable > 1)
		snprintf(alone, sizeof(alone), ", the best of %u", usable);
	else
		snprintf(alone, sizeof(alone), ", the only one that is usable");
	snprintf(choice->reason, sizeof(choice->reason),
		 "%s port %u GID %u (%s, %s%s%s%s, %.1f Gbit/s, MTU %u)%s%s%s%s", c->device->name,
		 c->port->number, c->gid->index, nu_rdma_gid_type_name(c->port, c->gid), c->gid->address,
		 c->gid->netdev[0] ? " on " : "", c->gid->netdev, c->device->software ? ", in software" : "",
		 (double)c->port->rate_mbit_s / 1000, c->port->active_mtu_bytes, asked, alone,
		 !w->address || matches ? "" : ", although not at ",
		 !w->address || matches ? "" : w->address);
}

static void say_none(const struct wish *w, const struct nu_rdma_devices *list, struct nu_rdma_choice *choice)
{
	size_t at = 0;

	if (!list->n) {
		snprintf(choice->reason, sizeof(choice->reason), "there is no RDMA device");
		return;
	}
	/* What concerns other devices than the one that was asked for says nothing. */
	for (unsigned i = 0; i < choice->n && at < sizeof(choice->reason); i++) {
		const struct nu_rdma_candidate *c = &choice->candidates[i];

		if (w->o->device[0] && strcmp(w->o->device, c->device->name) != 0)
			continue;
		at += (size_t)snprintf(choice->reason + at, sizeof(choice->reason) - at, "%s%s: %s",
				       at ? "; " : "", c->device->name, c->why);
	}
	if (at)
		return;
	at = (size_t)snprintf(choice->reason, sizeof(choice->reason), "there is no device %s; there %s",
			      w->o->device, list->n > 1 ? "are" : "is");
	for (unsigned i = 0; i < list->n && at < sizeof(choice->reason); i++)
		at += (size_t)snprintf(choice->reason + at, sizeof(choice->reason) - at, "%s %s",
				       i ? "," : "", list->devices[i].name);
}

int nu_rdma_choose(const struct nu_rdma_devices *list, const struct nu_rdma_options *o, const char *address,
		   struct nu_rdma_choice *choice_p)
{
	static const struct nu_rdma_options defaults = {.gid_index = -1};
	struct wish w = {.o = o ? o : &defaults};
	unsigned n = count(list), usable = 0;
	struct nu_rdma_candidate *best = NULL;

	if (address && address[0] && !is_loopback(address)) {
		w.address = address;
		w.address_interface = interface_of(list, address);
	}
	*choice_p = (struct nu_rdma_choice){.candidates = calloc(n ? n : 1, sizeof(*best))};
	if (!choice_p->candidates)
		return -ENOMEM;
	collect(&w, list, choice_p);
	for (unsigned i = 0; i < choice_p->n; i++) {
		struct nu_rdma_candidate *c = &choice_p->candidates[i];

		usable += c->usable;
		if (c->usable && (!best || compare(&w, c, best) > 0))
			best = c;
	}
	if (!best) {
		say_none(&w, list, choice_p);
		return -ENODEV;
	}
	for (unsigned i = 0; i < choice_p->n; i++) {
		struct nu_rdma_candidate *c = &choice_p->candidates[i];

		if (c->usable && c != best)
			say_lost(&w, c, best);
	}
	choice_p->chosen = best;
	say_chosen(&w, choice_p, usable);
	return 0;
}

void nu_rdma_choice_free(struct nu_rdma_choice *choice)
{
	free(choice->candidates);
	*choice = (struct nu_rdma_choice){0};
}
