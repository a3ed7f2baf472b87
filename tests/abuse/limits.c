/* SPDX-License-Identifier: MIT */
/*
 * What is too large, missing or absurd: limits.py runs it in its ways, alone and on two nodes, and reads what is said. Each
 * check prints "WHERE WHAT: STATUS", with the status of the call; "near" is this node, "far" the last.
 */
#include <nu/nu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX NU_CALL_MAX_BYTES

NU_VEC(words, uint64_t);

struct big;
NU_CLASS_DECLARE(big, bytes(b), str(s));
struct big {
	size_t got;
	struct big_ref kid;
};
NU_CLASS_DEFINE(big);
NU_METHOD(big, take, val(size_t), bytes(b));
NU_METHOD(big, take_str, val(size_t), str(s));
NU_METHOD(big, take_vec, val(size_t), vec(words, v));
NU_METHOD(big, take_two, val(size_t), bytes(a), bytes(b));
NU_METHOD(big, give, bytes, val(size_t, n));
NU_METHOD(big, give_str, str, val(size_t, n));
NU_METHOD(big, give_vec, vec(words), val(size_t, n));
NU_METHOD(big, give_later, bytes, val(size_t, n));
NU_METHOD(big, give_null, bytes, val(size_t, n), val(bool, is_str), val(bool, after));
NU_METHOD(big, child, ref(big));
NU_METHOD(big, seven, val(int));
NU_CLOSURE(big, apply, bytes, val(size_t, n), bytes(b));

int big_init(struct big *self, struct nu_bytes b, struct nu_str s)
{
	self->got = b.len_bytes + s.len_bytes;
	return 0;
}

size_t big_do_take(struct big *self, struct nu_bytes b)
{
	return b.len_bytes;
}

size_t big_do_take_str(struct big *self, struct nu_str s)
{
	return s.len_bytes;
}

size_t big_do_take_vec(struct big *self, struct words v)
{
	return v.count;
}

size_t big_do_take_two(struct big *self, struct nu_bytes a, struct nu_bytes b)
{
	return a.len_bytes + b.len_bytes;
}

void big_do_give(struct big *self, size_t n, struct nu_out *out)
{
	char *p = n > 2 * MAX ? NULL : calloc(1, n);

	nu_out_bytes(out, p ? p : "", n); /* what is larger must not be read */
	free(p);
}

void big_do_give_str(struct big *self, size_t n, struct nu_out *out)
{
	char *p = malloc(n + 1);

	memset(p, 'x', n);
	p[n] = 0;
	nu_out_str(out, p);
	free(p);
}

void big_do_give_vec(struct big *self, size_t n, struct nu_out *out)
{
	uint64_t *p = n > MAX ? NULL : calloc(n, sizeof(*p));

	nu_out_vec(out, words, p ? p : (uint64_t *)"       ", n);
	free(p);
}

/* The last word counts. */
void big_do_give_later(struct big *self, size_t n, struct nu_out *out)
{
	big_do_give(self, 2 * MAX, out);
	big_do_give(self, n, out);
}

void big_do_give_null(struct big *self, size_t n, bool is_str, bool after, struct nu_out *out)
{
	if (after)
		nu_out_str(out, "before");
	if (is_str)
		nu_out_str(out, NULL);
	else
		nu_out_bytes(out, NULL, n);
}

struct big_ref big_do_child(struct big *self)
{
	if (big_create(NULL, nu_bytes(NULL, 0), nu_str(NULL), &self->kid))
		self->kid = (struct big_ref){{0}};
	return self->kid;
}

int big_do_seven(struct big *self)
{
	return 7;
}

void big_do_apply(struct big *self, size_t n, struct nu_bytes b, struct nu_out *out)
{
	big_do_give(self, n, out);
}

static const char *where;
static char *zeros;

static void say(const char *what, int ret, size_t got)
{
	printf("%s %s: %d, %zu\n", where, what, ret, got);
	fflush(stdout);
}

/* What the call has put into @got is read after it. */
#define SAY(what, call, got)                                                                                 \
	do {                                                                                                 \
		int say_ret = (call);                                                                        \
		say(what, say_ret, got);                                                                     \
	} while (0)

/* ---- sizes: at the limit and beyond it, every kind ---- */

