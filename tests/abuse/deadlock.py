#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Waits that nobody can end: each is named (who waits, for what, where), and ends the job. What only looks like one goes on."""
import concurrent.futures
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

# Each waits for another.
SAID = (r"^nu: node 0: deadlock: every thread of the job waits for another, and nothing else is to come "
        r"\(NU_DEADLOCK=0 turns this report off\)")
LINE = r"^nu: node {}:   thread 0x\w+ of proclet 0x\w+ \({}\), {}, waits for {}, in {}"
SYMBOL = r"{}[.\w]*\+0x\w+ \(abuse_deadlock\+0x\w+\)"
BEGUN = r"begun at {}\+0x0 \(\w+[.\w]*\+0x\w+\)"
TCP = [*TWO[:1], "--transport", "tcp", *TWO[1:]]
DEADLOCKS = [
    ("cond", r"the condition at 0x\w+", []),
    ("sem", r"the semaphore at 0x\w+", []),
    ("barrier", r"the barrier at 0x\w+, where 1 of 2 are", []),
    ("group", r"the wait group at 0x\w+, 3 to go", []),
    ("join", r"the end of thread 0x\w+", [("knot", BEGUN.format("waits_for_sem"), r"the semaphore at 0x\w+", "waits_for_sem")]),
    ("crossed", r"the mutex at 0x\w+, held by thread 0x\w+",
     [("knot", BEGUN.format("locks_b_then_a"), r"the mutex at 0x\w+, held by thread 0x\w+", "locks_b_then_a")]),
]
HERE = "(by_others|knot_(do_)?act)"


def dead(what, args, by, lines):
    check(what, job(*args, by=by), 123, [SAID, *lines], [r"SIG|killed"], within_s=15)


def ends(what, how, by, **kw):
    check(f"no deadlock: {what}", job(how, by=by, **kw), 0, [r"^it returned 0, no error"], ["deadlock:"], within_s=25)


tasks = []
for how, what, more in DEADLOCKS:
    for by, node in (ALONE, 0), (TWO, 1):
        lines = [LINE.format(node, "knot", r"method knot\.act", what, SYMBOL.format(HERE))]
        lines += [LINE.format(node, cls, who, on, SYMBOL.format(at)) for cls, who, on, at in more]
        lines += [LINE.format(0, "main", BEGUN.format("main_body"), r"the call knot\.act to proclet 0x\w+", SYMBOL.format("mainfunc"))]
        tasks.append((dead, f"nobody ends a wait: {how}, {'alone' if by is ALONE else 'two nodes'}", [how], by, lines))
for by in TWO, TCP:
    for depth in 2, 7:
        lines = [LINE.format(1, "knot", r"method knot\.needs_a", r"the mutex at 0x\w+, held by thread 0x\w+", r"\w+.*"),
                 LINE.format(0, "knot", r"method knot\.pass_on", r"the call knot\.pass_on to proclet 0x\w+", r"\w+.*")]
        tasks.append((dead, f"a call to oneself by way of another node, {depth} deep", ["call", depth, "far"], by, lines))
tasks.append((dead, "a future", ["future"], TWO, [LINE.format(0, "main", BEGUN.format("main_body"), r"the end of thread 0x\w+", r"\w+.*"),
                                                  LINE.format(1, "knot", r"method knot\.act", r"the semaphore at 0x\w+", r"\w+.*")]))
for how in "sleeps", "timed", "computes", "computes-silently", "in-libc", "pthread", "handler":
    for by in ALONE, TWO:
        # The job's nodes are sent no signal from outside, and their handlers are looked at alike.
        tasks.append((ends, f"{how}, {'alone' if by is ALONE else 'two nodes'}", how, by))


def off():
    check("NU_DEADLOCK=0", job("sem", by=[LAUNCH, "-n", "2", "--cores", "1", "--no-prefix", "--time-out", "4", PROG],
                               env={"NU_DEADLOCK": "0"}), 124, [r"ran longer"], ["deadlock:"], within_s=12)
    check("a node's death may end it", job("sem", by=[LAUNCH, "-n", "2", "--cores", "1", "--keep-going", "--time-out", "4", PROG]), 124,
          [r"ran longer"], ["deadlock:"], within_s=12)


tasks.append((off,))
with concurrent.futures.ThreadPoolExecutor(10) as pool:
    for f in [pool.submit(*t) for t in tasks]:
        f.result()
done()
