/* SPDX-License-Identifier: MIT */
/*
 * Counted references. A proclet counts the references to itself by holder, so that a dead holder's share can be
 * dropped, and lists those that it holds itself, so that they are given back when it ends. Both tables lie in its
 * heap and move with it. A change is a call on the target, which makes it ordered with the target's end.
 */
#include "rpc/rpc_int.h"

struct nu_refentry {
	uint64_t id;
	uint64_t count; /* 0: free, or a tombstone if id is set */
};
struct nu_reftab {
	uint32_t cap, used; /* cap: power of two */
	struct nu_refentry e[];
};

static struct nu_refentry *find(struct nu_reftab *tab, uint64_t id)
{
	for (uint32_t i = (uint32_t)nu_mix(id, 1);; i++) {
		struct nu_refentry *e = &tab->e[i & (tab->cap - 1)];

		if (e->id == id || !e->id)
			return e;
	}
}

static struct nu_reftab *grow(struct nu_proclet *p, struct nu_reftab *old)
{
	uint32_t live = 0, cap;
	struct nu_reftab *tab;

	for (uint32_t i = 0; old && i < old->cap; i++)
		live += old->e[i].count != 0;
	cap = live < 4 ? 8 : 1u << (34 - __builtin_clz(live));
	tab = nu_proclet_alloc(p, sizeof(*tab) + cap * sizeof(tab->e[0]));
	if (!tab)
		return NULL;
	memset(tab, 0, sizeof(*tab) + cap * sizeof(tab->e[0]));
	tab->cap = cap;
	for (uint32_t i = 0; old && i < old->cap; i++) {
		if (!old->e[i].count)
			continue;
		*find(tab, old->e[i].id) = old->e[i];
		tab->used++;
	}
	if (old)
		nu_proclet_free(p, old);
	return tab;
}

/* Adds @n to the count of @id in a table of @p (lock held). -EINVAL: it would fall below zero. */
int nu_reftab_add(struct nu_proclet *p, struct nu_reftab **tab_p, uint64_t id, int64_t n, uint64_t *left_p)
{
	struct nu_reftab *tab = *tab_p;
	struct nu_refentry *e;
	int64_t count;

	if (n <= 0 && !tab)
		return -EINVAL;
	if (n > 0 && (!tab || (tab->used + 1) * 4 > tab->cap * 3)) { /* to count down needs no memory */
		tab = grow(p, tab);
		if (!tab)
			return -ENOMEM;
		*tab_p = tab;
	}
	if (!id)
		id = UINT64_MAX; /* nobody in particular */
	e = find(tab, id);
	if (__builtin_add_overflow((int64_t)e->count, n, &count) || count < 0 || (!e->id && n <= 0))
		return -EINVAL;
	if (!e->id)
		tab->used++;
	e->id = id;
	e->count = (uint64_t)count;
	*left_p = e->count;
	return 0;
}

int nu_ref_first(struct nu_proclet *p, uint64_t holder)
{
	uint64_t left;
	int ret;

	nu_lock_acquire(&p->lock);
	ret = nu_reftab_add(p, &p->head->holders, holder, 1, &left);
	p->head->refs_total = 1;
	nu_lock_release(&p->lock);
	return ret;
}

/* ---- holders, and whether they are still ---- */

static bool is_here(uint64_t id)
{
	const struct nu_proclet *p = nu_proclet_lookup(id);

	return p && (p->state == NU_PROCLET_PRESENT || p->state == NU_PROCLET_MOVING);
}

/* Stale: it ended, and its node died before it had given everything back. If it does so now, that is refused. */
bool nu_ref_is_lost(uint64_t holder)
{
	uint64_t location;
	unsigned node;
	int err = nu_rpc_ops.locate(holder, &node, &location);

	return err == -EHOSTDOWN || err == -ESTALE;
}

/* ---- at the target: an internal method of every proclet ---- */

#define CHANGE_MAX (INT64_C(1) << 40) /* at once: so that no sum of them runs over */

struct change_args {
	uint64_t holder;
	int64_t n;
};

static int change(struct nu_proclet *p, uint64_t holder, int64_t n)
{
	struct nu_proclet_head *h = p->head;
	uint64_t left;
	int ret;

	nu_lock_acquire(&p->lock);
	/* The last one may have gone between this call's arrival and its turn. */
	ret = n > 0 && !h->refs_total ? -ESTALE : nu_reftab_add(p, &h->holders, holder, n, &left);
	if (!ret) {
		h->refs_total += (uint64_t)n;
		if (!h->refs_total && p->state == NU_PROCLET_PRESENT) {
			p->state = NU_PROCLET_DYING; /* freed when the last call in it ends: reply.c */
			nu_quick_close(p);
		}
	}
	nu_lock_release(&p->lock);
	return ret;
}

static void change_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct change_args *a = args;
	struct nu_proclet_head *h = nu_thread_self()->proclet->head;
	int ret = -EPERM;

	/* The reference that is nobody's in particular keeps the controller and the main proclet alive. */
	if (h && (!a->holder || a->holder == UINT64_MAX || a->n < -CHANGE_MAX || a->n > CHANGE_MAX)) {
		nu_stat_add(nu_core_self(), NU_STAT_BAD_MESSAGES, 1);
		ret = -EINVAL;
	} else if (h) {
		ret = change(nu_thread_self()->proclet, a->holder, a->n);
	}
	/* Its node may have died, and who dropped its references come here before this one did. */
	if (!ret && a->n > 0 && unlikely(nu_node.any_dead) && !is_here(a->holder) &&
	    nu_ref_is_lost(a->holder)) {
		(void)!change(nu_thread_self()->proclet, a->holder, -a->n);
		ret = -EHOSTDOWN;
	}
	*(int *)result = ret;
}

