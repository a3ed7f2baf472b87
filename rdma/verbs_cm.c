/* SPDX-License-Identifier: MIT */
/*
 * Connections, by rdmacm: a listener, and a kernel thread that makes lanes when somebody wants them, hears all events of
 * connections, devices and completion queues, and clears away what broke.
 */
#include "rdma/verbs_int.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BACKLOG		128
#define STEP_NS		2000000000ull /* the first try to connect, each step; doubled with each further one */
#define TRIES		3u
#define ACCEPT_NS	10000000000ull
#define AWAIT_OUT_NS	60000000000ull
#define AWAIT_IN_NS	10000000000ull
#define BUSY_MS		10
#define SERVICE_STACK	((size_t)256 << 10)
#define REFUSALS_SAID	16u
#define CM_REJ_CONSUMER 28 /* IB specification: the other side's program refused */

static atomic_bool poked;

void nu_cm_poke(void)
{
	uint64_t one = 1;

	if (!atomic_exchange(&poked, true)) {
		ssize_t ignored = write(nu_verbs.wake_fd, &one, sizeof(one));
		(void)ignored;
	}
}

/* ---- addresses ---- */

static socklen_t address_len(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static bool same_host(const struct sockaddr *a, const struct sockaddr_storage *b)
{
	if (!a || a->sa_family != b->ss_family)
		return false;
	if (a->sa_family == AF_INET6)
		return !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
			       &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr));
	return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
	       ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

static const char *text_of(const struct sockaddr_storage *a, char text[INET6_ADDRSTRLEN])
{
	const void *at = a->ss_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr
						  : &((const struct sockaddr_in *)a)->sin_addr;

	return inet_ntop(a->ss_family, at, text, INET6_ADDRSTRLEN) ? text : "?";
}

/* ---- a connection's steps, out ---- */

static void set_step(struct nu_lane *l, enum nu_lane_state state, uint64_t for_ns)
{
	nu_lock_acquire(&l->lock);
	l->state = state;
	l->deadline_ns = nu_mono_ns() + for_ns;
	nu_lock_release(&l->lock);
}

static void drop_id(struct nu_lane *l)
{
	if (l->id && rdma_destroy_id(l->id))
		nu_warn("a connection of node %u cannot be destroyed: %s", l->node, strerror(nu_sys_errno));
	l->id = NULL;
}

static void clear_away(struct nu_lane *l)
{
	nu_lane_unmake(l);
	drop_id(l);
}

static bool peer_gone(const struct nu_lane *l)
{
	return nu_verbs_is_dead(l->node);
}

/* Those who wait are told, and may want it again. */
static void give_up(struct nu_lane *l, int error)
{
	nu_lock_acquire(&l->lock);
	l->error = error;
	l->failures++;
	l->failed_at_ns = nu_mono_ns();
	l->wanted = false;
	l->tries = 0;
	nu_lane_signal_all(&l->waiters);
	nu_lock_release(&l->lock);
}

static void begin(struct nu_lane *l);

/* This try came to nothing. @final: the next would not do better. */
static void fail(struct nu_lane *l, int error, bool final, const char *what, const char *cause)
{
	char name[NU_LANE_NAME_BYTES], address[INET6_ADDRSTRLEN];

	clear_away(l);
	l->tries++;
	if (peer_gone(l)) {
		give_up(l, -EHOSTDOWN);
	} else if (final || l->tries >= TRIES || atomic_load(&nu_verbs.removed)) {
		nu_warn("%s cannot be connected to %s: %s: %s", nu_lane_name(l, name),
			text_of(&nu_verbs_peer(l->node)->address, address), what, cause);
		give_up(l, error);
	} else {
		nu_info("%s: %s: %s; tries again", nu_lane_name(l, name), what, cause);
		begin(l);
	}
}

/* The first step: which of our devices, and to where. */
static void begin(struct nu_lane *l)
{
	struct nu_verbs_peer *p = nu_verbs_peer(l->node);
	struct sockaddr_storage from = nu_verbs.address, to = p->address;
	uint64_t step_ns = STEP_NS << l->tries;

	if (from.ss_family == AF_INET6) {
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
		((struct sockaddr_in6 *)&to)->sin6_scope_id = ((struct sockaddr_in6 *)&from)->sin6_scope_id;
	} else {
		((struct sockaddr_in *)&from)->sin_port = 0;
	}
	if (rdma_create_id(nu_verbs.events, &l->id, l, RDMA_PS_TCP)) {
		l->id = NULL;
		fail(l, -ENOMEM, true, "rdma_create_id", strerror(nu_sys_errno));
		return;
	}
	nu_lock_acquire(&l->lock);
	l->attempt = (l->attempt + 1) & 0xffffff;
	nu_lock_release(&l->lock);
	set_step(l, NU_LANE_ADDRESS, step_ns);
	if (rdma_resolve_addr(l->id, (struct sockaddr *)&from, (struct sockaddr *)&to,
			      (int)(step_ns / 1000000)))
		fail(l, -EHOSTUNREACH, true, "its address", strerror(nu_sys_errno));
}

