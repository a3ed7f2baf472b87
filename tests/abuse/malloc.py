#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Another allocator: either proclets' blocks are in their heaps all the same, or nothing begins and one line says whose it is."""
import errno
import re
import sys

from abuse import Job, check, done, skip

LAUNCH, PROG, OWN, STATIC, ASAN, TSAN, OTHER, WRAP = sys.argv[1:9]
REFUSED = 256 - errno.ELIBBAD
FINE = r"^0 bytes are wrong, no error$"


def ways(*prog):
    return [("alone", list(prog)), ("two nodes", [LAUNCH, "-n", "2", "--no-prefix", "--time-out", "25", *prog])]


def one_line(pattern):
    """It, once, and nothing else."""
    def judge(j):
        lines = [l for l in j.text.split("\n") if l]
        return None if len(lines) == 1 and re.search(pattern, lines[0]) else f"{len(lines)} lines"
    return judge


def refused(name, pattern, prog=PROG, env=None):
    for way, argv in ways(prog):
        check(f"{name}, {way}", Job(argv, env), REFUSED if way == "alone" else 1, [pattern], [r"SIG", r"wrong"],
              also=one_line(pattern), within_s=15)


def works(name, prog, env=None):
    for way, argv in ways(prog):
        check(f"{name}, {way}", Job(argv, env), 0, [FINE], [r"SIG"])


works("the program as it is", PROG)
refused("preloaded", r"malloc\(\) is that of \S*libabuse_malloc_other\.so, .*take it out of LD_PRELOAD", env={"LD_PRELOAD": OTHER})
refused("one that passes on, preloaded", r"malloc\(\) is that of \S*libabuse_malloc_wrap\.so, .*LD_PRELOAD",
        env={"LD_PRELOAD": WRAP})
refused("the program's own", r"malloc\(\) is that of the program, .*leave it out", OWN)
refused("the C library's checking one", r"malloc\(\) in libraries is that of \S*libc_malloc_debug\.so\.0, .*LD_PRELOAD",
        env={"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"})
works("the C library's blocks filled", PROG, {"GLIBC_TUNABLES": "glibc.malloc.perturb=165"})
for name, prog, option in ("AddressSanitizer", ASAN, "address"), ("ThreadSanitizer", TSAN, "thread"):
    if prog == "none":
        skip(name, f"this compiler has no -fsanitize={option}")
        continue
    refused(name, rf"runs under {name}, .*-Db_sanitize={option}$", prog)
if STATIC == "none":
    skip("libnu.a", "this build has none")
else:
    works("libnu.a", STATIC)
    works("libnu.a, another one preloaded", STATIC, {"LD_PRELOAD": OTHER})
    works("libnu.a, one that passes on preloaded", STATIC, {"LD_PRELOAD": WRAP})
    works("libnu.a, the C library's checking one", STATIC, {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"})
done()
