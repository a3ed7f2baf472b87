/* SPDX-License-Identifier: MIT */
/*
 * A framed stream (a socket, or a pipe for each direction) that never blocks its owner: input is gathered until a message
 * is whole, output queues here.
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct out {
	struct out *next;
	struct nu_boot_head head;
	size_t head_bytes;	/* 0: the payload goes out bare */
	struct shared *payload; /* NULL if empty */
};

struct shared *shared_new(size_t len_bytes)
{
	struct shared *s = launch_alloc(sizeof(*s) + len_bytes);
	s->refs = 1;
	s->len_bytes = len_bytes;
	return s;
}

void shared_put(struct shared *s)
{
	if (s && !--s->refs)
		free(s);
}

void conn_init(struct conn *c, int fd, uint32_t max_bytes)
{
	*c = (struct conn){.fd = fd, .out_fd = fd, .max_bytes = max_bytes};
	c->last_p = &c->first;
}

void conn_init_pipes(struct conn *c, int in, int out, uint32_t max_bytes)
{
	conn_init(c, in, max_bytes);
	c->out_fd = out;
	c->piped = true;
	fcntl(in, F_SETFL, O_NONBLOCK);
	fcntl(out, F_SETFL, O_NONBLOCK);
}

static void pop(struct conn *c)
{
	struct out *o = c->first;
	c->first = o->next;
	if (!c->first)
		c->last_p = &c->first;
	c->first_sent = 0;
	c->queued_bytes -= o->head_bytes + o->head.len_bytes;
	shared_put(o->payload);
	free(o);
}

void conn_close(struct conn *c)
{
	if (c->fd < 0)
		return;
	while (c->first)
		pop(c);
	free(c->payload);
	c->payload = NULL;
	close(c->fd);
	if (c->piped)
		close(c->out_fd);
	c->fd = c->out_fd = -1;
}

short conn_events(const struct conn *c)
{
	return (short)(POLLIN | (c->first ? POLLOUT : 0));
}

bool conn_waiting(const struct conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	return poll(&p, 1, 0) == 1;
}

/* Up to @len more bytes: how many, 0 for none now, -1 at the end. */
static ssize_t take(struct conn *c, void *to, size_t len)
{
	ssize_t n;
	do {
		n = c->piped ? read(c->fd, to, len) : recv(c->fd, to, len, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n > 0)
		c->heard = true;
	return n > 0 ? n : -1;
}

bool conn_read(struct conn *c, conn_fn fn, void *arg)
{
	while (c->fd >= 0) {
		ssize_t n;
		if (c->head_have < sizeof(c->head)) {
			n = take(c, (char *)&c->head + c->head_have, sizeof(c->head) - c->head_have);
			if (n <= 0)
				return n == 0;
			c->head_have += (size_t)n;
			if (c->head_have < sizeof(c->head))
				continue;
			if (c->head.len_bytes > c->max_bytes)
				return false;
			c->payload = launch_alloc((size_t)c->head.len_bytes + 1);
			c->have = 0;
		}
		if (c->have < c->head.len_bytes) {
			n = take(c, c->payload + c->have, c->head.len_bytes - c->have);
			if (n <= 0)
				return n == 0;
			c->have += (size_t)n;
			if (c->have < c->head.len_bytes)
				continue;
		}
		/* The handler may close the connection, or read on: the message is taken out first. */
		struct nu_boot_head head = c->head;
		char *payload = c->payload;
		payload[head.len_bytes] = '\0';
		c->payload = NULL;
		c->head_have = 0;
		fn(arg, &head, payload);
		free(payload);
	}
	return true;
}

void conn_flush(struct conn *c)
{
	while (c->fd >= 0 && c->first) {
		struct out *o = c->first;
		size_t total = o->head_bytes + o->head.len_bytes, sent = c->first_sent;
		struct iovec iov[2];
		int niov = 0;
		if (sent < o->head_bytes) {
			iov[niov++] = (struct iovec){(char *)&o->head + sent, o->head_bytes - sent};
			sent = o->head_bytes;
		}
		if (o->payload)
			iov[niov++] = (struct iovec){o->payload->data + (sent - o->head_bytes), total - sent};
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)niov};
		ssize_t n = c->piped ? writev(c->out_fd, iov, niov)
				     : sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			while (c->first)
				pop(c);
			return;
		}
		c->first_sent += (size_t)n;
		if (c->first_sent == total)
			pop(c);
	}
}

void conn_send_shared(struct conn *c, uint32_t type, int32_t arg, uint64_t id, struct shared *s)
{
	conn_send_node(c, 0, type, arg, id, s);
}

static void queue(struct conn *c, const struct nu_boot_head *head, size_t head_bytes, struct shared *s)
{
	if (c->fd < 0)
		return;
	struct out *o = launch_alloc(sizeof(*o));
	*o = (struct out){.head = *head, .head_bytes = head_bytes, .payload = s};
	o->head.len_bytes = s ? (uint32_t)s->len_bytes : 0;
	if (s)
		s->refs++;
	*c->last_p = o;
	c->last_p = &o->next;
	c->queued_bytes += o->head_bytes + o->head.len_bytes;
	conn_flush(c);
}

void conn_send_node(struct conn *c, unsigned node, uint32_t type, int32_t arg, uint64_t id, struct shared *s)
{
	const struct nu_boot_head head = {.type = type, .arg = arg, .id = id, .node = node};
	queue(c, &head, sizeof(head), s);
}

void conn_send_bare(struct conn *c, struct shared *s)
{
	const struct nu_boot_head none = {0};
	queue(c, &none, 0, s);
}

struct shared *shared_copy(const void *bytes, size_t len_bytes)
{
	if (!len_bytes)
		return NULL;
	struct shared *s = shared_new(len_bytes);
	memcpy(s->data, bytes, len_bytes);
	return s;
}

void conn_send(struct conn *c, uint32_t type, int32_t arg, uint64_t id, const void *payload, size_t len_bytes)
{
	struct shared *s = shared_copy(payload, len_bytes);
	conn_send_node(c, 0, type, arg, id, s);
	shared_put(s);
}
