#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nu_launch over "hosts" that are this machine: a script in the remote shell's place drops the host's name and runs the
command line with an environment of its own. usage: standin.py BUILD FRAMES NODE_PROG"""
import concurrent.futures
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "abuse"))
from abuse import Job, check, done, leftovers, runs_with, skip  # noqa: E402

BUILD, FRAMES, NODE = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
LAUNCH, CTL = BUILD / "ctrl/nu_launch", BUILD / "ctrl/nu_ctl"
ACCUMULATOR, KVSTORE, DENY = BUILD / "samples/accumulator", BUILD / "samples/kvstore", BUILD / "tests/abuse/abuse_deny"
RIGHT = r"\[0\] 10\n\[0\] 15\n\[0\] 25\n\[0\] 25\n"
TMP = pathlib.Path(tempfile.mkdtemp(prefix="nu hosts "))


def script(name, text):
    path = TMP / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


# What a remote shell gives: nothing of our environment but the mark by which leftovers are found.
CLEAN = f'env -i PATH="$PATH" TMPDIR={shlex.quote(str(TMP))} NU_ABUSE_RUN="$NU_ABUSE_RUN"'
RSH = script("rsh", f'shift\nexec {CLEAN} sh -c "$*"\n')


def words(path):
    return f"'{path}'"


def launch(*args, rsh=RSH, before=(), **kw):
    return Job([*before, LAUNCH, "--rsh", words(rsh), "--time-out", "60", *args], timeout=40, **kw)


def without(pattern):
    return lambda job: None if not re.search(pattern, job.text, re.M) else f"says {pattern}"


# ---- jobs that go well ----

def jobs():
    check("three hosts, four nodes", launch("--hosts", "a,b:2,c", ACCUMULATOR), 0, [RIGHT])
    check("one host", launch("--hosts", "a:2", ACCUMULATOR), 0, [RIGHT])
    check("NU_RSH", Job([LAUNCH, "--hosts", "a,b", ACCUMULATOR], env={"NU_RSH": words(RSH)}), 0, [RIGHT])
    noisy = script("noisy", f'shift\necho "Welcome! \001nu-"; echo "mind the gap" >&2\nexec {CLEAN} sh -c "$*"\n')
    check("a login shell that talks", launch("--hosts", "a,b", ACCUMULATOR, rsh=noisy), 0, [RIGHT], ["Welcome", "gap"])
    check("localhost takes no remote shell", Job([LAUNCH, "--hosts", "localhost:2", ACCUMULATOR]), 0, [RIGHT])
    check("frames return on other hosts", launch("--hosts", "a,b,c", "--no-prefix", FRAMES), 0, ["^2 passed, 0 failed"])
    check("exchange", launch("--hosts", "a:2,b,c:2", NODE, "exchange"), 0, not_says=["FAILED"],
          also=lambda j: None if len(j.lines("exchanged")) == 5 else "not all exchanged")


def demo():
    keys = TMP / "keys"
    keys.write_text("".join(f"key{i}\t{i * i}\n" for i in range(2000)))
    load = ["--file", keys, "--seconds", "2.5", "--shards", "24", "--clients", "3", "--plot", "none"]
    job = launch("--hosts", "a,b,c", "--no-prefix", KVSTORE, *load, "--drain", "1@0.4", "--restore", "1@1.4")
    check("a host is drained under load", job, 0, ["verified 2000 of 2000 keys, lost 0, wrong 0",
                                                  r"migrations [1-9]\d* proclets moved"])
    p = subprocess.Popen([LAUNCH, "--rsh", words(RSH), "--hosts", "a,b,c", KVSTORE, *load, "--drain", "none", "--restore",
                          "none"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    listed = ""
    for _ in range(1000):
        r = subprocess.run([CTL, "--job", str(p.pid), "nodes"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        listed = r.stdout + r.stderr
        if r.returncode == 0 or p.poll() is not None:
            break
        time.sleep(0.01)
    p.communicate(timeout=40)
    fake = type("Ctl", (), {"status": r.returncode, "text": listed, "left": [], "seconds": 0})
    check("nu_ctl sees the nodes of all hosts", fake, 0, [r"^ *0\b", r"^ *1\b", r"^ *2\b"])


# ---- what nodes are told ----

def told():
    hostfile = TMP / "hosts file"
    hostfile.write_text("# the cluster\na slots=2 cores=2 mem=64M\n\nb cores=3   # one slot\nc interface=127.0.0.0/8\n")
    job = launch("--hostfile", hostfile, "--mem", "128M", "--cores", "1", NODE, "info")
    check("a host file", job, 0, [r"^\[0\] node 0 of 4 cores 2 mem 67108864 .* host 0 of 3 address 127\.0\.0\.1$",
                                  r"^\[1\] node 1 of 4 cores 2 mem 67108864 .* host 0 of 3 ",
                                  r"^\[2\] node 2 of 4 cores 3 mem 134217728 .* host 1 of 3 ",
                                  r"^\[3\] node 3 of 4 cores 1 mem 134217728 .* host 2 of 3 address 127\.0\.0\.1$"], ["FAILED"])
    check("fewer nodes than slots", launch("--hosts", "a:2,b:2,c", "-n", "3", NODE, "info"), 0, ["host 1 of 2"], ["host 2"])
    env = {"NU_LOG": "error", "UCX_TEST_X": "y z", "OTHER": "one", "LD_BIND_NOW": ""}
    for name, want in (("NU_LOG", "error"), ("UCX_TEST_X", "y z"), ("OTHER", r"\(unset\)"), ("LD_BIND_NOW", "")):
        check(f"{name} is {want or 'empty'} there", launch("--hosts", "a,b", NODE, "env", name, env=env), 0,
              [rf"^\[0\] env {name}={want} in ", rf"^\[1\] env {name}={want} in "])
    check("named variables", launch("--hosts", "a,b", "-x", "OTHER", "--export", "THIRD=3 4", NODE, "env", "OTHER", env=env),
          0, [r"^\[1\] env OTHER=one in "])
    check("what the shell sets for ld.so is unset",
          launch("--hosts", "a,b", NODE, "env", "LD_BIND_NOW",
                 rsh=script("ld", f'h=$1; shift\nexec {CLEAN} LD_BIND_NOW=$h sh -c "$*"\n')), 0,
          [r"^\[0\] env LD_BIND_NOW=\(unset\)", r"^\[1\] env LD_BIND_NOW=\(unset\)"])
    job = launch("--hosts", "a,b", "--wdir", TMP, NODE, "env", "X", before=["sh", "-c", 'ulimit -Ss 4096; exec "$@"', "sh"])
    check("directory, stack limit and personality", job, 0,
          [rf"^\[1\] env X=\(unset\) in {re.escape(str(TMP))} stack limit 4194304 threads 4194304 personality 0$"])


def layout_lines(job):
    """Code, libraries, canary, pointer guard, secret; where main's own stack is depends on the environment."""
    return [(f[1], f[2], f[4], f[5], f[6]) for f in (l.split("] ", 1)[1].split() for l in job.lines("layout"))]