static void say_span(const char *what, int ret, struct nu_bytes *got)
{
	say(what, ret, got->len_bytes);
	free((void *)got->data);
	*got = (struct nu_bytes){NULL, 0};
}

static void arguments(struct big_ref p)
{
	size_t n = 0, fixed = sizeof(struct nu_bytes);

	SAY("bytes fit", big_take(p, nu_bytes(zeros, MAX - fixed), &n), n);
	n = 0;
	SAY("bytes too large", big_take(p, nu_bytes(zeros, MAX), &n), n);
	memset(zeros, 'x', MAX);
	SAY("string fits", big_take_str(p, (struct nu_str){zeros, MAX - fixed - 8}, &n), n);
	n = 0;
	SAY("string too large", big_take_str(p, (struct nu_str){zeros, MAX - fixed}, &n), n);
	SAY("vector fits", big_take_vec(p, (struct words){(void *)zeros, MAX / 8 - 2}, &n), n);
	n = 0;
	SAY("vector too large", big_take_vec(p, (struct words){(void *)zeros, MAX / 8 - 1}, &n), n);
	SAY("vector that wraps", big_take_vec(p, (struct words){(void *)zeros, SIZE_MAX / 8 + 2}, &n), n);
	SAY("two too large", big_take_two(p, nu_bytes(zeros, MAX / 2), nu_bytes(zeros, MAX / 2), &n), n);
	memset(zeros, 0, MAX);
}

static void results(struct big_ref p)
{
	struct nu_bytes got = {NULL, 0};
	struct nu_str str = {NULL, 0};
	struct words vec = {NULL, 0};
	int ret = big_give(p, MAX, &got);

	say_span("result fits", ret, &got);
	ret = big_give(p, MAX + 1, &got);
	say_span("result too large", ret, &got);
	ret = big_give(p, SIZE_MAX, &got);
	say_span("result that wraps", ret, &got);
	ret = big_give_later(p, 5, &got);
	say_span("result after one too large", ret, &got);
	ret = big_give_str(p, MAX + 1, &str);
	say("string result too large", ret, str.len_bytes);
	ret = big_give_vec(p, MAX / 8 + 1, &vec);
	say("vector result too large", ret, vec.count);
	ret = big_give_vec(p, SIZE_MAX / 8 + 2, &vec);
	say("vector result that wraps", ret, vec.count);
	ret = big_apply(p, MAX + 1, nu_bytes("a", 1), &got);
	say_span("closure's result too large", ret, &got);
	ret = big_apply(p, 1, nu_bytes(zeros, MAX), &got);
	say_span("closure's argument too large", ret, &got);
}

static void later(struct big_ref p, unsigned node)
{
	struct nu_options o = {.node = NU_NODE(node)};
	struct big_give_future give;
	struct big_take_future take;
	struct big_create_future create;
	struct nu_bytes got = {NULL, 0};
	struct big_ref made = {{0}};
	size_t n = 0;
	int ret;

	ret = big_give_async(p, MAX + 1, &give);
	if (!ret)
		ret = big_give_wait(&give, &got);
	say_span("asynchronous result too large", ret, &got);
	ret = big_take_async(p, nu_bytes(zeros, MAX), &take);
	if (!ret)
		ret = big_take_wait(&take, &n);
	say("asynchronous argument too large", ret, n);
	/* struct nu_bytes and struct nu_str, then both contents. */
	ret = big_create(&o, nu_bytes(zeros, MAX - 32 - 8), nu_str("a"), &made);
	say("creation fits", ret, 0);
	big_ref_put(&made);
	ret = big_create(&o, nu_bytes(zeros, MAX - 32), nu_str("a"), &made);
	say("creation too large", ret, 0);
	ret = big_create_async(&o, nu_bytes(zeros, MAX - 32), nu_str("a"), &create);
	if (!ret)
		ret = big_create_wait(&create, &made);
	say("asynchronous creation too large", ret, 0);
}

static void sizes(struct big_ref p, unsigned node)
{
	arguments(p);
	results(p);
	later(p, node);
}

/* ---- what is not there ---- */

