#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""File descriptors run out in jobs that run: descriptors.c over each transport and reader, and what it says; then
operators' connections where the launcher or a node has none left.

usage: descriptors.py NU_LAUNCH NU_CTL DESCRIPTORS SERVE
"""
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

launch, ctl, program, serve = sys.argv[1:5]
passed = failed = 0
LIMIT = r"no file descriptor is left \(RLIMIT_NOFILE is \d+\)"
SAYS = {"tcp": [rf"cannot connect to a peer: {LIMIT}", rf"cannot take a connection: {LIMIT}"],
        "shm": [rf"cannot make shared memory for a peer: {LIMIT}", rf"cannot take a peer's shared memory: {LIMIT}"]}


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"descriptors.py: {what}", flush=True)


def run(*cmd):
    return subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=90)


def nodes(transport, reader):
    r = run(launch, "-n", "8", "--cores", "1", "--no-prefix", "--time-out", "60", "--transport", transport, "--reader",
            reader, program, *(["moves"] if reader == "am" else []))
    print("".join(f"{line}\n" for line in r.stdout.split("\n") if re.match("ok|FAIL", line)), end="", flush=True)
    if reader == "cma" and r.returncode and "process_vm_readv" in r.stdout:
        print(f"SKIP {transport} cma: not permitted here")
        return
    check(r.returncode == 0, f"{transport} {reader}: status {r.returncode}\n{r.stdout[-4000:]}")
    for words in SAYS[transport]:
        lines = [line for line in r.stdout.split("\n") if re.search(words, line)]
        check(lines, f"{transport} {reader}: nothing says \"{words}\":\n{r.stdout[-4000:]}")
        # A node has one core here.
        check(len(lines) == len(set(lines)), f"{transport} {reader}: said more than once: {lines}")


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        words = f.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def used(pid):
    return {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}


def set_limit(pid, soft):
    """Return: what it was."""
    was = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, was[1]))
    return was[0]


def fill(pid):
    """Connections of operators who say nothing, for what is free below the highest in use; the limit is that."""
    was, silent = set_limit(pid, max(used(pid)) + 1), []
    end = time.monotonic() + 20
    while used(pid) != set(range(max(used(pid)) + 1)) and time.monotonic() < end:
        s = socket.socket(socket.AF_UNIX)
        s.connect(f"\0nu-{os.getuid()}-{pid}")
        silent.append(s)
        time.sleep(0.01)
    return was, silent


def operators(tmp):
    """The launcher has none: an operator waits, the job goes on. Then all nodes have none: everything works."""
    end = os.path.join(tmp, "end")
    with open(os.path.join(tmp, "err"), "w+") as err:
        job = subprocess.Popen([launch, "-n", "3", "--cores", "1", "--no-prefix", "--time-out", "60", serve, end],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True)
        counter = None
        for line in job.stdout:
            if line.startswith("counter "):
                counter = line.split()[1]
            if line.startswith("ready"):
                break
        ask = [ctl, "--job", str(job.pid)]
        check(run(*ask, "stats").returncode == 0, "operators: before")  # node 0 has talked to all
        (was, silent), before = fill(job.pid), cpu_s(job.pid)
        waiting = subprocess.Popen([*ask, "nodes"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        until = time.monotonic() + 20
        said = ""
        while "RLIMIT_NOFILE" not in said and time.monotonic() < until:
            time.sleep(0.01)
            err.seek(0)
            said = err.read()
        check(re.search(r"nu_launch: nu_ctl has to wait: .*RLIMIT_NOFILE of nu_launch is \d+", said), f"operators: {said}")
        time.sleep(1)  # in which a launcher that spins would use a processor
        check(cpu_s(job.pid) - before < 0.3, f"operators: the launcher used {cpu_s(job.pid) - before:.2f} s of processor time")
        check(waiting.poll() is None, "operators: answered without a descriptor")
        set_limit(job.pid, was)
        for s in silent:
            s.close()
        try:
            out = waiting.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            waiting.kill()
            out = "it waits for ever"
        check(waiting.returncode == 0 and "up" in out, f"operators: afterwards {out}")
        with open(f"/proc/{job.pid}/task/{job.pid}/children") as f:
            pids = [int(pid) for pid in f.read().split()]
        was = [set_limit(pid, 8) for pid in pids]  # below all that are free, not below what is polled
        check(run(*ask, "nodes").returncode == 0, "operators: nodes")
        r = run(*ask, "stats")
        check(r.returncode == 0 and len(re.findall(r"^node \d:", r.stdout, re.M)) == 3, f"operators: stats: {r.stdout}")
        for pid, soft in zip(pids, was):
            set_limit(pid, soft)
        for to in "2", "0", "1":
            r = run(*ask, "migrate", counter, to)
            check(r.returncode == 0 and f"is at node {to}" in r.stdout, f"operators: migrate: {r.stdout}")
        open(end, "w").close()
        out = job.communicate(timeout=60)[0]
        check(job.returncode == 7 and out.strip().endswith("good"), f"operators: the job ended with {job.returncode}: {out} {said}")


for link in "tcp", "shm":
    for how in "cma", "am":
        nodes(link, how)
with tempfile.TemporaryDirectory() as tmp_dir:
    operators(tmp_dir)
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
