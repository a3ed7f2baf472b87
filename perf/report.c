/* SPDX-License-Identifier: MIT */
/* Rows of results: a table, comma-separated values, JSON. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

/* What is printed of a row. */
struct figures {
	double min, avg, p50, p90, p99, p999, max, rate, limit_p50, limit_rate, ratio;
	unsigned outstanding, threads;
};

uint64_t *perf_samples(size_t n)
{
	return calloc(n ? n : 1, sizeof(uint64_t));
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double perf_median(uint64_t *samples, size_t n)
{
	qsort(samples, n, sizeof(*samples), compare);
	return n ? (double)samples[n / 2] : 0;
}

double perf_median_double(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_double);
	return n ? values[n / 2] : 0;
}

const char *perf_transport(unsigned node, char *buf, size_t len)
{
	if (nu_testing_transport(node, buf, len))
		snprintf(buf, len, "unknown");
	return buf;
}

/* ---- figures ---- */

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

/* Of samples taken side by side: what disturbed one disturbed the other. Before the samples are sorted. */
static void pair(const struct perf_row *r, struct figures *f)
{
	double *ratios = calloc(r->count, sizeof(*ratios)),
	       scale = r->limit_scale > 0 ? r->limit_scale : r->scale;
	uint64_t *limits = perf_samples(r->count);
	size_t n = 0;

	for (size_t i = 0; ratios && limits && i < r->count; i++) {
		limits[i] = r->limit_samples[i];
		if (limits[i])
			ratios[n++] = (double)r->samples[i] * r->scale / ((double)limits[i] * scale);
	}
	if (ratios && limits) {
		f->limit_p50 = perf_median(limits, r->count) * scale;
		f->ratio = perf_median_double(ratios, n);
	}
	free(ratios);
	free(limits);
}

static double unit_ns(const char *unit)
{
	return !strcmp(unit, "ns") ? 1 : !strcmp(unit, "us") ? 1e3 : !strcmp(unit, "ms") ? 1e6 : 0;
}

static void compute(struct perf_row *r, struct figures *f)
{
	double ns = unit_ns(r->unit);

	*f = (struct figures){.limit_p50 = r->limit_p50,
			      .rate = r->rate,
			      .limit_rate = r->limit_rate,
			      .outstanding = r->outstanding ? r->outstanding : 1,
			      .threads = r->threads ? r->threads : 1};
	if (r->limit_samples)
		pair(r, f);
	qsort(r->samples, r->count, sizeof(*r->samples), compare);
	f->min = at(r, 0);
	f->avg = average(r);
	f->p50 = at(r, .5);
	f->p90 = at(r, .9);
	f->p99 = at(r, .99);
	f->p999 = at(r, .999);
	f->max = at(r, 1);
	if (f->rate <= 0 && ns > 0 && f->outstanding == 1 && f->p50 > 0)
		f->rate = 1e9 / (f->p50 * ns);
	if (f->limit_rate <= 0 && ns > 0 && f->outstanding == 1 && f->limit_p50 > 0)
		f->limit_rate = 1e9 / (f->limit_p50 * ns);
	if (r->ratio > 0)
		f->ratio = r->ratio;
	else if (f->ratio <= 0 && f->limit_p50 > 0)
		f->ratio = f->p50 / f->limit_p50;
}

/* ---- for people ---- */

/* Whether this row needs a heading: another test, unit or limit than the last. */
static bool begins(const struct perf_options *o, const struct perf_row *r)
{
	static char last[160];
	char now[160];

	snprintf(now, sizeof(now), "%s %s %s %s", r->test, r->unit, r->limit_name ? r->limit_name : "",
		 r->transport ? r->transport : "");
	if (!strcmp(last, now))
		return false;
	snprintf(last, sizeof(last), "%s", now);
	return !o->final_only;
}

