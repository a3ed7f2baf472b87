/* SPDX-License-Identifier: MIT */
/* A node from its start to its end: what nu_run() does. */
#include "ctrl/asleep.h"
#include "ctrl/ctrl.h"
#include "ctrl/boot.h"
#include "ctrl/controller.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESERVE_BYTES (64 * NU_MIB)
#define SLACK_BYTES   (128 * NU_MIB) /* given back within REPORT_US */
#define REPORT_US     (250u * 1000)  /* each time some four wake-ups; an idle node has at most 20 a second */

static struct runtime {
	nu_main_fn main_fn;
	int argc;
	char **argv;
	const struct nu_run_options *options;
	pthread_mutex_t mutex; /* ended, status */
	pthread_cond_t cond;
	bool started, ended;
	char reason[320];     /* why it cannot start, where there is more to say than the error */
	volatile bool serves; /* between start and end; the first thread's, and its handlers' */
	int status;
} runtime = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static struct nu_fds foreign_fds; /* open before UCX opened its own */

/* ---- the end ---- */

static void on_end(int status)
{
	pthread_mutex_lock(&runtime.mutex);
	if (!runtime.ended) /* the first word counts */
		runtime.status = status;
	runtime.ended = true;
	pthread_cond_signal(&runtime.cond);
	pthread_mutex_unlock(&runtime.mutex);
}

static int wait_end(void)
{
	pthread_mutex_lock(&runtime.mutex);
	while (!runtime.ended)
		pthread_cond_wait(&runtime.cond, &runtime.mutex);
	pthread_mutex_unlock(&runtime.mutex);
	return runtime.status;
}

/* ---- the start ---- */

/* The node's own proclet: runs the runtime's threads; has no heap and never moves. */
static int node_proclet(struct nu_proclet **p_p)
{
	int ret = nu_proclet_enter(nu_id_of_node(nu_node.self), p_p);

	if (!ret) {
		(*p_p)->cls = &nu_node_class;
		(*p_p)->state = NU_PROCLET_PRESENT;
	}
	return ret;
}

static int call_node_init(void)
{
	int ret;

	nu_boot_init_runs(true);
	nu_outside_init(true);
	ret = runtime.options->node_init(nu_node.self);
	nu_outside_init(false);
	nu_boot_init_runs(false);
	if (!ret)
		return 0;
	/* -1 is no errno, but what many functions return. */
	snprintf(runtime.reason, sizeof(runtime.reason), "node_init returned %d%s%s%s", ret,
		 ret < -1 ? " (" : "", ret < -1 ? strerror(-ret) : "", ret < -1 ? ")" : "");
	return ret;
}

/* The cause has been said, or is in runtime.reason. */
static void cannot_start(int ret)
{
	char text[384];

	/* Not nu_strerror(): that says what an error means that comes from a call. */
	snprintf(text, sizeof(text), "cannot start: %s", *runtime.reason ? runtime.reason : strerror(-ret));
	nu_boot_fail(text);
}

static int prepare(const struct nu_image *image, struct nu_proclet **node_p)
{
	const struct nu_rpc_ops rpc_ops = {nu_client_locate, nu_instance_create, nu_instance_retire,
					   &nu_controller_locate_method};
	const struct nu_move_ops move_ops = {nu_client_move_begin, nu_client_move_end};
	const struct nu_pool_ops *pool_ops = NULL;
	size_t reserve = nu_node.mem_bytes / 16 < RESERVE_BYTES ? nu_node.mem_bytes / 16 : RESERVE_BYTES;
	int ret = nu_crash_init();

	nu_asleep_start(NU_ASLEEP_BEGIN);
	if (!ret)
		ret = nu_layout_init();
	if (!ret)
		ret = nu_image_init(image);
	if (!ret)
		ret = nu_join_alike();
	nu_image_seal(!ret);
	if (!ret)
		ret = nu_proclet_table_init();
	if (!ret)
		ret = nu_join_device(&pool_ops, runtime.reason, sizeof(runtime.reason));
	if (!ret)
		ret = nu_pool_init(nu_node.mem_bytes, 0, nu_node.count > 1 ? reserve : 0, pool_ops);
	if (!ret && nu_node.count > 1)
		(void)!nu_pool_refill(0); /* what is missing is backed later */
	nu_pool_set_slack(nu_node.mem_bytes / 16 < SLACK_BYTES ? nu_node.mem_bytes / 16 : SLACK_BYTES);
	nu_asleep_start(NU_ASLEEP_INIT);
	if (!ret && runtime.options->node_init)
		ret = call_node_init();
	nu_asleep_start(NU_ASLEEP_INIT_DONE);
	nu_fds_note(&foreign_fds); /* what is open from here on is ours, or UCX's */
	if (!ret)
		ret = nu_rpc_init();
	if (!ret)
		ret = nu_move_init();
	if (!ret)
		ret = node_proclet(node_p);
	nu_rpc_set_ops(&rpc_ops);
	nu_move_set_ops(&move_ops);
	/* Alone there is nobody to talk to: no UCX, and so none of its patches to mmap either. */
	if (!ret && nu_node.count > 1)
		ret = nu_join_connect();
	if (!ret)
		ret = nu_reader_init(nu_boot_options.reader);
	nu_asleep_start(NU_ASLEEP_DONE);
	return ret;
}

/* ---- threads that every node begins with ---- */

