/* SPDX-License-Identifier: MIT */
/*
 * One client thread.
 */
#pragma once

#include "kvstore_client.h"

/* Errors: -ENOMEM. w->thread is to be joined after client->stop was set. */
int kv_worker_start(struct kv_worker *w, struct kv_client *client, uint32_t number);
