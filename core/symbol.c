/* SPDX-License-Identifier: MIT */
/*
 * What lies at an address: object, offset, and the symbol by the object's own table. For crash reports, so it takes no
 * lock and no memory: the C library finds the object without one, and its file is mapped and read here.
 */
#include "core/core.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	const char *map;
	size_t len;
};

static void copy_text(char *to, size_t size, const char *from)
{
	size_t n = 0;

	while (n + 1 < size && from[n]) {
		to[n] = from[n];
		n++;
	}
	to[n] = '\0';
}

static bool file_map(const char *path, struct file *f)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) || st.st_size < (off_t)sizeof(ElfW(Ehdr))) {
		close(fd);
		return false;
	}
	f->len = (size_t)st.st_size;
	f->map = mmap(NULL, f->len, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return f->map != MAP_FAILED;
}

/* @count items of @size at @offset, or NULL: a file's word is checked. */
static const void *part(const struct file *f, uint64_t offset, uint64_t size, uint64_t count)
{
	if (offset > f->len || offset % 4 || (count && size > (f->len - offset) / count))
		return NULL;
	return f->map + offset;
}

static const ElfW(Shdr) * symbol_section(const struct file *f, const ElfW(Shdr) * *all_p, unsigned *n_p)
{
	const ElfW(Ehdr) *eh = part(f, 0, sizeof(*eh), 1);
	const ElfW(Shdr) * sh, *found = NULL;

	if (!eh || memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_shentsize != sizeof(*sh))
		return NULL;
	sh = part(f, eh->e_shoff, sizeof(*sh), eh->e_shnum);
	for (unsigned i = 0; sh && i < eh->e_shnum; i++) {
		if (sh[i].sh_type == SHT_SYMTAB || (sh[i].sh_type == SHT_DYNSYM && !found))
			found = &sh[i];
	}
	*all_p = sh;
	*n_p = sh ? eh->e_shnum : 0;
	return found;
}

/* The function or variable that holds @offset. */
static void find_in_file(const struct file *f, struct nu_symbol *s)
{
	const ElfW(Shdr) * all, *section;
	unsigned n;

	section = symbol_section(f, &all, &n);
	if (!section || section->sh_link >= n)
		return;
	const ElfW(Shdr) *names = &all[section->sh_link];
	size_t count = section->sh_size / sizeof(ElfW(Sym));
	const ElfW(Sym) *sym = part(f, section->sh_offset, sizeof(*sym), count);
	/* A table of names ends with a NUL, or its last name might not. */
	if (!sym || !names->sh_size || names->sh_offset > f->len ||
	    names->sh_size > f->len - names->sh_offset || f->map[names->sh_offset + names->sh_size - 1])
		return;
	for (size_t i = 0; i < count; i++) {
		unsigned type = ELF64_ST_TYPE(sym[i].st_info);

		if ((type != STT_FUNC && type != STT_OBJECT) || sym[i].st_shndx == SHN_UNDEF ||
		    s->offset - sym[i].st_value >= sym[i].st_size || sym[i].st_name >= names->sh_size)
			continue;
		copy_text(s->name, sizeof(s->name), f->map + names->sh_offset + sym[i].st_name);
		s->into = s->offset - sym[i].st_value;
		return;
	}
}

bool nu_symbol_find(const void *addr, struct nu_symbol *s)
{
	struct dl_find_object where;
	const char *path;
	struct file f;
	ssize_t len;

	memset(s, 0, sizeof(*s));
	if (_dl_find_object((void *)addr, &where))
		return false;
	s->offset = (uintptr_t)addr - where.dlfo_link_map->l_addr;
	path = where.dlfo_link_map->l_name;
	if (path && *path) {
		copy_text(s->object, sizeof(s->object), path);
	} else {
		path = "/proc/self/exe";
		len = readlink(path, s->object, sizeof(s->object) - 1);
		s->object[len > 0 ? len : 0] = '\0';
		s->is_program = true;
	}
	if (file_map(path, &f)) {
		find_in_file(&f, s);
		munmap((void *)f.map, f.len);
	}
	return true;
}
