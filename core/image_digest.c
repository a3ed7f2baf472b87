/* SPDX-License-Identifier: MIT */
/*
 * The digest of what must be equal on all nodes: the same code at the same addresses, the same register file, the same
 * layout. As text, one fact a line, so that a node that differs can be told in what.
 */
#include "core/core.h"
#include "core/image_int.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define FNV_START 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

static uint64_t fnv(uint64_t hash, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ p[i]) * FNV_PRIME;
	return hash;
}

/* The build-id among the notes at @notes, or NULL. */
static const unsigned char *find_build_id(const char *notes, size_t len, size_t *len_p)
{
	for (size_t at = 0; at + sizeof(ElfW(Nhdr)) <= len;) {
		const ElfW(Nhdr) *n = (const ElfW(Nhdr) *)(notes + at);
		size_t name_at = at + sizeof(*n), desc_at = name_at + NU_ALIGN_UP((size_t)n->n_namesz, 4);
		at = desc_at + NU_ALIGN_UP((size_t)n->n_descsz, 4);
		if (at > len)
			break;
		if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 && !memcmp(notes + name_at, "GNU", 4)) {
			*len_p = n->n_descsz;
			return (const unsigned char *)notes + desc_at;
		}
	}
	return NULL;
}

/* For an object without build-id: its code itself. */
static uint64_t hash_code(const struct dl_phdr_info *info)
{
	uint64_t hash = FNV_START;

	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type == PT_LOAD && (ph->p_flags & (PF_X | PF_R | PF_W)) == (PF_X | PF_R))
			hash = fnv(hash, (const void *)(info->dlpi_addr + ph->p_vaddr), ph->p_filesz);
	}
	return hash;
}

/* The kernel's own object differs from host to host; no frame on a moved stack lies in it. */
static bool is_vdso(const struct dl_phdr_info *info)
{
	uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);

	for (unsigned i = 0; vdso && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type == PT_LOAD && vdso - (info->dlpi_addr + ph->p_vaddr) < ph->p_memsz)
			return true;
	}
	return false;
}

static int print_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = strrchr(info->dlpi_name, '/');
	const unsigned char *id = NULL;
	size_t id_len = 0;
	FILE *f = arg;

	(void)size;
	if (is_vdso(info))
		return 0;
	name = name ? name + 1 : *info->dlpi_name ? info->dlpi_name : "(program)";
	fprintf(f, "object %s at 0x%lx", name, (unsigned long)info->dlpi_addr);
	for (unsigned i = 0; i < info->dlpi_phnum && !id; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type == PT_NOTE)
			id = find_build_id((const char *)(info->dlpi_addr + ph->p_vaddr), ph->p_memsz,
					   &id_len);
	}
	if (id) {
		fputs(" build-id ", f);
		for (size_t i = 0; i < id_len; i++)
			fprintf(f, "%02x", id[i]);
	} else {
		fprintf(f, " code-hash %016lx", (unsigned long)hash_code(info));
	}
	fputc('\n', f);
	return 0;
}

static void print_layout(FILE *f)
{
	const struct nu_layout *l = &nu_layout;
	const void *random = (const void *)getauxval(AT_RANDOM);

	/* What frames that move hold of it: the stack protector's word, and pointers that setjmp() hid. */
	fprintf(f, "guards %016lx\n", random ? (unsigned long)fnv(FNV_START, random, 16) : 0);

	fprintf(f, "page size %ld\n", sysconf(_SC_PAGESIZE));
	fprintf(f, "segments at 0x%lx bytes 0x%zx\n", (unsigned long)l->seg_base, l->seg_region_bytes);
	fprintf(f, "stacks at 0x%lx bytes 0x%zx each 0x%zx of 0x%zx node 0x%zx\n",
		(unsigned long)l->stack_base, l->stack_region_bytes, l->stack_bytes, l->stack_slot_bytes,
		l->stack_node_bytes);
}

int nu_image_digest(uint64_t *digest_p, char **text_p)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		goto no_memory;
	dl_iterate_phdr(print_object, f);
	print_layout(f);
	nu_image_print_cpu(f);
	if (fclose(f)) {
		free(text);
		goto no_memory;
	}
	*digest_p = fnv(FNV_START, text, len);
	*text_p = text;
	return 0;

no_memory:
	nu_err("no memory for the text of the layout's digest");
	return -ENOMEM;
}
