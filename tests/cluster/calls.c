/* SPDX-License-Identifier: MIT */
/* Every kind of argument and result, near and far; what comes of calls that cannot succeed; chains over moves. */
#include "check.h"

#include <nu/nu_testing.h>

#define MIB (1u << 20)

static void say_transport(unsigned node, char *buf, size_t len)
{
	if (nu_testing_transport(node, buf, len))
		snprintf(buf, len, "none");
}

typedef uint64_t (*op_fn)(uint64_t a, uint64_t b);

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a + b;
}

static uint64_t times(uint64_t a, uint64_t b)
{
	return a * b;
}

/* ---- a class with a method of each kind ---- */

NU_STRUCT(point, val(double, x), val(double, y), arr(char, name, 16));
NU_STRUCT(segment, obj(point, from), obj(point, to), val(int8_t, tag));
NU_VEC(words, uint32_t);
NU_VEC_OBJ(points, point);

struct leaf {
	uint64_t value;
};
NU_CLASS(leaf, val(uint64_t, value));
NU_METHOD(leaf, get, val(uint64_t));
NU_METHOD(leaf, churn, val(uint64_t), val(uint64_t, blocks), val(uint64_t, other));

struct kinds {
	struct leaf_ref kept;
	uint64_t calls;
	struct nu_sem gate;
};
NU_CLASS(kinds, str(hello), val(int, status));
NU_METHOD(kinds, nothing, none);
NU_METHOD(kinds, scalars, val(double), val(int8_t, a), val(uint16_t, b), val(int64_t, c), val(float, d),
	  val(bool, e), val(double, f));
NU_METHOD(kinds, turn, obj(segment), obj(segment, s));
NU_METHOD(kinds, joined, str, str(a), str(b));
NU_METHOD(kinds, inverted, bytes, bytes(b));
NU_METHOD(kinds, squares, vec(words), vec(words, w));
NU_METHOD(kinds, mirrored, vec(points), vec(points, p));
NU_METHOD(kinds, keep, val(int), ref(leaf, l));
NU_METHOD(kinds, kept, ref(leaf));
NU_METHOD(kinds, kept_weak, weak(leaf));
NU_METHOD(kinds, ask, val(uint64_t), ref(leaf, l));
NU_METHOD(kinds, ask_weak, val(int), weak(leaf, l), val(bool, want));
NU_METHOD(kinds, apply, val(uint64_t), fn(op_fn, op), val(uint64_t, a), val(uint64_t, b));
NU_METHOD(kinds, pick, fn(op_fn), val(bool, second));
NU_METHOD(kinds, no_result, bytes);
NU_METHOD(kinds, wait_gate, val(int));
NU_METHOD(kinds, open_gate, none);
NU_METHOD(kinds, calls, val(uint64_t));
NU_CLOSURE(kinds, closure, val(uint64_t), val(uint64_t, a), str(s), vec(words, w), ref(leaf, l));

int leaf_init(struct leaf *l, uint64_t value)
{
	l->value = value;
	return 0;
}

