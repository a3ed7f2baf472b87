/* SPDX-License-Identifier: MIT */
/*
 * Who connects: the private data of rdmacm's messages. It is authenticated with the job's key over what the two nodes'
 * cards said before, so that neither strangers nor other jobs get a queue pair, and nothing that was overheard of an
 * earlier start or attempt is good for another. Everything in it is a stranger's word until it has been checked.
 */
#include "rdma/verbs_int.h"

#include <stddef.h>
#include <string.h>

#define MAGIC	0x6c72756eu
#define VERSION 1

static const char *const check_names[NU_HELLO_CHECKS] = {
	[NU_HELLO_OK] = "nothing",
	[NU_HELLO_SHORT] = "the length (not one of our messages)",
	[NU_HELLO_MAGIC] = "the magic number (not one of our messages)",
	[NU_HELLO_VERSION] = "the version (another version of libnu)",
	[NU_HELLO_JOB] = "the job's number (another job)",
	[NU_HELLO_NODE] = "the nodes' numbers",
	[NU_HELLO_LANE] = "the queue pair's number",
	[NU_HELLO_KEY] = "the authenticator (another secret)",
	[NU_HELLO_ADDRESS] = "the address (not that of the node's card)",
	[NU_HELLO_ATTEMPT] = "the attempt's number (repeated, or overtaken)",
	[NU_HELLO_FAULT] = "a fault that was asked for",
	[NU_HELLO_NO_QP] = "nothing, but it has no queue pair left",
};

const char *nu_hello_check_name(uint32_t check)
{
	return check < NU_HELLO_CHECKS ? check_names[check] : "something that this version does not know";
}

static uint64_t nonce_of(unsigned node)
{
	struct nu_verbs_peer *p = nu_verbs_peer(node);

	return node == nu_node.self ? nu_verbs.nonce : p && p->known ? p->nonce : 0;
}

/* What all nodes with a device agree on, and no other job: what the first of them drew. */
static uint64_t job_number(void)
{
	uint64_t nonce = 0;

	for (unsigned n = 0; n < nu_node.count && !nonce; n++)
		nonce = nonce_of(n);
	return nonce;
}

static uint64_t authenticator(const struct nu_hello *h)
{
	struct {
		struct nu_hello h;
		uint64_t nonces[2];
	} all = {*h, {nonce_of(h->from), nonce_of(h->to)}};

	all.h.authenticator = 0;
	return nu_siphash(nu_verbs.key, &all, sizeof(all));
}

void nu_hello_fill(struct nu_hello *h, enum nu_hello_kind kind, const struct nu_lane *l,
		   enum nu_hello_check check)
{
	*h = (struct nu_hello){
		.magic = MAGIC,
		.version = VERSION,
		.kind = (uint8_t)kind,
		.lane = l ? l->index : 0,
		.job = job_number(),
		.from = nu_node.self,
		.to = l ? l->node : nu_node.self,
		.attempt = l ? l->attempt : 0,
		.check = check,
	};
	h->authenticator = authenticator(h);
}

/* rdmacm pads what it brings. */
static enum nu_hello_check check_form(const void *data, size_t len, enum nu_hello_kind kind,
				      struct nu_hello *h)
{
	if (!data || len < sizeof(*h))
		return NU_HELLO_SHORT;
	memcpy(h, data, sizeof(*h));
	if (h->magic != MAGIC || h->kind != kind)
		return NU_HELLO_MAGIC;
	return h->version == VERSION ? NU_HELLO_OK : NU_HELLO_VERSION;
}

enum nu_hello_check nu_hello_check_request(const void *data, size_t len, struct nu_hello *h_p)
{
	enum nu_hello_check check = check_form(data, len, NU_HELLO_CONNECT, h_p);

	if (check)
		return check;
	if (h_p->job != job_number())
		return NU_HELLO_JOB;
	if (h_p->from >= nu_node.count || h_p->from == nu_node.self || h_p->to != nu_node.self ||
	    !nonce_of(h_p->from))
		return NU_HELLO_NODE;
	if (h_p->lane >= NU_LANES_MAX)
		return NU_HELLO_LANE;
	return h_p->authenticator == authenticator(h_p) ? NU_HELLO_OK : NU_HELLO_KEY;
}

enum nu_hello_check nu_hello_check_answer(const void *data, size_t len, enum nu_hello_kind kind,
					  const struct nu_lane *l, struct nu_hello *h_p)
{
	enum nu_hello_check check = check_form(data, len, kind, h_p);

	/* A refusal is only for the log, and whoever refuses may not know us. */
	if (check || kind == NU_HELLO_REJECT)
		return check;
	if (h_p->job != job_number())
		return NU_HELLO_JOB;
	if (h_p->from != l->node || h_p->to != nu_node.self)
		return NU_HELLO_NODE;
	if (h_p->lane != l->index)
		return NU_HELLO_LANE;
	if (h_p->attempt != l->attempt)
		return NU_HELLO_ATTEMPT;
	return h_p->authenticator == authenticator(h_p) ? NU_HELLO_OK : NU_HELLO_KEY;
}
