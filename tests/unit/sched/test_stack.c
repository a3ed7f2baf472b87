/* SPDX-License-Identifier: MIT */
/* Stacks: where they lie, how they leave and come back. */
#include "sched_test.h"

#include <sys/mman.h>

static struct nu_proclet second;
static atomic_bool halt;
static atomic_int ended, bad;
static atomic_ulong work;

static bool is_mapped(const void *p)
{
	unsigned char v;

	return mincore((void *)((uintptr_t)p & ~4095ul), 4096, &v) == 0;
}

static void places(void)
{
	struct nu_thread *t[200], *self = nu_thread_self();

	cr_assert(nu_thread_is_here(self));
	cr_assert_not(nu_thread_is_here((struct nu_thread *)((char *)self + 64)));
	cr_assert_not(nu_thread_is_here((struct nu_thread *)&work));
	cr_assert_not(nu_thread_is_here(NULL));
	for (int i = 0; i < 200; i++) {
		uintptr_t low;

		t[i] = nu_thread_alloc(&user_proclet);
		low = nu_stack_slot(t[i]);
		cr_assert_eq((uintptr_t)t[i] % NU_CACHE_LINE, 0);
		cr_assert_leq((uintptr_t)(t[i] + 1), low + nu_layout.stack_slot_bytes);
		cr_assert_eq((uintptr_t)t[i]->stack_low,
			     low + nu_layout.stack_slot_bytes - nu_layout.stack_bytes);
		for (uintptr_t at = low; at < (uintptr_t)t[i]->stack_low; at += 4096)
			cr_assert_not(is_mapped((void *)at), "guard");
		cr_assert(is_mapped(t[i]->stack_low));
		cr_assert(nu_thread_is_here(t[i]));
		cr_assert_eq(t[i]->home_node, 0);
		for (int j = 0; j < i; j++)
			cr_assert_neq(t[i], t[j]);
	}
	cr_assert_null(nu_thread_prepare(t[0], NULL, NULL, nu_layout.stack_bytes));
	char *args = nu_thread_prepare(t[0], NULL, NULL, 1000);
	cr_assert(args && args + 1000 <= (char *)t[0] && (uintptr_t)args % 16 == 0);
	for (int i = 0; i < 200; i++) {
		nu_thread_free(t[i]);
		cr_assert_not(nu_thread_is_here(t[i]));
	}
}

Test(stack, places)
{
	run(1, places);
}

/* ---- all of a proclet's threads leave and come back, as over a migration ---- */

static USER void computes(void *arg)
{
	double a = 1, b = 2;
	unsigned long n = 0;

	while (!atomic_load_explicit(&halt, memory_order_relaxed)) {
		a += 1;
		b += 2;
		n++;
		if ((unsigned long)a != n + 1 || b != 2 * a)
			atomic_fetch_add(&bad, 1);
	}
	atomic_fetch_add(&ended, 1);
}

static struct nu_mutex mutex;
static volatile long in_mutex;

static void locks(void *arg)
{
	char deep[3000];

	memset(deep, (int)(intptr_t)arg, sizeof(deep));
	while (!halt) {
		nu_mutex_lock(&mutex);
		long v = in_mutex;
		nu_yield();
		if (in_mutex != v)
			atomic_fetch_add(&bad, 1);
		in_mutex = v + 1;
		nu_mutex_unlock(&mutex);
		nu_sleep_us((uintptr_t)arg * 10);
		for (size_t i = 0; i < sizeof(deep); i++)
			if (((volatile char *)deep)[i] != (char)(intptr_t)arg)
				atomic_fetch_add(&bad, 1);
		atomic_fetch_add(&work, 1);
	}
	atomic_fetch_add(&ended, 1);
}

static void joins(void *arg)
{
	while (!halt) {
		struct nu_thread *t;

		spawn((nu_thread_fn)nu_yield, NULL, &t);
		nu_sleep_us(100); /* it has mostly ended: dead threads travel, too */
		nu_thread_join(t);
	}
	atomic_fetch_add(&ended, 1);
}

struct carried {
	struct nu_thread *t;
	void *low;
	size_t len;
	char *bytes;
};

static void move(struct nu_proclet *from, struct nu_proclet *to)
{
	struct carried c[64];
	struct nu_list *e;
	int n = 0;

	cr_assert_eq(nu_freeze(from, 10000000), 0);
	nu_list_for_each (e, &from->threads) {
		struct carried *x = &c[n++];

		x->t = nu_list_entry(e, struct nu_thread, proclet_link);
		nu_stack_live(x->t, &x->low, &x->len);
		x->bytes = malloc(x->len);
		memcpy(x->bytes, x->low, x->len);
	}
	nu_list_init(&from->threads);
	nu_list_init(&from->parked);
	from->nthreads = 0;
	from->frozen = false;
	for (int i = 0; i < n; i++) {
		nu_stack_depart(c[i].t);
		cr_assert_not(nu_thread_is_here(c[i].t));
	}
	to->frozen = true;
	nu_lock_acquire(&to->lock);
	for (int i = 0; i < n; i++) {
		cr_assert_eq(nu_stack_adopt(c[i].t, c[i].len), 0);
		memcpy(c[i].low, c[i].bytes, c[i].len);
		free(c[i].bytes);
		nu_thread_arrived(c[i].t, to);
		cr_assert(nu_thread_is_here(c[i].t));
		cr_assert_eq(nu_stack_adopt(c[i].t, c[i].len), -EEXIST);
	}
	nu_lock_release(&to->lock);
	nu_thaw(to);
}

