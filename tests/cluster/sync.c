/* SPDX-License-Identifier: MIT */
/*
 * Synchronisation over moves: a hundred threads of one proclet wait on each primitive, the proclet is moved while they
 * wait and again while they are let go; all come out, exclusion holds, and time-outs come neither early nor much late.
 */
#include "check.h"

#define WAITERS	 100
#define MOVES	 4
#define SHORT_US 30000u
#define LONG_US	 60000000u
#define LATE_US	 1500000u /* other programs may have the processors */
#define LOOK_MAX 2000000u

struct room;
struct kind {
	const char *name;
	void (*hold)(struct room *r);	/* a keeper takes what the others shall wait for */
	void (*let_go)(struct room *r); /* and gives it back, or releases the waiters */
	void (*wait)(struct room *r, unsigned i);
	uint32_t (*waiting)(struct room *r); /* how many wait */
};

struct room {
	struct nu_mutex mutex, other;
	struct nu_cond cond;
	struct nu_rwlock rwlock;
	struct nu_sem sem;
	struct nu_barrier barrier;
	struct nu_once once;
	struct nu_waitgroup group;
	struct nu_spin spin;

	const struct kind *kind;
	struct nu_sem go, held;
	struct nu_waitgroup out;
	_Atomic uint32_t entered;
	_Atomic uint32_t readers, writers, most_readers;
	_Atomic uint32_t special, runs;
	_Atomic uint64_t came_out, wrong, early, late, timed_out;
	bool open;
};

NU_STRUCT(tally, val(uint64_t, came_out), val(uint64_t, wrong), val(uint64_t, early), val(uint64_t, late),
	  val(uint64_t, timed_out), val(uint32_t, most_readers), val(uint32_t, special), val(uint32_t, runs),
	  val(int, status));
NU_CLASS(room);
NU_METHOD(room, begin, val(int), val(unsigned, kind));
NU_METHOD(room, end, obj(tally));

int room_init(struct room *r)
{
	nu_barrier_init(&r->barrier, WAITERS + 1);
	return 0;
}

/* ---- sections that only one, or only readers, may be in; they give others every chance to come in ---- */

static void as_writer(struct room *r)
{
	if (r->writers++ || r->readers)
		r->wrong++;
	nu_yield();
	if (r->writers != 1 || r->readers)
		r->wrong++;
	r->writers--;
}

static void as_reader(struct room *r)
{
	uint32_t now = ++r->readers;

	if (r->writers)
		r->wrong++;
	if (now > r->most_readers)
		r->most_readers = now;
	nu_yield();
	if (r->writers)
		r->wrong++;
	r->readers--;
}

/* A time-out's answer, on the proclet's clock. */
static void judge(struct room *r, int ret, bool want_timeout, uint64_t begin_us)
{
	uint64_t took = nu_now_us() - begin_us;

	if ((ret == -ETIMEDOUT) != want_timeout || (ret && ret != -ETIMEDOUT))
		r->wrong++;
	if (ret == -ETIMEDOUT) {
		r->timed_out++;
		if (took < SHORT_US)
			r->early++;
		if (took > SHORT_US + LATE_US)
			r->late++;
	}
}

/* ---- mutex ---- */

static void mutex_hold(struct room *r)
{
	nu_mutex_lock(&r->mutex);
}

static void mutex_let_go(struct room *r)
{
	nu_mutex_unlock(&r->mutex);
}

static CHECK_PEEK uint32_t mutex_waiting(struct room *r)
{
	return r->mutex.waiters.count;
}

static void mutex_wait(struct room *r, unsigned i)
{
	if (nu_mutex_trylock(&r->mutex))
		r->wrong++;
	nu_mutex_lock(&r->mutex);
	as_writer(r);
	nu_mutex_unlock(&r->mutex);
}

/* Half of them give up, half get it in the end. */
static void mutex_timed(struct room *r, unsigned i)
{
	uint64_t begin = nu_now_us();
	int ret = nu_mutex_timedlock(&r->mutex, i % 2 ? SHORT_US : LONG_US);

	judge(r, ret, i % 2, begin);
	if (!ret) {
		as_writer(r);
		nu_mutex_unlock(&r->mutex);
	}
}

/* The keeper holds on until those that give up have done so. */
static void after_timeouts(struct room *r)
{
	while (r->timed_out < WAITERS / 2)
		nu_sleep_us(1000);
}

static void after_all(struct room *r)
{
	while (r->came_out < WAITERS)
		nu_sleep_us(1000);
}

static void mutex_let_go_late(struct room *r)
{
	after_timeouts(r);
	nu_mutex_unlock(&r->mutex);
}

