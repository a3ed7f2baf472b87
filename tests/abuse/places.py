#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Odd places to run in: other users, limits, profiles, tools. usage: places.py BUILD DENY SCRIPTS"""
import os
import pathlib
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile

from odd import Job, Skip, main, run

BUILD, DENY = pathlib.Path(sys.argv[1]), sys.argv[2]
LAUNCH, CTL = BUILD / "ctrl/nu_launch", BUILD / "ctrl/nu_ctl"
ACCUMULATOR, KVSTORE, PERF = BUILD / "samples/accumulator", BUILD / "samples/kvstore", BUILD / "perf/nu_perf"
TMP = pathlib.Path(tempfile.mkdtemp(prefix="nu places "))
KEYS = TMP / "keys"
ENV = dict(os.environ, UCX_MEM_EVENTS="n", UCX_LOG_LEVEL="error", NU_LOG="warn")
LOAD = ["--file", KEYS, "--seconds", "0.6", "--shards", "16", "--clients", "2", "--plot", "none", "--drain", "1@0.1",
        "--restore", "1@0.3"]
RIGHT = "10\n15\n25\n25\n"
THREADS_ENOUGH = 64  # for a launcher and two nodes


def small_demo(before=(), launch=(), timeout=60, env=ENV):
    return Job([*before, LAUNCH, "-n", "2", "--no-prefix", "--time-out", "50", *launch, KVSTORE, *LOAD], env=env)


def all_well(job):
    job.must(0, "verified 500 of 500 keys, lost 0, wrong 0")
    assert re.search(r"migrations [1-9][0-9]* proclets moved", job.out), job.out
    return job


def accumulates(before=(), launch=(), **how):
    how.setdefault("env", ENV)
    r = run([*before, LAUNCH, "-n", "2", "--no-prefix", "--time-out", "50", *launch, ACCUMULATOR], apart=True, **how)
    r.must(0)
    assert r.out == RIGHT, r.out
    return r


def need(tool):
    if not shutil.which(tool):
        raise Skip(f"{tool} is not installed")


def need_root(for_what):
    if os.geteuid():
        raise Skip(f"{for_what} takes root")


# ---- jobs beside each other ----

def two_jobs_at_once():
    jobs = [small_demo(), small_demo(launch=["--transport", "tcp"])]
    for j in jobs:
        all_well(j.end())


def nu_ctl_wants_to_know_which():
    jobs = [Job([LAUNCH, "-n", "2", "--time-out", "50", KVSTORE, *LOAD[:2], "--seconds", "4", *LOAD[4:]], env=ENV)
            for _ in range(2)]
    try:
        listed = ""
        for _ in range(400):
            listed = run([CTL, "jobs"], env=ENV).out
            if all(str(j.p.pid) in listed for j in jobs):
                break
        for j in jobs:
            assert str(j.p.pid) in listed, listed
        which = run([CTL, "nodes"], env=ENV)
        assert which.status == 1 and "--job" in which.out, which.out
        for _ in range(200):  # it may not have started yet
            one = run([CTL, "--job", str(jobs[1].p.pid), "nodes"], env=ENV)
            if "not answer operators yet" not in one.out:
                break
        one.must(0)
    finally:
        for j in jobs:
            j.p.terminate()
            j.end()


# ---- who, and with what rights ----

