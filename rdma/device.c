/* SPDX-License-Identifier: MIT */
/* The RDMA devices of this host: what libibverbs says of them, and from sysfs what it does not. */
#include "rdma/device.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VENDOR_RXE 0xffffff
#define VENDOR_SIW 0x626d74
#define GIDS_MAX   1024

/* The first line of a file of sysfs, without its end. */
static bool read_line(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, buf, len - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return buf[0] != '\0';
}

/* ---- network interfaces ---- */

static bool address_text(const struct sockaddr *a, char text[46])
{
	if (a && a->sa_family == AF_INET)
		return inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, text, 46);
	if (a && a->sa_family == AF_INET6)
		return inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)a)->sin6_addr, text, 46);
	return false;
}

static bool has_address(const struct ifaddrs *all, const char *netdev, const char *address)
{
	char text[46];

	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!strcmp(i->ifa_name, netdev) && address_text(i->ifa_addr, text) && !strcmp(text, address))
			return true;
	}
	return false;
}

/* An IP over InfiniBand interface has its port's GID in the last 16 of the 20 bytes of its hardware address. */
static bool is_ipoib_of(const char *netdev, const uint8_t gid[16])
{
	char path[128], text[80];
	unsigned byte;

	snprintf(path, sizeof(path), "/sys/class/net/%.32s/address", netdev);
	if (!read_line(path, text, sizeof(text)) || strlen(text) != 20 * 3 - 1)
		return false;
	for (unsigned i = 0; i < 16; i++) {
		if (sscanf(text + (4 + i) * 3, "%2x", &byte) != 1 || byte != gid[i])
			return false;
	}
	return true;
}

static void find_ipoib(const uint8_t gid[16], char netdev[16])
{
	DIR *dir = opendir("/sys/class/net");
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] != '.' && is_ipoib_of(e->d_name, gid)) {
			snprintf(netdev, 16, "%.15s", e->d_name);
			break;
		}
	}
	if (dir)
		closedir(dir);
}

/* The only interface of the device's function, where nothing tells more. */
static void find_netdev(const char *device, unsigned port, unsigned gid_index, char netdev[16])
{
	char path[256], text[64];
	DIR *dir;
	struct dirent *e;

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/%u/gid_attrs/ndevs/%u", device, port,
		 gid_index);
	if (!read_line(path, text, sizeof(text))) {
		snprintf(path, sizeof(path), "/sys/class/infiniband/%s/parent", device);
		read_line(path, text, sizeof(text));
	}
	if (text[0]) {
		snprintf(netdev, 16, "%.15s", text);
		return;
	}
	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/device/net", device);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] != '.')
			snprintf(netdev, 16, "%.15s", e->d_name);
	}
	if (dir)
		closedir(dir);
}

/* ---- GIDs ---- */

struct gid_list {
	struct nu_rdma_gid *gids;
	unsigned n;
	bool failed;
};

static void append(struct gid_list *list, const struct nu_rdma_gid *g)
{
	struct nu_rdma_gid *more = realloc(list->gids, (list->n + 1) * sizeof(*more));

	if (!more) {
		list->failed = true;
		return;
	}
	list->gids = more;
	list->gids[list->n++] = *g;
}

static void add_roce(struct gid_list *list, struct nu_rdma_gid *g, const struct ifaddrs *all)
{
	struct in6_addr a;

	memcpy(&a, g->raw, sizeof(a));
	if (IN6_IS_ADDR_V4MAPPED(&a))
		inet_ntop(AF_INET, g->raw + 12, g->address, sizeof(g->address));
	else
		inet_ntop(AF_INET6, &a, g->address, sizeof(g->address));
	g->bound = has_address(all, g->netdev, g->address);
	append(list, g);
}

static void add_others(struct gid_list *list, struct nu_rdma_gid *g, const struct ifaddrs *all)
{
	unsigned before = list->n;

	for (const struct ifaddrs *i = all; i && g->netdev[0]; i = i->ifa_next) {
		if (strcmp(i->ifa_name, g->netdev) != 0 || !address_text(i->ifa_addr, g->address))
			continue;
		g->bound = true;
		append(list, g);
	}
	if (list->n == before) {
		g->address[0] = '\0';
		g->bound = false;
		append(list, g);
	}
}

