/* SPDX-License-Identifier: MIT */
/* UCX below the wire: one context, a worker per core, endpoints. Nothing of UCX is seen above this file. */
#include "rpc/wire_int.h"

#include <sched.h>
#include <stdio.h>
#include <sys/shm.h>
#include <sys/statvfs.h>
#include <sys/timerfd.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#define AM_ID	     0
#define PROGRESS_MAX 32u
#define STALL_TRIES  64u
#define STALL_NAP_NS 1000000
#define SHM_FOLDER   "/dev/shm"
#define SHM_BYTES                                                                                            \
	((uint64_t)9 << 19) /* that UCX's posix transport takes of it for a worker: 4.2 MiB, measured */

struct worker {
	ucp_worker_h h;
	int efd;
	uint16_t core;
	int nap_fd;
	unsigned unfinished; /* sends and closes that UCX still holds */
	unsigned
		handled; /* messages and ends of sends; what UCX itself calls progress never ends after a death */
	unsigned refusals; /* of UCX to be armed, since it last made progress or slept */
	void *copy;	   /* for data that UCX hands over at an odd address */
	size_t copy_bytes;
} __attribute__((aligned(NU_CACHE_LINE)));

static ucp_context_h context;
static struct worker workers[NU_MAX_CORES];

static int to_errno(ucs_status_t st)
{
	switch (st) {
	case UCS_OK:
		return 0;
	case UCS_ERR_BUSY:
	case UCS_ERR_NO_PROGRESS:
		return -EBUSY;
	case UCS_ERR_NO_MEMORY:
		return -ENOMEM;
	case UCS_ERR_NO_DEVICE:
		return -ENODEV;
	case UCS_ERR_UNREACHABLE:
		return -EHOSTUNREACH;
	case UCS_ERR_INVALID_PARAM:
	case UCS_ERR_INVALID_ADDR:
		return -EINVAL;
	case UCS_ERR_CONNECTION_RESET:
	case UCS_ERR_ENDPOINT_TIMEOUT:
	case UCS_ERR_NOT_CONNECTED:
	case UCS_ERR_CANCELED:
		return -ECONNRESET;
	case UCS_ERR_TIMED_OUT:
		return -ETIMEDOUT;
	case UCS_ERR_UNSUPPORTED:
	case UCS_ERR_NOT_IMPLEMENTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

/* ---- context ---- */

static int modify(ucp_config_t *config, const char *name, const char *value)
{
	ucs_status_t st = ucp_config_modify(config, name, value);

	if (st != UCS_OK)
		nu_err("UCX refuses %s=%s: %s", name, value, ucs_status_string(st));
	return to_errno(st);
}

/* Whether a UCX_TLS list can name shared memory. */
static bool may_use_shm(const char *tls)
{
	static const char *const names[] = {"posix", "sysv", "xpmem", "mm", "sm", "shm", "all", "^"};

	for (unsigned i = 0; tls && i < sizeof(names) / sizeof(names[0]); i++) {
		if (strstr(tls, names[i]))
			return true;
	}
	return !tls;
}

/* Without room in its folder UCX's posix transport does not start, or stalls later; sysv needs no folder. */
static bool has_shm_folder(void)
{
	uint64_t want = 0, room = 0;
	struct statvfs fs;

	for (unsigned n = 0; n < nu_node.count; n++) {
		if (nu_node.host_of[n] == nu_node.host_of[nu_node.self])
			want += SHM_BYTES * nu_node.cores;
	}

	if (!access(SHM_FOLDER, W_OK | X_OK) && !statvfs(SHM_FOLDER, &fs) && !(fs.f_flag & ST_RDONLY))
		room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (room >= want)
		return true;
	nu_info("%s has %lu MiB to write to, the nodes' shared memory takes %lu: UCX's transport sysv is "
		"used "
		"in its place",
		SHM_FOLDER, (unsigned long)(room / NU_MIB), (unsigned long)(want / NU_MIB));
	return false;
}

static bool has_sysv(void)
{
	int id = shmget(IPC_PRIVATE, SHM_BYTES, IPC_CREAT | 0600);

	return id >= 0 && !shmctl(id, IPC_RMID, NULL);
}

/*
 * What to tell UCX when nobody has said. It listens on a port for each node that may use TCP, even if shared memory then
 * carries everything, and any local user can connect there: on one host TCP is only for where no shared memory is.
 */
static const char *choose_tls(void)
{
	if (getenv("UCX_TLS"))
		return NULL;
	if (has_shm_folder())
		return "posix,sysv,self";
	return has_sysv() ? "sysv,self" : "^posix";
}

/* Whether a UCX_TLS list names RDMA. */
static bool names_ib(const char *tls)
{
	static const char *const names[] = {"ib", "rc", "ud", "dc"};

	for (; tls && *tls; tls += strcspn(tls, ","), tls += *tls == ',') {
		for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			char after = strncmp(tls, names[i], 2) ? 'x' : tls[2];

			if (!after || after == ',' || after == '_') /* rc, rc_v, rc_verbs, ... */
				return true;
		}
	}
	return false;
}

/* The devices that UCX may use: RDMA's, if the transports need one; where other hosts need not be reached nothing else
 * opens a socket that they could reach. */
static int configure_devices(ucp_config_t *config, const char *tls, const char *device, enum nu_reach reach)
{
	char devices[128];
	bool ib = names_ib(tls), host = reach == NU_REACH_HOST;

	if (getenv("UCX_NET_DEVICES"))
		return 0;
	if (ib && device && *device) {
		snprintf(devices, sizeof(devices), "%s%s%s", device, strchr(device, ':') ? "" : ":1",
			 host ? ",lo" : "");
		return modify(config, "NET_DEVICES", devices);
	}
	return ib || !host ? 0 : modify(config, "NET_DEVICES", "lo");
}

static int configure(ucp_config_t *config, const struct nu_wire_options *o, enum nu_reach reach)
{
	const char *transport = o->transport, *tls = transport;
	int err = 0;

	if (!transport || !strcmp(transport, "auto"))
		tls = choose_tls();
	else if (!strcmp(transport, "shm"))
		tls = has_shm_folder() ? "posix,sysv,self" : "sysv,self";
	if (tls)
		err = modify(config, "TLS", tls);
	/* Without it UCX 1.13 drops shared memory from endpoints that want to hear of a peer's failure. */
	if (!err && may_use_shm(tls ? tls : getenv("UCX_TLS")))
		err = modify(config, "MM_ERROR_HANDLING", "y");
	if (!err)
		err = configure_devices(config, tls ? tls : getenv("UCX_TLS"), o->device, reach);
	return err;
}

static int ucx_init(const struct nu_wire_options *o, enum nu_reach reach)
{
	ucp_params_t params = {
		.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED |
			      UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
		.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
		.mt_workers_shared = 1, /* cores' kernel threads, each with a worker of its own */
		.estimated_num_eps = nu_node.count,
	};
	const char *events = getenv("UCX_MEM_EVENTS");
	ucp_config_t *config;
	ucs_status_t st;
	int err;

	if (!events || (strcmp(events, "n") && strcmp(events, "no") && strcmp(events, "0")))
		nu_warn("UCX_MEM_EVENTS=n was not in the environment when the program started: UCX patches "
			"mmap and "
			"its kin");
	st = ucp_config_read(NULL, NULL, &config);
	if (st != UCS_OK) {
		nu_err("UCX's configuration cannot be read: %s", ucs_status_string(st));
		return to_errno(st);
	}
	err = configure(config, o, reach);
	if (!err) {
		st = ucp_init(&params, config, &context);
		err = to_errno(st);
		if (err)
			nu_err("UCX has no transport for \"%s\": %s", o->transport ? o->transport : "auto",
			       ucs_status_string(st));
	}
	ucp_config_release(config);
	return err;
}

static void ucx_fini(void)
{
	if (context)
		ucp_cleanup(context);
	context = NULL;
}

/* ---- receiving ---- */

/* UCX gives no promise on alignment: the rare odd batch is copied. */
static const void *aligned(struct worker *w, const void *data, size_t len)
{
	if (likely(!((uintptr_t)data & 7)))
		return data;
	if (len > w->copy_bytes) {
		free(w->copy);
		w->copy_bytes = 0;
		w->copy = nu_alloc_patiently(len);
		if (!w->copy)
			return NULL;
		w->copy_bytes = len;
	}
	memcpy(w->copy, data, len);
	return w->copy;
}

static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data, size_t len,
			       const ucp_am_recv_param_t *param)
{
	struct worker *w = arg;
	const void *batch;

	/* Every node sends eagerly, to keep the order: anything else does not come from one of us. */
	if (unlikely(param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) || unlikely(len > NU_BATCH_MAX_BYTES) ||
	    unlikely(header_len)) {
		nu_stat_add(w->core, NU_STAT_BAD_MESSAGES, 1);
		return UCS_OK; /* drops it */
	}
	batch = aligned(w, data, len);
	if (unlikely(!batch)) {
		nu_err("a batch of %zu bytes is lost: no memory", len);
		return UCS_OK;
	}
	w->handled++;
	w->refusals = 0;
	(void)nu_wire_receive(w->core, batch, len, false);
	return UCS_OK;
}

