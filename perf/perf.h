/* SPDX-License-Identifier: MIT */
/* nu_perf: what its tests share. */
#pragma once

#include <nu/nu.h>
#include <nu/nu_testing.h>

#include <stdio.h>

#define PERF_COMPUTES_MAX 16

struct perf_options {
	const char *test;
	size_t size_min, size_max;		   /* -s: powers of two between them; 0: the test's own */
	unsigned outstanding_min, outstanding_max; /* -O, likewise */
	unsigned threads_min, threads_max;	   /* -T */
	double compute_us[PERF_COMPUTES_MAX];	   /* -d */
	unsigned ncomputes;
	uint64_t count;	 /* -n; 0: the test's own */
	uint64_t warmup; /* -w */
	unsigned cores;	 /* -c; 0: as the launcher or NU_CORES has it */
	bool final_only, csv;
	FILE *json;
	bool help;
};

/* One combination of what the options range over. */
struct perf_case {
	size_t size_bytes;
	unsigned outstanding, threads;
	double compute_us;
	size_t count, warmup;
};

/* Runs @run for each combination; @base: the test's own values. options.c */
int perf_each(const struct perf_options *o, struct perf_case base,
	      int (*run)(const struct perf_options *o, const struct perf_case *c));
/* 0: -h or the test's options are in *o. -EINVAL wrong usage, which was said. */
int perf_parse(int argc, char **argv, struct perf_options *o);
/* What concerns -c, in main() before the node exists: may start the program anew. */
void perf_apply_cores(int argc, char **argv);
/* -EINVAL, with how to start it, if there are not two nodes. */
int perf_need_two(const char *test);

/* One line of results. */
struct perf_row {
	const char *test;
	size_t size_bytes;
	unsigned outstanding, threads; /* 0: 1 */
	double compute_us;
	const char *unit; /* of min ... max */
	uint64_t *samples;
	size_t count;
	double scale; /* sample * scale is in `unit` */
	double rate;  /* per second; 0: 1e9 / p50 where the unit is a time and one is outstanding */
	const char *limit_name;
	double limit_p50; /* in `unit`, measured in the same run; 0: none */
	const uint64_t
		*limit_samples; /* or these, each taken beside the sample of the same index, unsorted */
	double limit_scale;	/* of those; 0: scale */
	double limit_rate;	/* 0: none */
	double ratio; /* of the main figure: median of pairs; 0: of limit_samples' pairs, else of the medians */
	const char *reader, *transport;
};

/* Prints a row (a heading before the first of a kind) and its JSON object. Sorts row->samples. report.c */
void perf_report(const struct perf_options *o, struct perf_row *row);
uint64_t *perf_samples(size_t n);
double perf_median(uint64_t *samples, size_t n);
double perf_median_double(double *values, size_t n);
/* The transport of the calling core's connection to @node. */
const char *perf_transport(unsigned node, char *buf, size_t len);

/* ---- work of a given length: compute.c ---- */
uint64_t perf_compute(uint64_t iterations);
uint64_t perf_iterations(double compute_us);
/* This node's number, as a global of each node's own: where a thread runs, without a word of the runtime. main.c */
extern volatile unsigned perf_node;
double perf_tick_ns(void); /* nanoseconds in a tick of perf_ticks() */
/* call_local and call_lat where -d is given: calls of so long, beside a plain call of the same function. */
int perf_compute_calls(const struct perf_options *o, const char *test, unsigned node);

/* ---- many at once: load.c ---- */
struct perf_load {
	int (*op)(void *arg); /* by several threads at once */
	void *arg;
	unsigned outstanding;
	uint64_t window_ns;
	/* Out: */
	uint64_t *samples; /* latency of each op in ticks, up to max_samples over all windows */
	size_t nsamples, max_samples;
};
/* Runs ops for one window by `outstanding` threads; *rate_p: ops a second. */
int perf_window(struct perf_load *l, double *rate_p);

/*
 * UCX alone where we use @transport: the median round trip of @size bytes or, with @want_rate, the time of one of many
 * messages one way; in ns. 0: there is nothing to be compared, or it could not be run. raw.c
 */
double perf_raw_am(const char *transport, bool want_rate, size_t size, uint64_t count);
int perf_raw_main(char **argv);

/* ---- the tests ---- */
int perf_switch(const struct perf_options *o);
int perf_spawn(const struct perf_options *o);
int perf_sync(const struct perf_options *o);
int perf_alloc(const struct perf_options *o);
/* In main(), since a program opens no libraries later: the allocators that it is measured beside. */
void perf_alloc_load(int argc, char **argv);
int perf_sort(const struct perf_options *o);
/* Likewise: the C library's qsort. */
void perf_sort_load(int argc, char **argv);
int perf_call_local(const struct perf_options *o);
int perf_call_lat(const struct perf_options *o);
int perf_call_rate(const struct perf_options *o);
int perf_closure(const struct perf_options *o);
int perf_read(const struct perf_options *o);
int perf_pull(const struct perf_options *o);
int perf_migrate(const struct perf_options *o);
int perf_cost(const struct perf_options *o);
int perf_locate(const struct perf_options *o);
int perf_create(const struct perf_options *o);
int perf_footprint(const struct perf_options *o);
