/* SPDX-License-Identifier: MIT */
/*
 * Methods that are in the C library for long, on nodes of one core: what else lives there goes on, and what can be moved is
 * moved. The last node is the one that they are on.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#define TEXT_BYTES (8u << 20)
#define CALL_US_MAX                                                                                          \
	1500000u /* of a call beside them: before, as long as they ran, 2 s and more; as a rule some milliseconds */
#define COPY_BYTES (4u << 20)

enum how { STRLEN, COPY, MATH, PRINT, SORT, HOWS };
static const char *const how_names[] = {"strlen", "memcpy", "libm", "snprintf", "qsort"};

struct busy {
	char *text, *copy;
	int *numbers;
	int how;
	_Atomic int stop, running;
	_Atomic long rounds, bad;
};
NU_CLASS(busy);
NU_METHOD(busy, go, val(int), val(int, how), val(int, threads));
NU_METHOD(busy, ping, val(int));
NU_METHOD(busy, stop, val(long));

int busy_init(struct busy *b)
{
	b->text = malloc(TEXT_BYTES);
	b->copy = malloc(COPY_BYTES);
	b->numbers = malloc(COPY_BYTES);
	if (!b->text || !b->copy || !b->numbers)
		return -ENOMEM;
	memset(b->text, 'a', TEXT_BYTES);
	b->text[TEXT_BYTES - 1] = 0;
	return 0;
}

static int numbers_compare(const void *x, const void *y)
{
	int a = *(const int *)x, b = *(const int *)y;

	return a < b ? -1 : a > b;
}

static void busy_sort(struct busy *b, int *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		v[i] = (int)(i * 2654435761u);
	qsort(v, n, sizeof(*v), numbers_compare);
	for (unsigned i = 1; i < n; i++)
		b->bad += v[i - 1] > v[i];
}

static void busy_thread(void *arg)
{
	struct busy *b = arg;
	int part = b->running++; /* of the memory that each thread has for itself */
	size_t half = COPY_BYTES / 2;
	char line[64];
	double x;

	while (!b->stop) {
		switch (b->how) {
		case STRLEN:
			b->bad += strlen(b->text) != TEXT_BYTES - 1;
			break;
		case COPY:
			memcpy(b->copy + (part % 2) * half, b->text, half);
			b->bad += b->copy[(part % 2) * half + (size_t)b->rounds % half] != 'a';
			break;
		case MATH:
			x = (double)(b->rounds % 7);
			b->bad += fabs(pow(1.5, x) - exp(x * log(1.5))) > 1e-9;
			break;
		case PRINT:
			b->bad += snprintf(line, sizeof(line), "%d %.3f", part, 3.25) < 7;
			break;
		default:
			busy_sort(b, b->numbers + (size_t)(part % 2) * (half / sizeof(int)), 100000);
		}
		b->rounds++;
	}
	b->running--;
}

int busy_do_go(struct busy *b, int how, int threads)
{
	int err = 0;

	b->how = how;
	for (int i = 0; i < threads && !err; i++)
		err = nu_thread_spawn(busy_thread, b, NULL);
	return err;
}

int busy_do_ping(struct busy *b)
{
	return b->running;
}

long busy_do_stop(struct busy *b)
{
	b->stop = 1;
	while (b->running)
		nu_sleep_us(1000);
	return b->bad ? -b->bad : b->rounds;
}

#define TRIES 20

/*
 * A pause gives up after 20 ms, which a busy machine may not give the thread in that it is caught in. Of a thread that is not
 * caught hardly one in fifty tries would find it in the program's code.
 */
static int move(struct nu_ref ref, unsigned node)
{
	int ret = -ETIMEDOUT;

	for (unsigned i = 0; i < TRIES && ret == -ETIMEDOUT; i++)
		ret = nu_migrate(ref, node);
	return ret;
}

