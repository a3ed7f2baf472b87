/* SPDX-License-Identifier: MIT */
/* nu_info: what Nu finds on this machine, what it would use and why, and what stands in its way. */
#include "info.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADVICE_MAX 64

static struct advice {
	char text[512], command[128];
	bool is_note;
} advice[ADVICE_MAX];
static unsigned nadvice;

struct options {
	bool json, check;
	const char *address;
	struct nu_rdma_options rdma;
};

static void add_advice(bool is_note, const char *command, const char *fmt, va_list ap)
{
	struct advice *a = &advice[nadvice];

	if (nadvice == ADVICE_MAX)
		return;
	nadvice++;
	a->is_note = is_note;
	snprintf(a->command, sizeof(a->command), "%s", command);
	vsnprintf(a->text, sizeof(a->text), fmt, ap);
}

void info_warn(const char *command, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add_advice(false, command, fmt, ap);
	va_end(ap);
}

void info_note(const char *command, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add_advice(true, command, fmt, ap);
	va_end(ap);
}

static unsigned print_advice(const char *key, bool notes)
{
	unsigned n = 0;

	info_open_list(key);
	for (unsigned i = 0; i < nadvice; i++) {
		if (advice[i].is_note != notes)
			continue;
		n++;
		info_open(NULL);
		info_string("text", advice[i].text);
		if (advice[i].command[0])
			info_string("command", advice[i].command);
		info_close();
	}
	info_close_list();
	return n;
}

static void help(void)
{
	printf("Usage: nu_info [options]\n"
	       "\n"
	       "Prints what Nu finds on this machine: RDMA devices, limits, permissions, UCX's transports, "
	       "what a "
	       "job would\n"
	       "use here and why not the rest; and warnings, each with the command that mends it.\n"
	       "\n"
	       "  -j, --json          one JSON document\n"
	       "  -a, --address A     this host's address in the job, which decides among devices (none)\n"
	       "      --rdma LIST     KEY=VALUE,... as for nu_launch: device, port, gid decide here (the "
	       "best)\n"
	       "      --check         status 1 if there are warnings (0)\n"
	       "  -h, --help          show this\n"
	       "\n"
	       "Exit status: 0; 1 with --check, if there are warnings; 2 wrong usage.\n");
}

static void __attribute__((noreturn, format(printf, 1, 2))) usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "nu_info: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'nu_info --help'.\n");
	exit(2);
}

static void parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
					      {"address", required_argument, NULL, 'a'},
					      {"rdma", required_argument, NULL, 'r'},
					      {"check", no_argument, NULL, 'c'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	struct in6_addr any;
	char why[256] = "";
	int c;

	while ((c = getopt_long(argc, argv, "ja:h", longs, NULL)) != -1) {
		switch (c) {
		case 'j':
			o->json = true;
			break;
		case 'a':
			o->address = optarg;
			if (inet_pton(AF_INET, optarg, &any) != 1 && inet_pton(AF_INET6, optarg, &any) != 1)
				usage("--address takes an IP address, not '%s'", optarg);
			break;
		case 'r':
			if (nu_rdma_options_parse(optarg, &o->rdma, why, sizeof(why)))
				usage("--rdma %s: %s", optarg, why);
			break;
		case 'c':
			o->check = true;
			break;
		case 'h':
			help();
			exit(0);
		default:
			fprintf(stderr, "Try 'nu_info --help'.\n");
			exit(2);
		}
	}
	if (optind < argc)
		usage("there is nothing to do with '%s'", argv[optind]);
}

int main(int argc, char **argv)
{
	struct options o = {.rdma.gid_index = -1};
	struct info_findings f = {0};
	unsigned warnings;
	int own;
	FILE *out;

	parse(argc, argv, &o);
	/* Libraries log to standard output, which is to hold the document alone. */
	own = dup(STDOUT_FILENO);
	out = own >= 0 ? fdopen(own, "w") : NULL;
	if (!out || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
		perror("nu_info: standard output");
		return 1;
	}
	info_output(out, o.json);
	info_open(NULL);
	info_string("nu", NU_VERSION);
	info_system(&f);
	info_devices(&f, &o.rdma, o.address);
	info_limits(&f);
	info_kernel(&f);
	info_ucx(&f);
	info_choice(&f);
	warnings = print_advice("warnings", false);
	print_advice("notes", true);
	info_close();
	if (o.json)
		fputc('\n', out);
	nu_rdma_choice_free(&f.choice);
	nu_rdma_devices_free(&f.devices);
	if (fclose(out)) {
		perror("nu_info: standard output");
		return 1;
	}
	return o.check && warnings ? 1 : 0;
}
