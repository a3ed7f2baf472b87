/* SPDX-License-Identifier: MIT */
/*
 * Which hosts a job has, and what each gets: --hosts, --hostfile, Slurm's variables.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct host_spec {
	char *name;
	unsigned slots; /* 0: one */
	unsigned cores; /* of each node; 0: the processors there, divided by its nodes */
	size_t mem_bytes;
	char *interface; /* name, or address/length; NULL: hosts.interface */
	unsigned first, nodes;
};

struct hosts {
	struct host_spec *list;
	unsigned count;
	const char *file;	/* --hostfile; "" if it was --hosts or Slurm */
	const char *rsh;	/* command, with arguments; NULL: start_command() */
	const char *agent_path; /* nu_launch there; NULL: where ours is */
	const char *interface;
	const char *wdir;
	bool slurm, copy;
	double silence_s;
	char **env; /* NAME=VALUE, NULL at the end */
	unsigned nenv;
};

struct options;

/* A host that is named twice has the slots of both. */
struct host_spec *hosts_add(struct hosts *h, const char *name, size_t len, unsigned slots);
/* "a,b:4,c". Errors say what, and return false. */
bool hosts_parse(struct hosts *h, const char *text);
bool hosts_read(struct hosts *h, const char *path);
/* Slurm's allocation, if there is one of more than this machine: true, with the list filled in. */
bool hosts_from_slurm(struct hosts *h);
/* "n[01-03,7],m2": malloc'ed names, how many; -1: it makes no sense. slurm.c */
int slurm_names(const char *text, char ***names_p);
/* "2(x3),1": as many numbers as there are hosts. */
bool slurm_counts(const char *text, unsigned *counts, unsigned n);
/* Deals *@nodes_p nodes (0: as many as there are slots) over the slots, and drops hosts that get none. */
bool hosts_deal(struct hosts *h, unsigned *nodes_p);
/* Enters NAME=VALUE, or NAME as it is here. */
bool hosts_export(struct hosts *h, const char *text);
/* What goes to every host: ours, UCX's and the dynamic linker's variables. */
void hosts_export_defaults(struct hosts *h);

unsigned launch_processors(void);