/* ---- condition variable ---- */

static void nothing(struct room *r)
{
}

static CHECK_PEEK uint32_t cond_waiting(struct room *r)
{
	return r->cond.waiters.count;
}

static void cond_wait(struct room *r, unsigned i)
{
	nu_mutex_lock(&r->mutex);
	while (!r->open)
		nu_cond_wait(&r->cond, &r->mutex);
	as_writer(r);
	nu_mutex_unlock(&r->mutex);
}

static void cond_broadcast(struct room *r)
{
	nu_mutex_lock(&r->mutex);
	r->open = true;
	nu_cond_broadcast(&r->cond);
	nu_mutex_unlock(&r->mutex);
}

/* Each signal lets one go: `runs` counts permits. */
static void cond_wait_permit(struct room *r, unsigned i)
{
	nu_mutex_lock(&r->mutex);
	while (!r->runs)
		nu_cond_wait(&r->cond, &r->mutex);
	r->runs--;
	as_writer(r);
	nu_mutex_unlock(&r->mutex);
}

static void cond_signal(struct room *r)
{
	for (unsigned i = 0; i < WAITERS; i++) {
		nu_mutex_lock(&r->mutex);
		r->runs++;
		nu_cond_signal(&r->cond);
		nu_mutex_unlock(&r->mutex);
	}
}

static void cond_timed(struct room *r, unsigned i)
{
	uint64_t begin;
	int ret = 0;

	nu_mutex_lock(&r->mutex);
	begin = nu_now_us();
	while (!ret && (i % 2 || !r->open)) /* odd ones are never satisfied, nor woken before they give up */
		ret = nu_cond_timedwait(&r->cond, &r->mutex, i % 2 ? SHORT_US : LONG_US);
	as_writer(r);
	nu_mutex_unlock(&r->mutex);
	judge(r, ret, i % 2, begin);
}

static void cond_broadcast_late(struct room *r)
{
	after_timeouts(r);
	cond_broadcast(r);
}

/* ---- readers and writers ---- */

static void rwlock_hold(struct room *r)
{
	nu_rwlock_wrlock(&r->rwlock);
}

static void rwlock_hold_read(struct room *r)
{
	nu_rwlock_rdlock(&r->rwlock);
}

static void rwlock_let_go(struct room *r)
{
	nu_rwlock_unlock(&r->rwlock);
}

static CHECK_PEEK uint32_t rwlock_waiting(struct room *r)
{
	return r->rwlock.readers.count + r->rwlock.writers.count;
}

static void rwlock_read(struct room *r, unsigned i)
{
	if (nu_rwlock_tryrdlock(&r->rwlock))
		r->wrong++;
	nu_rwlock_rdlock(&r->rwlock);
	r->runs++;
	while (r->runs < WAITERS) /* all of them must be let in together */
		nu_yield();
	as_reader(r);
	nu_rwlock_unlock(&r->rwlock);
}

static void rwlock_write(struct room *r, unsigned i)
{
	if (nu_rwlock_trywrlock(&r->rwlock))
		r->wrong++;
	nu_rwlock_wrlock(&r->rwlock);
	as_writer(r);
	nu_rwlock_unlock(&r->rwlock);
}

static void rwlock_mixed(struct room *r, unsigned i)
{
	for (unsigned n = 0; n < 5; n++) {
		if ((i + n) % 3) {
			nu_rwlock_rdlock(&r->rwlock);
			as_reader(r);
		} else {
			nu_rwlock_wrlock(&r->rwlock);
			as_writer(r);
		}
		nu_rwlock_unlock(&r->rwlock);
	}
}

/* ---- semaphore ---- */

static CHECK_PEEK uint32_t sem_waiting(struct room *r)
{
	return r->sem.waiters.count;
}

static void sem_wait(struct room *r, unsigned i)
{
	if (nu_sem_trywait(&r->sem))
		r->wrong++;
	nu_sem_wait(&r->sem);
}

static void sem_timed(struct room *r, unsigned i)
{
	uint64_t begin = nu_now_us();

	judge(r, nu_sem_timedwait(&r->sem, i % 2 ? SHORT_US : LONG_US), i % 2, begin);
}

static void sem_post(struct room *r)
{
	for (unsigned i = 0; i < WAITERS; i++)
		nu_sem_post(&r->sem);
	after_all(r);
	if (nu_sem_trywait(&r->sem))
		r->wrong++; /* none too many */
}

static void sem_post_late(struct room *r)
{
	after_timeouts(r);
	for (unsigned i = 0; i < WAITERS / 2; i++)
		nu_sem_post(&r->sem);
	after_all(r);
	if (nu_sem_trywait(&r->sem))
		r->wrong++;
}

