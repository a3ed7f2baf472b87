/* SPDX-License-Identifier: MIT */
/* nu_ctl's reading of an answer. Input: what comes from the other end of its socket, which then closes. */
#define main nu_ctl_main
#include "ctrl/ctl/nu_ctl.c"
#undef main

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char state[16] = "", *text;
	const char *why = NULL;
	unsigned nodes, alive;
	int pair[2], status, pid, used = 0;
	long long age;

	if (len > 65536 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return 0;
	if (len && send(pair[1], data, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len) {
		close(pair[0]);
		close(pair[1]);
		return 0;
	}
	shutdown(pair[1], SHUT_WR);
	text = ask(pair[0], "job", 1000, &status, &why);
	FUZZ_CHECK(!text == !!why);
	if (text) {
		FUZZ_CHECK(strlen(text) <= len);
		if (sscanf(text, JOB_FORMAT, &pid, &nodes, &alive, state, &age, &used) == 5)
			FUZZ_CHECK(strlen(state) < sizeof(state) && (size_t)used <= strlen(text));
	}
	free(text);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
