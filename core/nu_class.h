/* SPDX-License-Identifier: MIT */
/*
 * Classes, methods and closures: typed stubs made by the preprocessor and checked by the compiler. Included by nu.h.
 */
#pragma once

#include <stdlib.h>

#include "nu_args.h"

/* ---- descriptors: what the macros make and the runtime reads ---- */

enum nu_field_kind {
	NU_FIELD_STR = 1, /* struct nu_str in args */
	NU_FIELD_BYTES,	  /* struct nu_bytes in args */
	NU_FIELD_VEC,	  /* { const T *items; size_t count; } in args */
	NU_FIELD_REF,	  /* struct nu_ref in args (borrowed) */
	NU_FIELD_FN,	  /* a function of the program */
};
/* A field of a method's arguments that is more than plain bytes. */
struct nu_field {
	uint32_t offset;
	uint16_t kind;
	uint16_t item_bytes; /* VEC: size of an item; STR, BYTES: 1 */
};

enum nu_result_kind {
	NU_RESULT_NONE,
	NU_RESULT_FIXED, /* scalar, declared struct, function reference */
	NU_RESULT_REF,	 /* the caller gets a counted reference */
	NU_RESULT_SPAN, /* string, bytes, vector: struct nu_bytes at the caller (count in items for vectors) */
};

struct nu_out;
struct nu_class;
/* One method, constructor or closure. 64-byte aligned so that a section of them is an array. */
struct nu_method {
	const char *class_name, *name;
	/* Runs it: @args as the stub packed them; @result has result_bytes; @out for spans. */
	void (*run)(void *self, void *args, void *result, struct nu_out *out);
	const struct nu_field *fields;
	uint32_t nfields;
	uint32_t args_bytes;
	uint32_t result_bytes; /* in the callee: FIXED, REF */
	uint8_t result_kind;
	uint8_t constructor;	    /* called by the node that creates, once */
	uint16_t result_item_bytes; /* SPAN */
	uint64_t magic;
	const struct nu_class
		*cls; /* whose root object it takes; NULL: it takes none and runs in any proclet */
} __attribute__((__aligned__(64)));
_Static_assert(sizeof(struct nu_method) == 64, "a section of them is an array without gaps");
#define NU_METHOD_MAGIC 0x6e752d6d6574686full

struct nu_class {
	const char *name;
	size_t root_bytes;
	const struct nu_method *init; /* result: int, 0 or a negative errno that create() returns */
	void (*fini)(void *self);     /* may be NULL: before the proclet is freed */
};

/*
 * Most that a call's arguments may be together, each span rounded up to 8 bytes, and most that its result may be; the same
 * whether the proclet is on this node or on another. Beyond it the call returns -EMSGSIZE.
 */
#define NU_CALL_MAX_BYTES ((size_t)16 << 20)

/*
 * Gives a span result from inside a method: copies @len_bytes at @data now, so locks may be dropped after it.
 * @out is the method's own argument. The last call wins; without one, or if that was nu_out_str() of NULL, the
 * result's data is NULL. If the last one cannot be taken, the method runs on, and its caller gets -EMSGSIZE
 * (more than NU_CALL_MAX_BYTES), -EINVAL (@data is NULL, @len_bytes is not 0) or -ENOMEM (no room in the
 * proclet's heap), said in the log. NULL with 0 bytes is an empty result.
 * Context: the method's own thread, callbacks included, or another of its proclet's, one at a time, before the
 * method returns; does not switch. node_init, foreign kernel thread: no, since there is no @out for them.
 */
NU_API void nu_out_bytes(struct nu_out *out, const void *data, size_t len_bytes);

/*
 * Gives a string as the result: nu_out_bytes() of @s up to its NUL, which the caller finds after it, too. NULL
 * gives nothing and takes back what was given before.
 * Context: the method's own thread, callbacks included, or another of its proclet's, one at a time, before the
 * method returns; does not switch. node_init, foreign kernel thread: no, since there is no @out for them.
 */
NU_API void nu_out_str(struct nu_out *out, const char *s);

/* ---- what the stubs call ---- */

struct nu_options;

