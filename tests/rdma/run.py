#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What needs an RDMA device, in virtual machines that have one. usage: run.py BUILD [one|two [NAME...]]

Guests are costly to boot, so one is booted for all tests of a single host and a pair for those of two; in them this
program runs again (--guest), as guest.py's tests, and prints a line for each: ok NAME, FAIL NAME: why, SKIP NAME: why.
"""
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import image

HERE = pathlib.Path(__file__).resolve().parent
# Limits are for a busy machine of two processors. The pair's second guest is made to panic when all is done.
RUNS = {"one": {"args": [], "limit": 600, "status": 0}, "two": {"args": ["--nodes", "2", "--on", "1", "--sshd"], "limit": 600,
                                                               "status": 125}}
# What the kernel says when it is made to panic, in the order of its saying.
CONSOLE = ("sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash", "Call Trace", "sysrq_handle_crash")
VERDICT = re.compile(r"^(ok|FAIL|SKIP) ")
totals = {"ok": 0, "FAIL": 0, "SKIP": 0}


def verdict(line):
    print(line, flush=True)
    totals[line.split()[0]] += 1


def try_boot(run, build, names):
    """Runs guest.py in guests; what it prints is passed on as it comes. Returns its status, its text, and whether it ended."""
    how = RUNS[run]
    cmd = [str(HERE / "vm"), *how["args"], "--timing", "--limit", str(how["limit"]), "--", "python3", str(HERE / "guest.py"), str(build),
           run, *names]
    complete, out = False, []
    with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        for line in p.stdout:
            line = line.decode(errors="replace").rstrip("\n")
            out.append(line)
            if VERDICT.match(line):
                verdict(line)
            elif line == f"{run}: all done":
                complete = True
            elif not complete:
                print(f"  {line}", flush=True)
    return p.returncode, "\n".join(out), complete


def boot(run, build, names):
    """An emulated kernel sometimes stands still while it boots on a busy machine, before anything of ours runs: once more."""
    status, out, complete = try_boot(run, build, names)
    if not complete and re.search(r"^vm: nu\d was not up after", out, re.M):
        print("  a guest did not come up; once more", flush=True)
        status, out, complete = try_boot(run, build, names)
    if not complete:
        verdict(f"FAIL {run}: the tests did not come to their end (status {status})")
    return status, out


def check_end(run, status, out):
    """How the rig ends is one of its tests."""
    if run == "one":
        verdict(f"ok {run}: status of the command" if status == 3 else f"FAIL {run}: status {status}, not the command's")
        return
    begin = out.find("vm: nu2 crashed; the end of its console:\n")
    missing = [w for w in CONSOLE if not re.search(f"^  nu2: .*{w}", out[begin:], re.M)] if begin >= 0 else ["the report"]
    told = status == 125 and not missing
    verdict("ok two: a guest's panic is reported with its console" if told else
            f"FAIL two: of a guest's panic is not reported: {', '.join(missing)} (status {status})")
    if not told:
        print("\n".join("  " + line for line in out.split("\n")[-150:]))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build, names = pathlib.Path(sys.argv[1]).resolve(), sys.argv[3:]
    try:
        image.find()
        image.require("ib_read_bw", "ibv_devinfo", "rdma", "tc", "sshd", "ssh", "ssh-keygen")
    except image.Unavailable as e:
        print(f"skipped: {e}")
        return 77
    for run in RUNS if len(sys.argv) < 3 else [sys.argv[2]]:
        status, out = boot(run, build, names)
        check_end(run, status, out)
    print(f"{totals['ok']} passed, {totals['FAIL']} failed, {totals['SKIP']} skipped")
    return 1 if totals["FAIL"] or not totals["ok"] else 0


sys.exit(main())
