#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Strangers: who is not of the job and talks to its sockets, or pretends to be of it, is refused; the job goes on.

usage: strangers.py NU_LAUNCH NU_CTL SERVE CROSSED
"""
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

launch, ctl, serve, crossed = sys.argv[1:5]
passed = failed = 0
TYPES = re.findall(r"^\s+(NU_BOOT_\w+)[ ,]", re.search(r"enum nu_boot_type \{(.*?)\};", open(os.path.join(
    os.path.dirname(os.path.realpath(__file__)), "../../ctrl/boot_proto.h")).read(), re.S).group(1), re.M)
ASK, ANSWER = TYPES.index("NU_BOOT_ASK") + 1, TYPES.index("NU_BOOT_ANSWER") + 1
UCX_MAGIC = struct.pack("<Q", 0xCAFEBABE12345678)  # what UCX's TCP transport begins a connection with


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"strangers.py: {what}", flush=True)


def run(*cmd, **more):
    return subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=60, **more)


class Job:
    """Three nodes that serve until they are told to end."""

    def __init__(self, tmp, *options, **env):
        self.end = os.path.join(tmp, "end" + str(random.random()))
        self.p = subprocess.Popen([launch, "-n", "3", "--cores", "1", "--no-prefix", "--time-out", "90", *options, serve,
                                   self.end], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, errors="replace", env=dict(os.environ, **env))
        self.counters = []
        for line in self.p.stdout:
            if line.startswith("counter "):
                self.counters.append(line.split()[1])
            if line.startswith("ready"):
                break

    def pids(self):
        with open(f"/proc/{self.p.pid}/task/{self.p.pid}/children") as f:
            return [int(pid) for pid in f.read().split()]

    def works(self, what):
        """Its nodes answer, and a proclet moves over the wire."""
        start = time.monotonic()
        for to in ("2", "0", "1"):
            r = run(ctl, "--job", str(self.p.pid), "migrate", self.counters[0], to)
            check(r.returncode == 0 and f"is at node {to}" in r.stdout, f"{what}: migrate: {r.stdout}")
        r = run(ctl, "--job", str(self.p.pid), "stats")
        check(r.returncode == 0 and len(re.findall(r"^node \d:", r.stdout, re.M)) == 3, f"{what}: stats: {r.stdout}")
        return time.monotonic() - start

    def finish(self, what):
        open(self.end, "w").close()
        out, err = self.p.communicate(timeout=60)
        check(self.p.returncode == 7 and out.strip().endswith("good"),
              f"{what}: the job ended with {self.p.returncode}: {out[-500:]} {err[-2000:]}")
        return err

    def listeners(self):
        """TCP ports that its processes listen on: {port: address}"""
        inodes, ports = set(), {}
        for pid in self.pids():
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    m = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
                except OSError:
                    continue
                if m:
                    inodes.add(m[1])
        for table in ("tcp", "tcp6"):
            try:
                lines = open(f"/proc/net/{table}").readlines()[1:]
            except OSError:
                continue
            for line in lines:
                w = line.split()
                if w[3] == "0A" and w[9] in inodes:
                    ports[int(w[1].split(":")[1], 16)] = w[1].split(":")[0]
        return ports


# ---- strangers at the nodes' ports ----

def garbage(rng, kind):
    noise = rng.randbytes(rng.choice((1, 8, 24, 100, 5000)))
    if kind == 0:
        return b""
    if kind == 1:
        return noise
    if kind == 2:
        return UCX_MAGIC[:rng.randrange(8)]
    return b"GET / HTTP/1.0\r\n\r\n" + bytes(len(noise))


def pester(ports, rng):
    """Fifty connections with nonsense on them, which stay open."""
    sockets = []
    for i in range(50):
        s = socket.socket()
        s.settimeout(5)
        try:
            s.connect(("127.0.0.1", rng.choice(ports)))
            s.sendall(garbage(rng, i % 4))
        except OSError:
            pass  # hung up on: just so
        sockets.append(s)
    return sockets


def tcp_ports(tmp):
    job = Job(tmp, "--transport", "tcp")
    ports = job.listeners()
    check(ports, "with --transport tcp no port is listened on: this test looks at nothing")
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    check(set(ports.values()) <= loopback, f"a port is open to other hosts: {ports}")
    rng = random.Random(1)
    sockets = []
    for _ in range(3 if ports else 0):
        sockets += pester(list(ports), rng)
        took = job.works("tcp, pestered")
        check(took < 20, f"tcp: four requests took {took:.1f} s")
    for s in sockets[::2]:  # some hang up while it goes on
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    job.works("tcp, after hang-ups")
    err = job.finish("tcp")
    check("has died" not in err, f"tcp: a node died: {err[-2000:]}")
    for s in sockets:
        s.close()


def bad_messages(job):
    r = run(ctl, "--job", str(job.p.pid), "stats")
    return {int(node): int(bad) for node, bad in re.findall(r"^node (\d):.*?bad messages (\d+)", r.stdout, re.M | re.S)}


def other_job(tmp):
    """The nodes of another job come to each port of this one with their own job's key."""
    job = Job(tmp, "--transport", "tcp")
    ports = [str(port) for port in job.listeners()]
    before = bad_messages(job)
    r = run(launch, "-n", "2", "--cores", "1", "--transport", "tcp", "--no-prefix", "--time-out", "50", crossed, *ports)
    check(r.returncode == 0 and f"{len(ports)} passed, 0 failed" in r.stdout and len(ports) == 3,
          f"crossed jobs: status {r.returncode}, ports {ports}: {r.stdout[-3000:]}")
    after = bad_messages(job)
    # Each node has refused one that came five times; it was told of every one.
    check(len(after) == 3 and all(after[n] - before[n] >= 5 for n in after), f"crossed jobs: refused {before} then {after}")
    job.works("after the other job")
    err = job.finish("crossed jobs")
    for node in range(3):
        check(len(re.findall(rf"nu: node {node}: bytes without this job's key came from a stranger", err)) == 1,
              f"crossed jobs: node {node} says not once why it refuses: {err[-2000:]}")


