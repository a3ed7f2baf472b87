#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A death, a stop or an error at every fault point of a move, a creation, an end, a drain and a call.

usage: run.py NU_LAUNCH FAULT [--seed N] [--jobs N] [--transport T] [--only TEXT] [--cores N]

A case is a job of four nodes (fault.c says who does what) in which the fault hits one point once. It fails if the
program finds anything wrong, if it does not end in time or with the right status, or if the point was not reached. A
point that no case covers fails the run. With a seed, delays at other points of the same scenario widen the races.
"""
import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

SOURCE, DEST, BY = 1, 2, 3
VICTIMS = (SOURCE, DEST, BY)
JOB_S_MAX = 60
NODE_0_S_MAX = 15  # the job ends when node 0 dies
ENOMEM = 12

# Of each scenario: its points, where they are passed there, and what else it takes to get there.
FAILS = "move.handed#1:error=5@2"
SLOW_READ = "move.read:delay=5000@2"
SCENARIOS = {
    "move": {
        "move.claimed": (SOURCE, ""), "move.begun": (SOURCE, ""), "move.entered": (DEST, ""),
        "move.reserved": (DEST, ""), "move.prepared": (SOURCE, ""), "move.paused": (SOURCE, ""),
        "move.handed": (DEST, ""), "move.reading": (DEST, ""), "move.read": (DEST, ""), "move.resumed": (DEST, ""),
        "move.pulled": (SOURCE, ""),
        "move.noted": (SOURCE, ""), "move.relinquished": (DEST, ""), "move.settled": (DEST, ""),
        "move.confirmed": (SOURCE, ""), "move.released": (SOURCE, ""), "move.ended": (SOURCE, ""),
        "move.undone": (SOURCE, FAILS), "move.aborted": (DEST, FAILS),
        "call.sent": (BY, ""), "call.held": (SOURCE, SLOW_READ), "call.forwarded": (SOURCE, SLOW_READ),
        "call.served": (SOURCE, ""), "call.answered": (BY, ""),
    },
    # The same moves, where the destination reads what the source offers.
    "offer": {
        "move.ahead": (SOURCE, ""), "move.offered": (SOURCE, ""), "move.handed": (DEST, ""), "move.reading": (DEST, ""),
        "move.read": (DEST, ""),
        "move.pulled": (SOURCE, ""), "move.relinquished": (DEST, ""), "move.confirmed": (SOURCE, ""),
        "move.withdrawn": (SOURCE, ""),
    },
    "create": {
        "create.placed": (SOURCE, ""), "create.asked": (DEST, ""), "create.laid_out": (DEST, ""),
        "create.constructed": (DEST, ""), "create.answered": (SOURCE, ""), "create.ready": (SOURCE, ""),
    },
    "retire": {"retire.begun": (SOURCE, ""), "retire.unmapped": (SOURCE, ""), "retire.freed": (SOURCE, "")},
    "drain": {"drain.begun": (0, ""), "drain.placed#3": (0, ""), "drain.moved#3": (0, "")},
}
RUNS_AS = {"offer": ("move", ["--reader", "am-offer"])}  # fault.c's name of it, and the launcher's options
CAN_FAIL = ("move.claimed", "move.begun", "move.entered", "move.reserved", "move.prepared", "move.ahead", "move.paused", "move.offered",
            "move.handed", "move.reading", "move.read", "create.placed", "create.asked", "create.laid_out", "create.constructed", "drain.placed#3")
STOPS = ("move.prepared", "move.ahead", "move.paused", "move.offered", "move.handed", "move.reading", "move.read", "move.pulled",
         "move.noted", "move.relinquished", "move.confirmed", "move.withdrawn", "create.asked", "create.answered", "retire.unmapped", "call.served")
NODE_0_DIES = ("move.paused", "move.pulled", "move.relinquished", "create.asked", "retire.begun", "call.served",
               "drain.begun")
# Two nodes die at once: the death of the one is still being handled when the other's is heard of.
TWO_DIE = ("move.begun", "move.paused", "move.handed", "move.pulled", "move.relinquished", "move.ended", "call.served",
           "create.constructed", "retire.unmapped", "drain.moved#3")
PAIRS = ((SOURCE, DEST), (SOURCE, BY), (DEST, BY))
COVERED = ("move.", "create.", "retire.", "drain.", "call.")


class Case:
    def __init__(self, scenario, point, at, more, kind, *args):
        self.scenario, self.point, self.kind, self.args = scenario, point, kind, args
        nth = point if "#" in point else point + "#1"
        acts = ["stop"] if kind == "stop" else [f"{kind}={arg}" for arg in sorted(args, key=lambda a: a == at)]
        self.rules = [r for r in [more] + [f"{nth}:{act}@{at}" for act in acts] if r]
        self.name = f"{scenario} {point} {kind} {' '.join(map(str, args))}"

    def widen(self, rng):
        """Delays at other points of the scenario."""
        points = [(p, at) for p, (at, _) in SCENARIOS[self.scenario].items() if "#" not in p and p != self.point
                  and not p.startswith("call.")]
        for p, at in rng.sample(points, min(2, len(points))):
            self.rules.append(f"{p}#1:delay={rng.choice((300, 2000, 12000))}@{at}")


def cases():
    for scenario, points in SCENARIOS.items():
        for point, (at, more) in points.items():
            for victim in VICTIMS:
                yield Case(scenario, point, at, more, "kill", victim)
            if point in TWO_DIE:
                for pair in PAIRS:
                    yield Case(scenario, point, at, more, "kill", *pair)
            if point in NODE_0_DIES:
                yield Case(scenario, point, at, more, "kill", 0)
            if point in CAN_FAIL:
                yield Case(scenario, point, at, more, "error", ENOMEM)
            if point in STOPS:
                yield Case(scenario, point, at, more, "stop", at)


def uncovered(program):
    out = subprocess.run([program, "names"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    points = {p.split("#")[0] for s in SCENARIOS.values() for p in s}
    wrong = [f"{p}: no such point" for p in sorted(points - set(out))]
    return wrong + [f"{p}: no scenario covers it" for p in out if p.startswith(COVERED) and p not in points]


def judge(case, status, out, took, log):
    """What is wrong with a run, if anything."""
    point = case.point.split("#")[0]
    if not re.search(rf"^\d+ {re.escape(point)} {case.kind} ", log, re.M):
        return "the point was not reached"
    if status is None:
        return f"still ran after {took:.0f} s"
    if case.kind == "kill" and case.args == (0,):
        if status == 0:
            return "node 0 died and the job ended with status 0"
        if not re.search(r"^nu_launch: .*node 0", out, re.M):
            return "nothing says that node 0 died"
        return None if took < NODE_0_S_MAX else f"it took {took:.0f} s to end without node 0"
    if status != 0 or not re.search(r"^1 passed, 0 failed, 0 skipped$", out, re.M):
        return f"status {status}"
    return None


def run(case, args):
    with tempfile.TemporaryDirectory() as tmp:
        log = pathlib.Path(tmp) / "log"
        scenario, options = RUNS_AS.get(case.scenario, (case.scenario, []))
        cmd = [args.nu_launch, *options, "-n", "4", "--cores", str(args.cores), "--keep-going", "--transport", args.transport,
               "--time-out", str(JOB_S_MAX), args.program, scenario, ";".join(case.rules), case.kind,
               *map(str, case.args)]
        env = dict(os.environ, NU_FAULT_LOG=str(log), UCX_MEM_EVENTS="n", UCX_LOG_LEVEL="fatal")
        env.pop("NU_FAULT", None)
        begin = time.monotonic()
        with open(pathlib.Path(tmp) / "out", "w+", errors="replace") as out:
            job = subprocess.Popen(cmd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            try:
                status = job.wait(JOB_S_MAX + 10)
            except subprocess.TimeoutExpired:
                job.kill()  # its nodes end with it
                job.wait()
                status = None
            out.seek(0)
            text = re.sub(r"^\[\d+\] (?=\d+ passed)", "", out.read(), flags=re.M)
        took = time.monotonic() - begin
        wrong = judge(case, status, text, took, log.read_text() if log.exists() else "")
    return case, wrong, text, took


def main():
    p = argparse.ArgumentParser()
    p.add_argument("nu_launch")
    p.add_argument("program")
    p.add_argument("--seed", type=int)
    p.add_argument("--jobs", type=int, default=3)
    p.add_argument("--cores", type=int, default=1)
    p.add_argument("--transport", default="shm")
    p.add_argument("--only", default="")
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    bad = uncovered(args.program)
    print("\n".join("FAIL " + line for line in bad), flush=True)
    passed, failed = 0, len(bad)
    todo = [c for c in cases() if re.search(args.only, c.name)]
    if args.seed is not None:
        rng = random.Random(args.seed)
        for c in todo:
            c.widen(rng)
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for case, wrong, text, took in pool.map(lambda c: run(c, args), todo):
            passed += not wrong
            failed += bool(wrong)
            if wrong or args.verbose:
                print(f"{'FAIL' if wrong else 'ok  '} {case.name}: {wrong or ''} ({took:.1f} s)\n"
                      f"     rules: {';'.join(case.rules)}")
            if wrong:
                print("\n".join("     | " + line for line in text.rstrip().split("\n")[-25:]), flush=True)
    print(f"{len(todo)} cases in {time.monotonic() - begin:.0f} s")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


sys.exit(main())