/*
 * Calls @m on @target and waits for its end: what C_name() does. The method runs in that proclet, wherever it
 * is, on a thread of its own. @args: the struct of m->args_bytes as the stub fills it; borrowed, with its
 * spans, until this returns. @result: of FIXED and REF it takes m->result_bytes; of SPAN it is a struct
 * nu_bytes whose data is a block of the calling proclet's heap that the caller frees; of NONE it is NULL. NULL
 * drops any result. On failure *result is untouched or empty (no bytes, no reference). A reference in the
 * result is counted for the calling proclet.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -ESTALE no such proclet any more, or @target is nothing: it was not run; -EHOSTDOWN its node died, or
 * one that had the call in its hands: nobody knows whether it ran; -ETIMEDOUT the thread's deadline passed
 * (nu_deadline_set_us()): nobody knows whether it ran; -EHOSTUNREACH no node took it for 10 s: it was not run;
 * -EAGAIN one of the nodes of the proclet's move died, and for 2 s nobody could say where it is: it was not
 * run; -EMSGSIZE the arguments are above NU_CALL_MAX_BYTES: it was not run, or its result is: it ran; -ENOMEM
 * no memory or stack for it here or there: it was not run, or no room for its result: it ran; -EBADMSG a
 * function among the arguments is not the program's: it was not run, or an answer makes no sense; -EINVAL the
 * proclet is of another class, or no proclet's thread calls: it was not run, or it gave NULL with a length: it
 * ran.
 * Source: 3.2, 4.1.
 */
NU_API int __must_check nu_call(struct nu_ref target, const struct nu_method *m, const void *args,
				void *result);

/*
 * Creates a proclet of class @cls and waits until its constructor has returned: what C_create() does. @options
 * may be NULL; @options and @args (as nu_call() has them, for the constructor) are borrowed until this returns.
 * *ref_p gets a reference that is counted for the calling proclet.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: -EINVAL @ref_p is NULL, options->node is neither 0 nor NU_NODE() of a node, the capacity is above 1
 * TiB, or no proclet's thread calls; -ENOMEM no segment of that capacity, memory, mapping or stack is free, as
 * the log says; -EBUSY the node is being drained, or all are; -EHOSTDOWN the node has died, or dies meanwhile;
 * -EOVERFLOW as many proclets as can be numbered have been created; -EMSGSIZE, -EBADMSG, -ETIMEDOUT and
 * -EHOSTUNREACH as nu_call(); and the value that C_init() returned, if not 0. After -ETIMEDOUT nobody knows
 * whether the proclet exists, nor refers to it.
 * Source: 3.2, 4.4.
 */
NU_API int __must_check nu_create(const struct nu_class *cls, const struct nu_options *options,
				  const void *args, struct nu_ref *ref_p);

/* A call under way. Lies in the caller's heap or stack until waited for. */
struct nu_future {
	struct nu_thread *thread; /* runs the call; NULL: none */
	int status;
	struct nu_ref ref; /* of an asynchronous create */
};

/*
 * Starts a call as nu_call() makes it, on a thread of the calling proclet: what C_name_async() does. @args are
 * copied before it returns; @result (NULL drops it) is written before nu_future_wait() returns. *f must be
 * zeroed, and it and @result must stay where they are until then; if *f is gone or used again by the end of the
 * call, the result is dropped, with a line in the log. The call has the deadline of the thread that starts it.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: (nothing was started) -EMSGSIZE the arguments are above NU_CALL_MAX_BYTES; -ENOMEM no memory or stack
 * for it, or a function among the arguments is not the program's; -EINVAL no proclet's thread. The call's own
 * come from nu_future_wait().
 * Source: 3.2.
 */
NU_API int __must_check nu_call_async(struct nu_ref target, const struct nu_method *m, const void *args,
				      void *result, struct nu_future *f);

/*
 * Starts a creation as nu_create() makes it, on a thread of the calling proclet: what C_create_async() does.
 * @options (may be NULL) and @args are copied before it returns. *f must be zeroed and stay until
 * nu_future_wait() returns; f->ref is the reference then, counted for the calling proclet.
 * Context: proclet's thread, callbacks included; may switch. node_init, foreign kernel thread: -EINVAL.
 * Errors: (nothing was started) -EMSGSIZE the arguments are above NU_CALL_MAX_BYTES; -ENOMEM no memory or stack
 * for it, or a function among the arguments is not the program's; -EINVAL no proclet's thread. The creation's
 * own come from nu_future_wait().
 * Source: 3.2.
 */
NU_API int __must_check nu_create_async(const struct nu_class *cls, const struct nu_options *options,
					const void *args, struct nu_future *f);

/*
 * Waits for the call or creation of @f and returns its status; later waits return it again, at once.
 * Context: a thread of the proclet that started it, callbacks included; may switch. node_init, foreign kernel
 * thread: -EINVAL.
 * Errors: -EINVAL @f is NULL, nothing was started, another thread waits for it, or no thread of its proclet
 * calls; else those of nu_call() or nu_create().
 * Source: 3.2.
 */
