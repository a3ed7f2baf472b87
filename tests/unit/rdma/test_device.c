/* SPDX-License-Identifier: MIT */
/* Which RDMA device is used, on machines that are made up; and that asking this one is harmless. */
#include <criterion/criterion.h>

#include "rdma/device.h"

#include <stdio.h>
#include <string.h>

#define GIDS_MAX 8

/* A machine of up to four devices with up to two ports. */
static struct nu_rdma_device devices[4];
static struct nu_rdma_port ports[4][2];
static struct nu_rdma_gid gids[4][2][GIDS_MAX];
static struct nu_rdma_devices machine;
static struct nu_rdma_options options = {.gid_index = -1};
static struct nu_rdma_choice choice;

static struct nu_rdma_device *add_device(const char *name)
{
	unsigned d = machine.n++;

	devices[d] =
		(struct nu_rdma_device){.max_qp_rd_atom = 16, .max_qp_init_rd_atom = 16, .ports = ports[d]};
	snprintf(devices[d].name, sizeof(devices[d].name), "%s", name);
	machine.devices = devices;
	return &devices[d];
}

static struct nu_rdma_port *add_port(struct nu_rdma_device *d, enum nu_rdma_transport transport,
				     enum nu_rdma_port_state state, uint64_t rate_mbit_s)
{
	unsigned p = d->nports++;

	d->ports[p] = (struct nu_rdma_port){.number = p + 1,
					    .state = state,
					    .transport = transport,
					    .ethernet = transport != NU_RDMA_IB,
					    .active_mtu_bytes = 1024,
					    .max_mtu_bytes = 4096,
					    .rate_mbit_s = rate_mbit_s,
					    .gids = gids[d - devices][p]};
	return &d->ports[p];
}

static void add_gid(struct nu_rdma_port *p, unsigned index, enum nu_rdma_gid_type type, const char *netdev,
		    const char *address, bool bound)
{
	struct nu_rdma_gid *g = &p->gids[p->ngids++];

	cr_assert(p->ngids <= GIDS_MAX);
	*g = (struct nu_rdma_gid){.index = index, .type = type, .bound = bound};
	snprintf(g->netdev, sizeof(g->netdev), "%s", netdev);
	snprintf(g->address, sizeof(g->address), "%s", address);
}

/* As mlx5 fills it: each address as v1 and as v2. */
static void add_roce_gids(struct nu_rdma_port *p, const char *netdev, const char *ipv4)
{
	add_gid(p, 0, NU_RDMA_GID_ROCE_V1, netdev, "fe80::1", true);
	add_gid(p, 1, NU_RDMA_GID_ROCE_V2, netdev, "fe80::1", true);
	add_gid(p, 2, NU_RDMA_GID_ROCE_V1, netdev, ipv4, true);
	add_gid(p, 3, NU_RDMA_GID_ROCE_V2, netdev, ipv4, true);
}

static void choose(const char *address)
{
	nu_rdma_choice_free(&choice);
	cr_assert_eq(nu_rdma_choose(&machine, &options, address, &choice), 0, "%s", choice.reason);
	cr_assert_not_null(choice.chosen);
	cr_assert_str_empty(choice.chosen->why);
}

static void expect(const char *device, unsigned port, unsigned gid)
{
	cr_expect_str_eq(choice.chosen->device->name, device, "%s", choice.reason);
	cr_expect_eq(choice.chosen->port->number, port, "%s", choice.reason);
	cr_expect_eq(choice.chosen->gid->index, gid, "%s", choice.reason);
	cr_expect_not_null(strstr(choice.reason, device), "%s", choice.reason);
	for (unsigned i = 0; i < choice.n; i++)
		cr_expect(&choice.candidates[i] == choice.chosen || choice.candidates[i].why[0],
			  "candidate %u of %s lost without a reason", i, choice.candidates[i].device->name);
}

