/* SPDX-License-Identifier: MIT */
/* Expect: more than 24 arguments or members */
#include "kinds.h"

NU_METHOD(kinds, many, none, val(int, a1), val(int, a2), val(int, a3), val(int, a4), val(int, a5), val(int, a6),
	  val(int, a7), val(int, a8), val(int, a9), val(int, a10), val(int, a11), val(int, a12), val(int, a13),
	  val(int, a14), val(int, a15), val(int, a16), val(int, a17), val(int, a18), val(int, a19), val(int, a20),
	  val(int, a21), val(int, a22), val(int, a23), val(int, a24), val(int, a25));