uint64_t leaf_do_get(struct leaf *l)
{
	return l->value;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* Allocates and frees @blocks, each after a yield. Return: how many lay nearer to @other than to @own. */
static uint64_t churn(uint64_t blocks, uint64_t own, uint64_t other)
{
	uint64_t strays = 0;

	for (uint64_t i = 0; i < blocks; i++) {
		void *volatile at = malloc(48);
		void *volatile next = malloc(48);

		strays += apart((uint64_t)at, own) > apart((uint64_t)at, other);
		free(at);
		if (blocks > 1)
			nu_yield();
		strays += apart((uint64_t)next, own) > apart((uint64_t)next, other);
		free(next);
	}
	return strays;
}

/* No blocks: where its heap is. */
uint64_t leaf_do_churn(struct leaf *l, uint64_t blocks, uint64_t other)
{
	return !blocks ? (uint64_t)l : churn(blocks, (uint64_t)l, other);
}

int kinds_init(struct kinds *k, struct nu_str hello, int status)
{
	return strcmp(hello.s, "hello") || hello.len_bytes != 5 ? -EBADMSG : status;
}

void kinds_do_nothing(struct kinds *k)
{
	k->calls++;
}

double kinds_do_scalars(struct kinds *k, int8_t a, uint16_t b, int64_t c, float d, bool e, double f)
{
	return a + b + (double)c + (double)d + e + f;
}

struct segment kinds_do_turn(struct kinds *k, struct segment s)
{
	struct segment t = {.from = s.to, .to = s.from, .tag = -s.tag};

	return t;
}

void kinds_do_joined(struct kinds *k, struct nu_str a, struct nu_str b, struct nu_out *out)
{
	char *text;

	/* A string is followed by a NUL; NULL stays NULL. */
	if ((a.s && (strlen(a.s) != a.len_bytes)) || (b.s && strlen(b.s) != b.len_bytes) ||
	    (!a.s && a.len_bytes))
		return;
	if (asprintf(&text, "%s+%s", a.s ? a.s : "(null)", b.s ? b.s : "(null)") < 0)
		return;
	nu_out_str(out, "overwritten by the last");
	nu_out_str(out, text);
	free(text);
}

void kinds_do_inverted(struct kinds *k, struct nu_bytes b, struct nu_out *out)
{
	unsigned char *copy;

	if (!b.data)
		return;
	copy = malloc(b.len_bytes + 1);
	if (!copy)
		return;
	for (size_t i = 0; i < b.len_bytes; i++)
		copy[i] = (unsigned char)~((const unsigned char *)b.data)[i];
	nu_out_bytes(out, copy, b.len_bytes);
	memset(copy, 0, b.len_bytes); /* it was copied at once */
	free(copy);
}

void kinds_do_squares(struct kinds *k, struct words w, struct nu_out *out)
{
	uint32_t *sq = malloc((w.count + 1) * sizeof(*sq));

	for (size_t i = 0; sq && i < w.count; i++)
		sq[i] = w.items[i] * w.items[i];
	if (sq)
		nu_out_vec(out, words, sq, w.count);
	free(sq);
}

void kinds_do_mirrored(struct kinds *k, struct points p, struct nu_out *out)
{
	struct point m[8];

	for (size_t i = 0; i < p.count && i < 8; i++) {
		m[i] = p.items[p.count - 1 - i];
		m[i].x = -m[i].x;
	}
	nu_out_vec(out, points, m, p.count < 8 ? p.count : 8);
}

int kinds_do_keep(struct kinds *k, struct leaf_ref l)
{
	int ret;

	leaf_ref_put(&k->kept);
	if (!l.ref.id)
		return 0;
	ret = leaf_ref_get(l);
	if (!ret)
		k->kept = l;
	return ret;
}

struct leaf_ref kinds_do_kept(struct kinds *k)
{
	return k->kept;
}

struct leaf_weak kinds_do_kept_weak(struct kinds *k)
{
	return leaf_weak(k->kept);
}

uint64_t kinds_do_ask(struct kinds *k, struct leaf_ref l)
{
	uint64_t v = 0;

	return leaf_get(l, &v) ? 0 : v;
}

int kinds_do_ask_weak(struct kinds *k, struct leaf_weak l, bool want)
{
	struct leaf_ref strong = {{0}};
	int ret = leaf_weak_get(l, &strong);
	uint64_t v;

	if (ret)
		return ret;
	ret = leaf_get(strong, &v);
	leaf_ref_put(&strong);
	return ret;
}

uint64_t kinds_do_apply(struct kinds *k, op_fn op, uint64_t a, uint64_t b)
{
	return op ? op(a, b) : 0;
}

op_fn kinds_do_pick(struct kinds *k, bool second)
{
	return second ? times : plus;
}

void kinds_do_no_result(struct kinds *k, struct nu_out *out)
{
}

int kinds_do_wait_gate(struct kinds *k)
{
	nu_sem_wait(&k->gate);
	return 7;
}

void kinds_do_open_gate(struct kinds *k)
{
	nu_sem_post(&k->gate);
}

uint64_t kinds_do_calls(struct kinds *k)
{
	return k->calls;
}

uint64_t kinds_do_closure(struct kinds *k, uint64_t a, struct nu_str s, struct words w, struct leaf_ref l)
{
	uint64_t sum = a + s.len_bytes, v = 0;

	for (size_t i = 0; i < w.count; i++)
		sum += w.items[i];
	return leaf_get(l, &v) ? 0 : sum + v;
}

/* ---- tests: each once for a proclet here and once for one on the last node ---- */

static unsigned target_node;

static struct kinds_ref make_kinds(void)
{
	struct kinds_ref k = {{0}};
	struct nu_options o = {.node = NU_NODE(target_node)};
	int ret = kinds_create(&o, nu_str("hello"), 0, &k);

	CHECK_IS(ret, 0);
	if (!ret)
		CHECK_IS(nu_locate(k.ref), target_node);
	return k;
}

static void plain_values(void)
{
	struct kinds_ref k = make_kinds();
	struct segment s = {.from = {1, 2, "from"}, .to = {3.5, -4, "fifteen letters"}, .tag = -5}, r = {0};
	double sum = 0;

	for (unsigned i = 0; i < 10; i++)
		CHECK_IS(kinds_nothing(k), 0);
	CHECK_IS(kinds_scalars(k, -128, 65535, -(INT64_C(1) << 40), 0.5f, true, 1e15, &sum), 0);
	CHECK(sum == -128 + 65535 - (double)(INT64_C(1) << 40) + 0.5 + 1 + 1e15);
	CHECK_IS(kinds_turn(k, s, &r), 0);
	CHECK(r.from.x == 3.5 && r.from.y == -4 && !strcmp(r.from.name, "fifteen letters") && r.to.x == 1 &&
	      !strcmp(r.to.name, "from") && r.tag == 5);
	kinds_ref_put(&k);
	check_left(0);
}

static void check_join(struct kinds_ref k, const char *a, const char *b, const char *want)
{
	struct nu_str got = {NULL, 99};

	CHECK_IS(kinds_joined(k, nu_str(a), nu_str(b), &got), 0);
	CHECK_MSG(got.s && !strcmp(got.s, want) && got.len_bytes == strlen(want),
		  "got \"%s\" of %zu, want \"%s\"", got.s ? got.s : "(null)", got.len_bytes, want);
	free((void *)got.s);
}

static void strings(void)
{
	struct kinds_ref k = make_kinds();
	struct nu_bytes none = {"x", 1};
	char *longest = malloc(100001), *want = malloc(100003);

	check_join(k, "abc", "defg", "abc+defg");
	check_join(k, "", "", "+");
	check_join(k, NULL, "x", nu_str(NULL).s ? "+x" : "(null)+x");
	memset(longest, 'q', 100000);
	longest[100000] = 0;
	sprintf(want, "%s+", longest);
	check_join(k, longest, "", want);
	CHECK_IS(kinds_no_result(k, &none), 0);
	CHECK(!none.data && !none.len_bytes);
	free(longest);
	free(want);
	kinds_ref_put(&k);
	check_left(0);
}

static void bytes_of_all_sizes(void)
{
	static const size_t sizes[] = {0,    1,	   7,	 8,    63,   64,    65,	   511,	  512,	 4095,	 4096,
				       8000, 8191, 8192, 8193, 9000, 16384, 32768, 65535, 65536, 262144, MIB};
	struct kinds_ref k = make_kinds();
	unsigned char *data = malloc(MIB);
	struct nu_bytes got;

	for (size_t i = 0; i < MIB; i++)
		data[i] = (unsigned char)(i * 31 + (i >> 8));
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		size_t wrong = 0;

		got = (struct nu_bytes){NULL, 1234};
		CHECK_IS(kinds_inverted(k, nu_bytes(data, sizes[s]), &got), 0);
		CHECK_IS(got.len_bytes, sizes[s]);
		CHECK(got.data != NULL); /* given, though it may be empty */
		for (size_t i = 0; got.data && i < got.len_bytes; i++)
			wrong += ((const unsigned char *)got.data)[i] != (unsigned char)~data[i];
		CHECK_MSG(!wrong, "%zu of %zu bytes are wrong", wrong, sizes[s]);
		free((void *)got.data);
	}
	CHECK_IS(kinds_inverted(k, nu_bytes(NULL, 0), &got), 0);
	CHECK(!got.data);
	free(data);
	kinds_ref_put(&k);
	check_left(0);
}

