/* SPDX-License-Identifier: MIT */
/*
 * The death of a node (nu_launch --keep-going): a proclet kills its own node's process. All calls that it will never
 * answer fail, by whatever way they went there; what lives elsewhere goes on. Three nodes; the last one dies.
 */
#include "check.h"

#include <signal.h>
#include <unistd.h>

#define DOOMED	(nu_node_count() - 1)
#define CALLERS 20
#define ROAMERS 12
#define WAIT_US 20000000u

struct post {
	struct nu_sem gate;
	_Atomic uint64_t waiting, n;
	struct nu_ref kept; /* for as long as it lives */
};
NU_CLASS(post);
NU_METHOD(post, add, val(uint64_t));
NU_METHOD(post, wait, val(int));
NU_METHOD(post, waiting, val(uint64_t));
NU_METHOD(post, wait_for, val(int), ref(post, other));
NU_METHOD(post, keep, val(int), ref(post, other));
NU_METHOD(post, die, none);

int post_init(struct post *p)
{
	return 0;
}

uint64_t post_do_add(struct post *p)
{
	return ++p->n;
}

int post_do_wait(struct post *p)
{
	p->waiting++;
	nu_sem_wait(&p->gate);
	return 1;
}

uint64_t post_do_waiting(struct post *p)
{
	return p->waiting;
}

/* A call in between: what it gets is what it says. */
int post_do_wait_for(struct post *p, struct post_ref other)
{
	int inner = 0, ret;

	p->waiting++;
	ret = post_wait(other, &inner);
	return ret ? ret : inner;
}

int post_do_keep(struct post *p, struct post_ref other)
{
	int ret = post_ref_get(other);

	if (!ret)
		p->kept = other.ref;
	return ret;
}

void post_do_die(struct post *p)
{
	kill(getpid(), SIGKILL);
	nu_sem_wait(&p->gate);
}

/* ---- callers in the main proclet ---- */

struct caller {
	struct post_ref to, by; /* by: called through it, if set */
	int ret;
};
static struct caller callers[CALLERS];
static struct nu_waitgroup calling;

static void caller_body(void *arg)
{
	struct caller *c = arg;
	int inner = -1;

	c->ret = c->by.ref.id ? post_wait_for(c->by, c->to, &inner) : post_wait(c->to, &inner);
	if (!c->ret)
		c->ret = inner;
	nu_waitgroup_done(&calling);
}

static struct post_ref make(unsigned node)
{
	struct post_ref p = {{0}};

	CHECK_IS(post_create(&(struct nu_options){.node = NU_NODE(node)}, &p), 0);
	return p;
}

static void call(unsigned i, struct post_ref to, struct post_ref by)
{
	callers[i] = (struct caller){.to = to, .by = by, .ret = 77};
	nu_waitgroup_add(&calling, 1);
	CHECK_IS(nu_thread_spawn(caller_body, &callers[i], NULL), 0);
}

/* Until @n calls wait in @p. */
static void wait_waiting(struct post_ref p, uint64_t n)
{
	uint64_t now = 0, end = nu_now_us() + WAIT_US;

	while (now < n && nu_now_us() < end) {
		CHECK_IS(post_waiting(p, &now), 0);
		nu_sleep_us(500);
	}
	CHECK_IS(now, n);
}

static struct post_ref roamers[ROAMERS];
static _Atomic bool stop;
static _Atomic unsigned odd;
static struct nu_waitgroup roaming;

/* Moves and calls go on all the while; each may fail in the ways that a death explains, and in no other. */
static void roam_body(void *arg)
{
	uint64_t s = (uintptr_t)arg;

	while (!stop) {
		struct post_ref p;
		uint64_t n;
		int ret;

		s = s * 6364136223846793005u + 1442695040888963407u;
		p = roamers[(s >> 33) % ROAMERS];
		ret = nu_migrate(p.ref, (unsigned)(s >> 40) % nu_node_count());
		if (ret && ret != -EHOSTDOWN && ret != -EBUSY && ret != -ETIMEDOUT) {
			odd++;
			printf("a move failed: %s\n", nu_strerror(ret));
		}
		ret = post_add(p, &n);
		if (ret && ret != -EHOSTDOWN) {
			odd++;
			printf("a call failed: %s\n", nu_strerror(ret));
		}
	}
	nu_waitgroup_done(&roaming);
}

static void check_survivors(struct post_ref near, struct post_ref far)
{
	unsigned alive = 0;
	uint64_t n = 0;

	for (unsigned i = 0; i < 50; i++) {
		CHECK_IS(post_add(near, &n), 0);
		CHECK_IS(post_add(far, &n), 0);
	}
	CHECK_IS(check_move(near.ref, 1), 0);
	CHECK_IS(post_add(near, &n), 0);
	CHECK_IS(n, 51);
	for (unsigned i = 0; i < ROAMERS; i++) {
		int at = nu_locate(roamers[i].ref), ret = post_add(roamers[i], &n);

		CHECK_MSG(at == -EHOSTDOWN ? ret == -EHOSTDOWN : at >= 0 && (unsigned)at != DOOMED && !ret,
			  "roamer %u is at %d and answers %d", i, at, ret);
		alive += !ret;
		CHECK_IS(post_ref_put(&roamers[i]), 0);
	}
	printf("     %u of %u roaming proclets live\n", alive, ROAMERS);
}

