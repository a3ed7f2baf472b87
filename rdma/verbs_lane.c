/* SPDX-License-Identifier: MIT */
/* Lanes: a queue pair, what is posted to it and what comes of that, until all of it has come back. */
#include "rdma/verbs_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SQ_LEAST     16u
#define SQ_OF_SOURCE 64u /* binds of windows and their ends */
#define POLL_BATCH   16

/* ---- threads that wait ---- */

void nu_lane_wait_init(struct nu_lane_wait *w)
{
	*w = (struct nu_lane_wait){0};
	nu_list_init(&w->link);
}

/* The last that is done with @w: its thread may be gone when the lock is free. */
static void wait_release(struct nu_lane_wait *w, bool wake)
{
	struct nu_thread *t = NULL;

	if (wake) {
		__atomic_store_n(&w->events, w->events + 1, __ATOMIC_RELEASE);
		if (w->thread && nu_wake_claim(w->thread))
			t = w->thread;
	}
	nu_lock_release(&w->lock);
	if (t)
		nu_thread_ready(t);
}

void nu_lane_signal(struct nu_lane_wait *w)
{
	nu_lock_acquire(&w->lock);
	wait_release(w, true);
}

void nu_lane_sleep(struct nu_lane_wait *w, uint32_t seen, uint64_t for_ns)
{
	struct nu_thread *t = nu_thread_self();

	nu_lock_acquire(&w->lock);
	if (w->events != seen) {
		nu_lock_release(&w->lock);
		return;
	}
	w->thread = t;
	nu_wake_arm(t);
	nu_count(&nu_verbs_count.sleeps, 1);
	(void)nu_thread_block_until(NU_WAIT_OTHER, &w->lock, nu_mono_ns() + for_ns);
	/* Whoever lost against the clock may still look at us. */
	nu_lock_acquire(&w->lock);
	w->thread = NULL;
	nu_lock_release(&w->lock);
}

void nu_lane_signal_all(struct nu_list *waits)
{
	if (atomic_load_explicit(&nu_verbs.stopped, memory_order_relaxed)) {
		nu_list_init(waits);
		return;
	}
	while (!nu_list_empty(waits)) {
		struct nu_lane_wait *w = nu_list_entry(waits->next, struct nu_lane_wait, link);

		nu_list_del(&w->link);
		nu_lane_signal(w);
	}
}

static void wait_done(struct nu_lane_wait *w, int error)
{
	if (atomic_load_explicit(&nu_verbs.stopped, memory_order_relaxed))
		return;
	nu_lock_acquire(&w->lock);
	w->pending--;
	if (error && !w->error)
		w->error = error;
	wait_release(w, !w->pending || error);
}

/* ---- names ---- */

void nu_lane_init(struct nu_lane *l, unsigned node, unsigned index, bool out)
{
	l->node = (uint8_t)node;
	l->index = (uint8_t)index;
	l->out = out;
	nu_list_init(&l->waiters);
	nu_list_init(&l->room);
	nu_list_init(&l->windows);
}

const char *nu_lane_name(const struct nu_lane *l, char text[NU_LANE_NAME_BYTES])
{
	snprintf(text, NU_LANE_NAME_BYTES, "queue pair %u %s node %u", l->index,
		 l->out ? "for reading" : "that is read by", l->node);
	return text;
}

/* ---- making ---- */

static int set_init(struct nu_lane *l)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT};
	int mask = 0;

	if (rdma_init_qp_attr(l->id, &attr, &mask))
		return -nu_sys_errno;
	/* A reader is read by nobody; the sink of iWARP's READs is written by the peer. */
	attr.qp_access_flags = !l->out		? IBV_ACCESS_REMOTE_READ
			       : nu_verbs.iwarp ? IBV_ACCESS_REMOTE_WRITE
						: 0;
	return -ibv_modify_qp(l->qp, &attr, mask | IBV_QP_ACCESS_FLAGS);
}

static unsigned sq_wanted(const struct nu_lane *l)
{
	unsigned n = l->out ? 2 * nu_verbs.o.depth : SQ_OF_SOURCE;

	if (n < 4 * NU_LANE_CHAIN)
		n = 4 * NU_LANE_CHAIN;
	if (n > NU_LANE_SQ_MAX)
		n = NU_LANE_SQ_MAX;
	return n < (unsigned)nu_verbs.attr.max_qp_wr ? n : (unsigned)nu_verbs.attr.max_qp_wr;
}