static void main_ended(int status)
{
	fflush(NULL);
	if (nu_boot_launched())
		nu_boot_main_done(status); /* the launcher tells every node */
	else
		on_end(status); /* it may be here before the control thread is */
}

static void main_body(void *arg)
{
	main_ended(runtime.main_fn(runtime.argc, runtime.argv));
}

static int main_start(void)
{
	size_t capacity;
	struct nu_proclet *p;
	struct nu_thread *t;
	uint64_t id;
	int ret = nu_instance_capacity(runtime.options->main_capacity_bytes, &capacity);

	if (!ret)
		ret = nu_client_main(capacity, &id);
	if (!ret)
		ret = nu_instance_make(id, NULL, capacity, true, 0, &p);
	if (ret)
		return ret;
	t = nu_thread_alloc(p);
	if (!t || !nu_thread_prepare(t, main_body, NULL, 0))
		return -ENOMEM;
	t->detached = 1;
	t->call_id = id;
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	nu_thread_ready(t);
	return 0;
}

/* Tells the controller how full this node is, when that has changed; keeps the reserve for arrivals backed. */
static void report_loop(void)
{
	uint64_t said = 0;

	for (;;) {
		struct nu_pool_stats s;

		nu_pool_stats(&s);
		if (s.used_bytes / NU_MIB != said / NU_MIB) {
			said = s.used_bytes;
			nu_client_report(nu_node.self, said);
		}
		while (nu_pool_trim())
			nu_yield();
		while (nu_pool_refill(2 * NU_MIB) > 0)
			nu_yield();
		if (nu_deadlock_tick())
			main_ended(NU_DEADLOCK_STATUS);
		nu_sleep_us(REPORT_US);
	}
}

static void first_body(void *arg)
{
	int ret = 0;

	if (nu_node.self == 0) {
		ret = nu_controller_start();
		/* All have passed the barrier, so node 0 speaks for them: main() finds them joined. */
		for (unsigned n = 0; n < nu_node.count && !ret; n++)
			ret = nu_client_join(n, nu_node.cores_of[n], nu_join_mem_bytes(n));
		if (!ret)
			ret = main_start();
	}
	if (ret) {
		cannot_start(ret);
		on_end(1);
		return;
	}
	nu_deadlock_init();
	report_loop();
}

/* ---- the whole ---- */

static void unprotect(void)
{
	if (!runtime.options->writable_globals)
		(void)!nu_image_protect(false); /* main() and the program's destructors still run */
}

/* On the first thread. */
static void take_down(int status)
{
	/* A handler that has interrupted the first thread while it takes the node down, and calls exit(). */
	if (!runtime.serves) {
		fflush(NULL);
		_exit(status);
	}
	runtime.serves = false;
	fflush(NULL);
	nu_boot_leave();
	nu_verbs_stop();
	if (nu_sched_stop())
		_exit(status & 0xff); /* nothing may be taken down under the thread that still runs */
	nu_exits_off();
	if (nu_node.count > 1)
		nu_wire_fini();
	nu_verbs_close();
	unprotect();
	nu_image_seal(false);
}

/* A handler of the program's own that calls exit() finds the node either not begun or whole. */
static void hold_signals(sigset_t *old_p)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
	sigset_t held;

	sigfillset(&held);
	for (unsigned i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigdelset(&held, crashes[i]);
	pthread_sigmask(SIG_BLOCK, &held, old_p);
}

static int start(const struct nu_image *image)
{
	static const struct nu_boot_ops boot_ops = {nu_death_note, on_end,
						    nu_command}; /* the control thread outlives us */
	static const struct nu_exit_ops exit_ops = {on_end, take_down, unprotect};
	struct nu_proclet *node;
	sigset_t old;
	int ret = prepare(image, &node);

	if (!ret && !runtime.options->writable_globals)
		ret = nu_image_protect(true);
	if (!ret)
		ret = nu_join_barrier();
	hold_signals(&old);
	if (!ret)
		nu_exits_on(&exit_ops); /* main() may call exit() at once */
	if (!ret)
		ret = nu_sched_start(node, first_body, NULL);
	nu_fds_close_new_on_exec(&foreign_fds);
	if (!ret)
		ret = nu_boot_control_start(&boot_ops);
	runtime.serves = !ret;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static int run(const struct nu_image *image)
{
	int ret = start(image), status;

	if (!ret) {
		status = wait_end();
		take_down(status);
		if (nu_exit_is_called())
			exit(status);
		return status;
	}
	nu_exits_off();
	cannot_start(ret);
	unprotect();
	nu_image_seal(false);
	return ret;
}

NU_API int nu_run_image(int argc, char **argv, nu_main_fn main_fn, const struct nu_run_options *options,
			const struct nu_image *image)
{
	static const struct nu_run_options defaults;
	char why[512];
	int ret;

	if (runtime.started || nu_thread_self() || !main_fn)
		return -EINVAL;
	ret = nu_malloc_check(why, sizeof(why));
	if (ret) {
		nu_boot_fail(why);
		return ret;
	}
	runtime.started = true;
	runtime.main_fn = main_fn;
	runtime.argc = argc;
	runtime.argv = argv;
	runtime.options = options ? options : &defaults;
	return run(image);
}

NU_API unsigned nu_node_self(void)
{
	return nu_node.self;
}

NU_API unsigned nu_node_count(void)
{
	return nu_node.count;
}