static void table_heading(const struct perf_row *r)
{
	static const char *const columns[] = {"min", "p50", "p90", "p99", "p999", "max"};
	char name[48];

	printf("# %s%s%s%s%s%s%s\n", r->test, r->reader ? ", reader " : "", r->reader ? r->reader : "",
	       r->transport ? ", transport " : "", r->transport ? r->transport : "",
	       r->limit_name ? ", beside " : "", r->limit_name ? r->limit_name : "");
	printf("%10s %6s %6s %8s %9s", "size[B]", "outst.", "thr.", "work[us]", "count");
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		snprintf(name, sizeof(name), "%s[%s]", columns[i], r->unit);
		printf(" %10s", name);
	}
	printf(" %11s", "rate[1/s]");
	if (r->limit_name) {
		snprintf(name, sizeof(name), "limit[%s]", r->unit);
		printf(" %10s %11s %8s", name, "limit[1/s]", "ratio[1]");
	}
	printf("\n");
}

static void table_row(const struct perf_row *r, const struct figures *f)
{
	printf("%10zu %6u %6u %8.1f %9zu %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f %11.0f", r->size_bytes,
	       f->outstanding, f->threads, r->compute_us, r->count, f->min, f->p50, f->p90, f->p99, f->p999,
	       f->max, f->rate);
	if (r->limit_name)
		printf(" %10.2f %11.0f %8.3f", f->limit_p50, f->limit_rate, f->ratio);
	printf("\n");
}

static void csv_heading(const struct perf_row *r)
{
	printf("test,size[B],outstanding,threads,compute[us],reader,transport,count,min[%s],avg[%s],p50[%s],"
	       "p90[%s],"
	       "p99[%s],p999[%s],max[%s],rate[1/s],limit,limit_p50[%s],limit_rate[1/s],ratio[1]\n",
	       r->unit, r->unit, r->unit, r->unit, r->unit, r->unit, r->unit, r->unit);
}

static void csv_row(const struct perf_row *r, const struct figures *f)
{
	printf("%s,%zu,%u,%u,%g,%s,%s,%zu,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.1f,%s,%.3f,%.1f,%.4f\n",
	       r->test, r->size_bytes, f->outstanding, f->threads, r->compute_us, r->reader ? r->reader : "",
	       r->transport ? r->transport : "", r->count, f->min, f->avg, f->p50, f->p90, f->p99, f->p999,
	       f->max, f->rate, r->limit_name ? r->limit_name : "", f->limit_p50, f->limit_rate, f->ratio);
}

/* ---- for programs: every key in every row; null where it means nothing ---- */

static void json_string(FILE *to, const char *key, const char *value)
{
	if (value)
		fprintf(to, ",\"%s\":\"%s\"", key, value);
	else
		fprintf(to, ",\"%s\":null", key);
}

static void json_number(FILE *to, const char *key, double value)
{
	if (value > 0)
		fprintf(to, ",\"%s\":%.4f", key, value);
	else
		fprintf(to, ",\"%s\":null", key);
}

static void json_row(FILE *to, const struct perf_row *r, const struct figures *f)
{
	fprintf(to, "{\"test\":\"%s\",\"size_bytes\":%zu,\"outstanding\":%u,\"threads\":%u,\"compute_us\":%g",
		r->test, r->size_bytes, f->outstanding, f->threads, r->compute_us);
	json_string(to, "reader", r->reader);
	json_string(to, "transport", r->transport);
	json_string(to, "unit", r->unit);
	fprintf(to,
		",\"count\":%zu,\"min\":%.3f,\"avg\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%."
		"3f,"
		"\"max\":%.3f",
		r->count, f->min, f->avg, f->p50, f->p90, f->p99, f->p999, f->max);
	json_number(to, "rate", f->rate);
	json_string(to, "limit_name", r->limit_name);
	json_number(to, "limit_p50", f->limit_p50);
	json_number(to, "limit_rate", f->limit_rate);
	json_number(to, "ratio", f->ratio);
	fprintf(to, "}\n");
	fflush(to);
}

void perf_report(const struct perf_options *o, struct perf_row *r)
{
	struct figures f;

	if (!r->count)
		return;
	compute(r, &f);
	/* Standard output is one or the other. */
	if (o->json != stdout) {
		if (begins(o, r))
			(o->csv ? csv_heading : table_heading)(r);
		(o->csv ? csv_row : table_row)(r, &f);
		fflush(stdout);
	}
	if (o->json)
		json_row(o->json, r, &f);
}
