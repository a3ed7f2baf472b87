/* SPDX-License-Identifier: MIT */
/* A thread that is moved while it computes: it goes on at the next instruction on the job's last node. */
#include <nu/nu.h>
#include <stdio.h>

struct worker {
	struct nu_sem begun;
	atomic_bool stop;
	bool right;
};

NU_CLASS(worker);
NU_METHOD(worker, travel, val(int), val(unsigned, node));

int worker_init(struct worker *self)
{
	return 0;
}

/* Nothing here knows of moves: what `self` points to, and what registers hold, comes along. */
static void worker_count(void *arg)
{
	struct worker *self = arg;
	uint64_t n = 0, sum = 0;

	for (nu_sem_post(&self->begun); !atomic_load(&self->stop); n++)
		sum += n + 1;
	self->right = sum == (n % 2 ? (n + 1) / 2 * n : n / 2 * (n + 1));
}

int worker_do_travel(struct worker *self, unsigned node)
{
	struct nu_thread *thread;
	int ret = nu_thread_spawn(worker_count, self, &thread);

	if (ret)
		return ret;
	nu_sem_wait(&self->begun);
	ret = node == nu_node_self() ? 0 : nu_migrate(nu_self(), node);
	atomic_store(&self->stop, true);
	nu_thread_join(thread);
	return ret ? ret : self->right;
}

static int main_fn(int argc, char **argv)
{
	NU_SCOPED(worker, w);
	int right = 0, ret = worker_create(&(struct nu_options){.node = NU_NODE(0)}, &w);

	if (ret || (ret = worker_travel(w, nu_node_count() - 1, &right)))
		return ret;
	printf("now on node %d, and its count is %s\n", nu_locate(w.ref), right == 1 ? "right" : "wrong");
	return right != 1;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, main_fn, NULL);
}
