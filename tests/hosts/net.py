#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nu_launch over real ssh and TCP: three network namespaces with an sshd in each, joined by a bridge in a fourth, from which
jobs are launched. Takes root. usage: net.py BUILD FRAMES NODE_PROG"""
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

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "abuse"))
from abuse import Job, check, done  # noqa: E402

BUILD, FRAMES, NODE = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
LAUNCH = BUILD / "ctrl/nu_launch"
ACCUMULATOR, KVSTORE = BUILD / "samples/accumulator", BUILD / "samples/kvstore"
RIGHT = r"\[0\] 10\n\[0\] 15\n\[0\] 25\n\[0\] 25\n"
TMP = pathlib.Path(tempfile.mkdtemp(prefix="nu net "))
BRIDGE, HOSTS = f"nu{os.getpid()}-b", [f"nu{os.getpid()}-{i}" for i in range(3)]
ADDRESS = {h: f"10.77.0.{11 + i}" for i, h in enumerate(HOSTS)}
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
sshds = {}
made_run_sshd = False


def sh(*args, **kw):
    r = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, **kw)
    if r.returncode:
        raise RuntimeError(f"{shlex.join(map(str, args))}: {r.stdout}{r.stderr}")
    return r.stdout


def give_up(why):
    print(f"SKIP hosts in network namespaces: {why}\n0 passed, 0 failed, 1 skipped")
    sys.exit(77)


# ---- the network ----

def make_network():
    sh("ip", "netns", "add", BRIDGE)
    sh("ip", "-n", BRIDGE, "link", "set", "lo", "up")
    sh("ip", "-n", BRIDGE, "link", "add", "br0", "type", "bridge")
    sh("ip", "-n", BRIDGE, "addr", "add", "10.77.0.1/24", "dev", "br0")
    sh("ip", "-n", BRIDGE, "link", "set", "br0", "up")
    for i, h in enumerate(HOSTS):
        sh("ip", "netns", "add", h)
        sh("ip", "-n", h, "link", "set", "lo", "up")
        sh("ip", "-n", BRIDGE, "link", "add", f"v{i}", "type", "veth", "peer", "name", "net0", "netns", h)
        sh("ip", "-n", BRIDGE, "link", "set", f"v{i}", "master", "br0", "up")
        sh("ip", "-n", h, "addr", "add", f"{ADDRESS[h]}/24", "dev", "net0")
        sh("ip", "-n", h, "link", "set", "net0", "up")


def processes(ns):
    r = subprocess.run(["ip", "netns", "pids", ns], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return [int(p) for p in r.stdout.split()]


def remove_network():
    for ns in [*HOSTS, BRIDGE]:
        for pid in processes(ns):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        subprocess.run(["ip", "netns", "del", ns], stdin=subprocess.DEVNULL, capture_output=True)
    for p in sshds.values():
        p.wait()


def start_sshd(h):
    sshds[h] = subprocess.Popen(["ip", "netns", "exec", h, SSHD, "-D", "-e", "-f", TMP / "sshd_config"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=open(TMP / f"sshd-{h}", "ab"), start_new_session=True)
    for _ in range(500):
        r = subprocess.run(["ip", "netns", "exec", BRIDGE, *SSH, ADDRESS[h], "true"], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=20)
        if r.returncode == 0 or sshds[h].poll() is not None:
            break
        time.sleep(0.02)
    if r.returncode:
        raise RuntimeError(f"sshd of {h}: {r.stderr}{(TMP / f'sshd-{h}').read_text()}")


def make_ssh():
    global SSH, made_run_sshd
    if not os.path.isdir("/run/sshd"):
        os.mkdir("/run/sshd", 0o755)
        made_run_sshd = True
    for key in ("host_key", "key", "strange_key"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", TMP / key)
    quoted = f'"{TMP}'  # its path has a blank
    (TMP / "sshd_config").write_text(f'HostKey {quoted}/host_key"\nAuthorizedKeysFile {quoted}/key.pub"\nStrictModes no\n'
                                     "UsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n"
                                     "KbdInteractiveAuthentication no\nLogLevel INFO\nMaxStartups 100\n")
    known = (TMP / "host_key.pub").read_text().split()[:2]
    (TMP / "known_hosts").write_text("".join(f"{a} {' '.join(known)}\n" for a in ADDRESS.values()))
    for name, key in (("ssh_config", "key"), ("strange_config", "strange_key")):
        (TMP / name).write_text(f'IdentityFile {quoted}/{key}"\nUserKnownHostsFile {quoted}/known_hosts"\nIdentitiesOnly yes\n'
                                "BatchMode yes\nConnectTimeout 5\nUser root\n")
    SSH = ["ssh", "-F", str(TMP / "ssh_config")]
    for h in HOSTS:
        start_sshd(h)


# ---- jobs ----

def launch(*args, config="ssh_config", timeout=50):
    return Job(["ip", "netns", "exec", BRIDGE, LAUNCH, "--rsh", f"ssh -F '{TMP / config}'", "--time-out", "45", *args],
               timeout=timeout)


def listeners_alone(job):
    """Beside the listening sshd nothing is left in a namespace, though the connection's end may have come by now only."""
    end = time.monotonic() + 15
    while True:
        left = {h: [p for p in processes(h) if p != sshds[h].pid and not named(p, "sshd")] for h in HOSTS}
        if not any(left.values()):
            return None
        if time.monotonic() > end:
            return f"left behind: {[(h, p, named(p, '')) for h, ps in left.items() for p in ps]}"
        time.sleep(0.05)


