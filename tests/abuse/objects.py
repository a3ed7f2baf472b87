#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program with libnu.a whose shared object brings libnu.so: two runtimes in one process are refused at the start."""
import sys

from abuse import Job, check, done

LAUNCH, PROG, OBJECT = sys.argv[1:4]

SAID = r"linked with libnu\.a, but a shared object has brought .*libnu\.so.*: link both with libnu\.so"
check("two runtimes, two nodes", Job([LAUNCH, "-n", 2, "--no-prefix", "--time-out", "25", PROG, OBJECT]), None, [SAID], ["created_by"])
check("two runtimes, alone", Job([PROG, OBJECT]), None, [SAID], ["created_by"])
done()
