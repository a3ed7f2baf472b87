# SPDX-License-Identifier: MIT
"""What the abuse suites share: running a job that is meant to go wrong, and seeing that it ended as it should.

A job must end by itself within its time, leave no process behind, and say what it is expected to say.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

totals = [0, 0, 0]
telling = threading.Lock()  # checks may come from several threads


class Job:
    """Runs @argv; `status` is negative for a signal, `text` is what it said, `left` what still ran after it."""

    def __init__(self, argv, env=None, timeout=30, cwd=None, **kw):
        mark = f"NU_ABUSE_RUN={uuid.uuid4()}"
        name, value = mark.split("=")
        full = dict(os.environ, UCX_LOG_LEVEL="error") | (env or {}) | {name: value}
        begin = time.monotonic()
        with tempfile.TemporaryFile() as out:
            p = subprocess.Popen([str(a) for a in argv], env=full, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, start_new_session=True, cwd=cwd, **kw)
            try:
                self.status = p.wait(timeout)
            except subprocess.TimeoutExpired:
                self.status = f"still ran after {timeout} s"
            self.left = leftovers(mark)
            for pid in self.left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            p.wait()
            out.seek(0)
            self.text = out.read().decode(errors="replace")
        self.seconds = time.monotonic() - begin

    def lines(self, pattern):
        return [l for l in self.text.split("\n") if re.search(pattern, l)]


def runs_with(mark):
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                env = f.read()
            with open(f"/proc/{pid}/stat") as f:
                state = f.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if mark.encode() in env.split(b"\0") and state != "Z":
            found.append(int(pid))
    return found


def leftovers(mark, within_s=5):
    """Processes of a job that has ended: those that are about to go are given the time."""
    end = time.monotonic() + within_s
    while (found := runs_with(mark)) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def check(name, job, status=None, says=(), not_says=(), also=None, within_s=None):
    """@status: a number, a set of them, or None for any but success. @also: returns what is wrong with the job."""
    wrong = []
    if status is None:
        if not isinstance(job.status, int) or job.status == 0:
            wrong.append(f"status {job.status}, want a failure")
    elif job.status not in (status if isinstance(status, (set, tuple)) else {status}):
        wrong.append(f"status {job.status}, want {status}")
    if job.left:
        wrong.append(f"left behind: processes {job.left}")
    wrong += [f"does not say /{p}/" for p in says if not re.search(p, job.text, re.M)]
    wrong += [f"says /{p}/" for p in not_says if re.search(p, job.text, re.M)]
    if within_s and job.seconds > within_s:
        wrong.append(f"took {job.seconds:.1f} s, want at most {within_s}")
    if also and not wrong:
        wrong += [w for w in [also(job)] if w]
    with telling:
        totals[1 if wrong else 0] += 1
        print(f"{'FAIL' if wrong else 'ok':4} {name:44} {job.seconds:6.1f} s", flush=True)
        if wrong:
            for w in wrong:
                print("     " + w)
            print("\n".join("     | " + l for l in job.text.rstrip().split("\n")[-40:]), flush=True)


def skip(name, why):
    totals[2] += 1
    print(f"SKIP {name}: {why}")


def done():
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    sys.exit(1 if totals[1] or not totals[0] else 0)
