/* SPDX-License-Identifier: MIT */
/*
 * The pool's chunks as memory regions. A region covers its pages by the pool's address wherever mremap has put them, so
 * what is registered when a chunk is made serves all its extents until the chunk goes. On-demand paging is not used: it
 * follows the virtual address, which mremap empties.
 */
#include "rdma/verbs_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define TRY_BYTES (32 * NU_MIB)

struct region {
	uintptr_t base;
	size_t len_bytes;
	struct ibv_mr *mr;
};

/* Sorted by address. */
static struct {
	struct nu_lock lock; /* leaf */
	struct region *v;
	size_t n, room;
	size_t bytes;
} regions;

/* The first region that ends behind @addr. Lock held. */
static size_t find(uintptr_t addr)
{
	size_t low = 0, high = regions.n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (regions.v[mid].base + regions.v[mid].len_bytes <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int nu_region_find(const void *addr, size_t len, struct ibv_mr **mr_p)
{
	uintptr_t at = (uintptr_t)addr;
	int ret = -EFAULT;
	size_t i;

	nu_lock_acquire(&regions.lock);
	i = find(at);
	if (i < regions.n && at >= regions.v[i].base && len <= regions.v[i].len_bytes &&
	    at - regions.v[i].base <= regions.v[i].len_bytes - len) {
		*mr_p = regions.v[i].mr;
		ret = 0;
	}
	nu_lock_release(&regions.lock);
	return ret;
}

static int insert(const struct region *r)
{
	size_t i;
	int ret = 0;

	nu_lock_acquire(&regions.lock);
	if (regions.n == regions.room) {
		size_t room = regions.room ? 2 * regions.room : 64;
		struct region *v = realloc(regions.v, room * sizeof(*v));

		if (v) {
			regions.v = v;
			regions.room = room;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret) {
		i = find(r->base);
		memmove(&regions.v[i + 1], &regions.v[i], (regions.n - i) * sizeof(*r));
		regions.v[i] = *r;
		regions.n++;
		regions.bytes += r->len_bytes;
	}
	nu_lock_release(&regions.lock);
	return ret;
}

/* Takes out the region at @base, if it is there. */
static struct ibv_mr *take(uintptr_t base)
{
	struct ibv_mr *mr = NULL;
	size_t i;

	nu_lock_acquire(&regions.lock);
	i = find(base);
	if (i < regions.n && regions.v[i].base == base) {
		mr = regions.v[i].mr;
		regions.bytes -= regions.v[i].len_bytes;
		regions.n--;
		memmove(&regions.v[i], &regions.v[i + 1], (regions.n - i) * sizeof(regions.v[0]));
	}
	nu_lock_release(&regions.lock);
	return mr;
}

/*
 * What peers may do with a chunk. With windows not even reading: its own key is then good for nothing. The sink of
 * iWARP's READs is written to, so there a peer with a chunk's key could write as well.
 */
static int access_flags(void)
{
	int flags = IBV_ACCESS_LOCAL_WRITE;

	if (nu_verbs.windows)
		flags |= IBV_ACCESS_MW_BIND;
	else
		flags |= IBV_ACCESS_REMOTE_READ;
	if (nu_verbs.iwarp)
		flags |= IBV_ACCESS_REMOTE_WRITE;
	return flags;
}

static void say_why(size_t len, int err)
{
	struct rlimit lim = {RLIM_INFINITY, RLIM_INFINITY};

	(void)getrlimit(RLIMIT_MEMLOCK, &lim);
	if (err == ENOMEM && lim.rlim_cur != RLIM_INFINITY)
		nu_err("device %s cannot have %zu MiB of the pool: RLIMIT_MEMLOCK is %zu KiB, and with the "
		       "%zu MiB "
		       "that it has %zu MiB would be locked (ulimit -l; memlock in "
		       "/etc/security/limits.conf)",
		       nu_verbs.device, len / NU_MIB, (size_t)lim.rlim_cur / NU_KIB, regions.bytes / NU_MIB,
		       (regions.bytes + len) / NU_MIB);
	else
		nu_err("device %s cannot have %zu MiB of the pool: %s (it has %zu regions of %d)",
		       nu_verbs.device, len / NU_MIB, strerror(err), regions.n, nu_verbs.attr.max_mr);
}

static int chunk_added(void *addr, size_t len, void **priv_p)
{
	struct region r = {(uintptr_t)addr, len, NULL};
	int err = -nu_fault(NU_FAULT_RDMA_REGISTER);

	*priv_p = NULL;
	if (!nu_verbs.open)
		return -ENODEV;
	if (!err) {
		r.mr = ibv_reg_mr(nu_verbs.pd, addr, len, access_flags());
		err = r.mr ? 0 : nu_sys_errno;
	}
	if (err) {
		say_why(len, err);
		return err == ENOMEM || err == EAGAIN ? -ENOMEM : -err;
	}
	err = insert(&r);
	if (err) {
		ibv_dereg_mr(r.mr);
		return err;
	}
	nu_count(&nu_verbs_count.regions, 1);
	return 0;
}

static void drop(struct ibv_mr *mr)
{
	int err = ibv_dereg_mr(mr);

	atomic_fetch_sub_explicit(&nu_verbs_count.regions, 1, memory_order_relaxed);
	if (err && !atomic_load(&nu_verbs.removed))
		nu_err("a region of device %s cannot be given back: %s (is it still offered?)",
		       nu_verbs.device, strerror(err));
}

static void chunk_removed(void *addr, size_t len, void *priv)
{
	struct ibv_mr *mr = take((uintptr_t)addr);

	if (mr) /* else the device was closed before */
		drop(mr);
}

const struct nu_pool_ops nu_verbs_pool_ops = {chunk_added, chunk_removed};

int nu_regions_try(void)
{
	struct rlimit lim;
	struct ibv_mr *mr;
	void *p;
	int err;

	/* The limit does not hold for all users, so a chunk is tried where it looks too low. */
	if (!getrlimit(RLIMIT_MEMLOCK, &lim) &&
	    (lim.rlim_cur == RLIM_INFINITY || lim.rlim_cur > 2 * TRY_BYTES))
		return 0;
	p = mmap(NULL, TRY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -nu_sys_errno;
	mr = ibv_reg_mr(nu_verbs.pd, p, TRY_BYTES, access_flags());
	err = mr ? 0 : nu_sys_errno;
	if (err)
		say_why(TRY_BYTES, err);
	else
		ibv_dereg_mr(mr);
	munmap(p, TRY_BYTES);
	return -err;
}

void nu_regions_close(void)
{
	while (regions.n)
		drop(take(regions.v[regions.n - 1].base));
	free(regions.v);
	regions.v = NULL;
	regions.room = 0;
}
