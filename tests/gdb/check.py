#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""core/nu-gdb.py on a live process and on its core file: usage: check.py DEBUGGEE NU-GDB.PY"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

passed = failed = 0


def check(name, ok, text):
    global passed, failed
    if ok:
        passed += 1
        return
    failed += 1
    print(f"FAIL {name}\n" + "\n".join("     | " + line for line in text.split("\n")[-80:]))


def gdb(script, commands, program, core=None):
    cmd = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", f'source {script}']
    for c in commands:
        cmd += ["-ex", c]
    cmd += [program] + ([core] if core else [])
    env = dict(os.environ, NU_CORES="1", UCX_MEM_EVENTS="n")
    run = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                         timeout=200)
    return run.stdout.decode(errors="replace")


def section(text, begin, end):
    return text.split(begin, 1)[-1].split(end, 1)[0]


def stacks(text):
    """From 'nu bt all': headline -> stack."""
    parts = re.split(r"^(thread 0x[0-9a-f]+ of proclet .*)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def check_view(where, text):
    """What must be seen, in the process and in the core alike."""
    node = section(text, "== node", "== proclets")
    check(f"{where}: node", "node 0 of 1, 1 core" in node and "core 0: kernel thread" in node, text)
    lines = section(text, "== proclets", "== threads").split("\n")
    rooms = [line for line in lines if re.match(r"0x[0-9a-f]+ +room +present +\d+", line)]
    check(f"{where}: proclets", len(rooms) == 3 and any("(main)" in line for line in lines), text)
    threads = section(text, "== threads", "== bt")
    for want in ("waits: sync; method room.wait", "waits for room.wait of 0x", "method room.wait_in",
                 "method room.compute", "waits: sleep; thread sleeper", "running on core 0"):
        check(f"{where}: threads: {want}", want in threads, text)
    by_thread = stacks(section(text, "== bt", "== end"))
    for head, frames in (("method room.wait", ["waiting_hall", "room_do_wait"]),
                         ("method room.wait_in", ["room_do_wait_in"]),
                         ("method room.compute", ["counting_house", "room_do_compute"]),
                         ("thread sleeper", ["sleeper"]),
                         ("thread caller_of_wait_in", ["caller_of_wait_in"]),
                         ("running on core 0", ["all_are_in", "debuggee_main"])):
        found = [s for h, s in by_thread.items() if h.endswith(head) or head in h.split("): ")[-1]]
        good = any(all(re.search(rf"^#\d+ .*\b{f}\b", s, re.M) for f in frames) for s in found)
        check(f"{where}: bt {head}", good, text)
    sleeps = [s for h, s in by_thread.items() if h.endswith("thread sleeper")]
    check(f"{where}: frames count from 0", bool(sleeps) and sleeps[0].lstrip().startswith("#0 "), text)


LOOK = ["echo == node\\n", "nu node", "echo == proclets\\n", "nu proclets", "echo == threads\\n", "nu threads",
        "echo == bt\\n", "nu bt all", "echo == end\\n"]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if not shutil.which("gdb"):
        print("SKIP gdb is not installed\n0 passed, 0 failed, 1 skipped")
        return 77
    program, script = sys.argv[1:]
    with tempfile.TemporaryDirectory() as tmp:
        core = os.path.join(tmp, "core")
        live = gdb(script, ["break all_are_in", "run"] + LOOK +
                   [f"generate-core-file {core}", "nu thread off", "delete", "continue"], program)
        check_view("live", live)
        check("live: it goes on", "the debuggee ran to its end" in live and "exited normally" in live, live)
        check("core file", os.path.exists(core), live)
        if not os.path.exists(core):
            return finish()
        dead = gdb(script, LOOK, program, core)
        check_view("core", dead)
        hall = re.search(r"^(0x[0-9a-f]+) .*waits: sync; method room\.wait$", dead, re.M)
        text = gdb(script, [f"nu thread {hall.group(1)}"] + ["up"] * 6 + ["bt", "frame function waiting_hall",
                   "print r->secret", "nu thread off", "bt", "nu bt 0x1234"], program, core) if hall else dead
        check("core: a frame's locals", "= 4711" in text, text)
        check("core: off", "all_are_in" in text.split("= 4711")[-1], text)
        check("core: no such thread", "no thread at 0x1234" in text, text)
    return finish()


def finish():
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


sys.exit(main())
