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
	void *result;
	void *block; /* of the caller's heap: large arguments */
	char args[] __attribute__((aligned(16)));
};

static void body(void *arg)
{
	struct async *a = arg;
	void *args = a->block ? a->block : a->args;

	if (a->cls)
		a->future->status = nu_create(a->cls, &a->options, args, &a->future->ref);
	else
		a->future->status = nu_call(a->target, a->m, args, a->result);
	if (a->block)
		nu_proclet_free(nu_thread_self()->proclet, a->block);
}

static int start(const struct async *proto, const struct nu_method *m, const void *args, struct nu_future *f)
{
	struct nu_thread *self = nu_thread_self(), *t;
	struct nu_proclet *p;
	ssize_t extra = nu_codec_args_bytes(m, args);
	size_t len;
	struct async *a;
	void *to, *block = NULL;

	if (!self)
		return nu_outside(m->class_name, m->name);
	if (extra < 0)
		return (int)extra;
	p = self->proclet;
	len = NU_ALIGN_UP((size_t)m->args_bytes, 8) + (size_t)extra;
	if (len > NU_STACK_ARGS_MAX) {
		block = nu_proclet_alloc(p, len);
		if (!block)
			return -ENOMEM;
	}
	t = nu_thread_alloc_start(p);
	a = t ? nu_thread_prepare(t, body, NULL, NU_ALIGN_UP(sizeof(*a) + (block ? 0 : len), 16)) : NULL;
	if (!a)
		goto no_thread;
	*a = *proto;
	a->block = block;
	a->future = f;
	to = block ? block : a->args;
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
