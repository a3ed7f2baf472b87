/* SPDX-License-Identifier: MIT */
/*
 * The wire between processes of this machine: sizes, batches, order, credits, sleep, and what a peer's standstill and
 * death do to the others.
 */
#include "wire_rig.h"

/* ---- sizes ---- */

static void sizes_thread(void *arg)
{
	size_t top = NU_MESSAGE_MAX_BYTES;
	unsigned char *data = malloc(top + 1);
	unsigned to = nu_node.count - 1;

	for (size_t len = 0; len < 600; len++)
		echo(to, len, data);
	for (size_t len = 7600; len < 8400; len++)
		echo(to, len, data);
	for (size_t base = 1024; base <= NU_MIB; base *= 2) {
		for (size_t d = 0; d < 17; d++)
			echo(to, base - 8 + d, data);
		for (unsigned k = 0; k < 8; k++)
			echo(to, base + (size_t)(rand() % (int)base), data);
	}
	echo(to, 4 * NU_MIB, data);
	echo(to, top, data);
	CHECK(send_op(to, NU_MSG_HINT, OP_ECHO, 0, data, top + 1) == -EMSGSIZE);
	CHECK(send_op(to, NU_MSG_HINT, OP_ECHO, 0, data, SIZE_MAX / 2) == -EMSGSIZE);
	CHECK(send_op(NU_MAX_NODES, NU_MSG_HINT, OP_ECHO, 0, data, 1) == -EINVAL);
	CHECK(!nu_stat_sum(NU_STAT_BAD_MESSAGES));
	free(data);
	end_others();
}

Test(wire, sizes_shm)
{
	run_nodes(&(struct setup){2, 1, {.transport = "shm"}, basic_handlers, {sizes_thread}});
}

Test(wire, sizes_tcp)
{
	run_nodes(&(struct setup){2, 1, {.transport = "tcp"}, basic_handlers, {sizes_thread}});
}

/* To oneself: the same, through the node's own queue. */
Test(wire, sizes_self)
{
	run_nodes(&(struct setup){1, 1, {.transport = "shm"}, basic_handlers, {sizes_thread}});
}

/* ---- which transport ---- */

static void transport_is(const char *what, const char *or_what)
{
	unsigned char data[16];
	char name[64] = "";

	CHECK(nu_wire_transport(1, name, sizeof(name)) == -ENOTCONN);
	echo(1, sizeof(data), data);
	CHECK(!nu_wire_transport(1, name, sizeof(name)));
	if (strcmp(name, what) && strcmp(name, or_what)) {
		fprintf(stderr, "transport is %s, not %s\n", name, what);
		_exit(1);
	}
	end_others();
}

static void shm_chosen_thread(void *arg)
{
	transport_is("shm/ring", "shm/ring");
}

static void tcp_chosen_thread(void *arg)
{
	transport_is("tcp/lo", "tcp/lo");
}

Test(wire, transport_shm)
{
	run_nodes(&(struct setup){2, 1, {.transport = "shm"}, basic_handlers, {shm_chosen_thread}});
}

Test(wire, transport_auto_is_shm_on_one_host)
{
	run_nodes(&(struct setup){2, 1, {.transport = "auto"}, basic_handlers, {shm_chosen_thread}});
}

Test(wire, transport_tcp)
{
	run_nodes(&(struct setup){2, 1, {.transport = "tcp"}, basic_handlers, {tcp_chosen_thread}});
}

Test(wire, transport_unknown)
{
	node_init(0, 1, 1);
	cr_expect_lt(nu_wire_init(&(struct nu_wire_options){.transport = "carrier-pigeon"}), 0);
	cr_expect_eq(nu_wire_init(&(struct nu_wire_options){.batch_bytes = 3}), -EINVAL);
}

/* ---- batching ---- */

static void batching_thread(void *arg)
{
	unsigned char data[64];
	uint64_t before;

	/* A single message leaves at once: nobody else comes to fill its batch. */
	echo(1, sizeof(data), data);
	before = nu_stat_sum(NU_STAT_BATCHES_SENT);
	echo(1, sizeof(data), data);
	CHECK(nu_stat_sum(NU_STAT_BATCHES_SENT) == before + 1);
	/* Many share batches: 128 bytes each, 62 to a batch of 8064, but at least 8 even if the peer waits for them. */
	before = nu_stat_sum(NU_STAT_BATCHES_SENT);
	fill(data, sizeof(data), 7);
	for (unsigned i = 0; i < 5000; i++)
		CHECK(!send_op(1, NU_MSG_HINT, OP_ECHO, 7, data, sizeof(data)));
	event_wait(&answers, 5000);
	CHECK(nu_stat_sum(NU_STAT_BATCHES_SENT) - before <= 5000 / 8 + 1);
	CHECK(nu_stat_sum(NU_STAT_BATCHES_SENT) - before >= 80);
	end_others();
}

