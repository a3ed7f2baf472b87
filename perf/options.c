/* SPDX-License-Identifier: MIT */
/* nu_perf's command line, and the combinations that it spans. */
#include "perf.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE_MAX_BYTES ((size_t)512 << 20)
#define MANY_MAX       (1u << 20)

static const char shorts[] = "t:s:n:w:O:d:T:c:fvh";

static int parse_size(const char *s, char **end, size_t *v_p)
{
	unsigned long long v = strtoull(s, end, 0);

	if (*end == s || *s == '-')
		return -EINVAL;
	if (**end == 'K' || **end == 'k')
		v <<= 10, (*end)++;
	else if (**end == 'M' || **end == 'm')
		v <<= 20, (*end)++;
	*v_p = v;
	return v ? 0 : -EINVAL;
}

static int parse_range(const char *s, size_t most, size_t *min_p, size_t *max_p)
{
	char *end;

	if (parse_size(s, &end, min_p))
		return -EINVAL;
	*max_p = *min_p;
	if (*end == ':' && parse_size(end + 1, &end, max_p))
		return -EINVAL;
	return *end || *max_p < *min_p || *max_p > most ? -EINVAL : 0;
}

static int parse_many(const char *s, unsigned *min_p, unsigned *max_p)
{
	size_t min, max;

	if (parse_range(s, MANY_MAX, &min, &max))
		return -EINVAL;
	*min_p = (unsigned)min;
	*max_p = (unsigned)max;
	return 0;
}

static int parse_count(const char *s, uint64_t *n_p)
{
	char *end;

	*n_p = strtoull(s, &end, 0);
	return *end || !*n_p || *s == '-' ? -EINVAL : 0;
}

/* A list: 0,0.1,1 */
static int parse_computes(const char *s, struct perf_options *o)
{
	for (;; s++) {
		char *end;
		double v = strtod(s, &end);

		if (end == s || !(v >= 0) || v > 1e6 || o->ncomputes == PERF_COMPUTES_MAX)
			return -EINVAL;
		o->compute_us[o->ncomputes++] = v;
		if (!*end)
			return 0;
		if (*end != ',')
			return -EINVAL;
		s = end;
	}
}

static int open_json(const char *name, struct perf_options *o)
{
	if (o->json && o->json != stdout)
		fclose(o->json);
	o->json = strcmp(name, "-") ? fopen(name, "w") : stdout;
	if (o->json)
		return 0;
	fprintf(stderr, "nu_perf: %s: %s\n", name, strerror(errno));
	return -EINVAL;
}

/* 0, -EINVAL a bad value, -EBADMSG what was said already. */
static int take(int c, const char *value, struct perf_options *o)
{
	uint64_t n;

	switch (c) {
	case 't':
		o->test = value;
		return 0;
	case 's':
		return parse_range(value, SIZE_MAX_BYTES, &o->size_min, &o->size_max);
	case 'n':
		return parse_count(value, &o->count);
	case 'w':
		return parse_count(value, &o->warmup);
	case 'O':
		return parse_many(value, &o->outstanding_min, &o->outstanding_max);
	case 'T':
		return parse_many(value, &o->threads_min, &o->threads_max);
	case 'd':
		return parse_computes(value, o);
	case 'c':
		if (parse_count(value, &n) || n > 64)
			return -EINVAL;
		o->cores = (unsigned)n;
		return 0;
	case 'f':
		o->final_only = true;
		return 0;
	case 'v':
		o->csv = true;
		return 0;
	case 'j':
		return open_json(value, o) ? -EBADMSG : 0;
	case 'h':
		o->help = true;
		return 0;
	default:
		return -EBADMSG;
	}
}

static const struct option longs[] = {{"json", required_argument, NULL, 'j'},
				      {"help", no_argument, NULL, 'h'},
				      {0}};

int perf_parse(int argc, char **argv, struct perf_options *o)
{
	int c, ret = 0;

	o->test = "call_local";
	optind = 0;
	opterr = 1;
	while (!ret && (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		ret = take(c, optarg, o);
		if (ret == -EINVAL)
			fprintf(stderr, "nu_perf: bad value '%s' of %s%c\n", optarg, c == 'j' ? "--" : "-",
				c);
	}
	if (!ret && optind < argc) {
		fprintf(stderr, "nu_perf: there is nothing to do with '%s'\n", argv[optind]);
		ret = -EINVAL;
	}
	if (!ret && o->cores && o->cores != nu_testing_cores()) {
		fprintf(stderr,
			"nu_perf: this node has %u cores; under nu_launch its --cores says how many\n",
			nu_testing_cores());
		ret = -EINVAL;
	}
	return ret ? -EINVAL : 0;
}

void perf_apply_cores(int argc, char **argv)
{
	const char *cores = NULL;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1)
		cores = c == 'c' ? optarg : cores;
	/* The node's size was settled before main(). */
	if (!cores || !nu_testing_alone() || (getenv("NU_CORES") && !strcmp(getenv("NU_CORES"), cores)))
		return;
	if (!setenv("NU_CORES", cores, 1))
		execv("/proc/self/exe", argv);
}

/* ---- combinations ---- */

static int each_compute(const struct perf_options *o, struct perf_case c,
			int (*run)(const struct perf_options *o, const struct perf_case *c))
{
	int ret = 0;

	for (unsigned i = 0; i < o->ncomputes && !ret; i++) {
		c.compute_us = o->compute_us[i];
		ret = run(o, &c);
	}
	return o->ncomputes ? ret : run(o, &c);
}

int perf_each(const struct perf_options *o, struct perf_case c,
	      int (*run)(const struct perf_options *o, const struct perf_case *c))
{
	size_t s_min = o->size_min ? o->size_min : c.size_bytes, s_max = o->size_max ? o->size_max : s_min;
	unsigned o_min = o->outstanding_min ? o->outstanding_min : c.outstanding,
		 o_max = o->outstanding_max ? o->outstanding_max : o_min,
		 t_min = o->threads_min ? o->threads_min : c.threads,
		 t_max = o->threads_max ? o->threads_max : t_min;
	int ret = 0;

	c.count = o->count ? o->count : c.count;
	c.warmup = o->warmup ? o->warmup : c.warmup ? c.warmup : c.count / 10 + 1;
	for (size_t s = s_min; s <= s_max && !ret; s = s ? s * 2 : 1) {
		for (unsigned out = o_min; out <= o_max && !ret; out = out ? out * 2 : 1) {
			for (unsigned t = t_min; t <= t_max && !ret; t = t ? t * 2 : 1) {
				c.size_bytes = s;
				c.outstanding = out;
				c.threads = t;
				ret = each_compute(o, c, run);
			}
		}
	}
	return ret;
}

int perf_need_two(const char *test)
{
	if (nu_node_count() >= 2)
		return 0;
	fprintf(stderr, "nu_perf: %s needs two nodes: nu_launch -n 2 nu_perf -t %s\n", test, test);
	return -EINVAL;
}
