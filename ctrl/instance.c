/* SPDX-License-Identifier: MIT */
/* Proclets that begin and end on this node. */
#include "core/fault.h"
#include "ctrl/ctrl.h"

#include <stdlib.h>
#include <string.h>

#define END_PAUSE_US	50000u	 /* for which a pause is tried */
#define END_WAIT_US_MAX 2000000u /* between two of them */
#define END_RETRY_US	200u

struct create_args {
	uint64_t id;
	uint64_t init_method; /* names the class */
	uint64_t capacity_bytes;
	uint64_t holder;
	uint64_t pinned;
	struct nu_bytes init; /* packed arguments of the constructor */
};

/* Lays out an empty proclet in the first extent of its segment. */
static int lay_out(struct nu_proclet *p, const struct nu_class *cls, size_t capacity_bytes, bool pinned)
{
	struct nu_proclet_head *head = nu_seg_addr(nu_id_seg(p->id));
	size_t mapped;
	int ret = nu_proclet_map(p, NU_EXTENT_MIN_BYTES, NU_EXTENT_MIN_BYTES, &mapped);

	if (ret)
		return ret;
	_Static_assert(sizeof(*head) <= NU_HEAP_HEAD_BYTES, "the head lies in front of the heap");
	*head = (struct nu_proclet_head){.id = p->id,
					 .cls = cls,
					 .capacity_bytes = capacity_bytes,
					 .pinned = pinned,
					 .deaths_done = atomic_load(&nu_node.deaths_done)};
	head->heap = nu_heap_init(nu_seg_addr(nu_id_seg(p->id)), mapped, capacity_bytes);
	nu_heap_set_grow(head->heap, nu_proclet_map, p);
	if (cls) {
		head->root = nu_heap_alloc_aligned(head->heap, 64, cls->root_bytes, nu_core_self());
		if (!head->root)
			return -ENOMEM;
		memset(head->root, 0, cls->root_bytes);
	}
	p->head = head;
	p->heap = head->heap;
	p->root = head->root;
	p->cls = cls;
	return 0;
}

int nu_instance_make(uint64_t id, const struct nu_class *cls, size_t capacity_bytes, bool pinned,
		     uint64_t holder, struct nu_proclet **p_p)
{
	struct nu_proclet *p;
	int ret = nu_proclet_enter(id, &p);

	if (ret)
		return ret;
	ret = lay_out(p, cls, capacity_bytes, pinned);
	if (!ret)
		ret = nu_ref_first(p, holder);
	if (ret) {
		p->head = NULL;
		p->heap = NULL;
		nu_proclet_unmap(p);
		nu_proclet_leave(p);
		return ret;
	}
	nu_lock_acquire(&p->lock);
	p->state = NU_PROCLET_PRESENT;
	nu_lock_release(&p->lock);
	nu_stat_add(nu_core_self(), NU_STAT_PROCLETS_CREATED, 1);
	*p_p = p;
	return 0;
}

/* ---- creation on the node that was chosen ---- */

static int create_here(struct create_args *a)
{
	const struct nu_class *cls = nu_image_class_of((const struct nu_method *)a->init_method);
	struct nu_proclet *p;
	bool constructed = false;
	int init = 0, ret;

	if (!cls || !nu_id_is_mobile(a->id) || !nu_id_may_hold(a->id, a->capacity_bytes) || !a->holder ||
	    a->init.len_bytes < cls->init->args_bytes) {
		nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
		nu_warn("creation refused: proclet %#lx of %lu bytes, constructor %#lx with %zu bytes of "
			"arguments",
			(unsigned long)a->id, (unsigned long)a->capacity_bytes, (unsigned long)a->init_method,
			a->init.len_bytes);
		return -EBADMSG;
	}
	ret = nu_codec_args_unpack(cls->init, (void *)a->init.data, a->init.len_bytes);
	if (ret)
		return ret;
	ret = nu_fault(NU_FAULT_CREATE_ASKED);
	if (!ret)
		ret = nu_instance_make(a->id, cls, a->capacity_bytes, a->pinned, a->holder, &p);
	if (ret)
		return ret;
	ret = nu_fault(NU_FAULT_CREATE_LAID_OUT);
	if (!ret)
		ret = nu_call((struct nu_ref){a->id}, cls->init, a->init.data, &init);
	if (!ret)
		ret = init;
	constructed = !ret;
	if (!ret)
		ret = nu_fault(NU_FAULT_CREATE_CONSTRUCTED);
	if (ret) { /* nobody has the reference */
		nu_lock_acquire(&p->lock);
		p->state = NU_PROCLET_DYING;
		if (!constructed)
			p->head->cls = NULL; /* and no destructor */
		nu_lock_release(&p->lock);
		nu_instance_retire(p);
	}
	/* Whoever dropped what the dead held may have looked before this was there. */
	if (!ret && unlikely(nu_node.any_dead) && nu_ref_is_lost(a->holder)) {
		nu_refs_give_back(a->holder, &(struct nu_held_ref){a->id, 1}, 1);
		ret = -EHOSTDOWN;
	}
	return ret;
}