static void add_entry(struct gid_list *list, const struct ibv_gid_entry *e, const char *device,
		      const struct nu_rdma_port *port, const struct ifaddrs *all)
{
	struct nu_rdma_gid g = {.index = e->gid_index};
	char name[IF_NAMESIZE];

	memcpy(g.raw, e->gid.raw, sizeof(g.raw));
	g.type = e->gid_type == IBV_GID_TYPE_ROCE_V2   ? NU_RDMA_GID_ROCE_V2
		 : e->gid_type == IBV_GID_TYPE_ROCE_V1 ? NU_RDMA_GID_ROCE_V1
						       : NU_RDMA_GID_IB;
	if (e->ndev_ifindex && if_indextoname(e->ndev_ifindex, name))
		snprintf(g.netdev, sizeof(g.netdev), "%.15s", name);
	else if (port->transport == NU_RDMA_IB)
		find_ipoib(g.raw, g.netdev);
	else
		find_netdev(device, port->number, g.index, g.netdev);
	if (port->transport == NU_RDMA_ROCE)
		add_roce(list, &g, all);
	else
		add_others(list, &g, all);
}

static int query_gids(struct ibv_context *context, struct nu_rdma_port *port, const struct ifaddrs *all)
{
	struct ibv_gid_entry *entries = calloc(GIDS_MAX, sizeof(*entries));
	struct gid_list list = {0};
	ssize_t n;

	if (!entries)
		return -ENOMEM;
	n = ibv_query_gid_table(context, entries, GIDS_MAX, 0);
	for (ssize_t i = 0; i < n; i++) {
		if (entries[i].port_num == port->number)
			add_entry(&list, &entries[i], ibv_get_device_name(context->device), port, all);
	}
	free(entries);
	if (n < 0)
		nu_warn("%s: its GIDs cannot be read: %s", ibv_get_device_name(context->device),
			strerror((int)-n));
	port->gids = list.gids;
	port->ngids = list.n;
	return list.failed ? -ENOMEM : 0;
}

/* ---- ports and devices ---- */

static uint64_t rate_mbit_s(const struct ibv_port_attr *a)
{
	static const struct {
		unsigned code, value;
	} widths[] = {{1, 1}, {2, 4}, {4, 8}, {8, 12}, {16, 2}},
	  speeds[] = {{1, 2500},   {2, 5000},	{4, 10000},  {8, 10000},
		      {16, 14000}, {32, 25000}, {64, 50000}, {128, 100000}};
	uint64_t width = 0, speed = 0;

	for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
		width = a->active_width == widths[i].code ? widths[i].value : width;
	for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++)
		speed = a->active_speed == speeds[i].code ? speeds[i].value : speed;
	return width * speed;
}

static enum nu_rdma_transport transport_of(const struct ibv_device *device, const struct ibv_port_attr *a)
{
	if (device->transport_type == IBV_TRANSPORT_IWARP)
		return NU_RDMA_IWARP;
	if (device->transport_type != IBV_TRANSPORT_IB)
		return NU_RDMA_OTHER;
	return a->link_layer == IBV_LINK_LAYER_ETHERNET ? NU_RDMA_ROCE : NU_RDMA_IB;
}

static unsigned mtu_bytes(enum ibv_mtu mtu)
{
	return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << mtu : 0;
}

static int query_port(struct ibv_context *context, unsigned number, struct nu_rdma_port *port,
		      const struct ifaddrs *all)
{
	struct ibv_port_attr a;

	port->number = number;
	port->transport = NU_RDMA_OTHER;
	if (ibv_query_port(context, (uint8_t)number, &a)) {
		nu_warn("%s port %u cannot be queried: %s", ibv_get_device_name(context->device), number,
			strerror(nu_sys_errno));
		return 0;
	}
	port->state = (enum nu_rdma_port_state)a.state;
	port->transport = transport_of(context->device, &a);
	port->ethernet = a.link_layer == IBV_LINK_LAYER_ETHERNET;
	port->active_mtu_bytes = mtu_bytes(a.active_mtu);
	port->max_mtu_bytes = mtu_bytes(a.max_mtu);
	port->rate_mbit_s = rate_mbit_s(&a);
	port->lid = a.lid;
	return query_gids(context, port, all);
}

static unsigned not_negative(int v)
{
	return v > 0 ? (unsigned)v : 0;
}

