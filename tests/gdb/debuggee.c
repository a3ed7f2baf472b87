/* SPDX-License-Identifier: MIT */
/* What tests/gdb/check.py looks at: threads in every state, each in a function with a name of its own. */
#include <nu/nu.h>

#include <stdio.h>

struct room {
	struct nu_sem gate;
	struct nu_mutex mutex;
	_Atomic unsigned inside;
	volatile _Atomic bool stop;
	unsigned long secret;
};
NU_CLASS(room);
NU_METHOD(room, wait, val(int));
NU_METHOD(room, wait_in, val(int), ref(room, other));
NU_METHOD(room, compute, val(int));
NU_METHOD(room, inside, val(int));
NU_METHOD(room, open, none, val(int, n));

int room_init(struct room *r)
{
	return 0;
}

static __attribute__((noinline)) int waiting_hall(struct room *r, unsigned long secret)
{
	r->secret = secret;
	r->inside++;
	nu_sem_wait(&r->gate);
	return (int)r->secret;
}

int room_do_wait(struct room *r)
{
	return waiting_hall(r, 4711);
}

int room_do_wait_in(struct room *r, struct room_ref other)
{
	int ret = 0;

	r->inside++;
	if (room_wait(other, &ret))
		return -1;
	return ret;
}

static __attribute__((noinline)) int counting_house(struct room *r)
{
	unsigned long n = 0;

	r->inside++;
	while (!r->stop)
		n += n / 3 + 1;
	return (int)(n & 1);
}

int room_do_compute(struct room *r)
{
	return counting_house(r);
}

int room_do_inside(struct room *r)
{
	return (int)r->inside;
}

void room_do_open(struct room *r, int n)
{
	r->stop = true;
	while (n--)
		nu_sem_post(&r->gate);
}

static struct room_ref lobby, salon, mill;

static void caller_of_wait(void *arg)
{
	int ret = 0;

	if (room_wait(lobby, &ret))
		perror("wait");
}

static void caller_of_wait_in(void *arg)
{
	int ret = 0;

	if (room_wait_in(salon, lobby, &ret))
		perror("wait_in");
}

static void caller_of_compute(void *arg)
{
	int ret = 0;

	if (room_compute(mill, &ret))
		perror("compute");
}

static void sleeper(void *arg)
{
	nu_sleep_us(600ull * 1000 * 1000);
}

static void wait_inside(struct room_ref r, int want)
{
	int n = 0;

	while (n < want) {
		nu_sleep_us(100);
		if (room_inside(r, &n))
			return;
	}
}

/* Where the debugger stops. */
__attribute__((noinline)) void all_are_in(void)
{
	__asm__ volatile("" ::: "memory");
}

static int debuggee_main(int argc, char **argv)
{
	static const nu_thread_fn bodies[] = {caller_of_wait, caller_of_wait_in, caller_of_compute, sleeper};
	struct nu_thread *callers[3];

	if (room_create(NULL, &lobby) || room_create(NULL, &salon) || room_create(NULL, &mill))
		return 1;
	for (unsigned i = 0; i < 4; i++)
		if (nu_thread_spawn(bodies[i], NULL, i < 3 ? &callers[i] : NULL))
			return 1;
	wait_inside(lobby, 2);
	wait_inside(salon, 1);
	wait_inside(mill, 1);
	all_are_in();
	if (room_open(lobby, 2) || room_open(mill, 0))
		return 1;
	for (unsigned i = 0; i < 3; i++)
		if (nu_thread_join(callers[i]))
			return 1;
	printf("the debuggee ran to its end\n");
	return 0;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, debuggee_main, &(const struct nu_run_options){.writable_globals = true});
}