def layouts():
    seen = set()
    for i in range(3):
        job = launch("--hosts", "a,b,c:2", NODE, "layout")
        found = layout_lines(job)
        check(f"one layout, canary and guard ({i})", job, 0, also=lambda j: None if len(found) == 4 and len(set(found)) == 1
              else f"layouts differ: {found}")
        seen |= set(found)
    fake = type("All", (), {"status": 0, "text": str(seen), "left": [], "seconds": 0})
    check("another layout in each job", fake, 0, also=lambda j: None if len(seen) == 3 and len({s[1] for s in seen}) == 3 and
          len({s[2] for s in seen}) == 3 and len({s[3] for s in seen}) == 3 else "not random")


def streams():
    def whole(job):
        for n in range(3):
            want = [f"[{n}] node {n} line {i} " + "." * (i % 60) for i in range(3000)]
            got = [l for l in job.text.split("\n") if l.startswith(f"[{n}] node")]
            if got != want:
                return f"node {n} has {len(got)} lines"
        return None

    check("lines of all hosts stay whole", launch("--hosts", "a,b,c", NODE, "lines", "3000"), 0, also=whole)
    data = random.Random(7).randbytes(3_000_000)
    total = 0
    for b in data:
        total = (total * 31 + b) & (2**64 - 1)
    file = TMP / "input"
    file.write_bytes(data)
    job = launch("--hosts", "a,b", NODE, "stdin", before=["sh", "-c", f'exec "$@" <{shlex.quote(str(file))}', "sh"])
    check("standard input is node 0's", job, 0, [rf"^\[0\] stdin {len(data)} bytes sum {total}$", r"^\[1\] stdin 0 bytes"])
    job = launch("--hosts", "a,b", NODE, "status", "3", before=["sh", "-c", 'yes | "$@"', "sh"])
    check("input that nobody reads", job, 3)
    job = Job(["sh", "-c", f'"$@" | head -3', "sh", LAUNCH, "--rsh", words(RSH), "--hosts", "a,b", NODE, "lines", "500000"])
    check("output that nobody reads", job, 0)


