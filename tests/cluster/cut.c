/* SPDX-License-Identifier: MIT */
/*
 * Connections are cut under load: a thread on each node shuts its TCP sockets down at random times while calls,
 * closures, nested calls and moves go on. In the end every call was run exactly once and in its caller's order, none
 * returned an error, and when all is quiet no node keeps a batch.
 *
 * usage: cut MS [PAUSE_US]    for so long, with at most so long between two cuts on a node
 */
#include "check.h"

#include <nu/nu_testing.h>

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALLERS	  3u /* proclets on each node, of THREADS threads each */
#define THREADS	  2u
#define LEDGERS	  4u
#define NODES_MAX 4u
#define LINES	  (CALLERS * THREADS * NODES_MAX)
#define FDS_MAX	  128u
#define QUIET_MS  15000u
#define EARLY_MS  400u
#define TEXT_MAX  40000u

static unsigned run_ms = 3000, cut_pause_us = 30000;

/* ---- cutting ---- */

struct knife {
	uint64_t cuts, random;
};
NU_CLASS(knife, val(uint64_t, seed));
NU_METHOD(knife, cut_for, val(uint64_t), val(uint64_t, us), val(uint64_t, pause));
NU_METHOD(knife, quiet_after_ms, val(int64_t));
NU_METHOD(knife, broken, val(uint64_t));
NU_METHOD(knife, resent, val(uint64_t));

int knife_init(struct knife *k, uint64_t seed)
{
	k->random = seed * 2654435761u + 88172645463325252u;
	return 0;
}

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Connected TCP sockets of this process: all of them are the wire's. */
static unsigned tcp_sockets(int fds[FDS_MAX])
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	for (struct dirent *e; d && n < FDS_MAX && (e = readdir(d));) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(int), alen = sizeof(a);
		int domain = 0, fd = atoi(e->d_name);

		if (e->d_name[0] == '.' || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) ||
		    (domain != AF_INET && domain != AF_INET6) ||
		    getpeername(fd, (struct sockaddr *)&a, &alen))
			continue;
		fds[n++] = fd;
	}
	if (d)
		closedir(d);
	return n;
}

/* Mostly one socket and both ways; at times one way, or all of them at once. Nothing in here switches threads. */
static __attribute__((noinline)) unsigned cut_some(uint64_t random)
{
	static const int hows[] = {SHUT_RDWR, SHUT_RDWR, SHUT_RD, SHUT_WR};
	int fds[FDS_MAX];
	unsigned n = tcp_sockets(fds), cut = 0;
	int how = hows[random >> 40 & 3];

	for (unsigned i = 0; i < n; i++) {
		if (random % 8 && i != (random >> 8) % n)
			continue;
		if (!shutdown(fds[i], how))
			cut++;
	}
	return cut;
}

uint64_t knife_do_cut_for(struct knife *k, uint64_t us, uint64_t pause)
{
	uint64_t end = nu_now_us() + us, share = us / pause / nu_node_count() + 1;

	/* On a loaded machine it takes longer, but as many are cut. */
	while (nu_now_us() < end || (k->cuts < share && nu_now_us() < end + 9 * us)) {
		k->cuts += cut_some(next_random(&k->random));
		nu_sleep_us(1 + next_random(&k->random) % pause);
	}
	return k->cuts;
}

/* From the beginning, before there is a proclet: the first connections are cut, too. */
static void *cut_early(void *arg)
{
	uint64_t x = 0x9e3779b97f4a7c15u * ((uint64_t)(uintptr_t)arg + 1);

	for (unsigned i = 0; i < EARLY_MS; i++) {
		cut_some(next_random(&x));
		usleep(1 + (unsigned)(next_random(&x) % 2000));
	}
	return NULL;
}

static int start_early(unsigned node)
{
	pthread_t t;
	int err = pthread_create(&t, NULL, cut_early, (void *)(uintptr_t)node);

	return err ? -err : pthread_detach(t);
}

