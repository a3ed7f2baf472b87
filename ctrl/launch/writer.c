/* SPDX-License-Identifier: MIT */
/*
 * The launcher's stdout or stderr: a thread that may block in write(2) while the launcher goes on. The descriptor is
 * shared with the shell and others, so it is not made non-blocking.
 */
#include "launch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EAGAIN) { /* somebody else made it non-blocking */
			struct pollfd p = {.fd = fd, .events = POLLOUT};
			poll(&p, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->fill_len)
			pthread_cond_wait(&w->more, &w->lock);
		char *data = w->fill;
		size_t len = w->fill_len;
		w->draining = len;
		w->fill = NULL;
		w->fill_len = w->fill_cap = 0;
		int error = w->error;
		pthread_mutex_unlock(&w->lock);
		if (!error)
			error = write_all(w->fd, data, len);
		free(data);
		pthread_mutex_lock(&w->lock);
		w->draining = 0;
		w->error = error;
		uint64_t one = 1;
		if (write(w->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			abort();
	}
	return NULL;
}

int writer_start(struct writer *w, int fd, int event_fd)
{
	*w = (struct writer){.fd = fd, .event_fd = event_fd};
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	return -pthread_create(&w->thread, NULL, writer_thread, w);
}

void writer_push(struct writer *w, const char *data, size_t len_bytes)
{
	if (!len_bytes)
		return;
	pthread_mutex_lock(&w->lock);
	if (w->fill_len + len_bytes > w->fill_cap) {
		size_t cap = w->fill_cap ? w->fill_cap : 65536;
		while (cap < w->fill_len + len_bytes)
			cap *= 2;
		char *fill = launch_alloc(cap);
		if (w->fill_len)
			memcpy(fill, w->fill, w->fill_len);
		free(w->fill);
		w->fill = fill;
		w->fill_cap = cap;
	}
	memcpy(w->fill + w->fill_len, data, len_bytes);
	w->fill_len += len_bytes;
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
}

size_t writer_queued(struct writer *w)
{
	pthread_mutex_lock(&w->lock);
	size_t n = w->fill_len + w->draining;
	pthread_mutex_unlock(&w->lock);
	return n;
}

int writer_error(struct writer *w)
{
	pthread_mutex_lock(&w->lock);
	int error = w->error;
	pthread_mutex_unlock(&w->lock);
	return error;
}
