/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that libraries open on our behalf without close-on-exec: a program that the program executes would keep a
 * job's sockets open.
 */
#include "core/core.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static void for_each(void (*fn)(int fd, struct nu_fds *set), struct nu_fds *set)
{
	DIR *d = opendir("/proc/self/fd");

	for (struct dirent *e; d && (e = readdir(d));) {
		int fd = atoi(e->d_name);

		if (e->d_name[0] != '.' && fd != dirfd(d) && fd > 2 && fd < NU_FDS_MAX)
			fn(fd, set);
	}
	if (d)
		closedir(d);
}

static void note(int fd, struct nu_fds *set)
{
	set->open[fd / 8] = (uint8_t)(set->open[fd / 8] | 1u << fd % 8);
}

static void mark(int fd, struct nu_fds *set)
{
	int flags = set->open[fd / 8] & 1u << fd % 8 ? -1 : fcntl(fd, F_GETFD);

	if (flags >= 0 && !(flags & FD_CLOEXEC))
		fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

void nu_fds_note(struct nu_fds *set)
{
	memset(set, 0, sizeof(*set));
	for_each(note, set);
}

void nu_fds_close_new_on_exec(struct nu_fds *set)
{
	for_each(mark, set);
}