NU_API int nu_future_wait(struct nu_future *f);

/* ---- what a program writes ---- */

/*
 * Mixing pointers with integers, pointers of two types, calling an undeclared stub, ignoring a status and handing a
 * double to an integer are mistakes that compilers only warn about, if at all. In a file that includes this header
 * they are errors. A file that must be lenient defines NU_LENIENT first: ignored results and lost fractions are then
 * up to its own flags.
 */
#pragma GCC diagnostic error "-Wint-conversion"
#pragma GCC diagnostic error "-Wincompatible-pointer-types"
#pragma GCC diagnostic error "-Wimplicit-function-declaration"
#ifndef NU_LENIENT
#pragma GCC diagnostic error "-Wunused-result"
#pragma GCC diagnostic error "-Wfloat-conversion"
#endif

/* `, ##__VA_ARGS__` below hands a program's list on as it stands, not expanded: see nu_args.h. */
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif

/*
 * Kinds of arguments, of which a class or method may have up to 24:
 *   val(T, n)   a scalar T n
 *   obj(S, n)   a declared struct by value: struct S n
 *   str(n)      struct nu_str n; followed by a NUL in the callee
 *   bytes(n)    struct nu_bytes n
 *   vec(V, n)   struct V n, declared by NU_VEC or NU_VEC_OBJ: items and count
 *   ref(C, n)   a typed reference, struct C_ref n, borrowed until the method returns
 *   weak(C, n)  a weak one, struct C_weak n: not counted, may outlive what it refers to
 *   fn(F, n)    a function of the program; F is a typedef of a pointer to function
 * Strings, bytes and vectors are copied: in the callee they are gone when the method returns; NULL stays NULL.
 *
 * Kinds of results:
 *   none, val(T), obj(S), ref(C), weak(C), fn(F)   C_do_name() returns it; of ref(C) the caller gets a count of its
 *                       own, while the one that the method's proclet holds stays its own
 *   str, bytes, vec(V)  C_do_name() returns void, takes a last `struct nu_out *out` and calls nu_out_str(),
 *                       nu_out_bytes() or nu_out_vec(). At the caller the memory is its own, for free(); NULL
 *                       if the method gave nothing.
 */

/* Gives a vector as the result: NU_VEC(words, uint32_t), method result vec(words): nu_out_vec(out, words, items, n) */
#define nu_out_vec(out, V, items, count) V##_nu_out((out), (items), (count))

/*
 * Declares struct S, which may cross, by its members: val(T, n), arr(T, n, COUNT) for T n[COUNT], obj(S2, n),
 * weak(C, n). For example NU_STRUCT(point, val(double, x), val(double, y), arr(char, name, 16));
 */
