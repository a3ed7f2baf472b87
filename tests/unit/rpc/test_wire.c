/* SPDX-License-Identifier: MIT */
/*
 * The wire between processes of this machine: each test forks its nodes, which exchange their addresses through pipes
 * and then talk through UCX over shared memory or loopback TCP.
 */
#include "rpc/rpc_int.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NODES_MAX 3
#define LIMIT_S	  60

/* UCX reads these in its constructor, before any code of ours: they must be there when the program starts. */
__attribute__((constructor)) static void with_environment(int argc, char **argv)
{
	if (getenv("UCX_MEM_EVENTS"))
		return;
	setenv("UCX_MEM_EVENTS", "n", 1);
	setenv("UCX_VFS_ENABLE", "n", 1);
	execv("/proc/self/exe", argv);
	_exit(127);
}

/* ---- a node ---- */

#define CHECK(e)                                                                                             \
	do {                                                                                                 \
		if (!(e)) {                                                                                  \
			fprintf(stderr, "node %u: %s:%d: failed: %s\n", nu_node.self, __FILE__, __LINE__,    \
				#e);                                                                         \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

struct setup {
	unsigned nodes, cores;
	struct nu_wire_options wire;
	void (*handlers)(void);
	nu_thread_fn thread[NODES_MAX]; /* first thread of each node; NULL: serves until told to end */
	void (*outside)(int parent, int to_parent); /* on the node 0's main thread, instead of just waiting */
};

/* Something that a thread waits for and handlers bring about. */
struct event {
	struct nu_lock lock;
	struct nu_thread *waiter;
	long count;
};

static void event_add(struct event *e, long n)
{
	struct nu_thread *t = NULL;

	nu_lock_acquire(&e->lock);
	e->count += n;
	if (e->count > 0) {
		t = e->waiter;
		e->waiter = NULL;
	}
	nu_lock_release(&e->lock);
	if (t)
		nu_thread_ready(t);
}

/* Waits until @n have been added since the last wait. */
static void event_wait(struct event *e, long n)
{
	nu_lock_acquire(&e->lock);
	e->count -= n - 1;
	if (e->count > 0) {
		nu_lock_release(&e->lock);
	} else {
		e->waiter = nu_thread_self();
		nu_thread_block(NU_WAIT_OTHER, &e->lock);
	}
	nu_lock_acquire(&e->lock);
	e->count--;
	nu_lock_release(&e->lock);
}

static struct event answers, arrivals, streams;
static int done_pipe[2];

static void node_done(void)
{
	CHECK(write(done_pipe[1], "d", 1) == 1);
}

static const struct setup *current;

static void first_thread(void *arg)
{
	current->thread[nu_node.self](arg);
	node_done();
}

static void idle_thread(void *arg)
{
}

/* END: the node that gets it leaves. */
#define OP_ECHO	 1
#define OP_END	 2
#define OP_COUNT 3
#define OP_USER	 10

static int send_op(unsigned node, enum nu_msg_type type, uint64_t op, uint64_t tag, const void *data,
		   size_t len)
{
	struct nu_msg m = {.type = type, .cls = NU_CLASS_CONTROL, .origin = nu_node.self, .extra = {op, tag}};
	struct iovec parts[2] = {{(void *)data, len / 3}, {(char *)data + len / 3, len - len / 3}};

	return nu_wire_send(node, &m, parts, 2);
}

static void end_others(void)
{
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (n != nu_node.self)
			(void)!send_op(n, NU_MSG_HINT, OP_END, 0, NULL, 0);
	}
}

/* Any text that depends on (tag, offset). */
static void fill(unsigned char *to, size_t len, uint64_t tag)
{
	uint64_t x = tag * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		to[i] = (unsigned char)(x >> 56);
	}
}

static bool same(const unsigned char *p, size_t len, uint64_t tag)
{
	uint64_t x = tag * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		if (p[i] != (unsigned char)(x >> 56))
			return false;
	}
	return true;
}

static size_t answer_len;
static uint64_t answer_tag;

