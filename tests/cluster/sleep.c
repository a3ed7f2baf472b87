/* SPDX-License-Identifier: MIT */
/* Time over moves: sleepers keep their deadlines, and the clock that a proclet sees never runs backwards. */
#include "check.h"

#define SLEEPERS 100
#define NAPS	 10
#define LATE_US	 1500000u /* other programs may have the processors */
#define MOVES	 30

struct dormitory {
	struct nu_waitgroup out;
	_Atomic uint64_t woke, early, late, backwards, looks, latest_us;
	_Atomic bool stop;
};

NU_STRUCT(tally, val(uint64_t, woke), val(uint64_t, early), val(uint64_t, late), val(uint64_t, backwards),
	  val(uint64_t, looks), val(uint64_t, latest_us));
NU_CLASS(dormitory);
NU_METHOD(dormitory, nap, val(int));
NU_METHOD(dormitory, watch, val(int));
NU_METHOD(dormitory, finish, obj(tally), val(bool, watching));
NU_METHOD(dormitory, nap_here, val(uint64_t), val(uint64_t, us), val(bool, until));

int dormitory_init(struct dormitory *d)
{
	return 0;
}

struct sleeper {
	struct dormitory *d;
	unsigned i;
};

static void judge(struct dormitory *d, uint64_t when)
{
	uint64_t now = nu_now_us();

	d->woke++;
	if (now < when)
		d->early++;
	else if (now > when + LATE_US)
		d->late++;
	if (now > when && now - when > d->latest_us)
		d->latest_us = now - when;
}

static void sleeper_body(void *arg)
{
	struct sleeper *s = arg;

	for (unsigned n = 0; n < NAPS; n++) {
		uint64_t us = 1000u + 997u * ((s->i * 7 + n * 13) % 50), when = nu_now_us() + us;

		if ((s->i + n) % 2)
			nu_sleep_us(us);
		else
			nu_sleep_until_us(when);
		judge(s->d, when);
	}
	nu_waitgroup_done(&s->d->out);
	free(s);
}

int dormitory_do_nap(struct dormitory *d)
{
	for (unsigned i = 0; i < SLEEPERS; i++) {
		struct sleeper *s = malloc(sizeof(*s));
		int ret = s ? 0 : -ENOMEM;

		if (ret)
			return ret;
		*s = (struct sleeper){d, i};
		nu_waitgroup_add(&d->out, 1);
		ret = nu_thread_spawn(sleeper_body, s, NULL);
		if (ret)
			return ret;
	}
	return 0;
}

/* Looks at the clock as often as it can; what it saw last is in a register when it moves. */
static void watcher_body(void *arg)
{
	struct dormitory *d = arg;
	uint64_t last = nu_now_ns();

	while (!d->stop) {
		for (unsigned i = 0; i < 1000; i++) {
			uint64_t now = nu_now_ns();

			if (now < last)
				d->backwards++;
			last = now;
		}
		d->looks++;
		nu_yield();
	}
	nu_waitgroup_done(&d->out);
}

int dormitory_do_watch(struct dormitory *d)
{
	nu_waitgroup_add(&d->out, 1);
	return nu_thread_spawn(watcher_body, d, NULL);
}

struct tally dormitory_do_finish(struct dormitory *d, bool watching)
{
	while (watching && !d->looks)
		nu_yield();
	d->stop = true;
	nu_waitgroup_wait(&d->out);
	return (struct tally){.woke = d->woke,
			      .early = d->early,
			      .late = d->late,
			      .backwards = d->backwards,
			      .looks = d->looks,
			      .latest_us = d->latest_us};
}

uint64_t dormitory_do_nap_here(struct dormitory *d, uint64_t us, bool until)
{
	uint64_t begin = nu_now_us();

	if (until)
		nu_sleep_until_us(begin + us);
	else
		nu_sleep_us(us);
	return nu_now_us() - begin;
}

static void deadlines_kept(void)
{
	NU_SCOPED(dormitory, d);
	struct tally t = {0};
	int ret = dormitory_create(NULL, &d), inner = -1;

	CHECK_IS(ret, 0);
	if (ret)
		return;
	CHECK_IS(dormitory_nap(d, &inner), 0);
	CHECK_IS(inner, 0);
	CHECK_IS(check_shuttle(d.ref, MOVES), 0);
	CHECK_IS(dormitory_finish(d, false, &t), 0);
	CHECK_IS(t.woke, SLEEPERS * NAPS);
	CHECK_IS(t.early, 0);
	CHECK_MSG(!t.late, "%lu were late, the latest by %lu us", (unsigned long)t.late,
		  (unsigned long)t.latest_us);
}

static void clock_forwards(void)
{
	NU_SCOPED(dormitory, d);
	struct tally t = {0};
	int ret = dormitory_create(NULL, &d), inner = -1;

	CHECK_IS(ret, 0);
	if (ret)
		return;
	CHECK_IS(dormitory_watch(d, &inner), 0);
	CHECK_IS(inner, 0);
	CHECK_IS(check_shuttle(d.ref, 10 * MOVES), 0);
	CHECK_IS(dormitory_finish(d, true, &t), 0);
	CHECK(t.looks);
	CHECK_IS(t.backwards, 0);
}

/* Longer than any move: woken at the destination. Past and zero deadlines return. */
static void one_long_sleep(void)
{
	NU_SCOPED(dormitory, d);
	int ret = dormitory_create(NULL, &d);

	CHECK_IS(ret, 0);
	for (unsigned until = 0; until < 2 && !ret; until++) {
		NU_SCOPED_FUTURE(dormitory, nap_here, f);
		uint64_t took = 0;

		CHECK_IS(dormitory_nap_here_async(d, 150000, until, &f), 0);
		CHECK_IS(check_shuttle(d.ref, 5), 0);
		CHECK_IS(dormitory_nap_here_wait(&f, &took), 0);
		CHECK_MSG(took >= 150000 && took < 150000 + LATE_US, "slept %lu us", (unsigned long)took);
		CHECK_IS(dormitory_nap_here(d, 0, until, &took), 0);
		CHECK_MSG(took < LATE_US, "slept %lu us", (unsigned long)took);
	}
	nu_sleep_until_us(0);
	nu_sleep_until_us(nu_now_us() - 1);
}

static int sleep_main(int argc, char **argv)
{
	CHECK_RUN(deadlines_kept);
	CHECK_RUN(clock_forwards);
	CHECK_RUN(one_long_sleep);
	return check_done();
}
CHECK_PROGRAM(sleep_main)
