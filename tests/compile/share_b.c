/* SPDX-License-Identifier: MIT */
/* The second file of share_a.c's program: it uses the same classes, adds a closure and has the bodies. */
#include "kinds.h"

NU_CLOSURE(gauge, doubled, val(int));

const struct nu_method *methods_of_b[] = {&kinds_all_method, &gauge_init_method, &gauge_doubled_method};
const struct nu_class *class_of_b = &kinds_class;

int gauge_init(struct gauge *self, int level)
{
	self->level = level;
	return 0;
}

int gauge_do_read(struct gauge *self)
{
	return self->level;
}

int gauge_do_doubled(struct gauge *self)
{
	return 2 * self->level;
}

int kinds_init(struct kinds *self, uint64_t sum, struct nu_str title, struct words ws, struct gauge_ref g)
{
	return 0;
}

void kinds_fini(struct kinds *self)
{
	self->sum = 99;
}

void kinds_do_nothing(struct kinds *self)
{
}

uint64_t kinds_do_scalars(struct kinds *self, bool b, char c, enum colour e, float f, double d, int8_t i8,
			  uint16_t u16, size_t z)
{
	return self->sum;
}

struct shape kinds_do_swap(struct kinds *self, struct shape s)
{
	return s;
}

void kinds_do_join(struct kinds *self, struct nu_str a, struct nu_str b, struct nu_out *out)
{
}

void kinds_do_reverse(struct kinds *self, struct nu_bytes b, struct nu_out *out)
{
}

void kinds_do_squares(struct kinds *self, struct words w, uint32_t plus, struct nu_out *out)
{
}

void kinds_do_corners(struct kinds *self, struct points p, struct nu_out *out)
{
}

struct gauge_ref kinds_do_owner(struct kinds *self, struct gauge_ref g)
{
	return g;
}

struct gauge_weak kinds_do_watch(struct kinds *self, struct gauge_weak g)
{
	return g;
}

binary_fn kinds_do_pick(struct kinds *self, binary_fn f, bool keep)
{
	return keep ? f : NULL;
}

int kinds_do_apply(struct kinds *self, binary_fn f, int a, int b)
{
	return f(a, b);
}

void kinds_do_all(struct kinds *self, char c, struct nu_str s, struct nu_bytes b, struct words w,
		  struct points p, struct gauge_ref g, struct gauge_weak wk, binary_fn f, struct shape sh,
		  struct nu_out *out)
{
}

/* In place of the runtime's, of which this program uses nothing else. */
void nu_image_add(const struct nu_image *image)
{
	(void)image;
}
