/* SPDX-License-Identifier: MIT */
/*
 * One fault in one scenario, and what must hold after it. Four nodes: 0 main and controller, 1 the source (or the one
 * that asks), 2 the destination, 3 a bystander that knows what moves: it was there before, so it has a note where it
 * went, and its threads' stacks are the bystander's.
 *
 *	fault names			every fault point, one a line
 *	fault SCENARIO [RULES [KIND [NODE [NODE]]]]
 *
 * KIND says what the rules do: none, kill (NODE dies), stop (NODE stops and is continued), error (what is tried fails
 * with the errno NODE, and is then tried again).
 */
#include "../cluster/check.h"
#include "core/nu_testing.h"

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#define NODES		4u
#define SOURCE		1u
#define DEST		2u
#define BY		3u
#define KEYS		16u
#define KEY_OUT		15u
#define KEY_PROBE	13u
#define PROBE_US	400u
#define BOUND_US	15000000u /* for everything that must happen; seen in milliseconds */
#define STEP_US		1000u
#define SUBJECT_THREADS 4u
#define DRAINED		5u

enum kind { NONE, KILL, STOP, ERROR };
static enum kind kind;
static unsigned arg;	       /* the node that dies or stops, or the errno */
static unsigned other = NODES; /* another node that dies, if any */
static const char *fault_rules;

static bool dead[NODES];
/* ---- an agent on each node: arms, counts, calls, creates ---- */

NU_STRUCT(tally, val(uint64_t, acked), val(uint64_t, unknown), val(uint64_t, wrong));
NU_STRUCT(census, val(uint64_t, present), val(uint64_t, notes), val(uint64_t, arriving), val(uint64_t, held),
	  val(uint64_t, stacks), val(uint64_t, lent), val(uint64_t, pool_bytes));

struct peer {
	_Atomic uint64_t count[KEYS];
};
NU_CLASS(peer);
NU_METHOD(peer, add, val(uint64_t), val(unsigned, key));
NU_METHOD(peer, get, val(uint64_t), val(unsigned, key));

int peer_init(struct peer *p)
{
	return 0;
}

uint64_t peer_do_add(struct peer *p, unsigned key)
{
	return ++p->count[key % KEYS];
}

uint64_t peer_do_get(struct peer *p, unsigned key)
{
	return p->count[key % KEYS];
}

/* What moves, ends, or is drained: with threads in every state, calls in and calls out. */
struct subject {
	_Atomic uint64_t count[KEYS];
	_Atomic uint64_t spins, sleeps;
	_Atomic unsigned started, done;
	_Atomic bool stop;
	struct nu_sem gate;
	struct peer_ref peer; /* that it calls; counted */
	struct tally out;
};
NU_CLASS(subject);
NU_METHOD(subject, start, val(int), ref(peer, peer));
NU_METHOD(subject, started, val(unsigned));
NU_METHOD(subject, add, val(uint64_t), val(unsigned, key));
NU_METHOD(subject, get, val(uint64_t), val(unsigned, key));
NU_METHOD(subject, stop, none);
NU_METHOD(subject, done, val(unsigned));
NU_METHOD(subject, out, obj(tally));

int subject_init(struct subject *s)
{
	return 0;
}

static void spinner(void *arg_)
{
	struct subject *s = arg_;

	while (!s->stop) {
		for (volatile unsigned i = 0; i < 2000; i++)
			;
		s->spins++;
		nu_yield();
	}
	s->done++;
}

static void sleeper(void *arg_)
{
	struct subject *s = arg_;

	while (!s->stop) {
		nu_sleep_us(700);
		s->sleeps++;
	}
	s->done++;
}

static void waiter(void *arg_)
{
	struct subject *s = arg_;

	nu_sem_wait(&s->gate);
	s->done++;
}

static void note(struct tally *t, int ret)
{
	if (!ret)
		t->acked++;
	else if (ret == -EHOSTDOWN)
		t->unknown++;
	else
		t->wrong++;
}

static void out_caller(void *arg_)
{
	struct subject *s = arg_;

	while (!s->stop) {
		uint64_t n;

		note(&s->out, peer_add(s->peer, KEY_OUT, &n));
		if (s->out.unknown) /* it may be lost: no need to ask again and again */
			nu_sleep_us(STEP_US);
	}
	s->done++;
}