/* ---- workers ---- */

static int worker_prepare(struct worker *w)
{
	ucp_am_handler_param_t handler = {
		.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
			      UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS,
		.id = AM_ID,
		.flags = UCP_AM_FLAG_WHOLE_MSG,
		.cb = on_message,
		.arg = w,
	};
	ucs_status_t st = ucp_worker_set_am_recv_handler(w->h, &handler);

	if (st == UCS_OK)
		st = ucp_worker_get_efd(w->h, &w->efd);
	if (st != UCS_OK)
		nu_err("UCX worker of core %u cannot receive or sleep: %s", w->core, ucs_status_string(st));
	return to_errno(st);
}

static void ucx_worker_destroy(unsigned core)
{
	struct worker *w = &workers[core];

	if (w->h) {
		ucp_worker_destroy(w->h);
		close(w->nap_fd);
	}
	w->h = NULL;
	free(w->copy);
	w->copy = NULL;
	w->copy_bytes = 0;
}

static int ucx_worker_create(unsigned core)
{
	ucp_worker_params_t params = {
		.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
		.thread_mode = UCS_THREAD_MODE_SERIALIZED, /* made here, used by the core's kernel thread */
	};
	struct worker *w = &workers[core];
	ucs_status_t st;
	int err;

	*w = (struct worker){.core = (uint16_t)core, .efd = -1};
	w->nap_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w->nap_fd < 0) {
		nu_err("core %u gets no timer descriptor: RLIMIT_NOFILE?", core);
		return -EMFILE;
	}
	st = ucp_worker_create(context, &params, &w->h);
	if (st != UCS_OK) {
		w->h = NULL;
		close(w->nap_fd);
		nu_err("UCX worker of core %u: %s", core, ucs_status_string(st));
		return to_errno(st);
	}
	err = worker_prepare(w);
	if (err)
		ucx_worker_destroy(core);
	return err;
}