static void create_run(void *self, void *args, void *result, struct nu_out *out)
{
	*(int *)result = create_here(args);
}
static const struct nu_field create_fields[] = {{offsetof(struct create_args, init), NU_FIELD_BYTES, 1}};
__attribute__((section("nu_methods"), used)) static const struct nu_method create_method = {
	.class_name = "node",
	.name = "create",
	.run = create_run,
	.fields = create_fields,
	.nfields = 1,
	.args_bytes = sizeof(struct create_args),
	.result_bytes = sizeof(int),
	.result_kind = NU_RESULT_FIXED,
	.magic = NU_METHOD_MAGIC,
	.cls = &nu_node_class,
};

int nu_instance_capacity(size_t wanted_bytes, size_t *bytes_p)
{
	size_t bytes = wanted_bytes ? wanted_bytes : NU_SEG_DEFAULT_BYTES, up = NU_SEG_UNIT_BYTES;

	if (bytes > NU_SEG_MAX_BYTES) {
		nu_warn("a proclet's capacity of %zu bytes is above the limit of 1 TiB", bytes);
		return -EINVAL;
	}
	while (up < bytes)
		up <<= 1;
	*bytes_p = up;
	return 0;
}

/* Where it is to be: NU_CTRL_NO_NODE: wherever. */
static int node_of(const struct nu_options *o, unsigned *node_p)
{
	unsigned node = o->node - NU_NODE_BASE;

	if (o->node && node >= nu_node.count) {
		if (o->node < NU_MAX_NODES)
			nu_warn("nu_options.node is %u, not NU_NODE(%u) or NU_NODE(0)", o->node, o->node);
		else
			nu_warn("nu_options.node is NU_NODE(%d), nodes are numbered 0 to %u", (int)node,
				nu_node.count - 1);
		return -EINVAL;
	}
	*node_p = o->node ? node : NU_CTRL_NO_NODE;
	return 0;
}

/* If the answer was lost with a node that it passed, there may be one that only we know of. */
static void give_up_creation(const struct nu_place *place, int err)
{
	struct nu_held_ref ref = {place->id, 1};

	if (err == -EHOSTDOWN && !nu_node.dead[place->node])
		nu_refs_give_back(nu_thread_self()->proclet_id, &ref, 1);
	nu_client_free(place->id, place->node);
}

int nu_instance_create(const struct nu_class *cls, const struct nu_options *o, const void *args,
		       struct nu_ref *ref_p)
{
	struct nu_thread *t = nu_thread_self();
	struct nu_options rounded = *o;
	ssize_t extra = nu_codec_args_bytes(cls->init, args);
	struct create_args a;
	struct nu_place place;
	size_t len;
	void *packed;
	int ret = nu_instance_capacity(o->capacity_bytes, &rounded.capacity_bytes), status = 0;
	unsigned node = 0;