__attribute__((section("nu_methods"), used)) static const struct nu_method change_method = {
	.class_name = "proclet",
	.name = "reference",
	.run = change_run,
	.args_bytes = sizeof(struct change_args),
	.result_bytes = sizeof(int),
	.result_kind = NU_RESULT_FIXED,
	.magic = NU_METHOD_MAGIC,
};

int nu_ref_change(uint64_t target, uint64_t holder, int64_t n)
{
	struct change_args a = {holder, n};
	unsigned tries = 0;
	int ret, err;

	do { /* a count that is not taken down would keep the proclet for ever */
		ret = 0;
		err = nu_call((struct nu_ref){target}, &change_method, &a, &ret);
	} while (n < 0 && nu_rpc_again(err, &tries));
	return err ? err : ret;
}

/* ---- at the holder ---- */

static int note(struct nu_proclet *p, uint64_t id, int64_t n)
{
	uint64_t left;
	int ret = 0;

	if (!p->head)
		return 0; /* a node's own proclet keeps no table */
	nu_lock_acquire(&p->lock);
	ret = nu_reftab_add(p, &p->head->held, id, n, &left);
	nu_lock_release(&p->lock);
	return ret;
}

int nu_ref_note_held_by(struct nu_proclet *p, uint64_t id)
{
	return id ? note(p, id, 1) : 0;
}

NU_API int nu_ref_get(struct nu_ref ref)
{
	struct nu_thread *t = nu_thread_self();
	int ret;

	if (!t)
		return nu_outside("nu_ref_get", "");
	ret = nu_ref_change(ref.id, t->proclet_id, 1);
	if (ret)
		return ret;
	ret = note(t->proclet, ref.id, 1);
	if (ret)
		(void)!nu_ref_change(ref.id, t->proclet_id, -1);
	return ret;
}

NU_API int nu_ref_put(struct nu_ref ref)
{
	struct nu_thread *t = nu_thread_self();
	int ret;

	if (!ref.id)
		return 0;
	if (!t)
		return nu_outside("nu_ref_put", "");
	ret = note(t->proclet, ref.id, -1);
	if (ret)
		return ret;
	ret = nu_ref_change(ref.id, t->proclet_id, -1);
	return ret == -ESTALE || ret == -EHOSTDOWN ? 0 : ret; /* gone already */
}

NU_API struct nu_ref nu_self(void)
{
	struct nu_thread *t = nu_thread_self();

	return (struct nu_ref){t ? t->proclet_id : 0};
}

/* The references that a dying proclet held, copied out of its heap: an array of *n_p, malloc'ed. */
int nu_refs_held(struct nu_proclet *p, struct nu_held_ref **refs_p, size_t *n_p)
{
	struct nu_reftab *tab = p->head ? p->head->held : NULL;
	struct nu_held_ref *refs = nu_alloc_patiently((tab ? tab->cap : 1) * sizeof(*refs));
	size_t n = 0;

	if (!refs)
		return -ENOMEM;
	for (uint32_t i = 0; tab && i < tab->cap; i++) {
		if (tab->e[i].count)
			refs[n++] = (struct nu_held_ref){tab->e[i].id, tab->e[i].count};
	}
	*refs_p = refs;
	*n_p = n;
	return 0;
}

void nu_refs_give_back(uint64_t holder, struct nu_held_ref *refs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)!nu_ref_change(refs[i].id, holder, -(int64_t)refs[i].count); /* it may be gone */
}

/* ---- holders that have died with their node ---- */

struct share {
	uint64_t target, holder, count;
};
struct shares {
	struct share *s; /* NULL: only counted */
	size_t n, cap;
};

static void collect_shares(struct nu_proclet *p, void *arg)
{
	struct shares *all = arg;
	struct nu_reftab *tab;

	nu_lock_acquire(&p->lock);
	tab = p->head && p->state != NU_PROCLET_MOVED ? p->head->holders : NULL;
	for (uint32_t i = 0; tab && i < tab->cap; i++) {
		if (!tab->e[i].count || tab->e[i].id == UINT64_MAX || is_here(tab->e[i].id))
			continue;
		if (all->s && all->n < all->cap)
			all->s[all->n] = (struct share){p->id, tab->e[i].id, tab->e[i].count};
		all->n++;
	}
	nu_lock_release(&p->lock);
}

void nu_refs_check_lost(void)
{
	struct shares all = {NULL, 0, 0};

	nu_proclet_for_each(collect_shares, &all);
	all.cap = all.n + 64; /* some may be added meanwhile; the dead add none */
	all.s = calloc(all.cap, sizeof(*all.s));
	if (!all.s) {
		nu_err("no memory to look through %zu references for dead holders", all.n);
		return;
	}
	all.n = 0;
	nu_proclet_for_each(collect_shares, &all);
	for (size_t i = 0; i < all.n && i < all.cap; i++) {
		struct share *s = &all.s[i];

		if (nu_ref_is_lost(s->holder))
			nu_refs_give_back(s->holder, &(struct nu_held_ref){s->target, s->count}, 1);
	}
	free(all.s);
}