static int ucx_address(unsigned core, void **addr_p, size_t *len_p)
{
	ucp_address_t *addr;
	size_t len;
	ucs_status_t st = ucp_worker_get_address(workers[core].h, &addr, &len);
	void *copy;

	if (st != UCS_OK) {
		nu_err("UCX gives no address for core %u: %s", core, ucs_status_string(st));
		return to_errno(st);
	}
	copy = malloc(len);
	if (copy)
		memcpy(copy, addr, len);
	ucp_worker_release_address(workers[core].h, addr);
	if (!copy)
		return -ENOMEM;
	*addr_p = copy;
	*len_p = len;
	return 0;
}

static unsigned ucx_progress(unsigned core)
{
	struct worker *w = &workers[core];
	unsigned before = w->handled;

	for (unsigned i = 0; i < PROGRESS_MAX && ucp_worker_progress(w->h); i++)
		;
	return w->handled - before;
}

/*
 * UCX 1.13 refuses to be armed while something cannot leave through shared memory, which is for ever if the peer was
 * killed: closing the endpoint does not cancel it. So that this costs no processor, the core then naps in between.
 */
static int nap(struct worker *w)
{
	struct itimerspec in = {.it_value.tv_nsec = STALL_NAP_NS};

	if (++w->refusals < STALL_TRIES)
		return -EBUSY;
	return timerfd_settime(w->nap_fd, 0, &in, NULL) ? -EBUSY : w->nap_fd;
}

