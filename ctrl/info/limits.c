/* SPDX-License-Identifier: MIT */
/* The limits that nodes run into: resource limits, mappings, room for shared memory. */
#include "info.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SHM_FOLDER    "/dev/shm"
#define SHM_PER_CORE  ((uint64_t)9 << 19) /* what UCX's posix transport takes for a worker; rpc/ucx.c */
#define RING_BYTES    ((size_t)1 << 20)
#define MAP_COUNT_MIN 65530
#define NOFILE_MIN    1024
#define NPROC_MIN     256
#define MEMLOCK_MIN   ((uint64_t)512 << 20)

static const struct {
	const char *key, *name;
	int resource;
} rlimits[] = {
	{"memlock_bytes", "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
	{"nofile", "RLIMIT_NOFILE", RLIMIT_NOFILE},
	{"nproc", "RLIMIT_NPROC", RLIMIT_NPROC},
	{"address_space_bytes", "RLIMIT_AS", RLIMIT_AS},
	{"stack_bytes", "RLIMIT_STACK", RLIMIT_STACK},
	{"core_bytes", "RLIMIT_CORE", RLIMIT_CORE},
};

static uint64_t soft(int resource)
{
	struct rlimit r;

	return getrlimit(resource, &r) || r.rlim_cur == RLIM_INFINITY ? UINT64_MAX : r.rlim_cur;
}

static uint64_t hard(int resource)
{
	struct rlimit r;

	return getrlimit(resource, &r) || r.rlim_max == RLIM_INFINITY ? UINT64_MAX : r.rlim_max;
}

static void advise_rlimits(bool has_device)
{
	uint64_t memlock = soft(RLIMIT_MEMLOCK), nofile = soft(RLIMIT_NOFILE), nproc = soft(RLIMIT_NPROC);
	char size[32];

	/* CAP_IPC_LOCK overrides it, but a service manager drops both. */
	if (memlock < MEMLOCK_MIN)
		(has_device ? info_warn : info_note)("ulimit -l unlimited",
						     "RLIMIT_MEMLOCK is %s: heaps in registered memory "
						     "(RDMA) are pinned and count against it",
						     info_size(memlock, size));
	if (nofile < NOFILE_MIN)
		info_warn("ulimit -n 1048576",
			  "RLIMIT_NOFILE is %lu: connections between many nodes need more descriptors",
			  (unsigned long)nofile);
	if (nproc < NPROC_MIN)
		info_warn("ulimit -u unlimited",
			  "RLIMIT_NPROC is %lu: it counts all processes and threads of this user",
			  (unsigned long)nproc);
	if (soft(RLIMIT_AS) != UINT64_MAX)
		info_warn("ulimit -v unlimited",
			  "RLIMIT_AS is %s: segments and stacks take address space in terabytes",
			  info_size(soft(RLIMIT_AS), size));
}

static void resource_limits(bool has_device)
{
	char key[48];

	info_open("resource");
	for (size_t i = 0; i < sizeof(rlimits) / sizeof(rlimits[0]); i++) {
		info_number(rlimits[i].key, soft(rlimits[i].resource));
		snprintf(key, sizeof(key), "hard_%s", rlimits[i].key);
		info_number(key, hard(rlimits[i].resource));
	}
	info_close();
	advise_rlimits(has_device);
}

static void mappings(void)
{
	uint64_t system = info_file_number("/proc/sys/vm/max_map_count", MAP_COUNT_MIN);
	unsigned used, budget, heaps;

	nu_maps_stats(&used, &budget, &heaps);
	info_open("mappings");
	info_number("vm_max_map_count", system);
	info_number("for_heaps_and_stacks", budget);
	/* One for a heap, one for the stack of each thread that is in it. */
	info_number("idle_proclets_per_node", heaps);
	info_number("proclets_with_one_thread_per_node", budget / 2);
	info_close();
	if (system < MAP_COUNT_MIN)
		info_warn("sysctl -w vm.max_map_count=1048576",
			  "vm.max_map_count is %lu: at most %u proclets on a node, half of that with a "
			  "thread in "
			  "each",
			  (unsigned long)system, heaps);
	else if (system < 1 << 18)
		info_note("sysctl -w vm.max_map_count=1048576",
			  "vm.max_map_count is %lu: at most %u proclets on a node, half of that with a "
			  "thread in "
			  "each",
			  (unsigned long)system, heaps);
}

static bool try_sysv(void)
{
	int id = shmget(IPC_PRIVATE, SHM_PER_CORE, IPC_CREAT | 0600);

	return id >= 0 && !shmctl(id, IPC_RMID, NULL);
}

/* What rpc/shm.c asks for. */
static void try_rings(struct info_findings *f)
{
	int fd = memfd_create("nu_info", MFD_CLOEXEC);
	void *p = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, RING_BYTES))
		p = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	f->rings = p != MAP_FAILED;
	if (!f->rings)
		snprintf(f->rings_why, sizeof(f->rings_why), "memfd_create and mmap: %s",
			 strerror(nu_sys_errno));
	else
		munmap(p, RING_BYTES);
	if (fd >= 0)
		close(fd);
}

static void shared_memory(struct info_findings *f)
{
	uint64_t want = SHM_PER_CORE * (f->cpus > 2 ? f->cpus : 2), room = 0;
	bool writable = !access(SHM_FOLDER, W_OK | X_OK);
	struct statvfs fs;
	char a[32], b[32], command[96];

	if (!statvfs(SHM_FOLDER, &fs)) {
		room = (uint64_t)fs.f_bavail * fs.f_frsize;
		writable &= !(fs.f_flag & ST_RDONLY);
	} else {
		writable = false;
	}
	f->shm = writable && room >= want;
	f->sysv = try_sysv();
	try_rings(f);
	info_open("shared_memory");
	info_bool("memfd", f->rings);
	info_string("folder", SHM_FOLDER);
	info_bool("writable", writable);
	info_number("room_bytes", room);
	info_number("per_core_of_a_node_bytes", SHM_PER_CORE);
	info_number("cores_that_fit", writable ? room / SHM_PER_CORE : 0);
	info_bool("sysv", f->sysv);
	info_close();
	if (!f->rings)
		info_warn("", "%s: nodes of one host talk through UCX", f->rings_why);
	if (f->shm)
		return;
	snprintf(f->shm_why, sizeof(f->shm_why), "%s has %s to write to, nodes on all processors take %s",
		 SHM_FOLDER, info_size(writable ? room : 0, a), info_size(want, b));
	snprintf(command, sizeof(command), "mount -o remount,rw,size=%luM %s",
		 (unsigned long)(want >> 20) * 4, SHM_FOLDER);
	(f->rings && !getenv("UCX_TLS")
		 ? info_note
		 : info_warn)(command, "%s, if UCX is to carry calls: %s", f->shm_why,
			      f->sysv ? "its transport sysv is then used in place of posix"
				      : "it has then no shared memory");
}

void info_limits(struct info_findings *f)
{
	info_open("limits");
	resource_limits(f->devices.n > 0);
	mappings();
	shared_memory(f);
	info_close();
}
