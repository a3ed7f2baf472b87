/* SPDX-License-Identifier: MIT */
/* Expect: conversion from 'double' to 'int' may change value|implicit conversion turns floating-point number into integer */
#include "kinds.h"

int f(double level, struct gauge_ref *p);
int f(double level, struct gauge_ref *p)
{
	return gauge_create(NULL, level, p);
}
