/* SPDX-License-Identifier: MIT */
/* core/codec.c: packed arguments of methods with all kinds of fields. Input: which method, then the packed bytes. */
#include "core/core.h"
#include "fuzz.h"

struct wide {
	uint64_t a;
	uint32_t x, y, z;
};
struct args {
	uint32_t n;
	struct nu_str s;
	struct nu_bytes b;
	struct {
		const struct wide *items;
		size_t count;
	} v;
	struct {
		const uint16_t *items;
		size_t count;
	} h;
	struct nu_ref ref;
	void (*fn)(void);
	uint8_t tail[5];
};

static const struct nu_field str = {offsetof(struct args, s), NU_FIELD_STR, 1};
#define STR                                                                                                  \
	{                                                                                                    \
		offsetof(struct args, s), NU_FIELD_STR, 1                                                    \
	}
#define BYTES                                                                                                \
	{                                                                                                    \
		offsetof(struct args, b), NU_FIELD_BYTES, 1                                                  \
	}
#define VEC                                                                                                  \
	{                                                                                                    \
		offsetof(struct args, v), NU_FIELD_VEC, sizeof(struct wide)                                  \
	}
#define HALF                                                                                                 \
	{                                                                                                    \
		offsetof(struct args, h), NU_FIELD_VEC, sizeof(uint16_t)                                     \
	}
#define REF                                                                                                  \
	{                                                                                                    \
		offsetof(struct args, ref), NU_FIELD_REF, 0                                                  \
	}
#define FN                                                                                                   \
	{                                                                                                    \
		offsetof(struct args, fn), NU_FIELD_FN, 0                                                    \
	}

static const struct nu_field all[] = {STR, BYTES, VEC, HALF, REF, FN};
static const struct nu_field spans[] = {VEC, BYTES};
static const struct nu_field strings[] = {STR, BYTES};
static const struct nu_field half[] = {HALF};
static const struct nu_field function[] = {FN, REF};
static const struct nu_field large[] = {{offsetof(struct args, v), NU_FIELD_VEC, 65535}};

#define METHOD(f, n, bytes)                                                                                  \
	{                                                                                                    \
		.class_name = "fuzz", .name = #f, .fields = f, .nfields = n, .args_bytes = bytes             \
	}
static const struct nu_method methods[] = {
	METHOD(all, 6, sizeof(struct args)),
	METHOD(spans, 2, sizeof(struct args)),
	METHOD(strings, 2, offsetof(struct args, v)),
	METHOD(half, 1, sizeof(struct args)),
	METHOD(function, 2, offsetof(struct args, tail)),
	METHOD(large, 1, offsetof(struct args, h)),
	METHOD(&str, 1, offsetof(struct args, b)),
	METHOD(NULL, 0, 13),
	METHOD(NULL, 0, 0),
};

static unsigned char sink;

static void touch(const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sink = (unsigned char)(sink ^ ((const unsigned char *)data)[i]);
}

/* Everything that a method could look at lies within the message. */
static void use(const struct nu_method *m, const char *args, size_t len)
{
	for (uint32_t i = 0; i < m->nfields; i++) {
		const struct nu_field *f = &m->fields[i];
		struct nu_bytes s;

		if (f->kind == NU_FIELD_REF || f->kind == NU_FIELD_FN)
			continue;
		memcpy(&s, args + f->offset, sizeof(s));
		FUZZ_CHECK(s.data || !s.len_bytes);
		if (!s.data)
			continue;
		FUZZ_CHECK((const char *)s.data >= args && (const char *)s.data <= args + len);
		FUZZ_CHECK(!((uintptr_t)s.data & 7));
		touch(s.data, s.len_bytes * f->item_bytes + (f->kind == NU_FIELD_STR));
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	nu_log_level = NU_LOG_DEBUG;
	return nu_image_init(NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct nu_method *m = &methods[len ? data[0] % (sizeof(methods) / sizeof(methods[0])) : 0];
	size_t n = len ? len - 1 : 0;
	char *buf = malloc(n ? n : 1); /* of its exact size: bounds are noticed */
	ssize_t extra;

	if (!buf)
		return 0;
	if (n)
		memcpy(buf, data + 1, n);
	/* A one-byte name for a function that there is. */
	if (m->fields && m->nfields && m->fields[m->nfields - 1].kind != NU_FIELD_VEC &&
	    n >= offsetof(struct args, tail)) {
		uintptr_t fn;

		memcpy(&fn, buf + offsetof(struct args, fn), sizeof(fn));
		if (fn == 1)
			fn = (uintptr_t)touch;
		memcpy(buf + offsetof(struct args, fn), &fn, sizeof(fn));
	}
	if (!nu_codec_args_unpack(m, buf, n)) {
		use(m, buf, n);
		/* What was understood can be said again. */
		extra = nu_codec_args_bytes(m, buf);
		FUZZ_CHECK(extra >= 0);
		if (m->nfields) {
			size_t again = NU_ALIGN_UP((size_t)m->args_bytes, 8) + (size_t)extra;
			char *to = malloc(again);

			FUZZ_CHECK(again == n);
			nu_codec_args_pack(m, buf, to);
			FUZZ_CHECK(!nu_codec_args_unpack(m, to, again));
			use(m, to, again);
			free(to);
		}
	}
	free(buf);
	return 0;
}
