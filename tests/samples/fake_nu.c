/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for the runtime, so that the samples' logic is tested without one: every proclet is an object of this
 * process, a call runs in the caller's thread, threads are kernel threads. Arguments are copied to blocks of their exact
 * size as the runtime would, so that a sanitizer sees a method that keeps or oversteps them.
 */
#define NU_LENIENT
#include "fake_nu.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#undef errno
extern int *__errno_location(void);
int *nu_errno_location(void)
{
	return __errno_location();
}

const char *nu_strerror(int err)
{
	return strerror(err < 0 ? -err : err);
}

int (*fake_nu_fault)(struct nu_ref target, const struct nu_method *m);

void nu_image_add(const struct nu_image *image)
{
}

/* ---- proclets ---- */

struct fake_proclet {
	struct fake_proclet *next;
	int refs;
	max_align_t root[];
};
static struct fake_proclet *fake_proclets;

static struct fake_proclet *fake_find(struct nu_ref ref)
{
	struct fake_proclet *p = fake_proclets;

	while (p && (uintptr_t)p != ref.id)
		p = p->next;
	return p;
}

int nu_create(const struct nu_class *cls, const struct nu_options *options, const void *args,
	      struct nu_ref *ref_p)
{
	struct fake_proclet *p = calloc(1, sizeof(*p) + cls->root_bytes);
	int ret = 0;

	cls->init->run(p->root, (void *)args, &ret, NULL);
	if (ret) {
		free(p);
		return ret;
	}
	p->refs = 1;
	p->next = fake_proclets;
	fake_proclets = p;
	ref_p->id = (uintptr_t)p;
	return 0;
}

int nu_ref_get(struct nu_ref ref)
{
	struct fake_proclet *p = fake_find(ref);

	if (!p)
		return -ESTALE;
	p->refs++;
	return 0;
}

int nu_ref_put(struct nu_ref ref)
{
	struct fake_proclet **link = &fake_proclets, *p = fake_find(ref);

	if (!p)
		return -EINVAL;
	if (--p->refs)
		return 0;
	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	free(p);
	return 0;
}

unsigned fake_nu_proclets(void)
{
	unsigned n = 0;

	for (struct fake_proclet *p = fake_proclets; p; p = p->next)
		n++;
	return n;
}

/* ---- calls ---- */

struct nu_out {
	void *data;
	size_t len;
};

void nu_out_bytes(struct nu_out *out, const void *data, size_t len_bytes)
{
	free(out->data);
	out->data = malloc(len_bytes + !len_bytes);
	memcpy(out->data, data, len_bytes);
	out->len = len_bytes;
}

/* The spans of a copy of the arguments become copies too; or, with @drop, are freed. */
static void fake_spans(const struct nu_method *m, char *args, bool drop)
{
	for (uint32_t i = 0; i < m->nfields; i++) {
		struct nu_bytes *b = (struct nu_bytes *)(args + m->fields[i].offset);
		void *copy;

		if (m->fields[i].kind != NU_FIELD_BYTES || !b->data)
			continue;
		if (drop) {
			free((void *)b->data);
			continue;
		}
		copy = malloc(b->len_bytes + !b->len_bytes);
		memcpy(copy, b->data, b->len_bytes);
		b->data = copy;
	}
}

int nu_call(struct nu_ref target, const struct nu_method *m, const void *args, void *result)
{
	struct fake_proclet *p = (struct fake_proclet *)target.id; /* not looked for: threads call */
	int err = fake_nu_fault ? fake_nu_fault(target, m) : 0;
	struct nu_out out = {0};
	char *copy;

	if (err < 0)
		return err;
	if (err) {
		memset(result, 0, m->result_bytes);
		return 0;
	}
	copy = malloc(m->args_bytes + 1);
	memcpy(copy, args, m->args_bytes);
	fake_spans(m, copy, false);
	m->run(p->root, copy, result, &out);
	fake_spans(m, copy, true);
	free(copy);
	if (m->result_kind == NU_RESULT_SPAN)
		*(struct nu_bytes *)result = (struct nu_bytes){out.data, out.len};
	return 0;
}

int nu_call_async(struct nu_ref target, const struct nu_method *m, const void *args, void *result,
		  struct nu_future *f)
{
	f->status = nu_call(target, m, args, result);
	return 0;
}

int nu_future_wait(struct nu_future *f)
{
	return f->status;
}

/* ---- threads ---- */

struct nu_thread {
	pthread_t pthread;
	nu_thread_fn fn;
	void *arg;
};

static void *fake_thread(void *arg)
{
	struct nu_thread *t = arg;

	t->fn(t->arg);
	return NULL;
}

int nu_thread_spawn(nu_thread_fn fn, void *arg, struct nu_thread **thread_p)
{
	struct nu_thread *t = calloc(1, sizeof(*t));

	t->fn = fn;
	t->arg = arg;
	*thread_p = t;
	return -pthread_create(&t->pthread, NULL, fake_thread, t);
}

int nu_thread_join(struct nu_thread *t)
{
	pthread_join(t->pthread, NULL);
	free(t);
	return 0;
}

void nu_yield(void)
{
	sched_yield();
}

uint64_t nu_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* One reader or writer at a time is a correct, if slow, rwlock. */
void nu_rwlock_init(struct nu_rwlock *l)
{
	l->lock = 0;
}

void nu_rwlock_wrlock(struct nu_rwlock *l)
{
	while (atomic_exchange(&l->lock, 1))
		sched_yield();
}

void nu_rwlock_rdlock(struct nu_rwlock *l)
{
	nu_rwlock_wrlock(l);
}

void nu_rwlock_unlock(struct nu_rwlock *l)
{
	atomic_store(&l->lock, 0);
}

/* ---- nodes ---- */

int nu_nodes(struct nu_node_info *infos, unsigned max)
{
	if (max)
		infos[0] = (struct nu_node_info){.state = NU_NODE_UP, .proclets = fake_nu_proclets()};
	return 1;
}
