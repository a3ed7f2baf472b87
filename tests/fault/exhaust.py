#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What runs out while a job starts: every allocation and mapping failed in turn, and limits that are really low.

usage: exhaust.py NU_LAUNCH PROGRAM

Each job of PROGRAM either works or ends with a message and a status that is not 0, in time, and leaves no process, socket
or file behind.
"""
import concurrent.futures
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

JOB_S_MAX = 60
NTH_MAX = 400
JOBS = 2
OUT_OF_MEMORY = 256 - 12


class Result:
    def __init__(self, status, out, log, took, left):
        self.status, self.out, self.log, self.took, self.left = status, out, log, took, left


def of_session(sid):
    """Processes of a session that still run."""
    found = []
    for p in pathlib.Path("/proc").iterdir():
        if not p.name.isdigit():
            continue
        try:
            fields = (p / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == sid and fields[0] not in "ZX":
            found.append(int(p.name))
    return found


def run(cmd, env=None, limits=()):
    """One job in a session of its own, with a directory of its own for what it may leave."""
    def prepare():
        os.setsid()
        for what, value in limits:
            resource.setrlimit(what, (value, value))

    with tempfile.TemporaryDirectory() as tmp:
        log = pathlib.Path(tmp) / "log"
        (pathlib.Path(tmp) / "t").mkdir()
        full = dict(os.environ, UCX_MEM_EVENTS="n", UCX_LOG_LEVEL="fatal", NU_FAULT_LOG=str(log), TMPDIR=tmp + "/t",
                    XDG_RUNTIME_DIR=tmp + "/t")
        full.pop("NU_FAULT", None)
        full.update(env or {})
        begin = time.monotonic()
        with open(pathlib.Path(tmp) / "out", "w+", errors="replace") as out:
            job = subprocess.Popen(cmd, env=full, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                   preexec_fn=prepare)
            try:
                status = job.wait(JOB_S_MAX)
            except subprocess.TimeoutExpired:
                status = None
            took = time.monotonic() - begin
            end = time.monotonic() + 5
            left = of_session(job.pid)
            while left and time.monotonic() < end and status is not None:
                time.sleep(0.02)
                left = of_session(job.pid)
            for pid in left:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            if status is None:
                job.wait()
            out.seek(0)
            text = out.read()
        files = [str(p) for p in (pathlib.Path(tmp) / "t").rglob("*")]
        return Result(status, text, log.read_text() if log.exists() else "", took, [f"process {p}" for p in left] + files)


def wrong(r, must_fail=False):
    """What is wrong with how a job ended, if anything."""
    if r.status is None:
        return f"still ran after {r.took:.0f} s"
    if r.left:
        return "left behind: " + ", ".join(r.left)
    if re.search(r"SIGSEGV|SIGBUS|SIGABRT|signal (6|7|11)\b|assertion", r.out):
        return "it crashed"
    if r.status == 0:
        return "it should have failed" if must_fail else None
    if r.status == OUT_OF_MEMORY:
        return None  # the program's own answer to an -ENOMEM of a call: main() returned it
    if r.status < 0:
        return f"killed by signal {-r.status}"
    if not re.search(r"^(nu: |nu_launch: |\[\d+\] )\S", r.out, re.M):
        return f"status {r.status} and no message"
    return None


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def note(self, name, why, r):
        if not why:
            self.passed += 1
            return
        self.failed += 1
        print(f"FAIL {name}: {why} (status {r.status}, {r.took:.1f} s)")
        print("\n".join("     | " + line for line in r.out.rstrip().split("\n")[-20:]), flush=True)


def fail_start(tally, name, cmd, point, node):
    """Jobs with the first, second, ... reach of a point failed, until none is reached."""
    sites, nth, errors, done = set(), 1, 0, False
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        while not done and nth < NTH_MAX:
            batch = range(nth, nth + 3 * JOBS)
            nth += len(batch)
            results = pool.map(lambda n: run(cmd, {"NU_FAULT": f"{point}#{n}:error=12@{node}"}), batch)
            for n, r in zip(batch, results):
                hit = re.search(rf"^{node} {point} error 12 ?(\S*)", r.log, re.M)
                done = done or not hit
                sites.add(hit.group(1) if hit else "")
                errors += r.status != 0
                tally.note(f"{name}: {point} {n} on node {node} ({hit.group(1) if hit else 'not reached'})",
                           wrong(r), r)
    sites.discard("")
    print(f"     {name}, node {node}: {point} failed at up to {nth - 1} places, {errors} jobs ended with an error"
          + (f"; {', '.join(sorted(sites))}" if sites else ""), flush=True)


def limit(tally, name, cmd, env=None, limits=(), must_fail=False, says=None):
    r = run(cmd, env, limits)
    why = wrong(r, must_fail)
    if not why and says and r.status and not re.search(says, r.out):
        why = f"nothing says {says}"
    tally.note(name, why, r)
    line = next((l for l in r.out.split("\n") if l.startswith("nu: ")), "") if r.status else ""
    print(f"     {name}: status {r.status} {line}", flush=True)


def small_shm(cmd, size):
    """In a mount namespace of its own with so small a /dev/shm; None where that is not permitted."""
    probe = subprocess.run(["unshare", "-m", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if probe.returncode:
        return None
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={size} none /dev/shm && exec "$@"', "sh"] + cmd


def main():
    launch, program = sys.argv[1:3]
    three = [launch, "-n", "3", "--time-out", "30", program]
    tally = Tally()
    begin = time.monotonic()
    for point in "alloc", "map", "extent":
        fail_start(tally, "one node", [program], point, 0)
        for node in 0, 1:
            fail_start(tally, "three nodes", three, point, node)
    for n in 6, 12, 20, 40, 80:
        limit(tally, f"{n} descriptors", three, limits=[(resource.RLIMIT_NOFILE, n)], says="NOFILE|descriptor|files|EMFILE")
    for mib in 200, 2000, 40000:
        limit(tally, f"address space of {mib} MiB", three, limits=[(resource.RLIMIT_AS, mib << 20)])
    limit(tally, "no locked memory", three, limits=[(resource.RLIMIT_MEMLOCK, 0)])
    for size in "64k", "1m", "16m":
        cmd = small_shm(three, size)
        if cmd:
            limit(tally, f"/dev/shm of {size}", cmd)
        else:
            print("SKIP /dev/shm: no private mount namespace here")
            tally.skipped += 1
    print(f"{time.monotonic() - begin:.0f} s")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or not tally.passed else 0


sys.exit(main())