Test(wire, batching)
{
	run_nodes(&(struct setup){2, 1, {.transport = "shm"}, basic_handlers, {batching_thread}});
}

/* ---- order: from each core of each node, messages of all sizes arrive as they were sent ---- */

#define ORDER_MESSAGES 4000

static struct event streams;

static uint64_t next_seq[NODES_MAX][2];
static _Alignas(8) unsigned char order_data[300000];

static void on_ordered(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(from < nu_node.count && m->location < 2);
	CHECK(m->seq == next_seq[from][m->location]);
	next_seq[from][m->location]++;
	CHECK(!len || !memcmp(payload, order_data, len));
	if (m->seq == ORDER_MESSAGES - 1)
		event_add(&streams, 1);
}

static void order_handlers(void)
{
	fill(order_data, sizeof(order_data), 99);
	basic_handlers();
	nu_wire_set_handler(NU_MSG_STACK, on_ordered);
}

static void send_stream(void *arg)
{
	unsigned seed = nu_core_self() + 1;

	for (uint64_t i = 0; i < ORDER_MESSAGES; i++) {
		struct nu_msg m = {.type = NU_MSG_STACK,
				   .cls = NU_CLASS_CONTROL,
				   .seq = i,
				   .location = nu_core_self()};
		size_t len = rand_r(&seed) % 100 ? (unsigned)rand_r(&seed) % 300
						 : (unsigned)rand_r(&seed) % sizeof(order_data);
		struct iovec part = {order_data, len};

		for (unsigned n = 0; n < nu_node.count; n++)
			CHECK(!nu_wire_send(n, &m, &part, 1));
	}
	nu_wire_flush();
}

static void order_thread(void *arg)
{
	CHECK(!nu_core_post(0, send_stream, NULL));
	CHECK(!nu_core_post(1, send_stream, NULL));
	/* Both cores' streams of all three nodes, also our own. */
	event_wait(&streams, 6);
	for (unsigned n = 0; n < nu_node.count; n++)
		CHECK(!send_op(n, NU_MSG_HINT, OP_COUNT, 0, NULL, 0));
	event_wait(&arrivals, 3); /* everybody has everything */
}

Test(wire, order_shm)
{
	run_nodes(&(struct setup){
		3, 2, {.transport = "shm"}, order_handlers, {order_thread, order_thread, order_thread}});
}

Test(wire, order_tcp)
{
	run_nodes(&(struct setup){
		3, 2, {.transport = "tcp"}, order_handlers, {order_thread, order_thread, order_thread}});
}

/* Two nodes share a host, the third is on another. */
Test(wire, order_two_links)
{
	run_nodes(&(struct setup){3,
				  2,
				  {.transport = "auto"},
				  order_handlers,
				  {order_thread, order_thread, order_thread},
				  .host_of = {0, 0, 1}});
}

/* What a node has sent arrives although it leaves at once. */
static void leave_thread(void *arg)
{
	unsigned seed = 4;

	if (nu_node.self) {
		event_wait(&streams, 1);
		return;
	}
	for (uint64_t i = 0; i < ORDER_MESSAGES; i++) {
		struct nu_msg m = {.type = NU_MSG_STACK, .cls = NU_CLASS_CONTROL, .seq = i};
		struct iovec part = {order_data, (unsigned)rand_r(&seed) % 30000};

		CHECK(!nu_wire_send(1, &m, &part, 1));
	}
}

Test(wire, leave_shm)
{
	run_nodes(&(struct setup){2, 1, {.transport = "shm"}, order_handlers, {leave_thread, leave_thread}});
}

Test(wire, leave_tcp)
{
	run_nodes(&(struct setup){2, 1, {.transport = "tcp"}, order_handlers, {leave_thread, leave_thread}});
}

/* ---- credits ---- */

#define WINDOW 8

static unsigned calls_held, calls_seen;
static bool accept_at_once;

static void on_call(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	calls_seen++;
	if (accept_at_once)
		nu_wire_accepted(from);
	else
		calls_held++;
}

/* REFUSED serves as "accept what you hold, and from now on at once", answered with how many there were. */
static void on_accept_all(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	struct nu_msg answer = {.type = NU_MSG_REPLY, .cls = NU_CLASS_REPLY, .seq = calls_held};

	accept_at_once = m->location;
	for (; calls_held; calls_held--)
		nu_wire_accepted(from);
	CHECK(!nu_wire_send(from, &answer, NULL, 0));
}

