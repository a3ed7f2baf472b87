/* SPDX-License-Identifier: MIT */
/*
 * References to what has been freed, and to a segment that has another tenant now: -ESTALE, near and far, with and without
 * a remembered place, after moves; and never does such a call reach the tenant.
 */
#include "check.h"

#define SEGMENT(id) ((id) >> 39) /* core/core.h: the number of an id's segment */
#define GENERATIONS 6
#define CAPACITY    ((size_t)1 << 40) /* some thirty of these: each is dealt out again soon */
#define WAIT_US	    10000000u

struct flat {
	uint64_t visits;
	bool marked;
};
NU_CLASS(flat);
NU_METHOD(flat, visit, val(uint64_t));
NU_METHOD(flat, visits, val(uint64_t));

/* Calls from where it is pinned. */
struct visitor {
	int dummy;
};
NU_CLASS(visitor);
NU_METHOD(visitor, visit, val(int), weak(flat, to));
NU_METHOD(visitor, take, val(int), weak(flat, of));
NU_METHOD(visitor, move, val(int), weak(flat, what), val(unsigned, to));

int flat_init(struct flat *f)
{
	return 0;
}

uint64_t flat_do_visit(struct flat *f)
{
	return ++f->visits;
}

uint64_t flat_do_visits(struct flat *f)
{
	return f->visits;
}

int visitor_init(struct visitor *v)
{
	return 0;
}

int visitor_do_visit(struct visitor *v, struct flat_weak to)
{
	uint64_t n;

	return flat_visit((struct flat_ref){to.ref}, &n);
}

int visitor_do_take(struct visitor *v, struct flat_weak of)
{
	struct flat_ref ref = {{0}};
	int ret = flat_weak_get(of, &ref);

	return ret ? ret : flat_ref_put(&ref);
}

int visitor_do_move(struct visitor *v, struct flat_weak what, unsigned to)
{
	return nu_migrate(what.ref, to);
}

static struct visitor_ref visitors[16];

static struct flat_ref make(void)
{
	struct flat_ref f = {{0}};

	CHECK_IS(flat_create(&(struct nu_options){.capacity_bytes = CAPACITY}, &f), 0);
	return f;
}

/* Everybody who may remember where it was is refused, whatever he asks. */
static void check_gone(struct nu_ref old)
{
	struct flat_weak weak = {old};
	uint64_t n;

	CHECK_IS(flat_visit((struct flat_ref){old}, &n), -ESTALE);
	CHECK_IS(nu_locate(old), -ESTALE);
	CHECK_IS(nu_ref_get(old), -ESTALE);
	for (unsigned node = 0; node < nu_node_count(); node++) {
		int ret = 0;

		CHECK_IS(visitor_visit(visitors[node], weak, &ret), 0);
		CHECK_IS(ret, -ESTALE);
		CHECK_IS(visitor_take(visitors[node], weak, &ret), 0);
		CHECK_IS(ret, -ESTALE);
		CHECK_IS(visitor_move(visitors[node], weak, (node + 1) % nu_node_count(), &ret), 0);
		CHECK_IS(ret, -ESTALE);
	}
}

/* Called from every node at every place, so that all of them remember one. */
static void visit_everywhere(struct flat_ref f)
{
	unsigned start = (unsigned)nu_locate(f.ref);

	for (unsigned i = 1; i <= nu_node_count(); i++) {
		for (unsigned node = 0; node < nu_node_count(); node++) {
			int ret = -1;

			CHECK_IS(visitor_visit(visitors[node], (struct flat_weak){f.ref}, &ret), 0);
			CHECK_IS(ret, 0);
		}
		CHECK_IS(check_move(f.ref, (start + i) % nu_node_count()), 0);
	}
}

/*
 * A proclet in the segment that @old had: the others are freed again. Segments come back when all nodes have forgotten who was
 * there; on a busy machine one of them may be a quarter of a second late, and hundreds of others come and go meanwhile.
 */
static struct flat_ref next_tenant(struct nu_ref old)
{
	uint64_t end = nu_now_us() + WAIT_US;
	struct flat_ref got = {{0}};

	while (nu_now_us() < end) {
		got = make();
		CHECK(got.ref.id != old.id);
		if (SEGMENT(got.ref.id) == SEGMENT(old.id))
			return got;
		CHECK_IS(flat_ref_put(&got), 0);
	}
	CHECK_MSG(false, "no proclet came into segment %u again", (unsigned)SEGMENT(old.id));
	return got;
}

static void freed_and_reused(void)
{
	struct nu_ref old[GENERATIONS];
	struct flat_ref f = make();
	long left;

	for (unsigned g = 0; g < GENERATIONS; g++) {
		uint64_t n = 0;

		visit_everywhere(f);
		old[g] = f.ref;
		CHECK_IS(flat_ref_put(&f), 0);
		check_left((long)nu_node_count()); /* the visitors */
		for (unsigned i = 0; i <= g; i++)
			check_gone(old[i]);
		f = next_tenant(old[g]);
		for (unsigned i = 0; i <= g; i++)
			check_gone(old[i]);
		CHECK_IS(flat_visits(f, &n), 0);
		CHECK_IS(n, 0); /* nobody else's call came here */
	}
	CHECK_IS(flat_ref_put(&f), 0);
	left = (long)nu_node_count();
	check_left(left);
}

static int stale_main(int argc, char **argv)
{
	for (unsigned n = 0; n < nu_node_count(); n++)
		if (visitor_create(&(struct nu_options){.node = NU_NODE(n), .pinned = true}, &visitors[n]))
			return 1;
	CHECK_RUN(freed_and_reused);
	return check_done();
}
CHECK_PROGRAM(stale_main)
