/* SPDX-License-Identifier: MIT */
/*
 * Macros that a program may have: named as the kinds of arguments and results, and as words in the attributes that the
 * class macros use. Included before nu.h by one file and after it by another, where they may also be named as members
 * and parameters of what nu.h declares.
 */
#define val		   this is val
#define obj		   this is obj
#define str		   this is str
#define bytes(a, b, c)	   this is bytes
#define vec		   this is vec
#define ref(a, b, c)	   this is ref
#define weak		   __attribute__((__weak__))
#define fn		   this is fn
#define arr		   this is arr
#define none		   this is none
#define unused		   __attribute__((__unused__))
#define used		   this is used
#define cleanup		   this is cleanup
#define section		   this is section
#define aligned		   this is aligned
#define visibility	   this is visibility
#define warn_unused_result this is warn_unused_result
#ifndef NU_OWN_BEFORE
#define self   this is self
#define out    this is out
#define name   this is name
#define run    this is run
#define init   this is init
#define fini   this is fini
#define value  this is value
#define base   this is base
#define get(p) this is get
#endif
