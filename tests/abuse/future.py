#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Futures that were not waited for: each is named, and nothing is written where it was; those that were are as ever."""
import sys

from abuse import Job, check, done

LAUNCH, PROG = sys.argv[1:3]
GONE = r"^nu: node 0: proclet 0x\w+: the future of {}, thread 0x\w+, is gone: .*\(no error\) is dropped \(NU_SCOPED_FUTURE waits by itself\)"
for by in [PROG], [LAUNCH, "-n", "2", "--cores", "1", "--no-prefix", "--time-out", "25", PROG]:
    for how, call in ("word", r"late\.word"), ("text", r"late\.text"), ("other", r"late\.other"), ("create", r"made\.init"):
        for place in [], ["left"]:
            check(" ".join([how, *place]), Job([*by, how, *place]), 0, [GONE.format(call), r"^bytes that were written: 0"], within_s=10)
    for how in "ended", "again":
        check(how, Job([*by, how]), 0, [GONE.format(r"late\.word"), r"^bytes that were written: 0"], within_s=10)
    check("well", Job([*by, "well"]), 0, [r"^bytes that were written: 0"], [r"is gone"], within_s=10)
done()
