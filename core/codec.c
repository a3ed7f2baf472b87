/* SPDX-License-Identifier: MIT */
/*
 * Codec: a method's arguments as bytes and back, by its descriptor's list of fields.
 *
 * On the wire: the struct of arguments, padded to 8, then the contents of each span in the order of the fields, each
 * padded to 8; a string's contents end in a NUL. A span's pointer only says whether it is NULL. A method without
 * fields is its struct and nothing else.
 */
#include "core/core.h"

#include <string.h>

#define WIRE_ALIGN   8
#define WIRE_PRESENT ((const void *)1) /* what stands for a pointer */

/* str, bytes and vec(V) arguments all look like this; a vector counts items. */
struct span {
	const void *data;
	size_t count;
};
_Static_assert(offsetof(struct nu_str, s) == offsetof(struct span, data), "struct nu_str is a span");
_Static_assert(offsetof(struct nu_str, len_bytes) == offsetof(struct span, count), "struct nu_str is a span");
_Static_assert(offsetof(struct nu_bytes, data) == offsetof(struct span, data), "struct nu_bytes is a span");
_Static_assert(offsetof(struct nu_bytes, len_bytes) == offsetof(struct span, count),
	       "struct nu_bytes is a span");

static bool is_span(const struct nu_field *f)
{
	return f->kind == NU_FIELD_STR || f->kind == NU_FIELD_BYTES || f->kind == NU_FIELD_VEC;
}

/* Bytes of the contents with a string's NUL, without padding; false: more than any message may have. */
static bool contents_bytes(const struct nu_field *f, const struct span *s, size_t *bytes_p)
{
	size_t bytes;

	*bytes_p = 0;
	if (!s->data)
		return true;
	if (__builtin_mul_overflow(s->count, (size_t)f->item_bytes, &bytes) || bytes > NU_MESSAGE_MAX_BYTES)
		return false;
	*bytes_p = bytes + (f->kind == NU_FIELD_STR);
	return true;
}

/* The node's own methods carry the packed arguments of constructors. */
static size_t limit_of(const struct nu_method *m)
{
	return m->cls == &nu_node_class ? NU_MESSAGE_MAX_BYTES : NU_CALL_MAX_BYTES;
}

static ssize_t too_large(const struct nu_method *m)
{
	nu_warn("call %s.%s: its arguments are larger than the limit of %zu bytes, each span rounded up to 8",
		m->class_name, m->name, limit_of(m));
	return -EMSGSIZE;
}

static const void *function_at(const void *at)
{
	const void *fn;

	memcpy(&fn, at, sizeof(fn));
	return fn;
}

ssize_t nu_codec_args_bytes(const struct nu_method *m, const void *args)
{
	size_t fixed = NU_ALIGN_UP((size_t)m->args_bytes, WIRE_ALIGN), sum = 0, bytes;

	for (uint32_t i = 0; i < m->nfields; i++) {
		const struct nu_field *f = &m->fields[i];

		if (!is_span(f))
			continue;
		if (!contents_bytes(f, (const void *)((const char *)args + f->offset), &bytes))
			return too_large(m);
		sum += NU_ALIGN_UP(bytes, WIRE_ALIGN);
		if (fixed + sum > limit_of(m))
			return too_large(m);
	}
	return (ssize_t)sum;
}

/* Writes the contents and zeroes up to the padding's end: no old bytes of the sender's memory leave it. */
static char *pack_span(const struct nu_field *f, struct span *s, char *to)
{
	size_t bytes, padded;

	if (!s->data) {
		s->count = 0;
		return to;
	}
	bytes = s->count * f->item_bytes;
	padded = NU_ALIGN_UP(bytes + (f->kind == NU_FIELD_STR), WIRE_ALIGN);
	memcpy(to, s->data, bytes);
	memset(to + bytes, 0, padded - bytes);
	s->data = WIRE_PRESENT;
	return to + padded;
}

void nu_codec_args_pack(const struct nu_method *m, const void *args, void *to)
{
	char *at = (char *)to + m->args_bytes;

	memcpy(to, args, m->args_bytes);
	if (!m->nfields)
		return;
	for (; (at - (char *)to) % WIRE_ALIGN; at++)
		*at = 0;
	for (uint32_t i = 0; i < m->nfields; i++) {
		const struct nu_field *f = &m->fields[i];

		if (is_span(f))
			at = pack_span(f, (void *)((char *)to + f->offset), at);
	}
}

static int bad(const struct nu_method *m, const struct nu_field *f, const char *what)
{
	nu_info("call %s.%s: field at offset %u: %s", m->class_name, m->name, f ? f->offset : 0, what);
	return -EBADMSG;
}

/* Points the span at its contents, which begin at *at_p of at most *left_p bytes; takes them off. */
static int unpack_span(const struct nu_method *m, const struct nu_field *f, struct span *s, char **at_p,
		       size_t *left_p)
{
	size_t bytes, padded;

	if (!s->data)
		return s->count ? bad(m, f, "a span without contents has a length") : 0;
	if (!contents_bytes(f, s, &bytes))
		return bad(m, f, "a length beyond any message");
	padded = NU_ALIGN_UP(bytes, WIRE_ALIGN);
	if (padded > *left_p)
		return bad(m, f, "a length beyond the message's end");
	if (f->kind == NU_FIELD_STR && (*at_p)[s->count])
		return bad(m, f, "a string without its NUL");
	s->data = *at_p;
	*at_p += padded;
	*left_p -= padded;
	return 0;
}

int nu_codec_args_unpack(const struct nu_method *m, void *buf, size_t len)
{
	size_t fixed = NU_ALIGN_UP((size_t)m->args_bytes, WIRE_ALIGN), left;
	char *at = (char *)buf + fixed;
	int ret;

	/* A method without fields is sent with or without padding. */
	if (!m->nfields)
		return len == m->args_bytes || len == fixed ? 0 : bad(m, NULL, "not the arguments' size");
	if (len < fixed)
		return bad(m, NULL, "shorter than the arguments");
	left = len - fixed;
	for (uint32_t i = 0; i < m->nfields; i++) {
		const struct nu_field *f = &m->fields[i];
		char *member = (char *)buf + f->offset;

		if (is_span(f)) {
			ret = unpack_span(m, f, (void *)member, &at, &left);
			if (ret)
				return ret;
		} else if (f->kind == NU_FIELD_FN && function_at(member) &&
			   !nu_image_movable(function_at(member))) {
			return bad(m, f, "a function that is not the program's");
		}
	}
	return left ? bad(m, NULL, "bytes after the last span") : 0;
}
