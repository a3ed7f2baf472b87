/* SPDX-License-Identifier: MIT */
/*
 * The stubs and descriptors that the class macros make, over a stand-in for the runtime: objects in a table, arguments
 * packed and unpacked by the real codec, so that descriptors and codec are tested as they meet.
 */
#include "core/core.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/compile/kinds.h"

/* ---- the stand-in ---- */

#define OBJECTS 16
static struct object {
	const struct nu_class *cls;
	void *root;
	int refs;
} objects[OBJECTS];
static uint64_t running;
static int fail_next, calls, finis;

struct nu_out {
	struct nu_bytes got;
};

void nu_image_add(const struct nu_image *image)
{
}

bool nu_image_movable(const void *pc)
{
	return pc != (const void *)free;
}

void nu_out_bytes(struct nu_out *out, const void *data, size_t len_bytes)
{
	char *copy = malloc(len_bytes + 1);

	free((void *)out->got.data);
	memcpy(copy, data, len_bytes);
	copy[len_bytes] = '\0';
	out->got = (struct nu_bytes){copy, len_bytes};
}

void nu_out_str(struct nu_out *out, const char *s)
{
	nu_out_bytes(out, s, strlen(s));
}

struct nu_ref nu_self(void)
{
	return (struct nu_ref){running};
}

int nu_ref_get(struct nu_ref ref)
{
	if (!ref.id || ref.id > OBJECTS || objects[ref.id - 1].refs <= 0)
		return -ESTALE;
	objects[ref.id - 1].refs++;
	return 0;
}

int nu_ref_put(struct nu_ref ref)
{
	struct object *o = &objects[ref.id - 1];

	if (o->refs <= 0)
		return -EINVAL;
	if (--o->refs)
		return 0;
	if (o->cls->fini)
		o->cls->fini(o->root);
	free(o->root);
	o->root = NULL;
	return 0;
}

/* As a remote call does it: packed, carried in a block of exactly that size, unpacked there. */
static int run(uint64_t id, const struct nu_method *m, const void *args, void *result)
{
	ssize_t extra = nu_codec_args_bytes(m, args);
	size_t len = NU_ALIGN_UP((size_t)m->args_bytes, 8) + (size_t)extra;
	struct nu_out out = {{NULL, 0}};
	uint64_t outer = running;
	void *wire;
	int ret;

	calls++;
	cr_assert(extra >= 0);
	wire = malloc(len ? len : 1);
	nu_codec_args_pack(m, args, wire);
	ret = nu_codec_args_unpack(m, wire, len);
	if (!ret) {
		running = id;
		m->run(objects[id - 1].root, wire, result, &out);
		running = outer;
		if (m->result_kind == NU_RESULT_SPAN)
			*(struct nu_bytes *)result = out.got;
		if (m->result_kind == NU_RESULT_REF)
			cr_assert_eq(nu_ref_get(*(struct nu_ref *)result), 0);
	}
	memset(wire, 0xdb, len); /* nothing may point into it now */
	free(wire);
	return ret;
}

int nu_call(struct nu_ref target, const struct nu_method *m, const void *args, void *result)
{
	cr_assert_eq(m->magic, NU_METHOD_MAGIC);
	if (fail_next) {
		fail_next = 0;
		return -EHOSTDOWN;
	}
	if (!target.id || target.id > OBJECTS || !objects[target.id - 1].root)
		return -ESTALE;
	return run(target.id, m, args, result);
}

int nu_create(const struct nu_class *cls, const struct nu_options *options, const void *args,
	      struct nu_ref *ref_p)
{
	int ret, init;

	for (uint64_t i = 0; i < OBJECTS; i++) {
		if (objects[i].root)
			continue;
		objects[i] = (struct object){cls, calloc(1, cls->root_bytes), 1};
		ret = run(i + 1, cls->init, args, &init);
		if (!ret && !init) {
			ref_p->id = i + 1;
			return 0;
		}
		free(objects[i].root);
		objects[i].root = NULL;
		return ret ? ret : init;
	}
	return -ENOMEM;
}

/* Runs at once; the status is handed out by waiting. */
int nu_call_async(struct nu_ref target, const struct nu_method *m, const void *args, void *result,
		  struct nu_future *f)
{
	f->status = nu_call(target, m, args, result);
	f->thread = (struct nu_thread *)f;
	return 0;
}

int nu_create_async(const struct nu_class *cls, const struct nu_options *options, const void *args,
		    struct nu_future *f)
{
	f->status = nu_create(cls, options, args, &f->ref);
	f->thread = (struct nu_thread *)f;
	return 0;
}

int nu_future_wait(struct nu_future *f)
{
	return f->thread ? f->status : -EINVAL;
}

/* ---- the classes' bodies ---- */

