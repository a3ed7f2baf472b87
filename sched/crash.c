/* SPDX-License-Identifier: MIT */
/*
 * A crash: said whose it was (thread, proclet, class, method) and where, then the default action, with the registers of
 * the crash: a fault comes again when the handler returns, a signal that was sent is sent again.
 *
 * All of it runs in a signal handler, on the core's alternate stack. A fault while it is told, of memory that the crash has
 * spoilt, ends that part of the report only. A signal that the program handles itself is left to it.
 */
#include "core/fault.h"
#include "sched/foreign.h"

#include <execinfo.h>
#include <setjmp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define FRAMES_MAX   96
#define FRAMES_SAID  32
#define FIRST_NEAR   ((uintptr_t)1 << 20) /* the kernel's gap below a stack that grows */
#define WAIT_OTHER_S 5 /* for another kernel thread that crashed first and is being told of */

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
#define NSIGNALS (sizeof(crash_signals) / sizeof(crash_signals[0]))
static struct sigaction old_actions[NSIGNALS];
static bool ours[NSIGNALS], installed;

static atomic_int teller; /* the kernel thread that tells of its crash */
static sigjmp_buf spoilt; /* where a fault of the teller ends */
static bool telling;	  /* the above is set */
static void *frames[FRAMES_MAX];

/* The kernel thread that the process began with runs node_init, and has no alternate stack from anybody else. */
static struct {
	stack_t old;
	uintptr_t low;
	size_t bytes;
	char alt[NU_ALT_STACK] __attribute__((aligned(64)));
} first;

/* ---- a line: printf is not for signal handlers ---- */

struct line {
	char text[768];
	size_t len;
};

static void add(struct line *l, const char *s)
{
	while (*s && l->len < sizeof(l->text) - 1)
		l->text[l->len++] = *s++;
}