#define NU_STRUCT(...) NU_KINDS(NU_S_EXPECT, NU_STRUCT_REST, , ##__VA_ARGS__)
#define NU_STRUCT_REST_BEGIN(S)
#define NU_STRUCT_REST(S, n, ...)                                                                            \
	struct S {                                                                                           \
		NU_EACH(n, NU_S_MEMBER, ~, __VA_ARGS__)                                                      \
	};                                                                                                   \
	enum { struct_##S##_is_not_declared_with_NU_STRUCT = 1 }

/* Declares struct V { const T *items; size_t count; } for scalars T; NU_VEC_OBJ for a declared struct. */
#define NU_VEC(V, T)                                                                                         \
	NU_ASSERT_SCALAR(T, "item of vector " #V)                                                            \
	NU_VEC_(V, T)
#define NU_VEC_OBJ(V, S)                                                                                     \
	NU_ASSERT_STRUCT(S, "item of vector " #V)                                                            \
	NU_VEC_(V, struct S)
#define NU_VEC_(V, T)                                                                                        \
	_Static_assert(_Alignof(T) <= 8 && sizeof(T) < 65536,                                                \
		       "vector " #V ": its items are too large or aligned to more than 8 bytes");            \
	struct V {                                                                                           \
		const T *items;                                                                              \
		size_t count;                                                                                \
	};                                                                                                   \
	enum { vec_##V##_is_not_declared_with_NU_VEC = 1 };                                                  \
	static inline NU_UNUSED void V##_nu_out(struct nu_out *nu_out, const T *nu_items, size_t nu_n)       \
	{                                                                                                    \
		size_t nu_len;                                                                               \
		if (__builtin_mul_overflow(nu_n, sizeof(T), &nu_len))                                        \
			nu_len = SIZE_MAX;                                                                   \
		nu_out_bytes(nu_out, nu_items, nu_len);                                                      \
	}                                                                                                    \
	NU_SEMICOLON

/*
 * NU_CLASS(C, constructor's argument kinds...) after the definition of struct C, the root object (zeroed at first).
 * You write     int C_init(struct C *self, args...)                                      0 or a negative errno
 * You get       struct C_ref, a counted reference; struct C_weak, one that does not count. {{0}} is none.
 *   int  C_create(const struct nu_options *, args..., struct C_ref *ref_p)               options may be NULL
 *   NU_SCOPED_FUTURE(C, create, f)                                                       for the next two; below
 *   int  C_create_async(const struct nu_options *, args..., struct C_create_future *f)
 *   int  C_create_wait(struct C_create_future *f, struct C_ref *ref_p)
 *   int  C_ref_get(struct C_ref)           one more count for the calling proclet, as nu_ref_get()
 *   int  C_ref_put(struct C_ref *)         gives it back and empties it, as nu_ref_put(); 0 if it was empty or NULL
 *   struct C_weak C_weak(struct C_ref)     the weak reference to the same proclet
 *   int  C_weak_get(struct C_weak, struct C_ref *strong_p)      -ESTALE: it is gone
 *   struct C_weak C_self(void)             the calling proclet, which must be a C
 * Without a place for the reference (NULL) C_create() and C_weak_get() do nothing and return -EINVAL; C_create_wait() leaves it in
 * the future. Context and errors: as nu_create(), nu_create_async(), nu_future_wait(), nu_ref_get() (C_ref_get(), C_weak_get()),
 * nu_ref_put() and nu_self(); C_weak() anywhere.
 * A header that hides struct C has NU_CLASS_DECLARE(C, kinds...) instead, and one file NU_CLASS_DEFINE(C).
 */
#define NU_CLASS(...)	      NU_KINDS(NU_EXPECT, NU_CLASS_WHOLE, , ##__VA_ARGS__)
#define NU_CLASS_DECLARE(...) NU_KINDS(NU_EXPECT, NU_CLASS_REST, , ##__VA_ARGS__)

/* The proclet's last act: you write void C_fini(struct C *self), called before the heap is freed. Beside NU_CLASS. */
#define NU_CLASS_FINI(C)                                                                                     \
	void C##_fini(struct C *);                                                                           \
	NU_SHARED void C##_nu_fini(void *nu_root)                                                            \
	{                                                                                                    \
		C##_fini(nu_root);                                                                           \
	}                                                                                                    \
	NU_SEMICOLON

/*
 * NU_METHOD(C, name, RESULT, argument kinds...) after NU_CLASS(C).
 * You write     RESULT C_do_name(struct C *self, args...)        runs in the proclet, on a thread of its own
 * You get       int C_name(struct C_ref, args..., T *result_p)
 *               NU_SCOPED_FUTURE(C, name, f)                                         for the next two; below
 *               int C_name_async(struct C_ref, args..., struct C_name_future *f)
 *               int C_name_wait(struct C_name_future *f, T *result_p)
 * No result_p with none; if it is NULL the result is dropped, by C_name_wait() left in the future. They return 0 or an
 * error of the call; what the method has to say is in *result_p, untouched on failure (a reference may be emptied). Strings,
 * bytes, vectors and references are handed out by the first wait only.
 * Context: as nu_call(), nu_call_async() and nu_future_wait(): a proclet's thread, callbacks included; may switch.
 * Errors: as theirs. -ESTALE no such proclet any more; -EHOSTDOWN its node died, or one that had the call in its hands, and
 * -ETIMEDOUT the deadline passed: nobody knows whether it ran; -EHOSTUNREACH no node took it for 10 s; -EAGAIN for 2 s nobody could
 * say where it is; -EMSGSIZE arguments or result above NU_CALL_MAX_BYTES; -ENOMEM no memory for it here or there, or for its
 * result; -EBADMSG a function argument is not the program's; -EINVAL the proclet is of another class, the method gave NULL with a
 * length, or no proclet's thread calls.
 */
#define NU_METHOD(C, name, ...)                                                                              \
	NU_ASSERT_CLASS(C, "the class of method " #name)                                                     \
	NU_RESULT_AND_KINDS(NU_METHOD_1, (C, C##_##name, C##_do_##name, #name), , ##__VA_ARGS__)

/* A closure is a method that the class need not know: any file may add one. It runs beside the proclet's data. */
#define NU_CLOSURE NU_METHOD

/*
 * Declares a reference that is given back where its scope ends, empty at first: NU_SCOPED(kv, store). Copying it does
 * not count; use C_ref_get() for a second one.
 */
#define NU_SCOPED(C, p) struct C##_ref p __attribute__((__cleanup__(C##_nu_scope_end))) = {{0}}

/*
 * Declares the future of C_name_async() or, with the name `create`, of C_create_async(). If it was not waited for, the
 * end of its scope waits, and frees or gives back a result that nobody took. A plain struct C_name_future must stay until it was
 * waited for: else the result is dropped, with a line that names the call.
 */
#define NU_SCOPED_FUTURE(C, name, f)                                                                         \
	struct C##_##name##_future f __attribute__((__cleanup__(C##_##name##_nu_scope_end))) = {0}

#ifdef __clang__
#pragma clang diagnostic pop
#endif

/* ---- what the macros above are made of ---- */

#define NU_UNUSED    __attribute__((__unused__))
#define NU_STUB	     __must_check NU_UNUSED
#define NU_HIDDEN    __attribute__((__visibility__("hidden")))
#define NU_SHARED    __attribute__((__weak__)) NU_HIDDEN /* one for all files that include the class */
#define NU_SEMICOLON _Static_assert(1, "")

/*
 * The struct of arguments, and which of its members are more than plain bytes. Without arguments both struct and
 * initialisers are empty, which __extension__ makes no warning of.
 */
#define NU_ARGUMENTS(N, n, ...)                                                                              \
	__extension__ struct N##_args {                                                                      \
		NU_EACH(n, NU_MEMBER, ~, __VA_ARGS__)                                                        \
	};                                                                                                   \
	_Static_assert(sizeof(struct N##_args) <= NU_CALL_MAX_BYTES,                                         \
		       #N ": its arguments are larger than NU_CALL_MAX_BYTES");                              \
	static const struct nu_field N##_nu_fields[] = {NU_EACH(n, NU_ENTRY, N##_args, __VA_ARGS__){0, 0, 0}}
#define NU_PACKED(N, ...) __extension__ struct N##_args nu_args = {__VA_ARGS__}
/*
 * Each file that includes a class emits whole descriptors into the section, and all files use the same one of them:
 * the address is what travels.
 */
#define NU_DESCRIPTOR(C, N, name_text, ...)                                                                  \
	extern NU_SHARED const struct nu_method N##_method;                                                  \
	NU_SHARED __attribute__((__section__("nu_methods"), __used__))                                       \
	const struct nu_method N##_method = {#C,                                                             \
					     name_text,                                                      \
					     N##_nu_run,                                                     \
					     N##_nu_fields,                                                  \
					     sizeof(N##_nu_fields) / sizeof(N##_nu_fields[0]) - 1,           \
					     sizeof(struct N##_args),                                        \
					     __VA_ARGS__,                                                    \
					     NU_METHOD_MAGIC,                                                \
					     &C##_class}
/* From result_bytes on. */
#define NU_RESULT_nu_is_none(T, ITEM)  0, NU_RESULT_NONE, 0, 0
#define NU_RESULT_nu_is_fixed(T, ITEM) sizeof(T), NU_RESULT_FIXED, 0, 0
#define NU_RESULT_nu_is_ref(T, ITEM)   sizeof(T), NU_RESULT_REF, 0, 0
#define NU_RESULT_nu_is_span(T, ITEM)  0, NU_RESULT_SPAN, 0, ITEM

/* The body's prototype, and the call of it. */
#define NU_BODY_nu_is_none(F, T, PARAMS)  void F PARAMS
#define NU_BODY_nu_is_fixed(F, T, PARAMS) T F PARAMS
#define NU_BODY_nu_is_ref(F, T, PARAMS)	  T F PARAMS
#define NU_BODY_nu_is_span(F, T, PARAMS)  void F(NU_UNPAREN PARAMS, struct nu_out *nu_out)
#define NU_RUN_nu_is_none(F, T, ARGS)	  F ARGS
#define NU_RUN_nu_is_fixed(F, T, ARGS)	  *(T *)nu_result = F ARGS
#define NU_RUN_nu_is_ref(F, T, ARGS)	  *(T *)nu_result = F ARGS
#define NU_RUN_nu_is_span(F, T, ARGS)	  F(NU_UNPAREN ARGS, nu_out)

/* The synchronous stub. */
#define NU_STUB_nu_is_none(N, T, ITEM, PARAMS, SETS)                                                         \
	static inline NU_STUB int N PARAMS                                                                   \
	{                                                                                                    \
		NU_PACKED(N, NU_UNPAREN SETS);                                                               \
		return nu_call(nu_target.ref, &N##_method, &nu_args, NULL);                                  \
	}
#define NU_STUB_nu_is_fixed(N, T, ITEM, PARAMS, SETS)                                                        \
	static inline NU_STUB int N(NU_UNPAREN PARAMS, T *nu_result_p)                                       \
	{                                                                                                    \
		NU_PACKED(N, NU_UNPAREN SETS);                                                               \
		return nu_call(nu_target.ref, &N##_method, &nu_args, nu_result_p);                           \
	}
#define NU_STUB_nu_is_ref NU_STUB_nu_is_fixed
#define NU_STUB_nu_is_span(N, T, ITEM, PARAMS, SETS)                                                         \
	static inline NU_STUB int N(NU_UNPAREN PARAMS, T *nu_result_p)                                       \
	{                                                                                                    \
		NU_PACKED(N, NU_UNPAREN SETS);                                                               \
		struct nu_bytes nu_got = {NULL, 0};                                                          \
		int nu_ret = nu_call(nu_target.ref, &N##_method, &nu_args, nu_result_p ? &nu_got : NULL);    \
		if (!nu_ret && nu_result_p)                                                                  \
			*nu_result_p = (T){nu_got.data, nu_got.len_bytes / (ITEM)};                          \
		return nu_ret;                                                                               \
	}

/* The future, waiting for it, and its scope's end. */
#define NU_RESULT_P_nu_is_none(f)  NULL
#define NU_RESULT_P_nu_is_fixed(f) (&(f)->nu_value)
#define NU_RESULT_P_nu_is_ref(f)   (&(f)->nu_value)
#define NU_RESULT_P_nu_is_span(f)  (&(f)->nu_value)
#define NU_FUTURE_nu_is_none(N, T, ITEM)                                                                     \
	struct N##_future {                                                                                  \
		struct nu_future nu_base;                                                                    \
	};                                                                                                   \
	static inline NU_STUB int N##_wait(struct N##_future *nu_f)                                          \
	{                                                                                                    \
		return nu_future_wait(&nu_f->nu_base);                                                       \
	}                                                                                                    \
	NU_FUTURE_END(N, (void)0)
#define NU_FUTURE_nu_is_fixed(N, T, ITEM)                                                                    \
	NU_FUTURE_TYPE(N, T)                                                                                 \
	NU_FUTURE_WAIT(N, T, *nu_result_p = nu_f->nu_value)                                                  \
	NU_FUTURE_END(N, (void)0)
#define NU_FUTURE_nu_is_ref(N, T, ITEM)                                                                      \
	NU_FUTURE_TYPE(N, T)                                                                                 \
	NU_FUTURE_WAIT(N, T, (*nu_result_p = nu_f->nu_value, nu_f->nu_value = (T){{0}}))                     \
	NU_FUTURE_END(N, nu_f->nu_value.ref.id ? (void)nu_ref_put(nu_f->nu_value.ref) : (void)0)
#define NU_FUTURE_nu_is_span(N, T, ITEM)                                                                     \
	NU_FUTURE_TYPE(N, struct nu_bytes)                                                                   \
	NU_FUTURE_WAIT(N, T,                                                                                 \
		       (*nu_result_p = (T){nu_f->nu_value.data, nu_f->nu_value.len_bytes / (ITEM)},          \
			nu_f->nu_value = (struct nu_bytes){NULL, 0}))                                        \
	NU_FUTURE_END(N, free((void *)(uintptr_t)nu_f->nu_value.data))
#define NU_FUTURE_TYPE(N, T)                                                                                 \
	struct N##_future {                                                                                  \
		struct nu_future nu_base;                                                                    \
		T nu_value;                                                                                  \
	};
#define NU_FUTURE_WAIT(N, T, TAKE)                                                                           \
	static inline NU_STUB int N##_wait(struct N##_future *nu_f, T *nu_result_p)                          \
	{                                                                                                    \
		int nu_ret = nu_future_wait(&nu_f->nu_base);                                                 \
		if (!nu_ret && nu_result_p)                                                                  \
			TAKE;                                                                                \
		return nu_ret;                                                                               \
	}
#define NU_FUTURE_END(N, DROP)                                                                               \
	static inline NU_UNUSED void N##_nu_scope_end(struct N##_future *nu_f)                               \
	{                                                                                                    \
		if (!nu_future_wait(&nu_f->nu_base))                                                         \
			DROP;                                                                                \
	}

/* What NU_METHOD declares: N is C_name, BODY C_do_name. */
#define NU_METHOD_1(ctx, ...) NU_APPLY(NU_METHOD_2, NU_UNPAREN ctx, __VA_ARGS__)
#define NU_METHOD_2(C, N, BODY, name_text, R, n, ...)                                                        \
	NU_CAT(NU_BODY_, NU_R_SORT##R)                                                                       \
	(BODY, NU_R_TYPE##R, (struct C * NU_EACH(n, NU_PARAM, ~, __VA_ARGS__)));                             \
	NU_ARGUMENTS(N, n, __VA_ARGS__);                                                                     \
	_Static_assert(sizeof(NU_R_TYPE##R) <= NU_CALL_MAX_BYTES,                                            \
		       #N ": its result is larger than NU_CALL_MAX_BYTES");                                  \
	static void N##_nu_run(void *nu_root, void *nu_in, void *nu_result, struct nu_out *nu_out)           \
	{                                                                                                    \
		struct N##_args *nu_args = nu_in;                                                            \
		(void)nu_args, (void)nu_result, (void)nu_out;                                                \
		NU_CAT(NU_RUN_, NU_R_SORT##R)                                                                \
		(BODY, NU_R_TYPE##R, (nu_root NU_EACH(n, NU_GET, ~, __VA_ARGS__)));                          \
	}                                                                                                    \
	NU_DESCRIPTOR(C, N, name_text, NU_CAT(NU_RESULT_, NU_R_SORT##R)(NU_R_TYPE##R, NU_R_ITEM##R));        \
	NU_CAT(NU_STUB_, NU_R_SORT##R)                                                                       \
	(N, NU_R_TYPE##R, NU_R_ITEM##R, (struct C##_ref nu_target NU_EACH(n, NU_PARAM, ~, __VA_ARGS__)),     \
	 (NU_EACH(n, NU_SET, ~, __VA_ARGS__)))                                                               \
		NU_CAT(NU_FUTURE_, NU_R_SORT##R)(N, NU_R_TYPE##R, NU_R_ITEM##R) static inline NU_STUB int    \
			N##_async(struct C##_ref nu_target NU_EACH(n, NU_PARAM, ~, __VA_ARGS__),             \
				  struct N##_future *nu_f)                                                   \
	{                                                                                                    \
		NU_PACKED(N, NU_EACH(n, NU_SET, ~, __VA_ARGS__));                                            \
		*nu_f = (struct N##_future){0};                                                              \
		return nu_call_async(nu_target.ref, &N##_method, &nu_args,                                   \
				     NU_CAT(NU_RESULT_P_, NU_R_SORT##R)(nu_f), &nu_f->nu_base);              \
	}                                                                                                    \
	NU_SEMICOLON

/* The class without its root object: references and creation. */
#define NU_CLASS_REST_BEGIN(C)                                                                               \
	enum { class_##C##_is_not_declared_with_NU_CLASS = 1 };                                              \
	struct C;                                                                                            \
	struct C##_ref {                                                                                     \
		struct nu_ref ref;                                                                           \
	};                                                                                                   \
	struct C##_weak {                                                                                    \
		struct nu_ref ref;                                                                           \
	};
#define NU_CLASS_WHOLE_BEGIN NU_CLASS_REST_BEGIN
#define NU_CLASS_WHOLE(C, ...)                                                                               \
	NU_CLASS_REST(C, __VA_ARGS__);                                                                       \
	NU_CLASS_DEFINE(C)
#define NU_CLASS_REST(C, n, ...)                                                                             \
	int C##_init(struct C *NU_EACH(n, NU_PARAM, ~, __VA_ARGS__));                                        \
	NU_ARGUMENTS(C##_init, n, __VA_ARGS__);                                                              \
	static void C##_init_nu_run(void *nu_root, void *nu_in, void *nu_result, struct nu_out *nu_out)      \
	{                                                                                                    \
		struct C##_init_args *nu_args = nu_in;                                                       \
		(void)nu_args, (void)nu_out;                                                                 \
		*(int *)nu_result = C##_init(nu_root NU_EACH(n, NU_GET, ~, __VA_ARGS__));                    \
	}                                                                                                    \
	static __attribute__((__constructor__)) void C##_nu_known(void)                                      \
	{                                                                                                    \
		nu_image_add(&(const struct nu_image){__start_nu_methods, __stop_nu_methods});               \
	}                                                                                                    \
	extern NU_HIDDEN const struct nu_class C##_class;                                                    \
	NU_DESCRIPTOR(C, C##_init, "init", sizeof(int), NU_RESULT_FIXED, 1, 0);                              \
	static inline NU_STUB int C##_create(const struct nu_options *nu_o NU_EACH(n, NU_PARAM, ~,           \
										   __VA_ARGS__),             \
					     struct C##_ref *nu_ref_p)                                       \
	{                                                                                                    \
		NU_PACKED(C##_init, NU_EACH(n, NU_SET, ~, __VA_ARGS__));                                     \
		return nu_create(&C##_class, nu_o, &nu_args, nu_ref_p ? &nu_ref_p->ref : NULL);              \
	}                                                                                                    \
	struct C##_create_future {                                                                           \
		struct nu_future nu_base;                                                                    \
	};                                                                                                   \
	static inline NU_STUB int C##_create_async(const struct nu_options *nu_o NU_EACH(n, NU_PARAM, ~,     \
											 __VA_ARGS__),       \
						   struct C##_create_future *nu_f)                           \
	{                                                                                                    \
		NU_PACKED(C##_init, NU_EACH(n, NU_SET, ~, __VA_ARGS__));                                     \
		*nu_f = (struct C##_create_future){0};                                                       \
		return nu_create_async(&C##_class, nu_o, &nu_args, &nu_f->nu_base);                          \
	}                                                                                                    \
	static inline NU_STUB int C##_create_wait(struct C##_create_future *nu_f, struct C##_ref *nu_ref_p)  \
	{                                                                                                    \
		int nu_ret = nu_future_wait(&nu_f->nu_base);                                                 \
		if (!nu_ret && nu_ref_p)                                                                     \
			(nu_ref_p->ref = nu_f->nu_base.ref, nu_f->nu_base.ref = (struct nu_ref){0});         \
		return nu_ret;                                                                               \
	}                                                                                                    \
	NU_FUTURE_END(C##_create, nu_f->nu_base.ref.id ? (void)nu_ref_put(nu_f->nu_base.ref) : (void)0)      \
	NU_REFERENCES(C)

#define NU_REFERENCES(C)                                                                                     \
	static inline NU_STUB int C##_ref_get(struct C##_ref nu_p)                                           \
	{                                                                                                    \
		return nu_ref_get(nu_p.ref);                                                                 \
	}                                                                                                    \
	static inline NU_UNUSED int C##_ref_put(struct C##_ref *nu_p)                                        \
	{                                                                                                    \
		int nu_ret = 0;                                                                              \
		if (nu_p && nu_p->ref.id) {                                                                  \
			nu_ret = nu_ref_put(nu_p->ref);                                                      \
			nu_p->ref.id = 0;                                                                    \
		}                                                                                            \
		return nu_ret;                                                                               \
	}                                                                                                    \
	static inline NU_UNUSED void C##_nu_scope_end(struct C##_ref *nu_p)                                  \
	{                                                                                                    \
		C##_ref_put(nu_p);                                                                           \
	}                                                                                                    \
	static inline NU_UNUSED struct C##_weak C##_weak(struct C##_ref nu_p)                                \
	{                                                                                                    \
		return (struct C##_weak){nu_p.ref};                                                          \
	}                                                                                                    \
	static inline NU_STUB int C##_weak_get(struct C##_weak nu_w, struct C##_ref *nu_strong_p)            \
	{                                                                                                    \
		int nu_ret = nu_strong_p ? nu_ref_get(nu_w.ref) : -EINVAL;                                   \
		if (!nu_ret)                                                                                 \
			nu_strong_p->ref = nu_w.ref;                                                         \
		return nu_ret;                                                                               \
	}                                                                                                    \
	static inline NU_UNUSED struct C##_weak C##_self(void)                                               \
	{                                                                                                    \
		return (struct C##_weak){nu_self()};                                                         \
	}                                                                                                    \
	NU_SEMICOLON

/* The class itself. Without NU_CLASS_FINI in any file the weak symbol is missing, and its address NULL. */
#define NU_CLASS_DEFINE(C)                                                                                   \
	NU_SHARED void C##_nu_fini(void *nu_root);                                                           \
	NU_SHARED const struct nu_class C##_class = {#C, sizeof(struct C), &C##_init_method, C##_nu_fini}
