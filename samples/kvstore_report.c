/* SPDX-License-Identifier: MIT */
/*
 * The table at the end.
 */
#include "kvstore.h"

#include <inttypes.h>
#include <stdio.h>

static double kv_us(uint64_t ns)
{
	return (double)ns / 1e3;
}

static void kv_report_phases(const struct kvstore *kv)
{
	static const char *const names[KV_PHASES] = {"before", "draining", "drained", "restoring", "after"};
	const struct kv_watch *w = &kv->watch;

	printf("\n%-10s %8s %10s %10s %9s %9s %10s %10s\n", "latency", "seconds", "operations", "ops/s",
	       "p50 us", "p99 us", "p99.9 us", "max us");
	for (unsigned i = 0; i < KV_PHASES; i++) {
		const struct kv_hist *h = &w->phases[i];
		uint64_t count = kv_hist_count(h);

		if (!w->phase_ns[i])
			continue;
		printf("%-10s %8.2f %10" PRIu64 " %10.0f %9.1f %9.1f %10.1f %10.1f\n",
		       kv->drain.done ? names[i] : "all", (double)w->phase_ns[i] / 1e9, count,
		       (double)count * 1e9 / (double)w->phase_ns[i], kv_us(kv_hist_quantile_ns(h, 0.5)),
		       kv_us(kv_hist_quantile_ns(h, 0.99)), kv_us(kv_hist_quantile_ns(h, 0.999)),
		       kv_us(kv_hist_quantile_ns(h, 1)));
	}
}

static void kv_report_moves(const struct kvstore *kv)
{
	struct kv_moves m = kv_watch_moves(kv);

	printf("\n%-10s %" PRIu64 " proclets moved, %.1f MiB, %" PRIu64 " undone\n", "migrations", m.moves,
	       (double)m.bytes / (1 << 20), m.undone);
	if (m.moves)
		printf("%-10s p50 %.0f us, p99 %.0f us, max %.0f us\n", "blackout",
		       kv_us(kv_half_octaves_quantile_ns(m.blackouts, 64, m.blackouts_max_ns, 0.5)),
		       kv_us(kv_half_octaves_quantile_ns(m.blackouts, 64, m.blackouts_max_ns, 0.99)),
		       kv_us(m.blackouts_max_ns));
	if (kv->drain.done && !kv->drain.err)
		printf("%-10s %u proclets left node %u in %.1f ms\n", "drain", kv->drain.moved,
		       kv->options.drain.node, (kv->drain.end_s - kv->drain.begin_s) * 1e3);
	if (kv->restore.done && !kv->restore.err)
		printf("%-10s %u proclets came back to node %u in %.1f ms\n", "restore", kv->restore.moved,
		       kv->options.restore.node, (kv->restore.end_s - kv->restore.begin_s) * 1e3);
}

void kv_report(const struct kvstore *kv)
{
	struct kv_counts c = kv_watch_counts(kv);

	if (kv->nclients) {
		kv_report_phases(kv);
		kv_report_moves(kv);
		printf("%-10s %" PRIu64 " gets, %" PRIu64 " puts; %" PRIu64 " failed, %" PRIu64
		       " found no key, %" PRIu64 " stale, %" PRIu64 " corrupt\n",
		       "load", c.gets, c.puts, c.errors, c.missing, c.stale, c.corrupt);
		if (c.errors)
			printf("%-10s %s\n", "last error", nu_strerror(c.last_error));
	}
	printf("\nverified %" PRIu64 " of %zu keys, lost %" PRIu64 ", wrong %" PRIu64 "\n", kv->verified,
	       kv->file.count, kv->lost, kv->wrong);
	fflush(stdout);
}