static struct ibv_qp *make_qp(struct nu_lane *l, struct ibv_cq *cq)
{
	unsigned sge = l->out ? nu_verbs.sge : 1;
	struct ibv_qp *qp;

	/* What a device says of its maxima does not hold for all of them together. */
	for (unsigned sq = sq_wanted(l); sq; sq /= 2) {
		struct ibv_qp_init_attr attr = {
			.qp_context = l,
			.send_cq = cq,
			.recv_cq = cq,
			.cap = {.max_send_wr = sq, .max_recv_wr = 1, .max_send_sge = sge, .max_recv_sge = 1},
			.qp_type = IBV_QPT_RC,
		};

		qp = ibv_create_qp(nu_verbs.pd, &attr);
		if (qp) {
			l->sq = sq;
			return qp;
		}
		if (sq <= SQ_LEAST)
			break;
	}
	return NULL;
}

int nu_lane_make(struct nu_lane *l)
{
	char name[NU_LANE_NAME_BYTES];
	struct ibv_cq *cq;
	int err;

	cq = ibv_create_cq(nu_verbs.context, (int)sq_wanted(l) + 1, l, nu_verbs.completions, 0);
	if (!cq) {
		err = -nu_sys_errno;
		nu_err("%s: no completion queue: %s (device %s has %d)", nu_lane_name(l, name),
		       strerror(-err), nu_verbs.device, nu_verbs.attr.max_cq);
		return err;
	}
	l->qp = make_qp(l, cq);
	if (!l->qp) {
		err = -nu_sys_errno;
		nu_err("%s: no queue pair: %s (device %s has %d; RLIMIT_MEMLOCK holds for them, too)",
		       nu_lane_name(l, name), strerror(-err), nu_verbs.device, nu_verbs.attr.max_qp);
		goto destroy_cq;
	}
	err = -ENOMEM;
	l->slots = calloc(l->sq, sizeof(*l->slots));
	if (l->slots)
		err = set_init(l);
	if (err) {
		nu_err("%s: %s", nu_lane_name(l, name), strerror(-err));
		goto destroy_qp;
	}
	l->cq = cq;
	l->head = l->tail = 0;
	l->bytes = 0;
	l->armed = l->disconnected = false;
	nu_count(&nu_verbs_count.queue_pairs, 1);
	return 0;

destroy_qp:
	free(l->slots);
	l->slots = NULL;
	ibv_destroy_qp(l->qp);
	l->qp = NULL;
destroy_cq:
	ibv_destroy_cq(cq);
	return err;
}

/* rdmacm goes by the port's default_roce_mode and the address, not by a number. */
static void look_at_gid(const struct nu_lane *l, const struct ibv_qp_attr *attr)
{
	static atomic_bool said;

	if (attr->ah_attr.is_global && attr->ah_attr.grh.sgid_index != nu_verbs.gid_index &&
	    !atomic_exchange(&said, true))
		nu_info("%s: rdmacm connects by GID %u, not %u (both are of the chosen address; RoCE's "
			"version is "
			"the port's default_roce_mode)",
			nu_verbs.device, attr->ah_attr.grh.sgid_index, nu_verbs.gid_index);
}

int nu_lane_connected(struct nu_lane *l, unsigned answers, const char **what_p)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
	int mask = 0, err;

	if (nu_verbs.iwarp) /* its driver does all this */
		return 0;
	*what_p = "what rdmacm has for receiving";
	if (rdma_init_qp_attr(l->id, &attr, &mask))
		return -nu_sys_errno;
	look_at_gid(l, &attr);
	if (answers)
		attr.max_dest_rd_atomic = (uint8_t)answers;
	for (enum ibv_mtu mtu = IBV_MTU_256; nu_verbs.o.mtu && mtu < attr.path_mtu; mtu++) {
		if (128u << mtu >= nu_verbs.o.mtu)
			attr.path_mtu = mtu;
	}
	*what_p = "the queue pair made ready to receive";
	err = ibv_modify_qp(l->qp, &attr, mask);
	if (err)
		return -err;
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS};
	*what_p = "what rdmacm has for sending";
	if (rdma_init_qp_attr(l->id, &attr, &mask))
		return -nu_sys_errno;
	l->depth = attr.max_rd_atomic; /* as the two sides have agreed */
	attr.timeout = (uint8_t)nu_verbs.o.timeout;
	attr.retry_cnt = (uint8_t)nu_verbs.o.retry;
	attr.rnr_retry = (uint8_t)nu_verbs.o.rnr_retry;
	*what_p = "the queue pair made ready to send";
	return -ibv_modify_qp(l->qp, &attr, mask);
}

