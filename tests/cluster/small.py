#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The small samples say what they should, alone and on two nodes. usage: small.py NU_LAUNCH PROGRAM..."""
import pathlib
import subprocess
import sys

# What each prints on so many nodes.
SAYS = {
    "futures": {n: "the numbers below 1000000 add up to 499999500000\n" for n in (1, 2)},
    "hello": {n: "hello world, you are number 1\nhello moon, you are number 2\n" for n in (1, 2)},
    "kept": {n: "the cells hold 15\n" for n in (1, 2)},
    "moved": {n: f"now on node {n - 1}, and its count is right\n" for n in (1, 2)},
}

launch, *programs = sys.argv[1:]
passed = failed = 0
for program in programs:
    for nodes in (1, 2):
        cmd = [program] if nodes == 1 else [launch, "-n", str(nodes), "--cores", "1", "--no-prefix", "--time-out", "30", program]
        r = subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if (r.returncode, r.stdout, r.stderr) == (0, SAYS[pathlib.Path(program).name][nodes], ""):
            passed += 1
        else:
            failed += 1
            print(f"{' '.join(cmd)}: status {r.returncode}, said {r.stdout!r}, and on stderr {r.stderr!r}")
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
