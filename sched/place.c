/* SPDX-License-Identifier: MIT */
/*
 * Where a thread that waits is in the program: by the frame pointers of the runtime's own functions, which lie between the
 * saved context and the program's call. The program's frames need none.
 */
#include "sched/sched_int.h"

const void *nu_thread_place(const struct nu_thread *t)
{
	const uintptr_t *frame = (const uintptr_t *)NU_SAVED_FRAME(t->sp);

	while ((uintptr_t)frame >= (uintptr_t)t->sp && (uintptr_t)(frame + 2) <= (uintptr_t)t &&
	       !((uintptr_t)frame % sizeof(*frame))) {
		const uintptr_t *outer = (const uintptr_t *)frame[0];
		const void *pc = (const void *)NU_CODE_ADDRESS(frame[1]);

		if (nu_image_movable(pc))
			return (const char *)pc - 1; /* in the call, not behind it */
		if (outer <= frame)
			return NULL;
		frame = outer;
	}
	return NULL;
}