static void nulls(struct big_ref p, unsigned node)
{
	struct nu_options o = {.node = NU_NODE(node)};
	struct big_seven_future f;
	struct nu_bytes got = {NULL, 0};
	struct big_weak weak = big_weak(p);
	size_t n = 9;
	int v = 0;

	SAY("nu_out_str(NULL)", big_give_null(p, 0, true, false, &got), got.data ? 1 : got.len_bytes);
	SAY("nu_out_str(NULL) after another", big_give_null(p, 0, true, true, &got),
	    got.data ? 1 : got.len_bytes);
	SAY("nu_out_bytes(NULL, 3)", big_give_null(p, 3, false, true, &got), got.data ? 1 : got.len_bytes);
	SAY("nu_out_bytes(NULL, 0)", big_give_null(p, 0, false, true, &got), got.len_bytes);
	free((void *)got.data);
	SAY("nu_bytes(NULL, 5)", big_take(p, nu_bytes(NULL, 5), &n), n);
	SAY("nu_str(NULL)", big_take_str(p, nu_str(NULL), &n), n);
	SAY("no place for a number", big_seven(p, NULL), 0);
	SAY("no place for bytes", big_give(p, 100, NULL), 0);
	SAY("no place for a reference", big_child(p, NULL), 0);
	SAY("no place for a new proclet", big_create(&o, nu_bytes("a", 1), nu_str("a"), NULL), 0);
	SAY("no place for a strong reference", big_weak_get(weak, NULL), 0);
	SAY("a future", big_seven_async(p, &f), 0);
	SAY("no place for a future's", big_seven_wait(&f, NULL), 0);
	SAY("its place", big_seven_wait(&f, &v), (size_t)v);
	say("no future", nu_future_wait(NULL), 0);
	SAY("no reference", big_ref_put(NULL), 0);
	say("no thread to join", nu_thread_join(NULL), 0);
	say("no thread to detach", nu_thread_detach(NULL), 0);
	say("no counters", nu_stats(node, NULL), 0);
	say("no nodes", nu_nodes(NULL, 2), 0);
}

/* Where a reference was dropped its proclet ends: waited for. */
static bool ends(uint64_t proclets)
{
	for (unsigned i = 0; i < 5000; i++) {
		uint64_t sum = 0;

		for (unsigned n = 0; n < nu_node_count(); n++) {
			struct nu_stats s;

			if (!nu_stats(n, &s))
				sum += s.proclets_now;
		}
		if (sum == proclets)
			return true;
		nu_sleep_us(2000);
	}
	return false;
}

static int on_each(void (*what)(struct big_ref p, unsigned node))
{
	zeros = calloc(1, MAX + 16);
	for (unsigned far = 0; far < (nu_node_count() > 1 ? 3u : 1u); far++) {
		unsigned node = far == 1 ? nu_node_count() - 1 : 0;
		NU_SCOPED(big, p);

		where = far == 0 ? "near" : far == 1 ? "far" : "moved";
		if (big_create(&(struct nu_options){.node = NU_NODE(node)}, nu_bytes(NULL, 0), nu_str(NULL),
			       &p) ||
		    (far == 2 && nu_migrate(p.ref, nu_node_count() - 1)))
			return 9;
		what(p, node);
	}
	printf("all others have ended: %d\n", ends(2));
	return 0;
}

/* ---- a heap to its end ---- */

static int fill(size_t each, size_t most)
{
	size_t n = 0;

	while (n * each < most && malloc(each))
		n++;
	printf("%zu KiB of %zu\n", n * each / 1024, most / 1024);
	return 0;
}

static int program(int argc, char **argv)
{
	if (!strcmp(argv[1], "sizes"))
		return on_each(sizes);
	if (!strcmp(argv[1], "nulls"))
		return on_each(nulls);
	if (!strcmp(argv[1], "fill"))
		return fill(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
	printf("ran\n");
	if (argc > 3) {
		char *p = malloc(strtoull(argv[3], NULL, 0));

		printf("%s\n", p ? "allocated" : "no memory");
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct nu_run_options o = {.writable_globals = true};

	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "no-main")) {
		printf("nu_run: %d\n", nu_run(argc, argv, NULL, &o));
		return 0;
	}
	if (!strcmp(argv[1], "capacity"))
		o.main_capacity_bytes = strtoull(argv[2], NULL, 0);
	return nu_run(argc, argv, program, &o);
}
