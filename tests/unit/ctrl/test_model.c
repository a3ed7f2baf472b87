/* SPDX-License-Identifier: MIT */
/* The controller's state under seeded random schedules, against a model made of plain arrays and loops. */
#include "ctrl/state.h"

#include <criterion/criterion.h>
#include <string.h>

/* Books only, nothing is mapped: the whole region, where a sanitizer leaves less, too. */
static void __attribute__((constructor)) whole_region(void)
{
	nu_layout.seg_region_bytes = (size_t)NU_SEG_UNIT_BYTES << NU_SEG_INDEX_BITS;
}

#define NONE	    NU_CTRL_NO_NODE
#define OK(x)	    cr_assert_eq((x), 0)
#define IS(x, want) cr_assert_eq((x), (want), "%s is %d, not %d", #x, (int)(x), (int)(want))

static struct nu_ctrl c;
static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1d >> 11) % below;
}

#define NODES 250
#define LIVE  400
#define EVER  80000

struct m_proclet {
	uint64_t id, location, reserved, bytes;
	unsigned node, to, home, order;
	enum nu_ctrl_life life;
	bool pinned, to_held, segment;
	bool holds[NODES];
};
static struct m_proclet m[LIVE];
static unsigned m_count;
static uint64_t m_ids[EVER];
static unsigned m_ever;
static struct {
	enum nu_node_state state;
	uint64_t used, recent;
} m_node[NODES];
static unsigned m_nodes;
static unsigned hits[8]; /* rare things that did happen */

static bool m_dead(unsigned n)
{
	return m_node[n].state == NU_NODE_DEAD;
}

static struct m_proclet *m_find(uint64_t id)
{
	for (unsigned i = 0; i < m_count; i++)
		if (m[i].id == id)
			return &m[i];
	return NULL;
}

static void m_settle(struct m_proclet *p)
{
	for (unsigned i = 0; i < m_nodes; i++)
		if (p->holds[i] && !m_dead(i))
			return;
	p->segment = false;
}

/* Takes out those that are no more. */
static void m_sweep(void)
{
	for (unsigned i = 0; i < m_count;)
		if (m[i].life == NU_CTRL_GONE && !m[i].segment)
			m[i] = m[--m_count];
		else
			i++;
}

static uint64_t m_free(unsigned n)
{
	uint64_t taken = m_node[n].used + m_node[n].recent;

	for (unsigned i = 0; i < m_count; i++)
		if (m[i].reserved && (m[i].life == NU_CTRL_NEW ? m[i].node : m[i].to) == n)
			taken += m[i].reserved;
	return taken < NU_GIB ? NU_GIB - taken : 0;
}

/* Placement tells nodes apart by sixteenths of their memory. */
static uint64_t m_share(unsigned n)
{
	return m_free(n) / (NU_GIB / 16 + 1);
}

static unsigned any_node(void)
{
	/* Mostly a young one: the old ones are dead. */
	return (unsigned)(rnd(4) && m_nodes > 12 ? m_nodes - 1 - rnd(12) : rnd(m_nodes));
}

static void m_lose(struct m_proclet *p)
{
	if (p->to != NONE && !p->to_held)
		p->holds[p->to] = false;
	p->to = p->home = NONE;
	p->reserved = 0;
	p->life = NU_CTRL_LOST;
	m_settle(p);
}

static void m_undo(struct m_proclet *p)
{
	if (!p->to_held)
		p->holds[p->to] = false;
	p->to = NONE;
	p->reserved = 0;
	p->life = NU_CTRL_LIVE;
}

static void m_done(struct m_proclet *p)
{
	m_node[p->to].recent += p->reserved ? p->reserved : 0;
	if (p->home == p->to)
		p->home = NONE;
	else if (p->home == NONE && m_node[p->node].state == NU_NODE_DRAINING)
		p->home = p->node;
	p->node = p->to;
	p->location++;
	p->to = NONE;
	p->reserved = 0;
	p->life = NU_CTRL_LIVE;
}

