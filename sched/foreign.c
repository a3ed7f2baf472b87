/* SPDX-License-Identifier: MIT */
/*
 * A thread that is inside a library cannot be interrupted there: it may hold the library's locks. If it computes there most of
 * the time, as one that copies large blocks does, a signal hardly ever finds it in the program's own code. So it is caught on its
 * way back: the signal's handler looks for the frame of the function that the program has called, and replaces that function's
 * return address by nu_return_entry(), which keeps the results, comes to nu_preempt_point(), and goes on where the thread was to
 * return to. The address is the same on every node, so a thread that is moved meanwhile (in a comparison function that the library calls)
 * is caught there.
 *
 * Only where every frame in between is the C library's: what unwinds the stack past such a frame, an exception of C++, would
 * find no way on.
 */
#include "core/fault.h"
#include "sched/foreign.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <unwind.h>

#define FRAMES_MAX     64
#define STACK_LEFT_MIN 8192 /* what the look, or the way back, may need of the thread's stack */
#define RANGES_MAX     4

static struct {
	uintptr_t low[RANGES_MAX], high[RANGES_MAX];
	unsigned n;
} libc;

uint32_t nu_return_mask, nu_return_bytes;

/*
 * Functions of the C library that are not returned from by way of nu_return_entry(), nor is what they call: because they note
 * their return address, or return twice; because they call functions of the program's, which an exception may leave; because
 * what they take belongs to the kernel thread, and the program, as a rule, gives it back at once.
 */
static const char *const uncaught_names[] = {
	"_setjmp",
	"setjmp",
	"__sigsetjmp",
	"getcontext",
	"setcontext",
	"swapcontext",
	"fork",
	"vfork",
	"_Fork",
	"clone",
	"bsearch",
	"lfind",
	"lsearch",
	"tsearch",
	"tfind",
	"tdelete",
	"twalk",
	"twalk_r",
	"tdestroy",
	"ftw",
	"ftw64",
	"nftw",
	"nftw64",
	"scandir",
	"scandir64",
	"glob",
	"glob64",
	"pthread_once",
	"call_once",
	"dl_iterate_phdr",
	"pthread_mutex_lock",
	"pthread_mutex_timedlock",
	"pthread_mutex_clocklock",
	"pthread_cond_wait",
	"pthread_cond_timedwait",
	"pthread_cond_clockwait",
	"pthread_rwlock_rdlock",
	"pthread_rwlock_wrlock",
	"pthread_rwlock_timedrdlock",
	"pthread_rwlock_timedwrlock",
	"mtx_lock",
	"mtx_timedlock",
	"cnd_wait",
	"cnd_timedwait",
	"flockfile",
};
#define UNCAUGHT_MAX (sizeof(uncaught_names) / sizeof(uncaught_names[0]))
static struct {
	uintptr_t low[UNCAUGHT_MAX], bytes[UNCAUGHT_MAX];
	unsigned n;
} uncaught;

/* The C library's, not what stands in front of it. */
static void note_uncaught(const char *name)
{
	void *low = dlsym(RTLD_NEXT, name);
	const ElfW(Sym) *sym = NULL;
	Dl_info info;

	if (!low || !dladdr1(low, &info, (void **)&sym, RTLD_DL_SYMENT) || !sym)
		return;
	uncaught.low[uncaught.n] = (uintptr_t)low;
	uncaught.bytes[uncaught.n++] = sym->st_size;
}

static bool is_uncaught(uintptr_t pc)
{
	for (unsigned i = 0; i < uncaught.n; i++)
		if (pc - uncaught.low[i] < uncaught.bytes[i])
			return true;
	return false;
}

static int note_libc(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = strrchr(info->dlpi_name, '/');

	(void)size, (void)arg;
	name = name ? name + 1 : info->dlpi_name;
	if (strncmp(name, "libc.so", 7) && strncmp(name, "libm.so", 7) && strncmp(name, "libmvec.so", 10))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum && libc.n < RANGES_MAX; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		libc.low[libc.n] = info->dlpi_addr + ph->p_vaddr;
		libc.high[libc.n++] = info->dlpi_addr + ph->p_vaddr + ph->p_memsz;
	}
	return 0;
}

