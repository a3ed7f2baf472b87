/* SPDX-License-Identifier: MIT */
/*
 * The objects mapped in this process: which code may be interrupted and moved, which method descriptors are genuine,
 * which data is write-protected, and what must be equal on all nodes for frames on a moved stack to mean the same.
 */
#include "core/core.h"
#include "core/image_int.h"

#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RANGES_MAX 4
#define CODE_MAX   (RANGES_MAX + NU_IMAGE_OBJECTS_MAX)

struct range {
	uintptr_t start, end;
};

/* Code of the program's object, then of its shared objects; ncode is written last and read first. */
static struct range code[CODE_MAX];
static atomic_uint ncode;
static struct range own_code;		 /* libnu's code within it, when linked statically */
static struct range guarded[RANGES_MAX]; /* what is write-protected now; nguarded is written last */
static atomic_uint nguarded;
static struct range program_methods, own_methods;
static struct range object_methods[NU_IMAGE_OBJECTS_MAX];
static unsigned nobjects;

/* libnu's functions, where they are linked into the program itself. */
extern const char __start_nu_text[] __attribute__((weak, visibility("hidden")));
extern const char __stop_nu_text[] __attribute__((weak, visibility("hidden")));

NU_NO_TSAN bool nu_image_movable(const void *pc)
{
	uintptr_t p = (uintptr_t)pc;
	unsigned n = atomic_load_explicit(&ncode, memory_order_acquire);

	for (unsigned i = 0; i < n; i++) {
		if (p - code[i].start < code[i].end - code[i].start)
			return p - own_code.start >= own_code.end - own_code.start;
	}
	return false;
}

/* dl_iterate_phdr() shows the program first. */
static int find_program(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	*(struct dl_phdr_info *)arg = *info;
	return 1;
}

struct dl_phdr_info nu_image_program(void)
{
	struct dl_phdr_info info = {0};

	dl_iterate_phdr(find_program, &info);
	return info;
}

static int find_exec_stack(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size, (void)arg;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_GNU_STACK && info->dlpi_phdr[i].p_flags & PF_X)
			return 1;
	}
	return 0;
}

bool nu_image_wants_exec_stack(void)
{
	return dl_iterate_phdr(find_exec_stack, NULL) != 0;
}

/* A thread that goes on elsewhere finds another kernel thread's. Linked statically, libnu has some of its own there. */
static void warn_of_tls(const struct dl_phdr_info *info, const char *what)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type == PT_TLS && ph->p_memsz &&
		    (uintptr_t)__start_nu_text == (uintptr_t)__stop_nu_text && !nu_node.self)
			nu_warn("%s has %zu bytes of thread-local variables: a proclet's thread that moves, "
				"or "
				"waits, finds another kernel thread's",
				what, (size_t)ph->p_memsz);
	}
}

static int add_code(const struct dl_phdr_info *info, const char *what, unsigned *n_p)
{
	unsigned begin = *n_p;

	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		if (*n_p == CODE_MAX || *n_p - begin == RANGES_MAX) {
			nu_err("%s has more executable segments than there is room for: %d, %d of an object",
			       what, CODE_MAX, RANGES_MAX);
			return -EOVERFLOW;
		}
		code[*n_p].start = info->dlpi_addr + ph->p_vaddr;
		code[(*n_p)++].end = info->dlpi_addr + ph->p_vaddr + ph->p_memsz;
	}
	if (*n_p == begin) {
		nu_err("%s has no executable segment", what);
		return -ENOEXEC;
	}
	return 0;
}

/* A shared object that has classes is part of the program; its globals are not write-protected. */
static int add_object(const struct dl_phdr_info *info, const struct nu_image *image)
{
	struct range methods = {(uintptr_t)image->methods, (uintptr_t)image->methods_end};
	unsigned n = atomic_load_explicit(&ncode, memory_order_relaxed);
	int ret;

	if (info->dlpi_addr == nu_image_program().dlpi_addr || methods.start == own_methods.start)
		return 0;
	ret = add_code(info, info->dlpi_name, &n);
	if (ret)
		return ret;
	nu_info("%s has classes: its code is the program's, its globals are not write-protected",
		info->dlpi_name);
	warn_of_tls(info, info->dlpi_name);
	object_methods[nobjects++] = methods;
	atomic_store_explicit(&ncode, n, memory_order_release);
	return 0;
}

int nu_image_init(const struct nu_image *image)
{
	struct dl_phdr_info info = nu_image_program();
	unsigned n = 0;
	int ret = add_code(&info, "the program", &n);

	if (ret)
		return ret;
	warn_of_tls(&info, "the program");
	own_code = (struct range){(uintptr_t)__start_nu_text, (uintptr_t)__stop_nu_text};
	own_methods = (struct range){(uintptr_t)__start_nu_methods, (uintptr_t)__stop_nu_methods};
	if (image)
		program_methods = (struct range){(uintptr_t)image->methods, (uintptr_t)image->methods_end};
	if (n && own_code.start - code[0].start >= code[0].end - code[0].start) {
		nu_image_code_start = code[0].start;
		nu_image_code_bytes = code[0].end - code[0].start;
	}
	nobjects = 0;
	atomic_store_explicit(&ncode, n, memory_order_release);
	return nu_image_objects(add_object);
}

