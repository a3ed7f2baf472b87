#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Crashes: each is named (node, thread, proclet, class, method, where), ends its node as it should, and the job too."""
import re
import subprocess
import sys

from abuse import Job, check, done

LAUNCH, PROG = sys.argv[1:3]
WHO = r"^nu: node 1: {} in thread 0x[0-9a-f]+ of proclet 0x[0-9a-f]+ \(class bad\), method bad\.act"
ENDS = r"^nu_launch: node 1 \(pid \d+\) was killed by signal {} .*before the job's end"


def job(*args, options=(), env=None):
    return Job([LAUNCH, "-n", "2", "--cores", "1", "--no-prefix", "--time-out", "25", *options, PROG, *args], env)


def one(what, signo, who, *more, frames=(), says=(), **kw):
    """A method of a proclet on node 1."""
    check(f"method {what} {' '.join(more)}", job("method", what, *more), 128 + signo, [WHO.format(who), ENDS.format(signo), *says] +
          [rf"^nu: node 1:   #\d+ {f}[.\w]*\+0x[0-9a-f]+ \(" for f in frames], within_s=15, **kw)


def fits_addr2line(j):
    """The offset of frame 0 is what addr2line wants."""
    found = re.search(r"#0 (\w+)\+0x[0-9a-f]+ \(abuse_crash\+(0x[0-9a-f]+)\)", j.text)
    if not found:
        return "no frame 0 in the program"
    try:
        out = subprocess.run(["addr2line", "-f", "-e", PROG, found[2]], stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        return None
    return None if "go_wrong" in out and "crash.c" in out else f"addr2line says {out!r} of {found[2]}"


one("null", 11, "SIGSEGV at 0x8", "8", frames=["go_wrong"], also=fits_addr2line)
one("call-null", 11, "SIGSEGV at 0x0", frames=["go_wrong"])
one("bus", 7, "SIGBUS at 0x[0-9a-f]+", frames=["bus_error"])
one("ill", 4, "SIGILL at 0x[0-9a-f]+", frames=["go_wrong"])
one("fpe", 8, "SIGFPE at 0x[0-9a-f]+", frames=["go_wrong"])
one("abort", 6, "SIGABRT", frames=["go_wrong"])
one("raise", 11, "SIGSEGV", frames=["go_wrong"])
one("library", 11, "SIGSEGV at 0x10", "16", says=[r"method bad.act, in code of libc"], frames=["go_wrong"])
one("foreign-read", 11, "SIGSEGV at 0x[0-9a-f]+", says=["that address is in the heap of proclet 0x[0-9a-f]+, which is on node 0"])
one("stray-read", 11, "SIGSEGV at 0x[0-9a-f]+", says=["that address is where heaps lie, and no proclet's that this node knows of"])
check("a moved thread crashes in a library", job("moved", "library", "16"), 139,
      [r"^nu: node 0: SIGSEGV at 0x10 in thread \w+ of proclet \w+ \(class bad\)", "this thread has moved; what a library kept"])
OVER = "stack overflow"
LIMIT = [r"stacks have 64 KiB: NU_STACK_KIB"]
one("recurse", 11, OVER, says=LIMIT, frames=["recurse"])
for kib in "80", "128", "512", "900":
    one("frame", 11, OVER, kib, says=LIMIT, frames=["large_frame"])
check("frame that fits", job("method", "frame", "40"), 0, [r"^it went well"])
check("frame that fits a larger stack", job("method", "frame", "512", env={"NU_STACK_KIB": "1024"}), 0, [r"^it went well"])
check("frame beyond a larger stack", job("method", "frame", "1100", env={"NU_STACK_KIB": "1024"}), 139,
      [WHO.format(OVER), r"stacks have 1024 KiB"])
check("thread overflows", job("thread", "recurse"), 139,
      [r"^nu: node 1: stack overflow in thread \w+ of proclet \w+ \(class bad\), begun at waits_and_acts\+0x0 ", *LIMIT])
for what, who in ("recurse", "stack overflow"), ("frame", "stack overflow"), ("null", "SIGSEGV at 0x80"):
    check(f"moved thread {what}", job("moved", what, "128"), 139,
          [rf"^nu: node 0: {who} in thread \w+ of proclet \w+ \(class bad\), begun at waits_and_acts"])
check("main", job("main", "null"), 139, [r"^nu: node 0: SIGSEGV at 0x0 in thread \w+ of proclet \w+, begun at main_body"])
for what, signo in ("recurse", 11), ("frame", 11), ("null", 11), ("abort", 6):
    check(f"the others go on after {what}", job("other", what, "512" if what == "frame" else "0", options=["--keep-going"]), 0,
          [rf"^nu_launch: node 1 \(pid \d+\) was killed by signal {signo} .*; the others go on",
           r"^the call said .*EHOSTDOWN", r"^another proclet says 42"], within_s=15)
check("plain kernel thread", job("pthread", "null", "64"), 139,
      [r"^nu: node 0: SIGSEGV at 0x40 in kernel thread \d+ \(.*\), which runs no proclet", r"#0 go_wrong"])
for what, signo, name in ("null", 11, "SIGSEGV at 0x18"), ("abort", 6, "SIGABRT"):
    check(f"node_init {what}", job("init", what, "24"), 128 + signo,
          [rf"^nu: node 1: {name} in kernel thread \d+ \(.*\), which runs no proclet", r"#\d+ node_init\+0x",
           ENDS.format(signo)], within_s=15)
for what, size in ("recurse", "0"), ("frame", "9000"):
    check(f"node_init {what}", job("init", what, size), 139,
          [r"^nu: node 1: stack overflow in kernel thread \d+ \(.*\), which runs no proclet \(its stack has \d+ KiB: RLIMIT_STACK\)",
           ENDS.format(11)], within_s=15)
# The report itself meets what is no memory: it ends there.
for wild in "0x4141414141414140", "0x10", "0x200000000000":
    one("smash", 11, "SIGSEGV at 0x[0-9a-f]+", wild, says=[r"^nu: node 1: \(no more is known of it: its memory is spoilt\)"])
check("alone", Job([PROG, "method", "null"]), -11, [r"^nu: node 0: SIGSEGV at 0x0 in thread .*method bad.act"])
check("the program's own handler", job("main", "null", env={"OWN_HANDLER": "1"}), 17, [r"^the program's own handler"],
      [r"SIGSEGV at"])

# The heap.
one("double-free", 6, "SIGABRT", says=[r"heap of proclet \w+.*freed twice"], frames=["go_wrong"])
one("big-free", 6, "SIGABRT", says=[r"heap of proclet \w+.*freed twice"], frames=["go_wrong"])
one("foreign-free", 6, "SIGABRT", says=[r"proclet \w+ frees, .* a block of proclet 0x[0-9a-f]+"], frames=["go_wrong"])
one("inner-free", 6, "SIGABRT", says=[r"heap of proclet \w+.*inside a block"], frames=["go_wrong"])
one("overflow", 6, "SIGABRT", says=[r"heap of proclet \w+.*written after it was freed, or its neighbour overran"])
one("used-after", 6, "SIGABRT", says=[r"heap of proclet \w+.*written after it was freed, or its neighbour overran"])

# Globals.
one("global", 11, "SIGSEGV at 0x[0-9a-f]+", says=[r"the global variable 'a_global'.*node_init.*writable_globals"],
    frames=["go_wrong"])
check("global in main", job("main", "global"), 139, [r"^nu: node 0: .*the global variable 'a_global'"])
check("global, alone", Job([PROG, "method", "global"]), -11, [r"the global variable 'a_global'"])
check("global, opted out", job("method", "global", env={"WRITABLE": "1"}), 0, [r"^it went well"])
done()