# ---- ends ----

def statuses():
    check("status of main", launch("--hosts", "a,b", NODE, "status", "7"), 7)
    check("a program that only prints", launch("--hosts", "a,b", NODE, "exit", "5"), 5)
    check("a crash", launch("--hosts", "a,b:2", NODE, "signal", "2"), 139,
          [r"^nu_launch: node 2 \(pid \d+ on b\) was killed by signal 11 .*before the job's end"])
    check("a node refuses", launch("--hosts", "a,b", NODE, "fail"), 1, ["^nu_launch: node 1: the layouts differ$"])
    check("deaf nodes are killed", launch("--hosts", "a,b", "--time-out", "0.5", NODE, "unjoined"), 124, ["ran longer than"])
    check("a process that a node left behind", launch("--hosts", "a,b", NODE, "orphan"), 0)


def starts(*args, **kw):
    """A job whose nodes say their pids, once all have."""
    mark = str(uuid.uuid4())
    p = subprocess.Popen([str(a) for a in (LAUNCH, "--rsh", words(RSH), *args)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, NU_ABUSE_RUN=mark), **kw)
    p.mark = f"NU_ABUSE_RUN={mark}"
    return p


def pids_of(p, nodes):
    """Reads until every node has said its pid."""
    found, text = {}, b""
    while len(found) < nodes:
        line = p.stdout.readline()
        if not line:
            break
        text += line
        m = re.match(rb"\[(\d+)\] pid (\d+)", line)
        if m:
            found[int(m.group(1))] = int(m.group(2))
    p.said = text
    return found


