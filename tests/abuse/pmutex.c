/* SPDX-License-Identifier: MIT */
/* A pthread mutex held over calls in which a thread waits: abuse_pmutex HOW. What must come of each is in pmutex.py. */
#include <nu/nu.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct shared {
	pthread_mutex_t mutex;
	struct nu_sem go;
	int left;
};

static void let_go(void *arg)
{
	struct shared *s = arg;

	nu_sem_post(&s->go);
}

static void *counts(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 1000; i++) {
		pthread_mutex_lock(&s->mutex);
		s->left++;
		pthread_mutex_unlock(&s->mutex);
	}
	return NULL;
}

/* Taken, held over a wait, and given back where the thread goes on: by another core, sooner or later. */
static __attribute__((noinline)) int unlock_it(struct shared *s)
{
	int err = pthread_mutex_unlock(&s->mutex);

	s->left = err;
	return err;
}

#define ROUNDS 300

/* A kernel thread's wake-ups go to the cores in turn. */
static void *posts(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < ROUNDS; i++) {
		nu_sem_post(&s->go);
		usleep(1000);
	}
	return NULL;
}

static int held_over_a_wait(struct shared *s)
{
	pthread_t t;
	int err = 0;

	if (pthread_create(&t, NULL, posts, s))
		return -1;
	for (int i = 0; i < ROUNDS && !err; i++) {
		pthread_mutex_lock(&s->mutex);
		nu_sem_wait(&s->go);
		err = unlock_it(s);
	}
	pthread_join(t, NULL);
	return err;
}

static __attribute__((noinline)) void lock_it(void *arg)
{
	struct shared *s = arg;

	pthread_mutex_lock(&s->mutex);
	pthread_mutex_unlock(&s->mutex);
	nu_yield();
}

static int of_one_core(struct shared *s)
{
	struct nu_thread *t;

	pthread_mutex_lock(&s->mutex);
	if (nu_thread_spawn(lock_it, s, &t))
		return -1;
	nu_thread_join(t);
	return 0;
}

static int well(struct shared *s)
{
	pthread_t t;

	if (nu_thread_spawn(let_go, s, NULL) || pthread_create(&t, NULL, counts, s))
		return -1;
	counts(s);
	pthread_join(t, NULL);
	nu_sem_wait(&s->go);
	return s->left == 2000 ? 0 : -1;
}

static int mainfunc(int argc, char **argv)
{
	struct shared s = {.mutex = PTHREAD_MUTEX_INITIALIZER};
	pthread_mutexattr_t check;
	int ret;

	pthread_mutexattr_init(&check);
	pthread_mutexattr_settype(&check, PTHREAD_MUTEX_ERRORCHECK);
	if (!strcmp(argv[1], "wait"))
		pthread_mutex_init(&s.mutex, &check);
	ret = !strcmp(argv[1], "wait")	 ? held_over_a_wait(&s)
	      : !strcmp(argv[1], "core") ? of_one_core(&s)
					 : well(&s);
	printf("it returned %s\n", ret ? strerror(ret) : "0");
	return 0;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, mainfunc, NULL);
}
