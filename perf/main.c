/* SPDX-License-Identifier: MIT */
/* nu_perf: measures Nu in the manner of ucx_perftest, each figure beside its limit in the same run. */
#include "perf.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name, *what;
	int (*run)(const struct perf_options *o);
} tests[] = {
	{"switch", "two threads yield to each other", perf_switch},
	{"call_local", "empty call of a proclet on this node, beside a plain indirect call", perf_call_local},
	{"call_lat", "round trip of a call with -s bytes each way to a proclet on node 1", perf_call_lat},
	{"read", "raw one-sided read of -s bytes from node 1, beside memcpy", perf_read},
	{"migrate", "a proclet with a running thread moves between two nodes, beside a raw read of its bytes",
	 perf_migrate},
};

static void usage(FILE *f)
{
	fprintf(f, "Usage: nu_launch -n 2 nu_perf [options]      (switch and call_local also run alone)\n\n");
	fprintf(f, "  -t TEST     what to measure (call_local):\n");
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		fprintf(f, "                %-11s %s\n", tests[i].name, tests[i].what);
	fprintf(f, "  -s SIZE     bytes, or a range MIN:MAX in powers of two; suffixes K, M (8; 64K for "
		   "read, migrate)\n"
		   "  -n COUNT    measurements per size (depends on the test)\n"
		   "  -w COUNT    measurements before those, not counted (a tenth of -n)\n"
		   "  --json FILE also write one JSON object per line; - for standard output\n"
		   "  -h          this text\n");
}

static int parse_size(const char *s, char **end, size_t *v_p)
{
	unsigned long long v = strtoull(s, end, 0);

	if (*end == s)
		return -EINVAL;
	if (**end == 'K' || **end == 'k')
		v <<= 10, (*end)++;
	else if (**end == 'M' || **end == 'm')
		v <<= 20, (*end)++;
	*v_p = v;
	return v ? 0 : -EINVAL;
}

static int parse_range(const char *s, struct perf_options *o)
{
	char *end;

	if (parse_size(s, &end, &o->size_min))
		return -EINVAL;
	o->size_max = o->size_min;
	if (*end == ':' && parse_size(end + 1, &end, &o->size_max))
		return -EINVAL;
	return *end || o->size_max < o->size_min || o->size_max > (512u << 20) ? -EINVAL : 0;
}

static int parse_count(const char *s, uint64_t *n_p)
{
	char *end;

	*n_p = strtoull(s, &end, 0);
	return *end || !*n_p || *s == '-' ? -EINVAL : 0;
}

static int parse(int argc, char **argv, struct perf_options *o)
{
	static const struct option longs[] = {{"json", required_argument, NULL, 'j'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	int c, ret = 0;

	o->test = "call_local";
	while ((c = getopt_long(argc, argv, "t:s:n:w:h", longs, NULL)) != -1 && !ret) {
		switch (c) {
		case 't':
			o->test = optarg;
			break;
		case 's':
			ret = parse_range(optarg, o);
			break;
		case 'n':
			ret = parse_count(optarg, &o->count);
			break;
		case 'w':
			ret = parse_count(optarg, &o->warmup);
			break;
		case 'j':
			o->json = strcmp(optarg, "-") ? fopen(optarg, "w") : stdout;
			if (!o->json) {
				perror(optarg);
				return -EINVAL;
			}
			break;
		case 'h':
			o->help = true;
			break;
		default:
			return -EINVAL;
		}
		if (ret)
			fprintf(stderr, "nu_perf: bad value '%s' of -%c\n", optarg, c);
	}
	return ret ? ret : optind < argc ? -EINVAL : 0;
}

static int perf_main(int argc, char **argv)
{
	struct perf_options *o = calloc(1, sizeof(*o));
	int ret;

	ret = parse(argc, argv, o);
	if (ret || o->help) {
		usage(ret ? stderr : stdout);
		return ret ? 2 : 0;
	}
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (strcmp(tests[i].name, o->test) != 0)
			continue;
		ret = tests[i].run(o);
		if (ret)
			fprintf(stderr, "nu_perf: %s: %s\n", o->test, nu_strerror(ret));
		if (o->json && o->json != stdout)
			fclose(o->json);
		return ret ? 1 : 0;
	}
	fprintf(stderr, "nu_perf: there is no test '%s'\n", o->test);
	usage(stderr);
	return 2;
}

int main(int argc, char **argv)
{
	/* getopt's variables are copies in this program's data, and the report's heading is remembered there. */
	const struct nu_run_options options = {.writable_globals = true};

	return nu_run(argc, argv, perf_main, &options);
}