static void on_address(struct nu_lane *l)
{
	uint64_t step_ns = STEP_NS << l->tries;

	if (l->id->verbs != nu_verbs.context) {
		fail(l, -EHOSTUNREACH, true, "its address leads through another device",
		     l->id->verbs ? ibv_get_device_name(l->id->verbs->device) : "none");
		return;
	}
	set_step(l, NU_LANE_ROUTE, step_ns);
	if (rdma_resolve_route(l->id, (int)(step_ns / 1000000)))
		fail(l, -EHOSTUNREACH, true, "its route", strerror(nu_sys_errno));
}

static void on_route(struct nu_lane *l)
{
	struct rdma_conn_param param = {
		.initiator_depth = (uint8_t)nu_verbs.o.depth,
		.responder_resources = 1, /* nobody reads us by it, but iWARP's first message may be a READ */
		.retry_count = (uint8_t)nu_verbs.o.retry,
		.rnr_retry_count = (uint8_t)nu_verbs.o.rnr_retry,
	};
	struct nu_hello hello;
	int err;

	set_step(l, NU_LANE_CONNECT, STEP_NS << l->tries);
	nu_hello_fill(&hello, NU_HELLO_CONNECT, l, NU_HELLO_OK);
	param.private_data = &hello;
	param.private_data_len = sizeof(hello);
	nu_lock_acquire(&l->lock);
	err = l->state == NU_LANE_CONNECT ? nu_lane_make(l) : -EHOSTDOWN;
	if (!err)
		param.qp_num = l->qp->qp_num;
	nu_lock_release(&l->lock);
	if (err)
		fail(l, err, true, "its queue pair", strerror(-err));
	else if (rdma_connect(l->id, &param))
		fail(l, -EHOSTUNREACH, true, "rdma_connect", strerror(nu_sys_errno));
}

/* The lane may be used. False: it has been broken meanwhile. */
static bool go_up(struct nu_lane *l)
{
	bool up;

	nu_lock_acquire(&l->lock);
	up = l->state == NU_LANE_CONNECT && l->qp;
	if (up) {
		l->state = NU_LANE_UP;
		l->wanted = false;
		l->tries = 0;
		nu_count(&nu_verbs_count.connects, 1);
		nu_lane_signal_all(&l->waiters);
	}
	nu_lock_release(&l->lock);
	return up;
}

/* What the other side says to our request. @established: iWARP, where the device has done the rest. */
static void on_answer(struct nu_lane *l, const void *data, size_t len, bool established)
{
	char name[NU_LANE_NAME_BYTES];
	const char *what = "the queue pair";
	struct nu_hello hello;
	enum nu_hello_check check = nu_hello_check_answer(data, len, NU_HELLO_ACCEPT, l, &hello);
	int err;

	if (check) {
		fail(l, -EACCES, true, "its answer is not to be trusted: wrong is",
		     nu_hello_check_name(check));
		return;
	}
	nu_lock_acquire(&l->lock);
	err = l->state == NU_LANE_CONNECT && l->qp ? nu_lane_connected(l, 0, &what) : -EHOSTDOWN;
	nu_lock_release(&l->lock);
	if (!err && !established && rdma_establish(l->id)) {
		err = -nu_sys_errno;
		what = "rdma_establish";
	}
	if (err)
		fail(l, -EHOSTUNREACH, err != -EHOSTDOWN, what, strerror(-err));
	else if (go_up(l))
		nu_info("%s is up: %s, %u READs at a time, attempt %u", nu_lane_name(l, name),
			nu_verbs.device, l->depth, l->attempt);
}

