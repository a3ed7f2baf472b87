/* SPDX-License-Identifier: MIT */
/* Shared rings: their memory. */
#include "rpc/ring.h"
#include "core/fault.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_BYTES ((size_t)4096)
#define BYTES_MIN  ((size_t)4096)
#define BYTES_MAX  ((size_t)1 << 30)
#define SEALS	   (F_SEAL_SHRINK | F_SEAL_GROW)
#define NMAPS	   3 /* what the two views of the bytes and the head may count as */

static_assert(sizeof(struct nu_ring_head) <= HEAD_BYTES, "the head has a page of its own");

static int map(struct nu_ring *r, int fd, size_t bytes)
{
	size_t len = HEAD_BYTES + 2 * bytes;
	char *at;

	if (nu_maps_reserve(NMAPS, NU_MAPS_STEPS))
		return -ENOMEM;
	at = nu_fault(NU_FAULT_MAP)
		     ? MAP_FAILED
		     : mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		goto release;
	if (mmap(at, HEAD_BYTES + bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		    MAP_FAILED ||
	    mmap(at + HEAD_BYTES + bytes, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 (off_t)HEAD_BYTES) == MAP_FAILED) {
		munmap(at, len);
		goto release;
	}
	*r = (struct nu_ring){(struct nu_ring_head *)at, at + HEAD_BYTES, bytes};
	return 0;

release:
	nu_maps_release(NMAPS);
	return -ENOMEM;
}

void nu_ring_unmap(struct nu_ring *r)
{
	if (!r->shared)
		return;
	munmap(r->shared, HEAD_BYTES + 2 * r->bytes);
	nu_maps_release(NMAPS);
	*r = (struct nu_ring){0};
}

int nu_ring_create(struct nu_ring *r, size_t bytes, int *fd_p)
{
	int fd = memfd_create("nu-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;

	if (fd < 0)
		return -nu_sys_errno;
	err = ftruncate(fd, (off_t)(HEAD_BYTES + bytes)) || fcntl(fd, F_ADD_SEALS, SEALS) ? -nu_sys_errno
											  : map(r, fd, bytes);
	if (err) {
		close(fd);
		return err;
	}
	*fd_p = fd;
	return 0;
}

int nu_ring_attach(struct nu_ring *r, int fd)
{
	struct stat st;
	size_t bytes;
	int err;

	/* Memory that its maker could take away again would be our bus error. */
	if (fstat(fd, &st) || (fcntl(fd, F_GET_SEALS) & SEALS) != SEALS ||
	    st.st_size < (off_t)(HEAD_BYTES + BYTES_MIN) || st.st_size > (off_t)(HEAD_BYTES + BYTES_MAX))
		return -EBADMSG;
	bytes = (size_t)st.st_size - HEAD_BYTES;
	if (bytes & (bytes - 1))
		return -EBADMSG;
	err = map(r, fd, bytes);
	if (!err && atomic_exchange(&r->shared->attached, 1)) {
		nu_ring_unmap(r);
		err = -EEXIST;
	}
	return err;
}
