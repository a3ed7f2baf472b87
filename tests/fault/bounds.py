#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bounds.c over each transport, and what it says of the segments.

usage: bounds.py NU_LAUNCH BOUNDS
"""
import re
import subprocess
import sys

launch, program = sys.argv[1:3]
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"bounds.py: {what}", flush=True)


for transport, args in ("shm", []), ("tcp", ["held"]):
    r = subprocess.run([launch, "-n", "3", "--cores", "2", "--no-prefix", "--time-out", "80", "--transport", transport, program,
                        *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       errors="replace", timeout=100)
    print("".join(f"{line}\n" for line in r.stdout.split("\n") if re.match("ok|FAIL|     ", line)), end="", flush=True)
    check(r.returncode == 0, f"{transport}: status {r.returncode}\n{r.stdout[-4000:]}")
    if not args:
        used = re.search(r"(\d+) segments are all", r.stdout)
        # The tests' own agents have segments, too.
        check(used and re.search(rf"controller: no segment of 1 MiB is free: {int(used[1]) + 3} segments are in use, 0 of them "
                                 r"freed ones .*; of \d+ MiB of segment space 0 are free", r.stdout),
              f"nothing says how many segments there are:\n{r.stdout[-4000:]}")
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
