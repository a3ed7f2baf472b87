/* SPDX-License-Identifier: MIT */
/*
 * What a node does with messages that make no sense, one by one: stale and foreign ids, methods of another class,
 * answers that are not what was asked, batches of another job. Beside the fuzz targets, which find only crashes.
 */
#include "node_rig.h"

static unsigned passed, failed;

#define EXPECT(e)                                                                                            \
	do {                                                                                                 \
		if (e) {                                                                                     \
			passed++;                                                                            \
		} else {                                                                                     \
			failed++;                                                                            \
			printf("check_node.c:%d: not so: %s\n", __LINE__, #e);                               \
		}                                                                                            \
	} while (0)

static struct {
	struct nu_batch h;
	struct nu_msg m;
	char payload[256];
} __attribute__((aligned(16))) b;

static void begin(enum nu_msg_type type, uint64_t target, size_t payload)
{
	memset(&b, 0, sizeof(b));
	b.h = (struct nu_batch){.magic = NU_BATCH_MAGIC, .key = RIG_KEY, .node = 1};
	b.m = (struct nu_msg){.len_bytes = (uint32_t)(sizeof(b.m) + payload),
			      .type = type,
			      .cls = NU_CLASS_CONTROL,
			      .target = target,
			      .origin = 1};
}

/* A call from a thread of node 1's own proclet. */
static void call(uint64_t target, const struct nu_class *cls, const char *method)
{
	const struct nu_method *m = rig_method(cls, method);

	begin(NU_MSG_CALL, target, m->args_bytes);
	b.m.method = (uint64_t)m;
	b.m.caller = nu_id_of_node(1);
	b.m.thread = (uint64_t)rig_stack(1, 0);
	b.m.seq = 7;
}

static uint64_t bad_before;

static void deliver(void)
{
	b.h.len_bytes = (uint32_t)(sizeof(b.h) + NU_ALIGN_UP((size_t)b.m.len_bytes, 8));
	rig_flush();
	rig_nsent = rig_runs = 0;
	bad_before = nu_stat_sum(NU_STAT_BAD_MESSAGES);
	rig_receive(&b, b.h.len_bytes);
	rig_settle(false);
	rig_flush();
}

static uint64_t bad(void)
{
	return nu_stat_sum(NU_STAT_BAD_MESSAGES) - bad_before;
}

/* The one message that went out: what the caller hears. */
static const struct nu_msg *heard(enum nu_msg_type type)
{
	for (unsigned i = 0; i < rig_nsent; i++) {
		if (rig_sent[i].type == type && rig_sent[i].seq == 7)
			return &rig_sent[i];
	}
	return NULL;
}

static bool refused(int status)
{
	const struct nu_msg *m = heard(NU_MSG_REFUSED);

	return m && m->status == status && !heard(NU_MSG_REPLY) && !rig_runs;
}

static bool answered(int status)
{
	const struct nu_msg *m = heard(NU_MSG_REPLY);

	return m && m->status == status && m->method == b.m.method;
}

static void ids(void)
{
	call(RIG_BOX, &box_class, "add");
	deliver();
	EXPECT(answered(0) && rig_runs == 1 && !bad());
	/* Freed, and its segment has another tenant: the generation differs. */
	call(RIG_BOX + 1, &box_class, "add");
	deliver();
	EXPECT(refused(-NU_REFUSED_MOVED));
	/* No such segment; nobody's; beyond the last; none at all; another node's own proclet; the mover's, not here. */
	uint64_t strange[] = {nu_id_make(2070, 15), nu_id_make(1 << 24, 3),
			      UINT64_MAX,	    0,
			      nu_id_of_node(2),	    RIG_MOVER,
			      nu_id_of_node(200)};

	for (unsigned i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		call(strange[i], &box_class, "add");
		deliver();
		EXPECT(refused(-NU_REFUSED_MOVED));
	}
}

static void classes(void)
{
	call(RIG_BOX, &other_class, "poke");
	deliver();
	EXPECT(refused(-EINVAL) && bad() == 1);
	call(RIG_OTHER, &box_class, "add");
	deliver();
	EXPECT(refused(-EINVAL) && bad() == 1);
	call(RIG_MAIN, &box_class, "add"); /* it has no root object at all */
	deliver();
	EXPECT(refused(-EINVAL) && bad() == 1);
	call(NU_ID_CTRL, &box_class, "add");
	deliver();
	EXPECT(refused(-EINVAL) && bad() == 1);
	call(RIG_BOX, &nu_node_class, "stats");
	deliver();
	EXPECT(refused(-EINVAL) && bad() == 1);
	call(nu_id_of_node(0), &box_class, "add");
	deliver();
	EXPECT(refused(-EINVAL) && bad() == 1);
	call(nu_id_of_node(0), &nu_node_class, "stats");
	deliver();
	EXPECT(answered(0) && !bad());
	/* A constructor on a proclet that lives. */
	call(RIG_BOX, &box_class, "init");
	deliver();
	EXPECT(!rig_nsent && bad() == 1);
}

static void descriptors(void)
{
	uint64_t real = (uint64_t)rig_method(&box_class, "add");
	uint64_t strange[] = {
		0, 1, real + 8, real - 64 * 10000, (uint64_t)&b, UINT64_MAX, (uint64_t)__stop_nu_methods};

	for (unsigned i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		call(RIG_BOX, &box_class, "add");
		b.m.method = strange[i];
		deliver();
		EXPECT(!rig_runs && !rig_nsent && bad() == 1);
	}
	call(RIG_BOX, &box_class, "add");
	b.m.len_bytes -= 4;
	deliver();
	EXPECT(!rig_runs && bad() == 1);
	call(RIG_BOX, &box_class, "add");
	b.m.len_bytes += 24;
	deliver();
	EXPECT(refused(-EBADMSG));
	call(RIG_BOX, &box_class, "add");
	b.m.hops = NU_MAX_HOPS + 1;
	deliver();
	EXPECT(!rig_runs && bad() == 1);
}

static void references(void)
{
	int64_t *args = (int64_t *)b.payload;
	const int64_t changes[][2] = {{0, -1}, {-1, -1}, {0, 1}, {5, INT64_MAX}, {5, INT64_MIN}, {5, -1}};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		call(RIG_MAIN, NULL, "reference");
		args[0] = changes[i][0];
		args[1] = changes[i][1];
		deliver();
		EXPECT(answered(0) && nu_proclet_lookup(RIG_MAIN)->head->refs_total == 1);
	}
}

