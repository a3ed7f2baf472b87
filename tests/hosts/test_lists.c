/* SPDX-License-Identifier: MIT */
/* Lists of hosts: --hosts, host files, Slurm's variables, and the nodes dealt over them. */
#include "ctrl/launch/hosts.c"
#include "ctrl/launch/slurm.c"

#include <criterion/criterion.h>
#include <stdarg.h>

static char said[1024];

void launch_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
}
void *launch_alloc(size_t len_bytes)
{
	return malloc(len_bytes ? len_bytes : 1);
}

static void expand_to(const char *text, const char *want)
{
	char **names = NULL, got[4096] = "";
	int n = slurm_names(text, &names);

	for (int i = 0; i < n; i++) {
		if (i)
			strcat(got, " ");
		strcat(got, names[i]);
		free(names[i]);
	}
	free(names);
	cr_assert_str_eq(n < 0 ? "wrong" : got, want, "%s gives %s, want %s", text, n < 0 ? "wrong" : got,
			 want);
}

Test(lists, slurm_names)
{
	expand_to("n1", "n1");
	expand_to("n[01-03,7],m2", "n01 n02 n03 n7 m2");
	expand_to("a,b,c-d", "a b c-d");
	expand_to("n[9-11]", "n9 n10 n11");
	expand_to("n[099-101]-ib", "n099-ib n100-ib n101-ib");
	expand_to("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2");
	expand_to("x[5]", "x5");
	expand_to("[1-2]", "1 2");
	expand_to("", "wrong");
	expand_to("a,", "wrong");
	expand_to(",a", "wrong");
	expand_to("n[", "wrong");
	expand_to("n]", "wrong");
	expand_to("n[]", "wrong");
	expand_to("n[3-1]", "wrong");
	expand_to("n[1-]", "wrong");
	expand_to("n[-1]", "wrong");
	expand_to("n[a-b]", "wrong");
	expand_to("n[1,]", "wrong");
	expand_to("n[1-99999999]", "wrong");
	expand_to("n[1-999999999999]", "wrong");
	expand_to("n[[1]]", "wrong");
}

Test(lists, slurm_counts)
{
	unsigned c[6];

	cr_assert(slurm_counts("2(x3),1", c, 4));
	cr_assert(c[0] == 2 && c[1] == 2 && c[2] == 2 && c[3] == 1);
	cr_assert(slurm_counts("16", c, 1) && c[0] == 16);
	cr_assert(slurm_counts("1,2,3(x2)", c, 4) && c[3] == 3);
	const char *const wrong[] = {"",     "2(x3)", "2(x5)",	   "2(x3",  "2(3)",	     "x",
				     "2,,1", "-1",    "2(x3),1,1", "0(x4)", "2(x4294967297)"};
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		cr_assert_not(slurm_counts(wrong[i], c, 4), "%s was taken", wrong[i]);
}

static void deal_to(const char *list, unsigned nodes, const char *want)
{
	struct hosts h = {0};
	char got[1024] = "";

	cr_assert(hosts_parse(&h, list), "%s: %s", list, said);
	if (!hosts_deal(&h, &nodes))
		strcpy(got, "wrong");
	for (unsigned i = 0; i < h.count && strcmp(got, "wrong") != 0; i++)
		sprintf(got + strlen(got), "%s%s:%u+%u", i ? " " : "", h.list[i].name, h.list[i].first,
			h.list[i].nodes);
	cr_assert_str_eq(got, want, "%s over %s gives %s, want %s", nodes ? "nodes" : "all", list, got, want);
}

Test(lists, nodes_are_dealt)
{
	deal_to("a,b,c", 0, "a:0+1 b:1+1 c:2+1");
	deal_to("a:4,b", 0, "a:0+4 b:4+1");
	deal_to("a:4,b", 3, "a:0+3");
	deal_to("a:2,b:2,c", 3, "a:0+2 b:2+1");
	deal_to("a,b,a", 0, "a:0+2 b:2+1");
	deal_to("[fd00::1]:2,fd00::2,[fd00::3]", 0, "fd00::1:0+2 fd00::2:2+1 fd00::3:3+1");
	deal_to("a,b", 3, "wrong");
	deal_to("a:200,b:200", 0, "wrong");
	deal_to("10.0.0.1:2", 2, "10.0.0.1:0+2");
}

