/* SPDX-License-Identifier: MIT */
/*
 * Nodes that are not alike: abuse_layout HOW NODE EXTRA_A EXTRA_B. Nodes are forked by libnu's constructor, so this
 * program's, which runs after it, can make one of them differ: "more" objects, objects in another "order", another
 * "build". "dlopen" opens an object too late, "addresses" says where things lie, "tls" is a program with thread-local
 * variables if it was built as one.
 */
#include <nu/nu.h>

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef WITH_TLS
static __thread volatile int of_a_thread[3];
#endif

static void die(const char *what)
{
	fprintf(stderr, "abuse_layout: %s: %s\n", what, dlerror());
	_exit(90);
}

static void load(const char *path)
{
	if (!dlopen(path, RTLD_NOW))
		die(path);
}

/* Another byte in this process's own build-id: a program that was built from something else. */
static int change_build_id(struct dl_phdr_info *info, size_t size, void *arg)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		char *at = (char *)info->dlpi_addr + ph->p_vaddr, *end = at + ph->p_memsz;

		if (ph->p_type != PT_NOTE)
			continue;
		for (ElfW(Nhdr) * n; at < end;
		     at += sizeof(*n) + ((n->n_namesz + 3) & ~3u) + ((n->n_descsz + 3) & ~3u)) {
			n = (void *)at;
			if (n->n_type != NT_GNU_BUILD_ID)
				continue;
			if (mprotect((void *)((uintptr_t)at & ~4095ul), 4096, PROT_READ | PROT_WRITE))
				die("mprotect");
			((char *)(n + 1))[4] ^= 1;
			*(bool *)arg = true;
			return 1;
		}
	}
	return 1;
}

__attribute__((constructor(5000))) static void differ(int argc, char **argv, char **env)
{
	bool changed = false, me;

	if (argc < 5)
		return;
	me = nu_node_self() == (unsigned)atoi(argv[2]);
	if (!strcmp(argv[1], "more") && me) {
		load(argv[3]);
	} else if (!strcmp(argv[1], "order")) {
		load(argv[me ? 3 : 4]);
		load(argv[me ? 4 : 3]);
	} else if (!strcmp(argv[1], "build") && me) {
		dl_iterate_phdr(change_build_id, &changed);
		if (!changed)
			die("no build-id");
	} else if (!strcmp(argv[1], "alike")) {
		load(argv[3]);
		load(argv[4]);
	}
}

struct place {
	struct nu_thread *none;
};
NU_CLASS(place);
NU_METHOD(place, say, val(int));
NU_METHOD(place, open_late, val(int), str(path), str(twice));

int place_init(struct place *p)
{
	return 0;
}

int place_do_say(struct place *p)
{
	int local;

	printf("node %u: text %p libc %p libnu %p stack %p heap %p\n", nu_node_self(), (void *)differ,
	       dlsym(RTLD_NEXT, "printf"), dlsym(RTLD_NEXT, "nu_yield"), (void *)&local, (void *)p);
	return 0;
}

int place_do_open_late(struct place *p, struct nu_str path, struct nu_str twice)
{
	void *handle = dlopen(path.s, RTLD_NOW);
	const char *error = dlerror();

	printf("late: %s, %s\n", handle ? "opened" : "refused", error ? error : "no error");
	/* What is there already is no new object. */
	handle = dlopen(twice.s, RTLD_NOW);
	printf("again: %s\n", handle ? "opened" : "refused");
	printf("self: %s\n", dlopen(NULL, RTLD_NOW) ? "opened" : "refused");
	return 0;
}

static int mainfunc(int argc, char **argv)
{
	int inner, ret = 0;

	for (unsigned n = 0; n < nu_node_count() && !ret; n++) {
		struct nu_options there = {.node = NU_NODE(n)};
		NU_SCOPED(place, p);

		ret = place_create(&there, &p);
		if (!ret && !strcmp(argv[1], "dlopen"))
			ret = place_open_late(p, nu_str(argv[3]), nu_str("libc.so.6"), &inner);
		else if (!ret)
			ret = place_say(p, &inner);
	}
#ifdef WITH_TLS
	of_a_thread[1] = 5;
#endif
	printf("it went well: %s\n", nu_strerror(ret));
	return ret != 0;
}

int main(int argc, char **argv)
{
	int ret;

	if (argc < 5)
		return 99;
	ret = nu_run(argc, argv, mainfunc, NULL);
	if (!ret && !strcmp(argv[1], "dlopen") && nu_node_self() == 0)
		printf("afterwards: %s\n", dlopen(argv[4], RTLD_NOW) ? "opened" : "refused");
	return ret < 0 ? 77 : ret;
}