static void on_control(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(!((uintptr_t)payload & 7));
	switch (m->extra[0]) {
	case OP_ECHO:
		CHECK(same(payload, len, m->extra[1]));
		CHECK(!send_op(from, NU_MSG_REPLY, OP_ECHO, m->extra[1], payload, len));
		break;
	case OP_END:
		node_done();
		break;
	case OP_COUNT:
		event_add(&arrivals, 1);
		break;
	default:
		CHECK(!"known operation");
	}
}

static void on_reply(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(same(payload, len, m->extra[1]));
	answer_len = len;
	answer_tag = m->extra[1];
	event_add(&answers, 1);
}

static void basic_handlers(void)
{
	nu_wire_set_handler(NU_MSG_HINT, on_control);
	nu_wire_set_handler(NU_MSG_REPLY, on_reply);
}

static void read_all(int fd, void *to, size_t len)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = read(fd, (char *)to + got, len - got);

		CHECK(n > 0);
		got += (size_t)n;
	}
}

/* Every node writes its address to each other node's pipe; sizes are below what a pipe holds. */
static void exchange(unsigned self, unsigned nodes, int pipes[NODES_MAX][NODES_MAX][2])
{
	void *blob;
	size_t len;

	CHECK(!nu_wire_address(&blob, &len));
	for (unsigned n = 0; n < nodes; n++) {
		CHECK(write(pipes[self][n][1], &len, sizeof(len)) == sizeof(len));
		CHECK(write(pipes[self][n][1], blob, len) == (ssize_t)len);
	}
	free(blob);
	for (unsigned n = 0; n < nodes; n++) {
		read_all(pipes[n][self][0], &len, sizeof(len));
		blob = malloc(len);
		read_all(pipes[n][self][0], blob, len);
		CHECK(!nu_wire_set_peer(n, blob, len));
		free(blob);
	}
}

static struct nu_proclet own_proclet;

static void node_init(unsigned self, unsigned nodes, unsigned cores)
{
	nu_node.self = self;
	nu_node.count = nodes;
	nu_node.cores = cores;
	own_proclet.id = nu_id_of_node(self);
	own_proclet.state = NU_PROCLET_PRESENT;
	nu_list_init(&own_proclet.threads);
	nu_list_init(&own_proclet.parked);
	nu_list_init(&own_proclet.held);
	nu_list_init(&own_proclet.output_waiters);
}

/* Criterion's sandbox maps an arena of its own at a random place, at times where segments belong. A node needs none. */
static void leave_arena(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	uintptr_t low, high;

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "bxf_arena") && sscanf(line, "%lx-%lx", &low, &high) == 2)
			CHECK(!munmap((void *)low, high - low));
	}
	if (f)
		fclose(f);
}

static void node_main(const struct setup *s, unsigned self, int pipes[NODES_MAX][NODES_MAX][2],
		      int from_parent, int to_parent)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(LIMIT_S);
	current = s;
	CHECK(!pipe(done_pipe));
	leave_arena();
	CHECK(!nu_layout_init());
	node_init(self, s->nodes, s->cores);
	CHECK(!nu_wire_init(&s->wire));
	s->handlers();
	exchange(self, s->nodes, pipes);
	CHECK(!nu_sched_start(&own_proclet, s->thread[self] ? first_thread : idle_thread, NULL));
	if (!self && s->outside)
		s->outside(from_parent, to_parent);
	CHECK(read(done_pipe[0], &c, 1) == 1);
	nu_sched_stop();
	nu_wire_fini();
	fflush(NULL);
	_exit(0);
}

/* ---- the parent ---- */

static pid_t node_pids[NODES_MAX];

