/* SPDX-License-Identifier: MIT */
/* nu_info: what its parts share. What is found goes to the output and, where it limits Nu, to a list of advice. */
#pragma once

#include "rdma/device.h"

#include <stdio.h>

/* ---- output: one tree, as indented text or as JSON: output.c ---- */

void info_output(FILE *f, bool json);
void info_open(const char *key); /* an object; key NULL in a list */
void info_close(void);
void info_open_list(const char *key);
void info_close_list(void);
void info_string(const char *key, const char *value);
void info_bool(const char *key, bool value);
/* In text, a key's unit at its end (_bytes) is taken from there to the number. UINT64_MAX is "unlimited", null in JSON. */
void info_number(const char *key, uint64_t value);
void info_format(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *info_size(uint64_t bytes, char buf[32]);

/* ---- advice: main.c ---- */

/* A warning, with the command that mends it (may be ""). What matters in some uses only is a note. */
void info_warn(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void info_note(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- what is looked at ---- */

struct info_findings {
	bool cma; /* process_vm_readv works between two processes like our nodes */
	char cma_why[160];
	bool rings; /* shared memory of our own, by memfd_create */
	char rings_why[160];
	bool shm, sysv; /* room for UCX's shared memory */
	char shm_why[160];
	bool fixed_layout; /* personality and ptrace: several hosts */
	char fixed_why[160];
	bool rdma_build;
	char rdma_why[320]; /* the chosen device, or why there is none */
	const struct nu_rdma_candidate *device;
	struct nu_rdma_devices devices;
	struct nu_rdma_choice choice;
	unsigned cpus;
	char ucx_shm[64], ucx_remote[256]; /* names of UCX's transports, for one host and between hosts */
};

/* The first line of a file without its end; "" if it cannot be read. */
const char *info_line(const char *path, char *buf, size_t len);
uint64_t info_file_number(const char *path, uint64_t otherwise);

void info_system(struct info_findings *f); /* system.c */
void info_limits(struct info_findings *f); /* limits.c */
void info_kernel(struct info_findings *f); /* kernel.c */
void info_devices(struct info_findings *f, const struct nu_rdma_options *o,
		  const char *address); /* devices.c */
void info_ucx(struct info_findings *f); /* ucx.c */
void info_choice(const struct info_findings *f);
