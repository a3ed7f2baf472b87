/* SPDX-License-Identifier: MIT */
/*
 * dlopen() by the program's code: refused once the nodes have been found alike, unless it opens nothing new. An object
 * that only one node has, or has elsewhere, would be called by threads that have moved. Libraries go on as they like.
 */
#include "core/core.h"

#include <dlfcn.h>

/* What dlerror() then says is made from the file's name. */
#define REFUSED "dlopen refused: a job's nodes must have the same objects; open it before nu_run()"

typedef void *(*dlopen_fn)(const char *file, int mode);
typedef void *(*dlmopen_fn)(Lmid_t space, const char *file, int mode);

static atomic_bool sealed;

void nu_image_seal(bool on)
{
	atomic_store(&sealed, on);
}

static bool is_refused(const void *caller, const char *file)
{
	return unlikely(atomic_load_explicit(&sealed, memory_order_relaxed)) && file &&
	       nu_image_movable(caller);
}

static __attribute__((noinline)) void *refuse(dlopen_fn real, const char *file, int mode)
{
	void *handle = real(file, (mode & ~RTLD_GLOBAL) | RTLD_NOLOAD);

	if (handle)
		return handle;
	nu_warn("%s: %s", file, REFUSED);
	return real(REFUSED, RTLD_NOW);
}

/* The C library looks at its caller's address, too (for its RUNPATH): a jump, not a call, leaves it to be seen. */
#ifdef __clang__
#define JUMPS /* where it optimises */
#else
#define JUMPS __attribute__((optimize("O2")))
#endif

JUMPS NU_API void *dlopen(const char *file, int mode)
{
	dlopen_fn real = (dlopen_fn)dlsym(RTLD_NEXT, "dlopen");

	if (is_refused(__builtin_return_address(0), file))
		return refuse(real, file, mode);
	return real(file, mode);
}

JUMPS NU_API void *dlmopen(Lmid_t space, const char *file, int mode)
{
	dlmopen_fn real = (dlmopen_fn)dlsym(RTLD_NEXT, "dlmopen");

	if (is_refused(__builtin_return_address(0), file))
		return refuse((dlopen_fn)dlsym(RTLD_NEXT, "dlopen"), file, mode);
	return real(space, file, mode);
}