static unsigned shm_files(void)
{
	DIR *d = opendir("/dev/shm");
	unsigned n = 0;

	for (struct dirent *e; d && (e = readdir(d));) {
		if (strstr(e->d_name, "ucx"))
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

/* Segments that one of our nodes made and that outlived it. */
static unsigned sysv_segments(unsigned nodes)
{
	FILE *f = fopen("/proc/sysvipc/shm", "r");
	unsigned n = 0;
	char line[512];
	int creator;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d %*d %*o %*u %d", &creator) != 1)
			continue;
		for (unsigned i = 0; i < nodes; i++)
			n += creator == node_pids[i];
	}
	if (f)
		fclose(f);
	return n;
}

/* Other programs' files come and go while we look; what our nodes leave would stay. */
static void expect_no_litter(unsigned files_before, unsigned nodes)
{
	unsigned tries = 0;

	while (shm_files() > files_before && ++tries < 2000)
		usleep(2000);
	cr_expect_leq(shm_files(), files_before, "something was left in /dev/shm");
	cr_expect_eq(sysv_segments(nodes), 0, "a System V segment was left");
}

static int parent_to_0[2], parent_from_0[2];

static void start_nodes(const struct setup *s)
{
	int pipes[NODES_MAX][NODES_MAX][2];

	for (unsigned a = 0; a < s->nodes; a++) {
		for (unsigned b = 0; b < s->nodes; b++)
			cr_assert(!pipe(pipes[a][b]));
	}
	cr_assert(!pipe(parent_to_0) && !pipe(parent_from_0));
	fflush(NULL);
	for (unsigned n = 0; n < s->nodes; n++) {
		node_pids[n] = fork();
		cr_assert(node_pids[n] >= 0);
		if (!node_pids[n])
			node_main(s, n, pipes, parent_to_0[0], parent_from_0[1]);
	}
	for (unsigned a = 0; a < s->nodes; a++) {
		for (unsigned b = 0; b < s->nodes; b++) {
			close(pipes[a][b][0]);
			close(pipes[a][b][1]);
		}
	}
	close(parent_from_0[1]);
}

static void expect_exit(unsigned node, int status)
{
	int got;

	cr_assert(waitpid(node_pids[node], &got, 0) == node_pids[node]);
	cr_expect(got == status, "node %u ended with %#x, not %#x", node, got, status);
}

static void run_nodes(const struct setup *s)
{
	unsigned files = shm_files();

	start_nodes(s);
	for (unsigned n = 0; n < s->nodes; n++)
		expect_exit(n, 0);
	expect_no_litter(files, s->nodes);
}

/* ---- sizes ---- */

static void echo(unsigned node, size_t len, unsigned char *data)
{
	static uint64_t tag;

	fill(data, len, ++tag);
	CHECK(!send_op(node, NU_MSG_HINT, OP_ECHO, tag, data, len));
	event_wait(&answers, 1);
	CHECK(answer_len == len && answer_tag == tag);
}

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
	transport_is("posix/memory", "sysv/memory");
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
	/* Many share batches: 160 bytes each, 50 to a batch of 8064. */
	before = nu_stat_sum(NU_STAT_BATCHES_SENT);
	fill(data, sizeof(data), 7);
	for (unsigned i = 0; i < 5000; i++)
		CHECK(!send_op(1, NU_MSG_HINT, OP_ECHO, 7, data, sizeof(data)));
	event_wait(&answers, 5000);
	CHECK(nu_stat_sum(NU_STAT_BATCHES_SENT) - before <= 101);
	CHECK(nu_stat_sum(NU_STAT_BATCHES_SENT) - before >= 99);
	end_others();
}

Test(wire, batching)
{
	run_nodes(&(struct setup){2, 1, {.transport = "shm"}, basic_handlers, {batching_thread}});
}

/* ---- order: from each core of each node, messages of all sizes arrive as they were sent ---- */

#define ORDER_MESSAGES 4000

static uint64_t next_seq[NODES_MAX][2];
static _Alignas(8) unsigned char order_data[300000];

static void on_ordered(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(from < nu_node.count && m->extra[1] < 2);
	CHECK(m->seq == next_seq[from][m->extra[1]]);
	next_seq[from][m->extra[1]]++;
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
				   .extra = {0, nu_core_self()}};
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

	accept_at_once = m->extra[1];
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