int gauge_init(struct gauge *self, int level)
{
	self->level = level;
	return level < 0 ? -ERANGE : 0;
}

int gauge_do_read(struct gauge *self)
{
	return self->level;
}

int kinds_init(struct kinds *self, uint64_t sum, struct nu_str title, struct words ws, struct gauge_ref g)
{
	self->sum = sum + title.len_bytes;
	for (size_t i = 0; i < ws.count; i++)
		self->sum += ws.items[i];
	self->gauge = gauge_weak(g);
	return 0;
}

void kinds_fini(struct kinds *self)
{
	finis++;
}

void kinds_do_nothing(struct kinds *self)
{
}

uint64_t kinds_do_scalars(struct kinds *self, bool b, char c, enum colour e, float f, double d, int8_t i8,
			  uint16_t u16, size_t z)
{
	cr_assert(b && c == 'c' && e == GREEN && f == 0.5f && d == -2.25 && i8 == -8 && u16 == 65535 &&
		  z == SIZE_MAX);
	return self->sum;
}

struct shape kinds_do_swap(struct kinds *self, struct shape s)
{
	struct shape last = self->last;

	self->last = s;
	return last;
}

void kinds_do_join(struct kinds *self, struct nu_str a, struct nu_str b, struct nu_out *out)
{
	char joined[64];

	cr_assert_eq(a.s[a.len_bytes], '\0');
	snprintf(joined, sizeof(joined), "%s%s", a.s, b.s);
	nu_out_str(out, joined);
}

void kinds_do_reverse(struct kinds *self, struct nu_bytes b, struct nu_out *out)
{
	char reversed[64];

	if (!b.data)
		return;
	for (size_t i = 0; i < b.len_bytes; i++)
		reversed[i] = ((const char *)b.data)[b.len_bytes - 1 - i];
	nu_out_bytes(out, reversed, b.len_bytes);
}

void kinds_do_squares(struct kinds *self, struct words w, uint32_t plus, struct nu_out *out)
{
	uint32_t squares[16];

	for (size_t i = 0; i < w.count; i++)
		squares[i] = w.items[i] * w.items[i] + plus;
	nu_out_vec(out, words, squares, w.count);
}

void kinds_do_corners(struct kinds *self, struct points p, struct nu_out *out)
{
	nu_out_vec(out, points, p.items, p.count);
}

struct gauge_ref kinds_do_owner(struct kinds *self, struct gauge_ref g)
{
	return g;
}

struct gauge_weak kinds_do_watch(struct kinds *self, struct gauge_weak g)
{
	struct gauge_weak was = self->gauge;

	self->gauge = g;
	return was;
}

static int add(int a, int b)
{
	return a + b;
}

binary_fn kinds_do_pick(struct kinds *self, binary_fn f, bool keep)
{
	return keep ? f : NULL;
}

int kinds_do_apply(struct kinds *self, binary_fn f, int a, int b)
{
	return f ? f(a, b) : -1;
}

void kinds_do_all(struct kinds *self, char c, struct nu_str s, struct nu_bytes b, struct words w,
		  struct points p, struct gauge_ref g, struct gauge_weak wk, binary_fn f, struct shape sh,
		  struct nu_out *out)
{
	char text[128];

	snprintf(text, sizeof(text), "%c %s %zu %u %g %d %d %d %s", c, s.s, b.len_bytes, w.items[w.count - 1],
		 p.items[p.count - 1].y, (int)g.ref.id, (int)wk.ref.id, f(20, 22), sh.name);
	nu_out_str(out, text);
}

/* ---- tests ---- */

static struct gauge_ref g;
static struct kinds_ref k;

static void set_up(void)
{
	uint32_t items[] = {1, 2, 3};

	cr_assert_eq(gauge_create(NULL, 7, &g), 0);
	cr_assert_eq(kinds_create(NULL, 100, nu_str("four"), (struct words){items, 3}, g, &k), 0);
}

TestSuite(class, .init = set_up);

Test(class, scalars_and_constructor)
{
	uint64_t sum = 0;

	cr_assert_eq(kinds_scalars(k, true, 'c', GREEN, 0.5f, -2.25, -8, 65535, SIZE_MAX, &sum), 0);
	cr_assert_eq(sum, 110);
	cr_assert_eq(kinds_nothing(k), 0);
}

Test(class, constructor_fails)
{
	struct gauge_ref none = {{0}};

	cr_assert_eq(gauge_create(NULL, -1, &none), -ERANGE);
	cr_assert_eq(none.ref.id, 0);
}

Test(class, status_is_not_result)
{
	int level = 41;

	fail_next = 1;
	cr_assert_eq(gauge_read(g, &level), -EHOSTDOWN);
	cr_assert_eq(level, 41, "the result is untouched on failure");
	cr_assert_eq(gauge_read((struct gauge_ref){{0}}, &level), -ESTALE);
	cr_assert_eq(gauge_read(g, &level), 0);
	cr_assert_eq(level, 7);
}

