# SPDX-License-Identifier: MIT
"""What the scripts of this folder share: cases that are run by name, and programs with a bound on their time."""
import os
import signal
import subprocess
import sys


class Skip(Exception):
    pass


class Job:
    """A program that was started; its output is both streams together, unless told apart."""

    def __init__(self, cmd, env=None, cwd=None, apart=False):
        self.cmd, self.apart = [str(c) for c in cmd], apart
        self.p = subprocess.Popen(self.cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE if apart else subprocess.STDOUT, env=env, cwd=cwd,
                                  start_new_session=True)

    def end(self, timeout=60):
        try:
            out, err = self.p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.p.pid, signal.SIGKILL)
            out, err = self.p.communicate()
            raise AssertionError(f"{self.cmd} still ran after {timeout} s:\n{out.decode(errors='replace')[-3000:]}")
        self.out = out.decode(errors="replace")
        self.err = (err or b"").decode(errors="replace")
        self.status = self.p.returncode
        return self

    def must(self, status, *texts):
        """Ended with @status and said all of @texts."""
        said = self.out + self.err
        assert self.status == status, f"{self.cmd}: status {self.status}, want {status}:\n{said[-4000:]}"
        for t in texts:
            assert t in said, f"{self.cmd}: does not say {t!r}:\n{said[-4000:]}"
        return self

    def must_not(self, *texts):
        said = self.out + self.err
        for t in texts:
            assert t not in said, f"{self.cmd}: says {t!r}:\n{said[-4000:]}"
        return self


def run(cmd, timeout=60, **how):
    return Job(cmd, **how).end(timeout)


def main(cases):
    """@cases: functions. Prints a line for each that fails or is skipped, then the closing line."""
    passed = failed = skipped = 0
    for case in cases:
        try:
            case()
            passed += 1
        except Skip as why:
            skipped += 1
            print(f"SKIP {case.__name__}: {why}", flush=True)
        except Exception as e:  # a check that failed, or a tool that is not there
            failed += 1
            print(f"FAIL {case.__name__}: {type(e).__name__}: {e}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)
