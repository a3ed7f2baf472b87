/* SPDX-License-Identifier: MIT */
/*
 * What the C library or the program keeps beside a proclet, and a move in between: abuse_stays HOW. What must come of each is
 * in stays.py, what to do instead in libnu(7).
 */
#include <nu/nu.h>

#include <dirent.h>
#include <fcntl.h>
#include <iconv.h>
#include <locale.h>
#include <netdb.h>
#include <pthread.h>
#include <regex.h>
#include <search.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CONTEXT_BYTES 65536

struct stay {
	int moved;
};
NU_CLASS(stay);
NU_METHOD(stay, act, val(int), str(how), val(unsigned, to));

int stay_init(struct stay *self)
{
	return 0;
}

static void go(unsigned to)
{
	int ret = nu_migrate(nu_self(), to);

	if (ret)
		printf("it stays: %s\n", nu_strerror(ret));
	fflush(stdout);
}

/* ---- used within one call: always right ---- */

static int use_within(unsigned to)
{
	struct addrinfo *found = NULL;
	char copy[32], *rest = copy;
	regex_t re;
	int ok;

	ok = !regcomp(&re, "^a.*z$", REG_EXTENDED | REG_NOSUB) && !regexec(&re, "abcz", 0, NULL, 0);
	regfree(&re);
	go(to);
	strcpy(copy, "one two");
	ok &= !strcmp(strtok_r(rest, " ", &rest), "one");
	go(!to);
	ok &= !strcmp(strtok_r(rest, " ", &rest), "two");
	ok &= !getaddrinfo("127.0.0.1", "1", &(struct addrinfo){.ai_flags = AI_NUMERICHOST}, &found);
	freeaddrinfo(found);
	return ok ? 0 : 1;
}

/* ---- kept over a move ---- */

static int keep_regex(unsigned to)
{
	regex_t *re = calloc(1, sizeof(*re));

	if (regcomp(re, "^a.*z$", REG_EXTENDED | REG_NOSUB))
		return 1;
	go(to);
	return regexec(re, "abcz", 0, NULL, 0);
}

static int keep_file(unsigned to)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[80];

	go(to);
	return f && fgets(line, sizeof(line), f) ? 0 : 1;
}

static int keep_dir(unsigned to)
{
	DIR *d = opendir("/");

	go(to);
	return d && readdir(d) ? 0 : 1;
}

static int keep_iconv(unsigned to)
{
	iconv_t cd = iconv_open("UTF-16", "UTF-8");
	char from[] = "x", out[8], *f = from, *o = out;
	size_t fl = 1, ol = sizeof(out);

	go(to);
	return iconv(cd, &f, &fl, &o, &ol) == (size_t)-1;
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int keep_tree(unsigned to)
{
	void *root = NULL;
	char *key = strdup("key");

	tsearch(key, &root, compare);
	go(to);
	return tfind(key, &root, compare) ? 0 : 1;
}

static int keep_addresses(unsigned to)
{
	struct addrinfo *found = NULL;
	int family;

	if (getaddrinfo("127.0.0.1", "1", &(struct addrinfo){.ai_flags = AI_NUMERICHOST}, &found))
		return 1;
	go(to);
	family = found->ai_family;
	return family == AF_INET ? 0 : 1;
}

static int keep_locale(unsigned to)
{
	locale_t l = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);

	go(to);
	return strcoll_l("a", "b", l) < 0 ? 0 : 1;
}

static int keep_strtok(unsigned to)
{
	char *text = strdup("one two"), *next;

	strtok(text, " ");
	go(to);
	next = strtok(NULL, " ");
	return next && !strcmp(next, "two") ? 0 : 1;
}

static int keep_seed(unsigned to)
{
	int first, second;

	srand(42);
	first = rand();
	second = rand();
	srand(42);
	rand();
	go(to);
	return first != second && rand() == second ? 0 : 1;
}

static int keep_environment(unsigned to)
{
	setenv("STAYS", "yes", 1);
	go(to);
	return getenv("STAYS") ? 0 : 1;
}

static int keep_time(unsigned to)
{
	time_t t = 86400 * 365;
	struct tm *tm = gmtime(&t);

	go(to);
	return tm->tm_year == 71 ? 0 : 1;
}

