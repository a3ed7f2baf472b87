/* SPDX-License-Identifier: MIT */
/*
 * The kinds of arguments and results that class macros understand, as tables for the preprocessor. Included by
 * nu_class.h, which says what a program may write; nothing here is for programs.
 *
 * A kind such as `vec(words, w)` is never a macro itself, and may be one of the program's: `#define str(x) #x` must not
 * bite. So NU_KINDS and NU_RESULT_AND_KINDS, before anything could expand it, paste _nu_ in front of each. Pasting a
 * table's name in front of that selects an entry: NU_A_TYPE gives NU_A_TYPE_nu_vec(words, w). To add a kind, add it to
 * every table of its block.
 *
 * For the same reason names that stand in these macros are the program's, or begin with nu_ or NU_.
 */
#pragma once

/* ---- lists: NU_EACH(n, M, ctx, x...) gives M(ctx, x) for each of the first n ---- */

#define NU_CAT_(a, b)	      a##b
#define NU_CAT(a, b)	      NU_CAT_(a, b)
#define NU_SECOND_(a, b, ...) b
#define NU_SECOND(...)	      NU_SECOND_(__VA_ARGS__, 0, 0)
#define NU_UNPAREN(...)	      __VA_ARGS__
#define NU_APPLY(M, ...)      M(__VA_ARGS__)

/* clang-format off */
#define NU_EACH(n, M, ctx, ...) NU_CAT(NU_E, n)(M, ctx, __VA_ARGS__, ~)
#define NU_E_MANY(...) _Static_assert(0, "more than 24 arguments or members");
#define NU_E0(...)
#define NU_E1(M, c, x, ...)  M(c, x)
#define NU_E2(M, c, x, ...)  M(c, x) NU_E1(M, c, __VA_ARGS__)
#define NU_E3(M, c, x, ...)  M(c, x) NU_E2(M, c, __VA_ARGS__)
#define NU_E4(M, c, x, ...)  M(c, x) NU_E3(M, c, __VA_ARGS__)
#define NU_E5(M, c, x, ...)  M(c, x) NU_E4(M, c, __VA_ARGS__)
#define NU_E6(M, c, x, ...)  M(c, x) NU_E5(M, c, __VA_ARGS__)
#define NU_E7(M, c, x, ...)  M(c, x) NU_E6(M, c, __VA_ARGS__)
#define NU_E8(M, c, x, ...)  M(c, x) NU_E7(M, c, __VA_ARGS__)
#define NU_E9(M, c, x, ...)  M(c, x) NU_E8(M, c, __VA_ARGS__)
#define NU_E10(M, c, x, ...) M(c, x) NU_E9(M, c, __VA_ARGS__)
#define NU_E11(M, c, x, ...) M(c, x) NU_E10(M, c, __VA_ARGS__)
#define NU_E12(M, c, x, ...) M(c, x) NU_E11(M, c, __VA_ARGS__)
#define NU_E13(M, c, x, ...) M(c, x) NU_E12(M, c, __VA_ARGS__)
#define NU_E14(M, c, x, ...) M(c, x) NU_E13(M, c, __VA_ARGS__)
#define NU_E15(M, c, x, ...) M(c, x) NU_E14(M, c, __VA_ARGS__)
#define NU_E16(M, c, x, ...) M(c, x) NU_E15(M, c, __VA_ARGS__)
#define NU_E17(M, c, x, ...) M(c, x) NU_E16(M, c, __VA_ARGS__)
#define NU_E18(M, c, x, ...) M(c, x) NU_E17(M, c, __VA_ARGS__)
#define NU_E19(M, c, x, ...) M(c, x) NU_E18(M, c, __VA_ARGS__)
#define NU_E20(M, c, x, ...) M(c, x) NU_E19(M, c, __VA_ARGS__)
#define NU_E21(M, c, x, ...) M(c, x) NU_E20(M, c, __VA_ARGS__)
#define NU_E22(M, c, x, ...) M(c, x) NU_E21(M, c, __VA_ARGS__)
#define NU_E23(M, c, x, ...) M(c, x) NU_E22(M, c, __VA_ARGS__)
#define NU_E24(M, c, x, ...) M(c, x) NU_E23(M, c, __VA_ARGS__)

