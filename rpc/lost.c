/* SPDX-License-Identifier: MIT */
/*
 * Calls that nobody will answer since a node has died. Those to a proclet that was lost fail at once. Others may have
 * gone away with the node although both ends live: in its queues, held for a proclet that moved, or as an answer that
 * passed it on the way to where the caller is now. So each callee is asked whether it has the call; what it has not, and
 * what is not answered within some time either, has failed, and nobody knows whether it ran.
 */
#include "rpc/rpc_int.h"

#define ASK_MAX	    512u /* calls in one question */
#define GRACE_US    1000000u
#define LOOK_US	    2000u
#define ASK_TRIES   100u
#define ASK_WAIT_US 2000u

/* A call that waits here. What it is asked by comes first: the two words are the question. */
struct waiting {
	uint64_t thread, seq;
	uint64_t caller, target;
};
struct waitings {
	struct waiting *w;
	size_t n, cap;
	uint64_t look; /* 0: of the lost alone */
};

/* ---- those that wait ---- */

static bool is_of_a_node(uint64_t id)
{
	unsigned ignored;

	return nu_id_is_node(id, &ignored) || id == NU_ID_CTRL;
}

static void collect(struct nu_proclet *p, void *arg)
{
	struct waitings *all = arg;
	struct nu_list *l;

	nu_lock_acquire(&p->lock);
	if (all->look && p->head && p->state == NU_PROCLET_PRESENT && !p->frozen)
		p->head->look = all->look;
	nu_list_for_each (l, &p->threads) {
		struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);
		/* In this order: it may begin another call meanwhile, without the lock. */
		uint64_t seq = nu_wait_seq(t), target = __atomic_load_n(&t->wait_target, __ATOMIC_RELAXED);

		/* What nodes ask of each other and of the controller goes straight there and back. */
		if (!seq || t->wait_done || (!p->heap && is_of_a_node(target)))
			continue;
		if (all->n < all->cap)
			all->w[all->n] = (struct waiting){(uint64_t)t, seq, p->id, target};
		all->n++;
	}
	nu_lock_release(&p->lock);
}