static void copy_limits(struct nu_rdma_device *d, const struct ibv_device_attr_ex *x)
{
	const struct ibv_device_attr *a = &x->orig_attr;

	snprintf(d->firmware, sizeof(d->firmware), "%.63s", a->fw_ver);
	d->vendor = a->vendor_id;
	d->part = a->vendor_part_id;
	d->software = a->vendor_id == VENDOR_RXE || a->vendor_id == VENDOR_SIW;
	d->windows_2 = a->device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B);
	d->on_demand = (x->odp_caps.general_caps & IBV_ODP_SUPPORT) &&
		       (x->odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_READ);
	d->max_mr_size_bytes = a->max_mr_size;
	d->max_mr = not_negative(a->max_mr);
	d->max_mw = not_negative(a->max_mw);
	d->max_qp = not_negative(a->max_qp);
	d->max_qp_wr = not_negative(a->max_qp_wr);
	d->max_cq = not_negative(a->max_cq);
	d->max_cqe = not_negative(a->max_cqe);
	d->max_sge = not_negative(a->max_sge);
	d->max_sge_rd = not_negative(a->max_sge_rd);
	d->max_qp_rd_atom = not_negative(a->max_qp_rd_atom);
	d->max_qp_init_rd_atom = not_negative(a->max_qp_init_rd_atom);
	d->max_res_rd_atom = not_negative(a->max_res_rd_atom);
}

static int query_device(struct ibv_device *device, struct nu_rdma_device *d, const struct ifaddrs *all)
{
	struct ibv_context *context = ibv_open_device(device);
	struct ibv_device_attr_ex attr = {0};
	int ret;

	snprintf(d->name, sizeof(d->name), "%.63s", ibv_get_device_name(device));
	d->node_guid = be64toh(ibv_get_device_guid(device));
	d->read_needs_rw = device->transport_type == IBV_TRANSPORT_IWARP;
	if (!context) {
		snprintf(d->error, sizeof(d->error), "it cannot be opened: %.64s (/dev/infiniband?)",
			 strerror(nu_sys_errno));
		return 0;
	}
	ret = ibv_query_device_ex(context, NULL, &attr);
	if (ret) {
		snprintf(d->error, sizeof(d->error), "it cannot be queried: %.64s", strerror(ret));
		ibv_close_device(context);
		return 0;
	}
	copy_limits(d, &attr);
	d->ports = calloc(attr.orig_attr.phys_port_cnt + 1u, sizeof(*d->ports));
	ret = d->ports ? 0 : -ENOMEM;
	for (unsigned p = 1; p <= attr.orig_attr.phys_port_cnt && !ret; p++) {
		ret = query_port(context, p, &d->ports[p - 1], all);
		d->nports = p;
	}
	ibv_close_device(context);
	return ret;
}

int nu_rdma_devices_list(struct nu_rdma_devices *list_p, char *why, size_t why_len)
{
	struct nu_rdma_devices list = {0};
	struct ifaddrs *all = NULL;
	int n = 0, ret = 0;
	struct ibv_device **found = ibv_get_device_list(&n);

	if (!found) {
		int err = nu_sys_errno;

		snprintf(why, why_len, "libibverbs: %s%s", strerror(err),
			 err == ENOSYS ? " (the kernel has no RDMA, or ib_uverbs is not loaded)" : "");
		return err ? -err : -ENODEV;
	}
	if (!n) {
		snprintf(why, why_len, "there is no RDMA device");
		ret = -ENODEV;
	} else if (getifaddrs(&all)) {
		snprintf(why, why_len, "getifaddrs: %s", strerror(nu_sys_errno));
		ret = -nu_sys_errno;
	} else if (!(list.devices = calloc((size_t)n, sizeof(*list.devices)))) {
		snprintf(why, why_len, "out of memory");
		ret = -ENOMEM;
	}
	for (int i = 0; i < n && !ret; i++) {
		list.n++;
		ret = query_device(found[i], &list.devices[i], all);
		if (ret)
			snprintf(why, why_len, "%s: %s", list.devices[i].name, strerror(-ret));
	}
	freeifaddrs(all);
	ibv_free_device_list(found);
	if (ret)
		nu_rdma_devices_free(&list);
	else
		*list_p = list;
	return ret;
}

void nu_rdma_devices_free(struct nu_rdma_devices *list)
{
	for (unsigned d = 0; d < list->n; d++) {
		for (unsigned p = 0; p < list->devices[d].nports; p++)
			free(list->devices[d].ports[p].gids);
		free(list->devices[d].ports);
	}
	free(list->devices);
	*list = (struct nu_rdma_devices){0};
}
