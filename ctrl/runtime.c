/* SPDX-License-Identifier: MIT */
/* A node from its start to its end: what nu_run() does. */
#include "ctrl/ctrl.h"
#include "ctrl/boot.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESERVE_BYTES (64 * NU_MIB)
#define REPORT_US     (200u * 1000)

static struct runtime {
	nu_main_fn main_fn;
	int argc;
	char **argv;
	const struct nu_run_options *options;
	pthread_mutex_t mutex; /* ended, status */
	pthread_cond_t cond;
	bool started, ended;
	int status;
} runtime = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static struct nu_fds foreign_fds; /* open before UCX opened its own */

/* ---- the end ---- */

static void on_end(int status)
{
	pthread_mutex_lock(&runtime.mutex);
	runtime.ended = true;
	runtime.status = status;
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

struct hello {
	uint64_t digest;
	uint32_t text_bytes;
	char text[];
};

/* The first line of @text that @other has not; "(nothing)": it has them all. */
static void first_lacking(const char *text, const char *other, char *line, size_t size)
{
	snprintf(line, size, "(nothing)");
	for (size_t len; *text; text += len + (text[len] != '\0')) {
		const char *at = other;

		len = strcspn(text, "\n");
		while (*at && (strncmp(at, text, len) || (at[len] && at[len] != '\n'))) {
			at += strcspn(at, "\n");
			at += *at != '\0';
		}
		if (!*at && len) {
			snprintf(line, size, "%.*s", (int)len, text);
			return;
		}
	}
}

static void say_difference(const char *mine, const char *theirs, unsigned node)
{
	char here[256], there[256], reason[640];

	first_lacking(mine, theirs, here, sizeof(here));
	first_lacking(theirs, mine, there, sizeof(there));
	snprintf(reason, sizeof(reason), "node %u and node %u are not alike: '%s' there, '%s' here", node,
		 nu_node.self, there, here);
	nu_boot_fail(reason);
}

/* Every node must have the same code at the same addresses: threads that move have return addresses on their stacks. */
static int check_alike(void)
{
	void *all[NU_MAX_NODES] = {NULL};
	size_t lens[NU_MAX_NODES];
	struct hello *mine;
	char *text;
	uint64_t digest;
	int ret = nu_image_digest(&digest, &text);

	if (ret)
		return ret;
	mine = malloc(sizeof(*mine) + strlen(text) + 1);
	if (!mine) {
		free(text);
		return -ENOMEM;
	}
	mine->digest = digest;
	mine->text_bytes = (uint32_t)strlen(text) + 1;
	memcpy(mine->text, text, mine->text_bytes);
	free(text);
	ret = nu_boot_exchange(mine, sizeof(*mine) + mine->text_bytes, all, lens);
	for (unsigned n = 0; !ret && n < nu_node.count; n++) {
		struct hello *other = all[n];

		if (lens[n] < sizeof(*other) || lens[n] != sizeof(*other) + (size_t)other->text_bytes ||
		    !other->text_bytes || other->text[other->text_bytes - 1])
			ret = -EPROTO;
		if (!ret && other->digest != digest) {
			/* Each says it: whoever is heard first ends the job. */
			say_difference(mine->text, other->text, n);
			ret = -EPROTO;
		}
	}
	if (ret != -ETIMEDOUT && ret != -EHOSTDOWN) {
		for (unsigned n = 0; n < nu_node.count; n++)
			free(all[n]);
	}
	free(mine);
	return ret;
}

static int connect_wire(void)
{
	struct nu_wire_options wo = {.transport = nu_boot_options.transport,
				     .key = nu_key_derive(nu_boot_options.secret, "batches"),
				     .address = nu_boot_options.address};
	void *all[NU_MAX_NODES], *mine;
	size_t lens[NU_MAX_NODES], len;
	int ret = nu_wire_init(&wo);

	if (!ret)
		ret = nu_wire_address(&mine, &len);
	if (ret)
		return ret;
	ret = nu_boot_exchange(mine, len, all, lens);
	free(mine);
	if (ret)
		return ret;
	for (unsigned n = 0; n < nu_node.count; n++) {
		if (!ret)
			ret = nu_wire_set_peer(n, all[n], lens[n]);
		free(all[n]);
	}
	return ret;
}

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

/* Bytes that every node starts with behind it: all have come so far. */
static int barrier(void)
{
	void *all[NU_MAX_NODES];
	size_t lens[NU_MAX_NODES];
	int ret = nu_boot_exchange("", 1, all, lens);

	for (unsigned n = 0; !ret && n < nu_node.count; n++)
		free(all[n]);
	return ret;
}

static int prepare(const struct nu_image *image, struct nu_proclet **node_p)
{
	const struct nu_rpc_ops rpc_ops = {nu_client_locate, nu_instance_create, nu_instance_retire};
	const struct nu_move_ops move_ops = {nu_client_move_begin, nu_client_move_end};
	size_t reserve = nu_node.mem_bytes / 16 < RESERVE_BYTES ? nu_node.mem_bytes / 16 : RESERVE_BYTES;
	int ret = nu_crash_init();

	if (!ret)
		ret = nu_layout_init();
	if (!ret)
		ret = nu_image_init(image);
	if (!ret)
		ret = check_alike();
	nu_image_seal(!ret);
	if (!ret)
		ret = nu_proclet_table_init();
	if (!ret)
		ret = nu_pool_init(nu_node.mem_bytes, 0, nu_node.count > 1 ? reserve : 0, NULL);
	if (!ret && nu_node.count > 1)
		(void)!nu_pool_refill(0); /* what is missing is backed later */
	if (!ret && runtime.options->node_init)
		ret = runtime.options->node_init(nu_node.self);
	nu_fds_note(&foreign_fds); /* what is open from here on is ours, or UCX's */
	if (!ret)
		ret = nu_reader_init(nu_boot_options.reader);
	if (!ret)
		ret = nu_rpc_init();
	if (!ret)
		ret = nu_move_init();
	if (!ret)
		ret = node_proclet(node_p);
	nu_rpc_set_ops(&rpc_ops);
	nu_move_set_ops(&move_ops);
	/* Alone there is nobody to talk to: no UCX, and so none of its patches to mmap either. */
	return ret || nu_node.count == 1 ? ret : connect_wire();
}

/* ---- threads that every node begins with ---- */

static void main_body(void *arg)
{
	int status = runtime.main_fn(runtime.argc, runtime.argv);

	fflush(NULL);
	if (nu_boot_launched())
		nu_boot_main_done(status); /* the launcher tells every node */
	else
		on_end(status); /* it may be here before the control thread is */
}

static int main_start(void)
{
	size_t capacity = runtime.options->main_capacity_bytes;
	struct nu_proclet *p;
	struct nu_thread *t;
	uint64_t id;
	int ret = nu_client_main(capacity ? capacity : NU_SEG_DEFAULT_BYTES, &id);

	if (!ret)
		ret = nu_instance_make(id, NULL, capacity ? capacity : NU_SEG_DEFAULT_BYTES, true, 0, &p);
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
		while (nu_pool_refill(2 * NU_MIB) > 0)
			nu_yield();
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
			ret = nu_client_join(n, nu_node.cores_of[n], nu_node.mem_bytes);
		if (!ret)
			ret = main_start();
	}
	if (ret) {
		char reason[256];

		snprintf(reason, sizeof(reason), "node %u cannot start: %s", nu_node.self, nu_strerror(ret));
		nu_boot_fail(reason);
		nu_err("%s", reason);
		on_end(1);
		return;
	}
	report_loop();
}