static bool is_libc(uintptr_t pc)
{
	for (unsigned i = 0; i < libc.n; i++)
		if (pc - libc.low[i] < libc.high[i] - libc.low[i])
			return true;
	return false;
}

void nu_foreign_init(void)
{
	libc.n = 0;
	dl_iterate_phdr(note_libc, NULL);
	uncaught.n = 0;
	for (unsigned i = 0; i < UNCAUGHT_MAX; i++)
		note_uncaught(uncaught_names[i]);
	if (!NU_SAN_IN_PROGRAM)
		nu_return_bytes = nu_cpu_result_registers(&nu_return_mask);
}

struct look {
	struct nu_foreign *o;
	bool seen, may, all_libc;
	unsigned n, n_foreign;
};

static void note_return(struct look *l, struct _Unwind_Context *frame, uintptr_t back)
{
	uintptr_t *slot = (uintptr_t *)_Unwind_GetCFA(frame) - 1;

	if (l->all_libc && l->n_foreign && *slot == back) {
		l->o->slot = slot;
		l->o->back = back;
	}
}

static _Unwind_Reason_Code look_at_frame(struct _Unwind_Context *frame, void *arg)
{
	struct look *l = arg;
	int before = 0;
	uintptr_t ip = _Unwind_GetIPInfo(frame, &before);
	uintptr_t pc = ip - !before; /* a return address may belong to the next function */

	if (++l->n > FRAMES_MAX)
		return _URC_END_OF_STACK;
	if (!l->seen && ip != l->o->pc)
		return _URC_NO_REASON; /* the handler's own */
	l->seen = true;
	l->may = nu_preempt_pc_ok((const void *)pc) || ip == (uintptr_t)nu_return_entry;
	if (l->may && ip != (uintptr_t)nu_return_entry)
		note_return(l, frame, ip);
	if (l->may)
		return _URC_END_OF_STACK;
	l->n_foreign++;
	if (nu_track_is_own((const void *)pc)) /* but for the C library's waits that we stand in for */
		return nu_waits_has(_Unwind_GetRegionStart(frame)) ? _URC_NO_REASON : _URC_END_OF_STACK;
	l->o->called = pc;
	l->all_libc = l->all_libc && is_libc(pc) && !is_uncaught(pc);
	return _URC_NO_REASON;
}

/* libgcc's unwinder takes no locks from glibc 2.35 on, so that a thread may be looked at that holds the loader's. */
bool nu_foreign_look(const struct nu_thread *t, uintptr_t pc, struct nu_foreign *o_p)
{
	struct look l = {.o = o_p, .all_libc = true};

	*o_p = (struct nu_foreign){.pc = pc, .called = pc};
	if (!nu_preempt_pc_ok((const void *)pc) && nu_track_is_own((const void *)pc))
		return false; /* soon told, as it is most often */
	if ((uintptr_t)__builtin_frame_address(0) - (uintptr_t)t->stack_low < STACK_LEFT_MIN)
		return false;
	_Unwind_Backtrace(look_at_frame, &l);
	return l.may;
}

bool nu_foreign_is_caught(const struct nu_thread *t)
{
	uintptr_t sp = (uintptr_t)__builtin_frame_address(0);

	/* Below: a jump has taken it past that frame. */
	return t->return_slot && (uintptr_t)t->return_slot >= sp &&
	       *t->return_slot == (uintptr_t)nu_return_entry;
}

void nu_foreign_catch(struct nu_thread *t, const struct nu_foreign *o)
{
	if (!o->slot || !nu_return_bytes || t->pmutexes || nu_foreign_is_caught(t))
		return;
	t->return_pc = o->back;
	t->return_slot = o->slot;
	*o->slot = (uintptr_t)nu_return_entry;
}

void nu_foreign_release(struct nu_thread *t)
{
	if (t->return_slot && *t->return_slot == (uintptr_t)nu_return_entry)
		*t->return_slot = t->return_pc;
	t->return_slot = NULL;
}

uintptr_t nu_return_back(void)
{
	struct nu_thread *t = nu_thread_self();
	uintptr_t back = t->return_pc;

	t->return_slot = NULL;
	nu_preempt_point();
	return back;
}
