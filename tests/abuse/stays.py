#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stays behind when a proclet moves: what libnu(7) says may be kept is right after it. The rest is undefined: not run here."""
import sys

from abuse import Job, check, done

LAUNCH, PROG = sys.argv[1:3]


def job(*how):
    return Job([LAUNCH, "-n", 2, "--cores", "2", "--no-prefix", "--time-out", "25", PROG, *how])


right = ["within", "pthread-mutex", "system", "popen"]
check("used within a call, or of the heap; other processes", job(*right), 0, [f"^{how}: called, node [01], right$" for how in right],
      ["it stays", "SIG"])
check("a thread on a stack of the program's own", job("own-stack"), 0,
      [r"stays: its thread 0x[0-9a-f]+, method stay\.act waits with its stack pointer 0x[0-9a-f]+ outside of its stack: .*makecontext",
       "^it stays: ETIMEDOUT", "^own-stack: called, node 0, right$"], ["makes no sense"])
done()