static int keep_fd(unsigned to)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	char c;

	go(to);
	return read(fd, &c, 1) == 1 ? 0 : 1;
}

/* Of the proclet's heap: its state is there, and no thread of the kernel's waits for it. */
static int keep_pthread_mutex(unsigned to)
{
	pthread_mutex_t *m = calloc(1, sizeof(*m));
	int ret;

	pthread_mutex_init(m, NULL);
	pthread_mutex_lock(m);
	go(to);
	ret = pthread_mutex_unlock(m);
	free(m);
	return ret;
}

static int keep_specific(unsigned to)
{
	pthread_key_t key;
	int value;

	if (pthread_key_create(&key, NULL) || pthread_setspecific(key, &value))
		return 1;
	go(to);
	return pthread_getspecific(key) == &value ? 0 : 1;
}

static void on_usr1(int signo)
{
}

static int keep_handler(unsigned to)
{
	struct sigaction now;

	signal(SIGUSR1, on_usr1);
	go(to);
	return sigaction(SIGUSR1, NULL, &now) || now.sa_handler != on_usr1;
}

static int keep_jump(unsigned to)
{
	jmp_buf env;
	volatile int jumps = 0;

	if (!setjmp(env)) {
		go(to);
		jumps = 1;
		longjmp(env, 1);
	}
	return jumps == 1 ? 0 : 1;
}

/* ---- other processes ---- */

static int run_system(unsigned to)
{
	int ret = system("exit 3");

	go(to);
	return WIFEXITED(ret) && WEXITSTATUS(ret) == 3 ? 0 : 1;
}

static int run_popen(unsigned to)
{
	FILE *f = popen("echo text", "re");
	char line[16] = "";
	int ok = f && fgets(line, sizeof(line), f) && !strcmp(line, "text\n");

	ok &= f && pclose(f) == 0;
	go(to);
	return ok ? 0 : 1;
}

/* ---- a stack of the program's own ---- */

struct context {
	ucontext_t back, own;
	unsigned to;
};

static void context_body(unsigned high, unsigned low)
{
	struct context *c = (struct context *)((uintptr_t)high << 32 | low);

	go(c->to);
}

static int on_own_stack(unsigned to)
{
	struct context *c = calloc(1, sizeof(*c));
	uintptr_t p = (uintptr_t)c;

	c->to = to;
	getcontext(&c->own);
	c->own.uc_stack.ss_sp = malloc(CONTEXT_BYTES);
	c->own.uc_stack.ss_size = CONTEXT_BYTES;
	c->own.uc_link = &c->back;
	makecontext(&c->own, (void (*)(void))context_body, 2, (unsigned)(p >> 32), (unsigned)p);
	swapcontext(&c->back, &c->own);
	go(to); /* on its own stack again it moves */
	return 0;
}

static const struct {
	const char *how;
	int (*fn)(unsigned to);
} acts[] = {
	{"within", use_within},
	{"regex", keep_regex},
	{"file", keep_file},
	{"dir", keep_dir},
	{"iconv", keep_iconv},
	{"tree", keep_tree},
	{"addresses", keep_addresses},
	{"locale", keep_locale},
	{"strtok", keep_strtok},
	{"seed", keep_seed},
	{"environment", keep_environment},
	{"time", keep_time},
	{"fd", keep_fd},
	{"pthread-mutex", keep_pthread_mutex},
	{"specific", keep_specific},
	{"handler", keep_handler},
	{"jump", keep_jump},
	{"system", run_system},
	{"popen", run_popen},
	{"own-stack", on_own_stack},
};

int stay_do_act(struct stay *self, struct nu_str how, unsigned to)
{
	for (unsigned i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
		if (!strcmp(acts[i].how, how.s))
			return acts[i].fn(to);
	}
	return -1;
}

static int stays_main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		NU_SCOPED(stay, s);
		int wrong = -1, ret = stay_create(&(struct nu_options){.node = NU_NODE(1)}, &s);

		if (!ret)
			ret = stay_act(s, nu_str(argv[i]), 0, &wrong);
		printf("%s: %s, node %d, %s\n", argv[i], ret ? nu_strerror(ret) : "called", nu_locate(s.ref),
		       wrong ? "lost" : "right");
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, stays_main, NULL);
}
