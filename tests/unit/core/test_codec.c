/* SPDX-License-Identifier: MIT */
/*
 * The codec: every kind there and back, its limits, and a peer's bytes that are anything at all. Packed bytes lie in
 * blocks of exactly their size, so that the sanitizer's build sees a read beyond them.
 */
#include "core/core.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

struct vec {
	const uint64_t *items;
	size_t count;
};

struct args {
	char c;
	struct nu_str s;
	struct nu_ref r;
	struct nu_bytes b;
	void (*fn)(void);
	struct vec v;
	struct nu_str t;
	char tail;
};

static const struct nu_field fields[] = {
	{offsetof(struct args, s), NU_FIELD_STR, 1},   {offsetof(struct args, r), NU_FIELD_REF, 0},
	{offsetof(struct args, b), NU_FIELD_BYTES, 1}, {offsetof(struct args, fn), NU_FIELD_FN, 0},
	{offsetof(struct args, v), NU_FIELD_VEC, 8},   {offsetof(struct args, t), NU_FIELD_STR, 1},
};
static const struct nu_method method = {.class_name = "test",
					.name = "all",
					.fields = fields,
					.nfields = 6,
					.args_bytes = sizeof(struct args)};

struct small {
	char c[13];
};
static const struct nu_method plain = {.class_name = "test",
				       .name = "plain",
				       .args_bytes = sizeof(struct small)};

/* What the program's code is: this test's functions, but not the C library's. */
static void movable(void)
{
}
bool nu_image_movable(const void *pc)
{
	return pc == (const void *)movable;
}

static void *packed(const struct nu_method *m, const void *args, size_t *len_p)
{
	ssize_t extra = nu_codec_args_bytes(m, args);
	void *to;

	cr_assert_geq(extra, 0);
	cr_assert_eq(extra % 8, 0);
	*len_p = m->nfields ? NU_ALIGN_UP((size_t)m->args_bytes, 8) + (size_t)extra : m->args_bytes;
	to = malloc(*len_p ? *len_p : 1);
	memset(to, 0xa5, *len_p);
	nu_codec_args_pack(m, args, to);
	return to;
}

/* Contents are there, inside the block, and elsewhere than the sender's. */
static void same(const void *data, size_t len, const void *sent, const char *buf, size_t buf_len)
{
	if (!sent) {
		cr_assert(!data && !len);
		return;
	}
	cr_assert((const char *)data >= buf && (const char *)data + len <= buf + buf_len);
	cr_assert_neq(data, sent);
	cr_assert_eq((uintptr_t)data % 8, 0);
	cr_assert_eq(memcmp(data, sent, len), 0);
}

static void round_trip(const struct args *a)
{
	size_t len;
	char *buf = packed(&method, a, &len);
	struct args *got = (struct args *)buf;

	cr_assert_eq(nu_codec_args_unpack(&method, buf, len), 0);
	cr_assert(got->c == a->c && got->tail == a->tail && got->r.id == a->r.id && got->fn == a->fn);
	cr_assert(got->s.len_bytes == (a->s.s ? a->s.len_bytes : 0) &&
		  got->v.count == (a->v.items ? a->v.count : 0));
	same(got->s.s, got->s.len_bytes, a->s.s, buf, len);
	same(got->b.data, got->b.len_bytes, a->b.data, buf, len);
	same(got->v.items, got->v.count * 8, a->v.items, buf, len);
	same(got->t.s, got->t.len_bytes, a->t.s, buf, len);
	if (got->s.s)
		cr_assert_eq(got->s.s[got->s.len_bytes], '\0');
	free(buf);
}

Test(codec, every_kind)
{
	uint64_t items[] = {1, UINT64_MAX};

	round_trip(&(
		struct args){'c', {"str", 3}, {42}, nu_bytes("b\0b", 3), movable, {items, 2}, {"t", 1}, 'z'});
}

Test(codec, lengths_about_the_padding)
{
	static const char text[64] = "0123456789abcdef0123456789abcdef0123456789abcdef";

	for (size_t n = 0; n <= 33; n++)
		round_trip(&(struct args){.s = {text, n},
					  .b = {text + 1, 33 - n},
					  .v = {(const uint64_t *)fields, n % 5},
					  .t = {text, n / 2}});
}