static void on_rejected(struct nu_lane *l, int reason, const void *data, size_t len)
{
	struct nu_hello hello;
	char text[96];

	if (!nu_hello_check_answer(data, len, NU_HELLO_REJECT, l, &hello)) {
		snprintf(text, sizeof(text), "wrong is %.80s", nu_hello_check_name(hello.check));
		/* It has given up an earlier attempt of ours, or was short of something: the next may do. */
		fail(l, hello.check == NU_HELLO_NO_QP ? -EHOSTUNREACH : -EACCES,
		     hello.check != NU_HELLO_ATTEMPT && hello.check != NU_HELLO_NO_QP, "it refused us", text);
		return;
	}
	snprintf(text, sizeof(text), "reason %d%s", reason,
		 reason == 8		     ? ": nobody listens there"
		 : reason == CM_REJ_CONSUMER ? ": its program"
					     : "");
	fail(l, -EHOSTUNREACH, false, "it was rejected", text);
}

/* ---- a connection's steps, in ---- */

static void say_refused(struct rdma_cm_id *id, const struct nu_hello *h, enum nu_hello_check check)
{
	unsigned long n = atomic_fetch_add(&nu_verbs_count.refused, 1) + 1;
	char address[INET6_ADDRSTRLEN];

	/* Strangers may come for ever. */
	if (n <= REFUSALS_SAID || !(n & (n - 1)))
		nu_warn("a connection from %s for node %u is refused: wrong is %s (%lu refused so far)",
			text_of((struct sockaddr_storage *)rdma_get_peer_addr(id), address),
			check > NU_HELLO_VERSION ? h->from : 0, nu_hello_check_name(check), n);
}

static void refuse(struct rdma_cm_id *id, const struct nu_hello *h, enum nu_hello_check check)
{
	struct nu_hello answer;

	say_refused(id, h, check);
	nu_hello_fill(&answer, NU_HELLO_REJECT, NULL, check);
	if (rdma_reject(id, &answer, sizeof(answer)))
		nu_debug("rdma_reject: %s", strerror(nu_sys_errno));
	if (rdma_destroy_id(id))
		nu_debug("rdma_destroy_id: %s", strerror(nu_sys_errno));
}

/* Whether the lane is free for that attempt, after the private data was found to be right. */
static enum nu_hello_check may_accept(struct rdma_cm_id *id, const struct nu_hello *h)
{
	struct nu_verbs_peer *p = nu_verbs_peer(h->from);

	if (nu_verbs_is_dead(h->from))
		return NU_HELLO_NODE;
	if (!same_host(rdma_get_peer_addr(id), &p->address))
		return NU_HELLO_ADDRESS;
	/* Else what was overheard could be said again. */
	if (h->attempt - 1 - p->in[h->lane].attempt >= 0x800000)
		return NU_HELLO_ATTEMPT;
	return nu_fault(NU_FAULT_RDMA_CONNECT) ? NU_HELLO_FAULT : NU_HELLO_OK;
}

static int accept_lane(struct nu_lane *l, const struct rdma_conn_param *request, const char **what_p)
{
	unsigned answers = (unsigned)nu_verbs.attr.max_qp_rd_atom;
	struct rdma_conn_param param = {.rnr_retry_count = (uint8_t)nu_verbs.o.rnr_retry};
	struct nu_hello hello;
	int err;

	if (request->responder_resources < answers)
		answers = request->responder_resources ? request->responder_resources : 1;
	param.responder_resources = (uint8_t)answers;
	param.initiator_depth = request->initiator_depth;
	nu_hello_fill(&hello, NU_HELLO_ACCEPT, l, NU_HELLO_OK);
	param.private_data = &hello;
	param.private_data_len = sizeof(hello);
	*what_p = "its queue pair";
	nu_lock_acquire(&l->lock);
	err = nu_lane_make(l);
	if (!err)
		err = nu_lane_connected(l, answers, what_p);
	if (!err)
		param.qp_num = l->qp->qp_num;
	nu_lock_release(&l->lock);
	if (!err && rdma_accept(l->id, &param)) {
		err = -nu_sys_errno;
		*what_p = "rdma_accept";
	}
	return err;
}

static void on_request(struct rdma_cm_id *id, const struct rdma_conn_param *request, const void *data,
		       size_t len)
{
	struct nu_hello hello = {0};
	enum nu_hello_check check = nu_hello_check_request(data, len, &hello);
	char name[NU_LANE_NAME_BYTES];
	const char *what;
	struct nu_lane *l;
	int err;

	if (!check)
		check = may_accept(id, &hello);
	if (check) {
		refuse(id, &hello, check);
		return;
	}
	l = &nu_verbs_peer(hello.from)->in[hello.lane];
	if (l->id) /* the reader knows that it broke before we do */
		clear_away(l);
	nu_lock_acquire(&l->lock);
	l->attempt = hello.attempt;
	l->error = 0;
	nu_lock_release(&l->lock);
	set_step(l, NU_LANE_CONNECT, ACCEPT_NS);
	l->id = id;
	id->context = l;
	err = accept_lane(l, request, &what);
	if (err) {
		nu_warn("%s cannot be accepted: %s: %s", nu_lane_name(l, name), what, strerror(-err));
		nu_lane_unmake(l);
		l->id = NULL;
		refuse(id, &hello, NU_HELLO_NO_QP);
	}
}