static uint64_t answer_seq;

static void on_accepted(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	answer_seq = m->seq;
	event_add(&answers, 1);
}

static void credit_handlers(void)
{
	basic_handlers();
	nu_wire_set_handler(NU_MSG_CALL, on_call);
	nu_wire_set_handler(NU_MSG_REFUSED, on_accept_all);
	nu_wire_set_handler(NU_MSG_REPLY, on_accepted);
}

static uint64_t in_ms(unsigned ms)
{
	return nu_mono_ns() + ms * 1000000ull;
}

static size_t call_bytes; /* as said when the credit is asked for */

static int call_1(bool nested, uint64_t deadline)
{
	struct nu_msg m = {.type = NU_MSG_CALL, .cls = NU_CLASS_CALL, .origin = nu_node.self};
	int err = nu_wire_credit(1, call_bytes, nested, deadline);

	return err ? err : nu_wire_send(1, &m, NULL, 0);
}

static struct nu_thread *waiting_thread;
static struct event waiter_ended;
static int waiter_result;

static void waiter_body(void *arg)
{
	waiter_result = call_1(false, 0);
	event_add(&waiter_ended, 1);
	nu_thread_block(NU_WAIT_OTHER, NULL); /* kept to the end: nothing of it is joined */
}

static void start_waiter(void)
{
	struct nu_thread *t = nu_thread_alloc(&own_proclet);

	CHECK(t && nu_thread_prepare(t, waiter_body, NULL, 0));
	nu_lock_acquire(&own_proclet.lock);
	nu_thread_link(t);
	nu_lock_release(&own_proclet.lock);
	waiting_thread = t;
	nu_thread_ready(t);
}

static void wait_until_blocked(void)
{
	while (waiting_thread->wait != NU_WAIT_CREDIT || waiting_thread->state != NU_THREAD_BLOCKED)
		nu_sleep_us(1000);
}

static void accept_all(bool at_once, unsigned expected)
{
	struct nu_msg m = {.type = NU_MSG_REFUSED, .cls = NU_CLASS_CONTROL, .location = at_once};

	CHECK(!nu_wire_send(1, &m, NULL, 0)); /* control overtakes no call, and waits for no credit */
	event_wait(&answers, 1);
	CHECK(answer_seq == expected);
}

static void credit_thread(void *arg)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WINDOW; i++)
		CHECK(!call_1(false, 0));
	CHECK(call_1(false, in_ms(30)) == -ETIMEDOUT);
	/* Nested calls go on from the reserve; when that is used up they wait too. */
	while (!call_1(true, in_ms(30)))
		n++;
	CHECK(n == 256);
	/* Somebody waits, and is told to start over as if it had been moved. */
	start_waiter();
	wait_until_blocked();
	CHECK(nu_wire_forget_waiter(waiting_thread));
	CHECK(!nu_wire_forget_waiter(waiting_thread));
	nu_thread_ready(waiting_thread);
	event_wait(&waiter_ended, 1);
	CHECK(waiter_result == -EAGAIN);
	/* Another is let through by what comes back. */
	start_waiter();
	wait_until_blocked();
	accept_all(false, WINDOW + 256);
	event_wait(&waiter_ended, 1);
	CHECK(!waiter_result);
	accept_all(true, 1);
	/* A long run through the small window: every credit comes back, none is made up. */
	for (unsigned i = 0; i < 100000; i++)
		CHECK(!call_1(false, in_ms(20000)));
	accept_all(false, 0);
	for (unsigned i = 0; i < WINDOW; i++) {
		int err = call_1(false, in_ms(1000));

		CHECK(!err);
	}
	CHECK(call_1(false, in_ms(30)) == -ETIMEDOUT);
	nu_wire_uncredit(1, 0);
	CHECK(!nu_wire_credit(1, 0, false, 0));
	CHECK(!nu_stat_sum(NU_STAT_BAD_MESSAGES));
	end_others();
}

Test(wire, credits_tcp)
{
	run_nodes(&(struct setup){
		2, 1, {.transport = "tcp", .credits = WINDOW}, credit_handlers, {credit_thread}});
}

Test(wire, credits)
{
	run_nodes(&(struct setup){
		2, 1, {.transport = "shm", .credits = WINDOW}, credit_handlers, {credit_thread}});
}

