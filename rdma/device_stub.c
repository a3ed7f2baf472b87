/* SPDX-License-Identifier: MIT */
/* Built without libibverbs: there are no RDMA devices. */
#include "rdma/device.h"

#include <stdio.h>

int nu_rdma_devices_list(struct nu_rdma_devices *list_p, char *why, size_t why_len)
{
	snprintf(why, why_len, "this build has no libibverbs (meson's option verbs)");
	return -ENOSYS;
}

void nu_rdma_devices_free(struct nu_rdma_devices *list)
{
	*list = (struct nu_rdma_devices){0};
}