static int m_status(const struct m_proclet *p)
{
	return !p || p->life == NU_CTRL_GONE ? -ESTALE : p->life == NU_CTRL_LOST ? -EHOSTDOWN : 0;
}

static void do_new(void)
{
	unsigned wanted = rnd(3) ? NONE : any_node(), at = 0, order = (unsigned)(rnd(8) ? rnd(8) : 20);
	uint64_t id = 0, bytes = rnd(8 * NU_MIB);
	bool pinned = !rnd(8);
	unsigned ups = 0;
	int want = 0, ret;

	if (m_count == LIVE || m_ever == EVER)
		return;
	for (unsigned i = 0; i < m_nodes; i++)
		ups += m_node[i].state == NU_NODE_UP;
	if (wanted != NONE)
		want = m_dead(wanted) ? -EHOSTDOWN : m_node[wanted].state == NU_NODE_UP ? 0 : -EBUSY;
	else if (!ups)
		want = -EHOSTDOWN;
	ret = nu_ctrl_proclet_new(&c, NU_MIB << order, pinned, wanted, bytes, &id, &at);
	if (ret == -ENOMEM && !want && order == 20) {
		hits[0]++;
		return;
	}
	IS(ret, want);
	if (ret)
		return;
	cr_assert(wanted == NONE || at == wanted);
	for (unsigned i = 0; wanted == NONE && i < m_nodes; i++)
		cr_assert(m_node[i].state != NU_NODE_UP || m_share(i) <= m_share(at),
			  "node %u had more free memory", i);
	cr_assert_eq(m_node[at].state, NU_NODE_UP);
	/* A higher generation than any before: ids never repeat. */
	for (unsigned i = m_ever; i-- > 0 && i + 3 > m_ever;)
		cr_assert_gt(nu_id_gen(id), nu_id_gen(m_ids[i]));
	for (unsigned i = 0; i < m_count; i++)
		if (m[i].segment)
			cr_assert(nu_id_seg(m[i].id) >= nu_id_seg(id) + (1u << order) ||
					  nu_id_seg(m[i].id) + (1u << m[i].order) <= nu_id_seg(id),
				  "segment %u is not free yet", nu_id_seg(id));
	m_ids[m_ever++] = id;
	bytes = bytes > NU_CTRL_MIN_BYTES ? bytes : NU_CTRL_MIN_BYTES;
	m[m_count] = (struct m_proclet){.id = id,
					.location = 1,
					.bytes = bytes,
					.reserved = bytes,
					.node = at,
					.to = NONE,
					.home = NONE,
					.order = order,
					.life = NU_CTRL_NEW,
					.pinned = pinned,
					.segment = true};
	m[m_count++].holds[at] = true;
}

static void do_ready(struct m_proclet *p)
{
	int want = m_status(p);

	IS(nu_ctrl_proclet_ready(&c, p->id), want);
	if (!want && p->life == NU_CTRL_NEW) {
		m_node[p->node].recent += p->reserved;
		p->reserved = 0;
		p->life = NU_CTRL_LIVE;
	}
}

static void do_free(struct m_proclet *p)
{
	unsigned node = rnd(10) ? p->node : p->to != NONE && rnd(2) ? p->to : any_node();
	int want = 0;

	if (p->life == NU_CTRL_GONE)
		want = -ESTALE;
	else if (node != p->node && node != p->to)
		want = -EINVAL;
	else if (p->life == NU_CTRL_LOST)
		want = 0;
	else if (m_dead(node))
		want = -EHOSTDOWN;
	else if (p->to != NONE && node == p->node && p->life == NU_CTRL_LIVE)
		want = -EBUSY;
	IS(nu_ctrl_proclet_free(&c, p->id, node), want);
	if (want)
		return;
	if (p->life != NU_CTRL_LOST) {
		hits[1] += p->to != NONE;
		if (p->to != NONE && node == p->to)
			m_done(p);
		else if (p->to != NONE)
			m_undo(p);
		p->holds[node] = false;
	}
	p->life = NU_CTRL_GONE;
	p->reserved = 0;
	p->home = NONE;
	m_settle(p);
}