static int ucx_arm(unsigned core)
{
	struct worker *w = &workers[core];

	if (ucp_worker_arm(w->h) != UCS_OK)
		return nap(w);
	/* After a death it may be armed and still signal itself at once, again and again. */
	if (unlikely(w->unfinished) && ++w->refusals >= STALL_TRIES)
		return nap(w);
	return w->efd;
}

/* ---- endpoints ---- */

static void on_endpoint_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
	nu_wire_broken(arg, ep, to_errno(status));
}

static int ucx_connect(unsigned core, const void *peer_address, size_t len, struct nu_conn *c, void **ep_p)
{
	ucp_ep_params_t params = {
		.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
			      UCP_EP_PARAM_FIELD_ERR_HANDLER,
		.address = peer_address,
		.err_mode = UCP_ERR_HANDLING_MODE_PEER,
		.err_handler = {.cb = on_endpoint_error, .arg = c},
	};
	ucp_ep_h ep;
	ucs_status_t st = ucp_ep_create(workers[core].h, &params, &ep);

	if (st != UCS_OK) {
		nu_err("UCX cannot connect core %u: %s", core, ucs_status_string(st));
		return to_errno(st);
	}
	*ep_p = ep;
	return 0;
}

static void on_sent(void *request, ucs_status_t status, void *arg)
{
	struct nu_buf *b = arg;

	ucp_request_free(request);
	workers[b->core].unfinished--;
	workers[b->core].handled++;
	workers[b->core].refusals = 0;
	nu_wire_sent(b, to_errno(status));
}

static int ucx_send(void *ep, struct nu_buf *b)
{
	ucp_request_param_t params = {
		.op_attr_mask =
			UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_AM_SEND_FLAG_EAGER, /* a rendezvous would be overtaken by what is sent later */
		.cb.send = on_sent,
		.user_data = b,
	};
	ucs_status_ptr_t r = ucp_am_send_nbx(ep, AM_ID, NULL, 0, b->data, b->len_bytes, &params);

	if (likely(!r))
		return 0;
	if (UCS_PTR_IS_ERR(r))
		return to_errno(UCS_PTR_STATUS(r));
	workers[b->core].unfinished++; /* callbacks come from progress alone */
	return 1;
}

static void on_closed(void *request, ucs_status_t status, void *arg)
{
	struct worker *w = arg;

	ucp_request_free(request);
	w->unfinished--;
}

static void ucx_close(unsigned core, void *ep)
{
	struct worker *w = &workers[core];
	ucp_request_param_t params = {
		.op_attr_mask =
			UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_EP_CLOSE_FLAG_FORCE,
		.cb.send = on_closed,
		.user_data = w,
	};
	ucs_status_ptr_t r = ucp_ep_close_nbx(ep, &params);

	if (UCS_PTR_IS_PTR(r))
		w->unfinished++;
}

