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

# Signals to itself.
KILLED = r"^nu_launch: node 1 .*was killed by signal {} .*before the job's end"
RAISED = r"^nu: node \d: SIG{} is raised in thread 0x\w+ of proclet 0x\w+, method ends\.act: the node ends by it$"
for name, signo in ("INT", 2), ("TERM", 15), ("XFSZ", 25), ("USR1", 10):
    check(f"raise(SIG{name})", job("method", "raise", str(signo)), 128 + signo, [RAISED.format(name), KILLED.format(signo)], ["it went on"])
    check(f"raise(SIG{name}), alone", alone("method", "raise", str(signo)), -signo, [RAISED.format(name)], ["it went on"])
check("raise(SIGCHLD)", job("method", "raise", "17"), 0, [r"^raise: 0$", r"^it went on: no error$"], ["is raised"])
check("raise() of a signal with a handler", alone("handler", "raise", "10"), 0, [r"^handled 10$", r"^raise: 0$"], ["is raised"],
      also=lambda j: None if j.text.index("handled") < j.text.index("raise: 0") else "raise() returned first")
check("raise(SIGABRT)", job("method", "raise", "6"), 134, [r"SIGABRT in thread .* method ends\.act", KILLED.format(6)])
check("a write beyond RLIMIT_FSIZE", job("method", "fsize"), 0, [r"^write: File too large$", r"^it went on: no error$"], ["killed|SIG"])
check("a write into a broken pipe", job("method", "pipe"), 0, [r"^write: EPIPE$", r"^it went on: no error$"], ["killed|SIG"])
check("RLIMIT_CPU", job("method", "cpu"), 152, [KILLED.format(24)], ["it went on"])
for where in "method", "thread":
    WHO = r"^nu: node 1: pthread_exit\(\) in thread 0x\w+ of proclet 0x\w+" + (r", method ends\.act" if where == "method" else "")
    for prog in [PROG, *STATIC]:
        check(f"pthread_exit() in {where}{', libnu.a' if prog != PROG else ''}", job(where, "pthread-exit", prog=prog), 134,
              [WHO + ": a proclet's thread ends when its function returns$"], ["it went on"])
check("pthread_exit() in a kernel thread", job("pthread", "pthread-exit", options=["--time-out", "1"]), 124, [], ["SIG|pthread_exit"])
done()
