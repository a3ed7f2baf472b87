/* SPDX-License-Identifier: MIT */
/*
 * Starts: abuse_starts HOW [N]. HOW: ok; init (node_init returns N on the last node), call (it calls a stub), hang (it never
 * returns on the last node), node (a proclet on "node" N), signals (what is ignored and blocked at main()), drain (waits for
 * its input's end), prompt (text without an end, twice with a line of the last node between).
 */
#include <nu/nu.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct cell {
	int v;
};
NU_CLASS(cell);
NU_METHOD(cell, say, none);

static const char *how;
static int number;
static struct cell_ref made;

int cell_init(struct cell *c)
{
	return 0;
}

void cell_do_say(struct cell *c)
{
	printf("other\n");
}

/* Goes on with each byte that it is sent. */
static int prompt(struct cell_ref far)
{
	char byte;

	printf("10%%\r20%%\r");
	fflush(stdout);
	if (read(0, &byte, 1) != 1)
		return 1;
	printf("name? ");
	fflush(stdout);
	if (read(0, &byte, 1) != 1 || cell_say(far) || read(0, &byte, 1) != 1)
		return 2;
	printf("done\n");
	return 0;
}

static int node_init(unsigned node)
{
	bool last = node == nu_node_count() - 1;

	if (!strcmp(how, "call"))
		return cell_create(NULL, &made);
	while (!strcmp(how, "hang") && last)
		pause();
	return last && !strcmp(how, "init") ? number : 0;
}

static void say_signals(void)
{
	struct sigaction sa;
	sigset_t mask;
	char line[512];
	size_t len = (size_t)snprintf(line, sizeof(line), "node %u:", nu_node_self());

	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int signo = 1; signo < 32; signo++) {
		if (!sigaction(signo, NULL, &sa) && sa.sa_handler == SIG_IGN)
			len += (size_t)snprintf(line + len, sizeof(line) - len, " -%s", sigabbrev_np(signo));
		if (sigismember(&mask, signo))
			len += (size_t)snprintf(line + len, sizeof(line) - len, " !%s", sigabbrev_np(signo));
	}
	printf("%s.\n", line);
	fflush(stdout);
}

static int mainfunc(int argc, char **argv)
{
	NU_SCOPED(cell, ref);
	struct nu_options o = {.node = (unsigned)number};
	char byte;

	if (!strcmp(how, "node"))
		printf("create: %s\n", nu_strerror(cell_create(&o, &ref)));
	if (!strcmp(how, "prompt")) {
		o.node = NU_NODE(nu_node_count() - 1);
		return cell_create(&o, &ref) ? 3 : prompt(ref);
	}
	if (!strcmp(how, "drain")) {
		printf("it runs\n");
		while (read(0, &byte, 1) > 0)
			;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 99;
	how = argv[1];
	number = argc > 2 ? atoi(argv[2]) : 0;
	if (!strcmp(how, "signals"))
		say_signals();
	return nu_run(argc, argv, mainfunc, &(struct nu_run_options){.node_init = node_init});
}
