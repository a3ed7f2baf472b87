/* SPDX-License-Identifier: MIT */
/*
 * A class that has every kind of argument and result, for the tests of the class macros.
 */
#pragma once

#ifndef NU_API /* the unit tests of core/ have it from core/core.h */
#include <nu/nu.h>
#endif

enum colour { RED = 1, GREEN };
typedef int (*binary_fn)(int a, int b);

struct gauge {
	int level;
};
NU_CLASS(gauge, val(int, level));
NU_METHOD(gauge, read, val(int));

NU_STRUCT(point, val(double, x), val(double, y));
NU_STRUCT(shape, arr(char, name, 16), obj(point, centre), val(enum colour, colour), weak(gauge, owner));
NU_VEC(words, uint32_t);
NU_VEC_OBJ(points, point);

struct kinds {
	uint64_t sum;
	struct shape last;
	struct gauge_weak gauge;
};

NU_CLASS(kinds, val(uint64_t, sum), str(title), vec(words, ws), ref(gauge, g));
NU_CLASS_FINI(kinds);
NU_METHOD(kinds, nothing, none);
NU_METHOD(kinds, scalars, val(uint64_t), val(bool, b), val(char, c), val(enum colour, e), val(float, f),
	  val(double, d), val(int8_t, i8), val(uint16_t, u16), val(size_t, z));
NU_METHOD(kinds, swap, obj(shape), obj(shape, s));
NU_METHOD(kinds, join, str, str(a), str(b));
NU_METHOD(kinds, reverse, bytes, bytes(b));
NU_METHOD(kinds, squares, vec(words), vec(words, w), val(uint32_t, plus));
NU_METHOD(kinds, corners, vec(points), vec(points, p));
NU_METHOD(kinds, owner, ref(gauge), ref(gauge, g));
NU_METHOD(kinds, watch, weak(gauge), weak(gauge, g));
NU_METHOD(kinds, pick, fn(binary_fn), fn(binary_fn, f), val(bool, keep));
NU_METHOD(kinds, apply, val(int), fn(binary_fn, f), val(int, a), val(int, b));
NU_METHOD(kinds, all, str, val(char, c), str(s), bytes(b), vec(words, w), vec(points, p), ref(gauge, g),
	  weak(gauge, wk), fn(binary_fn, f), obj(shape, sh));
