/* SPDX-License-Identifier: MIT */
/*
 * Criterion keeps an arena of its own at an address that it draws at random, now and then in one of our regions, where
 * nothing else may live. A test that has the layout checked calls this first: it shrinks the regions around it.
 */
#pragma once

#include "core/core.h"

#include <inttypes.h>
#include <stdio.h>

static inline void make_room_in(uintptr_t *base, size_t *len, uintptr_t start, uintptr_t end)
{
	if (start >= *base + *len || end <= *base)
		return;
	if (start - *base >= *len / 2) {
		*len = (start - *base) & ~(NU_GIB - 1);
	} else {
		uintptr_t up = NU_ALIGN_UP(end, NU_GIB);
		*len -= up - *base;
		*base = up;
	}
}

static inline void make_room(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	uintptr_t start, end;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) != 2)
			continue;
		make_room_in(&nu_layout.seg_base, &nu_layout.seg_region_bytes, start, end);
		make_room_in(&nu_layout.stack_base, &nu_layout.stack_region_bytes, start, end);
	}
	if (f)
		fclose(f);
	nu_layout.stack_node_bytes = nu_layout.stack_region_bytes / NU_MAX_NODES & ~(NU_GIB - 1);
}
