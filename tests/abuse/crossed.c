/* SPDX-License-Identifier: MIT */
/*
 * Two jobs are crossed: both nodes of this one are told that the other one listens at PORT, which is a node's of another
 * job, and lose their connection. They come to that job's door with this job's key until they are told better; the calls
 * that were under way are then run, once.
 *
 * usage: abuse_crossed PORT...    under nu_launch -n 2 --cores 1 --transport tcp
 */
#include "../cluster/check.h"
#include "core/nu_testing.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <sys/socket.h>

#define CALLS	 20u
#define REFUSALS 5u
#define BOUND_US 20000000u
#define ADDRESS	 24u /* family, port, 4 bytes, IP */

struct agent {
	unsigned calls;
	char was[ADDRESS];
};
NU_CLASS(agent);
NU_METHOD(agent, divert, val(int), val(unsigned, node), val(unsigned, port));
NU_METHOD(agent, restore, val(int), val(unsigned, node));
NU_METHOD(agent, add, val(unsigned), val(unsigned, n));

int agent_init(struct agent *a)
{
	return 0;
}

int agent_do_divert(struct agent *a, unsigned node, unsigned port)
{
	uint16_t at = htons((uint16_t)port);
	char to[ADDRESS];

	if (nu_testing_address(node, a->was, sizeof(a->was), NULL))
		return -EINVAL;
	memcpy(to, a->was, sizeof(to));
	memcpy(to + 2, &at, sizeof(at));
	return nu_testing_address(node, NULL, sizeof(to), to);
}

int agent_do_restore(struct agent *a, unsigned node)
{
	return nu_testing_address(node, NULL, sizeof(a->was), a->was);
}

unsigned agent_do_add(struct agent *a, unsigned n)
{
	return a->calls += n;
}

/* All connected TCP sockets of this process. */
static unsigned cut(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	for (struct dirent *e; d && (e = readdir(d));) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(a);
		int fd = atoi(e->d_name);

		if (e->d_name[0] != '.' && !getpeername(fd, (struct sockaddr *)&a, &len) &&
		    a.ss_family == AF_INET && !shutdown(fd, SHUT_RDWR))
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

static uint64_t broken(void)
{
	struct nu_testing_wire w;

	nu_testing_wire(&w);
	return w.broken;
}

static struct agent_ref near, far;
static unsigned port;

static void crossed(void)
{
	struct agent_add_future f[CALLS];
	uint64_t end = nu_now_us() + BOUND_US, before;
	unsigned n = 0;
	int ret = -1;

	CHECK_IS(agent_divert(far, 0, port, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(agent_divert(near, 1, port, &ret), 0);
	CHECK_IS(ret, 0);
	before = broken();
	CHECK(cut() > 0);
	for (unsigned i = 0; i < CALLS; i++)
		CHECK_IS(agent_add_async(far, 1, &f[i]), 0);
	while (broken() - before < REFUSALS && nu_now_us() < end)
		nu_sleep_us(1000);
	CHECK_MSG(broken() - before >= REFUSALS, "refused %lu times", (unsigned long)(broken() - before));
	CHECK_IS(agent_add(near, 1, &n), 0); /* what needs no other node goes on */
	CHECK_IS(agent_restore(near, 1, &ret), 0);
	CHECK_IS(ret, 0);
	for (unsigned i = 0; i < CALLS; i++)
		CHECK_IS(agent_add_wait(&f[i], &n), 0);
	CHECK_IS(agent_restore(far, 0, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(agent_add(far, 0, &n), 0);
	CHECK_MSG(n == CALLS, "%u of %u calls were run", n, CALLS);
	CHECK_IS(agent_add(far, (unsigned)-(int)CALLS, &n), 0);
}

static int test_main(int argc, char **argv)
{
	struct nu_options there = {.node = NU_NODE(1), .pinned = true},
			  here = {.node = NU_NODE(0), .pinned = true};

	CHECK_IS(agent_create(&here, &near), 0);
	CHECK_IS(agent_create(&there, &far), 0);
	for (int i = 1; i < argc; i++) {
		port = (unsigned)atoi(argv[i]);
		CHECK_RUN(crossed);
	}
	return check_done();
}

CHECK_PROGRAM(test_main)