/* Progress until UCX holds no request of ours. */
static int wait_finished(struct worker *w, uint64_t end_ns)
{
	while (w->unfinished) {
		if (!ucp_worker_progress(w->h)) {
			if (nu_mono_ns() > end_ns)
				return -ETIMEDOUT;
			sched_yield();
		}
	}
	return 0;
}

static int ucx_drain(unsigned core, uint64_t timeout_ns)
{
	struct worker *w = &workers[core];
	ucp_request_param_t params = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
		.cb.send = on_closed,
		.user_data = w,
	};
	uint64_t end = nu_mono_ns() + timeout_ns;
	ucs_status_ptr_t r;
	int err = wait_finished(w, end); /* a flush alone does not wait for what UCX has queued */

	if (err)
		return err;
	r = ucp_worker_flush_nbx(w->h, &params);
	if (UCS_PTR_IS_ERR(r))
		return to_errno(UCS_PTR_STATUS(r));
	if (UCS_PTR_IS_PTR(r))
		w->unfinished++;
	return wait_finished(w, end);
}

/* ---- what was chosen ---- */

/* Name of the transport in UCX's text for a lane: "lane[0]: 4:posix/memory.0 md[3] -> ... am am_bw#0". */
static bool parse_lane(const char *line, char *buf, size_t len)
{
	const char *lane = strstr(line, "lane["), *name, *end;
	unsigned n;

	name = lane ? strchr(lane + strlen("lane["), ':') : NULL;
	if (!name || sscanf(name + 1, " %u:", &n) != 1)
		return false;
	name = strchr(name + 1, ':') + 1;
	end = name + strcspn(name, ". ");
	snprintf(buf, len, "%.*s", (int)(end - name), name);
	return true;
}

/* Calls @fn for each lane of an endpoint, until it returns true. -ENOTCONN: it never did. */
static int for_each_lane(void *ep, bool (*fn)(const char *line, const char *name, void *arg), void *arg)
{
	char *text = NULL, *line, *save, name[64];
	size_t text_len;
	FILE *f = open_memstream(&text, &text_len);
	int err = -ENOTCONN;

	if (!f)
		return -ENOMEM;
	ucp_ep_print_info(ep, f);
	if (fclose(f)) {
		free(text);
		return -ENOMEM;
	}
	for (line = strtok_r(text, "\n", &save); line && err; line = strtok_r(NULL, "\n", &save)) {
		if (parse_lane(line, name, sizeof(name)) && fn(line, name, arg))
			err = 0;
	}
	free(text);
	return err;
}

struct text {
	char *buf;
	size_t len;
};

static bool carries_messages(const char *line, const char *name, void *arg)
{
	struct text *t = arg;

	if (!strstr(line, " am "))
		return false;
	snprintf(t->buf, t->len, "%s", name);
	return true;
}

static int ucx_transport(void *ep, char *buf, size_t len)
{
	return for_each_lane(ep, carries_messages, &(struct text){buf, len});
}

static bool leaves_host(const char *line, const char *name, void *arg)
{
	static const char *const local[] = {"posix/", "sysv/", "xpmem/", "cma/", "knem/", "self/"};

	for (unsigned i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		if (!strncmp(name, local[i], strlen(local[i])))
			return false;
	}
	return true;
}

/* Shared memory does not break while both live. */
static bool ucx_may_break(void *ep)
{
	return for_each_lane(ep, leaves_host, NULL) != -ENOTCONN;
}

const struct nu_link_ops nu_ucx_link = {
	.name = "UCX",
	.id = 1,
	.init = ucx_init,
	.fini = ucx_fini,
	.worker_create = ucx_worker_create,
	.worker_destroy = ucx_worker_destroy,
	.address = ucx_address,
	.connect = ucx_connect,
	.send = ucx_send,
	.progress = ucx_progress,
	.arm = ucx_arm,
	.close = ucx_close,
	.drain = ucx_drain,
	.may_break = ucx_may_break,
	.transport = ucx_transport,
};