/* When this node keeps no batch any more; -1: it goes on keeping some. */
int64_t knife_do_quiet_after_ms(struct knife *k)
{
	uint64_t begin = nu_now_us();
	struct nu_testing_wire w;

	nu_testing_wire(&w);
	while (w.kept && nu_now_us() - begin < QUIET_MS * 1000) {
		nu_sleep_us(20000);
		nu_testing_wire(&w);
	}
	return w.kept ? -1 : (int64_t)((nu_now_us() - begin) / 1000);
}

uint64_t knife_do_broken(struct knife *k)
{
	struct nu_testing_wire w;

	nu_testing_wire(&w);
	return w.broken;
}

uint64_t knife_do_resent(struct knife *k)
{
	struct nu_testing_wire w;

	nu_testing_wire(&w);
	return w.resent;
}

/* ---- what is called: every line has its own order ---- */

NU_STRUCT(account, val(uint64_t, n), val(uint64_t, sum), val(uint64_t, wrong));

struct ledger {
	struct nu_mutex mutex;
	struct account a;
	uint64_t next[LINES];
};
NU_CLASS(ledger);
NU_METHOD(ledger, enter, val(uint64_t), val(uint32_t, line), val(uint64_t, seq), bytes(text));
NU_METHOD(ledger, account, obj(account));

int ledger_init(struct ledger *l)
{
	return 0;
}

static unsigned char letter(uint64_t seq, size_t i)
{
	return (unsigned char)(seq * 31 + i * 7);
}

uint64_t ledger_do_enter(struct ledger *l, uint32_t line, uint64_t seq, struct nu_bytes text)
{
	const unsigned char *at = text.data;

	nu_mutex_lock(&l->mutex);
	l->a.wrong += l->next[line] != seq;
	l->next[line] = seq + 1;
	for (size_t i = 0; i < text.len_bytes; i += 61)
		l->a.wrong += at[i] != letter(seq, i);
	l->a.n++;
	l->a.sum += seq;
	nu_mutex_unlock(&l->mutex);
	return seq * 3 + line;
}

struct account ledger_do_account(struct ledger *l)
{
	return l->a;
}

/* A closure that calls on: the caller waits for this ledger, which waits for the other. */
NU_CLOSURE(ledger, relay, val(uint64_t), ref(ledger, other), val(uint32_t, line), val(uint64_t, seq));

uint64_t ledger_do_relay(struct ledger *l, struct ledger_ref other, uint32_t line, uint64_t seq)
{
	uint64_t got = 0;
	int err = ledger_enter(other, line, seq, (struct nu_bytes){NULL, 0}, &got);

	return err ? (uint64_t)(int64_t)err : got;
}

/* ---- who calls ---- */

struct caller {
	uint32_t line;
	_Atomic bool stop;
	struct ledger_ref to[LEDGERS];
	struct nu_waitgroup running;
	struct nu_mutex mutex;
	struct account a;
	unsigned next_thread;
	unsigned char texts[THREADS][TEXT_MAX];
};
NU_CLASS(caller, val(uint32_t, line));
NU_METHOD(caller, knows, val(int), val(unsigned, i), ref(ledger, l));
NU_METHOD(caller, start, val(int));
NU_METHOD(caller, stop, obj(account));

int caller_init(struct caller *c, uint32_t line)
{
	c->line = line;
	return 0;
}

int caller_do_knows(struct caller *c, unsigned i, struct ledger_ref l)
{
	int ret = ledger_ref_get(l);

	if (!ret)
		c->to[i] = l;
	return ret;
}

static int one_call(struct caller *c, uint64_t *x, uint32_t line, uint64_t *seqs, unsigned char *text)
{
	unsigned i = (unsigned)(next_random(x) % LEDGERS), via = (unsigned)(next_random(x) % LEDGERS);
	uint64_t seq = seqs[i]++, got = 0;
	size_t len = next_random(x) % 64 ? next_random(x) % 600 : next_random(x) % TEXT_MAX;
	int ret;

	if (next_random(x) % 4 == 0) {
		ret = ledger_relay(c->to[via], c->to[i], line, seq, &got);
	} else {
		for (size_t k = 0; k < len; k++)
			text[k] = letter(seq, k);
		ret = ledger_enter(c->to[i], line, seq, (struct nu_bytes){text, len}, &got);
	}
	return ret || got != seq * 3 + line;
}

