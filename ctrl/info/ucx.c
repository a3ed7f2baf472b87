/* SPDX-License-Identifier: MIT */
/*
 * UCX's transports on this machine. UCX is asked in a process of its own: it ends the process when something about a
 * device surprises it.
 */
#include "info.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <uct/api/uct.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

static const char *const types[] = {[UCT_DEVICE_TYPE_NET] = "network",
				    [UCT_DEVICE_TYPE_SHM] = "shared memory",
				    [UCT_DEVICE_TYPE_ACC] = "accelerator",
				    [UCT_DEVICE_TYPE_SELF] = "own process"};

/* ---- the process that asks ---- */

static void ask_md(FILE *to, uct_component_h component, const char *md_name)
{
	uct_tl_resource_desc_t *resources;
	uct_md_config_t *config;
	unsigned n;
	uct_md_h md;

	if (uct_md_config_read(component, NULL, NULL, &config) != UCS_OK)
		return;
	if (uct_md_open(component, md_name, config, &md) == UCS_OK) {
		if (uct_md_query_tl_resources(md, &resources, &n) == UCS_OK) {
			for (unsigned i = 0; i < n; i++)
				fprintf(to, "%s\t%s\t%u\n", resources[i].tl_name, resources[i].dev_name,
					(unsigned)resources[i].dev_type);
			uct_release_tl_resource_list(resources);
		}
		uct_md_close(md);
	}
	uct_config_release(config);
}

static void ask_component(FILE *to, uct_component_h component)
{
	uct_component_attr_t a = {.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT};

	if (uct_component_query(component, &a) != UCS_OK || !a.md_resource_count)
		return;
	a.md_resources = calloc(a.md_resource_count, sizeof(*a.md_resources));
	a.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
	if (a.md_resources && uct_component_query(component, &a) == UCS_OK) {
		for (unsigned i = 0; i < a.md_resource_count; i++)
			ask_md(to, component, a.md_resources[i].md_name);
	}
	free(a.md_resources);
}

static void ask(int fd)
{
	FILE *to = fdopen(fd, "w");
	uct_component_h *components;
	unsigned n;

	if (!to || uct_query_components(&components, &n) != UCS_OK)
		_exit(1);
	for (unsigned i = 0; i < n; i++)
		ask_component(to, components[i]);
	fprintf(to, "end\n");
	_exit(fclose(to) ? 1 : 0);
}

/* ---- what it says ---- */

static void append_name(char *to, size_t len, const char *name)
{
	size_t at = strlen(to);

	for (const char *s = to; (s = strstr(s, name)); s++) {
		char before = s == to ? ' ' : s[-1], after = s[strlen(name)];

		if (before == ' ' && (after == ' ' || !after))
			return;
	}
	snprintf(to + at, len - at, "%s%s", at ? " " : "", name);
}

static bool read_transports(FILE *from, struct info_findings *f)
{
	char line[256], tl[64], device[64];
	unsigned type;

	while (fgets(line, sizeof(line), from)) {
		if (!strcmp(line, "end\n"))
			return true;
		if (sscanf(line, "%63[^\t]\t%63[^\t]\t%u", tl, device, &type) != 3)
			continue;
		info_open(NULL);
		info_string("transport", tl);
		info_string("device", device);
		info_string("type",
			    type < sizeof(types) / sizeof(types[0]) && types[type] ? types[type] : "other");
		info_close();
		if (type == UCT_DEVICE_TYPE_SHM)
			append_name(f->ucx_shm, sizeof(f->ucx_shm), tl);
		else if (type == UCT_DEVICE_TYPE_NET && strcmp(device, "lo") != 0)
			append_name(f->ucx_remote, sizeof(f->ucx_remote), tl);
	}
	return false;
}

static void transports(struct info_findings *f)
{
	int pipes[2], status = 0;
	bool whole = false;
	FILE *from;
	pid_t pid;

	if (pipe(pipes))
		return;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(pipes[0]);
		ask(pipes[1]);
	}
	close(pipes[1]);
	from = fdopen(pipes[0], "r");
	info_open_list("transports");
	if (pid > 0 && from)
		whole = read_transports(from, f);
	info_close_list();
	if (from)
		fclose(from);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (!whole && WIFSIGNALED(status))
		info_warn("", "UCX died of signal %d when it was asked for its transports", WTERMSIG(status));
	else if (!whole)
		info_warn("", "UCX could not be asked for its transports");
	if (whole && !f->ucx_shm[0])
		info_warn("", "UCX has no shared memory transport: nodes of one host talk by TCP");
}

void info_ucx(struct info_findings *f)
{
	info_open("ucx");
	info_string("version", ucp_get_version_string());
	info_format("built_with", "%u.%u", (unsigned)UCP_API_MAJOR, (unsigned)UCP_API_MINOR);
	info_string("UCX_TLS", getenv("UCX_TLS") ?: "");
	info_string("UCX_NET_DEVICES", getenv("UCX_NET_DEVICES") ?: "");
	transports(f);
	info_close();
}