static void do_forgot(struct m_proclet *p)
{
	unsigned node = any_node();
	int want;

	/* One that holds it, as a rule. */
	for (unsigned i = 0; i < m_nodes && rnd(5); i++)
		if (p->holds[(node + i) % m_nodes]) {
			node = (node + i) % m_nodes;
			break;
		}
	want = m_dead(node)						      ? -EHOSTDOWN
	       : p->life < NU_CTRL_LOST && (node == p->node || node == p->to) ? -EBUSY
									      : 0;
	IS(nu_ctrl_forgot(&c, p->id, node), want);
	if (!want) {
		p->holds[node] = false;
		if (p->life >= NU_CTRL_LOST)
			m_settle(p);
	}
}

static void do_begin(struct m_proclet *p)
{
	unsigned to = any_node();
	uint64_t location, bytes;
	int want = m_status(p);

	if (!want && m_dead(to))
		want = -EHOSTDOWN;
	else if (!want && (p->life != NU_CTRL_LIVE || p->to != NONE))
		want = -EBUSY;
	else if (!want && to == p->node)
		want = 1;
	else if (!want && p->pinned)
		want = -EPERM;
	else if (!want && m_node[to].state != NU_NODE_UP)
		want = -EBUSY;
	IS(nu_ctrl_move_begin(&c, p->id, to, &location, &bytes), want);
	if (want)
		return;
	p->reserved = p->bytes > NU_CTRL_MIN_BYTES ? p->bytes : NU_CTRL_MIN_BYTES;
	cr_assert(location == p->location + 1 && bytes == p->reserved);
	p->to = to;
	p->to_held = p->holds[to];
	p->holds[to] = true;
}

static void do_end(struct m_proclet *p)
{
	bool moved = rnd(3);
	unsigned at = !rnd(10) ? any_node() : moved && p->to != NONE ? p->to : p->node;
	uint64_t location = p->location + (p->to != NONE && at == p->to);
	int want = m_status(p);

	if (!rnd(10))
		location += rnd(3) - 1;
	if (!want && p->to != NONE && moved && at == p->to && location == p->location + 1) {
		if (m_dead(at)) {
			want = -EHOSTDOWN;
			m_lose(p);
		} else {
			m_done(p);
		}
	} else if (!want && at == p->node && location == p->location && (moved || p->to == NONE)) {
		want = 0;
	} else if (!want && !moved && at == p->node &&
		   (location == p->location || location == p->location + 1)) {
		if (p->to != NONE && m_dead(at)) {
			want = -EHOSTDOWN;
			m_lose(p);
		} else if (p->to != NONE) {
			m_undo(p);
		}
	} else if (!want) {
		want = -ESTALE;
	}
	IS(nu_ctrl_move_end(&c, p->id, at, location, moved), want);
}

static void do_resolve(void)
{
	static struct nu_ctrl_doubt d[LIVE];
	uint64_t n = nu_ctrl_doubts(&c, d, LIVE), in_model = 0;
	struct m_proclet *p;

	for (unsigned i = 0; i < m_count; i++)
		in_model += m[i].life == NU_CTRL_DOUBT;
	IS(n, in_model);
	if (!n)
		return;
	n = rnd(n);
	p = m_find(d[n].id);
	cr_assert(p && p->life == NU_CTRL_DOUBT && p->node == d[n].from && p->to == d[n].to &&
		  d[n].from_alive == !m_dead(p->node));
	if (!rnd(3)) {
		OK(nu_ctrl_resolve(&c, p->id, NONE, 0));
		m_lose(p);
		hits[2]++;
	} else if (d[n].from_alive) {
		IS(nu_ctrl_resolve(&c, p->id, p->to, p->location + 1), -EHOSTDOWN);
		OK(nu_ctrl_resolve(&c, p->id, p->node, p->location));
		m_undo(p);
		hits[3]++;
	} else {
		IS(nu_ctrl_resolve(&c, p->id, p->node, p->location), -EHOSTDOWN);
		IS(nu_ctrl_resolve(&c, p->id, p->to, p->location), -ESTALE);
		OK(nu_ctrl_resolve(&c, p->id, p->to, p->location + 1));
		m_done(p);
		hits[4]++;
	}
}

