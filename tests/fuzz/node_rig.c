/* SPDX-License-Identifier: MIT */
/* The rig of node_rig.h. */
#include "node_rig.h"

#include "core/heap_int.h"
#include "rpc/wire_int.h"
#include "sched/sched_int.h"

#include <sched.h>
#include <unistd.h>

/* LeakSanitizer's, where there is one: books are in heaps that it does not know. */
void __lsan_register_root_region(const void *at, size_t len) __attribute__((weak));

#define ROUNDS_MAX 8000
#define SERVED_MAX 4096

NU_VEC(words, uint32_t);
typedef uint64_t (*box_fn)(uint64_t);
struct box {
	uint64_t sum;
	struct nu_mutex mutex;
};
struct other {
	char name[32];
};
NU_CLASS_DEFINE(box);
NU_CLASS_DEFINE(other);
NU_METHOD(box, add, val(uint64_t), val(uint64_t, n));
NU_METHOD(box, text, str, str(s), bytes(b));
NU_METHOD(box, sum, val(uint64_t), vec(words, w));
NU_METHOD(box, keep, none, ref(other, o), val(unsigned, times));
NU_METHOD(box, apply, val(uint64_t), fn(box_fn, f), val(uint64_t, x));
NU_METHOD(box, give, ref(other));
NU_METHOD(other, poke, none);
NU_METHOD(other, name, str);

unsigned rig_runs;

int box_init(struct box *self, unsigned n)
{
	self->sum = n;
	return n == 77 ? -EDOM : 0;
}
int other_init(struct other *self, struct nu_str name)
{
	size_t n = name.len_bytes < sizeof(self->name) - 1 ? name.len_bytes : sizeof(self->name) - 1;

	if (n)
		memcpy(self->name, name.s, n);
	self->name[n] = 0;
	return 0;
}
uint64_t box_do_add(struct box *self, uint64_t n)
{
	nu_mutex_lock(&self->mutex);
	self->sum += n;
	rig_runs++;
	nu_mutex_unlock(&self->mutex);
	return self->sum;
}
void box_do_text(struct box *self, struct nu_str s, struct nu_bytes b, struct nu_out *out)
{
	FUZZ_CHECK(!s.s || strlen(s.s) <= s.len_bytes);
	for (size_t i = 0; i < b.len_bytes; i++)
		self->sum += ((const uint8_t *)b.data)[i];
	if (s.s)
		nu_out_bytes(out, s.s, s.len_bytes);
}
uint64_t box_do_sum(struct box *self, struct words w)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < w.count; i++)
		sum += w.items[i];
	return sum;
}
void box_do_keep(struct box *self, struct other_ref o, unsigned times)
{
	if (!other_ref_get(o))
		other_ref_put(&o);
}
uint64_t box_do_apply(struct box *self, box_fn f, uint64_t x)
{
	return f ? x : 0; /* any address in the program may come; it is not for us to jump there */
}
struct other_ref box_do_give(struct box *self)
{
	return (struct other_ref){{RIG_OTHER}};
}
void other_do_poke(struct other *self)
{
	self->name[0] ^= 1;
	rig_runs++;
}
void other_do_name(struct other *self, struct nu_out *out)
{
	nu_out_str(out, self->name);
}

const struct nu_method *rig_method(const struct nu_class *cls, const char *name)
{
	for (const struct nu_method *m = __start_nu_methods; m < __stop_nu_methods; m++) {
		if (m->magic == NU_METHOD_MAGIC && m->cls == cls && !strcmp(m->name, name))
			return m;
	}
	abort();
}

/* ---- in place of UCX ---- */

static int link_init(const struct nu_wire_options *o, enum nu_reach reach)
{
	return 0;
}
static void link_fini(void)
{
}
static int link_create(unsigned core)
{
	return 0;
}
static void link_destroy(unsigned core)
{
}
static int link_address(unsigned core, void **addr_p, size_t *len_p)
{
	*addr_p = strdup("address");
	*len_p = 7;
	return 0;
}
static int link_connect(unsigned core, const void *addr, size_t len, struct nu_conn *c, void **ep_p)
{
	*ep_p = c;
	return 0;
}

struct nu_msg rig_sent[RIG_SENT_MAX];
unsigned rig_nsent;

