#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Nodes that are not alike are refused when they join, with what differs; addresses are random, and the same on all."""
import re
import sys

from abuse import Job, check, done, skip

LAUNCH, PROG, EXTRA_A, EXTRA_B, TLS = sys.argv[1:6]
REFUSED = r"^nu_launch: node \d: node {0} and node {1} are not alike: .*{2}"


def job(how, node=1, nodes=3, env=None, prog=PROG):
    return Job([LAUNCH, "-n", nodes, "--no-prefix", "--time-out", "25", prog, how, node, EXTRA_A, EXTRA_B], env)


def refused(name, what, j, pair="[0-9]"):
    """One line says it, from whichever node spoke first."""
    check(name, j, None, [REFUSED.format(pair, "[0-9]", what)], [r"it went well", r"ssertion"], within_s=10,
          also=lambda j: None if len(j.lines("are not alike")) == 1 else "said more than once")


for nodes in 2, 3:
    for node in range(nodes):
        refused(f"an object more on node {node} of {nodes}", r"object libabuse_extra_a\.so at 0x[0-9a-f]+ build-id \w+",
                job("more", node, nodes))
    refused(f"objects elsewhere on one of {nodes}", r"object libabuse_extra_\w\.so at 0x\w+ .*object libabuse_extra_\w\.so at 0x",
            job("order", 1, nodes))
    refused(f"another program on one of {nodes}", r"object \(program\) at 0x\w+ build-id", job("build", nodes - 1, nodes))
    refused(f"another register file on one of {nodes}", r"xsave features 0x\w+ bytes \d+",
            job("none", 1, nodes, env={"NU_FAULT": f"image.xsave:error=1@{nodes - 1}"}))
check("objects more, the same everywhere", job("alike"), 0, [r"^it went well"])

LATE = r"libabuse_extra_a\.so: dlopen refused: a job's nodes must have the same objects"
check("dlopen too late", job("dlopen"), 0, [LATE, r"^late: refused, dlopen refused:", r"^again: opened", r"^self: opened",
                                           r"^afterwards: opened"], [r"late: opened"])
check("dlopen too late, alone", Job([PROG, "dlopen", "0", EXTRA_A, EXTRA_B]), 0, [LATE, r"^late: refused", r"^again: opened"])

check("thread-local variables draw a warning", job("none", prog=TLS), 0,
      [r"^nu: node 0: the program has 12 bytes of thread-local variables", r"^it went well"])
check("a program without them draws none", job("none"), 0, [], ["thread-local"])


def places(j):
    found = re.findall(r"^node (\d): text (\w+) libc (\w+) libnu (\w+) stack (\w+) heap (\w+)$", j.text, re.M)
    return found if len(found) == 3 else []


jobs = [job("addresses") for _ in range(4)]
for j in jobs:
    check("addresses: the same on all nodes", j, 0, also=lambda j: None if len({p[1:4] for p in places(j)}) == 1 else "differ")
with open("/proc/sys/kernel/randomize_va_space") as f:
    random = f.read().strip() != "0"
if not random:
    skip("addresses: random", "kernel.randomize_va_space is 0")
elif all(places(j) for j in jobs):
    seen = [{places(j)[0][i] for j in jobs} for i in (1, 2, 3)]
    fixed = {int(p[4], 16) >> 44 for j in jobs for p in places(j)} | {int(p[5], 16) >> 40 >> 4 for j in jobs for p in places(j)}
    check("addresses: other ones in each job", jobs[0], 0, also=lambda _: None if all(len(s) > 1 for s in seen) else f"{seen}")
    check("addresses: the runtime's regions are where they always are", jobs[0], 0,
          also=lambda _: None if fixed <= {2, 3, 4} else f"{fixed}")
done()