static void do_death(void)
{
	unsigned n = any_node(), alive = 0;

	for (unsigned i = 0; i < m_nodes; i++)
		alive += !m_dead(i);
	if (alive < 4)
		return;
	OK(nu_ctrl_node_dead(&c, n));
	m_node[n].state = NU_NODE_DEAD;
	for (unsigned i = 0; i < m_count; i++) {
		struct m_proclet *p = &m[i];
		bool here = p->node == n || p->to == n;

		if (p->home == n)
			p->home = NONE;
		if (p->life == NU_CTRL_GONE || p->life == NU_CTRL_LOST)
			m_settle(p);
		else if (here && p->life == NU_CTRL_LIVE && p->to != NONE) {
			p->life = NU_CTRL_DOUBT;
			p->reserved = p->to == n ? 0 : p->reserved;
		} else if (here) {
			hits[5] += p->life == NU_CTRL_DOUBT && !(m_dead(p->node) != m_dead(p->to));
			if (p->life != NU_CTRL_DOUBT || (m_dead(p->node) && m_dead(p->to)))
				m_lose(p);
		}
	}
}

static void join(void)
{
	OK(nu_ctrl_node_join(&c, m_nodes, 2, NU_GIB));
	m_node[m_nodes++].state = NU_NODE_UP;
}

static void do_node(void)
{
	unsigned n = any_node(), alive = 0, ups = 0;
	enum nu_node_state state = rnd(2) ? NU_NODE_UP : NU_NODE_DRAINING;
	int want;

	for (unsigned i = 0; i < m_nodes; i++) {
		alive += !m_dead(i);
		ups += i != n && m_node[i].state == NU_NODE_UP;
	}
	if (alive < 8 && m_nodes < NODES) {
		join();
		return;
	}
	want = m_dead(n) ? -EHOSTDOWN : state == NU_NODE_DRAINING && !ups ? -EINVAL : 0;
	IS(nu_ctrl_set_state(&c, n, state), want);
	if (!want)
		m_node[n].state = state;
}

static void do_report(void)
{
	unsigned n = any_node();
	uint64_t used = rnd(NU_GIB);

	IS(nu_ctrl_node_report(&c, n, used), m_dead(n) ? -EHOSTDOWN : 0);
	if (!m_dead(n)) {
		m_node[n].used = used;
		m_node[n].recent = 0;
	}
	if (m_count) {
		struct m_proclet *p = &m[rnd(m_count)];

		used = rnd(8 * NU_MIB);
		IS(nu_ctrl_proclet_sized(&c, p->id, used), m_status(p));
		p->bytes = m_status(p) ? p->bytes : used;
	}
}

static void look(uint64_t id)
{
	struct m_proclet *p = m_find(id);
	int want = m_status(p);
	unsigned at = 0;
	uint64_t location = 0;

	if (!want && m_dead(p->node))
		want = -EAGAIN;
	IS(nu_ctrl_locate(&c, id, &at, &location), want);
	if (!want)
		cr_assert(at == p->node && location == p->location);
}

