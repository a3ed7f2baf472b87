/* SPDX-License-Identifier: MIT */
/*
 * Tens of thousands of proclets: made, called, moved, looked at and freed, twice over, and then nothing of them is left.
 *
 * usage: many PER_NODE [CAPACITY_MIB [ROUNDS_MORE [MOVE_ONE_IN]]]
 */
#include "tests/scale/scale.h"

#define WORKERS	   16
#define NOTE_SIZE  100	       /* what a call allocates */
#define MEMORY_MAX (96u << 10) /* bytes of a node's memory for a proclet */

/* ---- what there are so many of ---- */

struct cell {
	uint64_t number;
	uint64_t *note;
};
NU_CLASS(cell);
NU_METHOD(cell, fill, val(int), val(uint64_t, number));
NU_METHOD(cell, sum, val(uint64_t));

int cell_init(struct cell *c)
{
	return 0;
}

int cell_do_fill(struct cell *c, uint64_t number)
{
	c->number = number;
	c->note = malloc(NOTE_SIZE * sizeof(*c->note));
	if (!c->note)
		return -ENOMEM;
	for (unsigned i = 0; i < NOTE_SIZE; i++)
		c->note[i] = number + i;
	return 0;
}

uint64_t cell_do_sum(struct cell *c)
{
	uint64_t sum = 0;

	for (unsigned i = 0; c->note && i < NOTE_SIZE; i++)
		sum += c->note[i] - c->number;
	return sum;
}

/* ---- the same thing done to each of them, by several threads ---- */

static struct cell_ref *cells;
static unsigned ncells;
static size_t capacity;
static unsigned move_one_in = 1;
static _Atomic unsigned next, failed;
static struct nu_waitgroup busy;

static unsigned home_of(unsigned i)
{
	return i % nu_node_count();
}

static int make(unsigned i)
{
	return cell_create(&(struct nu_options){.capacity_bytes = capacity, .node = NU_NODE(home_of(i))},
			   &cells[i]);
}

static int fill(unsigned i)
{
	int status = 0, ret = cell_fill(cells[i], i, &status);

	return ret ? ret : status;
}

static unsigned goal_of(unsigned i)
{
	return i / nu_node_count() % move_one_in ? home_of(i) : (home_of(i) + 1) % nu_node_count();
}

static int move(unsigned i)
{
	return goal_of(i) == home_of(i) ? 0 : check_move(cells[i].ref, goal_of(i));
}

static int look(unsigned i)
{
	uint64_t sum = 0;
	int ret = cell_sum(cells[i], &sum), at = nu_locate(cells[i].ref);

	if (ret)
		return ret;
	return sum == NOTE_SIZE * (NOTE_SIZE - 1) / 2 && at == (int)goal_of(i) ? 0 : -EIO;
}

static int drop(unsigned i)
{
	return cell_ref_put(&cells[i]);
}

static int (*step)(unsigned i);

static void worker_body(void *arg)
{
	unsigned i;

	while ((i = next++) < ncells) {
		int ret = step(i);

		if (ret && !failed++)
			printf("%u: %s\n", i, nu_strerror(ret));
	}
	nu_waitgroup_done(&busy);
}

static void each(const char *what, int (*fn)(unsigned i))
{
	uint64_t begin = nu_now_us();

	step = fn;
	next = failed = 0;
	nu_waitgroup_add(&busy, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		CHECK_IS(nu_thread_spawn(worker_body, NULL, NULL), 0);
	nu_waitgroup_wait(&busy);
	CHECK_MSG(!failed, "%s: %u of %u failed", what, failed, ncells);
	printf("%-9s %9.0f/s\n", what,
	       (fn == move ? ncells / move_one_in : ncells) * 1e6 / (double)(nu_now_us() - begin + 1));
	fflush(stdout);
}

static void round_of_all(void)
{
	each("made", make);
	each("called", fill);
	scale_look();
	scale_print("at most");
	for (unsigned n = 0; n < nu_node_count(); n++) {
		const struct scale_figures *f = &scale_now[n], *s = &scale_start[n];
		uint64_t bytes = f->rss_bytes + f->tables_bytes - s->rss_bytes - s->tables_bytes;

		printf("node %u: %lu bytes a proclet\n", n, bytes / (ncells / nu_node_count()));
		CHECK_MSG(bytes < MEMORY_MAX * (ncells / nu_node_count()), "more than %u bytes a proclet",
			  MEMORY_MAX);
	}
	if (nu_node_count() > 1)
		each("moved", move);
	each("looked at", look);
	each("freed", drop);
	scale_nothing_left();
}

static void first_round(void)
{
	round_of_all();
}

static void second_round(void)
{
	round_of_all();
}

static int many_main(int argc, char **argv)
{
	ncells = (argc > 1 ? (unsigned)atoi(argv[1]) : 1024) * nu_node_count();
	capacity = (argc > 2 ? (size_t)atoi(argv[2]) : 1) << 20;
	if (argc > 4 && atoi(argv[4]) > 0)
		move_one_in = (unsigned)atoi(argv[4]);
	cells = calloc(ncells, sizeof(*cells));
	if (!cells || scale_begin())
		return 1;
	CHECK_RUN(first_round);
	for (int i = 0; i < (argc > 3 ? atoi(argv[3]) : 1); i++)
		CHECK_RUN(second_round);
	scale_end();
	free(cells);
	return check_done();
}
CHECK_PROGRAM(many_main)