static int call_1(bool nested, uint64_t deadline)
{
	struct nu_msg m = {.type = NU_MSG_CALL, .cls = NU_CLASS_CALL, .origin = nu_node.self};
	int err = nu_wire_credit(1, nested, deadline);

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
	struct nu_msg m = {.type = NU_MSG_REFUSED, .cls = NU_CLASS_CONTROL, .extra = {0, at_once}};

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
	nu_wire_uncredit(1);
	CHECK(!nu_wire_credit(1, false, 0));
	CHECK(!nu_stat_sum(NU_STAT_BAD_MESSAGES));
	end_others();
}

Test(wire, credits)
{
	run_nodes(&(struct setup){
		2, 1, {.transport = "shm", .credits = WINDOW}, credit_handlers, {credit_thread}});
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

static int to_parent_fd, from_parent_fd;

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

/* ---- bad bytes, straight to the decoder ---- */

static uint64_t bytes_seen, messages_seen;

static void on_fuzzed(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(from < nu_node.count && m->origin < nu_node.count && m->len_bytes == sizeof(*m) + len);
	for (size_t i = 0; i < len; i++) /* the sanitizer looks at each */
		bytes_seen += ((const unsigned char *)payload)[i];
	messages_seen++;
}

static size_t make_batch(unsigned char *to, unsigned *seed)
{
	struct nu_batch *h = (struct nu_batch *)to;
	size_t at = sizeof(*h);
	unsigned n = 1 + (unsigned)rand_r(seed) % 6;

	for (unsigned i = 0; i < n; i++) {
		struct nu_msg *m = (struct nu_msg *)(to + at);
		size_t len = (unsigned)rand_r(seed) % 200;

		memset(m, 0, sizeof(*m));
		m->len_bytes = (uint32_t)(sizeof(*m) + len);
		m->type = (uint8_t)(1 + rand_r(seed) % (NU_MSG_TYPES - 1));
		m->origin = (unsigned)rand_r(seed) % 3;
		memset(m + 1, 'x', NU_ALIGN_UP(len, 8));
		at += sizeof(*m) + NU_ALIGN_UP(len, 8);
	}
	*h = (struct nu_batch){.magic = NU_BATCH_MAGIC, .len_bytes = (uint32_t)at, .node = 1};
	return at;
}

static void mutate(unsigned char *data, size_t *len_p, unsigned *seed)
{
	static const uint32_t nasty[] = {0, 1, 7, 95, 96, 97, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
	unsigned n = 1 + (unsigned)rand_r(seed) % 4;

	for (unsigned i = 0; i < n && *len_p; i++) {
		size_t at = (unsigned)rand_r(seed) % *len_p;

		switch (rand_r(seed) % 4) {
		case 0:
			data[at] ^= (unsigned char)(1 << rand_r(seed) % 8);
			break;
		case 1:
			data[at] = (unsigned char)rand_r(seed);
			break;
		case 2:
			at &= ~(size_t)3;
			if (at + 4 <= *len_p)
				memcpy(data + at, &nasty[(unsigned)rand_r(seed) % 10], 4);
			break;
		case 3:
			*len_p = at;
			break;
		}
	}
	/* Often the outer length is right again, so that what is inside is looked at. */
	if (*len_p >= sizeof(struct nu_batch) && rand_r(seed) % 4)
		((struct nu_batch *)data)->len_bytes = (uint32_t)*len_p;
}

static void fuzz_start(void)
{
	node_init(0, 3, 1);
	nu_log_level = NU_LOG_ERROR;
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = "shm"}));
	for (unsigned t = 1; t < NU_MSG_TYPES; t++)
		nu_wire_set_handler(t, on_fuzzed);
}

/* Memory of exactly this size: a read beyond it is seen by the sanitizer. */
static int receive_exact(const unsigned char *data, size_t len)
{
	unsigned char *exact = malloc(len ? len : 1);
	int rc;

	memcpy(exact, data, len);
	rc = nu_wire_receive(0, exact, len, false);
	free(exact);
	return rc;
}

