#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""GNU C's nested functions in proclets: stacks are executable if the program asks for it, and only then."""
import sys

from abuse import Job, check, done, skip

LAUNCH, PROG = sys.argv[1:3]
if PROG == "none":
    skip("nested functions", "this compiler has none")
else:
    for name, argv in ("alone", [PROG]), ("moving", [LAUNCH, "-n", "2", "--no-prefix", "--time-out", "25", PROG]):
        check(f"nested functions, {name}", Job(argv), 0, [r"^49 came first, no error$"], ["SIG"])
done()