/* An answer to the box's thread that waits for `add`, right but for what @spoil changes. Return: whether it was taken. */
static bool answer(void (*spoil)(void))
{
	struct nu_thread *t;
	bool taken;

	rig_waiters_start();
	t = rig_waiter[0];
	begin(NU_MSG_REPLY, RIG_BOX, 8);
	b.m.thread = (uint64_t)t;
	b.m.seq = t->wait_seq;
	b.m.method = (uint64_t)t->wait_method;
	if (spoil)
		spoil();
	b.h.len_bytes = (uint32_t)(sizeof(b.h) + NU_ALIGN_UP((size_t)b.m.len_bytes, 8));
	bad_before = nu_stat_sum(NU_STAT_BAD_MESSAGES);
	rig_results = 0;
	rig_receive(&b, b.h.len_bytes);
	rig_settle(false);
	taken = rig_results & 1;
	return taken;
}

static void other_method(void)
{
	b.m.method = (uint64_t)rig_method(&other_class, "poke");
}
static void no_method(void)
{
	b.m.method = 0;
}
static void old_sequence(void)
{
	b.m.seq--;
}
static void no_sequence(void)
{
	b.m.seq = 0;
}
static void other_thread(void)
{
	b.m.thread = (uint64_t)rig_waiter[3];
}
static void no_thread(void)
{
	b.m.thread += 64;
}
static void other_proclet(void)
{
	b.m.target = RIG_OTHER;
}
static void too_long(void)
{
	b.m.len_bytes += 8;
}
static void too_short(void)
{
	b.m.len_bytes -= 8;
}
static void positive(void)
{
	b.m.status = 5;
}
static void no_errno(void)
{
	b.m.status = INT32_MIN;
}
static void refusal_of_success(void)
{
	b.m.type = NU_MSG_REFUSED;
}

static void answers(void)
{
	EXPECT(answer(NULL) && !bad());
	EXPECT(!answer(other_method) && bad() == 1);
	EXPECT(!answer(no_method) && bad() == 1);
	EXPECT(!answer(old_sequence));
	EXPECT(!answer(no_sequence));
	EXPECT(!answer(other_thread));
	EXPECT(!answer(no_thread));
	EXPECT(!answer(other_proclet));
	EXPECT(!answer(too_long));
	EXPECT(!answer(too_short));
	EXPECT(!answer(positive) && bad() == 1);
	EXPECT(!answer(no_errno) && bad() == 1);
	EXPECT(!answer(refusal_of_success) && bad() == 1);
}

/* Two jobs whose messages are crossed: nothing of the other's is looked at, credits neither. */
static void other_job(void)
{
	call(RIG_BOX, &box_class, "add");
	b.h.key = RIG_KEY ^ 1;
	deliver();
	EXPECT(!rig_runs && !rig_nsent && bad() == 1);
	call(RIG_BOX, &box_class, "add");
	b.h.key = 0;
	deliver();
	EXPECT(!rig_runs && !rig_nsent && bad() == 1);
	call(RIG_BOX, &box_class, "add");
	b.h.node = 0; /* from ourselves, over the wire */
	deliver();
	EXPECT(!rig_runs && bad() == 1);
	call(RIG_BOX, &box_class, "add");
	b.h.node = 3;
	deliver();
	EXPECT(!rig_runs && bad() == 1);
}

int main(void)
{
	rig_start("sm");
	ids();
	classes();
	descriptors();
	references();
	answers();
	other_job();
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	fflush(NULL);
	_Exit(failed != 0);
}