	if (!ret)
		ret = node_of(o, &node);
	if (ret)
		return ret;
	if (extra < 0)
		return (int)extra;
	ret = nu_client_new(&rounded, node, &place);
	if (ret)
		return ret;
	len = NU_ALIGN_UP((size_t)cls->init->args_bytes, 8) + (size_t)extra;
	ret = nu_fault(NU_FAULT_CREATE_PLACED);
	packed = ret ? NULL : nu_proclet_alloc(t->proclet, len); /* the caller may move while it waits */
	if (!packed) {
		nu_client_free(place.id, place.node);
		return ret ? ret : -ENOMEM;
	}
	nu_codec_args_pack(cls->init, args, packed);
	a = (struct create_args){place.id,	(uint64_t)cls->init, rounded.capacity_bytes,
				 t->proclet_id, o->pinned,	     {packed, len}};
	ret = nu_call((struct nu_ref){nu_id_of_node(place.node)}, &create_method, &a, &status);
	nu_proclet_free(t->proclet, packed);
	if (!ret)
		ret = status;
	if (ret) {
		give_up_creation(&place, ret);
		return ret;
	}
	(void)nu_fault(NU_FAULT_CREATE_ANSWERED);
	nu_client_ready(place.id);
	(void)nu_fault(NU_FAULT_CREATE_READY);
	nu_route_learn(place.id, place.node, 0);
	ret = nu_ref_note_held_by(t->proclet, place.id);
	if (unlikely(ret))
		(void)!nu_ref_change(place.id, t->proclet_id, -1); /* its end, too */
	else
		*ref_p = (struct nu_ref){place.id};
	return ret;
}

/* ---- the end ---- */

static void fini_body(void *arg)
{
	const struct nu_class *cls = arg;

	cls->fini(nu_thread_self()->proclet->root);
}

/* Runs the destructor as a thread of the proclet. */
static void run_fini(struct nu_proclet *p)
{
	const struct nu_class *cls = p->head->cls;
	struct nu_thread *t;
	unsigned tries = 0;

	if (!cls || !cls->fini)
		return;
	do
		t = nu_thread_alloc_step(p);
	while (!t && nu_rpc_again(-ENOMEM, &tries));
	if (!t || !nu_thread_prepare(t, fini_body, (void *)cls, 0)) {
		nu_err("no stack for the destructor of proclet %#lx", (unsigned long)p->id);
		return;
	}
	t->detached = 0;
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	nu_thread_ready(t);
	(void)!nu_thread_join(t);
}

/* Who was about to move it has offered its extents already, finds that it has ended, and withdraws them: a thread of this
 * node, that waits for no other node before it has. */
static void await_withdrawal(struct nu_proclet *p)
{
	bool offered;

	for (;;) {
		nu_lock_acquire(&p->lock);
		offered = p->offered;
		nu_lock_release(&p->lock);
		if (!offered)
			return;
		nu_sleep_us(END_RETRY_US);
	}
}

/* A thread of it may be in a system call: others need this core meanwhile. */
static void freeze_for_good(struct nu_proclet *p)
{
	uint64_t wait_us = END_PAUSE_US;

	while (nu_freeze(p, END_PAUSE_US)) {
		nu_warn("proclet %#lx ends, but a thread of it cannot be stopped yet", (unsigned long)p->id);
		nu_sleep_us(wait_us);
		if (wait_us < END_WAIT_US_MAX)
			wait_us *= 2;
	}
}

void nu_instance_retire(struct nu_proclet *p)
{
	struct nu_held_ref *refs = NULL;
	uint64_t id = p->id;
	size_t nrefs = 0;

	(void)nu_fault(NU_FAULT_RETIRE_BEGUN);
	run_fini(p);
	freeze_for_good(p);
	nu_move_forget_waiters(p);
	nu_threads_discard(p);
	(void)!nu_refs_held(p, &refs, &nrefs);
	nu_lock_acquire(&p->lock);
	p->state = NU_PROCLET_NONE;
	p->head = NULL;
	p->heap = NULL;
	p->root = NULL;
	atomic_store(&p->frozen, false);
	nu_lock_release(&p->lock);
	await_withdrawal(p);
	nu_proclet_unmap(p);
	(void)nu_fault(NU_FAULT_RETIRE_UNMAPPED);
	nu_held_release(p);
	nu_proclet_leave(p);
	nu_route_forget(id);
	nu_stat_add(nu_core_self(), NU_STAT_PROCLETS_FREED, 1);
	while (nu_client_free(id, nu_node.self) == -EBUSY) /* it was about to move; who moves it gives up */
		nu_sleep_us(END_RETRY_US);
	(void)nu_fault(NU_FAULT_RETIRE_FREED);
	nu_refs_give_back(id, refs, nrefs);
	free(refs);
}