/* What we say makes sense, whatever we were told. */
static int link_send(void *ep, struct nu_buf *b)
{
	const struct nu_batch *h = (const struct nu_batch *)b->data;
	size_t at = sizeof(*h);

	FUZZ_CHECK(h->magic == NU_BATCH_MAGIC && h->len_bytes == b->len_bytes && h->key == RIG_KEY);
	while (at < b->len_bytes) {
		const struct nu_msg *m = (const struct nu_msg *)(b->data + at);

		FUZZ_CHECK(m->len_bytes >= sizeof(*m) && at + m->len_bytes <= b->len_bytes);
		FUZZ_CHECK(m->type && m->type < NU_MSG_TYPES && m->origin < nu_node.count);
		if (rig_nsent < RIG_SENT_MAX)
			rig_sent[rig_nsent++] = *m;
		at += NU_ALIGN_UP((size_t)m->len_bytes, 8);
	}
	return 0;
}
static unsigned link_progress(unsigned core)
{
	return 0;
}
static int link_arm(unsigned core)
{
	return -1;
}
static void link_close(unsigned core, void *ep)
{
}
static bool link_may_break(void *ep)
{
	return false;
}
static int link_transport(void *ep, char *buf, size_t len)
{
	return -ENOTCONN;
}
const struct nu_link_ops nu_ucx_link = {
	.name = "rig",
	.id = 1,
	.init = link_init,
	.fini = link_fini,
	.worker_create = link_create,
	.worker_destroy = link_destroy,
	.address = link_address,
	.connect = link_connect,
	.send = link_send,
	.progress = link_progress,
	.arm = link_arm,
	.close = link_close,
	.may_break = link_may_break,
	.transport = link_transport,
};

/* ---- in place of the readers: the mover's image ---- */

unsigned rig_damage;
static bool damaged; /* what was read last */
static char *image;
static size_t image_bytes;

int nu_reader_init(const char *wanted)
{
	return nu_reader_am.read ? 0 : -ENODEV; /* its method is linked in */
}
bool rig_by_offer;
void nu_reader_peer_dead(unsigned peer)
{
}

int nu_reader_connect(unsigned peer)
{
	return 0;
}

int nu_reader_offer_kind(unsigned peer)
{
	return rig_by_offer;
}
const struct nu_reader_ops *nu_reader_of_kind(int kind)
{
	return NULL;
}
const char *nu_reader_name(unsigned peer)
{
	return "rig";
}

static uintptr_t lowest(const struct nu_thread *t)
{
	return nu_stack_slot(t) + nu_layout.stack_slot_bytes - nu_layout.stack_bytes;
}

/* A thread of the mover that waits for ever. */
static void fake_thread(struct nu_thread *t)
{
	memset(t, 0, sizeof(*t));
	t->proclet_id = RIG_MOVER;
	t->state = NU_THREAD_BLOCKED;
	t->wait = NU_WAIT_OTHER;
	t->detached = 1;
	t->stack_low = (void *)lowest(t);
	t->sp = (char *)t - 512;
	t->home_node = (uint32_t)((nu_stack_slot(t) - nu_layout.stack_base) / nu_layout.stack_node_bytes);
	nu_list_init(&t->link);
	nu_list_init(&t->proclet_link);
	damaged |= rig_damage == 14 || rig_damage == 15;
	if (rig_damage == 14)
		t->sp = (char *)t + 64;
	if (rig_damage == 15)
		t->proclet_id = RIG_BOX;
}

static void damage(struct nu_proclet_head *head, struct nu_heap *heap)
{
	uintptr_t far = (uintptr_t)head + image_bytes;

	damaged |= rig_damage >= 1 && rig_damage <= 13;

	switch (rig_damage) {
	case 1:
		head->id++;
		break;
	case 2: /* one that no move can have announced, as it may the other */
		head->cls = &nu_node_class;
		break;
	case 3:
		head->cls = (void *)image;
		break;
	case 4:
		head->root = (void *)far;
		break;
	case 5:
		head->root = NULL;
		break;
	case 6:
		head->heap = (void *)((uintptr_t)head->heap + 64);
		break;
	case 7:
		head->capacity_bytes *= 2;
		break;
	case 8:
		head->holders = (void *)(far + 8);
		break;
	case 9:
		head->held = (void *)((uintptr_t)head - 8);
		break;
	case 10:
		heap->base -= 4096;
		break;
	case 11:
		heap->top += 1000;
		break;
	case 12:
		heap->caches[3] = (void *)far;
		break;
	case 13:
		heap->maps[0] += 4096;
		break;
	default:
		break;
	}
}

