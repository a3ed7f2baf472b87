#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A pthread mutex held over a call in which its thread waits: the cause is said where it shows."""
import sys

from abuse import Job, check, done

LAUNCH, PROG = sys.argv[1:3]


def job(how, cores):
    return Job([LAUNCH, "-n", "1", "--cores", cores, "--no-prefix", "--time-out", "3", PROG, how], {"NU_PIN": "0"})


check("unlocked by another kernel thread", job("wait", "3"), 0,
      [r"^nu: node 0: the pthread mutex at 0x\w+, unlocked in unlock_it, was locked on another kernel thread: it was held over a call",
       r"^it returned Operation not permitted"])
check("a core that waits for itself", job("core", "1"), 124,
      [r"^nu: node 0: the pthread mutex at 0x\w+, locked in lock_it, is held by this core itself, on which it is now waited for"],
      within_s=15)
check("used as it may be", job("well", "2"), 0, [r"^it returned 0"], [r"pthread mutex"])
done()
