/* SPDX-License-Identifier: MIT */
/*
 * Shared objects that are part of the program: those that have classes of their own, linked with it or opened before
 * nu_run(). A constructor that NU_CLASS makes says where an object's method descriptors are.
 */
#include "core/core.h"
#include "core/image_int.h"

#include <string.h>

static struct {
	struct nu_lock lock; /* objects may be opened by several kernel threads */
	unsigned n;
	unsigned lost;
	struct nu_image of[NU_IMAGE_OBJECTS_MAX];
} objects;

NU_API void nu_image_add(const struct nu_image *image)
{
	unsigned i;

	nu_lock_acquire(&objects.lock);
	for (i = 0; i < objects.n && objects.of[i].methods != image->methods; i++)
		;
	if (i <
	    objects.n) /* each file that includes a class says it; or, of an object closed since, the address is taken */
		objects.of[i] = *image;
	else if (i < NU_IMAGE_OBJECTS_MAX)
		objects.of[objects.n++] = *image;
	else
		objects.lost++;
	nu_lock_release(&objects.lock);
}

struct search {
	uintptr_t addr;
	struct dl_phdr_info *info_p;
};

static bool object_has(const struct dl_phdr_info *info, uintptr_t addr)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type == PT_LOAD && addr - (info->dlpi_addr + ph->p_vaddr) < ph->p_memsz)
			return true;
	}
	return false;
}

static int is_object_at(struct dl_phdr_info *info, size_t size, void *arg)
{
	const struct search *s = arg;

	(void)size;
	if (!object_has(info, s->addr))
		return 0;
	*s->info_p = *info;
	return 1;
}

/* Another runtime, which knows nothing of this one's proclets and which some of the calls would reach. */
static int is_other_libnu(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = strrchr(info->dlpi_name, '/');

	(void)size;
	name = name ? name + 1 : info->dlpi_name;
	if (strncmp(name, "libnu.so", 8) || object_has(info, (uintptr_t)&objects))
		return 0;
	*(const char **)arg = info->dlpi_name;
	return 1;
}

int nu_image_objects(nu_image_object_fn fn)
{
	const char *other = NULL;
	int ret = 0;

	if (dl_iterate_phdr(is_other_libnu, &other)) {
		nu_err("the program is linked with libnu.a, but a shared object has brought %s: link both "
		       "with "
		       "libnu.so, or the shared object with neither",
		       other);
		return -ENOEXEC;
	}
	if (objects.lost) {
		nu_err("more than %u shared objects have classes", NU_IMAGE_OBJECTS_MAX);
		return -EOVERFLOW;
	}
	for (unsigned i = 0; i < objects.n && !ret; i++) {
		struct dl_phdr_info info;
		struct search s = {(uintptr_t)objects.of[i].methods, &info};

		if (dl_iterate_phdr(is_object_at, &s)) /* else it was closed again */
			ret = fn(&info, &objects.of[i]);
	}
	return ret;
}