def ends(p, begin, timeout=30):
    """As abuse.Job has it."""
    try:
        rest = p.communicate(timeout=timeout)[0]
        status = p.returncode
    except subprocess.TimeoutExpired:
        p.kill()
        rest, status = p.communicate()[0], f"still ran after {timeout} s"
    left = leftovers(p.mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return type("Job", (), {"status": status, "text": (p.said + rest).decode(errors="replace"), "left": left,
                            "seconds": time.monotonic() - begin, "lines": None})


def agents(p):
    found = []
    for pid in runs_with(p.mark):
        try:
            argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--agent" in argv:
            found.append(pid)
    return found


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def signals():
    for signo, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        p, begin = starts("--hosts", "a,b:2", NODE, "run"), time.monotonic()
        pids_of(p, 3)
        p.send_signal(signo)
        check(f"{signo.name} to the launcher", ends(p, begin), status)
    p, begin = starts("--hosts", "a,b:2", NODE, "run"), time.monotonic()
    pids_of(p, 3)
    p.kill()
    check("the launcher is killed", ends(p, begin), -9)


def deaths():
    p, begin = starts("--hosts", "a,b", "--keep-going", NODE, "watch-death"), time.monotonic()
    os.kill(pids_of(p, 2)[1], signal.SIGKILL)
    check("a node dies, the others go on", ends(p, begin), 7, ["saw the death of 1", r"\(pid \d+ on b\) was killed .* go on"])
    for what, hit in (("is killed", signal.SIGKILL), ("stands still", signal.SIGSTOP), ("is ended", signal.SIGTERM)):
        for keep in (False, True):
            p = starts("--hosts", "a,b", "--host-time-out", "2", *(["--keep-going"] if keep else []), NODE, "watch-death")
            begin = time.monotonic()
            os.kill(parent(pids_of(p, 2)[1]), hit)
            check(f"an agent {what}{', the others go on' if keep else ''}", ends(p, begin), 7 if keep else 255,
                  [r"^nu_launch: host b: "] + (["saw the death of 1", "go on"] if keep else []), within_s=15)
    p, begin = starts("--hosts", "a,b", "--keep-going", NODE, "watch-death"), time.monotonic()
    os.kill(parent(pids_of(p, 2)[0]), signal.SIGKILL)
    check("node 0's host is lost", ends(p, begin), 255, [r"^nu_launch: host a: "])


def kills():
    """Launcher or agents, at any moment from the start on: nothing is left, and nothing waits for ever."""
    rng = random.Random()
    seed = rng.randrange(1 << 32)
    rng.seed(seed)
    for whom in ("launcher", "agent"):
        bad, begin, last = [], time.monotonic(), None
        for i in range(12):
            p, t = starts("--hosts", "a,b,c", ACCUMULATOR), time.monotonic()
            p.said = b""
            time.sleep(rng.random() * 0.35)  # the moment is what is tried
            victims = [p.pid] if whom == "launcher" else agents(p)
            if victims:
                try:
                    os.kill(rng.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            last = ends(p, t, 20)
            if last.left or not isinstance(last.status, int):
                bad.append(f"run {i}: status {last.status}, left {last.left}")
        all_of = type("All", (), {"status": 0, "text": f"seed {seed}\n{last.text}", "left": [], "seconds": time.monotonic() - begin})
        check(f"the {whom} is killed at any moment", all_of, 0, also=lambda j: "; ".join(bad))


# ---- what goes wrong at the start ----

def errors():
    one_down = script("down", f'h=$1; shift\n[ "$h" = b ] && {{ echo "no route to $h" >&2; exit 255; }}\nexec {CLEAN} sh -c "$*"\n')
    check("a host that cannot be reached", launch("--hosts", "a,b,c", NODE, "run", rsh=one_down), 255,
          [r"^nu_launch: host b: down could not start its agent: it ended with status 255: no route to b$"], within_s=10)
    hangs = script("hangs", f'h=$1; shift\n[ "$h" = b ] && exec sleep 1000\nexec {CLEAN} sh -c "$*"\n')
    check("a host that does not answer", launch("--hosts", "a,b", "--host-time-out", "2", NODE, "run", rsh=hangs), 255,
          [r"^nu_launch: host b: hangs did not reach it within 6 s$"], within_s=20)
    check("no such remote shell", launch("--hosts", "a,b", NODE, "run", rsh=TMP / "none"), 255, ["No such file"])
    check("no nu_launch there", launch("--hosts", "a,b", "--agent-path", "/nonexistent/nu_launch", NODE, "run"), 127,
          [r"^nu_launch: host [ab]: nu_launch cannot be run there \(--agent-path says .*status 127: .*not found"])
    other = script("other", r'''printf '\001nu-agent\002\n'; printf '\100\0\0\0\0\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'; cat >/dev/null''')
    check("nu_launch of another version", launch("--hosts", "a,b", "--agent-path", other, NODE, "run"), 1,
          [r"^nu_launch: host [ab]: nu_launch there is of another version \(7 there"])
    nonsense = script("nonsense", r'''printf '\001nu-agent\002\n'; head -c 100000 /dev/urandom; cat >/dev/null''')
    check("an agent that talks nonsense", launch("--hosts", "a,b", "--agent-path", nonsense, NODE, "run"), {1, 255}, ["host [ab]: "])
    check("no such program", launch("--hosts", "a,b", "/nonexistent/prog"), 127,
          [r"^nu_launch: host [ab]: /nonexistent/prog: no such program"])
    check("a program that is none of ours", launch("--hosts", "a,b", "/bin/true"), 1, ["without having started its nodes"])
    check("no such directory", launch("--hosts", "a,b", "--wdir", "/nonexistent", NODE, "run"), 1,
          [r"^nu_launch: host [ab]: there is no directory /nonexistent"])
    check("no such interface", launch("--hosts", "a,b", "--interface", "nope0", NODE, "run"), 1,
          [r"^nu_launch: host a: no address of it is nope0; it has .*lo 127\.0\.0\.1/8"])
    check("more nodes than slots", launch("--hosts", "a,b", "-n", "3", NODE, "run"), 2, ["3 nodes, but the hosts have 2 slots"])
    through = script("through", f'exec {shlex.quote(str(NODE))} "$@"\n')
    check("a script that starts the program", launch("--hosts", "a,b", through, "run"), 1, ["must start the program itself"])
    check("--agent by hand", Job([LAUNCH, "--agent"]), {1, 2})


def forbidden():
    if not DENY.exists():
        return skip("what containers forbid", "tests/abuse is not built")
    for call, says in (("personality", "seccomp=unconfined"), ("ptrace", "SYS_PTRACE")):
        denies = script(f"deny {call}", f'shift\nexec {CLEAN} {shlex.quote(str(DENY))} {call} sh -c "$*"\n')
        check(f"{call} is forbidden", launch("--hosts", "a,b", NODE, "run", rsh=denies), 126, [rf"^nu_launch: host [ab]: {call}.*{says}"])
    low = script("low", f'shift\nulimit -Hs 8192\nexec {CLEAN} sh -c "$*"\n')
    check("the stack's limit is fixed", launch("--hosts", "a,b", NODE, "run", rsh=low), 126, ["ulimit -Hs"])
    check("one host needs none of that", launch("--hosts", "a:2", NODE, "status", "0", rsh=low), 0)


# ---- files that differ ----

def files():
    here, there = TMP / "here", TMP / "there"
    here.mkdir()
    there.mkdir()
    shutil.copy(NODE, here / "prog")
    shutil.copy(ACCUMULATOR, there / "prog")
    path = shlex.quote(os.environ["PATH"])
    differ = script("differ", f'h=$1; shift\n[ "$h" = b ] && PATH={shlex.quote(str(there))}:{path} || '
                              f'PATH={shlex.quote(str(here))}:{path}\nexec {CLEAN} sh -c "$*"\n')
    env = {"PATH": f"{here}:{os.environ['PATH']}"}
    check("another program there", launch("--hosts", "a,b", "prog", "status", "4", rsh=differ, env=env), 1,
          [r"^nu_launch: host b: .*there/prog is not the same program as here: build-id \w+ there, build-id \w+ here"])
    check("it is copied", launch("--hosts", "a,b", "--copy", "prog", "status", "4", rsh=differ, env=env), 4)
    (there / "prog").unlink()
    check("no program there", launch("--hosts", "a,b", "prog", "status", "4", rsh=differ, env=env), 127,
          [r"^nu_launch: host b: prog: no such program \(--copy"])
    check("it is brought", launch("--hosts", "a,b", "--copy", "prog", "layout", rsh=differ, env=env), 0,
          also=lambda j: None if len(set(layout_lines(j))) == 1 else "layouts differ")
    check("nu_launch is brought, too", launch("--hosts", "a,b", "--copy", "--agent-path", "/nonexistent/nu_launch", NODE,
                                              "status", "6"), 6)
    check("and one of another version replaced", launch("--hosts", "a,b", "--copy", "--agent-path", TMP / "other", NODE,
                                                       "status", "6"), 6)
    fake = type("Files", (), {"status": 0, "text": str(list(TMP.glob("nu_launch*"))), "left": [], "seconds": 0})
    check("no copy is left", fake, 0, [r"^\[\]$"])


def slurm():
    log = TMP / "srun log"
    bin_dir = TMP / "bin"
    bin_dir.mkdir()
    (TMP / "bin/srun").write_text(f'''#!/bin/sh
echo "$*" >>{shlex.quote(str(log))}
while [ "${{1#-}}" != "$1" ]; do shift; done
exec {CLEAN} "$@"
''')
    (TMP / "bin/srun").chmod(0o755)
    env = {"PATH": f"{bin_dir}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n[01-02],m7",
           "SLURM_TASKS_PER_NODE": "2,1(x2)"}
    job = Job([LAUNCH, NODE, "info"], env=env)
    called = log.read_text() if log.exists() else ""
    job.text += "\n" + called
    check("Slurm's allocation", job, 0,
          [r"^\[0\] node 0 of 4 .* host 0 of 3 ", r"^\[1\] node 1 of 4 .* host 0 of 3 ", r"^\[3\] .* host 2 of 3 "] +
          [rf"--nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist={n} /bin/sh -c exec " for n in ("n01", "n02", "m7")], ["FAILED"])
    check("fewer nodes than Slurm gave", Job([LAUNCH, "-n", "2", NODE, "info"], env=env), 0, ["node 1 of 2 .* host 0 of 1 "])
    check("hosts that are named go first", launch("--hosts", "a,b", NODE, "info", env=env), 0, ["node 1 of 2 .* host 1 of 2 "])
    check("an allocation of this machine", Job([LAUNCH, "-n", "2", NODE, "info"],
                                              env=dict(env, SLURM_JOB_NODELIST=os.uname().nodename, SLURM_TASKS_PER_NODE="2")),
          0, ["node 1 of 2 .* host 0 of 1 address $"])
    check("a list that makes no sense", Job([LAUNCH, "-n", "2", NODE, "info"], env=dict(env, SLURM_JOB_NODELIST="n[3-")), 0,
          [r"SLURM_JOB_NODELIST=n\[3- makes no sense"])


PARTS = (deaths, jobs, told, layouts, streams, statuses, kills, errors, forbidden, files, slurm, signals, demo)
signal.alarm(115)
try:
    # Most of their time is waiting.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for part in [pool.submit(p) for p in PARTS if len(sys.argv) < 5 or p.__name__ in sys.argv[4:]]:
            part.result()
finally:
    shutil.rmtree(TMP, ignore_errors=True)
done()