int nu_reader_read(unsigned peer, const struct nu_piece *pieces, unsigned npieces)
{
	uintptr_t base = (uintptr_t)nu_seg_addr(nu_id_seg(RIG_MOVER));

	FUZZ_CHECK(peer < nu_node.count);
	damaged = false;
	for (unsigned i = 0; i < npieces; i++) {
		const struct nu_piece *p = &pieces[i];
		char *to = p->at ? p->at : p->local; /* by offer: what a device would write to */
		uintptr_t slot = nu_stack_slot(p->local);

		if (slot) {
			struct nu_thread *t = nu_stack_thread(slot);

			FUZZ_CHECK(nu_thread_is_here(t) && (uintptr_t)p->local >= lowest(t) &&
				   (char *)p->local + p->len_bytes == (char *)(t + 1));
			memset(p->local, 0, p->len_bytes);
			fake_thread(t);
		} else {
			/* A crash here: it is no memory of the arriving proclet. */
			memset(to, 0x5a, p->len_bytes);
			for (size_t k = 0; k < p->len_bytes; k++) {
				if (p->remote + k - base < image_bytes)
					to[k] = image[p->remote + k - base];
			}
			if (p->remote == base && p->len_bytes >= 8192)
				damage((void *)to, (struct nu_heap *)(to + NU_HEAP_HEAD_BYTES));
		}
	}
	return 0;
}

uint64_t rig_image_bytes(void)
{
	return image_bytes;
}

struct nu_thread *rig_stack(unsigned node, unsigned i)
{
	return nu_stack_thread(nu_layout.stack_base + node * nu_layout.stack_node_bytes +
			       (uintptr_t)i * nu_layout.stack_slot_bytes);
}

/* ---- the node ---- */

static struct nu_proclet *node_proclet;
static atomic_uint posted, first_done;

static bool never(const void *pc)
{
	return false; /* everything is linked into one program, the runtime too */
}

static int locate(uint64_t id, unsigned *node_p, uint64_t *location_p)
{
	struct nu_ctrl_answer a;
	int ret;

	if (id == RIG_REMOTE) {
		*node_p = 1;
		*location_p = 1;
		return 0;
	}
	ret = nu_controller_locate((struct nu_controller_ref){{NU_ID_CTRL}}, id, &a);
	if (!ret)
		ret = a.status;
	if (ret || a.a >= nu_node.count || a.a == nu_node.self)
		return ret ? ret : -ESTALE; /* a wait of ten seconds else */
	*node_p = (unsigned)a.a;
	*location_p = a.b;
	return 0;
}

static void take_image(void)
{
	struct nu_proclet *p;

	FUZZ_CHECK(!nu_instance_make(RIG_MOVER, &box_class, RIG_CAPACITY, false, nu_id_of_node(1), &p));
	nu_heap_settle(p->heap);
	image_bytes = nu_heap_used_end(p->heap);
	image = malloc(image_bytes);
	memcpy(image, p->head, image_bytes);
	p->head = NULL;
	p->heap = NULL;
	nu_proclet_unmap(p);
	nu_proclet_leave(p);
}

/* Without the controller's knowledge: the ids are the same for every input. */
static void make_residents(void)
{
	struct nu_proclet *p;

	if (!nu_proclet_lookup(RIG_BOX))
		FUZZ_CHECK(!nu_instance_make(RIG_BOX, &box_class, RIG_CAPACITY, false, nu_id_of_node(0), &p));
	if (!nu_proclet_lookup(RIG_OTHER))
		FUZZ_CHECK(!nu_instance_make(RIG_OTHER, &other_class, RIG_CAPACITY, false, nu_id_of_node(0),
					     &p));
	if (!nu_proclet_lookup(RIG_MAIN))
		FUZZ_CHECK(!nu_instance_make(RIG_MAIN, NULL, RIG_CAPACITY, true, 0, &p));
}

static void first_body(void *arg)
{
	FUZZ_CHECK(!nu_controller_start());
	for (unsigned n = 0; n < nu_node.count; n++)
		FUZZ_CHECK(!nu_client_join(n, 1, NU_GIB));
	make_residents();
	take_image();
	atomic_store(&first_done, 1);
}