static void on_established(struct nu_lane *l, const void *data, size_t len)
{
	char name[NU_LANE_NAME_BYTES];

	if (l->out)
		on_answer(l, data, len, true);
	else if (go_up(l))
		nu_info("%s is up: %s, attempt %u", nu_lane_name(l, name), nu_verbs.device, l->attempt);
}

/* ---- events ---- */

static void break_lane(struct nu_lane *l, int error)
{
	nu_lock_acquire(&l->lock);
	nu_lane_break(l, peer_gone(l) ? -EHOSTDOWN : error);
	nu_lock_release(&l->lock);
}

/* @fn for each lane that there may be. */
static void for_each_lane(void (*fn)(struct nu_lane *l, void *arg), void *arg)
{
	for (unsigned n = 0; n < NU_MAX_NODES; n++) {
		struct nu_verbs_peer *p = nu_verbs_peer(n);

		for (unsigned i = 0; p && i < NU_LANES_MAX; i++) {
			fn(&p->out[i], arg);
			fn(&p->in[i], arg);
		}
	}
}

static void break_one(struct nu_lane *l, void *arg)
{
	break_lane(l, -EIO);
}

static void device_removed(const char *how)
{
	if (atomic_exchange(&nu_verbs.removed, true))
		return;
	nu_err("device %s is gone (%s): nothing is read by RDMA any more", nu_verbs.device, how);
	for_each_lane(break_one, NULL);
}

static void on_lane_event(struct nu_lane *l, const struct rdma_cm_event *e, const void *data, size_t len)
{
	const char *cause = e->status < 0 ? strerror(-e->status) : "no answer";
	char name[NU_LANE_NAME_BYTES];

	switch (e->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		on_address(l);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		on_route(l);
		break;
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
		on_answer(l, data, len, false);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		on_established(l, data, len);
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		if (l->out)
			fail(l, -EHOSTUNREACH, false, rdma_event_str(e->event), cause);
		else
			break_lane(l, -EHOSTUNREACH);
		break;
	case RDMA_CM_EVENT_REJECTED:
		if (l->out)
			on_rejected(l, e->status, data, len);
		else /* our acceptance came too late for it */
			break_lane(l, -EHOSTUNREACH);
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_ADDR_CHANGE:
		nu_info("%s: %s", nu_lane_name(l, name), rdma_event_str(e->event));
		break_lane(l, -EIO);
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		device_removed(rdma_event_str(e->event));
		break;
	default: /* TIMEWAIT_EXIT: its number may be used again, by the kernel */
		nu_debug("%s: %s", nu_lane_name(l, name), rdma_event_str(e->event));
	}
}