int subject_do_start(struct subject *s, struct peer_ref peer)
{
	static const nu_thread_fn bodies[SUBJECT_THREADS] = {spinner, sleeper, waiter, out_caller};
	int ret = peer_ref_get(peer);

	s->peer = peer;
	for (unsigned i = 0; i < SUBJECT_THREADS && !ret; i++)
		ret = nu_thread_spawn(bodies[i], s, NULL);
	s->started = SUBJECT_THREADS;
	return ret;
}

unsigned subject_do_started(struct subject *s)
{
	return s->started;
}

uint64_t subject_do_add(struct subject *s, unsigned key)
{
	return ++s->count[key % KEYS];
}

uint64_t subject_do_get(struct subject *s, unsigned key)
{
	return s->count[key % KEYS];
}

void subject_do_stop(struct subject *s)
{
	s->stop = true;
	nu_sem_post(&s->gate);
}

unsigned subject_do_done(struct subject *s)
{
	return s->done;
}

struct tally subject_do_out(struct subject *s)
{
	return s->out;
}

struct agent {
	_Atomic bool calling, stop;
	struct subject_ref subject;
	unsigned key;
	struct tally tally;
	struct peer_ref made;
};
NU_CLASS(agent);
NU_METHOD(agent, arm, val(int), str(rules));
NU_METHOD(agent, pid, val(int));
NU_METHOD(agent, census, obj(census));
NU_METHOD(agent, call, val(int), ref(subject, subject), val(unsigned, key));
NU_METHOD(agent, stop, none);
NU_METHOD(agent, calling, val(bool));
NU_METHOD(agent, tally, obj(tally));
NU_METHOD(agent, make, val(int), val(unsigned, node));
NU_METHOD(agent, drop, val(int));
NU_METHOD(agent, add, val(int));

int agent_init(struct agent *a)
{
	return 0;
}

int agent_do_arm(struct agent *a, struct nu_str text)
{
	return nu_testing_fault(text.len_bytes ? text.s : NULL);
}

int agent_do_pid(struct agent *a)
{
	return getpid();
}

struct census agent_do_census(struct agent *a)
{
	struct nu_testing_census c;

	nu_testing_census(&c);
	return (struct census){c.present, c.notes, c.arriving, c.held, c.stacks, c.lent, c.pool_bytes};
}

static void agent_body(void *arg_)
{
	struct agent *a = arg_;

	while (!a->stop) {
		uint64_t n;

		note(&a->tally, subject_add(a->subject, a->key, &n));
		if (a->tally.unknown)
			nu_sleep_us(STEP_US);
	}
	a->calling = false;
}

int agent_do_call(struct agent *a, struct subject_ref subject, unsigned key)
{
	int ret = subject_ref_get(subject);

	if (ret)
		return ret;
	a->subject = subject;
	a->key = key;
	a->calling = true;
	return nu_thread_spawn(agent_body, a, NULL);
}

void agent_do_stop(struct agent *a)
{
	a->stop = true;
}

bool agent_do_calling(struct agent *a)
{
	return a->calling;
}

struct tally agent_do_tally(struct agent *a)
{
	if (!a->calling && a->subject.ref.id)
		subject_ref_put(&a->subject);
	return a->tally;
}

int agent_do_make(struct agent *a, unsigned node)
{
	return peer_create(&(struct nu_options){.node = NU_NODE(node), .capacity_bytes = 1 << 20}, &a->made);
}

int agent_do_add(struct agent *a)
{
	uint64_t n;

	return peer_add(a->made, 1, &n);
}

int agent_do_drop(struct agent *a)
{
	return a->made.ref.id ? peer_ref_put(&a->made) : 0;
}

/* ---- the main proclet ---- */

static struct agent_ref agents[NODES];
static int pids[NODES];
static struct census before[NODES];

static struct agent_ref make_agent(unsigned node)
{
	struct agent_ref a = {{0}};

	CHECK_IS(agent_create(&(struct nu_options){.node = NU_NODE(node), .pinned = true}, &a), 0);
	return a;
}

static struct subject_ref make_subject(unsigned node)
{
	struct subject_ref s = {{0}};

	CHECK_IS(subject_create(&(struct nu_options){.node = NU_NODE(node)}, &s), 0);
	return s;
}

static struct peer_ref make_peer(unsigned node)
{
	struct peer_ref p = {{0}};

