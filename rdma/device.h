/* SPDX-License-Identifier: MIT */
/*
 * The RDMA devices of this host as plain data, and which of them to use and why. Enumerated by device.c; chosen by
 * device_choose.c, which only computes, so that tests make up machines.
 */
#pragma once

#include "rdma/rdma.h"

enum nu_rdma_transport {
	NU_RDMA_IB,
	NU_RDMA_ROCE,
	NU_RDMA_IWARP,
	NU_RDMA_OTHER, /* no reliable connections, so no RDMA READ: usnic, EFA */
};

enum nu_rdma_port_state { /* as the IB specification numbers them */
			  NU_RDMA_PORT_NOP,
			  NU_RDMA_PORT_DOWN,
			  NU_RDMA_PORT_INIT,
			  NU_RDMA_PORT_ARMED,
			  NU_RDMA_PORT_ACTIVE,
			  NU_RDMA_PORT_DEFER,
};

enum nu_rdma_gid_type { NU_RDMA_GID_IB, NU_RDMA_GID_ROCE_V1, NU_RDMA_GID_ROCE_V2 };

/*
 * A place in a port's GID table with one address under which rdmacm reaches it. A RoCE GID has its address in itself; an
 * InfiniBand or iWARP one stands here once for each address of its network interface.
 */
struct nu_rdma_gid {
	unsigned index;
	enum nu_rdma_gid_type type;
	uint8_t raw[16];
	char netdev[16];  /* "" none */
	char address[46]; /* as text (a link-local one needs %netdev behind it); "" none */
	bool bound;	  /* an interface has that address: rdmacm can listen there */
};

struct nu_rdma_port {
	unsigned number; /* from 1 */
	enum nu_rdma_port_state state;
	enum nu_rdma_transport transport;
	bool ethernet; /* link layer; else InfiniBand */
	unsigned active_mtu_bytes, max_mtu_bytes;
	uint64_t rate_mbit_s; /* active width * speed */
	unsigned lid;	      /* InfiniBand */
	unsigned ngids;
	struct nu_rdma_gid *gids; /* those that are set */
};

struct nu_rdma_device {
	char name[64], firmware[64];
	char error[128]; /* not "": it could not be asked, and this is why; the rest is unset */
	uint64_t node_guid;
	unsigned vendor, part;
	bool software;	    /* rxe, siw */
	bool windows_2;	    /* memory windows of type 2 */
	bool on_demand;	    /* paging, for RDMA READ over reliable connections */
	bool read_needs_rw; /* iWARP: the sink of a READ must be registered with REMOTE_WRITE */
	uint64_t max_mr_size_bytes;
	unsigned max_mr, max_mw, max_qp, max_qp_wr, max_cq, max_cqe, max_sge, max_sge_rd;
	unsigned max_qp_rd_atom;      /* READs that a queue pair answers at a time */
	unsigned max_qp_init_rd_atom; /* and those that it has under way */
	unsigned max_res_rd_atom;     /* READs that the device answers at a time */
	unsigned nports;
	struct nu_rdma_port *ports;
};

struct nu_rdma_devices {
	unsigned n;
	struct nu_rdma_device *devices;
};

/*
 * Asks libibverbs and sysfs for all devices. Any thread; opens each device for the time of the call. Errors: -ENOSYS this
 * build or this kernel has no RDMA, -ENODEV there is no device, -ENOMEM; the reason in @why. device.c, device_stub.c
 */
int __must_check nu_rdma_devices_list(struct nu_rdma_devices *list_p, char *why, size_t why_len);
void nu_rdma_devices_free(struct nu_rdma_devices *list);

/* One that could be used. Where the port or the device decided it, those below are NULL. */
struct nu_rdma_candidate {
	const struct nu_rdma_device *device;
	const struct nu_rdma_port *port;
	const struct nu_rdma_gid *gid;
	bool usable;
	char why[160]; /* "" for the chosen one; why another lost */
};

struct nu_rdma_choice {
	const struct nu_rdma_candidate *chosen; /* NULL: none */
	char reason[320];			/* why that one, or why none */
	unsigned n;
	struct nu_rdma_candidate *candidates;
};

/*
 * The best port and GID of @list for @o (NULL: defaults) and this host's preferred address (NULL, "" or a loopback one: no
 * preference). In this order: not software, the preferred address, the preferred address' network interface, RoCE v2
 * before v1, rate, IPv4 before IPv6, MTU, the lowest name and index. Computes only; @choice_p points into @list. Errors:
 * -ENODEV nothing is usable, with choice_p->reason and every candidate's; -ENOMEM. device_choose.c
 */
int __must_check nu_rdma_choose(const struct nu_rdma_devices *list, const struct nu_rdma_options *o,
				const char *address, struct nu_rdma_choice *choice_p);
void nu_rdma_choice_free(struct nu_rdma_choice *choice);

const char *nu_rdma_port_state_name(enum nu_rdma_port_state state);
const char *nu_rdma_transport_name(enum nu_rdma_transport transport);
const char *nu_rdma_gid_type_name(const struct nu_rdma_port *port, const struct nu_rdma_gid *gid);
