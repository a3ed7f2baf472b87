/* SPDX-License-Identifier: MIT */
/* The RDMA devices, and for each port and address that is not used, why. */
#include "info.h"

#include <inttypes.h>
#include <string.h>

static void gid(const struct nu_rdma_port *p, const struct nu_rdma_gid *g)
{
	char raw[40];

	for (unsigned i = 0; i < 16; i += 2)
		snprintf(raw + i / 2 * 5, 6, "%02x%02x%s", g->raw[i], g->raw[i + 1], i < 14 ? ":" : "");
	info_open(NULL);
	info_number("index", g->index);
	info_string("type", nu_rdma_gid_type_name(p, g));
	info_string("gid", raw);
	info_string("interface", g->netdev);
	info_string("address", g->address);
	info_close();
}

static void port(const struct nu_rdma_port *p)
{
	info_open(NULL);
	info_number("port", p->number);
	info_string("state", nu_rdma_port_state_name(p->state));
	info_string("transport", nu_rdma_transport_name(p->transport));
	info_string("link_layer", p->ethernet ? "Ethernet" : "InfiniBand");
	info_number("active_mtu_bytes", p->active_mtu_bytes);
	info_number("max_mtu_bytes", p->max_mtu_bytes);
	info_number("rate_mbit_s", p->rate_mbit_s);
	info_number("lid", p->lid);
	info_open_list("gids");
	for (unsigned i = 0; i < p->ngids; i++)
		gid(p, &p->gids[i]);
	info_close_list();
	info_close();
}

static void limits(const struct nu_rdma_device *d)
{
	info_open("limits");
	info_number("max_qp_rd_atom", d->max_qp_rd_atom);
	info_number("max_qp_init_rd_atom", d->max_qp_init_rd_atom);
	info_number("max_res_rd_atom", d->max_res_rd_atom);
	info_number("max_mr", d->max_mr);
	info_number("max_mr_size_bytes", d->max_mr_size_bytes);
	info_number("max_mw", d->max_mw);
	info_bool("memory_windows_2", d->windows_2);
	info_bool("on_demand_paging", d->on_demand);
	info_bool("read_sink_needs_remote_write", d->read_needs_rw);
	info_number("max_qp", d->max_qp);
	info_number("max_qp_wr", d->max_qp_wr);
	info_number("max_cq", d->max_cq);
	info_number("max_cqe", d->max_cqe);
	info_number("max_sge", d->max_sge);
	info_number("max_sge_rd", d->max_sge_rd);
	info_close();
}

static void device(const struct nu_rdma_device *d)
{
	info_open(NULL);
	info_string("name", d->name);
	info_format("node_guid", "%016" PRIx64, d->node_guid);
	if (d->error[0]) {
		info_string("error", d->error);
		info_close();
		return;
	}
	info_string("firmware", d->firmware);
	info_format("vendor", "0x%06x", d->vendor);
	info_number("part", d->part);
	info_bool("software", d->software);
	limits(d);
	info_open_list("ports");
	for (unsigned i = 0; i < d->nports; i++)
		port(&d->ports[i]);
	info_close_list();
	info_close();
}

static void candidate(const struct nu_rdma_candidate *c)
{
	char place[128];
	int n = snprintf(place, sizeof(place), "%s", c->device->name);

	if (c->port)
		n += snprintf(place + n, sizeof(place) - (size_t)n, " port %u", c->port->number);
	if (c->gid)
		snprintf(place + n, sizeof(place) - (size_t)n, " GID %u%s%s", c->gid->index,
			 c->gid->address[0] ? " " : "", c->gid->address);
	info_open(NULL);
	info_string("candidate", place);
	info_string("why_not", c->why);
	info_close();
}

/* A port that is down is often only its interface. */
static void advise(const struct info_findings *f)
{
	char command[64] = "";

	for (unsigned i = 0; i < f->choice.n && !command[0]; i++) {
		const struct nu_rdma_candidate *c = &f->choice.candidates[i];

		if (c->port && c->port->ethernet && c->port->state == NU_RDMA_PORT_DOWN && c->port->ngids)
			snprintf(command, sizeof(command), "ip link set %s up", c->port->gids[0].netdev);
	}
	info_warn(command, "no RDMA device can be used: %s", f->choice.reason);
}

void info_devices(struct info_findings *f, const struct nu_rdma_options *o, const char *address)
{
	int err = nu_rdma_devices_list(&f->devices, f->rdma_why, sizeof(f->rdma_why));

	f->rdma_build = NU_WITH_VERBS;
	info_open("rdma");
	info_bool("in_this_build", f->rdma_build);
	info_open_list("devices");
	for (unsigned i = 0; i < f->devices.n; i++)
		device(&f->devices.devices[i]);
	info_close_list();
	if (err) {
		info_string("chosen", "none");
		info_string("reason", f->rdma_why);
		info_close();
		return;
	}
	err = nu_rdma_choose(&f->devices, o, address, &f->choice);
	snprintf(f->rdma_why, sizeof(f->rdma_why), "%s", f->choice.reason);
	f->device = f->choice.chosen;
	info_string("chosen", f->device ? f->device->device->name : "none");
	info_string("reason", f->rdma_why);
	info_open_list("not_chosen");
	for (unsigned i = 0; i < f->choice.n; i++) {
		if (&f->choice.candidates[i] != f->choice.chosen)
			candidate(&f->choice.candidates[i]);
	}
	info_close_list();
	info_close();
	if (err)
		advise(f);
}
