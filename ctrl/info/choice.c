/* SPDX-License-Identifier: MIT */
/* What a job would use here, by default, and why not the rest: the order of rdma/reader.c and rpc/link.c. */
#include "info.h"

#include <stdlib.h>
#include <string.h>

static void lost(const char *name, const char *why)
{
	info_open(NULL);
	info_string("name", name);
	info_string("why_not", why);
	info_close();
}

static void reader_here(const struct info_findings *f)
{
	info_open("reader");
	info_string("chosen", f->cma ? "cma" : f->device ? "verbs" : "am");
	info_open_list("not_chosen");
	if (!f->cma)
		lost("cma", f->cma_why);
	if (f->cma)
		lost("verbs",
		     f->device ? "process_vm_readv is faster between processes of one host" : f->rdma_why);
	else if (!f->device)
		lost("verbs", f->rdma_why);
	if (f->cma || f->device)
		lost("am", "its messages cost processor time at the source");
	info_close_list();
	info_close();
}

static void reader_between(const struct info_findings *f)
{
	info_open("reader");
	info_string("chosen", f->device ? "verbs" : "am");
	if (f->device)
		info_string("reason", f->rdma_why);
	info_open_list("not_chosen");
	if (!f->device)
		lost("verbs", f->rdma_why);
	lost("cma", "process_vm_readv reads processes of the same host only");
	if (f->device)
		lost("am", "its messages cost processor time at the source");
	info_close_list();
	info_close();
}

static void link_here(const struct info_findings *f)
{
	const char *tls = getenv("UCX_TLS");
	bool posix = f->shm && strstr(f->ucx_shm, "posix"), sysv = f->sysv && strstr(f->ucx_shm, "sysv"),
	     ours = f->rings && !tls;
	char ucx[160];

	snprintf(ucx, sizeof(ucx), "UCX: %s", tls ? tls : posix ? "posix" : sysv ? "sysv" : "tcp");
	info_open("link");
	info_string("chosen", ours ? "shm" : ucx);
	info_open_list("not_chosen");
	if (!ours)
		lost("shm", tls ? "UCX_TLS is set" : f->rings_why);
	if (ours && (posix || sysv))
		lost(ucx, "it does not survive a peer that is killed");
	if (!tls && !posix)
		lost("UCX: posix", f->shm ? "UCX does not offer it" : f->shm_why);
	if (!tls && !sysv)
		lost("UCX: sysv", f->sysv ? "UCX does not offer it" : "shmget is refused");
	lost("tcp", "shared memory is faster, and opens no port");
	info_close_list();
	info_close();
}

static void link_between(const struct info_findings *f)
{
	bool rdma =
		strstr(f->ucx_remote, "rc_") || strstr(f->ucx_remote, "dc_") || strstr(f->ucx_remote, "ud_");

	info_open("link");
	info_string("chosen", "tcp");
	info_string("ucx_offers", f->ucx_remote);
	info_open_list("not_chosen");
	lost("shm", "hosts share no memory");
	lost("UCX over RDMA", rdma	     ? "used if nu_launch --transport names it"
			      : f->devices.n ? "UCX offers none on the devices here"
					     : f->rdma_why);
	info_close_list();
	info_close();
}

void info_choice(const struct info_findings *f)
{
	info_open("choice");
	info_open("nodes_of_one_host");
	reader_here(f);
	link_here(f);
	info_close();
	info_open("nodes_of_several_hosts");
	info_bool("possible", f->fixed_layout);
	if (!f->fixed_layout)
		info_string("why_not", f->fixed_why);
	reader_between(f);
	link_between(f);
	info_close();
	info_close();
}