static void caller_body(void *arg)
{
	struct caller *c = arg;
	uint64_t seqs[LEDGERS] = {0}, x, wrong = 0;
	unsigned char *text;
	uint32_t line;

	nu_mutex_lock(&c->mutex);
	text = c->texts[c->next_thread];
	line = c->line + c->next_thread++;
	nu_mutex_unlock(&c->mutex);
	x = 0x9e3779b97f4a7c15u * (line + 1);
	while (!c->stop)
		wrong += (uint64_t)one_call(c, &x, line, seqs, text);
	nu_mutex_lock(&c->mutex);
	for (unsigned i = 0; i < LEDGERS; i++) {
		c->a.n += seqs[i];
		c->a.sum += seqs[i] ? seqs[i] * (seqs[i] - 1) / 2 : 0;
	}
	c->a.wrong += wrong;
	nu_mutex_unlock(&c->mutex);
	nu_waitgroup_done(&c->running);
}

int caller_do_start(struct caller *c)
{
	int ret = 0;

	nu_waitgroup_add(&c->running, THREADS);
	for (unsigned i = 0; i < THREADS && !ret; i++) {
		struct nu_thread *t;

		ret = nu_thread_spawn(caller_body, c, &t);
		if (!ret)
			nu_thread_detach(t);
	}
	return ret;
}

struct account caller_do_stop(struct caller *c)
{
	c->stop = true;
	nu_waitgroup_wait(&c->running);
	for (unsigned i = 0; i < LEDGERS; i++)
		ledger_ref_put(&c->to[i]);
	return c->a;
}

/* ---- the test ---- */

struct scene {
	unsigned nodes, ncallers, moves, failed;
	struct knife_ref knives[NODES_MAX];
	struct knife_cut_for_future cutting[NODES_MAX];
	struct ledger_ref ledgers[LEDGERS];
	struct caller_ref callers[CALLERS * NODES_MAX];
};

static void set_up(struct scene *s)
{
	s->nodes = nu_node_count();
	s->ncallers = CALLERS * s->nodes;
	for (unsigned n = 0; n < s->nodes; n++)
		CHECK_IS(knife_create(&(struct nu_options){.node = NU_NODE(n), .pinned = true}, n + 1,
				      &s->knives[n]),
			 0);
	for (unsigned i = 0; i < LEDGERS; i++)
		CHECK_IS(ledger_create(&(struct nu_options){.node = NU_NODE(i % s->nodes)}, &s->ledgers[i]),
			 0);
	for (unsigned i = 0; i < s->ncallers; i++) {
		const struct nu_options o = {.node = NU_NODE(i % s->nodes)};
		int ret = 0;

		CHECK_IS(caller_create(&o, i * THREADS, &s->callers[i]), 0);
		for (unsigned k = 0; k < LEDGERS; k++) {
			CHECK_IS(caller_knows(s->callers[i], k, s->ledgers[k], &ret), 0);
			CHECK_IS(ret, 0);
		}
	}
}

static void move_about(struct scene *s, uint64_t end_us)
{
	uint64_t x = 4711;

	while (nu_now_us() < end_us) {
		unsigned i = (unsigned)(next_random(&x) % (LEDGERS + s->ncallers));
		struct nu_ref ref = i < LEDGERS ? s->ledgers[i].ref : s->callers[i - LEDGERS].ref;
		int ret = check_move(ref, (unsigned)(next_random(&x) % s->nodes));

		s->moves++;
		if (ret) {
			s->failed++;
			printf("     a move: %s\n", nu_strerror(ret));
		}
		nu_sleep_us(2000);
	}
}

