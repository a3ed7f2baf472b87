/* SPDX-License-Identifier: MIT */
/*
 * What peers may send to a node: batches of calls to its proclets and internal methods, answers to its waiting threads,
 * hints, stacks, moves towards it. Input: what each batch holds, in a form in which a byte can name what has no fixed
 * value: a proclet, a thread, a method, a class; see word(). Other bytes are as they are.
 */
#include "node_rig.h"

#define BATCH_BYTES 16384u
#define BATCHES_MAX 12

static struct {
	struct nu_batch h;
	char rest[BATCH_BYTES];
} __attribute__((aligned(16))) batch;
static size_t used; /* of rest */
static bool touches_controller;

static unsigned nmethods(void)
{
	return (unsigned)(__stop_nu_methods - __start_nu_methods);
}

static uint64_t id(uint8_t v)
{
	const uint64_t ids[] = {RIG_BOX,
				RIG_OTHER,
				RIG_MOVER,
				RIG_MAIN,
				NU_ID_CTRL,
				nu_id_of_node(0),
				nu_id_of_node(1),
				nu_id_of_node(200),
				RIG_REMOTE,
				RIG_BOX + 1,
				RIG_MOVER + 1,
				nu_id_make(2050, 0),
				nu_id_make(1 << 24, 5),
				nu_id_make(2070, 15),
				0,
				UINT64_MAX};

	return ids[v % (sizeof(ids) / sizeof(ids[0]))];
}

static const struct nu_method *find(const char *name, const struct nu_class *cls)
{
	return rig_method(cls, name);
}

static uint64_t method(uint8_t v)
{
	return (uint64_t)(__start_nu_methods + v % nmethods());
}

static struct nu_thread *thread(uint8_t v)
{
	switch (v / 4 % 8) {
	case 0:
		return rig_waiter[v % 4];
	case 1:
		return rig_stack(1, v % 4);
	case 2:
		return rig_stack(0, v % 4 * 5);
	case 3:
		return (struct nu_thread *)((char *)rig_stack(1, v % 4) + 64);
	case 4:
		return rig_stack(255, v % 4);
	case 5:
		return (struct nu_thread *)&batch;
	case 6:
		return (struct nu_thread *)((char *)rig_stack(2, v % 4) - 8192);
	default:
		return NULL;
	}
}

/* A word: a number, or the name of something. */
static uint64_t word(struct in *in)
{
	uint8_t kind = in_u8(in), v = in_u8(in);

	switch (kind % 12) {
	case 0 ... 2:
		return v;
	case 3:
		return id(v);
	case 4:
		return (uint64_t)thread(v);
	case 5:
		return method(v);
	case 6:
		return v & 1 ? (uint64_t)find("init", &box_class) : (uint64_t)find("init", &other_class);
	case 7:
		return (uint64_t)nu_seg_addr(2048) + ((uint64_t)v << 6);
	case 8:
		return rig_waiter[v % 4] ? rig_waiter[v % 4]->wait_seq : v;
	case 9:
		return (uint64_t)1 << v % 64;
	case 10:
		return -(uint64_t)v;
	default:
		return in_u64(in);
	}
}

static void *room(size_t len)
{
	void *at = batch.rest + used;

	if (used > sizeof(batch.rest) || len > sizeof(batch.rest) - used)
		return NULL;
	memset(at, 0, NU_ALIGN_UP(len, 8) <= sizeof(batch.rest) - used ? NU_ALIGN_UP(len, 8) : len);
	return at;
}

