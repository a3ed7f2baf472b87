/* SPDX-License-Identifier: MIT */
/* Rows of results, for people and as JSON. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

uint64_t *perf_samples(size_t n)
{
	return calloc(n, sizeof(uint64_t));
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

double perf_median(uint64_t *samples, size_t n)
{
	qsort(samples, n, sizeof(*samples), compare);
	return n ? (double)samples[n / 2] : 0;
}

static double at(const struct perf_row *r, double q)
{
	size_t i = (size_t)(q * (double)r->count);

	return (double)r->samples[i < r->count ? i : r->count - 1] * r->scale;
}

static double average(const struct perf_row *r)
{
	double sum = 0;

	for (size_t i = 0; i < r->count; i++)
		sum += (double)r->samples[i];
	return sum / (double)r->count * r->scale;
}

static void heading(const struct perf_row *r)
{
	static char last[32];

	if (!strcmp(last, r->test))
		return;
	snprintf(last, sizeof(last), "%s", r->test);
	printf("# %s: %s%s%s%s%s\n", r->test, r->unit, r->reader ? ", reader " : "",
	       r->reader ? r->reader : "", r->transport ? ", transport " : "",
	       r->transport ? r->transport : "");
	printf("%10s %9s %10s %10s %10s %10s %10s", "size[B]", "count", "min", "p50", "p90", "p99", "max");
	if (r->limit_name)
		printf(" %14.14s %8s", r->limit_name, "ratio");
	printf("\n");
}

void perf_report(const struct perf_options *o, struct perf_row *r)
{
	if (!r->count)
		return;
	qsort(r->samples, r->count, sizeof(*r->samples), compare);
	heading(r);
	printf("%10zu %9zu %10.2f %10.2f %10.2f %10.2f %10.2f", r->size_bytes, r->count, at(r, 0), at(r, .5),
	       at(r, .9), at(r, .99), at(r, 1));
	if (r->limit_name)
		printf(" %14.2f %8.2f", r->limit_p50, r->limit_p50 > 0 ? at(r, .5) / r->limit_p50 : 0);
	printf("\n");
	fflush(stdout);
	if (!o->json)
		return;
	fprintf(o->json,
		"{\"test\":\"%s\",\"size_bytes\":%zu,\"outstanding\":1,\"threads\":1,\"compute_us\":0,"
		"\"reader\":\"%s\","
		"\"transport\":\"%s\",\"unit\":\"%s\",\"count\":%zu,\"min\":%.3f,\"avg\":%.3f,\"p50\":%.3f,"
		"\"p90\":%.3f,"
		"\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f,\"rate\":%.1f",
		r->test, r->size_bytes, r->reader ? r->reader : "", r->transport ? r->transport : "", r->unit,
		r->count, at(r, 0), average(r), at(r, .5), at(r, .9), at(r, .99), at(r, .999), at(r, 1),
		r->rate);
	if (r->limit_name)
		fprintf(o->json, ",\"limit_name\":\"%s\",\"limit_p50\":%.3f,\"limit_rate\":0,\"ratio\":%.4f",
			r->limit_name, r->limit_p50, r->limit_p50 > 0 ? at(r, .5) / r->limit_p50 : 0);
	fprintf(o->json, "}\n");
	fflush(o->json);
}