def named(pid, name):
    try:
        comm = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return True  # gone
    return comm == name if name else comm


def hosts_of(*which):
    return ",".join(ADDRESS[HOSTS[i]] for i in which)


def good():
    hostfile = TMP / "hosts"
    hostfile.write_text("# a cluster\n" + "".join(f"{ADDRESS[h]} slots={1 + (i == 1)} cores=1\n" for i, h in enumerate(HOSTS)))
    check("accumulator over ssh", launch("--hostfile", hostfile, ACCUMULATOR), 0, [RIGHT])
    job = launch("--hostfile", hostfile, NODE, "info")
    check("each listens where ssh came to it", job, 0,
          [rf"^\[{n}\] .* host {i} of 3 address {re.escape(ADDRESS[HOSTS[i]])}$" for n, i in enumerate((0, 1, 1, 2))], ["FAILED"])
    check("an interface by name", launch("--hosts", hosts_of(0, 1), "--interface", "net0", NODE, "info"), 0,
          [rf"^\[1\] .* address {re.escape(ADDRESS[HOSTS[1]])}$"])
    check("threads return on other hosts", launch("--hostfile", hostfile, "--no-prefix", FRAMES), 0, ["^2 passed, 0 failed"])
    keys = TMP / "keys"
    keys.write_text("".join(f"key{i}\t{i * i}\n" for i in range(1000)))
    job = launch("--hostfile", hostfile, "--no-prefix", KVSTORE, "--file", keys, "--seconds", "2", "--shards", "16", "--clients",
                 "3", "--plot", "none", "--drain", "1@0.3", "--restore", "1@1.1")
    check("a host is drained under load", job, 0, ["verified 1000 of 1000 keys, lost 0, wrong 0",
                                                  r"migrations [1-9]\d* proclets moved"])