/* Arguments as a stub would pack them, of any values; or any bytes. Returns their length. */
static size_t arguments(struct in *in, const struct nu_method *m, char *to, size_t max)
{
	bool genuine = nu_image_is_method(m);
	size_t len = genuine ? NU_ALIGN_UP((size_t)m->args_bytes, 8) : 0;
	uint8_t how = in_u8(in);

	if (how > 250 || !genuine || len > max) {
		len = in_u8(in);
		if (len > max)
			len = max;
		in_take(in, to, len);
		return len;
	}
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = word(in);

		memcpy(to + i, &w, 8);
	}
	for (uint32_t i = 0; i < m->nfields; i++) {
		const struct nu_field *f = &m->fields[i];
		struct nu_bytes s = {NULL, in_u8(in) % 64};
		size_t bytes = s.len_bytes * f->item_bytes,
		       padded = NU_ALIGN_UP(bytes + (f->kind == NU_FIELD_STR), 8);

		if (f->kind != NU_FIELD_STR && f->kind != NU_FIELD_BYTES && f->kind != NU_FIELD_VEC)
			continue;
		if (how & 1 && padded <= max - len) {
			s.data = (void *)1;
			memset(to + len, 0, padded);
			for (size_t k = 0; how & 2 && k + 8 <= bytes; k += 8) {
				uint64_t w = word(in);

				memcpy(to + len + k, &w, 8);
			}
			if (!(how & 2))
				in_take(in, to + len, bytes);
			len += padded;
		} else {
			s.len_bytes = 0;
		}
		if (!(how & 64)) /* else a lie */
			memcpy(to + f->offset, &s, sizeof(s));
	}
	return m->nfields ? len : how & 4 ? len : m->args_bytes;
}

static struct nu_msg *message(enum nu_msg_type type)
{
	struct nu_msg *m;

	used = NU_ALIGN_UP(used, 8); /* behind raw bytes */
	m = room(sizeof(*m));
	if (!m)
		return NULL;
	*m = (struct nu_msg){.len_bytes = sizeof(*m), .type = type, .cls = NU_CLASS_CONTROL, .origin = 1};
	used += sizeof(*m);
	return m;
}

static void finish(struct nu_msg *m, size_t payload)
{
	m->len_bytes = (uint32_t)(sizeof(*m) + payload);
	used += NU_ALIGN_UP(payload, 8);
	if (used > sizeof(batch.rest))
		used = sizeof(batch.rest);
	touches_controller |= m->target == NU_ID_CTRL;
}

static void add_call(struct in *in)
{
	struct nu_msg *m = message(NU_MSG_CALL);
	uint8_t flags = in_u8(in);

	if (!m)
		return;
	m->method = flags & 1 ? word(in) : method(in_u8(in));
	m->target = flags & 2 ? word(in) : id(in_u8(in));
	if (!(flags & 4) && nu_image_is_method((void *)m->method)) { /* where it belongs */
		const struct nu_class *cls = ((const struct nu_method *)m->method)->cls;

		m->target = cls == &box_class		  ? RIG_BOX
			    : cls == &other_class	  ? RIG_OTHER
			    : cls == &nu_node_class	  ? nu_id_of_node(0)
			    : cls == &nu_controller_class ? NU_ID_CTRL
							  : m->target;
	}
	if (flags & 8) {
		m->caller = word(in);
		m->thread = word(in);
		m->seq = word(in);
		m->cls = flags & 16 ? NU_CLASS_CALL : in_u8(in);
		m->origin = in_u8(in);
		m->hops = in_u8(in);
	}
	finish(m, arguments(in, (const struct nu_method *)m->method, batch.rest + used,
			    sizeof(batch.rest) - used));
}

/* An answer to a waiter, right but for what the flags say. */
static void add_reply(struct in *in)
{
	uint8_t flags = in_u8(in), which = in_u8(in) % RIG_WAITERS;
	struct nu_msg *m = message(flags & 1 ? NU_MSG_REFUSED : NU_MSG_REPLY);
	struct nu_thread *t = rig_waiter[which];
	size_t len = (size_t[]){8, 20, 8, 0}[which];

	if (!m)
		return;
	m->target = RIG_BOX;
	m->thread = (uint64_t)t;
	m->seq = t ? t->wait_seq : 0;
	m->method = t ? (uint64_t)t->wait_method : 0;
	m->status = flags & 1 ? -EAGAIN : 0;
	m->flags = 1;
	m->node = flags & 1 ? word(in) : 0;
	if (flags & 2)
		m->target = word(in);
	if (flags & 4)
		m->thread = word(in);
	if (flags & 8)
		m->seq = word(in);
	if (flags & 16)
		m->method = word(in);
	if (flags & 32)
		m->status = (int32_t)word(in);
	if (flags & 64)
		len = in_u8(in);
	if (flags & 128)
		m->flags = in_u8(in);
	if (!room(len))
		len = 0;
	in_take(in, batch.rest + used, len);
	if (which == 2 && !(flags & 64) && len == 8)
		memcpy(batch.rest + used, &(uint64_t){RIG_REMOTE}, 8);
	finish(m, len);
}