static void compare(struct scene *s)
{
	struct account called = {0}, entered = {0};

	for (unsigned i = 0; i < s->ncallers; i++) {
		struct account a = {0};

		CHECK_IS(caller_stop(s->callers[i], &a), 0);
		called.n += a.n;
		called.sum += a.sum;
		called.wrong += a.wrong;
	}
	for (unsigned i = 0; i < LEDGERS; i++) {
		struct account a = {0};

		CHECK_IS(ledger_account(s->ledgers[i], &a), 0);
		entered.n += a.n;
		entered.sum += a.sum;
		entered.wrong += a.wrong;
	}
	printf("     %lu calls, %u moves\n", (unsigned long)called.n, s->moves);
	CHECK(called.n > 0);
	CHECK_IS(called.wrong, 0);
	CHECK_IS(entered.wrong, 0);
	CHECK_MSG(entered.n == called.n, "%lu calls were run, %lu made", (unsigned long)entered.n,
		  (unsigned long)called.n);
	CHECK_IS(entered.sum, called.sum);
	CHECK_IS(s->failed, 0);
}

/* Asked of all at once, so that the answers of some are not what others keep. */
static void fall_silent(struct scene *s)
{
	struct knife_quiet_after_ms_future f[NODES_MAX];

	for (unsigned n = 0; n < s->nodes; n++)
		CHECK_IS(knife_quiet_after_ms_async(s->knives[n], &f[n]), 0);
	for (unsigned n = 0; n < s->nodes; n++) {
		int64_t ms = -1;

		CHECK_IS(knife_quiet_after_ms_wait(&f[n], &ms), 0);
		CHECK_MSG(ms >= 0, "node %u still keeps batches after %u ms", n, QUIET_MS);
	}
}

static void connections_are_cut(void)
{
	struct scene *s = calloc(1, sizeof(*s));
	uint64_t cuts = 0, broken = 0, resent = 0, n;
	int ret;

	set_up(s);
	for (unsigned i = 0; i < s->nodes; i++)
		CHECK_IS(knife_cut_for_async(s->knives[i], run_ms * 1000ull, cut_pause_us, &s->cutting[i]),
			 0);
	for (unsigned i = 0; i < s->ncallers; i++) {
		CHECK_IS(caller_start(s->callers[i], &ret), 0);
		CHECK_IS(ret, 0);
	}
	move_about(s, nu_now_us() + run_ms * 1000ull);
	for (unsigned i = 0; i < s->nodes; i++) {
		CHECK_IS(knife_cut_for_wait(&s->cutting[i], &n), 0);
		cuts += n;
	}
	compare(s);
	fall_silent(s);
	for (unsigned i = 0; i < s->nodes; i++) {
		CHECK_IS(knife_broken(s->knives[i], &n), 0);
		broken += n;
		CHECK_IS(knife_resent(s->knives[i], &n), 0);
		resent += n;
	}
	printf("     %lu cuts; %lu connections broke, %lu batches were sent again\n", (unsigned long)cuts,
	       (unsigned long)broken, (unsigned long)resent);
	CHECK(cuts >= run_ms * 1000 / cut_pause_us);
	CHECK(broken >= cuts / 4);
	CHECK(resent > 0);
	for (unsigned i = 0; i < s->ncallers; i++)
		caller_ref_put(&s->callers[i]);
	for (unsigned i = 0; i < LEDGERS; i++)
		ledger_ref_put(&s->ledgers[i]);
	for (unsigned i = 0; i < s->nodes; i++)
		knife_ref_put(&s->knives[i]);
	check_left(0);
	free(s);
}

static int cut_main(int argc, char **argv)
{
	if (argc > 1)
		run_ms = (unsigned)atoi(argv[1]);
	if (argc > 2)
		cut_pause_us = (unsigned)atoi(argv[2]);
	CHECK_RUN(connections_are_cut);
	return check_done();
}

int main(int argc, char **argv)
{
	static const struct nu_run_options options = {.writable_globals = true, .node_init = start_early};

	return nu_run(argc, argv, cut_main, &options);
}
