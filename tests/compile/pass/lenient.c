/* SPDX-License-Identifier: MIT */
/* A file that asked for it may lose fractions; -Wconversion is off here since that is its own flag's business. */
#define NU_LENIENT
#pragma GCC diagnostic ignored "-Wfloat-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#include <nu/nu.h>

int whole(double d);
int whole(double d)
{
	return d;
}