def bad():
    check("a host that is not there", launch("--hosts", f"{hosts_of(0)},10.77.0.99", NODE, "run"), 255,
          [r"^nu_launch: host 10\.77\.0\.99: ssh could not start its agent: it ended with status 255: ssh: connect to host"], within_s=20)
    check("a key that is refused", launch("--hosts", hosts_of(0, 1), NODE, "run", config="strange_config"), 255,
          [r"^nu_launch: host 10\.77\.0\.1[12]: ssh could not .* status 255: .*Permission denied \(publickey\)"])
    check("no nu_launch there", launch("--hosts", hosts_of(0, 1), "--agent-path", "/nonexistent/nu_launch", NODE, "run"), 127,
          ["^nu_launch: host .*--agent-path says.*ssh ended with status 127: .*/nonexistent/nu_launch"])
    check("no such program", launch("--hosts", hosts_of(0, 1), "/nonexistent/program"), 127,
          ["^nu_launch: host .*: /nonexistent/program: no such program"])


def running(*args):
    p = subprocess.Popen(["ip", "netns", "exec", BRIDGE, LAUNCH, "--rsh", f"ssh -F '{TMP / 'ssh_config'}'", *map(str, args)],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    text = b""
    while len(set(re.findall(rb"^\[(\d)\] pid ", text, re.M))) < 3:
        line = p.stdout.readline()
        if not line:
            break
        text += line
    p.said, p.begin = text, time.monotonic()
    return p


def end_of(p, timeout=40):
    try:
        rest, status = p.communicate(timeout=timeout)[0], p.returncode
    except subprocess.TimeoutExpired:
        p.kill()
        rest, status = p.communicate()[0], f"still ran after {timeout} s"
    return type("Job", (), {"status": status, "text": (p.said + rest).decode(errors="replace"), "left": [],
                            "seconds": time.monotonic() - p.begin})


def kill_all_of(ns):
    while pids := processes(ns):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if ns in sshds:
            sshds[ns].poll()


def ends():
    p = running("--hosts", hosts_of(0, 1, 2), NODE, "run")
    p.kill()
    check("the launcher is killed", end_of(p), -9, also=listeners_alone)
    p = running("--hosts", hosts_of(0, 1, 2), NODE, "run")
    p.send_signal(signal.SIGINT)
    check("Ctrl-C", end_of(p), 130, also=listeners_alone)
    for keep in (False, True):
        p = running("--hosts", hosts_of(0, 1, 2), *(["--keep-going"] if keep else []), NODE, "watch-death")
        kill_all_of(HOSTS[1])
        check("all processes of a host are killed" + (", the others go on" if keep else ""), end_of(p), 7 if keep else 255,
              [rf"^nu_launch: host {re.escape(ADDRESS[HOSTS[1]])}: "] + (["saw the death of 1"] if keep else []), within_s=15)
        start_sshd(HOSTS[1])
    p = running("--hosts", hosts_of(0, 1, 2), "--keep-going", "--host-time-out", "3", NODE, "watch-death")
    sh("ip", "-n", BRIDGE, "link", "set", "v1", "down")
    check("a host falls silent, the others go on", end_of(p), 7, [r"nothing was heard of it for 3 s", "saw the death of 1"],
          also=listeners_alone, within_s=25)
    sh("ip", "-n", BRIDGE, "link", "set", "v1", "up")


if os.geteuid():
    give_up("takes root")
for tool in ("ip", "ssh", "ssh-keygen", SSHD):
    if not shutil.which(tool):
        give_up(f"{tool} is not installed (iproute2, openssh-client, openssh-server)")
probe = subprocess.run(["ip", "netns", "add", BRIDGE], stdin=subprocess.DEVNULL, capture_output=True, text=True)
if probe.returncode:
    give_up(f"ip netns add: {probe.stderr.strip()}")
subprocess.run(["ip", "netns", "del", BRIDGE])
signal.alarm(100)
signal.signal(signal.SIGALRM, lambda *_: sys.exit("it took too long"))
try:
    make_network()
    make_ssh()
    # Most of their time is waiting.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for part in [pool.submit(p) for p in (good, bad)]:
            part.result()
    check("nothing is left on any host", Job(["true"]), 0, also=listeners_alone)
    ends()
finally:
    remove_network()
    if made_run_sshd:
        os.rmdir("/run/sshd")
    shutil.rmtree(TMP, ignore_errors=True)
done()