/* A section of them is an array: only its members' addresses will do. */
static bool is_member(const struct range *r, const struct nu_method *m)
{
	uintptr_t offset = (uintptr_t)m - r->start;

	return r->end - r->start >= sizeof(*m) && offset <= r->end - r->start - sizeof(*m) &&
	       offset % sizeof(*m) == 0;
}

static bool __attribute__((noinline)) is_of_object(const struct nu_method *m)
{
	for (unsigned i = 0; i < nobjects; i++) {
		if (is_member(&object_methods[i], m))
			return true;
	}
	return false;
}

bool nu_image_is_method(const struct nu_method *m)
{
	if (!is_member(&program_methods, m) && !is_member(&own_methods, m) && !is_of_object(m))
		return false;
	return m->magic == NU_METHOD_MAGIC;
}

const struct nu_class *nu_image_class_of(const struct nu_method *init)
{
	return nu_image_is_method(init) && init->constructor && init->cls->init == init ? init->cls : NULL;
}

/* ---- write protection ---- */

/* What the loader keeps read-only after relocation is so already and stays so. */
static uintptr_t relro_end(const struct dl_phdr_info *info, uintptr_t start, uintptr_t end)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t s = info->dlpi_addr + ph->p_vaddr;
		if (ph->p_type == PT_GNU_RELRO && s >= start && s < end)
			return (s + ph->p_memsz) & ~(page - 1);
	}
	return start & ~(page - 1);
}

/*
 * With lazy binding the first call of each function writes the program's global offset table, so those calls are bound
 * first. If one cannot be, the table's pages (and what else lies in them) stay writable.
 */
static uintptr_t skip_got(uintptr_t start, uintptr_t end)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t got, got_end;

	if (!nu_image_lazy_got(&got, &got_end) || got >= end || got_end <= start)
		return start;
	nu_warn("globals up to %p are not write-protected: the program binds lazily (link it with -z now)",
		(void *)NU_ALIGN_UP(got_end, page));
	return NU_ALIGN_UP(got_end, page);
}

/* The program's writable data, but for what @on must leave writable. */
static unsigned find_globals(struct range *found, bool on)
{
	struct dl_phdr_info info = nu_image_program();
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	unsigned n = 0;

	for (unsigned i = 0; i < info.dlpi_phnum && n < RANGES_MAX; i++) {
		const ElfW(Phdr) *ph = &info.dlpi_phdr[i];
		uintptr_t start = info.dlpi_addr + ph->p_vaddr, end = start + ph->p_memsz;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_W))
			continue;
		start = relro_end(&info, start, end);
		end = NU_ALIGN_UP(end, page);
		if (on)
			start = skip_got(start, end);
		if (start < end)
			found[n++] = (struct range){start, end};
	}
	return n;
}

/*
 * Some variables of the C library live in the program's .bss when the program names them (copy relocations): `environ`
 * (written by setenv), `optind`, `optarg` (getopt), `stdout` and its like (freopen), `timezone`, `tzname`, `daylight`
 * (tzset), `signgam` (lgamma). While protected, a function that writes one faults like the program's own write would:
 * parse options and set the environment in node_init or before.
 */
int nu_image_protect(bool on)
{
	struct range found[RANGES_MAX] = {0};
	unsigned n;

	if (NU_SAN_IN_PROGRAM)
		return 0;
	if ((uintptr_t)__start_nu_text != (uintptr_t)__stop_nu_text) {
		nu_info("globals are not write-protected: libnu is linked statically, its data lies among "
			"them");
		return 0;
	}
	n = find_globals(found, on);
	if (on) { /* first: linked into a test, these are among what is protected */
		memcpy(guarded, found, sizeof(guarded));
		atomic_store_explicit(&nguarded, n, memory_order_release);
	}
	for (unsigned i = 0; i < n; i++) {
		if (mprotect((void *)found[i].start, found[i].end - found[i].start,
			     on ? PROT_READ : PROT_READ | PROT_WRITE)) {
			int err = -nu_sys_errno;
			nu_err("cannot write-protect the program's data %p-%p: %s", (void *)found[i].start,
			       (void *)found[i].end, strerror(-err));
			return err;
		}
	}
	if (!on)
		atomic_store_explicit(&nguarded, 0, memory_order_release);
	return 0;
}

bool nu_image_is_protected(const void *addr)
{
	unsigned n = atomic_load_explicit(&nguarded, memory_order_acquire);

	for (unsigned i = 0; i < n; i++) {
		if ((uintptr_t)addr - guarded[i].start < guarded[i].end - guarded[i].start)
			return true;
	}
	return false;
}