static void check_view_of_the_dead(struct post_ref victim)
{
	struct nu_node_info infos[16];
	struct post_ref p = {{0}};
	struct nu_stats s;
	uint64_t n;

	CHECK_IS(nu_nodes(infos, 16), nu_node_count());
	CHECK_IS(infos[DOOMED].state, NU_NODE_DEAD);
	CHECK_IS(infos[0].state, NU_NODE_UP);
	CHECK_IS(nu_stats(DOOMED, &s), -EHOSTDOWN);
	CHECK_IS(post_add(victim, &n), -EHOSTDOWN);
	CHECK_IS(nu_locate(victim.ref), -EHOSTDOWN);
	CHECK_IS(post_ref_get(victim), -EHOSTDOWN);
	CHECK_IS(nu_migrate(victim.ref, 0), -EHOSTDOWN);
	CHECK_IS(post_create(&(struct nu_options){.node = NU_NODE(DOOMED)}, &p), -EHOSTDOWN);
	for (unsigned i = 0; i < 20; i++) {
		CHECK_IS(post_create(NULL, &p), 0);
		CHECK_IS(post_add(p, &n), 0);
		CHECK(nu_locate(p.ref) != (int)DOOMED);
		CHECK_IS(nu_migrate(p.ref, DOOMED), -EHOSTDOWN);
		CHECK_IS(post_add(p, &n), 0);
		CHECK_IS(post_ref_put(&p), 0);
	}
}

/* Proclets of the two that live, without the controller and this one, come down to @want. */
static void check_left_of_two(long want)
{
	uint64_t end = nu_now_us() + CHECK_FREED_US_MAX;
	long left;

	do {
		struct nu_stats a = {0}, b = {0};

		CHECK_IS(nu_stats(0, &a), 0);
		CHECK_IS(nu_stats(1, &b), 0);
		left = (long)(a.proclets_now + b.proclets_now) - 2;
		if (left != want)
			nu_sleep_us(CHECK_RETRY_US);
	} while (left != want && nu_now_us() < end);
	CHECK_MSG(left == want, "%ld proclets are left, want %ld", left, want);
}

static void a_node_dies(void)
{
	struct post_ref victim = make(DOOMED), went = make(1), near = make(0), far = make(1),
			orphan = make(1);
	struct post_ref none = {{0}};
	unsigned n = 0;
	int ret = -1;

	CHECK_IS(post_keep(victim, orphan, &ret), 0);
	CHECK_IS(ret, 0);
	CHECK_IS(post_ref_put(&orphan), 0); /* what dies held the only reference */
	for (; n < 5; n++)
		call(n, victim, none); /* straight */
	for (; n < 10; n++)
		call(n, victim, far); /* by way of another node's proclet */
	for (; n < 15; n++)
		call(n, went, none); /* to a proclet that goes there while it serves them */
	wait_waiting(victim, 10);
	wait_waiting(went, 5);
	CHECK_IS(check_move(went.ref, DOOMED), 0);
	for (; n < CALLERS; n++)
		call(n, went, far); /* forwarded, or sent there anew */
	wait_waiting(went, 10);
	for (unsigned i = 0; i < ROAMERS; i++)
		roamers[i] = make(i % nu_node_count());
	nu_waitgroup_add(&roaming, 2);
	for (uintptr_t i = 1; i <= 2; i++)
		CHECK_IS(nu_thread_spawn(roam_body, (void *)i, NULL), 0);
	nu_sleep_us(50000); /* under way */
	CHECK_IS(post_die(victim), -EHOSTDOWN);
	nu_waitgroup_wait(&calling);
	for (unsigned i = 0; i < CALLERS; i++)
		CHECK_MSG(callers[i].ret == -EHOSTDOWN, "call %u: %d (%s)", i, callers[i].ret,
			  callers[i].ret < 0 ? nu_strerror(callers[i].ret) : "an answer");
	nu_sleep_us(50000); /* roaming on without it */
	stop = true;
	nu_waitgroup_wait(&roaming);
	CHECK_IS(odd, 0);
	check_survivors(near, far);
	check_view_of_the_dead(victim);
	CHECK_IS(post_ref_put(&victim), 0);
	CHECK_IS(post_ref_put(&went), 0);
	CHECK_IS(post_ref_put(&near), 0);
	CHECK_IS(post_ref_put(&far), 0);
	check_left_of_two(0);
}

static int death_main(int argc, char **argv)
{
	if (nu_node_count() != 3) {
		CHECK_SKIP("death", "it takes three nodes");
		return 0;
	}
	CHECK_RUN(a_node_dies);
	return check_done();
}
CHECK_PROGRAM(death_main)
