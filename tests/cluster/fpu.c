/* SPDX-License-Identifier: MIT */
/*
 * Threads are interrupted and moved in the middle of computations that keep everything in registers: x87, SSE, AVX (if
 * the processor has it), the rounding modes of both, flags and all integer registers. The loops call nothing, so that
 * they can only be stopped by a signal, and their results must be exactly those of the same loops run undisturbed.
 */
#include "check.h"

#include <immintrin.h>

#define MOVES	  100
#define ROUNDS	  100000u
#define KINDS	  6
#define SETTLE_US 500u

/* ---- computations: each a function of its seed and its number of rounds alone ---- */

/*
 * x = r * x * (1 - x) in SSE registers. The map is chaotic: an error in the last bit at any time, or the wrong rounding
 * mode, changes the whole result and is never forgotten.
 */
static __attribute__((noinline)) uint64_t sse_loop(uint64_t seed, unsigned rounds, unsigned rounding)
{
	unsigned saved = _mm_getcsr(), after;
	__m128d one = _mm_set1_pd(1), r = _mm_set1_pd(3.99), x[4];
	uint64_t out[2];

	for (unsigned k = 0; k < 4; k++)
		x[k] = _mm_set_pd(1.0 / (double)(seed + k + 1), 0.7 / (double)(seed + k + 1));
	_mm_setcsr((saved & ~(unsigned)_MM_ROUND_MASK) | rounding);
	for (unsigned i = 0; i < rounds; i++) {
		/* All are in registers here, and nothing is computed ahead of the change of mode. */
		__asm__ volatile("" : "+x"(x[0]), "+x"(x[1]), "+x"(x[2]), "+x"(x[3]));
#pragma GCC unroll 4
		for (unsigned k = 0; k < 4; k++)
			x[k] = _mm_mul_pd(_mm_mul_pd(r, x[k]), _mm_sub_pd(one, x[k]));
	}
	__asm__ volatile("" : "+x"(x[0]), "+x"(x[1]), "+x"(x[2]), "+x"(x[3]));
	after = _mm_getcsr() & _MM_ROUND_MASK;
	_mm_setcsr(saved);
	x[0] = _mm_xor_pd(_mm_xor_pd(x[0], x[1]), _mm_xor_pd(x[2], x[3]));
	memcpy(out, &x[0], sizeof(out));
	return after == rounding ? out[0] ^ out[1] << 1 : 0;
}

static uint64_t sse_down(uint64_t seed, unsigned rounds)
{
	return sse_loop(seed, rounds, _MM_ROUND_DOWN);
}

static uint64_t sse_up(uint64_t seed, unsigned rounds)
{
	return sse_loop(seed, rounds, _MM_ROUND_UP);
}

/* Upper halves of the registers too. */
static __attribute__((noinline, target("avx"))) uint64_t avx_loop(uint64_t seed, unsigned rounds)
{
	__m256d one = _mm256_set1_pd(1), r = _mm256_set1_pd(3.98), x[8];
	uint64_t out[4], sum = 0;

	for (unsigned k = 0; k < 8; k++)
		x[k] = _mm256_set_pd(0.1 + 0.01 * k, 0.2 + 0.01 * k, 0.3 + 0.01 * k,
				     1.0 / (double)(seed + k + 1));
	for (unsigned i = 0; i < rounds; i++) {
		__asm__ volatile(""
				 : "+x"(x[0]), "+x"(x[1]), "+x"(x[2]), "+x"(x[3]), "+x"(x[4]), "+x"(x[5]),
				   "+x"(x[6]), "+x"(x[7]));
#pragma GCC unroll 8
		for (unsigned k = 0; k < 8; k++)
			x[k] = _mm256_mul_pd(_mm256_mul_pd(r, x[k]), _mm256_sub_pd(one, x[k]));
	}
	for (unsigned k = 0; k < 8; k++) {
		memcpy(out, &x[k], sizeof(out));
		sum = sum * 31 + (out[0] ^ out[1] << 1 ^ out[2] << 2 ^ out[3] << 3);
	}
	return sum;
}

/* Eighty-bit registers, rounding towards zero. */
static __attribute__((noinline)) uint64_t x87_loop(uint64_t seed, unsigned rounds)
{
	long double x = 1.0L / (long double)(seed + 1), y = 0.3L, z = 0.77L;
	unsigned short saved, mode, after;
	uint64_t out[3] = {0};

	__asm__ volatile("fnstcw %0" : "=m"(saved));
	mode = saved | 0x0c00;
	__asm__ volatile("fldcw %0" : : "m"(mode));
	for (unsigned i = 0; i < rounds; i++) {
		__asm__ volatile("" : "+t"(x), "+u"(y));
		x = 3.99L * x * (1 - x);
		y = 3.97L * y * (1 - y);
		z = 3.95L * z * (1 - z);
	}
	__asm__ volatile("" : "+t"(x), "+u"(y));
	__asm__ volatile("fnstcw %0" : "=m"(after));
	__asm__ volatile("fldcw %0" : : "m"(saved));
	memcpy(&out[0], &x, 8); /* the mantissas */
	memcpy(&out[1], &y, 8);
	memcpy(&out[2], &z, 8);
	return after == mode ? out[0] ^ out[1] << 1 ^ out[2] << 2 : 0;
}

