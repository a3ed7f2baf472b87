#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Starts that cannot go well, or under odd parents: one line says the cause and the limit, and what is inherited does no harm."""
import os
import signal
import subprocess
import sys

from abuse import Job, check, done

LAUNCH, PROG, CTL = sys.argv[1:]


def job(*args, options=(), env=None, before=(), **kw):
    return Job([*before, LAUNCH, "-n", "2", "--cores", "1", "--time-out", "20", *options, PROG, *args], env, **kw)


def alone(*args, env=None):
    return Job([PROG, *args], {"NU_CORES": "1"} | (env or {}))


def times(n, pattern):
    return lambda j: None if len(j.lines(pattern)) == n else f"says /{pattern}/ {len(j.lines(pattern))} times, want {n}"


# node_init
FAILED = r"^nu_launch: node 1: cannot start: node_init returned {}$"
check("node_init returns -1", job("init", "-1"), 1, [FAILED.format(-1)], ["pinned"], times(1, "cannot start"))
check("node_init returns -ENOMEM", job("init", "-12"), 1, [FAILED.format(r"-12 \(Cannot allocate memory\)")])
check("node_init returns 7", job("init", "7"), 1, [FAILED.format(7)])
check("node_init returns -1, alone", alone("init", "-1"), 255, [r"^nu: node 0: cannot start: node_init returned -1$"], ["pinned"],
      times(1, "cannot start"))
CALLS = r"nu: node {}: cell\.create is called in node_init, before there is any proclet: call it from the main function"
check("node_init calls a stub", job("call"), 1, [CALLS.format(r"\d"), r"cannot start: node_init returned -22"])
check("node_init calls a stub, alone", alone("call"), 234, [CALLS.format(0), r"cannot start: node_init returned -22"])
check("node_init hangs", job("hang", env={"NU_BOOT_TIMEOUT_S": "2"}), 1,
      [r"^nu_launch: node 1 \(pid \d+\) does not return from node_init: it has been there for \d", r"did not come within 2 s \(NU_BOOT_TIMEOUT_S\)"],
      ["whether it ran"], within_s=12)

# Limits and options.
check("-m 100T", job("ok", options=["-m", "100T"]), 1,
      [r"^nu_launch: --mem: a node's budget of 104857600 MiB is above the \d+ MiB of memory"], also=times(1, "."))
check("NU_MEM=100T", alone("ok", env={"NU_MEM": "100T"}), 0, [r"^nu: node 0: NU_MEM=100T is above the \d+ MiB of memory .*: taking \d+ MiB$"])
if not os.path.exists("/dev/infiniband"):
    check("-r verbs, no device", job("ok", options=["-r", "verbs"]), 1,
          [r"^nu_launch: node \d: cannot start: --reader verbs: no RDMA: ."], also=times(1, "."))
check("a bare number as a node", job("node", "1"), 0,
      [r"^\[0\] nu: node 0: nu_options\.node is 1, not NU_NODE\(1\) or NU_NODE\(0\)$", r"create: EINVAL"])
check("a node that there is not", job("node", str(0x4E550000 + 9)), 0,
      [r"nu_options\.node is NU_NODE\(9\), nodes are numbered 0 to 1$", r"create: EINVAL"])

# A second program.
TWICE = f"{PROG} ok; {PROG} ok; echo second: $?"
check("two programs", Job([LAUNCH, "-n", "2", "--cores", "1", "--time-out", "20", "sh", "-c", TWICE + "; exec sleep 0"]), 0,
      [], [r"silent"], also=lambda j: None if len(j.lines("each program needs an nu_launch of its own")) <= 1 else "said more than once")


def two_programs():
    """The first goes on until it has been heard that the second was refused."""
    p = subprocess.Popen([LAUNCH, "-n", "2", "--cores", "1", "--time-out", "20", "sh", "-c", f"{PROG} drain; {PROG} ok; echo second: $?"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = ""
    for line in p.stdout:
        text += line
        if "second:" in line:
            break
    p.stdin.close()
    text += p.stdout.read()
    return p.wait(), text


class Done:
    def __init__(self, status, text):
        self.status, self.text, self.left, self.seconds = status, text, [], 0

    lines = Job.lines


check("the second program is told why", Done(*two_programs()), 0,
      [r"^nu: abuse_starts: the nodes of this nu_launch have been another program's.*: each program needs an nu_launch of its own$",
       r"^second: 1$"])


def drained():
    p = subprocess.Popen([LAUNCH, "-n", "2", "--cores", "2", "--time-out", "20", PROG, "drain"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "it runs" in p.stdout.readline()
    text = ""
    for node in "1", "0":
        text += subprocess.run([CTL, "--job", str(p.pid), "drain", node], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=20).stdout
    p.stdin.close()
    text += p.stdout.read()
    return p.wait(), text


check("the last node is drained", Done(*drained()), 0,
      [r"^0 proclets moved away from node 1$", r"node 0 is the last that takes proclets: it cannot be drained"], ["EINVAL", "away from node 0"])

# Text without an end.
def prompts(*options):
    """Answers each prompt when it has been seen; all that was said."""
    p = subprocess.Popen([LAUNCH, "-n", "2", "--cores", "2", "--time-out", "10", *options, PROG, "prompt"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, bufsize=0)
    text = b""
    for seen in b"20%\r", b"name? ", b"other\n", None:
        while seen is None or seen not in text:
            more = os.read(p.stdout.fileno(), 4096)
            text += more
            if not more:
                break
        if seen:
            try:
                p.stdin.write(b".")
            except BrokenPipeError:
                break
    return p.wait(), text.decode().replace("\r", "^")


j = Done(*prompts())
check("a prompt, and progress", j, 0,
      also=lambda j: None if j.text == "[0] 10%^[0] 20%^[0] name? \n[1] other\n[0] done\n" else f"said {j.text!r}")
j = Done(*prompts("--no-prefix"))
check("the same, without prefixes", j, 0, also=lambda j: None if j.text == "10%^20%^name? other\ndone\n" else f"said {j.text!r}")

# What is inherited.
ODD = ["env", "--ignore-signal=CHLD,PIPE,TERM,USR1,TTIN", "--block-signal=CHLD,TERM,SEGV,URG,USR2,INT"]
OURS = r"^\[{}\] node {}: -HUP -INT\.$"
check("signals ignored and blocked by the parent", job("signals", before=ODD), 0, [OURS.format(0, 0), OURS.format(1, 1)], [r"killed"], within_s=10)
check("the same, over hosts", Job([*ODD, LAUNCH, "--hosts", "localhost", "--cores", "1", "--time-out", "20", PROG, "signals"]), 0,
      [OURS.format(0, 0)], [r"killed"], within_s=10)


def hung_up(ignored, signo):
    """@signo is sent to the launcher, which was started to ignore it or not; then the input ends."""
    p = subprocess.Popen([*(["env", f"--ignore-signal={signo.name[3:]}"] if ignored else []), LAUNCH, "-n", "2", "--cores", "1",
                          "--time-out", "20", PROG, "drain"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = p.stdout.readline()
    p.send_signal(signo)
    if not ignored:
        text += p.stdout.read()
    p.stdin.close()
    text += p.stdout.read()
    return p.wait(), text


for signo in signal.SIGHUP, signal.SIGINT:
    check(f"{signo.name} of the launcher", Done(*hung_up(False, signo)), 128 + signo)
    check(f"{signo.name}, ignored by its parent (nohup, a script's &)", Done(*hung_up(True, signo)), 0)
done()