static void add_other(struct in *in)
{
	struct nu_msg *m = message(in_u8(in) & 1 ? NU_MSG_HINT : NU_MSG_STACK);

	if (!m)
		return;
	m->target = word(in);
	m->caller = word(in);
	m->thread = word(in);
	m->seq = word(in);
	m->location = word(in);
	m->node = word(in);
	finish(m, 0);
}

/* A method of the node, packed as it should be. */
static struct nu_msg *node_call(const char *name)
{
	struct nu_msg *m = message(NU_MSG_CALL);

	if (m) {
		m->target = nu_id_of_node(0);
		m->method = (uint64_t)find(name, &nu_node_class);
	}
	return m;
}

#define OTHERWISE(bit, field)                                                                                \
	do {                                                                                                 \
		if (flags >> (bit)&1)                                                                        \
			(field) = word(in);                                                                  \
	} while (0)

static void add_prepare(struct in *in)
{
	struct nu_msg *m = node_call("prepare");
	uint16_t flags = in_u16(in);
	unsigned n = flags >> 12;
	size_t len = sizeof(struct nu_prepare_args) + n * 8;
	struct nu_prepare_args *a = m ? room(len) : NULL;

	if (!m || !a)
		return;
	*a = (struct nu_prepare_args){.id = RIG_MOVER,
				      .location = 2,
				      .from = 1,
				      .init = (uint64_t)find("init", &box_class),
				      .capacity_bytes = RIG_CAPACITY,
				      .used_bytes = rig_image_bytes(),
				      .threads = {(void *)1, n * 8}};
	OTHERWISE(0, a->id);
	OTHERWISE(1, a->location);
	OTHERWISE(2, a->from);
	OTHERWISE(3, a->init);
	OTHERWISE(4, a->capacity_bytes);
	OTHERWISE(5, a->used_bytes);
	OTHERWISE(6, a->threads.len_bytes);
	for (unsigned i = 0; i < n; i++) {
		uint64_t t = flags & 128 ? word(in) : (uint64_t)rig_stack(1, i % 4);

		memcpy((char *)(a + 1) + i * 8, &t, 8);
	}
	finish(m, len);
}

/* A row that holds the image, if it is not made otherwise. */
static void fill_offers(struct nu_offer_piece *o, size_t n, uint64_t bytes, struct in *in)
{
	uint64_t at = (uint64_t)nu_seg_addr(nu_id_seg(RIG_MOVER));
	uint8_t flags = n ? in_u8(in) : 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t len = i + 1 < n && bytes > 4096 ? 4096 : bytes;

		if (flags & 1 << i)
			len = word(in);
		o[i] = (struct nu_offer_piece){at, len, (uint32_t)i, 0};
		at += len;
		bytes -= len;
	}
}