static void vectors(void)
{
	struct kinds_ref k = make_kinds();
	struct point p[3] = {{1, 2, "a"}, {3, 4, "b"}, {5, 6, "c"}};
	struct points pgot = {NULL, 0};
	struct words got = {NULL, 0};
	uint32_t w[1000];

	for (uint32_t i = 0; i < 1000; i++)
		w[i] = i;
	CHECK_IS(kinds_squares(k, (struct words){w, 1000}, &got), 0);
	CHECK(got.count == 1000 && got.items[999] == 999 * 999 && got.items[0] == 0);
	free((void *)got.items);
	CHECK_IS(kinds_squares(k, (struct words){w, 0}, &got), 0);
	CHECK_IS(got.count, 0);
	free((void *)got.items);
	CHECK_IS(kinds_mirrored(k, (struct points){p, 3}, &pgot), 0);
	CHECK(pgot.count == 3 && pgot.items[0].x == -5 && !strcmp(pgot.items[2].name, "a"));
	free((void *)pgot.items);
	kinds_ref_put(&k);
	check_left(0);
}

static void references(void)
{
	struct kinds_ref k = make_kinds();
	struct leaf_ref l = {{0}}, back = {{0}}, none = {{0}};
	struct leaf_weak weak;
	uint64_t v = 0;
	int ret;

	CHECK_IS(leaf_create(NULL, 77, &l), 0);
	CHECK_IS(kinds_ask(k, l, &v), 0);
	CHECK_IS(v, 77);
	CHECK_IS(kinds_keep(k, l, &ret), 0);
	CHECK_IS(ret, 0);
	leaf_ref_put(&l); /* now `k` has the only one */
	CHECK_IS(kinds_kept(k, &back), 0);
	CHECK_IS(leaf_get(back, &v), 0);
	CHECK_IS(v, 77);
	CHECK_IS(kinds_keep(k, none, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(kinds_kept_weak(k, &weak), 0);
	CHECK_IS(weak.ref.id, 0);
	CHECK_IS(leaf_get(back, &v), 0); /* ours was a count of its own */
	weak = leaf_weak(back);
	CHECK_IS(kinds_ask_weak(k, weak, true, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(leaf_ref_put(&back), 0);
	check_left(1);
	CHECK_IS(kinds_ask_weak(k, weak, false, &ret), 0);
	CHECK_IS(ret, -ESTALE);
	kinds_ref_put(&k);
	check_left(0);
}

static void functions_and_closures(void)
{
	struct kinds_ref k = make_kinds();
	struct leaf_ref l = {{0}};
	uint32_t w[3] = {1, 2, 3};
	op_fn op = NULL;
	uint64_t v = 0;

	CHECK_IS(kinds_apply(k, plus, 40, 2, &v), 0);
	CHECK_IS(v, 42);
	CHECK_IS(kinds_apply(k, NULL, 40, 2, &v), 0);
	CHECK_IS(v, 0);
	CHECK_IS(kinds_pick(k, true, &op), 0);
	CHECK(op == times);
	CHECK_IS(leaf_create(NULL, 1000, &l), 0);
	CHECK_IS(kinds_closure(k, 10000, nu_str("four"), (struct words){w, 3}, l, &v), 0);
	CHECK_IS(v, 11010);
	leaf_ref_put(&l);
	kinds_ref_put(&k);
	check_left(0);
}

static void futures(void)
{
	struct kinds_ref k = make_kinds();
	unsigned char *big = calloc(1, MIB);
	struct kinds_nothing_future unused = {0};
	struct nu_str s = {NULL, 0};
	uint64_t calls = 0;
	int seven = 0;

	{
		NU_SCOPED_FUTURE(kinds, wait_gate, waiting);
		NU_SCOPED_FUTURE(kinds, joined, joining);
		NU_SCOPED_FUTURE(kinds, inverted, dropped);
		NU_SCOPED_FUTURE(kinds, nothing, forgotten);
		NU_SCOPED_FUTURE(leaf, create, created);

		CHECK_IS(kinds_wait_gate_async(k, &waiting), 0);
		CHECK_IS(kinds_joined_async(k, nu_str("a"), nu_str("b"), &joining), 0);
		CHECK_IS(kinds_inverted_async(k, nu_bytes(big, MIB), &dropped), 0);
		memset(big, 0xff, MIB); /* arguments were copied */
		CHECK_IS(kinds_nothing_async(k, &forgotten), 0);
		CHECK_IS(leaf_create_async(NULL, 3, &created), 0);
		CHECK_IS(kinds_joined_wait(&joining, &s), 0);
		CHECK(s.s && !strcmp(s.s, "a+b"));
		free((void *)s.s);
		CHECK_IS(kinds_open_gate(k), 0);
		CHECK_IS(kinds_wait_gate_wait(&waiting, &seven), 0);
		CHECK_IS(seven, 7);
		CHECK_IS(kinds_wait_gate_wait(&waiting, &seven), 0); /* again: the same */
	}
	CHECK_IS(kinds_calls(k, &calls), 0);
	CHECK_IS(calls, 1); /* the forgotten one ran before its scope ended */
	CHECK_IS(kinds_nothing_wait(&unused), -EINVAL);
	free(big);
	kinds_ref_put(&k);
	check_left(0); /* the leaf that nobody took is gone as well */
}

static void failures(void)
{
	struct kinds_ref k = make_kinds(), copy = k, bad = {{0}}, small = {{0}};
	struct nu_options o = {.node = NU_NODE(target_node), .capacity_bytes = MIB};
	unsigned char *big = calloc(1, 17 * MIB);
	struct nu_bytes got = {NULL, 0};
	uint64_t v = 5;
	int ret;

	CHECK_IS(kinds_create(NULL, nu_str("hello"), -EDOM, &bad), -EDOM);
	CHECK_IS(kinds_create(NULL, nu_str("not hello"), 0, &bad), -EBADMSG);
	CHECK_IS(bad.ref.id, 0);
	CHECK_IS(kinds_nothing(bad), -ESTALE); /* a reference to nothing */
	CHECK_IS(kinds_inverted(k, nu_bytes(big, 17 * MIB), &got), -EMSGSIZE);
	CHECK(!got.data);
	/* An argument that its heap cannot hold: refused, not lost, and it goes on. */
	CHECK_IS(kinds_create(&o, nu_str("hello"), 0, &small), 0);
	CHECK_IS(kinds_inverted(small, nu_bytes(big, 2 * MIB), &got), -ENOMEM);
	CHECK_IS(kinds_nothing(small), 0);
	CHECK_IS(kinds_create(&(struct nu_options){.node = NU_NODE(200)}, nu_str("hello"), 0, &bad), -EINVAL);
	CHECK_IS(kinds_create(&(struct nu_options){.capacity_bytes = (size_t)2 << 40}, nu_str("hello"), 0,
			      &bad),
		 -EINVAL);
	kinds_ref_put(&small);
	kinds_ref_put(&k);
	check_left(0);
	CHECK_IS(kinds_calls(copy, &v), -ESTALE);
	CHECK_IS(v, 5); /* untouched */
	CHECK_IS(nu_locate(copy.ref), -ESTALE);
	ret = nu_ref_get(copy.ref);
	CHECK_IS(ret, -ESTALE);
	free(big);
}

static void deadlines(void)
{
	struct kinds_ref k = make_kinds();
	uint64_t begin = nu_now_us(), took, calls = 0;
	int seven = 0;

	CHECK_IS(nu_deadline_set_us(20000), 0);
	CHECK_IS(kinds_wait_gate(k, &seven), -ETIMEDOUT);
	took = nu_now_us() - begin;
	CHECK_MSG(took >= 20000 && took < 1500000, "timed out after %lu us", (unsigned long)took);
	CHECK_IS(seven, 0);
	CHECK(nu_deadline_set_us(0) <= 1);
	/* The late answer finds nobody, and the next calls' answers are their own. */
	CHECK_IS(kinds_open_gate(k), 0);
	for (unsigned i = 0; i < 100; i++)
		CHECK_IS(kinds_nothing(k), 0);
	CHECK_IS(kinds_calls(k, &calls), 0);
	CHECK_IS(calls, 100);
	nu_deadline_set_us(30000000);
	CHECK_IS(kinds_nothing(k), 0);
	CHECK(nu_deadline_set_us(0) > 10000000);
	kinds_ref_put(&k);
	check_left(0);
}

/* ---- chains over moves ---- */

struct link {
	_Atomic uint64_t served;
};
NU_CLASS(link);
NU_METHOD(link, pass, val(uint64_t), ref(link, a), ref(link, b), val(unsigned, left), bytes(load));
NU_METHOD(link, served, val(uint64_t));

int link_init(struct link *l)
{
	return 0;
}

/* Goes round the three; comes back with the number of steps, or a large number. */
uint64_t link_do_pass(struct link *l, struct link_ref a, struct link_ref b, unsigned left,
		      struct nu_bytes load)
{
	struct link_ref me = {link_self().ref};
	uint64_t steps = 0;

	l->served++;
	for (size_t i = 0; i < load.len_bytes; i++) {
		if (((const unsigned char *)load.data)[i] != (unsigned char)i)
			return 1000000;
	}
	if (!left)
		return 1;
	if (link_pass(a, b, me, left - 1, load, &steps))
		return 1000000;
	for (size_t i = 0; i < load.len_bytes; i++) { /* still there, wherever we are now */
		if (((const unsigned char *)load.data)[i] != (unsigned char)i)
			return 1000000;
	}
	return steps + 1;
}

uint64_t link_do_served(struct link *l)
{
	return l->served;
}

struct runner {
	struct link_ref l[3];
	_Atomic bool stop;
	_Atomic uint64_t chains, wrong, steps;
	struct nu_waitgroup out;
};

#define DEPTH 7

static void runner_body(void *arg)
{
	struct runner *r = arg;
	unsigned char load[9000]; /* more than fits on a callee's stack */
	uint64_t n = 0;

	for (size_t i = 0; i < sizeof(load); i++)
		load[i] = (unsigned char)i;
	while (!r->stop) {
		uint64_t steps = 0;
		size_t len = ++n % 3 ? n % 600 : sizeof(load);
		int ret = link_pass(r->l[n % 3], r->l[(n + 1) % 3], r->l[(n + 2) % 3], DEPTH,
				    nu_bytes(load, len), &steps);

		if (ret || steps != DEPTH + 1)
			r->wrong++;
		r->chains++;
		r->steps += DEPTH + 1;
	}
	nu_waitgroup_done(&r->out);
}

static void chains_over_moves(void)
{
	struct runner r = {.chains = 0};
	uint64_t served = 0, seed = 12345;
	unsigned moves = nu_node_count() > 1 ? 300 : 0, failed = 0;

	for (unsigned i = 0; i < 3; i++)
		CHECK_IS(link_create(&(struct nu_options){.node = NU_NODE(i % nu_node_count())}, &r.l[i]), 0);
	for (unsigned i = 0; i < 6; i++) {
		nu_waitgroup_add(&r.out, 1);
		CHECK_IS(nu_thread_spawn(runner_body, &r, NULL), 0);
	}
	for (unsigned i = 0; i < moves; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		failed += check_move(r.l[i % 3].ref, (unsigned)(seed >> 33) % nu_node_count()) != 0;
	}
	while (r.chains < 100)
		nu_sleep_us(1000);
	r.stop = true;
	nu_waitgroup_wait(&r.out);
	CHECK_MSG(!r.wrong, "%lu of %lu chains are wrong", (unsigned long)r.wrong, (unsigned long)r.chains);
	CHECK_IS(failed, 0);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t n = 0;

		CHECK_IS(link_served(r.l[i], &n), 0);
		served += n;
		link_ref_put(&r.l[i]);
	}
	CHECK_MSG(served == r.steps, "%lu calls ran, %lu were made", (unsigned long)served,
		  (unsigned long)r.steps);
	check_left(0);
}

/* ---- what carries them ---- */

static const char *want_transport;

/* Whose heap malloc means follows each switch: from a caller to a callee and back, and between threads by turns. */
static void heaps_follow_threads(void)
{
	void *own = malloc(48);
	uint64_t strays = 0, all = 0, there = 0;
	struct nu_options o = {.node = NU_NODE(0)};
	struct leaf_ref l = {{0}};

	CHECK_IS(leaf_create(&o, 1, &l), 0);
	CHECK_IS(leaf_churn(l, 0, 0, &there), 0);
	for (unsigned i = 0; i < 1000; i++) {
		all += churn(1, (uint64_t)own, there);
		CHECK_IS(leaf_churn(l, 1, (uint64_t)own, &strays), 0);
		all += strays;
	}
	CHECK_IS(all, 0);
	for (unsigned i = 0; i < 4; i++) {
		NU_SCOPED_FUTURE(leaf, churn, first);
		NU_SCOPED_FUTURE(leaf, churn, second);

		CHECK_IS(leaf_churn_async(l, 1000, (uint64_t)own, &first), 0);
		CHECK_IS(leaf_churn_async(l, 1000, (uint64_t)own, &second), 0);
		all += churn(1000, (uint64_t)own, there);
		CHECK_IS(leaf_churn_wait(&first, &strays), 0);
		all += strays;
		CHECK_IS(leaf_churn_wait(&second, &strays), 0);
		all += strays;
	}
	CHECK_IS(all, 0);
	leaf_ref_put(&l);
	free(own);
}

static void transport_chosen(void)
{
	for (unsigned n = 1; n < nu_node_count(); n++) {
		/* "hosts": the last node is alone on its host, the others share node 0's */
		bool far = !strcmp(want_transport, "hosts") && n == nu_node_count() - 1;
		bool rdma = !strcmp(want_transport, "verbs");
		const char *reader = far ? "am" : rdma ? "verbs" : "cma";
		const char *kind = far || !strcmp(want_transport, "tcp") ? "tcp" : rdma ? "verbs" : "shm";
		char name[128] = "";

		say_transport(n, name, sizeof(name));
		printf("     node %u: %s, read by %s\n", n, name, nu_testing_reader(n));
		CHECK_MSG(strstr(name, kind), "\"%s\" is not %s", name, kind);
		CHECK_MSG(!strcmp(nu_testing_reader(n), reader), "the reader is %s", nu_testing_reader(n));
	}
}

static int calls_main(int argc, char **argv)
{
	unsigned targets[2] = {0, nu_node_count() - 1};

	want_transport = argc > 1 ? argv[1] : "shm";
	for (unsigned i = 0; i < (nu_node_count() > 1 ? 2 : 1); i++) {
		target_node = targets[i];
		printf("to a proclet on node %u:\n", target_node);
		CHECK_RUN(plain_values);
		CHECK_RUN(strings);
		CHECK_RUN(bytes_of_all_sizes);
		CHECK_RUN(vectors);
		CHECK_RUN(references);
		CHECK_RUN(functions_and_closures);
		CHECK_RUN(futures);
		CHECK_RUN(failures);
		CHECK_RUN(deadlines);
	}
	CHECK_RUN(heaps_follow_threads);
	CHECK_RUN(chains_over_moves);
	if (nu_node_count() > 1)
		CHECK_RUN(transport_chosen);
	return check_done();
}

/* Outside of a proclet nothing can be called: no thread, no caller. */
static int outside(unsigned node)
{
	struct kinds_ref k = {{1}};
	struct nu_options o = {0};
	struct nu_stats s;
	int a = kinds_nothing(k), b = kinds_create(&o, nu_str("hello"), 0, &k), c = nu_ref_get(k.ref),
	    d = nu_stats(0, &s);
	struct kinds_nothing_future f;
	int e = kinds_nothing_async(k, &f);

	if (a == -EINVAL && b == -EINVAL && c == -EINVAL && d == -EINVAL && e == -EINVAL && !nu_self().id)
		return 0;
	fprintf(stderr, "outside of a proclet: call %d, create %d, get %d, stats %d, async %d\n", a, b, c, d,
		e);
	return -EPROTO;
}

int main(int argc, char **argv)
{
	const struct nu_run_options o = {.node_init = outside, .writable_globals = true};

	return nu_run(argc, argv, calls_main, &o);
}
