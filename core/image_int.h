/* SPDX-License-Identifier: MIT */
/* What the files about the image share. */
#pragma once

#include <link.h>
#include <stdbool.h>
#include <stdio.h>

/* The program's own object. */
struct dl_phdr_info nu_image_program(void);

#define NU_IMAGE_OBJECTS_MAX 64
typedef int (*nu_image_object_fn)(const struct dl_phdr_info *info, const struct nu_image *image);
/*
 * Calls @fn for each object that has classes, the program and libnu among them, until it returns an error.
 * Errors: -EOVERFLOW there are more than NU_IMAGE_OBJECTS_MAX; -ENOEXEC there are two runtimes in this process; those of @fn. image_objects.c
 */
int nu_image_objects(nu_image_object_fn fn);

/*
 * Binds the calls of the program that the loader has left for their first use. Return: false if none is left; true if
 * some cannot be bound, with the bounds of the table that the loader may still write. image_bind.c
 */
bool nu_image_lazy_got(uintptr_t *start_p, uintptr_t *end_p);
/* The digest's lines on the processor: what decides whether a signal frame of one node suits another. cpu-ARCH.c */
void nu_image_print_cpu(FILE *f);
