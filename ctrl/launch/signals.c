/* SPDX-License-Identifier: MIT */
/*
 * What a process does not say of signals it inherits, over fork and exec: what is ignored, and what is blocked. With SIGCHLD
 * ignored (as by a daemon that wants no zombies) children leave without a status, with it blocked in a node the program's own
 * children do. So launcher, agents and nodes begin alike, whatever they were started by, on every host: nothing is ignored
 * and nothing blocked. But who starts the launcher with SIGINT, SIGQUIT or SIGHUP ignored (a shell in the background, nohup)
 * means the job.
 */
#include "launch.h"

#include <signal.h>

static const int for_job[] = {SIGINT, SIGQUIT, SIGHUP};
static bool kept[sizeof(for_job) / sizeof(for_job[0])];

void signals_reset(void)
{
	struct sigaction sa;
	sigset_t none;
	for (int signo = 1; signo <= SIGRTMAX; signo++) {
		if (!sigaction(signo, NULL, &sa) && sa.sa_handler == SIG_IGN)
			signal(signo, SIG_DFL);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void signals_begin(void)
{
	struct sigaction sa;
	for (unsigned i = 0; i < sizeof(for_job) / sizeof(for_job[0]); i++)
		kept[i] = !sigaction(for_job[i], NULL, &sa) && sa.sa_handler == SIG_IGN;
	signals_reset();
	for (unsigned i = 0; i < sizeof(for_job) / sizeof(for_job[0]); i++) {
		if (kept[i])
			signal(for_job[i], SIG_IGN);
	}
}

bool signals_ignores(int signo)
{
	for (unsigned i = 0; i < sizeof(for_job) / sizeof(for_job[0]); i++) {
		if (for_job[i] == signo)
			return kept[i];
	}
	return false;
}