static int by_target(const void *a, const void *b)
{
	const struct waiting *x = a, *y = b;

	if (x->target != y->target)
		return x->target < y->target ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* All that wait now, by target. -ENOMEM. */
static int collect_all(struct waitings *all, uint64_t look)
{
	*all = (struct waitings){.look = look};
	nu_proclet_for_each(collect, all);
	all->cap = all->n + 64; /* one more or less: what begins to wait now knows of the death */
	all->w = malloc(all->cap * sizeof(*all->w));
	if (!all->w) {
		nu_err("no memory to look through %zu waiting calls after a death", all->n);
		return -ENOMEM;
	}
	all->n = 0;
	nu_proclet_for_each(collect, all);
	if (all->n > all->cap)
		all->n = all->cap;
	qsort(all->w, all->n, sizeof(*all->w), by_target);
	return 0;
}

/* Its thread, with its proclet's lock held, if it waits still and can be told; else NULL. */
static struct nu_thread *find(const struct waiting *w, struct nu_proclet **p_p)
{
	struct nu_thread *t = (struct nu_thread *)w->thread;
	struct nu_proclet *p = nu_proclet_lookup(w->caller);

	if (!p)
		return NULL;
	nu_lock_acquire(&p->lock);
	if (p->id == w->caller && !p->frozen &&
	    (p->state == NU_PROCLET_PRESENT || p->state == NU_PROCLET_DYING) && nu_thread_is_here(t) &&
	    t->proclet == p && nu_wait_seq(t) == w->seq && !t->wait_done) {
		*p_p = p;
		return t;
	}
	nu_lock_release(&p->lock);
	return NULL;
}

/* Its proclet's lock is held. */
static void fail_wait(struct nu_thread *t)
{
	t->wait_status = -EHOSTDOWN;
	nu_wait_seq_set(t, 0);
	__atomic_store_n(&t->wait_done, 1, __ATOMIC_RELEASE);
	if (__atomic_load_n(&t->state, __ATOMIC_ACQUIRE) == NU_THREAD_BLOCKED &&
	    (!t->call_deadline_ns || nu_wake_claim(t)))
		nu_thread_ready(t);
}

static void fail(const struct waiting *w)
{
	struct nu_proclet *p;
	struct nu_thread *t = find(w, &p);

	if (!t)
		return;
	fail_wait(t);
	nu_lock_release(&p->lock);
}

static bool waits_still(const struct waiting *w)
{
	struct nu_proclet *p;

	if (!find(w, &p))
		return false;
	nu_lock_release(&p->lock);
	return true;
}

/* ---- to a node itself ---- */

static void fail_calls_of(struct nu_proclet *p, void *arg)
{
	unsigned node = *(unsigned *)arg, to;
	struct nu_list *l;

	nu_lock_acquire(&p->lock);
	nu_list_for_each (l, &p->threads) {
		struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if (!p->frozen && nu_wait_seq(t) && !t->wait_done && nu_id_is_node(t->wait_target, &to) &&
		    to == node)
			fail_wait(t);
	}
	nu_lock_release(&p->lock);
}

void nu_calls_node_dead(unsigned node)
{
	nu_proclet_for_each(fail_calls_of, &node);
}

/* ---- to lost proclets ---- */

static bool is_lost(uint64_t id)
{
	uint64_t location;
	unsigned node;

	if (id == NU_ID_CTRL)
		return false;
	if (nu_id_is_node(id, &node))
		return node < nu_node.count && atomic_load(&nu_node.dead[node]);
	return nu_rpc_ops.locate(id, &node, &location) == -EHOSTDOWN;
}

/* Those with the target of the first: how many, from @at on. */
static size_t same_target(const struct waitings *all, size_t at)
{
	size_t n = 1;

	while (at + n < all->n && all->w[at + n].target == all->w[at].target)
		n++;
	return n;
}

/* Fails those to lost proclets and keeps the rest. */
static void fail_lost(struct waitings *all)
{
	size_t kept = 0;

	for (size_t at = 0, n; at < all->n; at += n) {
		n = same_target(all, at);
		if (is_lost(all->w[at].target)) {
			for (size_t i = 0; i < n; i++)
				fail(&all->w[at + i]);
			continue;
		}
		memmove(&all->w[kept], &all->w[at], n * sizeof(*all->w));
		kept += n;
	}
	all->n = kept;
}

void nu_lost_settle(void)
{
	struct waitings all;

	if (!collect_all(&all, 0)) {
		fail_lost(&all);
		free(all.w);
	}
	nu_refs_check_lost();
}

/* ---- lost on the way: the question ---- */

struct asked {
	uint64_t thread, seq;
};
struct ask_args {
	struct nu_bytes calls; /* struct asked each, by rising sequence number */
};

static void mark(const struct asked *calls, size_t n, char *has, uint64_t thread, uint64_t seq)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (calls[mid].seq < seq)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < n && calls[low].seq == seq; low++) {
		if (calls[low].thread == thread)
			has[low] = 1;
	}
}

/* At the callee: which of the calls it serves, or has before it. */
static void ask_run(void *self, void *args, void *result, struct nu_out *out)
{
	struct ask_args *a = args;
	const struct asked *calls = a->calls.data;
	size_t n = a->calls.len_bytes / sizeof(*calls);
	struct nu_proclet *p = nu_thread_self()->proclet;
	char has[ASK_MAX] = {0};
	struct nu_list *l;

	if (n > ASK_MAX)
		return;
	nu_lock_acquire(&p->lock);
	nu_list_for_each (l, &p->threads) {
		const struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		/* One that is handed a call just now is not asked for yet. */
		if (__atomic_load_n(&t->reply_proclet, __ATOMIC_RELAXED))
			mark(calls, n, has, (uint64_t)__atomic_load_n(&t->reply_thread, __ATOMIC_RELAXED),
			     __atomic_load_n(&t->reply_seq, __ATOMIC_RELAXED));
	}
	nu_list_for_each (l, &p->held) {
		const struct nu_held *h = nu_list_entry(l, struct nu_held, link);

		if (h->msg.type == NU_MSG_CALL)
			mark(calls, n, has, h->msg.thread, h->msg.seq);
	}
	nu_lock_release(&p->lock);
	nu_out_bytes(out, has, n);
}
static const struct nu_field ask_fields[] = {{offsetof(struct ask_args, calls), NU_FIELD_BYTES, 1}};
__attribute__((section("nu_methods"), used)) static const struct nu_method ask_method = {
	.class_name = "proclet",
	.name = "asked for calls",
	.run = ask_run,
	.fields = ask_fields,
	.nfields = 1,
	.args_bytes = sizeof(struct ask_args),
	.result_kind = NU_RESULT_SPAN,
	.result_item_bytes = 1,
	.magic = NU_METHOD_MAGIC,
};

