/* SPDX-License-Identifier: MIT */
/* What the wire takes from a peer, byte by byte: batches, addresses, keys. */
#include "wire_rig.h"

static uint64_t bytes_seen, messages_seen;

static void on_fuzzed(const struct nu_msg *m, const void *payload, size_t len, unsigned from)
{
	CHECK(from < nu_node.count && m->origin < nu_node.count && m->len_bytes == sizeof(*m) + len);
	for (size_t i = 0; i < len; i++) /* the sanitizer looks at each */
		bytes_seen += ((const unsigned char *)payload)[i];
	messages_seen++;
}

static size_t make_batch(unsigned char *to, unsigned *seed)
{
	struct nu_batch *h = (struct nu_batch *)to;
	size_t at = sizeof(*h);
	unsigned n = 1 + (unsigned)rand_r(seed) % 6;

	for (unsigned i = 0; i < n; i++) {
		struct nu_msg *m = (struct nu_msg *)(to + at);
		size_t len = (unsigned)rand_r(seed) % 200;

		memset(m, 0, sizeof(*m));
		m->len_bytes = (uint32_t)(sizeof(*m) + len);
		m->type = (uint8_t)(1 + rand_r(seed) % (NU_MSG_TYPES - 1));
		m->origin = (unsigned)rand_r(seed) % 3;
		memset(m + 1, 'x', NU_ALIGN_UP(len, 8));
		at += sizeof(*m) + NU_ALIGN_UP(len, 8);
	}
	*h = (struct nu_batch){.magic = NU_BATCH_MAGIC, .len_bytes = (uint32_t)at, .node = 1};
	return at;
}

static void mutate(unsigned char *data, size_t *len_p, unsigned *seed)
{
	static const uint32_t nasty[] = {0, 1, 7, 63, 64, 65, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
	unsigned n = 1 + (unsigned)rand_r(seed) % 4;

	for (unsigned i = 0; i < n && *len_p; i++) {
		size_t at = (unsigned)rand_r(seed) % *len_p;

		switch (rand_r(seed) % 4) {
		case 0:
			data[at] ^= (unsigned char)(1 << rand_r(seed) % 8);
			break;
		case 1:
			data[at] = (unsigned char)rand_r(seed);
			break;
		case 2:
			at &= ~(size_t)3;
			if (at + 4 <= *len_p)
				memcpy(data + at, &nasty[(unsigned)rand_r(seed) % 10], 4);
			break;
		case 3:
			*len_p = at;
			break;
		}
	}
	/* Often the outer length is right again, so that what is inside is looked at. */
	if (*len_p >= sizeof(struct nu_batch) && rand_r(seed) % 4)
		((struct nu_batch *)data)->len_bytes = (uint32_t)*len_p;
}

static void fuzz_start(void)
{
	node_init(0, 3, 1);
	nu_log_level = NU_LOG_ERROR;
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = "shm"}));
	for (unsigned t = 1; t < NU_MSG_TYPES; t++)
		nu_wire_set_handler(t, on_fuzzed);
}

/* Memory of exactly this size: a read beyond it is seen by the sanitizer. */
static int receive_exact(const unsigned char *data, size_t len)
{
	unsigned char *exact = malloc(len ? len : 1);
	int rc;

	memcpy(exact, data, len);
	rc = nu_wire_receive(0, exact, len, false);
	free(exact);
	return rc;
}

Test(bytes, malformed_batches)
{
	static _Alignas(16) unsigned char good[8192], data[8192];
	unsigned seed = 20260, refused = 0, taken = 0;

	fuzz_start();
	for (unsigned i = 0; i < 300000; i++) {
		size_t len = make_batch(good, &seed);
		uint64_t before = nu_stat_sum(NU_STAT_BAD_MESSAGES);
		int rc;

		memcpy(data, good, len);
		mutate(data, &len, &seed);
		rc = receive_exact(data, len);
		cr_assert(rc >= 0 || rc == -EBADMSG);
		if (rc < 0) {
			refused++;
			cr_assert_gt(nu_stat_sum(NU_STAT_BAD_MESSAGES), before);
		} else {
			taken++;
		}
	}
	cr_expect_gt(refused, 100000);
	cr_expect_gt(taken, 1000);
	cr_expect_gt(messages_seen, 1000);
	nu_wire_fini();
}

/* Every possible truncation of a good batch is refused, and the good ones before and after are not. */
Test(bytes, truncated_batches)
{
	static _Alignas(16) unsigned char good[8192];
	unsigned seed = 1;

	fuzz_start();
	for (unsigned i = 0; i < 200; i++) {
		size_t len = make_batch(good, &seed);

		cr_assert_gt(receive_exact(good, len), 0);
		for (size_t cut = 0; cut < len; cut++)
			cr_assert_eq(receive_exact(good, cut), -EBADMSG);
	}
	nu_wire_fini();
}

