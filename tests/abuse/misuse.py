#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Misuse at run time: each way ends in an error, a line that names it, or what the caller had hoped for; never in a hang."""
import sys
import tempfile

from abuse import Job, check, done

LAUNCH, PROG = sys.argv[1:3]


def run(argv, env=None):
    with tempfile.TemporaryDirectory() as tmp:
        return Job(argv, (env or {}) | {"ABUSE_FLAG": tmp + "/flag"})


def job(*args, options=(), nodes=2):
    return run([LAUNCH, "-n", nodes, "--cores", "1", "--no-prefix", "--time-out", "25", *options, PROG, *args])


def alone(*args, env=None):
    return run([PROG, *args], env)


# From kernel threads that run no proclet. -22: EINVAL.
ALL = " ".join(f"{f} -22" for f in ("call create async get put locate migrate nodes drain stats spawn").split())
check("before, in a kernel thread, after", job("outside"), 0,
      [f"^before: {ALL}$", f"^pthread: {ALL}$", f"^after: {ALL}$", "^again: -22$"])
check("the same, alone", alone("outside"), 0, [f"^before: {ALL}$", f"^pthread: {ALL}$", f"^after: {ALL}$"])
check("a kernel thread waits for a semaphore", job("outside-waits"), 134,
      [r"^nu: node 0: a mutex, condition or its like is waited for by a kernel thread that runs no proclet",
       r"^nu: node 0: SIGABRT in kernel thread", r"outside_waits"])

# Processes. Descriptors of ours must not reach a child.
# UCX's own thread opens a timer at its leisure, perhaps after the runtime has looked.
OURS = r" ([3-9]|\d\d+) -> (socket|pipe|anon_inode:\[event)"
for how in "exec", "spawn":
    check(f"{how} in a method", job(how), 0, [r"^it returned 7, no error"], [OURS])
check("fork and exit() in a method", job("fork", "", "5"), 0, [r"^it returned 5, no error"])
check("pthread_create in a method", job("pthreads"), 0, [r"^it returned 0, no error"])
check("exit(3) in a method", job("exit", "", "3"), 3, [r"^nu_launch: the program called exit\(3\) on node 1: the job ends"],
      [r"died|killed|SIG"], within_s=5)
check("exit(0) in a method", job("exit", "", "0"), 0, [], [r"died|killed|SIG"], within_s=5)
check("exit(4) in main", job("main-exit", "", "4"), 4, [r"exit\(4\) on node 0"], [r"died|killed|SIG"], within_s=5)
check("exit(3), the others go on", job("exit", "", "3", options=["--keep-going"]), 0,
      [r"node 1 .*exited with status 3; the others go on", r"^it returned 0, EHOSTDOWN"])
check("exit(3) alone", alone("exit", "", "3"), 3, [], [r"SIG"])

# Objects.
LOCKED = r"^nu: node 1: the {} at 0x[0-9a-f]+ is unlocked, but nobody holds it"
check("unlock of a free mutex", job("unlock-free"), 134, [LOCKED.format("mutex"), "method mis.act", "#[0-9]+ mis_do_act"])
check("unlock of another's mutex", job("unlock-other"), 0, [r"is unlocked by another thread than the one that holds it"])
check("unlock of a free rwlock", job("unlock-rw"), 134, [LOCKED.format("rwlock")])
check("join twice", job("join"), 0, [r"^joined: 0, again: EINVAL.*detached: EINVAL", r"^it returned 0, no error"])
check("longjmp within a method", job("longjmp"), 0, [r"^it returned 0, no error"])

# Threads in the way.
for how in "spin", "block", "read":
    check(f"main returns, a method goes on: {how}", job(how, "end"), 21, within_s=12)
    check(f"main returns, a method goes on, alone: {how}", alone(how, "end"), 21, within_s=12)
STUCK = r"^nu: node {}: proclet 0x\w+: its thread 0x\w+, method mis\.act cannot be interrupted where it is: .*\(libc[.\w]+\+0x\w+\); {}"
THREAD = STUCK.replace(r", method mis\.act", "")
check("its end names it", job("read", "end"), 21, [STUCK.format(1, "the node leaves without it")])
check("a spinning thread moves", job("spin", "move", options=["--cores", "2"]), 22,
      [r"^move: no error, 0 moved, it is on node 0", r"^it goes on"])
check("its node is drained", job("spin", "drain", options=["--cores", "2"]), 22, [r"^drain: no error, 1 moved, it is on node 0", r"^it goes on"])
check("its last reference goes", job("spin", "drop", options=["--cores", "2"]), 22, [r"^drop: no error"], within_s=12)
check("its last reference goes, but it is in read()", alone("read-thread", "drop", env={"NU_CORES": "2"}), 22,
      [THREAD.format(0, "its proclet can neither move nor end"), r"ends, but a thread of it cannot be stopped yet",
       r"^drop: no error", THREAD.format(0, "the node leaves without it")], within_s=12)

# Handlers set, and signals blocked, in a method.
PUT_BACK = r"^nu: node 1: the program has replaced the handler of SIGURG, by which threads are interrupted: ours is put back"
for how in "replaced", "default", "ignored":
    j = job(f"handler-{how}", "move", options=["--cores", "2"])
    check(f"the handler of our signal is {how}", j, 22,
          [PUT_BACK, r"^move: no error, 0 moved, it is on node 0", r"^it goes on"], [r"died|killed"])
check("our signal is blocked", job("handler-blocked", "end", options=["--cores", "2"]), 21,
      [r"^nu: node 1: proclet 0x\w+: its thread 0x\w+, method mis\.act cannot be interrupted, since the program has blocked "
       r"SIGURG on core \d; the node leaves without it",
       r"^nu: node 1: core \d cannot be interrupted, since the program has blocked SIGURG there"],
      [r"died|killed"], within_s=12)
check("the program's own handler of a crash, set in a method", job("handler-crash-own"), 17, [r"^the program's own handler"],
      [r"SIGSEGV at"])
check("a crash whose signal is blocked", job("handler-crash-blocked"), 139, [r"^nu_launch: node 1 .*killed by signal 11"])
done()
