/* SPDX-License-Identifier: MIT */
/* Which program a file holds: its build-id, so that two hosts can be asked whether they have the same. */
#include "buildid.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_program(const char *path, int *err_p)
{
	struct stat st;
	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return false;
	if (!access(path, X_OK))
		return true;
	*err_p = -EACCES;
	return false;
}

int buildid_find(const char *name, char *path, size_t size)
{
	const char *dirs = getenv("PATH");
	int err = -ENOENT;
	if (strchr(name, '/')) {
		if ((size_t)snprintf(path, size, "%s", name) >= size)
			return -ENAMETOOLONG;
		return is_program(path, &err) ? 0 : err;
	}
	for (const char *d = dirs ? dirs : "/bin:/usr/bin";; d++) {
		int len = (int)strcspn(d, ":");
		if ((size_t)snprintf(path, size, "%.*s%s%s", len, d, len ? "/" : "", name) < size &&
		    is_program(path, &err))
			return 0;
		d += len;
		if (!*d)
			return err;
	}
}

/* The build-id among notes at @at. */
static bool find_note(const unsigned char *at, size_t len, char *id, size_t size)
{
	while (len >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		memcpy(&n, at, sizeof(n));
		size_t name = ((size_t)n.n_namesz + 3) & ~(size_t)3,
		       desc = ((size_t)n.n_descsz + 3) & ~(size_t)3;
		size_t total = sizeof(n) + name + desc;
		if (total > len)
			return false;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && !memcmp(at + sizeof(n), "GNU", 4) &&
		    n.n_descsz && 9 + 2 * (size_t)n.n_descsz < size) {
			id += sprintf(id, "build-id ");
			for (unsigned i = 0; i < n.n_descsz; i++)
				id += sprintf(id, "%02x", at[sizeof(n) + name + i]);
			return true;
		}
		at += total;
		len -= total;
	}
	return false;
}

static bool find_elf(const unsigned char *file, size_t len, char *id, size_t size)
{
	Elf64_Ehdr h;
	if (len < sizeof(h))
		return false;
	memcpy(&h, file, sizeof(h));
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
	    h.e_phentsize != sizeof(Elf64_Phdr))
		return false;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p;
		if (h.e_phoff > len || len - h.e_phoff < (i + 1) * sizeof(p))
			return false;
		memcpy(&p, file + h.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_NOTE && p.p_offset <= len && p.p_filesz <= len - p.p_offset &&
		    find_note(file + p.p_offset, p.p_filesz, id, size))
			return true;
	}
	return false;
}

int buildid_of(const char *path, char *id, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	struct stat st;
	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	unsigned char *file =
		st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	err = st.st_size ? -errno : -ENOEXEC;
	close(fd);
	if (file == MAP_FAILED)
		return err;
	if (!find_elf(file, (size_t)st.st_size, id, size)) {
		uint64_t hash = 0xcbf29ce484222325u;
		for (size_t i = 0; i < (size_t)st.st_size; i++)
			hash = (hash ^ file[i]) * 0x100000001b3u;
		snprintf(id, size, "hash %016llx", (unsigned long long)hash);
	}
	munmap(file, (size_t)st.st_size);
	return 0;
}