static int run(const struct nu_image *image)
{
	const struct nu_boot_ops boot_ops = {nu_death_note, on_end, nu_command};
	struct nu_proclet *node;
	char reason[256];
	int ret = prepare(image, &node), status;

	if (!ret && !runtime.options->writable_globals)
		ret = nu_image_protect(true);
	if (!ret)
		ret = barrier();
	nu_boot_exits(!ret); /* main() may call exit() at once */
	if (!ret)
		ret = nu_sched_start(node, first_body, NULL);
	nu_fds_close_new_on_exec(&foreign_fds);
	if (ret)
		goto fail;
	ret = nu_boot_control_start(&boot_ops);
	if (ret)
		goto fail;
	status = wait_end();
	fflush(NULL);
	if (nu_sched_stop())
		_exit(status & 0xff); /* nothing may be taken down under the thread that still runs */
	nu_boot_exits(false);
	if (nu_node.count > 1)
		nu_wire_fini();
	if (!runtime.options->writable_globals)
		(void)!nu_image_protect(false);
	nu_image_seal(false);
	return status;

fail:
	nu_boot_exits(false);
	snprintf(reason, sizeof(reason), "node %u cannot start: %s", nu_node.self, nu_strerror(ret));
	nu_err("%s", reason);
	nu_boot_fail(reason);
	if (!runtime.options->writable_globals)
		(void)!nu_image_protect(false); /* main() and the program's destructors still run */
	nu_image_seal(false);
	return ret;
}

NU_API int nu_run_image(int argc, char **argv, nu_main_fn main_fn, const struct nu_run_options *options,
			const struct nu_image *image)
{
	static const struct nu_run_options defaults;

	if (runtime.started || nu_thread_self())
		return -EINVAL;
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