/* Why the candidate at (device, port or 0, gid or -1) lost. */
static const char *why(const char *device, unsigned port, int gid)
{
	for (unsigned i = 0; i < choice.n; i++) {
		const struct nu_rdma_candidate *c = &choice.candidates[i];

		if (!strcmp(c->device->name, device) && (c->port ? c->port->number : 0) == port &&
		    (c->gid ? (int)c->gid->index : -1) == gid)
			return c->why;
	}
	return "(not a candidate)";
}

#define expect_why(device, port, gid, text)                                                                  \
	cr_expect_not_null(strstr(why(device, port, gid), text), "%s", why(device, port, gid))

static void expect_none(const char *address, const char *text)
{
	nu_rdma_choice_free(&choice);
	cr_assert_eq(nu_rdma_choose(&machine, &options, address, &choice), -ENODEV);
	cr_expect_null(choice.chosen);
	cr_expect_not_null(strstr(choice.reason, text), "%s", choice.reason);
}

/* ---- machines ---- */

static void connectx_dual(void)
{
	struct nu_rdma_device *a = add_device("mlx5_0"), *b = add_device("mlx5_1");

	add_roce_gids(add_port(a, NU_RDMA_ROCE, NU_RDMA_PORT_DOWN, 100000), "ens1f0", "10.0.0.4");
	add_roce_gids(add_port(b, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 100000), "ens1f1", "10.0.0.5");
}

Test(device, the_active_port_with_roce_v2)
{
	connectx_dual();
	choose(NULL);
	expect("mlx5_1", 1, 3);
	expect_why("mlx5_0", 1, -1, "port 1 is DOWN");
	expect_why("mlx5_1", 1, 2, "GID 2 is RoCE v1");
	expect_why("mlx5_1", 1, 1, "10.0.0.5 comes before fe80::1");
	/* An address that no device has excludes nothing, but is said. */
	choose("192.168.7.7");
	expect("mlx5_1", 1, 3);
	cr_expect_not_null(strstr(choice.reason, "192.168.7.7"), "%s", choice.reason);
}

Test(device, the_preferred_address_decides)
{
	connectx_dual();
	ports[0][0].state = NU_RDMA_PORT_ACTIVE;
	ports[0][0].rate_mbit_s = 25000;
	choose("10.0.0.4");
	expect("mlx5_0", 1, 3); /* although it is slower */
	expect_why("mlx5_1", 1, 3, "not the network interface of 10.0.0.4");
	expect_why("mlx5_0", 1, 1, "its address is not 10.0.0.4");
	choose("127.0.0.1"); /* says nothing of the fabric */
	expect("mlx5_1", 1, 3);
	expect_why("mlx5_0", 1, 3, "slower: 25.0 Gbit/s, mlx5_1 has 100.0");
	choose("");
	expect("mlx5_1", 1, 3);
	/* IPv6, written otherwise */
	add_gid(&ports[0][0], 5, NU_RDMA_GID_ROCE_V2, "ens1f0", "fd00::a", true);
	choose("fd00:0:0:0::a");
	expect("mlx5_0", 1, 5);
}

Test(device, options_restrict)
{
	connectx_dual();
	ports[0][0].state = NU_RDMA_PORT_ACTIVE;
	snprintf(options.device, sizeof(options.device), "mlx5_0");
	options.gid_index = 2;
	choose("10.0.0.5");
	expect("mlx5_0", 1, 2); /* RoCE v1 by name */
	expect_why("mlx5_1", 0, -1, "not the device that was asked for (mlx5_0)");
	expect_why("mlx5_0", 1, 3, "not the GID that was asked for (2)");
	cr_expect_not_null(strstr(choice.reason, "as was asked for"), "%s", choice.reason);
	options.gid_index = 9;
	expect_none(NULL, "not the GID that was asked for (9)");
	options.gid_index = -1;
	options.port = 2;
	expect_none(NULL, "not the port that was asked for (2)");
	options.port = 0;
	snprintf(options.device, sizeof(options.device), "mlx4_0");
	expect_none(NULL, "there is no device mlx4_0; there are mlx5_0, mlx5_1");
}

