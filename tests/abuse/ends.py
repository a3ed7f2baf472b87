#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How a program may end: by exit() anywhere, by signals, by mistake. The status is the job's, and what a normal end sets off
runs once on each node."""
import sys

from abuse import Job, check, done

LAUNCH, PROG, *STATIC = sys.argv[1:]
BAD = r"died|killed|SIG|did not leave|it went on"


def job(*args, prog=PROG, options=()):
    return Job([LAUNCH, "-n", "2", "--cores", "1", "--no-prefix", "--time-out", "20", *options, prog, *args])


def alone(*args, prog=PROG):
    return Job([prog, *args], {"NU_CORES": "1"})


def once(j, *what, nodes=2):
    """Each node says each of @what with the count 1, and nothing else of the kind."""
    want = sorted(f"node {n}: {w}" for n in range(nodes) for w in what)
    got = sorted(j.lines(r"^node \d: .*(atexit|destructor|at_quick_exit) \d$"))
    return None if got == want else f"said {got}, want {want}"


def ends(name, j, status, *what, nodes=2, says=()):
    check(name, j, status, says, [BAD], within_s=10, also=lambda j: once(j, *what, nodes=nodes))


ALL = "atexit 1", "destructor 1"
for prog in [PROG, *STATIC]:
    kind = "" if prog == PROG else ", libnu.a"
    for where in "method", "thread", "main", "pthread":
        ends(f"exit(3) in {where}{kind}", job(where, "exit", "3", prog=prog), 3, *ALL,
             says=[rf"^nu_launch: the program called exit\(3\) on node {int(where in ('method', 'thread'))}: the job ends"])
        ends(f"exit(3) in {where}, alone{kind}", alone(where, "exit", "3", prog=prog), 3, *ALL, nodes=1)
    ends(f"exit(0) in method{kind}", job("method", "exit", "0", prog=prog), 0, *ALL)
    ends(f"errx(4) in method{kind}", job("method", "err", "4", prog=prog), 4, *ALL, says=["the program gives up"])
    ends(f"errx(4) in main, alone{kind}", alone("main", "err", "4", prog=prog), 4, *ALL, nodes=1)
    ends(f"exit(5) in a signal's handler, alone{kind}", alone("first", "exit", "5", prog=prog), 5, *ALL, nodes=1)
    ends(f"exit(2) before nu_run{kind}", job("before", "exit", "2", prog=prog), 2, *ALL)
ends("exit(2) before nu_run, alone", alone("before", "exit", "2"), 2, *ALL, nodes=1)
ends("exit(5) in a signal's handler", job("first", "exit", "5"), 5, *ALL)
check("exit(3), and atexit() just before", alone("method", "late", "3"), 3, [r"late atexit 1", r": atexit 2", "destructor 1"], [BAD])
check("exit(6) in node_init", job("init", "exit", "6"), 6, [r"^node 1: destructor 1$"], [r"SIG|it went on"])
check("exit(3), the others go on", job("method", "exit", "3", options=["--keep-going"]), 0,
      [r"node 1 .*exited with status 3; the others go on", r"^it went on: EHOSTDOWN"], [r"SIG|killed"], also=lambda j: once(j, *ALL))
ends("quick_exit(3) in method, alone", alone("method", "quick", "3"), 3, "at_quick_exit 1", nodes=1)
check("quick_exit(3) in method", job("method", "quick", "3"), 3, [r"^node 1: at_quick_exit 1$", r"^node 0: destructor 1$"], [BAD])
check("_exit(3) in method", job("method", "at-once", "3"), 3, [r"node 1 .*exited with status 3 before the job's end"], [r"SIG|it went on"])
check("exit(7) in a child", job("method", "child", "7"), 0, [r"^the child's status: 7$", r"^it went on: no error"],
      [r"SIG|died"], also=lambda j: once(j, *ALL))
done()
