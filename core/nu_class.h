/* SPDX-License-Identifier: MIT */
/*
 * Classes, methods and closures: typed stubs made by the preprocessor and checked by the compiler. Included by nu.h.
 */
#pragma once

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
	NU_RESULT_SPAN,	 /* string, bytes, vector: struct nu_bytes at the caller (count in items for vectors) */
};

struct nu_out;
/* One method, constructor or closure. 64-byte aligned so that a section of them is an array. */
struct nu_method {
	const char *class_name, *name;
	/* Runs it: @args as the stub packed them; @result has result_bytes; @out for spans. */
	void (*run)(void *self, void *args, void *result, struct nu_out *out);
	const struct nu_field *fields;
	uint32_t nfields;
	uint32_t args_bytes;
	uint32_t result_bytes;	/* in the callee: FIXED, REF */
	uint16_t result_kind;
	uint16_t result_item_bytes; /* SPAN */
	uint64_t magic;
} __attribute__((aligned(64)));
#define NU_METHOD_MAGIC 0x6e752d6d6574686full

struct nu_class {
	const char *name;
	size_t root_bytes;
	const struct nu_method *init; /* result: int, 0 or a negative errno that create() returns */
	void (*fini)(void *self);     /* may be NULL: before the proclet is freed */
};

/*
 * Gives a span result from inside a method: copies @len_bytes at @data now, so locks may be dropped after it. The last
 * call wins; without one the result's data is NULL.
 */
NU_API void nu_out_bytes(struct nu_out *out, const void *data, size_t len_bytes);
NU_API void nu_out_str(struct nu_out *out, const char *s);

/* ---- what the stubs call ---- */

struct nu_options;

/* Calls @m on @target and waits. @result: FIXED and REF: result_bytes; SPAN: struct nu_bytes whose data is a block of
 * the calling proclet's heap, freed by the caller; NONE: NULL. */
NU_API int __must_check nu_call(struct nu_ref target, const struct nu_method *m, const void *args, void *result);
NU_API int __must_check nu_create(const struct nu_class *cls, const struct nu_options *options, const void *args,
				  struct nu_ref *ref_p);

/* A call under way. Lies in the caller's heap or stack until waited for. */
struct nu_future {
	struct nu_thread *thread; /* runs the call; NULL: none */
	int status;
	struct nu_ref ref;	  /* of an asynchronous create */
};
/* Starts the call; @args are copied before it returns, @result is written before nu_future_wait() returns. */
NU_API int __must_check nu_call_async(struct nu_ref target, const struct nu_method *m, const void *args, void *result,
				      struct nu_future *f);
NU_API int __must_check nu_create_async(const struct nu_class *cls, const struct nu_options *options, const void *args,
					struct nu_future *f);
/* Waits and returns the call's status; later calls return it again. -EINVAL: nothing was started. */
NU_API int nu_future_wait(struct nu_future *f);