Test(lists, wrong_hosts)
{
	const char *const wrong[] = {"",     "a,",   ",a",     "a:0",
				     "a:x",  "a:-1", "a:257",  "-oProxyCommand=x",
				     "a b",  "[::1", "[::1]2", "[]:1",
				     "a:1x", "a:"};
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct hosts h = {0};

		cr_assert_not(hosts_parse(&h, wrong[i]), "'%s' was taken", wrong[i]);
		cr_assert(strstr(said, "--hosts takes"), "%s", said);
	}
}

static bool read_text(struct hosts *h, const char *text)
{
	char path[] = "/tmp/nu-hosts.XXXXXX";
	int fd = mkstemp(path);
	bool ok;

	cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	ok = hosts_read(h, path);
	unlink(path);
	return ok;
}

Test(lists, host_files)
{
	struct hosts h = {0};
	unsigned nodes = 0;

	cr_assert(read_text(&h, "# ours\n\na slots=2 cores=3 mem=1G interface=eth0 # the first\n  b\t\r\n"
				"c interface=10.1.0.0/16\nb slots=2"));
	cr_assert(hosts_deal(&h, &nodes));
	cr_assert(h.count == 3 && nodes == 6);
	cr_assert(h.list[0].slots == 2 && h.list[0].cores == 3 && h.list[0].mem_bytes == (size_t)1 << 30);
	cr_assert_str_eq(h.list[0].interface, "eth0");
	cr_assert(h.list[1].slots == 3 && !h.list[1].cores && !h.list[1].interface);
	cr_assert_str_eq(h.list[2].interface, "10.1.0.0/16");
}

Test(lists, wrong_host_files)
{
	static const struct {
		const char *text, *want;
	} wrong[] = {
		{"a\nb slots=0\n", "line 2: 'slots=0' makes no sense"},
		{"a slots\n", "line 1: 'slots' makes no sense"},
		{"a\n\n# x\na mem=lots\n", "line 4: 'mem=lots' makes no sense"},
		{"a mem=1K\n", "line 1: 'mem=1K' makes no sense"},
		{"a cores=65\n", "line 1: 'cores=65' makes no sense"},
		{"a interface=\n", "line 1: 'interface=' makes no sense"},
		{"a port=2\n", "line 1: 'port=2' is none of"},
		{"a b\n", "line 1: 'b' is none of"},
		{"slots=2\n", "line 1: the line does not begin with a host's name"},
		{"-x\n", "line 1: the line does not begin with a host's name"},
		{"# nothing\n", "names no host"},
	};
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct hosts h = {0};

		cr_assert_not(read_text(&h, wrong[i].text), "'%s' was taken", wrong[i].text);
		cr_assert(strstr(said, wrong[i].want), "%s: %s", wrong[i].text, said);
	}
	struct hosts h = {0};
	cr_assert_not(hosts_read(&h, "/nonexistent/hosts"));
	cr_assert(strstr(said, "No such file"));
}

Test(lists, environment)
{
	struct hosts h = {0};

	clearenv();
	setenv("NU_LOG", "info", 1);
	setenv("NU_BOOT", "3:4", 1);
	setenv("HOME", "/root", 1);
	setenv("UCX_TLS", "tcp", 1);
	setenv("LD_LIBRARY_PATH", "/lib x", 1);
	hosts_export_defaults(&h);
	cr_assert_eq(h.nenv, 3);
	cr_assert(hosts_export(&h, "HOME") && hosts_export(&h, "NU_LOG=debug") &&
		  hosts_export(&h, "NOT_THERE"));
	cr_assert(hosts_export(&h, "EMPTY="));
	cr_assert_eq(h.nenv, 5);
	cr_assert_str_eq(h.env[0], "NU_LOG=debug");
	cr_assert_str_eq(h.env[3], "HOME=/root");
	cr_assert_str_eq(h.env[4], "EMPTY=");
	cr_assert_not(hosts_export(&h, "") || hosts_export(&h, "=x"));
}
