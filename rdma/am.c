/* SPDX-License-Identifier: MIT */
/*
 * Reader `am`: asks the peer for its bytes with messages. Not one-sided: the peer copies. The way between hosts without
 * RDMA, and on one host where process_vm_readv is denied (containers, yama).
 */
#include "rdma/rdma.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <sys/mman.h>

#define CHUNK_BYTES ((size_t)256 << 10)

struct read_args {
	uint64_t address, len_bytes;
};

/* Only what moves may be asked for: heaps and stacks. */
static bool may_be_read(uint64_t address, uint64_t len)
{
	uint64_t stack_end = nu_layout.stack_base + nu_layout.stack_region_bytes;
	uint64_t seg_end = nu_layout.seg_base + nu_layout.seg_region_bytes;
	bool in_stacks = address >= nu_layout.stack_base && address < stack_end && len <= stack_end - address;
	bool in_segments = address >= nu_layout.seg_base && address < seg_end && len <= seg_end - address;

	return len <= CHUNK_BYTES && (in_stacks || in_segments);
}

/* Through the kernel, so that a hole is an error and not a crash; by way of a file where process_vm_readv is denied. */
static bool copy_out(void *to, const void *from, size_t len)
{
	struct iovec dst = {to, len}, src = {(void *)from, len};
	bool whole;
	int fd = -1;

	nu_sys_errno = 0; /* a short transfer sets none */
	whole = process_vm_readv(getpid(), &dst, 1, &src, 1, 0) == (ssize_t)len;
	if (!whole && (nu_sys_errno == EPERM || nu_sys_errno == ENOSYS)) {
		fd = memfd_create("nu-read", MFD_CLOEXEC);
		whole = fd >= 0 && pwrite(fd, from, len, 0) == (ssize_t)len &&
			pread(fd, to, len, 0) == (ssize_t)len;
	}
	if (fd >= 0)
		close(fd);
	return whole;
}

/* On the peer. */
static void read_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct read_args *a = args;
	char *copy;

	if (!may_be_read(a->address, a->len_bytes)) {
		nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
		nu_warn("refused to read %lu bytes at %#lx to a peer", (unsigned long)a->len_bytes,
			(unsigned long)a->address);
		return;
	}
	copy = malloc(a->len_bytes);
	if (!copy)
		return;
	if (copy_out(copy, (const void *)a->address, a->len_bytes))
		nu_out_bytes(out, copy, a->len_bytes);
	else
		nu_warn("%lu bytes at %#lx, which a peer asks for, cannot be read: %s",
			(unsigned long)a->len_bytes, (unsigned long)a->address, strerror(nu_sys_errno));
	free(copy);
}
__attribute__((section("nu_methods"), used)) static const struct nu_method read_method = {
	.class_name = "node",
	.name = "read",
	.run = read_run,
	.args_bytes = sizeof(struct read_args),
	.result_kind = NU_RESULT_SPAN,
	.result_item_bytes = 1,
	.magic = NU_METHOD_MAGIC,
	.cls = &nu_node_class,
};

static int am_probe(unsigned peer, char *why, size_t why_len)
{
	return 0; /* what carries calls carries this */
}

static int am_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	const struct nu_ref node = {nu_id_of_node(peer)};

	for (unsigned i = 0; i < npieces; i++) {
		for (size_t done = 0; done < pieces[i].len_bytes;) {
			size_t left = pieces[i].len_bytes - done;
			struct read_args a = {pieces[i].remote + done,
					      left < CHUNK_BYTES ? left : CHUNK_BYTES};
			struct nu_bytes got = {NULL, 0};
			int ret = nu_call(node, &read_method, &a, &got);

			if (!ret && got.len_bytes == a.len_bytes)
				memcpy((char *)pieces[i].local + done, got.data, got.len_bytes);
			else if (!ret)
				ret = -EIO;
			nu_proclet_free(nu_thread_self()->proclet, (void *)got.data);
			if (ret)
				return ret;
			done += a.len_bytes;
		}
	}
	return 0;
}

const struct nu_reader_ops nu_reader_am = {.name = "am",
					   .bytes = NU_STAT_READ_BYTES_AM,
					   .probe = am_probe,
					   .read = am_read};
