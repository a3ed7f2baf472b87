/* SPDX-License-Identifier: MIT */
/*
 * What the sanitizers must be told that they cannot see. Without them everything here is empty. sched/sanitize.h has
 * what concerns stacks and switches.
 */
#pragma once

#include <stddef.h>

/* gcc says it so; clang has its own way. */
#ifdef __clang__
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__

#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>

#define NU_SAN_KEEPS_STACKS 1
/* For functions that look into memory which the program must not touch: free blocks of a heap. */
#define NU_NO_ASAN __attribute__((no_sanitize_address, noinline))

static inline void nu_san_poison(const void *p, size_t len)
{
	__asan_poison_memory_region(p, len);
}
static inline void nu_san_unpoison(const void *p, size_t len)
{
	__asan_unpoison_memory_region(p, len);
}
/* What is mapped in [p, p + len) may hold the only pointer to a block of malloc(). */
static inline void nu_san_root(const void *p, size_t len)
{
	__lsan_register_root_region(p, len);
}
static inline void nu_san_unroot(const void *p, size_t len)
{
	__lsan_unregister_root_region(p, len);
}

#else

#define NU_SAN_KEEPS_STACKS 0
#define NU_NO_ASAN
static inline void nu_san_poison(const void *p, size_t len)
{
	(void)p, (void)len;
}
static inline void nu_san_unpoison(const void *p, size_t len)
{
	(void)p, (void)len;
}
static inline void nu_san_root(const void *p, size_t len)
{
	(void)p, (void)len;
}
static inline void nu_san_unroot(const void *p, size_t len)
{
	(void)p, (void)len;
}

#endif

#ifdef __SANITIZE_THREAD__

#include <sanitizer/tsan_interface.h>
#include <signal.h>

/* The sanitizer's sigaction() would hand signals on when it sees fit, with a copy of the frame. */
extern int __sigaction(int signo, const struct sigaction *sa, struct sigaction *old);
#define NU_SAN_SIGACTION __sigaction

/* For an access that races by design, the place says why that is harmless; and for code that may interrupt the
 * sanitizer's own. */
#ifdef __clang__
#define NU_NO_TSAN __attribute__((disable_sanitizer_instrumentation, noinline))
/* Its runtime is part of the program: the program's code is not all movable, its data not all the program's. */
#define NU_SAN_IN_PROGRAM 1
#else
#define NU_NO_TSAN __attribute__((no_sanitize_thread, noinline))
#endif

/* An ordering that the sanitizer has no eyes for (a switch, membarrier): what came before nu_san_release(p) has happened
 * for who then calls nu_san_acquire(p). */
static inline void nu_san_release(void *p)
{
	__tsan_release(p);
}
static inline void nu_san_acquire(void *p)
{
	__tsan_acquire(p);
}

#else

#define NU_SAN_SIGACTION sigaction
#define NU_NO_TSAN
static inline void nu_san_release(void *p)
{
	(void)p;
}
static inline void nu_san_acquire(void *p)
{
	(void)p;
}

#endif

#ifndef NU_SAN_IN_PROGRAM
#define NU_SAN_IN_PROGRAM 0
#endif
