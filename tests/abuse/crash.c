/* SPDX-License-Identifier: MIT */
/*
 * Crashes on demand: abuse_crash WHERE WHAT [KIB]. WHERE: method (of a proclet on the last node), thread (that the method
 * spawned), main, moved (a thread that goes down on the node it was moved to), other (the caller is told, the job goes
 * on), pthread, init (node_init on node 1).
 */
#include <nu/nu.h>

#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define SMASHED	 24

static const char *const whats[] = {"null",	  "call-null", "bus",	  "ill",	  "fpe",
				    "abort",	  "frame",     "recurse", "double-free",  "foreign-free",
				    "inner-free", "overflow",  "global",  "raise",	  "big-free",
				    "used-after", "library",   "smash",	  "foreign-read", "stray-read"};
enum {
	NULL_WRITE,
	CALL_NULL,
	BUS,
	ILL,
	FPE,
	ABORT,
	FRAME,
	RECURSE,
	DOUBLE_FREE,
	FOREIGN_FREE,
	INNER_FREE,
	OVERFLOW,
	GLOBAL,
	RAISE,
	BIG_FREE,
	USED_AFTER,
	LIBRARY,
	SMASH,
	FOREIGN_READ,
	STRAY_READ,
	WHATS
};

static volatile int a_global = 1;

/* A frame of so many KiB, of which the far end is touched first, as a large array's first element is. */
static NOINLINE int large_frame(unsigned kib)
{
	volatile char *array = alloca((size_t)kib << 10);

	array[0] = 1;
	array[((size_t)kib << 10) - 1] = 2;
	return array[0];
}

static NOINLINE int recurse(unsigned depth)
{
	volatile char array[500];

	array[0] = (char)depth;
	return depth ? recurse(depth + 1) + array[0] : 0;
}

static NOINLINE void bus_error(void)
{
	char name[] = "/tmp/nu-abuse-XXXXXX";
	int fd = mkstemp(name);
	char *map;

	unlink(name);
	(void)!ftruncate(fd, 4096);
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	(void)!ftruncate(fd, 0);
	(void)*(volatile char *)map;
}

/* Uses the block's neighbours up, so that what lies behind it is free and comes back soon. */
static NOINLINE void overflow_block(void)
{
	char *blocks[64], *fresh;

	for (int i = 0; i < 64; i++)
		blocks[i] = malloc(48);
	for (int i = 1; i < 64; i++)
		free(blocks[i]);
	memset(blocks[0], 'x', 48 + 40);
	for (int i = 0; i < 64; i++) {
		fresh = malloc(48);
		memset(fresh, 0, 48);
	}
}

static NOINLINE void use_after_free(void)
{
	char *volatile block = malloc(96);

	free(block);
	memset(block, 'y', 96);
	for (int i = 0; i < 64; i++)
		memset(malloc(96), 0, 96);
}

/* Where the callers' return addresses were: what looks for them next meets @wild. */
static NOINLINE void smash(uintptr_t wild)
{
	volatile uintptr_t *at = __builtin_frame_address(0);

	for (unsigned i = 0; i < SMASHED; i++)
		at[i] = wild;
	*(volatile int *)(wild & 0xff8) = 1;
}

static NOINLINE int go_wrong(int what, uint64_t arg, void *foreign)
{
	void *volatile block;
	volatile int zero = 0, seven = 7;

	switch (what) {
	case NULL_WRITE:
		*(volatile int *)(uintptr_t)arg = 1;
		break;
	case CALL_NULL:
		((void (*volatile)(void))(uintptr_t)arg)();
		break;
	case BUS:
		bus_error();
		break;
	case ILL:
		__builtin_trap();
	case FPE:
		return seven / zero;
	case ABORT:
		abort();
	case FRAME:
		return large_frame((unsigned)arg);
	case RECURSE:
		return recurse(1);
	case DOUBLE_FREE:
		block = malloc(40);
		free(block);
		free(block);
		break;
	case FOREIGN_READ:
		return *(volatile int *)foreign;
	case STRAY_READ: /* far from every segment in use */
		return *(volatile int *)(0x300000000000 + ((uint64_t)20 << 40));
	case FOREIGN_FREE:
		free(foreign);
		break;
	case INNER_FREE:
		block = malloc(4000);
		free((char *)block + 16);
		break;
	case OVERFLOW:
		overflow_block();
		break;
	case GLOBAL:
		a_global = 7;
		break;
	case RAISE:
		raise(SIGSEGV);
		break;
	case BIG_FREE:
		block = malloc(1 << 20);
		free(block);
		free(block);
		break;
	case USED_AFTER:
		use_after_free();
		break;
	case SMASH:
		smash(arg);
		break;
	case LIBRARY:
		return (int)strlen((char *)(uintptr_t)arg);
	}
	return zero;
}

/* ---- where ---- */

struct bad {
	struct nu_sem begun;
	int what;
	uint64_t arg;
	_Atomic bool go;
};
NU_CLASS(bad);
NU_METHOD(bad, act, val(int), val(int, what), val(uint64_t, arg), val(uint64_t, foreign));
NU_METHOD(bad, act_in_thread, val(int), val(int, what), val(uint64_t, arg));
NU_METHOD(bad, begin_in_thread, val(int), val(int, what), val(uint64_t, arg));
NU_METHOD(bad, go, none);
NU_METHOD(bad, block, val(uint64_t));
NU_METHOD(bad, fine, val(int));

