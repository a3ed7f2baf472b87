/* SPDX-License-Identifier: MIT */
/* Does on node 1 what a sanitizer must not let pass, in a proclet's method: the argument says which. */
#include <nu/nu.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdatomic.h>
#include <string.h>

#define TOGETHER_US_MAX 20000000u

struct sinner {
	struct nu_waitgroup out;
	volatile long racy;
	_Atomic unsigned begun;
};

NU_CLASS(sinner);
NU_METHOD(sinner, leak, none);
NU_METHOD(sinner, race, none);
NU_METHOD(sinner, overflow, val(int), val(int, n));
NU_METHOD(sinner, overrun, val(int), val(int, i));

int sinner_init(struct sinner *s)
{
	return 0;
}

/* The C library's memory: a heap of a proclet may end with what it holds. */
void sinner_do_leak(struct sinner *s)
{
	char *volatile path = realpath("/usr/bin", NULL);

	if (path)
		path = NULL;
}

static void race_body(void *arg)
{
	struct sinner *s = arg;
	uint64_t end = nu_now_us() + TOGETHER_US_MAX;

	/* On two cores: threads that take turns on one are in order. */
	atomic_fetch_add_explicit(&s->begun, 1, memory_order_relaxed);
	while (atomic_load_explicit(&s->begun, memory_order_relaxed) < 2 && nu_now_us() < end)
		;
	for (int i = 0; i < 20000; i++)
		s->racy++;
	nu_waitgroup_done(&s->out);
}

void sinner_do_race(struct sinner *s)
{
	nu_waitgroup_add(&s->out, 4);
	for (int i = 0; i < 4; i++)
		if (nu_thread_spawn(race_body, s, NULL))
			nu_waitgroup_done(&s->out);
	nu_waitgroup_wait(&s->out);
}

int sinner_do_overflow(struct sinner *s, int n)
{
	return n + INT_MAX;
}

int sinner_do_overrun(struct sinner *s, int i)
{
	char buf[16];

	memset(buf, 1, (size_t)i);
	return buf[0];
}

static int seeded_main(int argc, char **argv)
{
	struct nu_options o = {.node = NU_NODE(1)};
	const char *which = argc > 1 ? argv[1] : "";
	NU_SCOPED(sinner, s);
	int ret = sinner_create(&o, &s), got;

	if (ret)
		return 2;
	if (!strcmp(which, "leak"))
		ret = sinner_leak(s);
	else if (!strcmp(which, "race"))
		ret = sinner_race(s);
	else if (!strcmp(which, "overflow"))
		ret = sinner_overflow(s, 1, &got);
	else
		ret = sinner_overrun(s, 20, &got);
	printf("%s: %s\n", which, nu_strerror(ret));
	return 0;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, seeded_main, &(const struct nu_run_options){.writable_globals = true});
}
