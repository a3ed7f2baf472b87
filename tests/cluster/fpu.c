/* SPDX-License-Identifier: MIT */
/*
 * Threads are interrupted and moved in the middle of computations that keep everything in registers: x87, SSE, AVX (if
 * the processor has it), the rounding modes of both, flags and all integer registers. The loops call nothing, so that
 * they can only be stopped by a signal, and their results must be exactly those of the same loops run undisturbed.
 */
#include "check.h"

#include <immintrin.h>

#define MOVES  300
#define ROUNDS 4000u
#define KINDS  6

/* ---- computations: each a function of its seed and its number of rounds alone ---- */

/* Four chained accumulators in SSE registers; inexact at every step, so the rounding mode shows. */
static __attribute__((noinline)) uint64_t sse_loop(uint64_t seed, unsigned rounds, unsigned rounding)
{
	unsigned saved = _mm_getcsr();
	__m128d a = _mm_set_pd((double)seed, 1.0 / (double)seed), b = _mm_set1_pd(1.0 / 3), c = _mm_set_pd(0.7, 0.9);
	__m128d d = _mm_set_pd(1e-3, 1e3);
	uint64_t out[2];

	_mm_setcsr((saved & ~(unsigned)_MM_ROUND_MASK) | rounding);
	/* Nothing is moved over the change of mode: the values go through registers that the asm names. */
	__asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
	for (unsigned i = 0; i < rounds; i++) {
		a = _mm_add_pd(_mm_mul_pd(a, c), b);
		b = _mm_div_pd(_mm_add_pd(b, d), _mm_set1_pd(1.1));
		c = _mm_sqrt_pd(_mm_add_pd(_mm_mul_pd(c, c), _mm_set1_pd(1e-9)));
		d = _mm_sub_pd(_mm_set1_pd(1.7), _mm_mul_pd(d, _mm_set1_pd(0.3)));
		__asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
	}
	a = _mm_xor_pd(_mm_xor_pd(a, b), _mm_xor_pd(c, d));
	__asm__ volatile("" : "+x"(a));
	if ((_mm_getcsr() & _MM_ROUND_MASK) != rounding)
		a = _mm_setzero_pd();
	_mm_setcsr(saved);
	memcpy(out, &a, sizeof(out));
	return out[0] ^ out[1] << 1;
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
	__m256d v[8], sum = _mm256_setzero_pd();
	double out[4];
	uint64_t bits[4];

	for (unsigned k = 0; k < 8; k++)
		v[k] = _mm256_set_pd((double)(seed + k), 1.0 / (double)(seed + k), (double)k + 0.25, -1.5 * k);
	for (unsigned i = 0; i < rounds; i++) {
		for (unsigned k = 0; k < 8; k++)
			v[k] = _mm256_add_pd(_mm256_mul_pd(v[k], _mm256_set_pd(0.9, 0.8, 0.7, 0.6)),
					     _mm256_set1_pd(1.0 / 7));
		__asm__ volatile("" : "+x"(v[0]), "+x"(v[1]), "+x"(v[2]), "+x"(v[3]), "+x"(v[4]), "+x"(v[5]),
				 "+x"(v[6]), "+x"(v[7]));
	}
	for (unsigned k = 0; k < 8; k++)
		sum = _mm256_add_pd(sum, _mm256_mul_pd(v[k], _mm256_set1_pd((double)k + 1)));
	_mm256_storeu_pd(out, sum);
	memcpy(bits, out, sizeof(bits));
	return bits[0] ^ bits[1] << 1 ^ bits[2] << 2 ^ bits[3] << 3;
}

/* Eighty-bit registers, a stack of four deep, with rounding towards zero. */
static __attribute__((noinline)) uint64_t x87_loop(uint64_t seed, unsigned rounds)
{
	long double a = (long double)seed, b = 1.0L / 3, c = 0.7L, d = 1.0L / (long double)seed;
	unsigned short saved, mode, after;
	uint64_t out;

	__asm__ volatile("fnstcw %0" : "=m"(saved));
	mode = saved | 0x0c00;
	__asm__ volatile("fldcw %0" : : "m"(mode));
	for (unsigned i = 0; i < rounds; i++) {
		__asm__ volatile("fmul %%st(2), %%st\n\tfadd %%st(1), %%st\n\tfadd %%st(3), %%st" /* a = a * c + b + d */
				 : "+t"(a), "+u"(b)
				 : "f"(c), "f"(d));
	}
	__asm__ volatile("fnstcw %0" : "=m"(after));
	__asm__ volatile("fldcw %0" : : "m"(saved));
	memcpy(&out, &a, sizeof(out));
	return after == mode ? out : 0;
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

/* The direction and carry flags over a long dependent chain. */
static __attribute__((noinline)) uint64_t flags_loop(uint64_t seed, unsigned rounds)
{
	uint64_t x = seed | 1, n = rounds;

	__asm__ volatile("clc\n"
			 "1:\tadcq $0x1234567, %0\n\t"
			 "rclq $7, %0\n\t"
			 "adcq %0, %0\n\t"
			 "adcq $0, %0\n\t"
			 "decq %1\n\t" /* leaves the carry */
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
	_Atomic bool stop;
	_Atomic uint64_t done, wrong;
	struct nu_waitgroup running;
};

NU_STRUCT(tally, val(uint64_t, done), val(uint64_t, wrong));
NU_CLASS(engine, val(unsigned, kind));
NU_METHOD(engine, start, val(int));
NU_METHOD(engine, finish, obj(tally));

int engine_init(struct engine *e, unsigned kind)
{
	e->kind = kind;
	return 0;
}

/* The same seed again and again: one result is right, and the first was computed before anything moved. */
static void engine_body(void *arg)
{
	struct engine *e = arg;
	uint64_t (*run)(uint64_t, unsigned) = loops[e->kind].run;
	uint64_t want = 0;

	/* Long enough that most interruptions come inside, with a pause only between computations. */
	for (unsigned k = 0; k < 100; k++)
		want = run(3, 100);
	want = run(3, 100 * ROUNDS);
	while (!e->stop) {
		if (run(3, 100 * ROUNDS) != want)
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
