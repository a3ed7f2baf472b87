#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nu_ctl against a running job of three nodes; the accumulator on one, two and three nodes.

usage: operate.py NU_LAUNCH NU_CTL SERVE ACCUMULATOR [OPTION OF NU_LAUNCH...]
"""
import os
import re
import subprocess
import sys
import tempfile

launch, ctl_path, serve, accumulator = sys.argv[1:5]
options = sys.argv[5:]
passed = failed = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"operate.py: {what}", flush=True)


def run(*cmd):
    return subprocess.run(cmd, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


job = None


def ctl(*words):
    return run(ctl_path, "--job", str(job.pid), *words)


def nodes():
    """{node: (state, proclets)}"""
    r = ctl("nodes")
    check(r.returncode == 0, f"nodes: status {r.returncode}, {r.stderr}")
    found = re.findall(r"^\s*(\d+) (up|draining|dead)\s+(\d+)\s+(\d+)\s+\d+\s+\d+$", r.stdout, re.M)
    check(len(found) == 3, f"nodes: {r.stdout}")
    return {int(f[0]): (f[1], int(f[3])) for f in found}


def proclets(*node):
    """{id: (node, state)}"""
    r = ctl("proclets", *node)
    check(r.returncode == 0, f"proclets: status {r.returncode}, {r.stderr}")
    return {f[0]: (int(f[1]), f[2]) for f in re.findall(r"^\s*(0x[0-9a-f]+)\s+(\d+)\s+\d+\s+(\w+)\s+\d+$", r.stdout,
                                                       re.M)}


def refused(status, *words):
    r = ctl(*words)
    check(r.returncode == status and (r.stderr + r.stdout).strip(),
          f"{' '.join(words)}: status {r.returncode}, want {status}; {r.stdout}{r.stderr}")


def steer():
    pinned, counters = None, []
    for line in job.stdout:
        word, _, value = line.strip().partition(" ")
        if word == "pinned":
            pinned = value
        elif word == "counter":
            counters.append(value)
        elif word == "ready":
            break
    check(pinned and len(counters) == 4, "the job did not begin")
    if not pinned or len(counters) != 4:
        return
    r = run(ctl_path, "jobs")
    check(r.returncode == 0 and re.search(rf"^\s*{job.pid}\b.*\b3\b", r.stdout, re.M), f"jobs: {r.stdout}")
    here = proclets()
    check(all(here.get(c) == (1, "live") for c in counters), f"proclets: {here}")
    check(here.get(pinned) == (1, "pinned"), f"the pinned one: {here.get(pinned)}")
    check(set(proclets("1")) == set(counters + [pinned]), "proclets of node 1")
    for to in ("2", "0", "0"):
        r = ctl("migrate", counters[0], to)
        check(r.returncode == 0 and f"is at node {to}" in r.stdout, f"migrate: {r.stdout}{r.stderr}")
        check(proclets()[counters[0]] == (int(to), "live"), f"it is not at node {to}")
    refused(1, "migrate", pinned, "2")
    refused(1, "migrate", counters[0], "3")
    refused(1, "migrate", "0x123456789", "1")
    refused(2, "migrate", "nonsense", "1")
    refused(1, "drain", "7")
    check(proclets()[pinned] == (1, "pinned"), "the pinned one moved")
    for _ in range(3):
        r = ctl("drain", "1")
        check(r.returncode == 0 and r.stdout.startswith("3 proclets moved away from node 1"),
              f"drain: {r.stdout}{r.stderr}")
        check(nodes()[1] == ("draining", 1), f"after drain: {nodes()}")
        r = ctl("restore", "1")
        check(r.returncode == 0 and r.stdout.startswith("3 proclets moved back to node 1"),
              f"restore: {r.stdout}{r.stderr}")
        check(nodes()[1] == ("up", 4), f"after restore: {nodes()}")
    r = ctl("stats")
    check(r.returncode == 0 and len(re.findall(r"^node \d: proclets", r.stdout, re.M)) == 3, f"stats: {r.stdout}")
    moves = re.findall(r"moves: in (\d+), out (\d+), undone (\d+)", r.stdout)
    check(sum(int(m[0]) for m in moves) == sum(int(m[1]) for m in moves) == 20, f"20 moves: {moves}")
    r = ctl("stats", "2")
    check(r.returncode == 0 and re.findall(r"^node (\d)", r.stdout, re.M) == ["2"], f"stats 2: {r.stdout}")
    refused(1, "stats", "3")
    check(ctl("frobnicate").returncode in (1, 2), "an unknown command")
    check(run(ctl_path).returncode == 2, "no command")
    check(run(ctl_path, "--job", "1", "nodes").returncode == 1, "no such job")


with tempfile.TemporaryDirectory() as tmp:
    end = os.path.join(tmp, "end")
    job = subprocess.Popen([launch, "-n", "3", "--cores", "1", "--no-prefix", "--time-out", "60", *options, serve, end],
                           stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        steer()
    finally:
        open(end, "w").close()
        out = job.stdout.read()
        status = job.wait(timeout=70)
    check(status == 7 and out.strip().endswith("good"), f"the job ended with {status}: {out}")
    check(run(ctl_path, "--job", str(job.pid), "nodes").returncode == 1, "the job is over")

want = run(accumulator)
check(want.returncode == 0 and want.stdout.startswith("10\n15\n"), f"accumulator alone: {want.stdout}{want.stderr}")
for n in ("1", "2", "3"):
    r = run(launch, "-n", n, "--cores", "1", "--no-prefix", *options, accumulator)
    check((r.returncode, r.stdout, r.stderr) == (0, want.stdout, ""), f"accumulator on {n}: {r}")

print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