Test(class, declared_struct)
{
	struct shape s = {.name = "disc", .centre = {1.5, 2.5}, .colour = RED, .owner = gauge_weak(g)}, got;

	cr_assert_eq(kinds_swap(k, s, &got), 0);
	cr_assert_eq(got.name[0], '\0');
	cr_assert_eq(kinds_swap(k, s, &got), 0);
	cr_assert_str_eq(got.name, "disc");
	cr_assert(got.centre.x == 1.5 && got.centre.y == 2.5 && got.colour == RED &&
		  got.owner.ref.id == g.ref.id);
}

Test(class, spans)
{
	uint32_t items[] = {3, 4};
	struct point corners[] = {{0, 1}, {2, 3}, {4, 5}};
	struct nu_str s;
	struct nu_bytes b;
	struct words w = {NULL, 0};
	struct points p = {NULL, 0};

	cr_assert_eq(kinds_join(k, nu_str("ab"), nu_str(NULL), &s), 0);
	cr_assert_str_eq(s.s, "ab");
	cr_assert_eq(s.len_bytes, 2);
	free((void *)s.s);

	cr_assert_eq(kinds_reverse(k, nu_bytes("a\0b", 3), &b), 0);
	cr_assert_eq(b.len_bytes, 3);
	cr_assert_arr_eq(b.data, "b\0a", 3);
	free((void *)b.data);

	b = (struct nu_bytes){"x", 1};
	cr_assert_eq(kinds_reverse(k, nu_bytes(NULL, 0), &b), 0);
	cr_assert(!b.data && !b.len_bytes, "the method gave nothing");

	cr_assert_eq(kinds_squares(k, (struct words){items, 2}, 1, &w), 0);
	cr_assert(w.count == 2 && w.items[0] == 10 && w.items[1] == 17);
	free((void *)w.items);

	cr_assert_eq(kinds_corners(k, (struct points){corners, 3}, &p), 0);
	cr_assert(p.count == 3 && p.items[2].y == 5);
	free((void *)p.items);
}

Test(class, functions)
{
	binary_fn f = NULL;
	int r;

	cr_assert_eq(kinds_pick(k, add, true, &f), 0);
	cr_assert_eq(f, add);
	cr_assert_eq(kinds_apply(k, add, 2, 3, &r), 0);
	cr_assert_eq(r, 5);
	cr_assert_eq(kinds_apply(k, NULL, 2, 3, &r), 0);
	cr_assert_eq(r, -1);
	cr_assert_eq(kinds_apply(k, (binary_fn)(void *)free, 2, 3, &r), -EBADMSG, "not the program's");
}

Test(class, every_kind_in_one_call)
{
	uint32_t items[] = {3, 4};
	struct point corners[] = {{0, 1}, {2, 3}};
	struct nu_str s;

	cr_assert_eq(kinds_all(k, 'c', nu_str("str"), nu_bytes("12345", 5), (struct words){items, 2},
			       (struct points){corners, 2}, g, gauge_weak(g), add,
			       (struct shape){.name = "end"}, &s),
		     0);
	cr_assert_str_eq(s.s, "c str 5 4 3 1 1 42 end");
	free((void *)s.s);
}

Test(class, references_count)
{
	struct gauge_ref got = {{0}}, second;
	struct gauge_weak w, self;

	cr_assert_eq(kinds_owner(k, g, &got), 0);
	cr_assert_eq(objects[g.ref.id - 1].refs, 2, "a returned reference is the caller's own");
	cr_assert_eq(gauge_ref_get(got), 0);
	second = got;
	cr_assert_eq(gauge_ref_put(&second), 0);
	cr_assert_eq(second.ref.id, 0);
	cr_assert_eq(gauge_ref_put(&second), 0, "empty");
	cr_assert_eq(gauge_ref_put(&got), 0);
	cr_assert_eq(objects[g.ref.id - 1].refs, 1);
	cr_assert_eq(kinds_watch(k, gauge_weak(g), &w), 0);
	cr_assert_eq(objects[g.ref.id - 1].refs, 1, "a weak one does not count");
	cr_assert_eq(gauge_weak_get(w, &second), 0);
	cr_assert_eq(objects[g.ref.id - 1].refs, 2);
	cr_assert(!gauge_ref_put(&second) && !gauge_ref_put(&g));
	cr_assert_eq(gauge_weak_get(w, &second), -ESTALE);
	cr_assert_eq(second.ref.id, 0);
	running = 3;
	self = gauge_self();
	cr_assert_eq(self.ref.id, 3);
}