/* Every general register that a loop may use. */
static __attribute__((noinline)) uint64_t integer_loop(uint64_t seed, unsigned rounds)
{
	uint64_t r[12];

	for (unsigned k = 0; k < 12; k++)
		r[k] = seed * (2 * k + 1);
	for (unsigned i = 0; i < rounds; i++) {
		for (unsigned k = 0; k < 12; k++)
			r[k] = (r[k] << 13 | r[k] >> 51) * 0x9e3779b97f4a7c15ull + r[(k + 1) % 12];
	}
	for (unsigned k = 1; k < 12; k++)
		r[0] ^= r[k];
	return r[0];
}

/* The carry flag lives over many instructions. */
static __attribute__((noinline)) uint64_t flags_loop(uint64_t seed, unsigned rounds)
{
	uint64_t x = seed | 1, n = rounds;

	__asm__ volatile("clc\n"
			 "1:\trclq $7, %0\n\t"		   /* through the carry: no bit is lost */
			 "leaq 0x1234567(%0,%0,8), %0\n\t" /* touches no flag */
			 "decq %1\n\t"			   /* leaves the carry */
			 "jnz 1b"
			 : "+r"(x), "+r"(n)
			 :
			 : "cc");
	return x;
}

static const struct {
	const char *name;
	uint64_t (*run)(uint64_t seed, unsigned rounds);
} loops[KINDS] = {
	{"SSE, rounding down", sse_down}, {"SSE, rounding up", sse_up}, {"AVX", avx_loop},
	{"x87, towards zero", x87_loop},  {"integers", integer_loop},	{"flags", flags_loop},
};

static bool can_run(unsigned kind)
{
	return kind != 2 || __builtin_cpu_supports("avx");
}

/* ---- a proclet whose threads run them ---- */

struct engine {
	unsigned kind;
	uint64_t want; /* computed where nothing moves */
	_Atomic bool stop;
	_Atomic uint64_t done, wrong;
	struct nu_waitgroup running;
};

NU_STRUCT(tally, val(uint64_t, done), val(uint64_t, wrong));
NU_CLASS(engine, val(unsigned, kind), val(uint64_t, want));
NU_METHOD(engine, start, val(int));
NU_METHOD(engine, finish, obj(tally));

int engine_init(struct engine *e, unsigned kind, uint64_t want)
{
	e->kind = kind;
	e->want = want;
	return 0;
}

/* Not a single call of the runtime until it is told to stop. */
static void engine_body(void *arg)
{
	struct engine *e = arg;

	while (!e->stop) {
		if (loops[e->kind].run(3, ROUNDS) != e->want)
			e->wrong++;
		e->done++;
	}
	nu_waitgroup_done(&e->running);
}

int engine_do_start(struct engine *e)
{
	nu_waitgroup_add(&e->running, 1);
	return nu_thread_spawn(engine_body, e, NULL);
}

struct tally engine_do_finish(struct engine *e)
{
	e->stop = true;
	nu_waitgroup_wait(&e->running);
	return (struct tally){.done = e->done, .wrong = e->wrong};
}

static uint64_t paused_running(void)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < nu_node_count(); n++) {
		struct nu_stats s;
		int ret = nu_stats(n, &s);

		CHECK_IS(ret, 0);
		sum += ret ? 0 : s.pauses[0];
	}
	return sum;
}

static unsigned kind_now, moves_now = MOVES;

/* One of its sort alone, so that the thread has a processor; moved while it computes. */
static void moved_while_running(void)
{
	NU_SCOPED(engine, e);
	uint64_t want = loops[kind_now].run(3, ROUNDS), before = paused_running(), interrupted;
	int ret = engine_create(NULL, kind_now, want, &e), inner = -1;
	struct tally t;

	CHECK_IS(ret, 0);
	if (ret)
		return;
	CHECK(want != 0 && want == loops[kind_now].run(3, ROUNDS) && want != loops[kind_now].run(4, ROUNDS));
	CHECK_IS(engine_start(e, &inner), 0);
	CHECK_IS(inner, 0);
	for (unsigned i = 0; i < moves_now; i++) {
		CHECK_IS(check_shuttle(e.ref, 1), 0);
		nu_sleep_us(SETTLE_US); /* let it compute between moves */
	}
	interrupted = paused_running() - before;
	ret = engine_finish(e, &t);
	CHECK_IS(ret, 0);
	if (!ret) {
		CHECK_MSG(!t.wrong, "%lu of %lu results are wrong", (unsigned long)t.wrong,
			  (unsigned long)t.done);
		CHECK_MSG(t.done, "nothing was computed");
		printf("     %lu computations over %u moves, interrupted while running in %lu\n",
		       (unsigned long)t.done, moves_now, (unsigned long)interrupted);
	}
	CHECK_MSG(interrupted >= moves_now / 4, "the thread was running in %lu of %u moves only",
		  (unsigned long)interrupted, moves_now);
	engine_ref_put(&e);
	check_left(0);
}

static int fpu_main(int argc, char **argv)
{
	if (argc > 1)
		moves_now = (unsigned)atoi(argv[1]);
	if (nu_node_count() < 2) {
		CHECK_SKIP("fpu", "it takes two nodes to move");
		return 0;
	}
	for (kind_now = 0; kind_now < KINDS; kind_now++) {
		if (can_run(kind_now))
			check_run(loops[kind_now].name, moved_while_running);
		else
			CHECK_SKIP(loops[kind_now].name, "this processor has no AVX");
	}
	return check_done();
}
CHECK_PROGRAM(fpu_main)