int bad_init(struct bad *b)
{
	return 0;
}

int bad_do_act(struct bad *b, int what, uint64_t arg, uint64_t foreign)
{
	return go_wrong(what, arg, (void *)(uintptr_t)foreign);
}

static void waits_and_acts(void *arg)
{
	struct bad *b = arg;

	nu_sem_post(&b->begun);
	while (!b->go)
		nu_sleep_us(200);
	go_wrong(b->what, b->arg, NULL);
}

int bad_do_begin_in_thread(struct bad *b, int what, uint64_t arg)
{
	int ret;

	b->what = what;
	b->arg = arg;
	ret = nu_thread_spawn(waits_and_acts, b, NULL);
	if (!ret)
		nu_sem_wait(&b->begun);
	return ret;
}

void bad_do_go(struct bad *b)
{
	b->go = true;
}

int bad_do_act_in_thread(struct bad *b, int what, uint64_t arg)
{
	int ret;

	b->go = true;
	ret = bad_do_begin_in_thread(b, what, arg);
	if (!ret)
		nu_sleep_us(30000000);
	return ret;
}

uint64_t bad_do_block(struct bad *b)
{
	return (uint64_t)malloc(64);
}

int bad_do_fine(struct bad *b)
{
	return 42;
}

static int what_of(const char *name)
{
	for (int i = 0; i < WHATS; i++)
		if (!strcmp(name, whats[i]))
			return i;
	fprintf(stderr, "no such mistake: %s\n", name);
	exit(99);
}

static int where_moved(struct bad_ref ref, int what, uint64_t arg)
{
	int inner = 0, ret = bad_begin_in_thread(ref, what, arg, &inner);

	for (unsigned i = 0; i < 3 && !ret; i++)
		ret = nu_migrate(ref.ref, i % nu_node_count());
	if (!ret)
		ret = bad_go(ref);
	nu_sleep_us(20000000);
	return ret ? 98 : 97;
}

/* The proclet's node dies; this one hears of it and goes on. */
static int where_other(struct bad_ref ref, int what, uint64_t arg)
{
	struct nu_options here = {.node = NU_NODE(0)};
	NU_SCOPED(bad, second);
	int inner = 0, ret = bad_act(ref, what, arg, 0, &inner), fine = 0;

	printf("the call said %s\n", nu_strerror(ret));
	if (ret != -EHOSTDOWN)
		return 96;
	ret = bad_create(&here, &second);
	if (!ret)
		ret = bad_fine(second, &fine);
	printf("another proclet says %d, %s\n", fine, nu_strerror(ret));
	return fine == 42 ? 0 : 95;
}

static uint64_t thread_args[2];
static bool in_init;

static void *plain_thread(void *arg)
{
	go_wrong((int)thread_args[0], thread_args[1], NULL);
	return NULL;
}

static int mainfunc(int argc, char **argv)
{
	const char *where = argv[1];
	int what = what_of(argv[2]), inner = 0, ret;
	uint64_t arg = argc > 3 ? strtoul(argv[3], NULL, 0) : 0, foreign = 0;
	struct nu_options far = {.node = NU_NODE(nu_node_count() - 1)};
	NU_SCOPED(bad, ref);
	NU_SCOPED(bad, owner);

	if (!strcmp(where, "main"))
		return go_wrong(what, arg, NULL);
	ret = bad_create(&far, &ref);
	if (!ret)
		ret = bad_create(&far, &owner);
	if (!ret && (what == FOREIGN_FREE || what == FOREIGN_READ))
		ret = bad_block(owner, &foreign);
	if (!ret && what == FOREIGN_READ)
		ret = nu_migrate(owner.ref, 0);
	if (ret)
		return 94;
	if (!strcmp(where, "method"))
		ret = bad_act(ref, what, arg, foreign, &inner);
	else if (!strcmp(where, "thread"))
		ret = bad_act_in_thread(ref, what, arg, &inner);
	else if (!strcmp(where, "moved"))
		return where_moved(ref, what, arg);
	else if (!strcmp(where, "other"))
		return where_other(ref, what, arg);
	else if (!strcmp(where, "pthread"))
		nu_sleep_us(20000000);
	printf("it went well: %s\n", nu_strerror(ret));
	return 0;
}

/* A kernel thread of the program's own, on node 0; or the crash itself, on node 1. */
static int node_init(unsigned node)
{
	pthread_t t;

	if (in_init) {
		if (node == 1)
			go_wrong((int)thread_args[0], thread_args[1], NULL);
		return 0;
	}
	return node == 0 && thread_args[0] < WHATS ? -pthread_create(&t, NULL, plain_thread, NULL) : 0;
}

static void own_handler(int signo)
{
	static const char text[] = "the program's own handler\n";
	ssize_t n = write(2, text, sizeof(text) - 1);

	(void)n;
	_exit(17);
}

int main(int argc, char **argv)
{
	struct nu_run_options options = {.node_init = node_init};

	if (argc < 3)
		return 99;
	in_init = !strcmp(argv[1], "init");
	thread_args[0] = in_init || !strcmp(argv[1], "pthread") ? what_of(argv[2]) : WHATS;
	thread_args[1] = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	options.writable_globals = getenv("WRITABLE") != NULL;
	if (getenv("OWN_HANDLER"))
		signal(SIGSEGV, own_handler);
	return nu_run(argc, argv, mainfunc, &options);
}
