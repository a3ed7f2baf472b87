/* SPDX-License-Identifier: MIT */
/* Futures whose place is gone before their call is over: abuse_future HOW. What must come of each is in future.py. */
#include <nu/nu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN 0x5a

struct late {
	struct nu_sem go;
};
struct made {
	int n;
};
NU_CLASS(late);
NU_CLASS(made, val(int, n));
NU_METHOD(late, word, val(uint64_t));
NU_METHOD(late, text, str);
NU_METHOD(late, other, ref(late));
NU_METHOD(late, let_go, none, val(int, n));

int late_init(struct late *self)
{
	return 0;
}

int made_init(struct made *self, int n)
{
	self->n = n;
	nu_sleep_us(100000);
	return 0;
}

uint64_t late_do_word(struct late *self)
{
	nu_sem_wait(&self->go);
	return 0xdeadbeefdeadbeefu;
}

void late_do_text(struct late *self, struct nu_out *out)
{
	nu_sem_wait(&self->go);
	nu_out_str(out, "a text that nobody takes");
}

struct late_ref late_do_other(struct late *self)
{
	nu_sem_wait(&self->go);
	return (struct late_ref){nu_self()};
}

void late_do_let_go(struct late *self, int n)
{
	while (n--)
		nu_sem_post(&self->go);
}

/* Deep on the stack, so that what comes later lies there too. */
static __attribute__((noinline)) int fire(struct late_ref p, const char *how)
{
	struct made_create_future c;
	struct late_word_future w;
	struct late_text_future t;
	struct late_other_future o;
	char pad[2000];

	memset(pad, 0, sizeof(pad));
	__asm__ volatile("" ::"r"(pad) : "memory");
	if (!strcmp(how, "word"))
		return late_word_async(p, &w);
	if (!strcmp(how, "text"))
		return late_text_async(p, &t);
	if (!strcmp(how, "other"))
		return late_other_async(p, &o);
	return made_create_async(NULL, 7, &c);
}

/* Waits for the end of all that was begun, with an array where the futures were. */
static __attribute__((noinline)) int victim(struct late_ref p)
{
	unsigned char a[4096];
	int bad = 0;

	memset(a, PATTERN, sizeof(a));
	__asm__ volatile("" ::"r"(a) : "memory");
	if (late_let_go(p, 1))
		return -1;
	nu_sleep_us(150000);
	for (size_t i = 0; i < sizeof(a); i++)
		bad += a[i] != PATTERN;
	return bad;
}

/* Nothing has come to lie there yet: only the stack pointer tells. */
static __attribute__((noinline)) int only_left(struct late_ref p)
{
	if (late_let_go(p, 1))
		return -1;
	nu_sleep_us(150000);
	return 0;
}

static void fires(void *arg)
{
	struct late_word_future f;

	if (late_word_async(*(struct late_ref *)arg, &f))
		abort();
}

static int waits_well(struct late_ref p)
{
	struct late_word_future *heap = malloc(sizeof(*heap));
	uint64_t a = 0, b = 0;
	struct nu_str text;
	NU_SCOPED_FUTURE(late, word, w);
	NU_SCOPED_FUTURE(late, text, t);
	NU_SCOPED_FUTURE(late, other, o);
	NU_SCOPED_FUTURE(made, create, c);
	int ret;

	if (!heap || late_word_async(p, &w) || late_word_async(p, heap) || late_text_async(p, &t) ||
	    late_other_async(p, &o) || made_create_async(NULL, 7, &c) || late_let_go(p, 4))
		return -1;
	ret = late_word_wait(&w, &a) || late_word_wait(heap, &b) || late_text_wait(&t, &text);
	ret = ret || a != 0xdeadbeefdeadbeefu || b != a || strcmp(text.s, "a text that nobody takes");
	if (!ret)
		free((void *)(uintptr_t)text.s);
	free(heap);
	return ret;
}

static int mainfunc(int argc, char **argv)
{
	struct nu_options far = {.node = NU_NODE(nu_node_count() - 1)};
	const char *how = argv[1];
	struct nu_thread *t;
	int bad;
	NU_SCOPED(late, p);

	if (late_create(&far, &p))
		return 1;
	if (!strcmp(how, "well")) {
		bad = waits_well(p);
	} else if (!strcmp(how,
			   "ended")) { /* the thread that began it has ended, and its stack is another's */
		if (nu_thread_spawn(fires, &p, &t) || nu_thread_join(t))
			return 1;
		bad = victim(p);
	} else if (!strcmp(how, "again")) {
		struct late_word_future f;
		uint64_t v;

		if (late_word_async(p, &f) || late_word_async(p, &f) || late_let_go(p, 2))
			return 1;
		bad = late_word_wait(&f, &v) || v != 0xdeadbeefdeadbeefu;
		nu_sleep_us(150000);
	} else {
		if (fire(p, how))
			return 1;
		bad = argc > 2 ? only_left(p) : victim(p);
	}
	printf("bytes that were written: %d\n", bad);
	return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, mainfunc, NULL);
}