/* ---- what comes back ---- */

/* What a completion's status means to whoever waits: an errno, and for the log what may be behind it. */
static int error_of(enum ibv_wc_status status, const char **hint_p)
{
	*hint_p = "";
	switch (status) {
	case IBV_WC_SUCCESS:
		return 0;
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_QP_OP_ERR:
	case IBV_WC_LOC_EEC_OP_ERR:
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
	case IBV_WC_LOC_RDD_VIOL_ERR:
		*hint_p = "; our own work request or region is wrong";
		return -EIO;
	case IBV_WC_MW_BIND_ERR:
		*hint_p = "; the memory window could not be bound";
		return -EIO;
	case IBV_WC_REM_ACCESS_ERR:
		*hint_p = "; the peer does not offer that memory (any more)";
		return -EPERM;
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_INV_RD_REQ_ERR:
	case IBV_WC_REM_OP_ERR:
	case IBV_WC_REM_ABORT_ERR:
		*hint_p = "; the peer's device gave up";
		return -EIO;
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RESP_TIMEOUT_ERR:
		*hint_p = "; no answer: the link or the peer is down, or too much is lost (options timeout "
			  "and retry)";
		return -EIO;
	case IBV_WC_RNR_RETRY_EXC_ERR:
		*hint_p = "; the peer was not ready (option rnr)";
		return -EIO;
	case IBV_WC_WR_FLUSH_ERR:
		return -EIO;
	default:
		*hint_p = "; the device failed";
		return -EIO;
	}
}

/* The slots before @end have completed. */
static void retire(struct nu_lane *l, uint32_t end)
{
	for (; l->tail != end; l->tail++) {
		struct nu_lane_slot *s = &l->slots[l->tail % l->sq];

		l->bytes -= s->len_bytes;
		wait_done(s->wait, 0);
	}
}

static void retire_one(struct nu_lane *l, int error)
{
	struct nu_lane_slot *s = &l->slots[l->tail++ % l->sq];

	l->bytes -= s->len_bytes;
	wait_done(s->wait, error);
}

static void complete(struct nu_lane *l, const struct ibv_wc *wc)
{
	uint32_t seq = (uint32_t)wc->wr_id;
	char name[NU_LANE_NAME_BYTES];
	const char *hint;
	int error = error_of(wc->status, &hint), fault;

	if (seq - l->tail >= l->head - l->tail)
		return; /* of what has been failed already */
	fault = error ? 0 : nu_fault(NU_FAULT_RDMA_COMPLETE);
	if (!error && !fault) {
		retire(l, seq + 1);
		return;
	}
	if (l->state == NU_LANE_BROKEN) {
		error = l->error;
	} else {
		if (wc->status == IBV_WC_WR_FLUSH_ERR) /* the connection went, and said nothing yet */
			hint = "; it was disconnected";
		nu_warn("%s: %s%s (status %d, vendor's %#x): it will be made anew", nu_lane_name(l, name),
			fault ? "a fault was asked for" : ibv_wc_status_str(wc->status), fault ? "" : hint,
			wc->status, wc->vendor_err);
		if (fault)
			error = fault;
	}
	retire(l, seq); /* in order: those before it have come */
	retire_one(l, error);
	nu_lane_break(l, error);
}

