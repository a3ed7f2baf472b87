/* SPDX-License-Identifier: MIT */
/*
 * The picture: throughput and latency over time, with the drain and the restore marked. Data and script stay beside it,
 * so that it can be drawn again.
 */
#include "kvstore.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct kv_plot_paths {
	char png[PATH_MAX], data[PATH_MAX], script[PATH_MAX];
};

/* FILE.png, FILE.dat and FILE.gp; a name with another ending keeps it. */
static int kv_plot_paths(struct kv_plot_paths *p, const char *png)
{
	size_t len = strlen(png);
	int stem = (int)(len > 4 && !strcmp(png + len - 4, ".png") ? len - 4 : len);

	if (len > PATH_MAX - 8)
		return -ENAMETOOLONG;
	snprintf(p->png, sizeof(p->png), "%s", png);
	snprintf(p->data, sizeof(p->data), "%.*s.dat", stem, png);
	snprintf(p->script, sizeof(p->script), "%.*s.gp", stem, png);
	return 0;
}

static int kv_plot_data(const struct kvstore *kv, const char *path)
{
	const struct kv_watch *w = &kv->watch;
	FILE *f = fopen(path, "w");
	uint64_t moves = 0;

	if (!f)
		return -errno;
	fprintf(f, "# seconds ops_per_s p50_us p99_us p999_us moves\n");
	for (size_t i = 0; i < w->nsamples; i++) {
		const struct kv_sample *s = &w->samples[i];

		fprintf(f, "%.3f %.0f %.2f %.2f %.2f %" PRIu64 "\n", s->at_s, s->ops_per_s,
			(double)s->p50_ns / 1e3, (double)s->p99_ns / 1e3, (double)s->p999_ns / 1e3,
			s->moves - moves);
		moves = s->moves;
	}
	return fclose(f) ? -errno : 0;
}

/* gnuplot's quoting: between single quotes only the quote itself is doubled. */
static void kv_plot_quote(FILE *f, const char *text)
{
	putc('\'', f);
	for (; *text; text++) {
		if (*text == '\'')
			putc('\'', f);
		putc(*text, f);
	}
	putc('\'', f);
}

/* From a drain's begin to its end, drawn at least wide enough to be seen. */
static void kv_plot_span(FILE *f, const struct kv_span *span, unsigned object, double end_s,
			 const char *colour)
{
	double width = end_s / 400,
	       right = span->end_s - span->begin_s < width ? span->begin_s + width : span->end_s;

	if (span->done)
		fprintf(f,
			"set object %u rectangle from first %.4f, graph 0 to first %.4f, graph 1 "
			"fillcolor rgb '%s' fillstyle solid noborder behind\n",
			object, span->begin_s, right, colour);
}

static void kv_plot_panels(const struct kvstore *kv, FILE *f, const char *data)
{
	fprintf(f, "set title 'Throughput");
	if (kv->drain.done)
		fprintf(f, ": node %u drained at %.1f s (orange)", kv->options.drain.node, kv->drain.begin_s);
	if (kv->restore.done)
		fprintf(f, ", restored at %.1f s (green)", kv->restore.begin_s);
	fprintf(f, "'\nset ylabel 'operations/s'\nset format y '%%.0s%%c'\nset yrange [0:*]\nplot ");
	kv_plot_quote(f, data);
	fprintf(f, " using 1:2 with lines linewidth 2 linecolor rgb '#1f5fa8' notitle\n"
		   "set title 'Latency'\nset ylabel 'us'\nset xlabel 'seconds'\nset format y '%%g'\n"
		   "set logscale y\nset yrange [*:*]\nplot ");
	kv_plot_quote(f, data);
	fprintf(f, " using 1:($5>0?$5:NaN) with lines linewidth 2 linecolor rgb '#b03030' title 'p99.9', ");
	kv_plot_quote(f, data);
	fprintf(f, " using 1:($4>0?$4:NaN) with lines linewidth 2 linecolor rgb '#c89020' title 'p99', ");
	kv_plot_quote(f, data);
	fprintf(f, " using 1:($3>0?$3:NaN) with lines linewidth 2 linecolor rgb '#1f5fa8' title 'p50'\n");
}

static int kv_plot_script(const struct kvstore *kv, const struct kv_plot_paths *p)
{
	double end_s = (double)(kv->watch.end_ns - kv->watch.begin_ns) / 1e9;
	FILE *f = fopen(p->script, "w");

	if (!f)
		return -errno;
	fprintf(f, "set terminal pngcairo size 1000, 700 noenhanced\nset output ");
	kv_plot_quote(f, p->png);
	fprintf(f,
		"\nset multiplot layout 2, 1\nset xrange [0:%.3f]\nset grid\nset key top right\n"
		"set lmargin 12\nset rmargin 4\n",
		end_s);
	kv_plot_span(f, &kv->drain, 1, end_s, "#ffb060");
	kv_plot_span(f, &kv->restore, 2, end_s, "#90d090");
	kv_plot_panels(kv, f, p->data);
	fprintf(f, "unset multiplot\n");
	return fclose(f) ? -errno : 0;
}

/* Return: gnuplot's exit status, or a negative errno: -ENOENT there is no gnuplot. */
static int kv_gnuplot(const char *script)
{
	char *argv[] = {"gnuplot", (char *)script, NULL};
	int status, err;
	pid_t pid;

	err = posix_spawnp(&pid, "gnuplot", NULL, NULL, argv, environ);
	if (err)
		return -err;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int kv_plot_files(const struct kvstore *kv, const struct kv_plot_paths *p)
{
	int err = kv_plot_data(kv, p->data);

	if (err) {
		kv_complain("%s: %s", p->data, nu_strerror(err));
		return err;
	}
	err = kv_plot_script(kv, p);
	if (err)
		kv_complain("%s: %s", p->script, nu_strerror(err));
	return err;
}

void kv_plot(struct kvstore *kv)
{
	struct kv_plot_paths *p = malloc(sizeof(*p)); /* too large for a stack */
	int ret;

	if (!p || kv_plot_paths(p, kv->options.plot)) {
		kv_complain("%s: no memory, or too long a name, for a plot", kv->options.plot);
		kv->failed = true;
	} else if (kv_plot_files(kv, p)) {
		kv->failed = true;
	} else {
		ret = kv_gnuplot(p->script);
		if (!ret)
			printf("plotted in %s\n", p->png);
		else if (ret == -ENOENT || ret == 127)
			kv_complain("no gnuplot here, so no plot; its data is in %s", p->data);
		else if (ret < 0)
			kv_complain("gnuplot: %s; the plot's data is in %s", nu_strerror(ret), p->data);
		else
			kv_complain("gnuplot ended with status %d; the plot's data is in %s", ret, p->data);
	}
	free(p);
}