static void add_number(struct line *l, uint64_t v, unsigned base)
{
	char digits[24];
	size_t i = sizeof(digits) - 1;

	digits[i] = 0;
	do {
		digits[--i] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (base == 16)
		add(l, "0x");
	add(l, digits + i);
}

static void begin(struct line *l)
{
	l->len = 0;
	add(l, "nu: node ");
	add_number(l, nu_node.self, 10);
	add(l, ": ");
}

static void say(struct line *l)
{
	l->text[l->len++] = '\n';
	ssize_t ignored = write(STDERR_FILENO, l->text, l->len);
	(void)ignored;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "function+0x12 (object+0x3456)", as much of it as is known. */
static void add_place(struct line *l, const void *pc)
{
	struct nu_symbol s;

	if (!nu_symbol_find(pc, &s)) {
		add_number(l, (uintptr_t)pc, 16);
		return;
	}
	if (*s.name) {
		add(l, s.name);
		add(l, "+");
		add_number(l, s.into, 16);
		add(l, " ");
	}
	add(l, "(");
	add(l, base_name(s.object));
	add(l, "+");
	add_number(l, s.offset, 16);
	add(l, ")");
}

/* ---- what happened ---- */

struct crash {
	int signo;
	siginfo_t *info;
	struct nu_thread *thread; /* NULL: none of a proclet */
	uintptr_t pc, sp;
};

static const char *signal_name(int signo)
{
	switch (signo) {
	case SIGSEGV:
		return "SIGSEGV";
	case SIGBUS:
		return "SIGBUS";
	case SIGILL:
		return "SIGILL";
	case SIGABRT:
		return "SIGABRT";
	default:
		return "SIGFPE";
	}
}

/* The first kernel thread's stack grows to its limit, and no further. */
static bool is_first_overflow(const struct crash *c)
{
	uintptr_t addr = (uintptr_t)c->info->si_addr;

	return !c->thread && first.low && c->signo == SIGSEGV && c->info->si_code > 0 &&
	       syscall(SYS_gettid) == getpid() && addr < first.low + FIRST_NEAR &&
	       addr >= first.low - FIRST_NEAR && c->sp < first.low + FIRST_NEAR;
}

/* Below its stack, or in memory that is not mapped with the stack pointer there. */
static bool is_overflow(const struct crash *c)
{
	struct nu_thread *t = c->thread;
	uintptr_t low = t ? (uintptr_t)t->stack_low : 0, addr = (uintptr_t)c->info->si_addr;

	if (!t || c->signo != SIGSEGV || c->info->si_code <= 0)
		return false;
	return (addr < low && addr >= nu_stack_slot(t)) ||
	       (c->sp < low && c->sp >= nu_layout.stack_base && addr < low && addr >= nu_layout.stack_base);
}

static void add_method(struct line *l, const struct nu_thread *t)
{
	const struct nu_method *m = t->serve_method;

	if (m) {
		add(l, ", method ");
		add(l, m->class_name);
		add(l, ".");
		add(l, m->name);
	} else if (t->fn) {
		add(l, ", begun at ");
		add_place(l, (const void *)t->fn);
	}
}

static void add_who(struct line *l, const struct crash *c)
{
	const struct nu_thread *t = c->thread;
	const struct nu_proclet *p;
	char name[17] = "";
	unsigned node;

	if (!t && nu_on_core()) {
		add(l, "in the scheduler of core ");
		add_number(l, nu_core_self(), 10);
		return;
	}
	if (!t) {
		add(l, "in kernel thread ");
		add_number(l, (uint64_t)syscall(SYS_gettid), 10);
		prctl(PR_GET_NAME, name);
		add(l, " (");
		add(l, name);
		add(l, "), which runs no proclet");
		return;
	}
	add(l, "in thread ");
	add_number(l, (uintptr_t)t, 16);
	add(l, " of proclet ");
	add_number(l, t->proclet_id, 16);
	p = t->proclet;
	if (nu_id_is_node(t->proclet_id, &node))
		add(l, " (the node's own)");
	else if (p && p->head && p->head->cls) {
		add(l, " (class ");
		add(l, p->head->cls->name);
		add(l, ")");
	}
	add_method(l, t);
}

static void say_what(const struct crash *c)
{
	bool caused = c->info->si_code > 0, of_first = is_first_overflow(c);
	struct nu_symbol s;
	struct line l;

	begin(&l);
	if (of_first || is_overflow(c)) {
		add(&l, "stack overflow ");
		add_who(&l, c);
		add(&l, of_first ? " (its stack has " : " (stacks have ");
		add_number(&l, (of_first ? first.bytes : nu_layout.stack_bytes) >> 10, 10);
		add(&l, of_first ? " KiB: RLIMIT_STACK)" : " KiB: NU_STACK_KIB)");
		say(&l);
		return;
	}
	add(&l, signal_name(c->signo));
	if (caused && c->signo != SIGABRT) {
		add(&l, " at ");
		add_number(&l, (uintptr_t)c->info->si_addr, 16);
	}
	add(&l, " ");
	add_who(&l, c);
	if (!nu_image_movable((void *)c->pc) && nu_symbol_find((void *)c->pc, &s)) {
		add(&l, s.is_program ? ", in the runtime's code" : ", in code of ");
		if (!s.is_program)
			add(&l, base_name(s.object));
	}
	say(&l);
}

/* A global that is the same on every node, as long as nobody writes it. */
static void say_global(const struct crash *c)
{
	struct nu_symbol s;
	struct line l;

	if (c->signo != SIGSEGV || c->info->si_code != SEGV_ACCERR ||
	    !nu_image_is_protected(c->info->si_addr))
		return;
	begin(&l);
	add(&l, "that was a write to ");
	if (nu_symbol_find(c->info->si_addr, &s) && *s.name) {
		add(&l, "the global variable '");
		add(&l, s.name);
		add(&l, "'");
	} else {
		add(&l, "a global variable at ");
		add_place(&l, c->info->si_addr);
	}
	add(&l, ", which each node would have a copy of: set it in node_init, keep it in a proclet, or "
		"choose nu_run_options.writable_globals");
	say(&l);
}

/* An address in another heap than the thread's own: a pointer that was not meant for it, or is stale. */
static void say_heap(const struct crash *c)
{
	const void *addr = c->info->si_addr;
	struct nu_proclet *p;
	struct line l;

	if (c->signo != SIGSEGV || c->info->si_code <= 0 || !nu_addr_in_segments(addr))
		return;
	p = nu_proclet_around(addr);
	begin(&l);
	if (!p) {
		add(&l, "that address is where heaps lie, and no proclet's that this node knows of: its "
			"proclet is on another "
			"node, or has ended");
	} else {
		add(&l, "that address is in the heap of proclet ");
		add_number(&l, atomic_load_explicit(&p->id, memory_order_relaxed), 16);
		if (p->state == NU_PROCLET_MOVED) {
			add(&l, ", which is on node ");
			add_number(&l, p->moved_to, 10);
		} else {
			add(&l, c->thread && p == c->thread->proclet
					? ", the thread's own, where it has no block"
					: ", another's, where it has no block");
		}
	}
	say(&l);
}

static void say_moved(const struct crash *c)
{
	struct line l;

	if (!c->thread || !c->thread->moves || nu_image_movable((void *)c->pc) ||
	    nu_track_is_own((void *)c->pc))
		return;
	begin(&l);
	add(&l, "this thread has moved; what a library kept for it (a stream, a pattern, a directory) stayed "
		"behind: "
		"libnu(7), \"What stays behind\"");
	say(&l);
}

static void say_frame(unsigned i, uintptr_t pc)
{
	struct line l;

	begin(&l);
	add(&l, "  #");
	add_number(&l, i, 10);
	add(&l, " ");
	/* A return address may belong to the next line, or function. */
	add_place(&l, (void *)(i ? pc - 1 : pc));
	say(&l);
}

static void say_frames(const struct crash *c)
{
	int n = backtrace(frames, FRAMES_MAX), i = 0;
	unsigned said = 0, alike = 0; /* a recursion's frames are said once */

	while (i < n && (uintptr_t)frames[i] != c->pc)
		i++;
	say_frame(said++, c->pc);
	/* A call of a function that is none: who called is on top of the stack. */
	if (i + 1 >= n && !nu_image_movable((void *)c->pc))
		say_frame(said++, *(uintptr_t *)c->sp);
	for (i++; i < n && said < FRAMES_SAID; i++) {
		if (i && frames[i] == frames[i - 1])
			alike++;
		else
			say_frame(said++ + alike, (uintptr_t)frames[i]);
	}
}

static void part(void (*fn)(const struct crash *c), const struct crash *c)
{
	struct line l;

	if (!sigsetjmp(spoilt, 0)) {
		telling = true;
		fn(c);
	} else {
		begin(&l);
		add(&l, "(no more is known of it: its memory is spoilt)");
		say(&l);
	}
	telling = false;
}

static void call_up(const struct crash *c)
{
	if (nu_sched.ops.crashed && nu_on_core())
		nu_sched.ops.crashed(c->thread, c->signo, c->info->si_addr);
}

static void on_crash(int signo, siginfo_t *info, void *frame)
{
	const ucontext_t *uc = frame;
	struct crash c = {signo, info, nu_thread_self(), 0, 0};
	int me = (int)syscall(SYS_gettid), nobody = 0;
	const struct timespec wait = {WAIT_OTHER_S, 0};

	c.pc = NU_FRAME_PC(uc);
	c.sp = NU_FRAME_SP(uc);
	if (c.thread)
		nu_foreign_release(c.thread); /* its frames are told */
	if (atomic_compare_exchange_strong(&teller, &nobody, me)) {
		part(say_what, &c);
		part(say_global, &c);
		part(say_heap, &c);
		part(say_moved, &c);
		part(say_frames, &c);
		part(call_up, &c);
	} else if (nobody == me && telling) {
		siglongjmp(spoilt, 1);
	} else if (nobody != me) {
		nanosleep(&wait, NULL); /* its end is ours */
	}
	signal(signo, SIG_DFL);
	if (info->si_code <= 0) /* sent, not caused: returning would not bring it again */
		syscall(SYS_tgkill, getpid(), me, signo);
}

/* A handler of the program or of a library of its own stays. UCX sets one in its constructor, which knows no proclets. */
static bool is_replaced(const struct sigaction *old)
{
	struct nu_symbol s __attribute__((unused)); /* under a sanitizer */

	if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN)
		return true;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#else
	return nu_symbol_find((const void *)old->sa_handler, &s) &&
	       !strncmp(base_name(s.object), "libucs", 6);
#endif
}

static void guard_first(void)
{
	stack_t ss = {.ss_sp = first.alt, .ss_size = sizeof(first.alt)};
	pthread_attr_t attr;
	void *low;

	if (syscall(SYS_gettid) != getpid() || sigaltstack(NULL, &first.old) ||
	    !(first.old.ss_flags & SS_DISABLE) || sigaltstack(&ss, NULL))
		return;
	if (pthread_getattr_np(pthread_self(), &attr))
		return;
	if (!pthread_attr_getstack(&attr, &low, &first.bytes))
		first.low = (uintptr_t)low;
	pthread_attr_destroy(&attr);
}

static void leave_first(void)
{
	stack_t now;

	if (first.low && syscall(SYS_gettid) == getpid() && !sigaltstack(NULL, &now) &&
	    now.ss_sp == first.alt)
		sigaltstack(&first.old, NULL);
	first.low = 0;
}

int nu_crash_init(void)
{
	struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	if (installed)
		return 0;
	backtrace(frames, 1); /* loads what it needs: too late in a handler */
	guard_first();
	sigfillset(&sa.sa_mask);
	for (unsigned i = 0; i < NSIGNALS; i++)
		sigdelset(&sa.sa_mask, crash_signals[i]);
	for (unsigned i = 0; i < NSIGNALS; i++) {
		if (sigaction(crash_signals[i], NULL, &old_actions[i]))
			return -nu_sys_errno;
		ours[i] = is_replaced(&old_actions[i]);
		if (ours[i] && sigaction(crash_signals[i], &sa, NULL))
			return -nu_sys_errno;
	}
	installed = true;
	return 0;
}

void nu_crash_fini(void)
{
	struct sigaction now;

	leave_first();
	for (unsigned i = 0; i < NSIGNALS; i++) {
		/* The program may have set its own meanwhile. */
		if (ours[i] && !sigaction(crash_signals[i], NULL, &now) && now.sa_sigaction == on_crash)
			sigaction(crash_signals[i], &old_actions[i], NULL);
		ours[i] = false;
	}
	installed = false;
}