/* Asks about @n <= ASK_MAX calls to one target; @has_p: malloc'ed, a byte each. */
static int ask_once(const struct waiting *w, size_t n, struct nu_bytes *has_p)
{
	struct asked *calls = malloc(n * sizeof(*calls));
	struct ask_args a;
	int err;

	if (!calls)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		calls[i] = (struct asked){w[i].thread, w[i].seq};
	a.calls = (struct nu_bytes){calls, n * sizeof(*calls)};
	err = nu_call((struct nu_ref){w->target}, &ask_method, &a, has_p);
	free(calls);
	if (err || has_p->len_bytes == n)
		return err;
	nu_proclet_free(nu_thread_self()->proclet, (void *)has_p->data);
	return -ENOMEM;
}

/* Keeps at @to those of @w that the target does not have. Return: how many. */
static size_t ask(const struct waiting *w, size_t n, struct waiting *to)
{
	struct nu_bytes has = {NULL, 0};
	int err = -ENOMEM;
	size_t kept = 0;

	for (unsigned i = 0; i < ASK_TRIES && err == -ENOMEM; i++) {
		err = ask_once(w, n, &has);
		if (err == -ENOMEM)
			nu_sleep_us(ASK_WAIT_US);
	}
	if (err && err != -ESTALE && err != -EHOSTDOWN) {
		nu_warn("proclet %#lx does not say which calls it has: %s", (unsigned long)w->target,
			nu_strerror(err));
		return 0;
	}
	/* If it has ended or been lost, it will answer none. */
	for (size_t i = 0; i < n; i++) {
		if (err || !((const char *)has.data)[i])
			to[kept++] = w[i];
	}
	nu_proclet_free(nu_thread_self()->proclet, (void *)has.data);
	return kept;
}

static void ask_all(struct waitings *all)
{
	size_t kept = 0;

	for (size_t at = 0, n; at < all->n; at += n) {
		n = same_target(all, at);
		if (n > ASK_MAX)
			n = ASK_MAX;
		kept += ask(&all->w[at], n, &all->w[kept]);
	}
	all->n = kept;
}

/* Answers may be on their way. */
static void wait_for_answers(struct waitings *all)
{
	uint64_t end = nu_mono_ns() + GRACE_US * 1000ull;

	while (all->n && nu_mono_ns() < end) {
		size_t kept = 0;

		for (size_t i = 0; i < all->n; i++) {
			if (waits_still(&all->w[i]))
				all->w[kept++] = all->w[i];
		}
		all->n = kept;
		if (kept)
			nu_sleep_us(LOOK_US);
	}
}

/* ---- looking for them ---- */

struct looked {
	uint64_t look, done;
};

/* Those that have stood still here since the look began need none when they move. */
static void note_looked(struct nu_proclet *p, void *arg)
{
	const struct looked *l = arg;

	nu_lock_acquire(&p->lock);
	if (p->head && p->state == NU_PROCLET_PRESENT && !p->frozen && p->head->look == l->look)
		p->head->deaths_done = l->done;
	nu_lock_release(&p->lock);
}

static void look(uint64_t number)
{
	struct waitings all;

	if (collect_all(&all, number))
		return;
	fail_lost(&all);
	ask_all(&all);
	wait_for_answers(&all);
	ask_all(&all); /* a call may have come late, too */
	for (size_t i = 0; i < all.n; i++) {
		nu_info("a call to proclet %#lx was lost with a node", (unsigned long)all.w[i].target);
		fail(&all.w[i]);
	}
	free(all.w);
}

static atomic_bool look_wanted;

static void look_body(void *arg)
{
	static atomic_ulong looks;
	struct looked l = {.done = atomic_load(&nu_node.deaths_done)};

	atomic_store(&look_wanted, false); /* who wants one from now on wants another */
	l.look = (uint64_t)(nu_node.self + 1) << 48 | (atomic_fetch_add(&looks, 1) + 1);
	look(l.look);
	nu_refs_check_lost();
	nu_proclet_for_each(note_looked, &l);
}

static void want_look(void)
{
	if (atomic_exchange(&look_wanted, true) || !nu_node_spawn(look_body, NULL))
		return;
	atomic_store(&look_wanted, false);
	nu_err("no thread to look for calls that were lost with a node");
}

void nu_lost_look(uint64_t done)
{
	atomic_store(&nu_node.deaths_done, done);
	want_look();
}

void nu_lost_recheck(struct nu_proclet *p)
{
	uint64_t done = atomic_load(&nu_node.deaths_done);
	bool passed_over;

	if (likely(!done))
		return;
	nu_lock_acquire(&p->lock);
	passed_over = p->head && p->head->deaths_done < done;
	nu_lock_release(&p->lock);
	if (passed_over)
		want_look();
}