Test(device, two_ports_on_one_device)
{
	struct nu_rdma_device *d = add_device("mlx4_0");

	add_roce_gids(add_port(d, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 40000), "eth2", "10.1.0.1");
	add_roce_gids(add_port(d, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 40000), "eth3", "10.2.0.1");
	choose(NULL);
	expect("mlx4_0", 1, 3);
	expect_why("mlx4_0", 2, 3, "as good as mlx4_0 port 1 GID 3");
	choose("10.2.0.1");
	expect("mlx4_0", 2, 3);
	ports[0][1].active_mtu_bytes = 4096;
	choose(NULL);
	expect("mlx4_0", 2, 3);
	expect_why("mlx4_0", 1, 3, "MTU 1024, mlx4_0 has 4096");
	options.port = 1;
	choose(NULL);
	expect("mlx4_0", 1, 3);
}

Test(device, bonded_roce)
{
	struct nu_rdma_device *d = add_device("mlx5_bond_0");
	struct nu_rdma_port *p = add_port(d, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 50000);

	add_roce_gids(p, "bond0", "10.0.0.5");
	add_gid(p, 4, NU_RDMA_GID_ROCE_V1, "bond0.100", "172.16.0.5", true);
	add_gid(p, 5, NU_RDMA_GID_ROCE_V2, "bond0.100", "172.16.0.5", true);
	choose("172.16.0.5");
	expect("mlx5_bond_0", 1, 5);
	expect_why("mlx5_bond_0", 1, 3, "not the network interface of 172.16.0.5");
	choose("10.0.0.5");
	expect("mlx5_bond_0", 1, 3);
}

Test(device, infiniband)
{
	struct nu_rdma_device *d = add_device("mlx5_0");
	struct nu_rdma_port *a = add_port(d, NU_RDMA_IB, NU_RDMA_PORT_INIT, 200000);
	struct nu_rdma_port *b = add_port(d, NU_RDMA_IB, NU_RDMA_PORT_ACTIVE, 200000);

	add_gid(a, 0, NU_RDMA_GID_IB, "ib0", "10.9.0.1", true);
	add_gid(b, 0, NU_RDMA_GID_IB, "ib1", "", false);
	expect_none(NULL, "ib1 has no IP address, which rdmacm needs");
	expect_why("mlx5_0", 1, -1, "port 1 is INIT");
	b->ngids = 0;
	add_gid(b, 0, NU_RDMA_GID_IB, "ib1", "10.9.0.2", true);
	add_gid(b, 0, NU_RDMA_GID_IB, "ib1", "10.9.0.3", true);
	choose("10.9.0.3");
	expect("mlx5_0", 2, 0);
	cr_expect_str_eq(choice.chosen->gid->address, "10.9.0.3");
	cr_expect_not_null(strstr(choice.reason, "InfiniBand") ?: strstr(choice.reason, "IB"), "%s",
			   choice.reason);
}

Test(device, hardware_before_software)
{
	struct nu_rdma_device *rxe = add_device("rxe0"), *iwarp = add_device("irdma0");

	add_gid(add_port(rxe, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 400000), 1, NU_RDMA_GID_ROCE_V2, "eth0",
		"10.0.0.5", true);
	rxe->software = true;
	add_gid(add_port(iwarp, NU_RDMA_IWARP, NU_RDMA_PORT_ACTIVE, 10000), 0, NU_RDMA_GID_IB, "eth1",
		"10.3.0.5", true);
	iwarp->read_needs_rw = true;
	choose("10.0.0.5");
	expect("irdma0", 1, 0);
	expect_why("rxe0", 1, 1, "it is in software, irdma0 is not");
	cr_expect_str_eq(nu_rdma_gid_type_name(choice.chosen->port, choice.chosen->gid), "iWARP");
	snprintf(options.device, sizeof(options.device), "rxe0");
	choose("10.0.0.5");
	expect("rxe0", 1, 1);
	cr_expect_not_null(strstr(choice.reason, "in software"), "%s", choice.reason);
}