static void there_and_back(void)
{
	enum { N = 23 };

	proclet_make(&second, 99, true);
	for (intptr_t i = 0; i < 20; i++)
		user_thread(locks, (void *)i, true);
	user_thread(computes, NULL, true);
	user_thread(computes, NULL, true);
	user_thread(joins, NULL, true);
	for (int i = 0; i < 500; i++) {
		move(i % 2 ? &second : &user_proclet, i % 2 ? &user_proclet : &second);
		if (i % 5 == 0)
			nu_sleep_us(300);
	}
	cr_assert_gt(work, 20);
	halt = true;
	await_at_least(&ended, N);
	cr_assert_eq(bad, 0);
}

Test(stack, threads_leave_and_come_back, .timeout = 60)
{
	run_node(2, there_and_back);
}

/* ---- stacks of other nodes ---- */

static void *home_top;
static unsigned home_node;

static void note_home(unsigned home, void *top, uint64_t proclet)
{
	home_node = home;
	home_top = top;
}

static void foreign(void)
{
	uintptr_t low = nu_layout.stack_base + nu_layout.stack_node_bytes + 5 * nu_layout.stack_slot_bytes;
	struct nu_thread *t = nu_stack_thread(low), *own;
	size_t live = sizeof(*t) + 5000, cursor = 0;
	uint64_t id = user_proclet.id, lent_to = 0;
	static const struct nu_sched_ops ops = {.stack_home = note_home};

	nu_sched_set_ops(&ops);
	cr_assert_not(nu_thread_is_here(t));
	cr_assert_eq(nu_stack_adopt((struct nu_thread *)((char *)t + 64), live), -EINVAL);
	cr_assert_eq(nu_stack_adopt((struct nu_thread *)&work, live), -EINVAL);
	cr_assert_eq(nu_stack_adopt(t, nu_layout.stack_bytes), -EINVAL);
	cr_assert_eq(nu_stack_adopt(t, live), 0);
	cr_assert(nu_thread_is_here(t));
	cr_assert_not(is_mapped((void *)low), "guard");
	memset((char *)(t + 1) - live, 0, live);
	t->home_node = 1;
	nu_thread_free(t);
	cr_assert_eq(home_node, 1);
	cr_assert_eq((uintptr_t)home_top, low + nu_layout.stack_slot_bytes);
	cr_assert_not(nu_thread_is_here(t));
	cr_assert_not(is_mapped((char *)t - 4096));

	/* One of ours that is lent, ends elsewhere and comes home, once. */
	own = nu_thread_alloc(&user_proclet);
	low = nu_stack_slot(own);
	nu_stack_depart(own);
	cr_assert_not(nu_thread_is_here(own));
	nu_stack_returned((void *)(low + nu_layout.stack_slot_bytes), id + 1);
	cr_assert_eq(nu_stack_adopt(own, sizeof(*own)), 0, "another proclet's word: it is lent still");
	own->proclet_id = id;
	nu_stack_depart(own);
	nu_stack_returned((void *)(low + nu_layout.stack_slot_bytes), id);
	nu_stack_returned((void *)(low + nu_layout.stack_slot_bytes), id);
	cr_assert_eq(nu_stack_adopt(own, sizeof(*own)), -EINVAL, "not lent any more");

	/* One that is lent to a proclet that is lost. */
	own = nu_thread_alloc(&user_proclet);
	nu_stack_depart(own);
	cr_assert(nu_stacks_next_lent(&cursor, &lent_to));
	cr_assert_eq(lent_to, id);
	cr_assert_not(nu_stacks_next_lent(&cursor, &lent_to));
	nu_stacks_take_back(id + 1);
	cr_assert_eq(nu_stack_adopt(own, sizeof(*own)), 0, "of another proclet");
	own->proclet_id = id;
	nu_stack_depart(own);
	nu_stacks_take_back(id);
	cr_assert_eq(nu_stack_adopt(own, sizeof(*own)), -EINVAL, "taken back");
}

Test(stack, foreign_stacks)
{
	nu_log_level = NU_LOG_ERROR;
	run_node(1, foreign);
}

/* ---- the region's end ---- */

static void use_up(void)
{
	static struct nu_thread *t[300];
	int n = 0;

	while (n < 300 && (t[n] = nu_thread_alloc(&user_proclet)))
		n++;
	cr_assert_eq(n, 63, "%d of 64 slots", n); /* one is ours */
	for (int i = 0; i < n; i++)
		nu_thread_free(t[i]);
	cr_assert_not_null(t[0] = nu_thread_alloc(&user_proclet));
	nu_thread_free(t[0]);
	while (n && nu_thread_spawn((nu_thread_fn)nu_yield, NULL, NULL) == 0)
		n--;
	cr_assert_lt(n, 63);
}

static void small_start(void)
{
	use_up();
}

Test(stack, used_up)
{
	/* layout_make() would undo it: started by hand. */
	layout_make();
	nu_layout.stack_node_bytes = 64 * nu_layout.stack_slot_bytes;
	nu_node.cores = 1;
	nu_node.count = 1;
	sem_init(&main_done, 0, 0);
	main_body = small_start;
	proclet_make(&user_proclet, 7, true);
	cr_assert_eq(nu_sched_start(&user_proclet, main_thread, NULL), 0);
	wait_main();
	nu_sched_stop();
}