/* Other proclets of the node answer, and this one, too; and it moves away and back. */
static void beside(enum how how)
{
	unsigned last = nu_node_count() - 1;
	struct nu_options there = {.node = NU_NODE(last), .capacity_bytes = 64 << 20};
	uint64_t longest = 0;
	long rounds = 0;
	int val = 0;

	NU_SCOPED(busy, p);
	NU_SCOPED(busy, q);
	CHECK_IS(busy_create(&there, &p), 0);
	CHECK_IS(busy_create(&there, &q), 0);
	CHECK_IS(busy_go(p, how, 2, &val), 0);
	CHECK_IS(val, 0);
	for (int i = 0; i < 20; i++) {
		uint64_t begin = nu_now_us();

		CHECK_IS(busy_ping(i % 2 ? p : q, &val), 0);
		longest = nu_now_us() - begin > longest ? nu_now_us() - begin : longest;
	}
	CHECK_MSG(longest < CALL_US_MAX, "%s: a call took %lu us", how_names[how], (unsigned long)longest);
	for (unsigned i = 0; i < 6 && last; i++)
		CHECK_IS(move(p.ref, i % 2 ? last : last - 1), 0);
	CHECK_IS(busy_stop(p, &rounds), 0);
	CHECK_MSG(rounds > 0, "%s: %ld rounds", how_names[how], rounds);
}

static void beside_all(void)
{
	for (enum how how = 0; how < HOWS; how++)
		beside(how);
}

/* ---- a thread that waits in a system call ---- */

struct waiter {
	int fds[2];
};
NU_CLASS(waiter);
NU_METHOD(waiter, wait, val(int));
NU_METHOD(waiter, wake, val(int));

int waiter_init(struct waiter *w)
{
	return pipe(w->fds) ? -errno : 0;
}

int waiter_do_wait(struct waiter *w)
{
	char b = 0;

	return read(w->fds[0], &b, 1) == 1 ? b : -errno;
}

int waiter_do_wake(struct waiter *w)
{
	return write(w->fds[1], "w", 1) == 1 ? 0 : -errno;
}

static void waits_in_read(void)
{
	unsigned last = nu_node_count() - 1;
	struct nu_options there = {.node = NU_NODE(last)};
	int val = -1;

	NU_SCOPED(waiter, w);
	NU_SCOPED_FUTURE(waiter, wait, f);
	CHECK_IS(waiter_create(&there, &w), 0);
	CHECK_IS(waiter_wait_async(w, &f), 0);
	nu_sleep_us(20000);
	if (last)
		CHECK_IS(nu_migrate(w.ref, 0), -ETIMEDOUT); /* and not later, nor never */
	CHECK_IS(waiter_wake(w, &val), 0);
	CHECK_IS(val, 0);
	CHECK_IS(waiter_wait_wait(&f, &val), 0);
	CHECK_IS(val, 'w');
	if (last)
		CHECK_IS(move(w.ref, 0), 0);
}

/* ---- loops of short calls of the runtime ---- */

struct cell {
	uint64_t n;
};
NU_CLASS(cell);
NU_METHOD(cell, watch_clock, none, val(uint64_t, us));
NU_METHOD(cell, allocate, none, val(uint64_t, us));

int cell_init(struct cell *self)
{
	return 0;
}

void cell_do_watch_clock(struct cell *self, uint64_t us)
{
	uint64_t end = nu_now_us() + us;

	while (nu_now_us() < end)
		self->n++;
}

void cell_do_allocate(struct cell *self, uint64_t us)
{
	uint64_t end = nu_now_us() + us;

	for (unsigned i = 0; i % 1000 || nu_now_us() < end; i++)
		free(malloc(i % 500));
}

static void loops_move(void)
{
	unsigned last = nu_node_count() - 1;
	struct nu_options there = {.node = NU_NODE(last)};

	for (int i = 0; i < 4; i++) {
		NU_SCOPED(cell, p);
		NU_SCOPED_FUTURE(cell, watch_clock, f);
		NU_SCOPED_FUTURE(cell, allocate, g);

		CHECK_IS(cell_create(&there, &p), 0);
		CHECK_IS(i % 2 ? cell_watch_clock_async(p, 100000, &f) : cell_allocate_async(p, 100000, &g),
			 0);
		nu_sleep_us(10000);
		if (last)
			CHECK_IS(move(p.ref, 0), 0);
		CHECK_IS(i % 2 ? cell_watch_clock_wait(&f) : cell_allocate_wait(&g), 0);
	}
}

static int foreign_main(int argc, char **argv)
{
	CHECK_RUN(beside_all);
	CHECK_RUN(waits_in_read);
	CHECK_RUN(loops_move);
	return check_done();
}
CHECK_PROGRAM(foreign_main)