Test(bytes, malformed_fields)
{
	static _Alignas(16) unsigned char good[8192];
	struct nu_batch *h = (struct nu_batch *)good;
	struct nu_msg *m = (struct nu_msg *)(h + 1);
	unsigned seed = 1;
	size_t len;

	fuzz_start();
	len = make_batch(good, &seed);
#define REFUSED(change)                                                                                      \
	do {                                                                                                 \
		memset(good, 0, sizeof(good));                                                               \
		len = make_batch(good, &seed);                                                               \
		change;                                                                                      \
		cr_expect_eq(receive_exact(good, len), -EBADMSG, "%s", #change);                             \
	} while (0)
	REFUSED(h->magic++);
	REFUSED(h->key++);
	REFUSED(h->len_bytes += 8);
	REFUSED(h->node = 0); /* ourselves */
	REFUSED(h->node = 3);
	REFUSED(h->core = NU_MAX_CORES);
	REFUSED(h->flags = NU_BATCH_FLAGS + 1);
	REFUSED((h->seq = 1)); /* of a core that nobody has told of */
	REFUSED(h->spare = 1);
	REFUSED(m->type = 0);
	REFUSED(m->type = NU_MSG_TYPES);
	REFUSED(m->cls = NU_CLASS_CONTROL + 1);
	REFUSED((m->type = NU_MSG_CALL, m->hops = NU_MAX_HOPS + 1));
	REFUSED(m->origin = 3);
	REFUSED(m->len_bytes = 95);
	REFUSED(m->len_bytes = 0);
	REFUSED(m->len_bytes = UINT32_MAX);
	len = make_batch(good, &seed);
	m->type = NU_MSG_REPLY; /* an answer follows its caller as far as it goes */
	m->hops = NU_MAX_HOPS + 1;
	cr_expect_gt(receive_exact(good, len), 0);
	/* Credits that nobody had taken are counted, and give nobody more than the window. */
	len = make_batch(good, &seed);
	h->credits = 5;
	cr_expect_gt(receive_exact(good, len), 0);
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 18);
	nu_wire_fini();
}

Test(bytes, malformed_addresses)
{
	void *blob;
	size_t len;

	node_init(0, 3, 2);
	cr_assert(dup2(open("/dev/null", O_WRONLY), 2) == 2); /* hundreds of refusals are asked for */
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = "shm"}));
	cr_assert(!nu_wire_address(&blob, &len));
	for (size_t cut = 0; cut < len; cut++) {
		unsigned char *exact = malloc(cut ? cut : 1);

		memcpy(exact, blob, cut);
		cr_assert_eq(nu_wire_set_peer(1, exact, cut), -EBADMSG, "cut to %zu", cut);
		free(exact);
	}
	cr_expect_eq(nu_wire_set_peer(3, blob, len), -EINVAL);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), 0);
	cr_expect_eq(nu_wire_set_peer(1, blob, len), -EEXIST);
	free(blob);
	nu_wire_fini();
}

/* ---- the job's key ---- */

Test(bytes, siphash_known_answers)
{
	uint8_t key[16], text[15];

	for (unsigned i = 0; i < 16; i++)
		key[i] = (uint8_t)i;
	memcpy(text, key, sizeof(text));
	cr_expect_eq(nu_siphash(key, text, 15), 0xa129ca6149be45e5);
	cr_expect_eq(nu_siphash(key, text, 0), 0x726fdb47dd0e0e31);
	cr_expect_eq(nu_siphash(key, text, 8), 0x93f5f5799a932462);
}

Test(bytes, key_depends_on_all_of_the_secret)
{
	uint8_t secret[32] = {0};
	uint64_t key = nu_key_derive(secret, "batches");

	cr_expect_neq(nu_key_derive(secret, "other"), key);
	for (unsigned bit = 0; bit < 256; bit++) {
		secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_expect_neq(nu_key_derive(secret, "batches"), key);
		secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

/* Each bit of the key counts, nothing of a stranger's batch is taken, and it is said once. */
Test(bytes, batches_of_strangers)
{
	static _Alignas(16) unsigned char good[8192];
	struct nu_batch *h = (struct nu_batch *)good;
	unsigned seed = 1, lines = 0;
	int fds[2];
	char text[4096];
	size_t len;
	ssize_t got;

	node_init(0, 3, 1);
	cr_assert(!nu_wire_init(&(struct nu_wire_options){.transport = "shm", .key = 0x1122334455667788}));
	for (unsigned t = 1; t < NU_MSG_TYPES; t++)
		nu_wire_set_handler(t, on_fuzzed);
	len = make_batch(good, &seed);
	h->key = 0x1122334455667788;
	cr_expect_gt(receive_exact(good, len), 0);
	cr_assert(!pipe(fds) && dup2(fds[1], 2) == 2);
	messages_seen = 0;
	h->flags = NU_BATCH_BYE;
	h->credits = 1;
	for (unsigned bit = 0; bit < 64; bit++) {
		h->key ^= 1ull << bit;
		cr_expect_eq(receive_exact(good, len), -EBADMSG);
		h->key ^= 1ull << bit;
	}
	cr_expect_eq(nu_stat_sum(NU_STAT_BAD_MESSAGES), 64);
	cr_expect_eq(messages_seen, 0);
	got = read(fds[0], text, sizeof(text) - 1);
	cr_assert_gt(got, 0);
	text[got] = 0;
	for (char *at = text; (at = strchr(at, '\n')); at++)
		lines++;
	cr_expect_eq(lines, 1, "%s", text);
	cr_expect(strstr(text, "stranger"));
	cr_expect(!strstr(text, "1122334455667788"));
	nu_wire_fini();
}
