/* SPDX-License-Identifier: MIT */
/*
 * Errors in words, and other small things of nu.h that need no state.
 */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

#define ERRNO_MAX 134

/* What these mean when a function of Nu returns them: more than the C library's words say. */
static const char *const meanings[ERRNO_MAX] = {
	[0] = "no error",
	[EPERM] = "EPERM: the proclet is pinned, or the caller may not do this",
	[EIO] = "EIO: a structure or a connection is damaged",
	[ENOMEM] = "ENOMEM: the heap, its segment or the node's memory is full, or a limit was reached",
	[EBUSY] = "EBUSY: being moved already, or not possible now",
	[EEXIST] = "EEXIST: there is one already",
	[EINVAL] = "EINVAL: invalid argument, or not the caller's to use",
	[EDEADLK] = "EDEADLK: it would wait for itself",
	[EPROTO] = "EPROTO: this node's layout or protocol differs from the others'",
	[EBADMSG] = "EBADMSG: a peer's message does not make sense",
	[EMSGSIZE] = "EMSGSIZE: arguments or results are larger than a message may be",
	[ETIMEDOUT] = "ETIMEDOUT: not done in time; a call may have run, or run yet",
	[EHOSTDOWN] = "EHOSTDOWN: the node died, and the proclet with it",
	[ELIBBAD] = "ELIBBAD: the program's malloc is not libnu's",
	[ESTALE] = "ESTALE: no such proclet any more",
};

const char *nu_strerror(int err)
{
	static char texts[ERRNO_MAX][96]; /* filled in as they are asked for */
	static atomic_bool done[ERRNO_MAX];
	static struct nu_lock lock;
	unsigned e = err < 0 ? 0u - (unsigned)err : (unsigned)err;
	const char *name;

	if (e >= ERRNO_MAX)
		return "unknown error";
	if (meanings[e])
		return meanings[e];
	if (atomic_load_explicit(&done[e], memory_order_acquire))
		return texts[e];
	name = strerrorname_np((int)e);
	if (!name)
		return "unknown error";
	nu_lock_acquire(&lock);
	if (!atomic_load_explicit(&done[e], memory_order_relaxed)) {
		snprintf(texts[e], sizeof(texts[e]), "%s: %s", name, strerrordesc_np((int)e));
		atomic_store_explicit(&done[e], true, memory_order_release);
	}
	nu_lock_release(&lock);
	return texts[e];
}

struct nu_str nu_str(const char *s)
{
	return s ? (struct nu_str){s, strlen(s)} : (struct nu_str){"", 0};
}

/* Where there are no user-level threads (sched/ has the other definition) the kernel thread's errno will do. */
__attribute__((weak)) int *nu_errno_location(void)
{
	return __errno_location();
}