	CHECK_IS(peer_create(&(struct nu_options){.node = NU_NODE(node)}, &p), 0);
	return p;
}

/* Waits for @cond with the bound; false, and a failed check, when it does not come. */
#define AWAIT(cond)                                                                                          \
	({                                                                                                   \
		uint64_t end_ = nu_now_us() + BOUND_US;                                                      \
		bool yes_;                                                                                   \
		while (!(yes_ = (cond)) && nu_now_us() < end_)                                               \
			nu_sleep_us(STEP_US);                                                                \
		CHECK_MSG(yes_, "not within %u s: %s", BOUND_US / 1000000, #cond);                           \
		yes_;                                                                                        \
	})

static void setup(void)
{
	for (unsigned n = 0; n < NODES; n++) {
		agents[n] = make_agent(n);
		CHECK_IS(agent_pid(agents[n], &pids[n]), 0);
	}
	for (unsigned n = 0; n < NODES; n++)
		CHECK_IS(agent_census(agents[n], &before[n]), 0);
}

/* On every node; the one that acts last, since a point of calls may be passed by the answer to this. */
static void arm(void)
{
	for (unsigned n = 0; fault_rules && n < NODES; n++) {
		int err = 0, ret = agent_arm(agents[n], nu_str(fault_rules), &err);

		CHECK_MSG(!ret || (ret == -EHOSTDOWN && kind == KILL), "arming node %u: %s", n,
			  nu_strerror(ret));
		CHECK_IS(err, 0);
	}
}

static void disarm(void)
{
	int err;

	for (unsigned n = 0; n < NODES; n++)
		CHECK_IS(agent_arm(agents[n], nu_str(""), &err), dead[n] ? -EHOSTDOWN : 0);
}

static bool is_victim(unsigned node)
{
	return kind == KILL && (node == arg || node == other);
}

static bool node_is_dead(unsigned node)
{
	struct nu_node_info infos[NODES];

	return nu_nodes(infos, NODES) == NODES && infos[node].state == NU_NODE_DEAD;
}

static char proc_state(int pid)
{
	char path[64], line[256] = "", *at;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	at = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	return at ? at[2] : 0;
}

static _Atomic bool continued;

/* A node that stops itself is continued after a second. */
static void continuer(void *arg_)
{
	if (AWAIT(proc_state(pids[arg]) == 'T'))
		nu_sleep_us(1000000);
	CHECK_IS(kill(pids[arg], SIGCONT), 0);
	continued = true;
}

static void await_fault(void)
{
	for (unsigned n = 0; kind == KILL && n < NODES; n++) {
		if (is_victim(n) && AWAIT(node_is_dead(n)))
			dead[n] = true;
	}
	if (kind == STOP)
		AWAIT(continued);
}

/* Callers in the main proclet. */
static struct tally mine;
static _Atomic bool stop_calling, calling;
static struct subject_ref called;

static void caller_body(void *arg_)
{
	while (!stop_calling) {
		uint64_t n;

		note(&mine, subject_add(called, 0, &n));
		if (mine.unknown)
			nu_sleep_us(STEP_US);
	}
	calling = false;
}

/* Calls that begin at any moment of the move, each in a thread of its own: callers in a row may all be served just then. */
static struct tally probes;
static _Atomic unsigned probing;
static _Atomic bool stop_probing;

static void probe_body(void *arg_)
{
	uint64_t n;

	note(&probes, subject_add(called, KEY_PROBE, &n));
	probing--;
}

static void prober_body(void *arg_)
{
	while (!stop_probing) {
		probing++;
		CHECK_IS(nu_thread_spawn(probe_body, NULL, NULL), 0);
		nu_sleep_us(PROBE_US);
	}
	probing--;
}

static void start_callers(struct subject_ref s)
{
	called = s;
	calling = true;
	CHECK_IS(nu_thread_spawn(caller_body, NULL, NULL), 0);
	for (unsigned n = 1; n < NODES; n++) {
		int err = -1;

		CHECK_IS(agent_call(agents[n], s, n, &err), 0);
		CHECK_IS(err, 0);
	}
}

static bool agent_is_calling(unsigned n)
{
	bool yes = false;

	return !agent_calling(agents[n], &yes) && yes;
}

/* What each caller was told, beside what was counted: each answered call once, each doubtful one at most once. */
static void check_counts(const char *who, const struct tally *t, uint64_t counted)
{
	CHECK_MSG(counted >= t->acked && counted <= t->acked + t->unknown,
		  "%s: %lu calls counted, %lu answered, %lu in doubt", who, counted, t->acked, t->unknown);
	CHECK_MSG(!t->wrong, "%s: %lu calls failed with an errno that a death does not explain", who,
		  t->wrong);
	CHECK_MSG(kind == KILL || !t->unknown, "%s: %lu calls failed though nobody died", who, t->unknown);
}

static void stop_callers(struct subject_ref s, bool lives)
{
	uint64_t probed = 0;

	stop_probing = true;
	AWAIT(!probing);
	CHECK_IS(subject_get(s, KEY_PROBE, &probed), lives ? 0 : -EHOSTDOWN);
	if (lives)
		check_counts("probes", &probes, probed);
	stop_calling = true;
	AWAIT(!calling);
	for (unsigned n = 0; n < NODES; n++) {
		struct tally t = mine;
		uint64_t counted = 0;
		char who[32];

		if (dead[n])
			continue;
		snprintf(who, sizeof(who), "caller on node %u", n);
		if (n) {
			CHECK_IS(agent_stop(agents[n]), 0);
			AWAIT(!agent_is_calling(n));
			CHECK_IS(agent_tally(agents[n], &t), 0);
		}
		CHECK_IS(subject_get(s, n, &counted), lives ? 0 : -EHOSTDOWN);
		if (lives)
			check_counts(who, &t, counted);
		CHECK_MSG(t.acked || t.unknown, "%s: no call", who);
	}
}

/* ---- afterwards: is everything back to what it was? ---- */

static bool as_before(unsigned n, struct census *c)
{
	const struct census *b = &before[n];

	return !agent_census(agents[n], c) && c->present == b->present && !c->notes && !c->arriving &&
	       !c->held && c->stacks <= b->stacks + 1 && c->lent <= b->lent && c->pool_bytes <= b->pool_bytes;
}

static void check_nothing_left(void)
{
	uint64_t end = nu_now_us() + BOUND_US;

	for (unsigned n = 0; n < NODES; n++) {
		struct census c = {0}, *b = &before[n];
		bool ok;

		if (dead[n])
			continue;
		while (!(ok = as_before(n, &c)) && nu_now_us() < end)
			nu_sleep_us(STEP_US);
		CHECK_MSG(ok,
			  "node %u has %lu proclets (had %lu), %lu notes, %lu arriving, %lu held, %lu stacks "
			  "(%lu), "
			  "%lu lent (%lu), %lu KiB of nobody (%lu)",
			  n, c.present, b->present, c.notes, c.arriving, c.held, c.stacks, b->stacks, c.lent,
			  b->lent, c.pool_bytes >> 10, b->pool_bytes >> 10);
	}
}

/* Moves and creations among those that live. */
static void check_all_works(void)
{
	for (unsigned n = 0; n < NODES; n++) {
		struct peer_ref p = {{0}};
		uint64_t count = 0;
		int ret =
			peer_create(&(struct nu_options){.node = NU_NODE(n), .capacity_bytes = 1 << 20}, &p);

		CHECK_IS(ret, dead[n] ? -EHOSTDOWN : 0);
		if (ret)
			continue;
		for (unsigned to = 0; to < NODES; to++) {
			CHECK_IS(check_move(p.ref, to), dead[to] ? -EHOSTDOWN : 0);
			CHECK_IS(peer_add(p, to, &count), 0);
			CHECK_IS(count, 1);
		}
		CHECK_IS(peer_ref_put(&p), 0);
	}
}

/* It is at one place, or lost; says which. */
static bool check_place(struct nu_ref ref, const char *what)
{
	int at = nu_locate(ref);

	CHECK_MSG(at == -EHOSTDOWN ? kind == KILL : at >= 0 && at < (int)NODES && !dead[at], "%s is at %d",
		  what, at);
	return at >= 0;
}

/* Proclets on live nodes beyond what there were: @want. */
static bool extra_is(unsigned want)
{
	uint64_t sum = 0, had = 0;

	for (unsigned n = 0; n < NODES; n++) {
		struct census c;

		if (!dead[n] && agent_census(agents[n], &c))
			return false;
		sum += dead[n] ? 0 : c.present + c.arriving;
		had += dead[n] ? 0 : before[n].present;
	}
	return sum == had + want;
}

/* ---- scenarios ---- */

/* Nobody died: what was tried has failed as it was told to, and goes well now. */
static void move_again(struct nu_ref ref)
{
	CHECK_IS(nu_locate(ref), SOURCE);
	CHECK_IS(check_move(ref, DEST), 0);
	CHECK_IS(nu_locate(ref), DEST);
}

static void check_subject(struct subject_ref s, struct peer_ref peer, bool peer_lives)
{
	struct tally out = {0};
	uint64_t counted = 0;
	unsigned done = 0;

	CHECK_IS(subject_stop(s), 0);
	AWAIT(!subject_done(s, &done) && done == SUBJECT_THREADS);
	CHECK_IS(subject_out(s, &out), 0);
	CHECK_IS(peer_get(peer, KEY_OUT, &counted), peer_lives ? 0 : -EHOSTDOWN);
	if (peer_lives)
		check_counts("what moved", &out, counted);
	CHECK(out.acked > 0);
	for (unsigned n = 0; n < NODES; n++)
		CHECK_IS(check_move(s.ref, n), dead[n] ? -EHOSTDOWN : 0);
}

static void move(void)
{
	struct peer_ref peer = make_peer(BY);
	struct subject_ref s = make_subject(BY);
	bool lives, peer_lives;
	unsigned started = 0;
	uint64_t n;
	int ret = -1;

	CHECK_IS(subject_start(s, peer, &ret), 0);
	CHECK_IS(ret, 0);
	AWAIT(!subject_started(s, &started) && started == SUBJECT_THREADS);
	CHECK_IS(check_move(s.ref, SOURCE), 0);
	start_callers(s);
	AWAIT(mine.acked > 3);
	if (kind == STOP)
		CHECK_IS(nu_thread_spawn(continuer, NULL, NULL), 0);
	probing = 1;
	CHECK_IS(nu_thread_spawn(prober_body, NULL, NULL), 0);
	arm();
	ret = kind == ERROR ? nu_migrate(s.ref, DEST) : check_move(s.ref, DEST);
	if (kind == ERROR)
		CHECK_IS(ret, -(int)arg);
	else
		CHECK_MSG(!ret || (kind == KILL &&
				   (ret == -EHOSTDOWN || (ret == -EIO && strstr(fault_rules, "error=5")))),
			  "the move: %s", nu_strerror(ret));
	stop_probing = true;
	await_fault();
	disarm();
	if (kind == ERROR)
		move_again(s.ref);
	lives = check_place(s.ref, "what moved");
	CHECK_IS(subject_add(s, 14, &n), lives ? 0 : -EHOSTDOWN);
	CHECK_MSG(lives || (is_victim(SOURCE) || is_victim(DEST)), "it is lost");
	nu_sleep_us(20000); /* callers go on for a while */
	peer_lives = !dead[BY];
	stop_callers(s, lives);
	if (lives)
		check_subject(s, peer, peer_lives);
	AWAIT(extra_is((unsigned)lives + peer_lives));
	check_all_works();
	CHECK_IS(subject_ref_put(&s), 0);
	CHECK_IS(peer_ref_put(&peer), 0);
	check_nothing_left();
}

/* A node's proclet makes one on another node. */
static void create(void)
{
	struct agent_ref maker = make_agent(SOURCE);
	int status = 0, ret;
	bool lives;

	if (kind == STOP)
		CHECK_IS(nu_thread_spawn(continuer, NULL, NULL), 0);
	arm();
	ret = agent_make(maker, DEST, &status);
	CHECK_MSG(!ret || (ret == -EHOSTDOWN && is_victim(SOURCE)), "%s", nu_strerror(ret));
	await_fault();
	disarm();
	if (kind == ERROR) {
		CHECK_IS(status, -(int)arg);
		AWAIT(extra_is(1));
		CHECK_IS(agent_make(maker, DEST, &status), 0);
		CHECK_IS(status, 0);
	}
	lives = !dead[SOURCE] && !dead[DEST];
	if (!dead[SOURCE]) {
		CHECK_MSG(!status || (dead[DEST] && status == -EHOSTDOWN), "create: %s", nu_strerror(status));
		status = 0;
		CHECK_IS(agent_add(maker, &status), 0);
		CHECK_MSG(lives ? !status : status == -EHOSTDOWN || status == -ESTALE, "call: %s",
			  nu_strerror(status));
	}
	AWAIT(extra_is(!dead[SOURCE] + lives));
	check_all_works();
	CHECK_IS(agent_drop(maker, &status), dead[SOURCE] ? -EHOSTDOWN : 0);
	CHECK_IS(agent_ref_put(&maker), 0);
	check_nothing_left();
}

/* The last reference to a proclet goes, which holds the last one to another. */
static void retire(void)
{
	struct peer_ref kept = make_peer(DEST);
	struct subject_ref s = make_subject(BY);
	int ret = -1;

	CHECK_IS(subject_start(s, kept, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(peer_ref_put(&kept), 0);
	CHECK_IS(check_move(s.ref, SOURCE), 0);
	if (kind == STOP)
		CHECK_IS(nu_thread_spawn(continuer, NULL, NULL), 0);
	arm();
	CHECK_IS(subject_ref_put(&s), 0);
	await_fault();
	AWAIT(extra_is(0));
	disarm();
	check_all_works();
	check_nothing_left();
}

static void drain(void)
{
	struct subject_ref s[DRAINED];
	struct peer_ref peer = make_peer(BY);
	unsigned moved = 0, lost = 0;
	int ret;

	for (unsigned i = 0; i < DRAINED; i++) {
		s[i] = make_subject(SOURCE);
		CHECK_IS(subject_start(s[i], peer, &ret), 0);
		CHECK_IS(ret, 0);
	}
	if (kind == STOP)
		CHECK_IS(nu_thread_spawn(continuer, NULL, NULL), 0);
	arm();
	ret = nu_node_drain(SOURCE, &moved);
	await_fault();
	disarm();
	if (kind == ERROR) {
		CHECK(moved > 0); /* it has tried again by itself */
		ret = nu_node_drain(SOURCE, &moved);
	}
	CHECK_MSG(!ret || (kind == KILL && ret == -EHOSTDOWN), "drain: %s", nu_strerror(ret));
	for (unsigned i = 0; i < DRAINED; i++) {
		uint64_t n;
		int at = nu_locate(s[i].ref);

		lost += at < 0;
		CHECK_MSG(at != SOURCE, "number %u is still there", i);
		if (check_place(s[i].ref, "what was drained"))
			CHECK_IS(subject_add(s[i], 0, &n), 0);
	}
	CHECK_MSG(!lost || kind == KILL, "%u lost", lost);
	AWAIT(extra_is(DRAINED - lost + !dead[BY]));
	/* A pause has a time-out, which a loaded machine may exceed: what is not back then is asked for again. */
	AWAIT((ret = nu_node_restore(SOURCE, &moved)) != -ETIMEDOUT);
	CHECK_IS(ret, dead[SOURCE] ? -EHOSTDOWN : 0);
	check_all_works();
	for (unsigned i = 0; i < DRAINED; i++)
		CHECK_IS(subject_ref_put(&s[i]), 0);
	CHECK_IS(peer_ref_put(&peer), 0);
	check_nothing_left();
}

static int names(void)
{
	for (unsigned i = 0; nu_testing_fault_name(i); i++)
		printf("%s\n", nu_testing_fault_name(i));
	return 0;
}

static const struct {
	const char *name;
	void (*run)(void);
} scenarios[] = {{"move", move}, {"create", create}, {"retire", retire}, {"drain", drain}};

static int fault_main(int argc, char **argv)
{
	static const char *const kinds[] = {"none", "kill", "stop", "error"};

	if (argc == 2 && !strcmp(argv[1], "names"))
		return names();
	if (nu_node_count() != NODES || argc < 2)
		return 2;
	fault_rules = argc > 2 ? argv[2] : NULL;
	for (unsigned i = 0; argc > 3 && i < 4; i++)
		kind = !strcmp(argv[3], kinds[i]) ? (enum kind)i : kind;
	arg = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
	other = argc > 5 ? (unsigned)atoi(argv[5]) : NODES;
	setup();
	for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (!strcmp(argv[1], scenarios[i].name))
			check_run(argv[1], scenarios[i].run);
	}
	return check_done();
}
CHECK_PROGRAM(fault_main)
