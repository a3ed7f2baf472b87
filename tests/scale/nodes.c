/* SPDX-License-Identifier: MIT */
/* Many nodes on few cores: each calls each, a proclet goes round all of them, and when nothing is asked nothing is done. */
#include "tests/cluster/check.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define SCALE_NODES_MAX 256

#define IDLE_US	    (2u * 1000 * 1000)
#define IDLE_MAX_US 20000u /* a node's CPU time while it idles */

/* ---- one on each node ---- */

NU_VEC(ids, uint64_t);
NU_STRUCT(load, val(uint64_t, cpu_us), val(uint64_t, pss_bytes));

struct peer {
	uint64_t called;
};
NU_CLASS(peer);
NU_METHOD(peer, hello, val(uint64_t), val(uint64_t, from));
NU_METHOD(peer, greet_all, val(int), vec(ids, ids));
NU_METHOD(peer, count, val(uint64_t));
NU_METHOD(peer, figures, obj(load));

int peer_init(struct peer *p)
{
	return 0;
}

uint64_t peer_do_hello(struct peer *p, uint64_t from)
{
	return __atomic_add_fetch(&p->called, 1, __ATOMIC_RELAXED) ? from + nu_node_self() : 0;
}

uint64_t peer_do_count(struct peer *p)
{
	return p->called;
}

int peer_do_greet_all(struct peer *p, struct ids ids)
{
	for (size_t i = 0; i < ids.count; i++) {
		struct peer_ref to = {{ids.items[i]}};
		uint64_t sum = 0;
		int ret = peer_hello(to, 1000, &sum);

		if (ret)
			return ret;
		if (sum != 1000 + i)
			return -EIO;
	}
	return 0;
}

/* This process's proportional set size: memory that nodes share counts once over all of them. */
static uint64_t own_pss_bytes(void)
{
	int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
	char buf[2048], *at;
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	if (fd >= 0)
		close(fd);
	buf[n < 0 ? 0 : n] = '\0';
	at = strstr(buf, "Pss:");
	return at ? strtoul(at + 4, NULL, 10) << 10 : 0;
}

struct load peer_do_figures(struct peer *p)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (struct load){
		.cpu_us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
			  (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec),
		.pss_bytes = own_pss_bytes(),
	};
}

static struct peer_ref peers[SCALE_NODES_MAX];
static uint64_t numbers[SCALE_NODES_MAX];
static unsigned count;

static uint64_t pss_of_all(uint64_t *cpu_us)
{
	uint64_t pss = 0;

	for (unsigned n = 0; n < count; n++) {
		struct load f = {0};

		CHECK_IS(peer_figures(peers[n], &f), 0);
		cpu_us[n] = f.cpu_us;
		pss += f.pss_bytes;
	}
	return pss;
}

static void each_to_each(void)
{
	uint64_t cpu[SCALE_NODES_MAX], before = pss_of_all(cpu), after, begin = nu_now_us();

	for (unsigned n = 0; n < count; n++) {
		int status = 1;

		CHECK_IS(peer_greet_all(peers[n], (struct ids){numbers, count}, &status), 0);
		CHECK_IS(status, 0);
	}
	printf("each to each: %.1f ms\n", (double)(nu_now_us() - begin) / 1e3);
	for (unsigned n = 0; n < count; n++) {
		uint64_t called = 0;

		CHECK_IS(peer_count(peers[n], &called), 0);
		CHECK_IS(called, count);
	}
	after = pss_of_all(cpu);
	printf("%lu KiB a node before, %lu after: %ld KiB a connection's end\n", (before >> 10) / count,
	       (after >> 10) / count,
	       ((long)after - (long)before) / 1024 / (long)count / (long)(count > 1 ? count - 1 : 1));
}

static void round_trip(void)
{
	struct peer_ref one = {{0}};
	uint64_t sum, called = 0, begin = nu_now_us();

	CHECK_IS(peer_create(&(struct nu_options){.capacity_bytes = 1 << 20, .node = NU_NODE(0)}, &one), 0);
	for (unsigned n = 1; n <= count; n++) {
		CHECK_IS(check_move(one.ref, n % count), 0);
		CHECK_IS(peer_hello(one, 5, &sum), 0);
		CHECK_IS(sum, 5 + n % count);
	}
	CHECK_IS(peer_count(one, &called), 0);
	CHECK_IS(called, count);
	CHECK_IS(peer_ref_put(&one), 0);
	printf("round all nodes: %.1f ms\n", (double)(nu_now_us() - begin) / 1e3);
	check_left((long)count);
}

/* Asking costs something itself, so a node's figure is what it used from its answer before to its answer after. */
static void idle(void)
{
	uint64_t before[SCALE_NODES_MAX], after[SCALE_NODES_MAX], sum = 0, most = 0;

	(void)pss_of_all(before);
	nu_sleep_us(IDLE_US);
	(void)pss_of_all(after);
	for (unsigned n = 0; n < count; n++) {
		uint64_t used = after[n] - before[n];

		sum += used;
		most = used > most ? used : most;
	}
	printf("idle for 2 s: %lu us of CPU in all, %lu at most\n", sum, most);
	CHECK_MSG(sum < (uint64_t)count * IDLE_MAX_US, "%lu us a node", sum / count);
}

static int nodes_main(int argc, char **argv)
{
	check_name = "begin";
	count = nu_node_count();
	for (unsigned n = 0; n < count; n++) {
		int ret = peer_create(&(struct nu_options){.capacity_bytes = 1 << 20,
							   .pinned = true,
							   .node = NU_NODE(n)},
				      &peers[n]);

		if (ret) {
			printf("node %u: %s\n", n, nu_strerror(ret));
			return 1;
		}
		numbers[n] = peers[n].ref.id;
	}
	CHECK_RUN(each_to_each);
	CHECK_RUN(round_trip);
	CHECK_RUN(idle);
	for (unsigned n = 0; n < count; n++)
		(void)peer_ref_put(&peers[n]);
	return check_done();
}
CHECK_PROGRAM(nodes_main)