def no_ports(tmp):
    """By default the nodes of one host have no socket that a stranger could find."""
    job = Job(tmp)
    ports = job.listeners()
    check(not ports, f"without --transport tcp there are listening ports: {ports}")
    job.works("default transport")
    job.finish("default transport")


# ---- strangers at the operator's socket ----

def operator_address(job):
    return f"\0nu-{os.getuid()}-{job.p.pid}"


def frame(kind, payload, length=None, number=0):
    return struct.pack("<IIiIQ", kind, len(payload) if length is None else length, 0, 0, number) + payload


def connect(job):
    s = socket.socket(socket.AF_UNIX)
    s.connect(operator_address(job))  # waits while the queue is full
    s.settimeout(20)
    return s


def closed(s):
    """It is hung up on, within the socket's time-out."""
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except OSError:
        return False
    return True


def answered(s):
    try:
        head = s.recv(24, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(head) == 24 and struct.unpack("<I", head[:4])[0] == ANSWER


def operators(tmp):
    job = Job(tmp)
    silent = [connect(job) for _ in range(40)]  # more than there are places
    half = [connect(job) for _ in range(4)]
    for s in half:
        try:
            s.sendall(frame(ASK, b"nodes")[:11])
        except OSError:
            pass  # it has made room for another already
    took = job.works("operator: silent clients")
    check(took < 10, f"operator: {took:.1f} s behind silent clients")
    for payload in (frame(ASK, b"", 0xffffffff), frame(ASK, b"", 4097), frame(99, b"x"), frame(ANSWER, b"1"),
                    os.urandom(4096), b"\xff" * 24):
        s = connect(job)
        try:
            s.sendall(payload)
        except OSError:
            pass
        check(closed(s), f"operator: not hung up on after {payload[:24]}")
    for text in (b"", b"\0", b"nodes\0\0\0", b"%s%n" * 100, b"migrate " + b"9" * 4000, b"stats -1", b" " * 4096):
        s = connect(job)
        s.sendall(frame(ASK, text))
        check(answered(s), f"operator: no answer to {text[:20]}")
        s.close()
    flood = connect(job)
    try:
        for _ in range(2000):
            flood.sendall(frame(ASK, b"nodes"))
    except OSError:
        pass
    check(closed(flood), "operator: a flood is not hung up on")
    for s in silent + half:
        check(closed(s), "operator: a silent client is kept")
    job.works("operator: afterwards")
    job.finish("operator")


def other_user(tmp):
    """Another user's nu_ctl, and another user's bare connection."""
    if os.getuid():
        print("another user: SKIP: not root")
        return
    job = Job(tmp)
    os.chmod(tmp, 0o755)
    copy = os.path.join(tmp, "nu_ctl")
    with open(ctl, "rb") as f, open(copy, "wb") as to:
        to.write(f.read())
    os.chmod(copy, 0o755)
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    r = run(*as_nobody, copy, "--job", str(job.p.pid), "nodes")
    check(r.returncode == 1 and "no job" in r.stdout, f"another user's nu_ctl: {r.returncode} {r.stdout}")
    r = run(*as_nobody, sys.executable, "-c", "import socket\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\n"
            f"s.connect('\\0nu-0-{job.p.pid}')\n"
            "try:\n    s.sendall(bytes.fromhex('" + frame(ASK, b"job").hex() + "'))\n    print('got', s.recv(100))\n"
            "except OSError as e:\n    print('refused', e)")
    check("got b''" in r.stdout or "refused" in r.stdout, f"another user's connection: {r.stdout}")
    # It may only keep the door busy: our own operator gets through.
    knock = subprocess.Popen([*as_nobody, sys.executable, "-c", "import socket\nwhile True:\n"
                              "    s = socket.socket(socket.AF_UNIX)\n    s.setblocking(False)\n    try:\n"
                              f"        s.connect('\\0nu-0-{job.p.pid}')\n    except OSError:\n        pass\n"],
                             stdin=subprocess.DEVNULL)
    took = job.works("knocked at")
    knock.kill()
    knock.wait()
    check(took < 30, f"knocked at: {took:.1f} s")
    # Names that look like jobs of root's do not hide the real one.
    fakes = subprocess.Popen([*as_nobody, sys.executable, "-c", "import socket, sys\nl = []\nfor i in range(400):\n"
                              "    s = socket.socket(socket.AF_UNIX)\n    s.bind('\\0nu-0-%d' % (5000000 + i))\n"
                              "    s.listen(1)\n    l.append(s)\nprint('there', flush=True)\nsys.stdin.read()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    fakes.stdout.readline()
    job.works("among fakes")
    r = run(ctl, "--job", "5000001", "nodes")
    check(r.returncode == 1 and "belongs to" in r.stdout, f"a fake job: {r.stdout}")
    fakes.communicate("")
    job.finish("another user")


# ---- those who pretend to be a node ----

def pretenders():
    r = run(serve, "x", env=dict(os.environ, NU_BOOT="nonsense"))
    check(r.returncode == 1 and "NU_BOOT=nonsense names no socket" in r.stdout, f"NU_BOOT=nonsense: {r.stdout}")
    for value in ("3:0", "3:99", "1:5", "3:5x", "", "3:-1", "3:99999999999999999999", "3:" + "9" * 5000):
        r = run(serve, "x", env=dict(os.environ, NU_BOOT=value))
        check(r.returncode == 1 and "names no socket" in r.stdout, f"NU_BOOT={value[:20]}: {r.returncode} {r.stdout}")
    for words, closes, want in ((b"", True, ""), (os.urandom(200), False, "different versions"),
                                (frame(1, b"x" * 136), False, "different versions"),
                                (frame(1, b"", 0x7fffffff), False, "different versions"), (b"", False, "is silent"),
                                (frame(1, b"")[:10], False, "is silent")):
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        p = subprocess.Popen([serve, "x"], env=dict(os.environ, NU_BOOT=f"4:{theirs.fileno()}"), pass_fds=[theirs.fileno()],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        theirs.close()
        ours.sendall(words)
        if closes:
            ours.close()
        try:
            said = p.communicate(timeout=30)[0]
            if not closes:
                ours.settimeout(5)
                try:
                    said += ours.recv(4096)
                except OSError:
                    pass
        except subprocess.TimeoutExpired:
            p.kill()
            said = b"it waits for ever"
        check(p.returncode == 1 and want.encode() in said, f"a boot socket that says {words[:24]}: {p.returncode} {said}")
        ours.close()


signal.alarm(240)
with tempfile.TemporaryDirectory() as tmp_dir:
    pretenders()
    operators(tmp_dir)
    other_user(tmp_dir)
    no_ports(tmp_dir)
    tcp_ports(tmp_dir)
    other_job(tmp_dir)
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
