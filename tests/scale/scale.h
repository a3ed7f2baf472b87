/* SPDX-License-Identifier: MIT */
/* What each node has in use, told by a probe there: so that a test can say what things cost, and that nothing is left. */
#pragma once

#include "core/nu_testing.h"
#include "tests/cluster/check.h"

#include <fcntl.h>
#include <unistd.h>

#define SCALE_NODES_MAX 256
#define SCALE_LEFT_US	(20u * 1000 * 1000)
#define SCALE_RSS_SLACK                                                                                      \
	(64ul << 20) /* what the pool keeps in reserve, stacks that keep their pages, the C library */
#define SCALE_MAPS_SLACK 2048 /* free stacks that stay mapped */

NU_STRUCT(scale_figures, val(uint64_t, rss_bytes), val(uint64_t, tables_bytes), val(uint64_t, mappings),
	  val(uint64_t, present), val(uint64_t, notes), val(uint64_t, arriving), val(uint64_t, held),
	  val(uint64_t, stacks), val(uint64_t, lent), val(uint64_t, pool_bytes), val(uint64_t, heap_bytes));

struct probe {
	char spare;
};
NU_CLASS(probe);
NU_METHOD(probe, look, obj(scale_figures));

int probe_init(struct probe *p)
{
	return 0;
}

static uint64_t scale_lines(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char buf[4096];
	uint64_t lines = 0;
	ssize_t n;

	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	}
	if (fd >= 0)
		close(fd);
	return lines;
}

/* "VmRSS:   1234 kB" of this process. */
static uint64_t scale_status(const char *key)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	char buf[4096], *at;
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	if (fd >= 0)
		close(fd);
	buf[n < 0 ? 0 : n] = '\0';
	at = strstr(buf, key);
	return at ? strtoul(at + strlen(key), NULL, 10) << 10 : 0;
}

struct scale_figures probe_do_look(struct probe *p)
{
	struct nu_testing_census c;
	struct nu_stats s = {0};

	nu_testing_census(&c);
	(void)!nu_stats(nu_node_self(), &s);
	return (struct scale_figures){.rss_bytes = scale_status("VmRSS:"),
				      .tables_bytes = scale_status("VmPTE:"),
				      .mappings = scale_lines("/proc/self/maps"),
				      .present = c.present,
				      .notes = c.notes,
				      .arriving = c.arriving,
				      .held = c.held,
				      .stacks = c.stacks,
				      .lent = c.lent,
				      .pool_bytes = s.pool_bytes_now,
				      .heap_bytes = s.heap_bytes_now};
}

static struct probe_ref scale_probes[SCALE_NODES_MAX];
static struct scale_figures scale_start[SCALE_NODES_MAX], scale_now[SCALE_NODES_MAX];

static void scale_look(void)
{
	for (unsigned n = 0; n < nu_node_count(); n++)
		CHECK_IS(probe_look(scale_probes[n], &scale_now[n]), 0);
}

static void scale_print(const char *when)
{
	for (unsigned n = 0; n < nu_node_count(); n++) {
		const struct scale_figures *f = &scale_now[n];

		printf("%s, node %u: RSS %lu MiB, page tables %lu MiB, %lu mappings, %lu present, %lu notes, "
		       "%lu stacks, "
		       "%lu lent, pool %lu MiB\n",
		       when, n, f->rss_bytes >> 20, f->tables_bytes >> 20, f->mappings, f->present, f->notes,
		       f->stacks, f->lent, f->pool_bytes >> 20);
	}
	fflush(stdout);
}

static int scale_begin(void)
{
	check_name = "begin";
	for (unsigned n = 0; n < nu_node_count(); n++)
		CHECK_IS(probe_create(&(struct nu_options){.capacity_bytes = 1 << 20,
							   .pinned = true,
							   .node = NU_NODE(n)},
				      &scale_probes[n]),
			 0);
	scale_look();
	memcpy(scale_start, scale_now, sizeof(scale_start));
	scale_print("start");
	return check_failed != 0;
}

static bool scale_is_left(unsigned n)
{
	const struct scale_figures *f = &scale_now[n], *s = &scale_start[n];

	return f->present != s->present || f->notes || f->arriving || f->held || f->lent;
}

/* Memory goes back to the system by the clock. */
static bool scale_is_large(unsigned n)
{
	return scale_now[n].rss_bytes >= scale_start[n].rss_bytes + SCALE_RSS_SLACK;
}

/* What is freed in the background gets its time; then every figure must be near what it was at the start. */
static void scale_nothing_left(void)
{
	uint64_t end = nu_now_us() + SCALE_LEFT_US;
	bool left = true;

	while (left && nu_now_us() < end) {
		left = false;
		scale_look();
		for (unsigned n = 0; n < nu_node_count(); n++)
			left |= scale_is_left(n) || scale_is_large(n);
		if (left)
			nu_sleep_us(CHECK_RETRY_US);
	}
	scale_print("after");
	for (unsigned n = 0; n < nu_node_count(); n++) {
		const struct scale_figures *f = &scale_now[n], *s = &scale_start[n];

		CHECK_MSG(!scale_is_left(n),
			  "node %u: %lu proclets (%lu at the start), %lu notes, %lu arriving, %lu held, %lu "
			  "stacks lent",
			  n, f->present, s->present, f->notes, f->arriving, f->held, f->lent);
		CHECK_MSG(f->mappings < s->mappings + SCALE_MAPS_SLACK,
			  "node %u: %lu mappings, %lu at the start", n, f->mappings, s->mappings);
		CHECK_MSG(!scale_is_large(n), "node %u: RSS %lu MiB, %lu at the start", n, f->rss_bytes >> 20,
			  s->rss_bytes >> 20);
	}
}

static void scale_end(void)
{
	for (unsigned n = 0; n < nu_node_count(); n++)
		(void)probe_ref_put(&scale_probes[n]);
}