static void on_listener_event(const struct rdma_cm_event *e)
{
	if (e->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
		device_removed(rdma_event_str(e->event));
	else
		nu_warn("listener of device %s: %s (%d)", nu_verbs.device, rdma_event_str(e->event),
			e->status);
}

/* One event of connections. False: there is none. */
static bool take_event(void)
{
	struct rdma_cm_event *e, copy;
	uint8_t data[256];
	size_t len;

	if (rdma_get_cm_event(nu_verbs.events, &e))
		return false;
	/* Acknowledged before it is handled: what it is about could not be destroyed else. */
	copy = *e;
	len = e->param.conn.private_data ? e->param.conn.private_data_len : 0;
	memcpy(data, e->param.conn.private_data ? e->param.conn.private_data : data, len);
	rdma_ack_cm_event(e);
	if (copy.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
		on_request(copy.id, &copy.param.conn, data, len);
	} else if (copy.id == nu_verbs.listener) {
		on_listener_event(&copy);
	} else {
		struct nu_lane *l = copy.id->context;

		if (l && l->id == copy.id)
			on_lane_event(l, &copy, data, len);
	}
	return true;
}

static bool take_completion(void)
{
	struct ibv_cq *cq;
	struct nu_lane *l;
	void *context;

	if (ibv_get_cq_event(nu_verbs.completions, &cq, &context))
		return false;
	ibv_ack_cq_events(cq, 1);
	l = context;
	nu_lock_acquire(&l->lock);
	l->armed = false;
	do {
		nu_lane_poll(l);
		nu_lane_arm(l); /* what came since the look before it would not be told */
	} while (nu_lane_poll(l) && l->head != l->tail);
	nu_lock_release(&l->lock);
	return true;
}

static bool take_device_event(void)
{
	struct ibv_async_event e;
	struct nu_lane *l = NULL;
	enum ibv_event_type type;

	if (ibv_get_async_event(nu_verbs.context, &e))
		return false;
	type = e.event_type;
	switch (type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		l = e.element.qp->qp_context;
		break;
	case IBV_EVENT_CQ_ERR:
		l = e.element.cq->cq_context;
		break;
	default:
		break;
	}
	ibv_ack_async_event(&e);
	if (type == IBV_EVENT_COMM_EST) {
		/* The last message of its connecting was lost or is late, but it reads already. */
		if (l->id)
			(void)rdma_notify(l->id, IBV_EVENT_COMM_EST);
	} else if (type == IBV_EVENT_DEVICE_FATAL) {
		device_removed(ibv_event_type_str(type));
	} else if (l && type != IBV_EVENT_SQ_DRAINED && type != IBV_EVENT_PATH_MIG &&
		   type != IBV_EVENT_QP_LAST_WQE_REACHED) {
		nu_warn("queue pair %u %s node %u: %s", l->index, l->out ? "for reading" : "that is read by",
			l->node, ibv_event_type_str(type));
		break_lane(l, -EIO);
	} else if (!l) {
		nu_log(type == IBV_EVENT_PORT_ERR ? NU_LOG_WARN : NU_LOG_INFO, "device %s: %s",
		       nu_verbs.device, ibv_event_type_str(type));
	}
	return true;
}

/* ---- the service thread ---- */

/* A broken lane: what was posted comes back first, unless the device does not give it back. */
static bool finish(struct nu_lane *l, uint64_t now)
{
	char name[NU_LANE_NAME_BYTES];
	bool waits;

	if (l->id && !l->disconnected) {
		l->disconnected = true;
		(void)rdma_disconnect(l->id); /* it may never have been */
	}
	nu_lock_acquire(&l->lock);
	nu_lane_poll(l);
	waits = l->out && l->qp && l->head != l->tail && now < l->deadline_ns;
	if (!waits && l->out && l->qp && l->head != l->tail)
		nu_warn("%s: the device did not give back %u work requests: it is destroyed with them",
			nu_lane_name(l, name), l->head - l->tail);
	nu_lock_release(&l->lock);
	if (!waits)
		clear_away(l);
	return waits;
}

static void step(struct nu_lane *l, void *busy)
{
	uint64_t now = nu_mono_ns(), deadline;
	enum nu_lane_state state;
	bool wanted;

	nu_lock_acquire(&l->lock);
	state = l->state;
	wanted = l->out && l->wanted;
	deadline = l->deadline_ns;
	nu_lock_release(&l->lock);
	if (state == NU_LANE_BROKEN) {
		*(bool *)busy |= finish(l, now);
		state = NU_LANE_IDLE;
		l->tries += wanted; /* it broke while it was being connected, or had been */
	} else if (state != NU_LANE_IDLE && state != NU_LANE_UP) {
		*(bool *)busy = true;
		if (now >= deadline && l->out)
			fail(l, -EHOSTUNREACH, false, "connecting", "no answer in time");
		else if (now >= deadline)
			break_lane(l, -EHOSTUNREACH);
		return;
	}
	if (state != NU_LANE_IDLE || l->id || !wanted)
		return;
	*(bool *)busy = true;
	if (peer_gone(l) || atomic_load(&nu_verbs.removed))
		give_up(l, peer_gone(l) ? -EHOSTDOWN : -ENODEV);
	else if (l->tries >= TRIES)
		give_up(l, -EHOSTUNREACH);
	else
		begin(l);
}

static void *serve(void *arg)
{
	struct pollfd fds[] = {{nu_verbs.wake_fd, POLLIN, 0},
			       {nu_verbs.events->fd, POLLIN, 0},
			       {nu_verbs.completions->fd, POLLIN, 0},
			       {nu_verbs.context->async_fd, POLLIN, 0}};
	uint64_t count;
	bool busy = false;

	while (!atomic_load(&nu_verbs.stop)) {
		if (poll(fds, 4, busy ? BUSY_MS : -1) < 0 && nu_sys_errno != EINTR)
			nu_err("poll: %s", strerror(nu_sys_errno));
		if (read(nu_verbs.wake_fd, &count, sizeof(count)) > 0)
			atomic_store(&poked, false);
		/* Descriptors are not blocking: each is asked until it has nothing. */
		while (take_completion())
			;
		while (take_event())
			;
		while (!atomic_load(&nu_verbs.removed) && take_device_event())
			;
		if (busy || (fds[0].revents | fds[1].revents | fds[3].revents) & POLLIN) {
			busy = false;
			for_each_lane(step, &busy);
		}
	}
	return NULL;
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -nu_sys_errno : 0;
}

int nu_cm_start(void)
{
	int err;

	err = set_nonblocking(nu_verbs.events->fd);
	if (!err)
		err = set_nonblocking(nu_verbs.completions->fd);
	if (!err)
		err = set_nonblocking(nu_verbs.context->async_fd);
	if (err)
		return err;
	atomic_store(&nu_verbs.stop, false);
	atomic_store(&nu_verbs.stopped, false);
	atomic_store(&poked, false);
	err = nu_kthread_start(&nu_verbs.service, "verbs", SERVICE_STACK, serve, NULL);
	nu_verbs.has_service = !err;
	return err;
}

static void close_one(struct nu_lane *l, void *arg)
{
	if (l->id && !l->disconnected)
		(void)rdma_disconnect(l->id);
	clear_away(l);
}

void nu_cm_stop(void)
{
	if (!nu_verbs.has_service)
		return;
	atomic_store(&nu_verbs.stop, true);
	atomic_store(&poked, false);
	nu_cm_poke();
	pthread_join(nu_verbs.service, NULL);
	nu_verbs.has_service = false;
	atomic_store(&nu_verbs.stopped, true);
}

void nu_cm_close(void)
{
	for_each_lane(close_one, NULL);
}

int nu_cm_listen(const char *address)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&nu_verbs.address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&nu_verbs.address;
	int err;

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr))
			v6->sin6_scope_id = if_nametoindex(nu_verbs.netdev);
	} else {
		nu_err("\"%s\" is not an address", address);
		return -EINVAL;
	}
	if (rdma_create_id(nu_verbs.events, &nu_verbs.listener, NULL, RDMA_PS_TCP)) {
		nu_verbs.listener = NULL;
		err = -nu_sys_errno;
		nu_err("rdma_create_id: %s", strerror(-err));
		return err;
	}
	if (rdma_bind_addr(nu_verbs.listener, (struct sockaddr *)&nu_verbs.address) ||
	    rdma_listen(nu_verbs.listener, BACKLOG)) {
		err = -nu_sys_errno;
		nu_err("rdmacm cannot listen at %s: %s", address, strerror(-err));
		return err;
	}
	memcpy(&nu_verbs.address, rdma_get_local_addr(nu_verbs.listener), address_len(&nu_verbs.address));
	return 0;
}