static void add_handover(struct in *in)
{
	struct nu_msg *m = node_call("hand-over");
	uint16_t flags = in_u16(in);
	unsigned n = flags >> 12;
	uint8_t offers = flags & 512 ? in_u8(in) : 0; /* how many, how many bytes follow, and as what */
	size_t noffers = offers & 3, rest = offers & 4 ? in_u8(in) : n * 1600u * (offers != 0);
	size_t blob = sizeof(struct nu_handover) + n * sizeof(struct nu_handover_thread) +
		      noffers * sizeof(struct nu_offer_piece) + rest;
	size_t len = sizeof(struct nu_handover_args) + blob;
	struct nu_handover_args *a = m ? room(len) : NULL;
	struct nu_handover_thread *t;
	struct nu_handover *h;

	if (!m || !a)
		return;
	h = (void *)(a + 1);
	t = (void *)(h + 1);
	a->blob = (struct nu_bytes){(void *)1, blob};
	*h = (struct nu_handover){
		.id = RIG_MOVER, .location = 2, .from = 1, .used_bytes = rig_image_bytes(), .nthreads = n};
	OTHERWISE(0, h->id);
	OTHERWISE(1, h->location);
	OTHERWISE(2, h->from);
	OTHERWISE(3, h->used_bytes);
	OTHERWISE(4, h->source_now_ns);
	if (flags & 32)
		h->nthreads = (uint32_t)word(in);
	if (flags & 64)
		h->calls_active = (uint32_t)word(in);
	rig_by_offer = flags & 1024;
	if (offers) {
		h->noffers = offers & 8 ? (uint32_t)word(in) : (uint32_t)noffers;
		h->stacks = offers & 16 ? in_u8(in) : NU_STACKS_INLINE;
	}
	rig_damage = flags & 256 ? in_u8(in) % RIG_DAMAGES : 0;
	for (unsigned i = 0; i < n; i++) {
		struct nu_thread *where = rig_stack(1, i % 4);

		t[i] = (struct nu_handover_thread){(uint64_t)where, (uint64_t)where - 640,
						   sizeof(*where) + 640};
		if (flags & 128) {
			uint8_t f = in_u8(in);

			t[i].thread = f & 1 ? word(in) : t[i].thread;
			t[i].low = f & 2 ? word(in) : t[i].low;
			t[i].live_bytes = f & 4 ? word(in) : t[i].live_bytes;
		}
	}
	fill_offers((struct nu_offer_piece *)(t + n), noffers, h->used_bytes, in);
	finish(m, len);
}

static void add_raw(struct in *in)
{
	size_t len = in_u8(in);

	if (!room(len))
		return;
	in_take(in, batch.rest + used, len);
	used += len;
}

static void fill(struct in *in)
{
	for (unsigned n = 1 + in_u8(in) % 6; n && in->left; n--) {
		switch (in_u8(in) % 10) {
		case 0 ... 2:
			add_call(in);
			break;
		case 3:
		case 4:
			add_reply(in);
			break;
		case 5:
			add_other(in);
			break;
		case 6:
			add_prepare(in);
			break;
		case 7:
		case 8:
			add_handover(in);
			break;
		default:
			add_raw(in);
		}
	}
}

/* One batch in memory of its own size, so that bounds are noticed. */
static void send(struct in *in)
{
	uint8_t flags = in_u8(in);
	size_t len;
	char *copy;

	used = 0;
	fill(in);
	used = NU_ALIGN_UP(used, flags & 1 ? 1 : 8);
	len = sizeof(batch.h) + (used < sizeof(batch.rest) ? used : sizeof(batch.rest));
	batch.h = (struct nu_batch){.magic = NU_BATCH_MAGIC,
				    .len_bytes = (uint32_t)len,
				    .key = RIG_KEY,
				    .node = 1};
	if (flags & 2)
		batch.h.credits = in_u32(in);
	if (flags & 4)
		batch.h.node = in_u8(in);
	if ((flags & 0x30) == 0x10) { /* of a session */
		batch.h.seq = in_u8(in);
		batch.h.ack = in_u8(in);
		batch.h.flags = in_u8(in) & NU_BATCH_FLAGS;
		batch.h.core = in_u8(in);
		batch.h.ack_core = in_u8(in);
	}
	if ((flags & 0xf8) == 0xf8)
		in_take(in, &batch.h, in_u8(in) % sizeof(batch.h));
	if ((flags & 0xf8) == 0xe8)
		len = in_u8(in) % (len + 1);
	copy = malloc(len);
	memcpy(copy, &batch, len);
	rig_receive(copy, len);
	if (flags & 8)
		rig_pause();
	free(copy);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	rig_start("sm");
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct in in = {data, len};

	touches_controller = false;
	rig_damage = 0;
	memset(rig_waiter, 0, sizeof(rig_waiter));
	if (in_u8(&in) & 1)
		rig_waiters_start();
	for (unsigned i = 0; i < BATCHES_MAX && in.left; i++)
		send(&in);
	rig_settle(touches_controller);
	return 0;
}
