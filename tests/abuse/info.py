#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nu_info on this machine as it is, as another user, under lowered limits, and where the kernel refuses what Nu needs.
usage: info.py NU_INFO DENY"""
import ctypes
import ipaddress
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

INFO, DENY = sys.argv[1:3]
SECTIONS = ["system", "rdma", "limits", "permissions", "ucx", "choice", "warnings", "notes"]
passed = failed = skipped = 0


class Skip(Exception):
    pass


def test(fn):
    global passed, failed, skipped
    try:
        fn()
        passed += 1
    except Skip as e:
        skipped += 1
        print(f"{fn.__name__} skipped: {e}")
    except Exception as e:  # also what is missing in the document
        failed += 1
        print(f"FAIL {fn.__name__}: {type(e).__name__}: {e}")


def run(*args, before=None, program=(INFO,), stdout=subprocess.PIPE):
    return subprocess.run([*program, *args], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=60,
                          preexec_fn=before, text=True)


def document(*args, **how):
    r = run("-j", *args, **how)
    assert r.returncode == 0, f"status {r.returncode}: {r.stderr[-500:]}"
    return json.loads(r.stdout)


def find(doc, pattern, where="warnings"):
    found = [a for a in doc[where] if re.search(pattern, a["text"])]
    assert found, f"no {where} with /{pattern}/ in {doc['warnings'] + doc['notes']}"
    return found[0]


def number(path):
    return int(pathlib.Path(path).read_text())


@test
def one_json_document():
    doc = document()
    assert list(doc)[1:] == SECTIONS, list(doc)
    assert doc["limits"]["mappings"]["vm_max_map_count"] == number("/proc/sys/vm/max_map_count")
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert doc["limits"]["resource"]["nofile"] == (None if nofile == resource.RLIM_INFINITY else nofile)
    assert doc["system"]["processors"]["usable"] == len(os.sched_getaffinity(0))
    assert doc["system"]["kernel"].endswith(os.uname().release)
    assert 0 < doc["limits"]["mappings"]["idle_proclets_per_node"] < doc["limits"]["mappings"]["vm_max_map_count"]
    assert any(t["transport"] == "tcp" for t in doc["ucx"]["transports"]), doc["ucx"]
    for place in ("nodes_of_one_host", "nodes_of_several_hosts"):
        for what in ("reader", "link"):
            choice = doc["choice"][place][what]
            assert choice["chosen"] and all(lost["name"] and lost["why_not"] for lost in choice["not_chosen"]), choice
    assert doc["rdma"]["reason"]


@test
def text_has_the_same_sections():
    text = run().stdout
    assert re.findall(r"^(\w+):", text, re.M) == ["nu"] + SECTIONS, text


@test
def check_is_the_warnings():
    doc, status = document(), run("--check").returncode
    assert status == (1 if doc["warnings"] else 0), (status, doc["warnings"])


@test
def help_and_wrong_usage():
    r = run("-h")
    assert r.returncode == 0 and "--json" in r.stdout
    for args in (["--nope"], ["more"], ["-a", "localhost"], ["--rdma", "port=x"], ["--rdma", "gid=-1"]):
        r = run(*args)
        assert r.returncode == 2 and r.stderr and not r.stdout, (args, r)


@test
def a_full_disk_is_said():
    with open("/dev/full", "w") as full:
        r = run("-j", stdout=full)
    assert r.returncode == 1 and "No space left" in r.stderr, r


@test
def lowered_limits_draw_warnings():
    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))

    doc = document(before=lower)
    assert doc["limits"]["resource"]["nofile"] == 128 and doc["limits"]["resource"]["memlock_bytes"] == 65536
    assert find(doc, r"RLIMIT_NOFILE is 128")["command"].startswith("ulimit -n")
    # With no device it matters to nobody here.
    where = "warnings" if doc["rdma"]["devices"] else "notes"
    assert find(doc, r"RLIMIT_MEMLOCK is 64 KiB", where)["command"] == "ulimit -l unlimited"
    assert run("--check", before=lower).returncode == 1


@test
def as_another_user():
    if os.geteuid():
        raise Skip("not root")
    with tempfile.TemporaryDirectory(dir="/tmp") as tmp:
        os.chmod(tmp, 0o755)
        copy = shutil.copy(INFO, tmp)
        os.chmod(copy, 0o755)

        def nobody():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

        doc = document(before=nobody, program=(copy,))
    assert doc["permissions"]["user"] == 65534
    assert doc["ucx"]["transports"] and doc["choice"]["nodes_of_one_host"]["reader"]["chosen"]


def denied(call):
    r = run("-j", program=(DENY, call, INFO))
    if r.returncode == 77:
        raise Skip("seccomp is not to be had: " + r.stderr.strip())
    assert r.returncode == 0, r
    return json.loads(r.stdout)


@test
def process_vm_readv_denied():
    doc = denied("process_vm_readv")
    assert doc["permissions"]["seccomp"] == "filter"
    assert doc["permissions"]["process_vm_readv"] == doc["permissions"]["process_vm_readv"] | {
        "works": False, "error": "Operation not permitted"}
    find(doc, "process_vm_readv between two processes: Operation not permitted")
    reader = doc["choice"]["nodes_of_one_host"]["reader"]
    assert reader["chosen"] in ("verbs", "am")
    assert any(lost["name"] == "cma" and "not permitted" in lost["why_not"] for lost in reader["not_chosen"]), reader


@test
def fixed_layout_denied():
    for call in ("personality", "ptrace"):
        doc = denied(call)
        assert not doc["choice"]["nodes_of_several_hosts"]["possible"]
        assert call in doc["choice"]["nodes_of_several_hosts"]["why_not"]
        assert "seccomp" in find(doc, f"{call}.*several hosts")["command"]


@test
def pidfd_open_denied():
    doc = denied("pidfd_open")
    assert not doc["permissions"]["system_calls"]["pidfd_open"]
    find(doc, "pidfd_open")


@test
def little_shared_memory():
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 0x4000, 1 << 18

    def own_shm():
        if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) or \
                libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m"):
            os._exit(77)

    r = run("-j", before=own_shm)
    if r.returncode == 77:
        raise Skip("no mount of our own: not root, or a container")
    doc = json.loads(r.stdout)
    assert doc["limits"]["shared_memory"]["room_bytes"] <= 1 << 20, doc["limits"]
    assert doc["choice"]["nodes_of_one_host"]["link"]["chosen"] == "shm"  # needs no folder
    assert find(doc, "/dev/shm", "notes")["command"].startswith("mount -o remount,")
    os.environ["UCX_TLS"] = "posix"
    try:
        doc = document(before=own_shm)
    finally:
        del os.environ["UCX_TLS"]
    assert doc["choice"]["nodes_of_one_host"]["link"]["chosen"] == "UCX: posix"
    assert find(doc, "/dev/shm")["command"].startswith("mount -o remount,")


@test
def an_address_and_a_device():
    doc = document("-a", str(ipaddress.ip_address("192.0.2.1")), "--rdma", "device=no_such_device")
    assert doc["rdma"]["chosen"] == "none"
    if doc["rdma"]["devices"]:
        assert "no_such_device" in doc["rdma"]["reason"]


@test
def rdma_options():
    assert document("--rdma", "device=no_such_device,port=1,gid=3")["rdma"]["chosen"] == "none"
    r = run("--rdma", "devize=x")
    assert r.returncode == 2 and "devize" in r.stderr, r


print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(1 if failed else 0)