/* ---- barrier ---- */

static CHECK_PEEK uint32_t barrier_waiting(struct room *r)
{
	return r->barrier.waiters.count;
}

static void barrier_wait(struct room *r, unsigned i)
{
	for (unsigned round = 1; round <= 3; round++) {
		r->runs++;
		if (nu_barrier_wait(&r->barrier))
			r->special++;
		if (r->runs < round * WAITERS)
			r->wrong++; /* let through before all had come */
		if (nu_barrier_wait(&r->barrier))
			r->special++;
	}
}

static void barrier_let_go(struct room *r)
{
	for (unsigned round = 0; round < 6; round++) {
		if (nu_barrier_wait(&r->barrier))
			r->special++;
	}
}

/* ---- once ---- */

static void once_body(void *arg)
{
	struct room *r = arg;

	r->runs++;
	nu_sem_post(&r->held);
	nu_sem_wait(&r->sem);
	r->open = true;
}

static void once_wait(struct room *r, unsigned i)
{
	nu_once(&r->once, once_body, r);
	if (!r->open)
		r->wrong++; /* came back before the function had */
}

static CHECK_PEEK uint32_t once_waiting(struct room *r)
{
	return r->once.mutex.waiters.count + 1; /* and the one inside */
}

static void once_let_go(struct room *r)
{
	nu_sem_post(&r->sem);
}

/* ---- waitgroup ---- */

static void group_hold(struct room *r)
{
	nu_waitgroup_add(&r->group, 7);
}

static CHECK_PEEK uint32_t group_waiting(struct room *r)
{
	return r->group.waiters.count;
}

static void group_wait(struct room *r, unsigned i)
{
	nu_waitgroup_wait(&r->group);
	if (r->runs != 7)
		r->wrong++;
}

static void group_let_go(struct room *r)
{
	for (unsigned i = 0; i < 7; i++) {
		r->runs++;
		nu_waitgroup_done(&r->group);
	}
}

/* ---- join ---- */

struct joined {
	struct room *room;
	bool ended;
};

static void joined_body(void *arg)
{
	struct joined *j = arg;

	nu_sem_wait(&j->room->sem);
	j->room->runs++;
	j->ended = true;
}

static void join_wait(struct room *r, unsigned i)
{
	struct joined j = {r, false};
	struct nu_thread *t;

	if (nu_thread_spawn(joined_body, &j, &t) || nu_thread_join(t) || !j.ended)
		r->wrong++;
}

static CHECK_PEEK uint32_t join_waiting(struct room *r)
{
	return r->sem.waiters.count;
}

static void join_let_go(struct room *r)
{
	for (unsigned i = 0; i < WAITERS; i++)
		nu_sem_post(&r->sem);
}

/* ---- spin lock ---- */

static void spin_hold(struct room *r)
{
	nu_spin_lock(&r->spin);
}

static void spin_let_go(struct room *r)
{
	nu_spin_unlock(&r->spin);
}

static CHECK_PEEK uint32_t spin_waiting(struct room *r)
{
	return r->entered; /* they spin and yield: there is no list */
}

static void spin_wait(struct room *r, unsigned i)
{
	if (nu_spin_trylock(&r->spin))
		r->wrong++;
	for (unsigned n = 0; n < 5; n++) {
		nu_spin_lock(&r->spin);
		as_writer(r);
		nu_spin_unlock(&r->spin);
	}
}

/* ---- all of them ---- */

static const struct kind kinds[] = {
	{"mutex", mutex_hold, mutex_let_go, mutex_wait, mutex_waiting},
	{"timed mutex", mutex_hold, mutex_let_go_late, mutex_timed, mutex_waiting},
	{"condition, broadcast", nothing, cond_broadcast, cond_wait, cond_waiting},
	{"condition, signals", nothing, cond_signal, cond_wait_permit, cond_waiting},
	{"timed condition", nothing, cond_broadcast_late, cond_timed, cond_waiting},
	{"readers", rwlock_hold, rwlock_let_go, rwlock_read, rwlock_waiting},
	{"writers", rwlock_hold_read, rwlock_let_go, rwlock_write, rwlock_waiting},
	{"readers and writers", rwlock_hold, rwlock_let_go, rwlock_mixed, rwlock_waiting},
	{"semaphore", nothing, sem_post, sem_wait, sem_waiting},
	{"timed semaphore", nothing, sem_post_late, sem_timed, sem_waiting},
	{"barrier", nothing, barrier_let_go, barrier_wait, barrier_waiting},
	{"once", nothing, once_let_go, once_wait, once_waiting},
	{"waitgroup", group_hold, group_let_go, group_wait, group_waiting},
	{"join", nothing, join_let_go, join_wait, join_waiting},
	{"spin lock", spin_hold, spin_let_go, spin_wait, spin_waiting},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))
