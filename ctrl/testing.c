/* SPDX-License-Identifier: MIT */
/* Raw access for benchmarks and tests: core/nu_testing.h. */
#include "core/nu_testing.h"
#include "ctrl/boot.h"
#include "ctrl/ctrl.h"

#include <limits.h>
#include <sys/resource.h>

static void count_one(struct nu_proclet *p, void *arg)
{
	struct nu_testing_census *c = arg;

	nu_lock_acquire(&p->lock);
	c->held += p->nheld;
	if (p->state == NU_PROCLET_MOVED)
		c->notes++;
	else if (p->state == NU_PROCLET_ARRIVING)
		c->arriving++;
	else if (p->head)
		c->present++;
	for (unsigned i = 0; i < p->nextents; i++)
		c->pool_bytes -= p->extents[i].len_bytes;
	nu_lock_release(&p->lock);
}

NU_API void nu_testing_census(struct nu_testing_census *c_p)
{
	struct nu_pool_stats pool;
	size_t here, lent;

	nu_pool_stats(&pool);
	nu_stacks_count(&here, &lent);
	*c_p = (struct nu_testing_census){.stacks = here, .lent = lent, .pool_bytes = pool.used_bytes};
	nu_proclet_for_each(count_one, c_p);
}

NU_API void nu_testing_settle(void)
{
	while (nu_pool_trim())
		;
	(void)!nu_pool_refill(0); /* without memory for it there is less of it */
}

NU_API int nu_testing_maps_leave(unsigned left)
{
	static unsigned taken;
	unsigned used, max, heaps;

	nu_maps_release(taken);
	taken = 0;
	nu_maps_stats(&used, &max, &heaps);
	if (left == UINT_MAX)
		return 0;
	if (used + left > max || nu_maps_reserve(max - used - left, NU_MAPS_CALLS))
		return -EINVAL;
	taken = max - used - left;
	return 0;
}

NU_API int nu_testing_heap(void **low_p, size_t *used_p)
{
	struct nu_proclet *p = nu_current_proclet_fn ? nu_current_proclet_fn() : NULL;

	if (!p || !p->heap)
		return -EINVAL;
	*low_p = nu_seg_addr(nu_id_seg(p->id));
	*used_p = nu_heap_used_end(p->heap);
	return 0;
}

NU_API const char *nu_testing_reader(unsigned node)
{
	return nu_reader_name(node);
}

NU_API int nu_testing_transport(unsigned node, char *buf, size_t len)
{
	return nu_wire_transport(node, buf, len);
}

NU_API bool nu_testing_alone(void)
{
	return !nu_boot_launched();
}

NU_API unsigned nu_testing_cores(void)
{
	return nu_node.cores;
}

NU_API uint64_t nu_testing_mono_ns(void)
{
	return nu_mono_ns();
}

NU_API void nu_testing_wire(struct nu_testing_wire *w)
{
	uint64_t settled = nu_stat_sum(NU_STAT_BATCHES_SETTLED); /* first: kept - settled is never below 0 */

	*w = (struct nu_testing_wire){
		.kept = nu_stat_sum(NU_STAT_BATCHES_KEPT) - settled,
		.resent = nu_stat_sum(NU_STAT_BATCHES_RESENT),
		.refused = nu_stat_sum(NU_STAT_BATCHES_REFUSED),
		.broken = nu_stat_sum(NU_STAT_CONNS_BROKEN),
	};
}

NU_API int nu_testing_address(unsigned node, void *was_p, size_t len, const void *now)
{
	return nu_wire_peer_address(node, was_p, len, now);
}

NU_API void nu_testing_reads(struct nu_testing_reads *r)
{
	struct nu_verbs_counts v;

	nu_verbs_counts(&v);
	*r = (struct nu_testing_reads){
		.requests = v.reads_posted,
		.completions = v.completions,
		.polls = v.polls,
		.sleeps = v.sleeps,
		.bytes = nu_stat_sum(NU_STAT_READ_BYTES_CMA) + nu_stat_sum(NU_STAT_READ_BYTES_VERBS) +
			 nu_stat_sum(NU_STAT_READ_BYTES_AM),
		.syscalls = nu_stat_sum(NU_STAT_READ_SYSCALLS),
		.broken = v.broken,
		.windows = v.windows_bound,
	};
}

NU_API uint64_t nu_testing_sleeps(void)
{
	return nu_stat_sum(NU_STAT_SLEEPS);
}

NU_API uint64_t nu_testing_cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000u +
	       (uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec;
}