Test(codec, empty_is_not_null)
{
	struct args a = {.s = {"", 0}, .b = {"", 0}}, *got;
	size_t len;
	char *buf = packed(&method, &a, &len);

	cr_assert_eq(len, sizeof(a) + 8, "the empty string has its NUL");
	cr_assert_eq(nu_codec_args_unpack(&method, buf, len), 0);
	got = (struct args *)buf;
	cr_assert(got->s.s && !got->s.len_bytes && !*got->s.s);
	cr_assert_not_null(got->b.data);
	cr_assert_null(got->v.items);
	cr_assert_null(got->t.s);
	free(buf);
	round_trip(&(struct args){0});
	round_trip(&(struct args){.s = {NULL, 7}}); /* a length without contents counts for nothing */
}

Test(codec, large)
{
	size_t n = (NU_CALL_MAX_BYTES - NU_ALIGN_UP(sizeof(struct args), 8)) / 8;
	uint64_t *items = calloc(n + 1, 8);
	struct args a = {.v = {items, n}};

	for (size_t i = 0; i < n; i++)
		items[i] = i * 0x9e3779b97f4a7c15;
	round_trip(&a);
	nu_log_level = NU_LOG_ERROR;
	a.v.count = n + 1;
	cr_assert_eq(nu_codec_args_bytes(&method, &a), -EMSGSIZE);
	a.v.count = SIZE_MAX / 8 + 4; /* times 8 it wraps to 24 */
	cr_assert_eq(nu_codec_args_bytes(&method, &a), -EMSGSIZE);
	a.v.count = n;
	a.s = (struct nu_str){"x", 1}; /* each fits, both do not */
	cr_assert_eq(nu_codec_args_bytes(&method, &a), -EMSGSIZE);
	a.s.len_bytes = SIZE_MAX; /* the NUL would wrap it to nothing */
	cr_assert_eq(nu_codec_args_bytes(&method, &a), -EMSGSIZE);
	free(items);
}

Test(codec, nothing_of_the_sender_leaks)
{
	uint64_t items[] = {1};
	struct args a;
	size_t len;
	char *buf;

	memset(&a, 0, sizeof(a));
	a = (struct args){'c', {"abc", 3}, {1}, {"b", 1}, NULL, {items, 1}, {"", 0}, 'z'};
	buf = packed(&method, &a, &len);
	/* The 0xa5 that the block had before is all overwritten: padding is zeroes. */
	for (size_t i = 0; i < len; i++)
		cr_assert_neq((unsigned char)buf[i], 0xa5, "byte %zu", i);
	cr_assert_neq(((struct args *)buf)->s.s, a.s.s, "no address of the sender");
	free(buf);
}

Test(codec, plain_arguments_are_one_copy)
{
	struct small a = {"twelve bytes"};
	char buf[16] __attribute__((aligned(16)));

	memset(buf, 0x5a, sizeof(buf));
	cr_assert_eq(nu_codec_args_bytes(&plain, &a), 0);
	nu_codec_args_pack(&plain, &a, buf);
	cr_assert_eq(memcmp(buf, &a, sizeof(a)), 0);
	cr_assert_eq(buf[13], 0x5a, "not a byte more");
	cr_assert_eq(nu_codec_args_unpack(&plain, buf, 13), 0);
	cr_assert_eq(nu_codec_args_unpack(&plain, buf, 16), 0, "padded by the carrier");
	for (size_t n = 0; n < 32; n++)
		if (n != 13 && n != 16)
			cr_assert_eq(nu_codec_args_unpack(&plain, buf, n), -EBADMSG, "%zu", n);
}

static struct args sample;
static char *sample_packed(size_t *len_p)
{
	static const uint64_t items[] = {1, 2, 3};

	sample = (struct args){'c', {"string", 6}, {42}, {"bytes", 5}, movable, {items, 3}, {"t", 1}, 'z'};
	return packed(&method, &sample, len_p);
}

static void refused(void (*spoil)(struct args *a))
{
	size_t len;
	char *buf = sample_packed(&len);

	spoil((struct args *)buf);
	cr_assert_eq(nu_codec_args_unpack(&method, buf, len), -EBADMSG);
	free(buf);
}