def copy_for_all():
    """Programs where anybody may read them, below a folder with spaces in its name."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="nu for all "))
    for f in ("ctrl/nu_launch", "ctrl/nu_ctl", "samples/accumulator", "samples/kvstore"):
        (top / "b" / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUILD / f, top / "b" / f)
    for f in filter(pathlib.Path.is_file, BUILD.glob("libnu.so*")):
        shutil.copy(f, top / "b" / f.name, follow_symlinks=True)
    shutil.copy(KEYS, top / "keys")
    for d, _, files in os.walk(top):
        for name in [d] + [os.path.join(d, f) for f in files]:
            os.chmod(name, os.stat(name).st_mode | stat.S_IRGRP | stat.S_IROTH |
                     (stat.S_IXGRP | stat.S_IXOTH if os.stat(name).st_mode & stat.S_IXUSR else 0))
    return top


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def an_unprivileged_user():
    need_root("changing the user")
    need("setpriv")
    top = copy_for_all()
    try:
        env = {k: v for k, v in ENV.items() if k not in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR")}
        r = run([*NOBODY, top / "b/ctrl/nu_launch", "-n", "2", "--no-prefix", "--time-out", "50", top / "b/samples/kvstore",
                 "--file", top / "keys", *LOAD[2:]], env=env, cwd="/")
        all_well(r)
    finally:
        shutil.rmtree(top)


def few_threads_for_the_user():
    """With one thread more each time, until the job has enough: what is missing is named, and nothing waits."""
    need_root("changing the user")
    need("setpriv")
    need("prlimit")
    top = copy_for_all()
    try:
        for threads in range(1, THREADS_ENOUGH + 1):
            # What an earlier job left behind, a zombie even, would count.
            r = run(["prlimit", f"--nproc={threads}:{threads}", "setpriv", "--reuid=64997", "--regid=64997",
                     "--clear-groups", top / "b/ctrl/nu_launch", "-n", "2", "--no-prefix", "--time-out", "50",
                     top / "b/samples/accumulator"], env=ENV, cwd="/", apart=True)
            if not r.status:
                break
            assert r.status == 1 and "RLIMIT_NPROC" in r.err and "time-out" not in r.err, f"{threads}: {r.status} {r.err}"
        assert threads > 1 and r.out == RIGHT, f"{threads}: {r.status} {r.out} {r.err}"
    finally:
        shutil.rmtree(top)


def an_unreadable_file():
    need_root("changing the user")
    need("setpriv")
    top = copy_for_all()
    try:
        os.chmod(top / "keys", 0)
        r = run([*NOBODY, top / "b/ctrl/nu_launch", "-n", "2", "--no-prefix", "--time-out", "50", top / "b/samples/kvstore",
                 "--file", top / "keys", *LOAD[2:]], env=ENV, cwd="/", apart=True)
        r.must(1)
        assert r.err.strip() == f"kvstore: {top}/keys: Permission denied", r.err
    finally:
        shutil.rmtree(top)


def a_path_with_spaces():
    top = copy_for_all()
    try:
        accumulates(launch=[], cwd=top)
        r = run([top / "b/ctrl/nu_launch", "-n", "2", "--no-prefix", "b/samples/accumulator"], env=ENV, cwd=top, apart=True)
        r.must(0)
        assert r.out == RIGHT, r.out
    finally:
        shutil.rmtree(top)


# ---- reading another's memory is denied: heaps come by messages ----

def by_messages(call, transport):
    env = dict(ENV, NU_LOG="info")
    r = all_well(small_demo([DENY, call], ["--transport", transport], env=env).end())
    if r.status == 77:
        raise Skip("seccomp filters are not to be had here")
    for node in (0, 1):
        assert re.search(rf"nu: node {1 - node}: reader cma cannot read node {node}: {call}.*Operation not permitted", r.out), r.out
    assert "through am" in r.out and "through cma" not in r.out, r.out


def process_vm_readv_is_denied_shm():
    by_messages("process_vm_readv", "shm")


def process_vm_readv_is_denied_tcp():
    by_messages("process_vm_readv", "tcp")


def cma_was_asked_for_and_is_denied():
    r = small_demo([DENY, "process_vm_readv"], ["--reader", "cma"]).end()
    assert "reader cma cannot read node" in r.out and "nothing can move" in r.out, r.out
    assert r.status == 1 and "lost 0, wrong 0" in r.out, r.out  # the drain failed, no key did


def pidfd_open_is_denied():
    r = run([DENY, "pidfd_open", LAUNCH, "-n", "2", ACCUMULATOR], env=ENV)
    r.must(1, "pidfd_open: Operation not permitted")


# ---- limits and surroundings ----

def one_core():
    need("taskset")
    first = str(min(os.sched_getaffinity(0)))
    all_well(small_demo(["taskset", "-c", first]).end())
    accumulates(["taskset", "-c", first], ["--cores", "4"])


def memlock_of_64_kib():
    need("prlimit")
    all_well(small_demo(["prlimit", "--memlock=65536:65536"]).end())


def stack_limits():
    need("prlimit")
    for limit in (256 << 10, 1 << 30, resource.RLIM_INFINITY):
        text = "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        if hard != resource.RLIM_INFINITY and (limit == resource.RLIM_INFINITY or limit > hard):
            continue
        accumulates(["prlimit", f"--stack={text}:"])


def no_shared_memory_folder():
    need_root("a mount namespace")
    need("unshare")
    hide = ["unshare", "-m", "sh", "-c", "umount /dev/shm 2>/dev/null; mount -t tmpfs -o size=0,mode=555,ro none /dev/shm && "
            'exec "$@"', "sh"]
    if run([*hide, "true"]).status:
        raise Skip("mounts are not allowed here")
    r = small_demo(hide, env=dict(ENV, NU_LOG="info")).end()
    all_well(r).must(0, "all nodes are on this host") # shared memory of ours needs no folder
    all_well(small_demo(hide, ["--transport", "sysv,self"]).end())
    small = [h.replace("size=0,mode=555,ro", "size=1m") for h in hide]
    all_well(small_demo(small, ["--transport", "shm"]).end())


def an_empty_environment():
    accumulates(["env", "-i"])


def closed_descriptors():
    for program in ([LAUNCH, "-n", "2", ACCUMULATOR], [ACCUMULATOR]):
        r = run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *program], env=ENV)
        r.must(0)


def a_reader_that_goes_away():
    r = run(["sh", "-c", '"$@" | true; exit 0', "sh", LAUNCH, "-n", "2", KVSTORE, *LOAD], env=ENV)
    r.must(0)
    left = subprocess.run(["pgrep", "-f", str(KEYS)], stdout=subprocess.PIPE).stdout
    assert not left.strip(), f"still running: {left}"


def a_working_folder_that_is_gone():
    gone = TMP / "gone"
    gone.mkdir()
    accumulates(["sh", "-c", 'rmdir "$0" && exec "$@"', gone], cwd=gone)


def without_address_randomisation():
    need("setarch")
    if run(["setarch", "-R", "true"]).status:
        raise Skip("personality() is not allowed here")
    accumulates(["setarch", "-R"])


def found_by_path_and_through_a_link():
    link = TMP / "launcher"
    link.symlink_to(LAUNCH)
    env = dict(ENV, PATH=f"{ACCUMULATOR.parent}:{os.environ['PATH']}")
    r = run([link, "-n", "2", "--no-prefix", "accumulator"], env=env, apart=True)
    r.must(0)
    assert r.out == RIGHT, r.out


def a_preloaded_library_and_a_perturbed_malloc():
    accumulates(env=dict(ENV, LD_PRELOAD="libm.so.6", LD_BIND_NOW="1", MALLOC_PERTURB_="165", LC_ALL="C.UTF-8"))


# ---- tools ----

def valgrind():
    need("valgrind")
    r = run(["valgrind", "--error-exitcode=9", "-q", ACCUMULATOR], env=ENV, apart=True, timeout=120)
    r.must(0)
    assert r.out == RIGHT, r.out + r.err
    again = run(["valgrind", "--error-exitcode=9", "-q", PERF, "-t", "spawn", "-n", "100"], env=ENV, timeout=120)
    again.must(0)  # each thread on the stack of one that has ended
    launched = run(["valgrind", "-q", LAUNCH, "-n", "2", ACCUMULATOR], env=ENV, timeout=120)
    launched.must(1, "pidfd_open")  # valgrind 3.19 does not know it: one node only, says the README


def perf_record():
    if run(["perf", "--version"]).status if shutil.which("perf") else True:
        raise Skip("perf is not installed")
    if run(["perf", "record", "-q", "-o", TMP / "probe", "true"], cwd=TMP).status:
        raise Skip("perf may not record here")
    data = TMP / "perf.data"
    all_well(small_demo(["perf", "record", "-q", "-g", "-o", data]).end())
    report = run(["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none"], env=ENV, timeout=120)
    report.must(0)
    assert "kvstore" in report.out, report.out[-2000:]


def strace():
    need("strace")
    log = TMP / "strace.out"
    r = run(["strace", "-f", "-qq", "-o", log, LAUNCH, "-n", "2", "--no-prefix", "--time-out", "50", ACCUMULATOR], env=ENV, apart=True)
    if r.status and "ptrace" in r.err:
        raise Skip("ptrace is not allowed here")
    r.must(0)
    assert r.out == RIGHT and log.stat().st_size, r.out


KEYS.write_text("".join(f"{n}\n" for n in range(1, 501)))
try:
    main([two_jobs_at_once, nu_ctl_wants_to_know_which, an_unprivileged_user, few_threads_for_the_user,
          an_unreadable_file, a_path_with_spaces, process_vm_readv_is_denied_shm, process_vm_readv_is_denied_tcp,
          cma_was_asked_for_and_is_denied, pidfd_open_is_denied, one_core, memlock_of_64_kib, stack_limits, no_shared_memory_folder, an_empty_environment,
          closed_descriptors, a_reader_that_goes_away, a_working_folder_that_is_gone, without_address_randomisation,
          found_by_path_and_through_a_link, a_preloaded_library_and_a_perturbed_malloc, valgrind, perf_record, strace])
finally:
    shutil.rmtree(TMP)
