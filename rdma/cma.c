/* SPDX-License-Identifier: MIT */
/*
 * Reader `cma`: process_vm_readv(2) between nodes on one host. One-sided: the peer runs nothing. It reads segment
 * addresses (the pool's own range is empty while an extent is installed).
 */
#include "rdma/rdma.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <poll.h>
#include <unistd.h>

#define BATCH 64

static int pidfds[NU_MAX_NODES]; /* 0: not probed; a pid may be used again, a pidfd tells */
static const uint64_t probe_word = 0x6e752d70726f6265ull;

static int cma_probe(unsigned peer, char *why, size_t why_len)
{
	uint64_t word = 0;
	/* One image: the word lies at the same address there. */
	struct iovec to = {&word, sizeof(word)}, from = {(void *)&probe_word, sizeof(word)};
	int fd;

	if (nu_node.host_of[peer] != nu_node.host_of[nu_node.self]) {
		snprintf(why, why_len, "it is on another host");
		return -EXDEV;
	}
	fd = (int)syscall(SYS_pidfd_open, nu_node.pids[peer], 0);
	if (fd < 0) {
		snprintf(why, why_len, "pidfd_open(%d): %s", nu_node.pids[peer], strerror(nu_sys_errno));
		return -nu_sys_errno;
	}
	if (process_vm_readv(nu_node.pids[peer], &to, 1, &from, 1, 0) != sizeof(word) || word != probe_word) {
		int err = nu_sys_errno;

		close(fd);
		snprintf(why, why_len,
			 "process_vm_readv of process %d: %s (kernel.yama.ptrace_scope above 1, or a seccomp "
			 "filter?)",
			 nu_node.pids[peer], strerror(err));
		return -err;
	}
	pidfds[peer] = fd;
	return 0;
}

static bool peer_alive(unsigned peer)
{
	struct pollfd pfd = {pidfds[peer], POLLIN, 0};

	int n;

	do
		n = poll(&pfd, 1, 0);
	while (n < 0 && nu_sys_errno == EINTR); /* the preemption signal */
	return n == 0;
}

/* Reads n pieces; a short transfer is continued (the kernel stops at 2 GiB and at faults). */
static int read_batch(unsigned peer, struct iovec *to, struct iovec *from, unsigned n)
{
	unsigned first = 0;

	while (first < n) {
		ssize_t got = process_vm_readv(nu_node.pids[peer], to + first, n - first, from + first,
					       n - first, 0);

		nu_stat_add(nu_core_self(), NU_STAT_READ_SYSCALLS, 1);
		if (got < 0 && nu_sys_errno == EINTR)
			continue;
		if (got <= 0) {
			int err = got ? nu_sys_errno : EFAULT;

			nu_err("reading %zu bytes at %p of node %u: %s", from[first].iov_len,
			       from[first].iov_base, peer, strerror(err));
			return err == ESRCH ? -EHOSTDOWN : err == EPERM ? -EPERM : -EIO;
		}
		while (first < n && (size_t)got >= to[first].iov_len) {
			got -= (ssize_t)to[first].iov_len;
			first++;
		}
		if (first < n) {
			to[first].iov_base = (char *)to[first].iov_base + got;
			from[first].iov_base = (char *)from[first].iov_base + got;
			to[first].iov_len -= (size_t)got;
			from[first].iov_len -= (size_t)got;
		}
	}
	return 0;
}

static int cma_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	struct iovec to[BATCH], from[BATCH];

	for (unsigned done = 0; done < npieces;) {
		unsigned n = 0;
		int ret;

		for (; n < BATCH && done + n < npieces; n++) {
			to[n] = (struct iovec){pieces[done + n].local, pieces[done + n].len_bytes};
			from[n] = (struct iovec){(void *)pieces[done + n].remote, pieces[done + n].len_bytes};
		}
		ret = read_batch(peer, to, from, n);
		if (ret)
			return ret;
		done += n;
	}
	return peer_alive(peer) ? 0 : -EHOSTDOWN; /* else the pid may have been another's */
}

const struct nu_reader_ops nu_reader_cma = {.name = "cma",
					    .bytes = NU_STAT_READ_BYTES_CMA,
					    .probe = cma_probe,
					    .read = cma_read};
