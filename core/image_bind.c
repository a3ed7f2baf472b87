/* SPDX-License-Identifier: MIT */
/*
 * Early binding of a program that was linked for lazy binding: its table of calls shares pages with its globals, and
 * write-protecting those would break the first call of every function.
 */
#include "core/core.h"
#include "core/image_int.h"

#include <dlfcn.h>
#include <elf.h>
#include <string.h>

struct dynamic {
	uintptr_t base;
	const ElfW(Rela) * rela; /* jump slots */
	size_t nrela;
	const ElfW(Sym) * symbols;
	const char *strings;
	const ElfW(Half) * versions;  /* version index by symbol; may be NULL */
	const ElfW(Verneed) * needed; /* which versions of which objects; may be NULL */
	size_t nneeded;
	uintptr_t got;
	bool now;
};

static void read_entry(struct dynamic *d, const ElfW(Dyn) * e)
{
	/* The C library has relocated some of the addresses in place, and left others as they are in the file. */
	uintptr_t addr = e->d_un.d_ptr < d->base ? d->base + e->d_un.d_ptr : e->d_un.d_ptr;
	const void *ptr = (const void *)addr;

	switch (e->d_tag) {
	case DT_JMPREL:
		d->rela = ptr;
		break;
	case DT_PLTRELSZ:
		d->nrela = e->d_un.d_val / sizeof(*d->rela);
		break;
	case DT_SYMTAB:
		d->symbols = ptr;
		break;
	case DT_STRTAB:
		d->strings = ptr;
		break;
	case DT_VERSYM:
		d->versions = ptr;
		break;
	case DT_VERNEED:
		d->needed = ptr;
		break;
	case DT_VERNEEDNUM:
		d->nneeded = e->d_un.d_val;
		break;
	case DT_PLTGOT:
		d->got = addr;
		break;
	case DT_BIND_NOW:
		d->now = true;
		break;
	case DT_FLAGS:
		d->now |= !!(e->d_un.d_val & DF_BIND_NOW);
		break;
	case DT_FLAGS_1:
		d->now |= !!(e->d_un.d_val & DF_1_NOW);
		break;
	default:
		break;
	}
}

static bool read_dynamic(struct dynamic *d)
{
	struct dl_phdr_info info = nu_image_program();

	memset(d, 0, sizeof(*d));
	d->base = info.dlpi_addr;
	for (unsigned i = 0; i < info.dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info.dlpi_phdr[i];
		if (ph->p_type != PT_DYNAMIC)
			continue;
		const ElfW(Dyn) *e = (const ElfW(Dyn) *)(info.dlpi_addr + ph->p_vaddr);
		for (; e->d_tag != DT_NULL; e++)
			read_entry(d, e);
	}
	return d->rela && d->nrela && d->symbols && d->strings && d->got;
}

static const char *version_name(const struct dynamic *d, size_t symbol)
{
	const ElfW(Verneed) *need = d->needed;
	ElfW(Half) index = d->versions ? d->versions[symbol] & 0x7fff : 0;

	for (size_t i = 0; index > 1 && need && i < d->nneeded; i++) {
		const ElfW(Vernaux) *aux = (const ElfW(Vernaux) *)((const char *)need + need->vn_aux);
		for (unsigned j = 0; j < need->vn_cnt; j++) {
			if ((aux->vna_other & 0x7fff) == index)
				return d->strings + aux->vna_name;
			aux = (const ElfW(Vernaux) *)((const char *)aux + aux->vna_next);
		}
		need = (const ElfW(Verneed) *)((const char *)need + need->vn_next);
	}
	return NULL;
}

static bool bind_slot(const struct dynamic *d, const ElfW(Rela) * r)
{
	size_t index = ELF64_R_SYM(r->r_info);
	const ElfW(Sym) *sym = &d->symbols[index];
	const char *name = d->strings + sym->st_name;
	const char *version;
	void *target;

	if (ELF64_R_TYPE(r->r_info) == NU_R_IRELATIVE)
		return true; /* resolved at load */
	/*
	 * An undefined symbol with a value is the program's own stub, which stands for the function's address
	 * everywhere: looking the name up would find the stub, and the stub would call itself.
	 */
	if (ELF64_R_TYPE(r->r_info) != NU_R_JUMP_SLOT || (sym->st_shndx == SHN_UNDEF && sym->st_value != 0))
		return false;
	version = version_name(d, index);
	target = version ? dlvsym(RTLD_DEFAULT, name, version) : dlsym(RTLD_DEFAULT, name);
	if (!target) /* a weak one that nobody defines, is never called */
		return ELF64_ST_BIND(sym->st_info) == STB_WEAK;
	__atomic_store_n((uintptr_t *)(d->base + r->r_offset), (uintptr_t)target, __ATOMIC_RELAXED);
	return true;
}

bool nu_image_lazy_got(uintptr_t *start_p, uintptr_t *end_p)
{
	struct dynamic d;
	uintptr_t end;
	bool all = true;

	if (!read_dynamic(&d) || d.now)
		return false;
	end = d.got;
	for (size_t i = 0; i < d.nrela; i++) {
		uintptr_t slot_end = d.base + d.rela[i].r_offset + sizeof(uintptr_t);
		if (slot_end > end)
			end = slot_end;
		all &= bind_slot(&d, &d.rela[i]);
	}
	*start_p = d.got;
	*end_p = end;
	return !all;
}
