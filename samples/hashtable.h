/* SPDX-License-Identifier: MIT */
/*
 * A hash table spread over the job: its keys are split over shards, and each shard is a proclet that can be moved on
 * its own. Keys and values are any bytes. Every function goes straight to the key's shard, wherever that is now.
 *
 * A `struct ht` is a handle: it lies in one proclet's memory, holds that proclet's references to the shards, and may be
 * used by all threads of that proclet at once. To let another proclet use the table, pass it ht_handle() as a bytes()
 * argument and have it call ht_attach(): it then holds references of its own, and the table lives until the last
 * proclet that holds some has called ht_release().
 *
 * One operation on one key is atomic, and seen by every operation that starts after it has returned. Unless said
 * otherwise functions run in a proclet's thread, may switch threads, and return besides their own errors what a call
 * may: -EHOSTDOWN the shard's node died, -ESTALE the table was destroyed, -ETIMEDOUT the thread's deadline has passed
 * (nobody knows whether it ran), -ENOMEM, -EMSGSIZE. A value with its key must fit into one message (16 MiB).
 */
#pragma once

#include <nu/nu.h>

struct ht {
	unsigned shards;
	struct nu_ref *words; /* what ht_handle() shows: a mark, then refs */
	struct nu_ref *refs;  /* one a shard, counted */
};

/* Zero is the default everywhere. */
struct ht_options {
	size_t shard_capacity_bytes; /* most that a shard's heap may hold; 0: 1 GiB, less with very many shards */
	bool pinned;		     /* shards never move */
};

/*
 * Makes an empty table of @shards proclets, dealt out in turn to the nodes that are up. @options may be NULL.
 * Errors: -EINVAL no shards, or more than 1 Mi.
 */
int __must_check ht_create(struct ht *t, unsigned shards, const struct ht_options *options);
/* Gives the references back and empties the handle; a second time does nothing. */
void ht_release(struct ht *t);
/* The table as bytes that can be passed on. They are borrowed from @t. */
struct nu_bytes ht_handle(const struct ht *t);
/* Makes a handle of the bytes that ht_handle() gave in another proclet. Errors: -EINVAL no such bytes. */
int __must_check ht_attach(struct ht *t, struct nu_bytes handle);

/* The key's value, in memory that the caller frees (never NULL, also when it is empty). Errors: -ENOENT. */
int __must_check ht_get(const struct ht *t, struct nu_bytes key, struct nu_bytes *value_p);
/* Sets the key's value, adding the key if it is new. Errors: -ENOMEM the shard is full: nothing has changed. */
int __must_check ht_put(const struct ht *t, struct nu_bytes key, struct nu_bytes value);
/* Errors: -ENOENT. */
int __must_check ht_remove(const struct ht *t, struct nu_bytes key);
/* How many keys there are: the sum over shards that are asked one after the other. */
int __must_check ht_size(const struct ht *t, uint64_t *size_p);

/* ---- functions shipped to the data ---- */

/* A key as a shipped function sees it. */
struct ht_value {
	struct nu_bytes key;
	void *data; /* NULL: there is no such key (yet) */
	size_t len_bytes;
};
/*
 * Makes the value @len_bytes long, adding the key if there is none: what fits of the old value stays, what is new is
 * undefined. Return: 0, or -ENOMEM (nothing is changed). v->data has moved. Only in a function that ht_apply() runs.
 */
int __must_check ht_value_resize(struct ht_value *v, size_t len_bytes);
/* Removes the key, if there is one. Only in a function that ht_apply() runs. */
void ht_value_remove(struct ht_value *v);

/* A function of the program, so that it is the same on every node. nu_out_bytes(@out, ...) gives its result. */
typedef void (*ht_apply_fn)(struct ht_value *v, struct nu_bytes arg, struct nu_out *out);
/*
 * Runs @fn beside the key's value, with the shard locked: atomic towards everything else. It may read and write what
 * *v points to, and must not use the table. *result_p (may be NULL) gets what it gave, to be freed; data NULL: nothing.
 */
int __must_check ht_apply(const struct ht *t, struct nu_bytes key, ht_apply_fn fn, struct nu_bytes arg,
			  struct nu_bytes *result_p);

struct ht_found;
/* Adds bytes to what a shard sends back. Only in a function that ht_for_each() runs. Return: 0 or -ENOMEM. */
int ht_found_add(struct ht_found *found, const void *data, size_t len_bytes);
/* Runs at the shard for each of its keys, which it must not change. Return: 0, or a negative errno that ends it. */
typedef int (*ht_each_fn)(const struct ht_value *v, struct nu_bytes arg, struct ht_found *found);
/* Runs in the caller, once a shard, with all that was added there. Return: 0, or a negative errno that ends it. */
typedef int (*ht_found_fn)(struct nu_bytes found, void *context);
/*
 * Ships @fn to every shard and runs it there for each key: a scan that moves only what it finds. One shard is seen at
 * one instant, the table as a whole is not. @take may be NULL. Errors: what @fn or @take returned.
 */
int __must_check ht_for_each(const struct ht *t, ht_each_fn fn, struct nu_bytes arg, ht_found_fn take,
			     void *context);

/* ---- many at once: few large calls, several of them under way ---- */

struct ht_loader;
/* Collects puts by shard and sends them in calls of up to about 64 KiB. One thread uses it. */
int __must_check ht_loader_create(struct ht_loader **l_p, const struct ht *t);
/* Takes a copy of key and value. An error may be that of an earlier put. */
int __must_check ht_loader_put(struct ht_loader *l, struct nu_bytes key, struct nu_bytes value);
/* Sends what is left, waits for all, frees @l. Return: 0 if every put was done, else the first error. */
int __must_check ht_loader_finish(struct ht_loader *l);

/* One of many gets. The value is borrowed for the call; data NULL: no such key. Return: as ht_found_fn. */
typedef int (*ht_got_fn)(size_t index, struct nu_bytes value, void *context);
/* Gets @count keys, in no particular order, and gives each to @take with its index. */
int __must_check ht_get_many(const struct ht *t, const struct nu_bytes *keys, size_t count, ht_got_fn take,
			     void *context);