/*
 * @none is empty: pasted to what follows it, it keeps the list from being expanded. What follows the list tells how many
 * there are: the longer it is, the further that is shifted.
 */
#define NU_KINDS(CHECK, NEXT, none, ...) \
	NU_KINDS_(CHECK, NEXT, none##__VA_ARGS__, \
		_MANY, _MANY, _MANY, _MANY, _MANY, _MANY, _MANY, _MANY, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, \
		13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,)
#define NU_RESULT_AND_KINDS(NEXT, ctx, none, ...) \
	NU_RESULT_AND_KINDS_(NEXT, ctx, none##__VA_ARGS__, \
		_MANY, _MANY, _MANY, _MANY, _MANY, _MANY, _MANY, _MANY, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, \
		13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,)

/* CHECK(~, ("x", _nu_x)) for each, then NEXT(C, n, _nu_x...): of those behind the nth nothing is used. */
#define NU_KINDS_(CHECK, NEXT, C, \
		a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, \
		a21, a22, a23, a24, b1, b2, b3, b4, b5, b6, b7, b8, n, ...) \
	NU_CAT(NEXT, _BEGIN)(C) \
	NU_EACH(n, CHECK, ~, \
		(#a1, _nu_##a1), (#a2, _nu_##a2), (#a3, _nu_##a3), (#a4, _nu_##a4), (#a5, _nu_##a5), \
		(#a6, _nu_##a6), (#a7, _nu_##a7), (#a8, _nu_##a8), (#a9, _nu_##a9), (#a10, _nu_##a10), \
		(#a11, _nu_##a11), (#a12, _nu_##a12), (#a13, _nu_##a13), (#a14, _nu_##a14), \
		(#a15, _nu_##a15), (#a16, _nu_##a16), (#a17, _nu_##a17), (#a18, _nu_##a18), \
		(#a19, _nu_##a19), (#a20, _nu_##a20), (#a21, _nu_##a21), (#a22, _nu_##a22), \
		(#a23, _nu_##a23), (#a24, _nu_##a24)) \
	NEXT(C, n, \
		_nu_##a1, _nu_##a2, _nu_##a3, _nu_##a4, _nu_##a5, _nu_##a6, _nu_##a7, _nu_##a8, _nu_##a9, \
		_nu_##a10, _nu_##a11, _nu_##a12, _nu_##a13, _nu_##a14, _nu_##a15, _nu_##a16, _nu_##a17, \
		_nu_##a18, _nu_##a19, _nu_##a20, _nu_##a21, _nu_##a22, _nu_##a23, _nu_##a24)
#define NU_RESULT_AND_KINDS_(NEXT, ctx, R, \
		a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, \
		a21, a22, a23, a24, b1, b2, b3, b4, b5, b6, b7, b8, n, ...) \
	NU_R_EXPECT(#R, _nu_##R) \
	NU_EACH(n, NU_EXPECT, ~, \
		(#a1, _nu_##a1), (#a2, _nu_##a2), (#a3, _nu_##a3), (#a4, _nu_##a4), (#a5, _nu_##a5), \
		(#a6, _nu_##a6), (#a7, _nu_##a7), (#a8, _nu_##a8), (#a9, _nu_##a9), (#a10, _nu_##a10), \
		(#a11, _nu_##a11), (#a12, _nu_##a12), (#a13, _nu_##a13), (#a14, _nu_##a14), \
		(#a15, _nu_##a15), (#a16, _nu_##a16), (#a17, _nu_##a17), (#a18, _nu_##a18), \
		(#a19, _nu_##a19), (#a20, _nu_##a20), (#a21, _nu_##a21), (#a22, _nu_##a22), \
		(#a23, _nu_##a23), (#a24, _nu_##a24)) \
	NEXT(ctx, _nu_##R, n, \
		_nu_##a1, _nu_##a2, _nu_##a3, _nu_##a4, _nu_##a5, _nu_##a6, _nu_##a7, _nu_##a8, _nu_##a9, \
		_nu_##a10, _nu_##a11, _nu_##a12, _nu_##a13, _nu_##a14, _nu_##a15, _nu_##a16, _nu_##a17, \
		_nu_##a18, _nu_##a19, _nu_##a20, _nu_##a21, _nu_##a22, _nu_##a23, _nu_##a24)
/* clang-format on */

/* ---- what the compiler can tell about a type ---- */

/* Integers, char, enumerations, bool: 1 to 4; float, double: 8. Pointers, arrays (they decay), structs: others. */
#define NU_TYPE_CLASS(T) __builtin_classify_type((T){0})
#define NU_IS_SCALAR(T)	 ((NU_TYPE_CLASS(T) >= 1 && NU_TYPE_CLASS(T) <= 4) || NU_TYPE_CLASS(T) == 8)
/* Only a pointer to function comes back when what it points to is used as a value. */
#define NU_IS_FUNCTION(F) __builtin_types_compatible_p(F, __typeof__(1 ? *(F)0 : *(F)0))
#define NU_ASSERT_SCALAR(T, what)                                                                            \
	_Static_assert(NU_IS_SCALAR(T),                                                                      \
		       what " has type " #T ", which is no scalar: pointers, arrays and raw structs cannot " \
			    "cross to another proclet; use obj, str, bytes, vec, ref or fn");                \
	_Static_assert(_Alignof(T) <= 8, what " has type " #T ", which is aligned to more than 8 bytes");
#define NU_ASSERT_FUNCTION(F, what)                                                                          \
	_Static_assert(__builtin_classify_type((F)0) == 5,                                                   \
		       what " has type " #F ", which is no pointer to a function");                          \
	_Static_assert(NU_IS_FUNCTION(F), what " has type " #F ", which is a pointer to data");
/* An undeclared constant is the one error with a chosen text for "this was not declared before". */
#define NU_ASSERT_STRUCT(S, what) _Static_assert(struct_##S##_is_not_declared_with_NU_STRUCT, what);
#define NU_ASSERT_CLASS(C, what)  _Static_assert(class_##C##_is_not_declared_with_NU_CLASS, what);
#define NU_ASSERT_VEC(V, what)	  _Static_assert(vec_##V##_is_not_declared_with_NU_VEC, what);

/* ---- arguments ---- */

/* The kind is known. */
#define NU_A_KNOWN_nu_val(T, n)	 ~, 1
#define NU_A_KNOWN_nu_obj(S, n)	 ~, 1
#define NU_A_KNOWN_nu_str(n)	 ~, 1
#define NU_A_KNOWN_nu_bytes(n)	 ~, 1
#define NU_A_KNOWN_nu_vec(V, n)	 ~, 1
#define NU_A_KNOWN_nu_ref(C, n)	 ~, 1
#define NU_A_KNOWN_nu_weak(C, n) ~, 1
#define NU_A_KNOWN_nu_fn(F, n)	 ~, 1
/* Its name. */
#define NU_A_NAME_nu_val(T, n)	n
#define NU_A_NAME_nu_obj(S, n)	n
#define NU_A_NAME_nu_str(n)	n
#define NU_A_NAME_nu_bytes(n)	n
#define NU_A_NAME_nu_vec(V, n)	n
#define NU_A_NAME_nu_ref(C, n)	n
#define NU_A_NAME_nu_weak(C, n) n
#define NU_A_NAME_nu_fn(F, n)	n
/* Its type, as a parameter and in the struct of arguments. */
#define NU_A_TYPE_nu_val(T, n)	T
#define NU_A_TYPE_nu_obj(S, n)	struct S
#define NU_A_TYPE_nu_str(n)	struct nu_str
#define NU_A_TYPE_nu_bytes(n)	struct nu_bytes
#define NU_A_TYPE_nu_vec(V, n)	struct V
#define NU_A_TYPE_nu_ref(C, n)	struct C##_ref
#define NU_A_TYPE_nu_weak(C, n) struct C##_weak
#define NU_A_TYPE_nu_fn(F, n)	F
/* It may cross. */
#define NU_A_CHECK_nu_val(T, n) NU_ASSERT_SCALAR(T, "argument " #n)
#define NU_A_CHECK_nu_obj(S, n) NU_ASSERT_STRUCT(S, "argument " #n)
#define NU_A_CHECK_nu_str(n)
#define NU_A_CHECK_nu_bytes(n)
#define NU_A_CHECK_nu_vec(V, n)	 NU_ASSERT_VEC(V, "argument " #n)
#define NU_A_CHECK_nu_ref(C, n)	 NU_ASSERT_CLASS(C, "argument " #n)
#define NU_A_CHECK_nu_weak(C, n) NU_ASSERT_CLASS(C, "argument " #n)
#define NU_A_CHECK_nu_fn(F, n)	 NU_ASSERT_FUNCTION(F, "argument " #n)
/* It has an entry in nu_method.fields, and which. */
#define NU_A_LISTED_nu_val(T, n)  0
#define NU_A_LISTED_nu_obj(S, n)  0
#define NU_A_LISTED_nu_str(n)	  1
#define NU_A_LISTED_nu_bytes(n)	  1
#define NU_A_LISTED_nu_vec(V, n)  1
#define NU_A_LISTED_nu_ref(C, n)  1
#define NU_A_LISTED_nu_weak(C, n) 0
#define NU_A_LISTED_nu_fn(F, n)	  1
#define NU_A_WIRE_nu_str(n)	  NU_FIELD_STR, 1
#define NU_A_WIRE_nu_bytes(n)	  NU_FIELD_BYTES, 1
#define NU_A_WIRE_nu_vec(V, n)	  NU_FIELD_VEC, sizeof(*((struct V *)0)->items)
#define NU_A_WIRE_nu_ref(C, n)	  NU_FIELD_REF, 0
#define NU_A_WIRE_nu_fn(F, n)	  NU_FIELD_FN, 0

/* Loops over arguments: ctx is the struct of arguments where an entry needs it. */
#define NU_EXPECT(ctx, pair) NU_EXPECT_ pair
#define NU_EXPECT_(text, x)  NU_CAT(NU_EXPECT_, NU_SECOND(NU_A_KNOWN##x))(text, x)
#define NU_EXPECT_1(text, x) NU_A_CHECK##x
#define NU_EXPECT_0(text, x)                                                                                 \
	_Static_assert(0, "unknown kind of argument: " text                                                  \
			  "; known: val(T, n) obj(S, n) str(n) bytes(n) vec(V, n) ref(C, n) weak(C, n) "     \
			  "fn(F, n)");
#define NU_PARAM(ctx, x)  , NU_A_TYPE##x NU_A_NAME##x
#define NU_MEMBER(ctx, x) NU_A_TYPE##x NU_A_NAME##x;
#define NU_SET(ctx, x)	  .NU_A_NAME##x = NU_A_NAME##x,
#define NU_GET(ctx, x)	  , nu_args->NU_A_NAME##x
#define NU_ENTRY(ctx, x)  NU_CAT(NU_ENTRY_, NU_A_LISTED##x)(ctx, x)
#define NU_ENTRY_0(ctx, x)
#define NU_ENTRY_1(ctx, x) {offsetof(struct ctx, NU_A_NAME##x), NU_A_WIRE##x},

/* ---- members of a declared struct ---- */

#define NU_S_KNOWN_nu_val(T, n)	    ~, 1
#define NU_S_KNOWN_nu_arr(T, n, N)  ~, 1
#define NU_S_KNOWN_nu_obj(S, n)	    ~, 1
#define NU_S_KNOWN_nu_weak(C, n)    ~, 1
#define NU_S_CHECK_nu_val(T, n)	    NU_ASSERT_SCALAR(T, "member " #n)
#define NU_S_CHECK_nu_arr(T, n, N)  NU_ASSERT_SCALAR(T, "member " #n)
#define NU_S_CHECK_nu_obj(S, n)	    NU_ASSERT_STRUCT(S, "member " #n)
#define NU_S_CHECK_nu_weak(C, n)    NU_ASSERT_CLASS(C, "member " #n)
#define NU_S_MEMBER_nu_val(T, n)    T n;
#define NU_S_MEMBER_nu_arr(T, n, N) T n[N];
#define NU_S_MEMBER_nu_obj(S, n)    struct S n;
#define NU_S_MEMBER_nu_weak(C, n)   struct C##_weak n;

#define NU_S_EXPECT(ctx, pair) NU_S_EXPECT_ pair
#define NU_S_EXPECT_(text, x)  NU_CAT(NU_S_EXPECT_, NU_SECOND(NU_S_KNOWN##x))(text, x)
#define NU_S_EXPECT_1(text, x) NU_S_CHECK##x
#define NU_S_EXPECT_0(text, x)                                                                               \
	_Static_assert(0, "unknown kind of member: " text                                                    \
			  "; known: val(T, n) arr(T, n, COUNT) obj(S, n) weak(C, n)");
#define NU_S_MEMBER(ctx, x) NU_S_MEMBER##x

/* ---- results ---- */

#define NU_R_KNOWN_nu_none    ~, 1
#define NU_R_KNOWN_nu_val(T)  ~, 1
#define NU_R_KNOWN_nu_obj(S)  ~, 1
#define NU_R_KNOWN_nu_ref(C)  ~, 1
#define NU_R_KNOWN_nu_weak(C) ~, 1
#define NU_R_KNOWN_nu_fn(F)   ~, 1
#define NU_R_KNOWN_nu_str     ~, 1
#define NU_R_KNOWN_nu_bytes   ~, 1
#define NU_R_KNOWN_nu_vec(V)  ~, 1
/* How the stub and the runner treat it: the suffix of the macros NU_BODY_, NU_RUN_, ... in nu_class.h. */
#define NU_R_SORT_nu_none    nu_is_none
#define NU_R_SORT_nu_val(T)  nu_is_fixed
#define NU_R_SORT_nu_obj(S)  nu_is_fixed
#define NU_R_SORT_nu_ref(C)  nu_is_ref
#define NU_R_SORT_nu_weak(C) nu_is_fixed
#define NU_R_SORT_nu_fn(F)   nu_is_fixed
#define NU_R_SORT_nu_str     nu_is_span
#define NU_R_SORT_nu_bytes   nu_is_span
#define NU_R_SORT_nu_vec(V)  nu_is_span
/* What the caller gets. */
#define NU_R_TYPE_nu_none    char
#define NU_R_TYPE_nu_val(T)  T
#define NU_R_TYPE_nu_obj(S)  struct S
#define NU_R_TYPE_nu_ref(C)  struct C##_ref
#define NU_R_TYPE_nu_weak(C) struct C##_weak
#define NU_R_TYPE_nu_fn(F)   F
#define NU_R_TYPE_nu_str     struct nu_str
#define NU_R_TYPE_nu_bytes   struct nu_bytes
#define NU_R_TYPE_nu_vec(V)  struct V
/* It may cross. */
#define NU_R_CHECK_nu_none
#define NU_R_CHECK_nu_val(T)  NU_ASSERT_SCALAR(T, "result")
#define NU_R_CHECK_nu_obj(S)  NU_ASSERT_STRUCT(S, "result")
#define NU_R_CHECK_nu_ref(C)  NU_ASSERT_CLASS(C, "result")
#define NU_R_CHECK_nu_weak(C) NU_ASSERT_CLASS(C, "result")
#define NU_R_CHECK_nu_fn(F)   NU_ASSERT_FUNCTION(F, "result")
#define NU_R_CHECK_nu_str
#define NU_R_CHECK_nu_bytes
#define NU_R_CHECK_nu_vec(V) NU_ASSERT_VEC(V, "result")
/* Of a span: bytes of an item. */
#define NU_R_ITEM_nu_none    0
#define NU_R_ITEM_nu_val(T)  0
#define NU_R_ITEM_nu_obj(S)  0
#define NU_R_ITEM_nu_ref(C)  0
#define NU_R_ITEM_nu_weak(C) 0
#define NU_R_ITEM_nu_fn(F)   0
#define NU_R_ITEM_nu_str     1
#define NU_R_ITEM_nu_bytes   1
#define NU_R_ITEM_nu_vec(V)  sizeof(*((struct V *)0)->items)

#define NU_R_EXPECT(text, R)   NU_CAT(NU_R_EXPECT_, NU_SECOND(NU_R_KNOWN##R))(text, R)
#define NU_R_EXPECT_1(text, R) NU_R_CHECK##R
#define NU_R_EXPECT_0(text, R)                                                                               \
	_Static_assert(0, "unknown kind of result: " text                                                    \
			  "; known: none val(T) obj(S) ref(C) weak(C) fn(F) str bytes vec(V)");
