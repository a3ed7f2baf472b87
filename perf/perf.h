/* SPDX-License-Identifier: MIT */
/* nu_perf: what its tests share. */
#pragma once

#include <nu/nu.h>
#include <nu/nu_testing.h>

#include <stdio.h>

struct perf_options {
	const char *test;
	size_t size_min, size_max; /* -s: powers of two between them */
	uint64_t count;		   /* -n; 0: the test's own */
	uint64_t warmup;	   /* -w */
	FILE *json;
	bool help;
};

/* One line of results. */
struct perf_row {
	const char *test;
	size_t size_bytes;
	const char *unit; /* of min ... max */
	uint64_t *samples;
	size_t count;
	double scale; /* sample * scale is in `unit` */
	double rate;  /* per second; 0: none */
	const char *limit_name;
	double limit_p50; /* in `unit`, measured in the same run; 0: none */
	const char *reader, *transport;
};

/* Prints a row (a heading before the first of a test) and its JSON object. Sorts row->samples. */
void perf_report(const struct perf_options *o, struct perf_row *row);
uint64_t *perf_samples(size_t n);
double perf_median(uint64_t *samples, size_t n);

int perf_switch(const struct perf_options *o);
int perf_call_local(const struct perf_options *o);
int perf_call_lat(const struct perf_options *o);
int perf_read(const struct perf_options *o);
int perf_migrate(const struct perf_options *o);