/* Calls that have not left may hold so many bytes; small ones are bounded by their number. */
static void bytes_thread(void *arg)
{
	for (unsigned i = 0; i < 4; i++)
		CHECK(!nu_wire_credit(1, NU_QUEUED_BYTES_MAX / 4, false, 0));
	CHECK(nu_wire_credit(1, NU_MIB, false, in_ms(30)) == -ETIMEDOUT);
	CHECK(nu_wire_credit(1, NU_MIB, true, in_ms(30)) == -ETIMEDOUT);
	CHECK(!nu_wire_credit(1, NU_QUEUED_BYTES_FREE, false, 0));
	/* One waits and is told to start over; another is let through by what is given back, and goes above the limit. */
	call_bytes = NU_MIB;
	start_waiter();
	wait_until_blocked();
	CHECK(nu_wire_forget_waiter(waiting_thread));
	nu_thread_ready(waiting_thread);
	event_wait(&waiter_ended, 1);
	CHECK(waiter_result == -EAGAIN);
	start_waiter();
	wait_until_blocked();
	nu_wire_uncredit(1, 1);
	CHECK(waiting_thread->state == NU_THREAD_BLOCKED);
	nu_wire_uncredit(1, 1024);
	event_wait(&waiter_ended, 1);
	CHECK(!waiter_result);
	CHECK(nu_wire_credit(1, NU_MIB, false, in_ms(30)) == -ETIMEDOUT);
	nu_wire_uncredit(1, 2 * NU_MIB);
	CHECK(!nu_wire_credit(1, NU_MIB, false, 0));
	end_others();
}

Test(wire, call_bytes)
{
	run_nodes(
		&(struct setup){2, 1, {.transport = "shm", .credits = 64}, credit_handlers, {bytes_thread}});
}

/* ---- sleep ---- */

static uint64_t cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static uint64_t cpu_before;

/* The node that is spoken to looks at its own use of the processor between two messages. */
static void on_cpu(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	struct nu_msg answer = {.type = NU_MSG_REPLY, .cls = NU_CLASS_REPLY, .seq = cpu_us() - cpu_before};

	CHECK(!nu_wire_send(from, &answer, NULL, 0));
	cpu_before = cpu_us();
}

static void sleep_handlers(void)
{
	basic_handlers();
	nu_wire_set_handler(NU_MSG_REFUSED, on_cpu);
	nu_wire_set_handler(NU_MSG_REPLY, on_accepted);
}

static void sleep_thread(void *arg)
{
	struct nu_msg m = {.type = NU_MSG_REFUSED, .cls = NU_CLASS_CONTROL};
	uint64_t mine, worst = 0;

	for (unsigned i = 0; i < 6; i++) {
		CHECK(!nu_wire_send(1, &m, NULL, 0));
		event_wait(&answers, 1);
		if (i > 1 && answer_seq > worst) /* the first rounds set the connection up */
			worst = answer_seq;
		mine = cpu_us();
		nu_sleep_us(500000);
		mine = cpu_us() - mine;
		if (i > 1 && mine > worst)
			worst = mine;
	}
	fprintf(stderr, "processor used in 500 ms of idling, worst of both nodes: %lu us\n",
		(unsigned long)worst);
	CHECK(worst < 100000); /* spinning would be 500,000 a core */
	end_others();
}

Test(wire, sleeping_peer_wakes_shm)
{
	run_nodes(&(struct setup){2, 2, {.transport = "shm"}, sleep_handlers, {sleep_thread}});
}

Test(wire, sleeping_peer_wakes_tcp)
{
	run_nodes(&(struct setup){2, 2, {.transport = "tcp"}, sleep_handlers, {sleep_thread}});
}

/* ---- a peer that stops reading for a while ---- */

static atomic_int to_parent_fd, from_parent_fd;

static void stopped_outside(int from_parent, int to_parent)
{
	from_parent_fd = from_parent;
	to_parent_fd = to_parent;
}

static void stopped_thread(void *arg)
{
	static unsigned char data[3000];
	uint64_t used;

	fill(data, sizeof(data), 5);
	echo(1, 10, data);
	fill(data, sizeof(data), 5);
	CHECK(write(to_parent_fd, "s", 1) == 1); /* parent: stop node 1, say so */
	CHECK(read(from_parent_fd, &(char){0}, 1) == 1);
	for (unsigned i = 0; i < 10000; i++)
		CHECK(!send_op(1, NU_MSG_HINT, OP_ECHO, 5, data, sizeof(data)));
	nu_sleep_us(50000);
	used = cpu_us();
	nu_sleep_us(500000);
	used = cpu_us() - used;
	fprintf(stderr, "processor used in 500 ms with 30 MB that cannot leave: %lu us\n",
		(unsigned long)used);
	CHECK(write(to_parent_fd, "c", 1) == 1);
	event_wait(&answers, 10000);
	end_others();
}