Test(class, scopes_give_back)
{
	{
		NU_SCOPED(gauge, unused);
		NU_SCOPED(kinds, mine);

		cr_assert_eq(kinds_create(NULL, 0, nu_str(""), (struct words){NULL, 0}, g, &mine), 0);
		cr_assert_eq(finis, 0);
		(void)unused;
	}
	cr_assert_eq(finis, 1, "the last reference runs the destructor");
	cr_assert_eq(gauge_class.fini, NULL, "a class without one");
}

Test(class, futures)
{
	NU_SCOPED_FUTURE(gauge, read, level);
	NU_SCOPED_FUTURE(kinds, nothing, idle);
	int l = 0;
	struct nu_str s;

	cr_assert_eq(gauge_read_wait(&level, &l), -EINVAL, "nothing was started");
	cr_assert_eq(gauge_read_async(g, &level), 0);
	cr_assert(!gauge_read_wait(&level, &l) && l == 7);
	l = 0;
	cr_assert(!gauge_read_wait(&level, &l) && l == 7, "a second wait says the same");
	cr_assert_eq(kinds_nothing_async(k, &idle), 0);
	cr_assert_eq(kinds_nothing_wait(&idle), 0);
	{
		NU_SCOPED_FUTURE(kinds, join, taken);
		NU_SCOPED_FUTURE(kinds, join, dropped); /* freed by its scope: the sanitizer's build checks */
		NU_SCOPED_FUTURE(kinds, owner, owner);
		NU_SCOPED_FUTURE(gauge, create, made);
		NU_SCOPED_FUTURE(gauge, create, left);
		struct gauge_ref mine = {{0}};

		cr_assert_eq(kinds_join_async(k, nu_str("a"), nu_str("b"), &taken), 0);
		cr_assert_eq(kinds_join_async(k, nu_str("c"), nu_str("d"), &dropped), 0);
		cr_assert_eq(kinds_join_wait(&taken, &s), 0);
		cr_assert_str_eq(s.s, "ab");
		free((void *)s.s);
		cr_assert_eq(kinds_owner_async(k, g, &owner), 0);
		cr_assert_eq(objects[g.ref.id - 1].refs, 2);
		cr_assert_eq(gauge_create_async(NULL, 5, &made), 0);
		cr_assert_eq(gauge_create_async(NULL, 6, &left), 0);
		cr_assert_eq(gauge_create_wait(&made, &mine), 0);
		cr_assert(!gauge_read(mine, &l) && l == 5);
		cr_assert_eq(gauge_ref_put(&mine), 0);
		cr_assert_not_null(objects[3].root);
	}
	cr_assert_eq(objects[g.ref.id - 1].refs, 1, "the scope gave the untaken reference back");
	cr_assert_null(objects[3].root, "and freed the proclet that nobody took");
}

Test(class, section_is_an_array_of_descriptors)
{
	const struct nu_method *m;
	unsigned n = 0, own = 0;

	for (m = __start_nu_methods; m < __stop_nu_methods; m++, n++) {
		cr_assert_eq(m->magic, NU_METHOD_MAGIC);
		cr_assert_eq((uintptr_t)m % 64, 0);
		cr_assert_not_null(m->run);
		own += m == &kinds_all_method || m == &gauge_init_method;
	}
	cr_assert_eq(m, __stop_nu_methods);
	cr_assert_eq(own, 2);
	cr_assert_geq(n, 15);
}

Test(class, descriptors)
{
	const struct nu_method *m = &kinds_all_method;
	static const uint16_t kinds[] = {NU_FIELD_STR, NU_FIELD_BYTES, NU_FIELD_VEC,
					 NU_FIELD_VEC, NU_FIELD_REF,   NU_FIELD_FN};

	cr_assert_str_eq(m->class_name, "kinds");
	cr_assert_str_eq(m->name, "all");
	cr_assert_eq(m->nfields, 6);
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(m->fields[i].kind, kinds[i]);
	cr_assert_eq(m->fields[2].item_bytes, sizeof(uint32_t));
	cr_assert_eq(m->fields[3].item_bytes, sizeof(struct point));
	cr_assert_eq(m->args_bytes, sizeof(struct kinds_all_args));
	cr_assert_eq(m->result_kind, NU_RESULT_SPAN);
	cr_assert_eq(kinds_corners_method.result_item_bytes, sizeof(struct point));
	cr_assert_eq(kinds_nothing_method.args_bytes, 0);
	cr_assert_eq(kinds_nothing_method.result_kind, NU_RESULT_NONE);
	cr_assert_eq(kinds_owner_method.result_kind, NU_RESULT_REF);
	cr_assert_eq(kinds_swap_method.result_bytes, sizeof(struct shape));
	cr_assert_eq(kinds_class.root_bytes, sizeof(struct kinds));
}