enum { TIMED_MUTEX = 1, TIMED_COND = 4, READERS = 5, TIMED_SEM = 9, BARRIER = 10, ONCE = 11, JOIN = 13 };

static bool is_timed(unsigned kind)
{
	return kind == TIMED_MUTEX || kind == TIMED_COND || kind == TIMED_SEM;
}

struct waiter {
	struct room *room;
	unsigned i;
};

static void waiter_body(void *arg)
{
	struct waiter *w = arg;
	struct room *r = w->room;

	r->entered++;
	r->kind->wait(r, w->i);
	r->came_out++;
	free(w);
	nu_waitgroup_done(&r->out);
}

/* The same thread takes and gives back. */
static void keeper_body(void *arg)
{
	struct room *r = arg;

	r->kind->hold(r);
	nu_sem_post(&r->held);
	nu_sem_wait(&r->go);
	r->kind->let_go(r);
	nu_waitgroup_done(&r->out);
}

int room_do_begin(struct room *r, unsigned kind)
{
	int ret;

	r->kind = &kinds[kind];
	nu_waitgroup_add(&r->out, 1);
	ret = nu_thread_spawn(keeper_body, r, NULL);
	if (ret)
		return ret;
	nu_sem_wait(&r->held);
	for (unsigned i = 0; i < WAITERS; i++) {
		struct waiter *w = malloc(sizeof(*w));

		if (!w)
			return -ENOMEM;
		*w = (struct waiter){r, i};
		nu_waitgroup_add(&r->out, 1);
		ret = nu_thread_spawn(waiter_body, w, NULL);
		if (ret)
			return ret;
	}
	/* Until all wait; those with a short time-out may have given up meanwhile. */
	for (unsigned look = 0; r->kind->waiting(r) + r->timed_out < WAITERS; look++) {
		if (look == LOOK_MAX)
			return -ETIME;
		nu_yield();
	}
	return 0;
}

struct tally room_do_end(struct room *r)
{
	nu_sem_post(&r->go);
	nu_waitgroup_wait(&r->out);
	return (struct tally){
		.came_out = r->came_out,
		.wrong = r->wrong,
		.early = r->early,
		.late = r->late,
		.timed_out = r->timed_out,
		.most_readers = r->most_readers,
		.special = r->special,
		.runs = r->runs,
	};
}

static void check_tally(unsigned kind, const struct tally *t)
{
	CHECK_MSG(t->came_out == WAITERS, "%lu of %u came out", (unsigned long)t->came_out, WAITERS);
	CHECK_MSG(!t->wrong, "%lu wrongs", (unsigned long)t->wrong);
	CHECK_MSG(!t->early, "%lu time-outs came early", (unsigned long)t->early);
	CHECK_MSG(!t->late, "%lu time-outs came late", (unsigned long)t->late);
	CHECK_IS(t->timed_out, is_timed(kind) ? WAITERS / 2 : 0);
	if (kind == READERS)
		CHECK_MSG(t->most_readers > 1, "readers never shared");
	if (kind == BARRIER)
		CHECK_IS(t->special, 6);
	if (kind == ONCE)
		CHECK_IS(t->runs, 1);
	if (kind == JOIN)
		CHECK_IS(t->runs, WAITERS);
}

static unsigned kind_now;

static void over_moves(void)
{
	NU_SCOPED(room, r);
	NU_SCOPED_FUTURE(room, end, f);
	struct tally t = {0};
	int ret = -1, made = room_create(&(struct nu_options){.capacity_bytes = 16 << 20}, &r);

	CHECK_IS(made, 0);
	if (made)
		return;
	CHECK_IS(room_begin(r, kind_now, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(check_shuttle(r.ref, nu_node_count() > 1 ? MOVES : 0), 0);
	CHECK_IS(room_end_async(r, &f), 0);
	CHECK_IS(check_shuttle(r.ref, nu_node_count() > 1 ? MOVES : 0), 0);
	ret = room_end_wait(&f, &t);
	CHECK_IS(ret, 0);
	if (!ret)
		check_tally(kind_now, &t);
	room_ref_put(&r);
	check_left(0);
}

static int sync_main(int argc, char **argv)
{
	for (kind_now = 0; kind_now < KINDS; kind_now++) {
		if (argc < 2 || !strcmp(argv[1], kinds[kind_now].name))
			check_run(kinds[kind_now].name, over_moves);
	}
	return check_done();
}
CHECK_PROGRAM(sync_main)