/* ---- waiting for it ---- */

uint32_t nu_cm_failures(struct nu_lane *l)
{
	uint32_t failures;

	nu_lock_acquire(&l->lock);
	failures = l->failures;
	nu_lock_release(&l->lock);
	return failures;
}

int nu_cm_await(struct nu_lane *l, uint32_t failures)
{
	uint64_t until = nu_mono_ns() + (l->out ? AWAIT_OUT_NS : AWAIT_IN_NS);
	struct nu_lane_wait w;
	uint32_t seen;
	int ret = 0;

	nu_lane_wait_init(&w);
	nu_lock_acquire(&l->lock);
	while (l->state != NU_LANE_UP) {
		if (peer_gone(l))
			ret = -EHOSTDOWN;
		else if (atomic_load(&nu_verbs.removed))
			ret = -ENODEV;
		else if (l->failures != failures)
			ret = l->error;
		else if (nu_mono_ns() >= until)
			ret = -EHOSTUNREACH;
		if (ret)
			break;
		l->wanted = true;
		seen = nu_lane_events(&w);
		nu_list_add_tail(&l->waiters, &w.link);
		nu_lock_release(&l->lock);
		nu_cm_poke();
		nu_lane_sleep(&w, seen, NU_LANE_LOOK_NS);
		nu_lock_acquire(&l->lock);
		nu_list_del(&w.link);
	}
	nu_lock_release(&l->lock);
	return ret;
}