static void longer_string(struct args *a)
{
	a->s.len_bytes = 8; /* its NUL would be in the next span's place */
}
static void endless_string(struct args *a)
{
	a->s.len_bytes = SIZE_MAX;
}
static void shorter_string(struct args *a)
{
	a->s.len_bytes = 5; /* no NUL there */
}
static void wrapping_vector(struct args *a)
{
	a->v.count = SIZE_MAX / 8 + 1 + 3; /* times 8 it is 24 again, what three items take */
}
static void longer_vector(struct args *a)
{
	a->v.count = 5;
}
static void missing_vector(struct args *a)
{
	a->v = (struct vec){NULL, 0}; /* leaves bytes over, or makes the string begin elsewhere */
}
static void length_of_nothing(struct args *a)
{
	a->b.data = NULL;
}
static void foreign_function(struct args *a)
{
	memcpy(&a->fn, &(void (*)(void *)){free}, sizeof(a->fn));
}
static void wild_function(struct args *a)
{
	memset(&a->fn, 0x41, sizeof(a->fn));
}

Test(codec, refused_words_of_a_peer)
{
	void (*spoils[])(struct args *) = {longer_string,     endless_string,	shorter_string,
					   wrapping_vector,   longer_vector,	missing_vector,
					   length_of_nothing, foreign_function, wild_function};

	for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++)
		refused(spoils[i]);
}

Test(codec, every_truncation_and_extension)
{
	size_t len, n;
	char *buf = sample_packed(&len), *cut;

	for (n = 0; n < len + 24; n++) {
		cut = calloc(1, n ? n : 1);
		memcpy(cut, buf, n < len ? n : len);
		cr_assert_eq(nu_codec_args_unpack(&method, cut, n), n == len ? 0 : -EBADMSG, "%zu of %zu", n,
			     len);
		free(cut);
	}
	free(buf);
}

Test(codec, a_pointer_from_the_wire_is_ignored)
{
	size_t len;
	char *buf = sample_packed(&len);

	((struct args *)buf)->s.s = (const char *)0x4141414141414141;
	cr_assert_eq(nu_codec_args_unpack(&method, buf, len), 0);
	cr_assert_str_eq(((struct args *)buf)->s.s, "string");
	free(buf);
}

static uint64_t seed = 20230417;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Reads all that an accepted message points to. */
static unsigned touch(const struct args *a, const char *buf, size_t len)
{
	const struct nu_bytes spans[] = {{a->s.s, a->s.len_bytes + 1},
					 a->b,
					 {a->v.items, a->v.count * 8},
					 {a->t.s, a->t.len_bytes + 1}};
	unsigned sum = 0;

	for (unsigned i = 0; i < 4; i++) {
		const char *p = spans[i].data;

		if (!p)
			continue;
		cr_assert(p >= buf && spans[i].len_bytes <= len && p + spans[i].len_bytes <= buf + len);
		for (size_t k = 0; k < spans[i].len_bytes; k++)
			sum += (unsigned char)p[k];
	}
	cr_assert(!a->fn || a->fn == movable);
	return sum;
}

Test(codec, mutations)
{
	size_t len, accepted = 0, refusals = 0;
	char *good = sample_packed(&len), *buf;
	volatile unsigned sink = 0;

	for (unsigned round = 0; round < 200000; round++) {
		size_t n = rnd() % 8 ? len : rnd() % (len + 16);

		buf = calloc(1, n ? n : 1);
		memcpy(buf, good, n < len ? n : len);
		for (uint64_t flips = rnd() % 4 + 1; flips && n; flips--) {
			size_t at = rnd() % n;

			/* Small numbers in the struct's words find more than random bytes do. */
			if (rnd() % 2 && n >= sizeof(struct args))
				((uint64_t *)buf)[rnd() % (sizeof(struct args) / 8)] = rnd() % 40;
			else
				buf[at] = (char)rnd();
		}
		if (nu_codec_args_unpack(&method, buf, n)) {
			refusals++;
		} else {
			accepted++;
			sink += touch((struct args *)buf, buf, n);
		}
		free(buf);
	}
	free(good);
	cr_assert(accepted > 1000 && refusals > 1000, "%zu accepted, %zu refused", accepted, refusals);
}