static void run_stopped(const char *transport)
{
	struct setup s = {2, 1, {.transport = transport}, basic_handlers, {stopped_thread}, stopped_outside};
	char c;

	start_nodes(&s);
	cr_assert(read(parent_from_0[0], &c, 1) == 1 && c == 's');
	kill(node_pids[1], SIGSTOP);
	cr_assert(waitpid(node_pids[1], &(int){0}, WUNTRACED) == node_pids[1]);
	cr_assert(write(parent_to_0[1], "g", 1) == 1);
	cr_assert(read(parent_from_0[0], &c, 1) == 1 && c == 'c');
	kill(node_pids[1], SIGCONT);
	expect_exit(0, 0);
	expect_exit(1, 0);
}

Test(wire, stopped_peer_shm)
{
	run_stopped("shm");
}

Test(wire, stopped_peer_tcp)
{
	run_stopped("tcp");
}

/* ---- death ---- */

static struct event declared;

static void killed_outside(int from_parent, int to_parent)
{
	char c;

	to_parent_fd = to_parent;
	CHECK(read(from_parent, &c, 1) == 1); /* node 1 is dead */
	nu_wire_peer_dead(1);
	nu_wire_peer_dead(1);
	event_add(&declared, 1);
}

static void killed_thread(void *arg)
{
	static unsigned char data[70000];
	struct nu_msg m = {.type = NU_MSG_CALL, .cls = NU_CLASS_CALL};
	uint64_t used;

	echo(1, 100, data);
	echo(2, 100, data);
	for (unsigned i = 0; i < WINDOW; i++)
		CHECK(!call_1(false, 0));
	start_waiter();
	wait_until_blocked();
	/* Traffic that is under way when it dies, and goes on before anybody says so. */
	fill(data, sizeof(data), 3);
	for (unsigned i = 0; i < 500; i++)
		CHECK(!send_op(1, NU_MSG_STACK, 0, 3, data, sizeof(data)));
	CHECK(write(to_parent_fd, "k", 1) == 1);
	for (unsigned i = 0; i < 200; i++) {
		int err = send_op(1, NU_MSG_STACK, 0, 3, data, sizeof(data));

		CHECK(!err || err == -EHOSTDOWN);
		nu_sleep_us(100);
	}
	event_wait(&declared, 1);
	event_wait(&waiter_ended, 1);
	CHECK(waiter_result == -EHOSTDOWN);
	CHECK(nu_wire_send(1, &m, NULL, 0) == -EHOSTDOWN);
	CHECK(call_1(true, 0) == -EHOSTDOWN);
	for (unsigned i = 0; i < 100; i++)
		echo(2, 1000, data);
	/* What could not be sent to the dead keeps nobody awake. */
	used = cpu_us();
	nu_sleep_us(500000);
	used = cpu_us() - used;
	fprintf(stderr, "processor used in 500 ms after a peer's death: %lu us\n", (unsigned long)used);
	CHECK(used < 100000);
	CHECK(!send_op(2, NU_MSG_HINT, OP_END, 0, NULL, 0));
}

static void on_nothing(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
}

static void killed_handlers(void)
{
	basic_handlers();
	nu_wire_set_handler(NU_MSG_CALL, on_nothing);
	nu_wire_set_handler(NU_MSG_STACK, on_nothing);
}

static void run_killed(const char *transport)
{
	struct setup s = {3,
			  1,
			  {.transport = transport, .credits = WINDOW},
			  killed_handlers,
			  {killed_thread},
			  killed_outside};
	unsigned files = shm_files();
	struct timespec t0, t1;
	char c;

	clock_gettime(CLOCK_MONOTONIC, &t0);
	start_nodes(&s);
	cr_assert(read(parent_from_0[0], &c, 1) == 1);
	kill(node_pids[1], SIGKILL);
	expect_exit(1, SIGKILL);
	cr_assert(write(parent_to_0[1], "d", 1) == 1);
	expect_exit(0, 0);
	expect_exit(2, 0);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	cr_expect_lt(t1.tv_sec - t0.tv_sec, 15, "the end was waited for too long");
	expect_no_litter(files, s.nodes);
}

Test(wire, killed_peer_shm)
{
	run_killed("shm");
}

Test(wire, killed_peer_tcp)
{
	run_killed("tcp");
}
