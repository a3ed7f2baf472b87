/* SPDX-License-Identifier: MIT */
/* nu_perf: measures Nu in the manner of ucx_perftest, each figure beside its limit in the same run. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name, *what;
	int (*run)(const struct perf_options *o);
} tests[] = {
	{"switch", "two threads yield to each other", perf_switch},
	{"spawn", "a thread is started and joined, beside a switch both ways", perf_spawn},
	{"sync", "a free mutex, beside the C library's; one handed to a waiting thread, beside a switch",
	 perf_sync},
	{"alloc",
	 "malloc and free of -s bytes in a proclet, one by one and by the thousand, beside mimalloc's",
	 perf_alloc},
	{"sort",
	 "qsort of 10, 100 and 10,000 elements of -s bytes in a proclet, ten kinds of input, beside the C "
	 "library's",
	 perf_sort},
	{"call_local", "call of a proclet on this node, beside a plain indirect call", perf_call_local},
	{"call_lat", "round trip of a call with -s bytes each way to a proclet on node 1, beside UCX's",
	 perf_call_lat},
	{"call_rate", "calls a second of a proclet on node 1 with -O outstanding", perf_call_rate},
	{"closure", "a closure with -s bytes sent to a proclet, beside a call of a method", perf_closure},
	{"read",
	 "raw one-sided read of -s bytes from node 1, -O at a time, beside READs by hand (verbs) or memcpy",
	 perf_read},
	{"pull", "a proclet without threads moves between two nodes, beside a raw read of its bytes",
	 perf_pull},
	{"migrate", "a proclet with -T running threads moves, beside a raw read of its bytes", perf_migrate},
	{"cost", "processor time, messages and the reader's requests for each move of -s bytes", perf_cost},
	{"locate", "node 1 asks where a proclet is, beside an empty call to node 0", perf_locate},
	{"create", "a proclet begins and ends with -O at a time, beside mapping a page", perf_create},
	{"footprint", "memory of -n proclets, each called once with one allocation; of peers",
	 perf_footprint},
};

static void usage(FILE *f)
{
	fprintf(f, "Usage: nu_launch -n 2 nu_perf [options]      (what needs one node runs alone, too)\n\n");
	fprintf(f, "  -t TEST     what to measure (call_local):\n");
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		fprintf(f, "                %-11s %s\n", tests[i].name, tests[i].what);
	fprintf(f,
		"  -s SIZE     bytes, or a range MIN:MAX in powers of two; suffixes K, M (8; 64K where heaps "
		"move)\n"
		"  -n COUNT    measurements for each line (depends on the test)\n"
		"  -w COUNT    measurements before those, not counted (a tenth of -n)\n"
		"  -O COUNT    operations outstanding, or a range (64 for call_rate, else 1)\n"
		"  -d US       computation in each call in microseconds, or a list: 0,0.1,1,10,50 (0)\n"
		"  -T COUNT    threads that run in the proclet that moves, or a range (1)\n"
		"  -c CORES    this node's cores, without nu_launch (all)\n"
		"  -f          results alone, without headings\n"
		"  -v          comma-separated values\n"
		"  --json FILE also write one JSON object per line; - for standard output\n"
		"  -h, --help  this text\n");
}

static int perf_main(int argc, char **argv)
{
	struct perf_options *o = calloc(1, sizeof(*o));
	int ret;

	ret = perf_parse(argc, argv, o);
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
		if (o->json && fflush(o->json)) {
			perror("nu_perf: --json");
			ret = -EIO;
		}
		if (o->json && o->json != stdout)
			fclose(o->json);
		return ret ? 1 : 0;
	}
	fprintf(stderr, "nu_perf: there is no test '%s'\n", o->test);
	usage(stderr);
	return 2;
}

volatile unsigned perf_node;

static int node_init(unsigned node)
{
	perf_node = node;
	return 0;
}

int main(int argc, char **argv)
{
	/* getopt's variables are copies in this program's data, and the report's heading is remembered there. */
	const struct nu_run_options options = {.node_init = node_init, .writable_globals = true};

	if (argc == 6 && !strcmp(argv[1], "--raw-am"))
		return perf_raw_main(argv + 2);
	perf_apply_cores(argc, argv);
	perf_alloc_load(argc, argv);
	perf_sort_load(argc, argv);
	return nu_run(argc, argv, perf_main, &options);
}
