#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Waits that nobody can end: each is named (who waits, for what, where), and ends the job. What only looks like one goes on."""
import sys

from abuse import Job, check, done

LAUNCH, PROG = sys.argv[1:3]
ALONE, TWO = [PROG], [LAUNCH, "-n", "2", "--cores", "1", "--no-prefix", "--time-out", "25", PROG]


def job(how, *args, by=TWO, env=None):
    return Job([*by, how, *map(str, args)], env)


# A lock that its holder wants once more.
TWICE = r"^nu: node {}: the {} at 0x\w+ is locked {}by thread 0x\w+, which holds it {}already: it would wait for itself for ever"
for by, node, status in (TWO, 1, 134), (ALONE, 0, -6):
    who = rf"^nu: node {node}: SIGABRT in thread 0x\w+ of proclet 0x\w+ \(class knot\), method knot.act"
    check("a mutex", job("mutex-twice", by=by), status,
          [TWICE.format(node, "mutex", "", ""), who, rf"^nu: node {node}:   #\d+ lock_it_twice\+0x"], within_s=10)
for how, wants, holds in (("write-twice", "writing", "writing"), ("write-read", "reading", "writing"), ("upgrade", "writing", "reading"),
                          ("read-past-writer", "reading", "reading")):
    check(f"an rwlock: {how}", job(how), 134,
          [TWICE.format(1, "rwlock", f"for {wants} ", f"for {holds} "), r"method knot.act", r"#\d+ (by_itself|knot_(do_)?act)"], within_s=10)
check("once within once", job("once"), 134, [TWICE.format(1, "mutex", "", ""), r"#\d+ \w+"], within_s=10)
for how in "mutex-timed", "read-twice", "handed-on":
    for by in TWO, ALONE:
        check(f"no deadlock: {how}", job(how, by=by), 0, [r"^it returned 0, no error"])

# By a call to oneself.
CHAIN = (r"^nu: node 1: the {} at 0x\w+ is locked {}by thread 0x\w+{}, but thread 0x\w+, which holds it, waits until that has ended: "
         "neither can go on")
for depth in 0, 1, 2, 7:
    check(f"a call to oneself, nested {depth} deep", job("call", depth), 134,
          [CHAIN.format("mutex", "", ", method knot.needs_a"), r"#\d+ knot_(do_)?needs_a"], within_s=10)
check("a call to oneself, rwlock", job("write-call"), 134,
      [CHAIN.format("rwlock", "for reading ", ""), r"method knot.needs_read", r"#\d+ knot_(do_)?needs_read"], within_s=10)
check("a thread that is joined", job("join-call"), 134, [CHAIN.format("mutex", "", ""), r"#\d+ locks_a"], within_s=10)
done()