static void do_lists(void)
{
	uint64_t ids[5], after = m_count ? m[rnd(m_count)].id - rnd(2) : 0;
	unsigned n = 0, node = any_node();
	bool away = rnd(2);
	int ret = away ? nu_ctrl_away(&c, node, after, ids, 5, &n)
		       : nu_ctrl_victims(&c, node, after, ids, 5, &n);

	IS(ret, m_dead(node) ? -EHOSTDOWN : 0);
	/* The next in the model after each one listed is the one listed next. */
	for (unsigned k = 0; !ret && k <= n && k < 5; k++) {
		uint64_t next = ~(uint64_t)0;

		for (unsigned i = 0; i < m_count; i++)
			if (m[i].life == NU_CTRL_LIVE && !m[i].pinned && m[i].to == NONE && m[i].id > after &&
			    m[i].id < next && (away ? m[i].home : m[i].node) == node)
				next = m[i].id;
		cr_assert_eq(k < n ? ids[k] : ~(uint64_t)0, next);
		hits[6 + away] += k < n;
		after = next;
	}
}

static void step(void)
{
	struct m_proclet *p = m_count ? &m[rnd(m_count)] : NULL;
	unsigned what = (unsigned)rnd(1000);

	if (what < 200 || !p)
		do_new();
	else if (what < 330)
		do_ready(p);
	else if (what < 430)
		do_free(p);
	else if (what < 560)
		do_forgot(p);
	else if (what < 720)
		do_begin(p);
	else if (what < 860)
		do_end(p);
	else if (what < 880)
		do_resolve();
	else if (what < 890)
		do_node();
	else if (what < 930)
		do_report();
	else if (what < 933)
		do_death();
	else if (what < 960)
		do_lists();
	else if (rnd(2))
		look(p->id);
	else
		look(m_ids[rnd(m_ever)]);
	m_sweep();
}

static void finish(unsigned blocks)
{
	struct nu_ctrl_totals t;
	uint64_t cursor = 0, listed = 0;
	static struct nu_ctrl_info infos[LIVE];

	while (cursor != ~(uint64_t)0)
		listed += nu_ctrl_list(&c, &cursor, infos, LIVE);
	for (unsigned i = 0; i < m_count; i++)
		listed -= m[i].life != NU_CTRL_GONE;
	IS(listed, 0);
	for (unsigned i = 0; i < m_nodes; i++)
		OK(nu_ctrl_node_dead(&c, i));
	OK(nu_ctrl_check(&c));
	nu_ctrl_totals(&c, &t);
	cr_assert(!t.fresh && !t.live && !t.doubt && !t.waiting && t.created == m_ever);
	/* All that lived is lost; without the records nothing is left. */
	for (unsigned i = 0; i < m_count; i++)
		if (m[i].life != NU_CTRL_GONE)
			OK(nu_ctrl_proclet_free(&c, m[i].id, m[i].node));
	nu_ctrl_totals(&c, &t);
	cr_assert(!t.lost && !c.by_id.count);
	cr_assert_eq(c.segments.nblocks, blocks, "not merged: %u blocks, %u at first", c.segments.nblocks,
		     blocks);
	nu_ctrl_fini(&c);
}

Test(model, random_schedules, .timeout = 100)
{
	memset(hits, 0, sizeof(hits));
	for (uint64_t run = 1; run <= 6; run++) {
		unsigned blocks;

		seed = run * 7919;
		m_count = m_ever = m_nodes = 0;
		memset(m_node, 0, sizeof(m_node));
		nu_log_level = NU_LOG_ERROR;
		OK(nu_ctrl_init(&c, 0));
		blocks = c.segments.nblocks;
		for (unsigned i = 0; i < 8; i++)
			join();
		for (unsigned i = 0; i < 25000; i++) {
			step();
			if (i % 50 == 0)
				cr_assert(!nu_ctrl_check(&c), "seed %llu, step %u",
					  (unsigned long long)run * 7919, i);
		}
		finish(blocks);
	}
	for (unsigned i = 0; i < 8; i++)
		cr_assert_gt(hits[i], 10, "rare case %u came up %u times", i, hits[i]);
}