unsigned nu_lane_poll(struct nu_lane *l)
{
	struct ibv_wc wc[POLL_BATCH];
	unsigned sum = 0;
	int n;

	if (!l->cq || l->head == l->tail)
		return 0;
	nu_count(&nu_verbs_count.polls, 1);
	do {
		n = ibv_poll_cq(l->cq, POLL_BATCH, wc);
		for (int i = 0; i < n; i++)
			complete(l, &wc[i]);
		sum += n > 0 ? (unsigned)n : 0;
	} while (n == POLL_BATCH);
	if (n < 0)
		nu_lane_break(l, -EIO);
	if (!sum)
		return 0;
	nu_count(&nu_verbs_count.completions, sum);
	nu_lane_signal_all(&l->room);
	if (l->state == NU_LANE_BROKEN && l->head == l->tail)
		nu_cm_poke();
	return sum;
}

void nu_lane_arm(struct nu_lane *l)
{
	if (!l->cq || l->armed || l->head == l->tail)
		return;
	if (ibv_req_notify_cq(l->cq, 0))
		nu_lane_break(l, -EIO);
	else
		l->armed = true;
}

unsigned nu_lane_post(struct nu_lane *l, struct nu_lane_wait *w, struct ibv_send_wr *chain, unsigned n)
{
	struct ibv_send_wr *wr = chain, *bad = chain;
	char name[NU_LANE_NAME_BYTES];
	unsigned posted = 0;
	int err;

	for (unsigned i = 0; i < n; i++, wr = wr->next) {
		wr->wr_id = l->head + i;
		wr->send_flags = i + 1 == n ? IBV_SEND_SIGNALED : 0;
	}
	/* Reckoned before: another core may see them complete at once, when it has the lock. */
	err = -nu_fault(NU_FAULT_RDMA_POST);
	if (!err)
		err = ibv_post_send(l->qp, chain, &bad);
	for (wr = chain; posted < n && (!err || wr != bad); wr = wr->next, posted++) {
		uint32_t len = 0;

		for (int i = 0; wr->opcode == IBV_WR_RDMA_READ && i < wr->num_sge; i++)
			len += wr->sg_list[i].length;
		l->slots[l->head++ % l->sq] = (struct nu_lane_slot){w, len};
		l->bytes += len;
	}
	nu_lock_acquire(&w->lock);
	w->pending += posted;
	nu_lock_release(&w->lock);
	if (err) {
		nu_warn("%s: posting: %s: it will be made anew", nu_lane_name(l, name), strerror(err));
		nu_lane_break(l, -EIO);
	}
	return posted;
}

/* ---- the end ---- */

void nu_lane_break(struct nu_lane *l, int error)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	if (l->state == NU_LANE_BROKEN || l->state == NU_LANE_IDLE)
		return;
	if (l->state == NU_LANE_UP)
		nu_count(&nu_verbs_count.broken, 1);
	l->state = NU_LANE_BROKEN;
	l->error = error;
	l->deadline_ns = nu_mono_ns() + NU_LANE_FLUSH_NS;
	/* If that fails the device has done so itself, or the service thread destroys it when the time is over. */
	if (l->qp)
		(void)ibv_modify_qp(l->qp, &attr, IBV_QP_STATE);
	nu_lane_signal_all(&l->room);
	nu_cm_poke();
}

void nu_lane_cut(struct nu_lane *l, int error)
{
	char name[NU_LANE_NAME_BYTES];
	int err;

	nu_lane_break(l, error);
	if (!l->qp)
		return;
	nu_windows_drop(l); /* devices hold the queue pair for them */
	err = ibv_destroy_qp(l->qp);
	if (err)
		nu_err("%s cannot be destroyed: %s", nu_lane_name(l, name), strerror(err));
	l->qp = NULL;
	atomic_fetch_sub_explicit(&nu_verbs_count.queue_pairs, 1, memory_order_relaxed);
	while (l->tail != l->head)
		retire_one(l, error);
	nu_lane_signal_all(&l->room);
}

void nu_lane_unmake(struct nu_lane *l)
{
	struct nu_lane_slot *slots;
	struct ibv_cq *cq;

	nu_lock_acquire(&l->lock);
	nu_lane_cut(l, l->error ? l->error : -EIO);
	cq = l->cq;
	slots = l->slots;
	l->cq = NULL;
	l->slots = NULL;
	l->state = NU_LANE_IDLE;
	nu_lock_release(&l->lock);
	if (cq && ibv_destroy_cq(cq))
		nu_err("a completion queue of node %u cannot be destroyed: %s", l->node,
		       strerror(nu_sys_errno));
	free(slots);
}
