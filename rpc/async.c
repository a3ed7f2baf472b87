/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous calls: a thread of the caller's proclet makes the call, so that everything that is true of a waiting
 * caller (it moves, its deadline, its answer) is true of a future.
 */
#include "rpc/rpc_int.h"

#define FUTURE_DONE ((struct nu_thread *)1) /* waited for: the status stays */

struct async {
	struct nu_ref target;
	const struct nu_method *m;
	const struct nu_class *cls; /* a creation */
	struct nu_options options;
	struct nu_future *future;
	void *result; /* where the caller wants it */
	void *got;    /* where it is put first: by then the future may be gone */
	void *block;  /* of the caller's heap: large arguments and results */
	char room[] __attribute__((aligned(16)));
};

#define SAY_MAX 8 /* futures that are gone are named, of so many */

/*
 * A future that is not waited for leaves its place to others when its scope ends. It lies on a stack above the stack pointer,
 * while its thread does not run and that is known; it names the thread that makes the call.
 */
static bool future_is_there(const struct nu_future *f, const struct nu_thread *self)
{
	return nu_stack_in_use(self->proclet, f) && f->thread == self;
}

static size_t got_bytes(const struct nu_method *m, bool creates)
{
	if (creates || m->result_kind == NU_RESULT_NONE)
		return 0;
	return m->result_kind == NU_RESULT_SPAN ? sizeof(struct nu_bytes) : m->result_bytes;
}

/* Nobody will join the calling thread either. */
static __attribute__((cold, noinline)) void future_drop(struct async *a, int status, struct nu_ref made)
{
	static atomic_uint said;
	const struct nu_method *m = a->cls ? a->cls->init : a->m;
	struct nu_thread *self = nu_thread_self();
	struct nu_ref *ref = a->cls ? &made : m->result_kind == NU_RESULT_REF ? a->got : NULL;

	if (atomic_fetch_add(&said, 1) < SAY_MAX)
		nu_warn("proclet %#lx: the future of %s.%s, thread %p, is gone: its scope has ended, or it "
			"was "
			"used again, before it was waited for; its result (%s) is dropped (NU_SCOPED_FUTURE "
			"waits by itself)",
			(unsigned long)self->proclet_id, m->class_name, m->name, (void *)self,
			nu_strerror(status));
	(void)!nu_thread_detach(self);
	if (status)
		return;
	if (ref && ref->id)
		(void)!nu_ref_put(*ref);
	else if (!a->cls && m->result_kind == NU_RESULT_SPAN)
		nu_proclet_free(self->proclet, (void *)((struct nu_bytes *)a->got)->data);
}

static void body(void *arg)
{
	struct async *a = arg;
	const struct nu_method *m = a->cls ? a->cls->init : a->m;
	size_t got = got_bytes(m, a->cls);
	void *args = (char *)a->got + NU_ALIGN_UP(got, 16);
	struct nu_ref made = {0};
	int status = a->cls ? nu_create(a->cls, &a->options, args, &made)
			    : nu_call(a->target, m, args, a->result ? a->got : NULL);

	if (unlikely(!future_is_there(a->future, nu_thread_self()))) {
		future_drop(a, status, made);
	} else {
		if (!status && a->cls)
			a->future->ref = made;
		else if (!status && a->result)
			memcpy(a->result, a->got, got);
		a->future->status = status;
	}
	if (a->block)
		nu_proclet_free(nu_thread_self()->proclet, a->block);
}

static int start(const struct async *proto, const struct nu_method *m, const void *args, struct nu_future *f)
{
	struct nu_thread *self = nu_thread_self(), *t;
	struct nu_proclet *p;
	ssize_t extra = nu_codec_args_bytes(m, args);
	size_t len, got = NU_ALIGN_UP(got_bytes(m, proto->cls), 16);
	struct async *a;
	void *to, *block = NULL;

	if (!self)
		return nu_outside(m->class_name, m->name);
	if (extra < 0)
		return (int)extra;
	nu_thread_come_back(self);
	p = self->proclet;
	len = NU_ALIGN_UP((size_t)m->args_bytes, 8) + (size_t)extra;
	if (got + len > NU_STACK_ARGS_MAX) {
		block = nu_proclet_alloc(p, got + len);
		if (!block)
			return -ENOMEM;
	}
	t = nu_thread_alloc_start(p);
	a = t ? nu_thread_prepare(t, body, NULL, NU_ALIGN_UP(sizeof(*a) + (block ? 0 : got + len), 16))
	      : NULL;
	if (!a)
		goto no_thread;
	*a = *proto;
	a->block = block;
	a->future = f;
	a->got = block ? block : a->room;
	memset(a->got, 0, got);
	to = (char *)a->got + got;
	nu_codec_args_pack(m, args, to);
	if (nu_codec_args_unpack(m, to, len))
		goto no_thread;
	t->arg = a;
	t->detached = 0;
	t->call_id = nu_mix(nu_call_identity(self), ++self->call_index);
	t->call_index = 0;
	t->call_deadline_ns = self->call_deadline_ns;
	f->status = -EINPROGRESS;
	f->thread = t;
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	nu_thread_ready(t);
	return 0;

no_thread:
	if (t)
		nu_thread_free(t);
	if (block)
		nu_proclet_free(p, block);
	return -ENOMEM;
}

NU_API int nu_call_async(struct nu_ref target, const struct nu_method *m, const void *args, void *result,
			 struct nu_future *f)
{
	struct async proto = {.target = target, .m = m, .result = result};

	return start(&proto, m, args, f);
}

NU_API int nu_create_async(const struct nu_class *cls, const struct nu_options *options, const void *args,
			   struct nu_future *f)
{
	struct async proto = {.cls = cls};

	if (options)
		proto.options = *options;
	return start(&proto, cls->init, args, f);
}

NU_API int nu_future_wait(struct nu_future *f)
{
	int ret = 0;

	if (!f || !f->thread)
		return -EINVAL;
	if (f->thread != FUTURE_DONE)
		ret = nu_thread_join(f->thread);
	if (!ret)
		f->thread = FUTURE_DONE;
	return ret ? ret : f->status;
}

NU_API int nu_create(const struct nu_class *cls, const struct nu_options *options, const void *args,
		     struct nu_ref *ref_p)
{
	struct nu_options defaults = {0};

	if (!nu_thread_self())
		return nu_outside(cls->name, "create");
	if (!ref_p)
		return -EINVAL;
	return nu_rpc_ops.create(cls, options ? options : &defaults, args, ref_p);
}