Test(wire, malformed_batches)
{
	static _Alignas(16) unsigned char good[8192], data[8192];
	unsigned seed = 20260, refused = 0, taken = 0;

	fuzz_start();
	for (unsigned i = 0; i < 300000; i++) {
		size_t len = make_batch(good, &seed);
		uint64_t before = nu_stat_sum(NU_STAT_BAD_MESSAGES);
		int rc;

		memcpy(data, good, len);
		mutate(data, &len, &seed);
		rc = receive_exact(data, len);
		cr_assert(rc >= 0 || rc == -EBADMSG);
		if (rc < 0) {
			refused++;
			cr_assert_gt(nu_stat_sum(NU_STAT_BAD_MESSAGES), before);
		} else {
			taken++;
		}
	}
	cr_expect_gt(refused, 100000);
	cr_expect_gt(taken, 1000);
	cr_expect_gt(messages_seen, 1000);
	nu_wire_fini();
}

/* Every possible truncation of a good batch is refused, and the good ones before and after are not. */
Test(wire, truncated_batches)
{
	static _Alignas(16) unsigned char good[8192];
	unsigned seed = 1;

	fuzz_start();
	for (unsigned i = 0; i < 200; i++) {
		size_t len = make_batch(good, &seed);

		cr_assert_gt(receive_exact(good, len), 0);
		for (size_t cut = 0; cut < len; cut++)
			cr_assert_eq(receive_exact(good, cut), -EBADMSG);
	}
	nu_wire_fini();
}

Test(wire, malformed_fields)
{
	static _Alignas(16) unsigned char good[8192];
	struct nu_batch *h = (struct nu_batch *)good;
	struct nu_msg *m = (struct nu_msg *)(h + 1);
	unsigned seed = 1;
	size_t len;

	fuzz_start();
	len = make_batch(good, &seed);
#define REFUSED(change)                                                                                      \
	do {                                                                                                 \
		memset(good, 0, sizeof(good));                                                               \
		len = make_batch(good, &seed);                                                               \
		change;                                                                                      \
		cr_expect_eq(receive_exact(good, len), -EBADMSG, "%s", #change);                             \
	} while (0)
	REFUSED(h->magic++);
	REFUSED(h->len_bytes += 8);
	REFUSED(h->node = 0); /* ourselves */
	REFUSED(h->node = 3);
	REFUSED(h->core = NU_MAX_CORES);
	REFUSED(h->flags = 2);
	REFUSED(h->spare = 1);
	REFUSED(m->type = 0);
	REFUSED(m->type = NU_MSG_TYPES);
	REFUSED(m->cls = NU_CLASS_CONTROL + 1);
	REFUSED((m->type = NU_MSG_CALL, m->hops = NU_MAX_HOPS + 1));
	REFUSED(m->origin = 3);
	REFUSED(m->len_bytes = 95);
	REFUSED(m->len_bytes = 0);
	REFUSED(m->len_bytes = UINT32_MAX);
	len = make_batch(good, &seed);
	m->type = NU_MSG_REPLY; /* an answer follows its caller as far as it goes */
	m->hops = NU_MAX_HOPS + 1;
	cr_expect_gt(receive_exact(good, len), 0);
	/* Credits that nobody had taken are counted, and give nobody more than the window. */
	len = make_batch(good, &seed);
	h->credits = 5;
	cr_expect_gt(receive_exact(good, len), 0);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 16);
	nu_wire_fini();
}

Test(wire, malformed_addresses)
{
	void *blob;
	size_t len;

	node_init(0, 3, 2);
	cr_assert(dup2(open("/dev/null", O_WRONLY), 2) == 2); /* hundreds of refusals are asked for */
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = "shm"}));
	cr_assert(!nu_wire_address(&blob, &len));
	for (size_t cut = 0; cut < len; cut++) {
		unsigned char *exact = malloc(cut ? cut : 1);

		memcpy(exact, blob, cut);
		cr_assert_eq(nu_wire_set_peer(1, exact, cut), -EBADMSG, "cut to %zu", cut);
		free(exact);
	}
	cr_expect_eq(nu_wire_set_peer(3, blob, len), -EINVAL);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), 0);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EEXIST);
	free(blob);
	nu_wire_fini();
}