void rig_start(const char *transport)
{
	const struct nu_wire_options wire = {.transport = transport, .key = RIG_KEY};
	const struct nu_rpc_ops rpc_ops = {locate, nu_instance_create, nu_instance_retire};
	const struct nu_move_ops move_ops = {nu_client_move_begin, nu_client_move_end};
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
	struct sigaction old[sizeof(crashes) / sizeof(crashes[0])];
	const struct nu_image methods = {__start_nu_methods, __stop_nu_methods};

	FUZZ_CHECK(!nu_layout_init());
	nu_node.self = 0;
	nu_node.count = 3;
	nu_node.cores = 1;
	nu_node.mem_bytes = 64 * NU_MIB;
	for (unsigned n = 0; n < nu_node.count; n++)
		nu_node.pids[n] = getpid();
	nu_preempt_pc_ok = never;
	FUZZ_CHECK(!nu_image_init(&methods) && !nu_proclet_table_init());
	FUZZ_CHECK(!nu_pool_init(nu_node.mem_bytes, 0, 0, NULL) && !nu_reader_init(NULL));
	FUZZ_CHECK(!nu_rpc_init() && !nu_move_init() && !nu_wire_init(&wire));
	nu_rpc_set_ops(&rpc_ops);
	nu_move_set_ops(&move_ops);
	for (unsigned n = 0; n < nu_node.count; n++) {
		void *blob;
		size_t len;

		FUZZ_CHECK(!nu_wire_address(&blob, &len) && !nu_wire_set_peer(n, blob, len));
		free(blob);
	}
	FUZZ_CHECK(!nu_proclet_enter(nu_id_of_node(0), &node_proclet));
	node_proclet->cls = &nu_node_class;
	node_proclet->state = NU_PROCLET_PRESENT;
	if (__lsan_register_root_region) {
		__lsan_register_root_region((void *)nu_layout.seg_base, nu_layout.seg_region_bytes);
		__lsan_register_root_region((void *)nu_layout.stack_base, nu_layout.stack_region_bytes);
	}
	for (unsigned i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigaction(crashes[i], NULL, &old[i]);
	FUZZ_CHECK(!nu_sched_start(node_proclet, first_body, NULL));
	for (unsigned i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigaction(crashes[i], &old[i], NULL); /* libFuzzer writes the input down */
	while (!atomic_load(&first_done))
		sched_yield();
	rig_settle(false);
}

/* ---- an input ---- */

static void on_core(void (*fn)(void *), void *arg)
{
	unsigned before = atomic_load(&posted);

	FUZZ_CHECK(!nu_core_post(0, fn, arg));
	while (atomic_load(&posted) == before)
		sched_yield();
}

struct nu_thread *rig_waiter[RIG_WAITERS];
unsigned rig_results;

static void waiter_body(void *arg)
{
	static const struct nu_method *const methods[RIG_WAITERS] = {&box_add_method, &other_name_method,
								     &box_give_method, &other_poke_method};
	uintptr_t i = (uintptr_t)arg;
	struct nu_bytes result = {NULL, 0};
	uint64_t argument = 0;
	int ret =
		nu_call((struct nu_ref){RIG_REMOTE}, methods[i], &argument, i == 3 ? NULL : (void *)&result);

	if (!ret && i == 1)
		nu_proclet_free(nu_thread_self()->proclet, (void *)result.data);
	if (ret)
		FUZZ_CHECK(!result.data && !result.len_bytes);
	if (!ret)
		rig_results |= 1u << i;
}

static struct nu_thread *thread_in(struct nu_proclet *p, nu_thread_fn fn, void *arg)
{
	struct nu_thread *t = nu_thread_alloc(p);

	FUZZ_CHECK(t && nu_thread_prepare(t, fn, arg, 0));
	t->detached = 1;
	nu_lock_acquire(&p->lock);
	nu_thread_link(t);
	nu_lock_release(&p->lock);
	nu_thread_ready(t);
	return t;
}

static void start_waiters(void *arg)
{
	struct nu_proclet *p = nu_proclet_lookup(RIG_BOX);

	for (uintptr_t i = 0; i < RIG_WAITERS; i++)
		rig_waiter[i] = thread_in(p, waiter_body, (void *)i);
	atomic_fetch_add(&posted, 1);
}

void rig_waiters_start(void)
{
	on_core(start_waiters, NULL);
	for (unsigned i = 0; i < RIG_WAITERS; i++) {
		while (nu_thread_state(rig_waiter[i]) != NU_THREAD_BLOCKED)
			sched_yield();
	}
}

struct arrival {
	const void *data;
	size_t len;
};

static void receive(void *arg)
{
	const struct arrival *a = arg;

	(void)nu_wire_receive(0, a->data, a->len, false);
	atomic_fetch_add(&posted, 1);
}

void rig_receive(const void *batch, size_t len)
{
	struct arrival a = {batch, len};

	on_core(receive, &a);
}

static void nothing(void *arg)
{
	atomic_fetch_add(&posted, 1);
}

static void flush(void *arg)
{
	nu_wire_flush();
	atomic_fetch_add(&posted, 1);
}

void rig_flush(void)
{
	on_core(flush, NULL);
}

void rig_pause(void)
{
	for (unsigned i = 0; i < 64 && node_proclet->nthreads; i++)
		on_core(nothing, NULL);
}

/* ---- afterwards ---- */

struct census {
	unsigned threads, strangers;
	struct nu_proclet *p[64];
};

static bool is_resident(uint64_t id)
{
	return id == RIG_BOX || id == RIG_OTHER || id == RIG_MAIN || id == NU_ID_CTRL ||
	       id == nu_id_of_node(0);
}

static void count(struct nu_proclet *p, void *arg)
{
	struct census *c = arg;
	struct nu_list *l;

	nu_lock_acquire(&p->lock);
	nu_list_for_each (l, &p->threads)
		c->threads += !nu_thread_is_spare(nu_list_entry(l, struct nu_thread, proclet_link));
	nu_lock_release(&p->lock);
	FUZZ_CHECK(!(damaged && p->id == RIG_MOVER && p->state == NU_PROCLET_PRESENT));
	if (!is_resident(p->id) && c->strangers < 64)
		c->p[c->strangers++] = p;
	if (is_resident(p->id) && (p->state != NU_PROCLET_PRESENT || p->move_claimed))
		c->threads++; /* on its way, or ending: not done yet */
}

/* A message of an internal method to this node. */
static void tell(const char *method, uint64_t word)
{
	struct {
		struct nu_batch h;
		struct nu_msg m;
		uint64_t word;
	} b = {.h = {.magic = NU_BATCH_MAGIC, .len_bytes = sizeof(b), .key = RIG_KEY, .node = 1},
	       .m = {.len_bytes = sizeof(b.m) + sizeof(b.word),
		     .type = NU_MSG_CALL,
		     .cls = NU_CLASS_CONTROL,
		     .origin = 1,
		     .target = nu_id_of_node(0)},
	       .word = word};

	for (const struct nu_method *m = __start_nu_methods; m < __stop_nu_methods; m++) {
		if (m->magic == NU_METHOD_MAGIC && m->cls == &nu_node_class && !strcmp(m->name, method))
			b.m.method = (uint64_t)m;
	}
	FUZZ_CHECK(b.m.method);
	(void)nu_wire_receive(0, &b, sizeof(b), false);
}

static bool retiring; /* one at a time, so that none is told to go twice */

static void retire_body(void *arg)
{
	nu_instance_retire(arg);
	retiring = false;
}

static void see_off(struct nu_proclet *p, unsigned round)
{
	bool mine = false;

	if (p->state == NU_PROCLET_ARRIVING && !p->arriving_busy) {
		tell("abort", p->id);
	} else if (p->state == NU_PROCLET_MOVED && !p->move_claimed) {
		tell("forget", p->id);
	} else if (p->hold_output) {
		tell("relinquish", p->id);
	} else if (!retiring && !p->move_claimed && p->head &&
		   (p->state == NU_PROCLET_PRESENT ||
		    (p->state == NU_PROCLET_DYING && p->calls_active && round > 100))) {
		nu_lock_acquire(&p->lock);
		nu_quick_close(p);
		mine = p->state == NU_PROCLET_PRESENT || p->calls_active;
		p->state = NU_PROCLET_DYING;
		p->calls_active += 1000; /* it does not end by itself as well */
		nu_lock_release(&p->lock);
	}
	if (mine) {
		retiring = true;
		FUZZ_CHECK(!nu_node_spawn(retire_body, p));
	}
}

/* The calls that threads here serve. Their callers are handed the core back without further questions. */
static struct {
	uint64_t thread, seq;
} served[SERVED_MAX];
static unsigned nserved;

static void note_served(struct nu_proclet *p, void *arg)
{
	struct nu_list *l;

	nu_lock_acquire(&p->lock);
	nu_list_for_each (l, &p->threads) {
		const struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if (!t->reply_proclet || nu_thread_is_spare(t))
			continue;
		FUZZ_CHECK(nserved < SERVED_MAX);
		served[nserved].thread = (uint64_t)t->reply_thread;
		served[nserved++].seq = t->reply_seq;
	}
	nu_lock_release(&p->lock);
}

static bool is_served(const struct nu_thread *t)
{
	for (unsigned i = 0; i < nserved; i++) {
		if (served[i].thread == (uint64_t)t && served[i].seq == t->wait_seq)
			return true;
	}
	return false;
}

/* Nobody will answer any more. */
static void fail_waits(struct nu_proclet *p, void *arg)
{
	struct nu_list *l;

	nu_lock_acquire(&p->lock);
	nu_list_for_each (l, &p->threads) {
		struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		if (p->frozen || !t->wait_seq || t->wait_done || is_served(t))
			continue;
		t->wait_status = -EHOSTDOWN;
		t->wait_done = 1;
		if (t->state == NU_THREAD_BLOCKED && (!t->call_deadline_ns || nu_wake_claim(t)))
			nu_thread_ready(t);
	}
	nu_lock_release(&p->lock);
}

static struct census last;

static void look(void *arg)
{
	unsigned *round = arg;

	nserved = 0;
	nu_proclet_for_each(note_served, NULL);
	nu_proclet_for_each(fail_waits, NULL);
	memset(&last, 0, sizeof(last));
	nu_proclet_for_each(count, &last);
	for (unsigned i = 0; i < last.strangers; i++)
		see_off(last.p[i], *round);
	atomic_fetch_add(&posted, 1);
}

struct controller {
	struct nu_mutex mutex;
	struct nu_ctrl ctrl;
};

/* A thread of the controller's: its books are in its heap. */
static void reset_body(void *arg)
{
	struct controller *c = arg;

	FUZZ_CHECK(!nu_ctrl_check(&c->ctrl));
	nu_ctrl_fini(&c->ctrl);
	FUZZ_CHECK(!nu_ctrl_init(&c->ctrl, 0));
	for (unsigned n = 0; n < nu_node.count; n++)
		FUZZ_CHECK(!nu_ctrl_node_join(&c->ctrl, n, 1, NU_GIB));
}

static void reset(void *arg)
{
	struct nu_proclet *p = nu_proclet_lookup(NU_ID_CTRL);

	thread_in(p, reset_body, p->root);
	atomic_fetch_add(&posted, 1);
}

static void repair(void *arg)
{
	make_residents();
	for (unsigned n = 0; n < nu_node.count; n++)
		memset(nu_peers[n].rx, 0, nu_peers[n].ncores * sizeof(*nu_peers[n].rx));
	nu_route_forget(RIG_REMOTE);
	atomic_fetch_add(&posted, 1);
}

static void describe(struct nu_proclet *p, void *arg)
{
	struct nu_list *l;

	fprintf(stderr, "proclet %#lx: state %u%s%s%s, %u threads, %u calls\n", (unsigned long)p->id,
		p->state, p->frozen ? ", frozen" : "", p->move_claimed ? ", claimed" : "",
		p->hold_output ? ", output held" : "", p->nthreads, p->calls_active);
	nu_list_for_each (l, &p->threads) {
		struct nu_thread *t = nu_list_entry(l, struct nu_thread, proclet_link);

		fprintf(stderr, "  thread %p: state %u, wait %u, serves %s, calls %s on %#lx at %u\n",
			(void *)t, t->state, t->wait, t->serve_method ? t->serve_method->name : "-",
			t->wait_seq ? t->wait_method->name : "-", (unsigned long)t->wait_target,
			t->wait_dest);
		fprintf(stderr, "    wait %u seq %#lx, done %u, running %u, wake %u, claimable %u, core %u\n",
			t->wait, (unsigned long)t->wait_seq, t->wait_done, (unsigned)t->running,
			(unsigned)t->wake, t->claimable, t->core);
	}
}

static void wait_quiet(void)
{
	for (unsigned round = 0;; round++) {
		on_core(look, &round);
		if (!last.threads && !last.strangers)
			break;
		if (round > ROUNDS_MAX) {
			nu_proclet_for_each(describe, NULL);
			FUZZ_CHECK(!(bool)"everything comes to its end");
		}
		if (round > 8)
			usleep(round < 100 ? 20 : 1000);
	}
}

void rig_settle(bool reset_controller)
{
	wait_quiet();
	if (reset_controller) {
		on_core(reset, NULL);
		wait_quiet();
	}
	on_core(repair, NULL);
}
