/* SPDX-License-Identifier: MIT */
/* An object that a program may load besides: built twice, under two names. */
int abuse_extra(int (*fn)(void *arg), void *arg);

int abuse_extra(int (*fn)(void *arg), void *arg)
{
	return fn(arg) + EXTRA;
}
