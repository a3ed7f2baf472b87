/* SPDX-License-Identifier: MIT */
/*
 * A chained hash map whose number of buckets follows the number of entries.
 */
#include "htmap.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HTMAP_BUCKETS_MIN 16

static uint64_t htmap_mix(uint64_t a, uint64_t b)
{
	unsigned __int128 p = (unsigned __int128)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t htmap_hash(const void *key, size_t len)
{
	const unsigned char *p = key;
	uint64_t h = 0x9e3779b97f4a7c15ull ^ len, word;
	size_t left = len;

	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&word, p, 8);
		h = htmap_mix(h ^ word, 0xd6e8feb86659fd93ull);
	}
	word = 0;
	if (left)
		memcpy(&word, p, left);
	h = htmap_mix(h ^ word, 0xa0761d6478bd642full);
	/* A product can lose what lies in few bits; the last steps spread them over the word again. */
	h ^= h >> 32;
	h *= 0xe7037ed1a0b428dbull;
	return h ^ h >> 29;
}

void htmap_fini(struct htmap *m)
{
	struct htmap_entry *e, *next;

	for (size_t i = 0; i < m->nbuckets; i++) {
		for (e = m->buckets[i]; e; e = next) {
			next = e->next;
			free(e);
		}
	}
	free(m->buckets);
	memset(m, 0, sizeof(*m));
}

/* The pointer that points to the entry, or the NULL at its chain's end. */
static struct htmap_entry **htmap_link(const struct htmap *m, uint64_t hash, const void *key, size_t key_len)
{
	struct htmap_entry **link = &m->buckets[hash & (m->nbuckets - 1)];

	for (; *link; link = &(*link)->next) {
		const struct htmap_entry *e = *link;

		if (e->hash == hash && e->key_len == key_len && (!key_len || !memcmp(e->bytes, key, key_len)))
			break;
	}
	return link;
}

struct htmap_entry *htmap_find(const struct htmap *m, uint64_t hash, const void *key, size_t key_len)
{
	return m->nbuckets ? *htmap_link(m, hash, key, key_len) : NULL;
}

static int htmap_rehash(struct htmap *m, size_t nbuckets)
{
	struct htmap_entry **buckets = calloc(nbuckets, sizeof(*buckets)), *e, *next;

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < m->nbuckets; i++) {
		for (e = m->buckets[i]; e; e = next) {
			struct htmap_entry **head = &buckets[e->hash & (nbuckets - 1)];

			next = e->next;
			e->next = *head;
			*head = e;
		}
	}
	free(m->buckets);
	m->buckets = buckets;
	m->nbuckets = nbuckets;
	return 0;
}

/* A block for an entry; values get some room to grow, so that a counter that gains a digit stays in place. */
static struct htmap_entry *htmap_entry_alloc(size_t key_len, size_t value_len)
{
	size_t room = (value_len + value_len / 8 + 15) & ~(size_t)15;
	struct htmap_entry *e = malloc(sizeof(*e) + key_len + room);

	if (e)
		e->value_room = room;
	return e;
}

int htmap_resize(struct htmap *m, uint64_t hash, const void *key, size_t key_len, size_t value_len,
		 struct htmap_entry **e_p)
{
	struct htmap_entry **link, *e, *old;

	if (key_len > UINT32_MAX)
		return -EMSGSIZE;
	/* A bigger table is only faster: without memory for it the old one serves, unless there is none. */
	if (m->count >= m->nbuckets && htmap_rehash(m, m->nbuckets ? m->nbuckets * 2 : HTMAP_BUCKETS_MIN) &&
	    !m->nbuckets)
		return -ENOMEM;
	link = htmap_link(m, hash, key, key_len);
	old = *link;
	/* Keep the block unless most of it would lie idle. */
	if (old && value_len <= old->value_room && old->value_room <= 4 * value_len + 64) {
		old->value_len = value_len;
		*e_p = old;
		return 0;
	}
	e = htmap_entry_alloc(key_len, value_len);
	if (!e)
		return -ENOMEM;
	e->next = old ? old->next : NULL;
	e->hash = hash;
	e->key_len = (uint32_t)key_len;
	e->value_len = value_len;
	if (key_len)
		memcpy(e->bytes, key, key_len);
	if (old)
		memcpy(htmap_value(e), htmap_value(old),
		       old->value_len < value_len ? old->value_len : value_len);
	else
		m->count++;
	*link = e;
	free(old);
	*e_p = e;
	return 0;
}

int htmap_remove(struct htmap *m, uint64_t hash, const void *key, size_t key_len)
{
	struct htmap_entry **link, *e;

	if (!m->nbuckets)
		return -ENOENT;
	link = htmap_link(m, hash, key, key_len);
	e = *link;
	if (!e)
		return -ENOENT;
	*link = e->next;
	free(e);
	m->count--;
	if (m->nbuckets > HTMAP_BUCKETS_MIN && m->count < m->nbuckets / 4)
		(void)htmap_rehash(m, m->nbuckets / 2); /* no memory: it stays as large as it is */
	return 0;
}

struct htmap_entry *htmap_next(const struct htmap *m, const struct htmap_entry *e)
{
	size_t i = 0;

	if (e) {
		if (e->next)
			return e->next;
		i = (e->hash & (m->nbuckets - 1)) + 1;
	}
	for (; i < m->nbuckets; i++) {
		if (m->buckets[i])
			return m->buckets[i];
	}
	return NULL;
}