Test(device, what_is_not_usable)
{
	struct nu_rdma_device *broken = add_device("mlx5_0"), *no_read = add_device("odd0"),
			      *efa = add_device("efa0"), *rxe = add_device("rxe0");
	struct nu_rdma_port *p;

	snprintf(broken->error, sizeof(broken->error), "it cannot be opened: Permission denied");
	no_read->max_qp_init_rd_atom = 0;
	add_port(no_read, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 1000);
	add_port(efa, NU_RDMA_OTHER, NU_RDMA_PORT_ACTIVE, 100000);
	p = add_port(rxe, NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 2500);
	rxe->software = true;
	expect_none(NULL, "Permission denied");
	cr_expect_not_null(strstr(choice.reason, "rxe0: port 1 has no GID"), "%s", choice.reason);
	/* The default GID of a port whose interface lacks that address */
	add_gid(p, 0, NU_RDMA_GID_ROCE_V2, "eth0", "fe80::5054:ff:fe12:3456", false);
	expect_none(NULL, "no network interface has its address fe80::5054:ff:fe12:3456");
	add_gid(p, 1, NU_RDMA_GID_ROCE_V2, "eth0", "10.77.0.1", true);
	choose(NULL);
	expect("rxe0", 1, 1);
	expect_why("mlx5_0", 0, -1, "Permission denied");
	expect_why("odd0", 0, -1, "no RDMA READ");
	expect_why("efa0", 1, -1, "no reliable connections");
	cr_expect_not_null(strstr(choice.reason, "the only one that is usable"), "%s", choice.reason);
}

Test(device, roce_v1_where_there_is_nothing_else)
{
	struct nu_rdma_port *p = add_port(add_device("bnxt_re0"), NU_RDMA_ROCE, NU_RDMA_PORT_ACTIVE, 25000);

	add_gid(p, 0, NU_RDMA_GID_ROCE_V1, "eth0", "10.0.0.1", true);
	choose(NULL);
	expect("bnxt_re0", 1, 0);
	cr_expect_not_null(strstr(choice.reason, "RoCE v1"), "%s", choice.reason);
}

Test(device, no_devices)
{
	expect_none(NULL, "there is no RDMA device");
	snprintf(options.device, sizeof(options.device), "mlx5_0");
	expect_none(NULL, "there is no RDMA device");
}

/* What does not fit a reason is cut, not written behind it. */
Test(device, many_unusable_devices)
{
	for (unsigned i = 0; i < 4; i++) {
		struct nu_rdma_device *d = add_device("a_device_with_a_name_of_some_length_and_more_of_it");

		memset(d->error, 'x', sizeof(d->error) - 1);
	}
	expect_none(NULL, "xxx");
	cr_expect_lt(strlen(choice.reason), sizeof(choice.reason));
}

Test(device, this_machine)
{
	struct nu_rdma_devices list = {0};
	char reason[256] = "";
	int ret = nu_rdma_devices_list(&list, reason, sizeof(reason));

	if (ret) {
		cr_expect_str_not_empty(reason);
		cr_expect_eq(list.n, 0);
		return;
	}
	cr_expect_gt(list.n, 0);
	for (unsigned d = 0; d < list.n; d++)
		cr_expect_str_not_empty(list.devices[d].name);
	ret = nu_rdma_choose(&list, NULL, NULL, &choice);
	cr_expect(ret == 0 || ret == -ENODEV);
	cr_expect_str_not_empty(choice.reason);
	nu_rdma_choice_free(&choice);
	nu_rdma_devices_free(&list);
	nu_rdma_devices_free(&list);
}
