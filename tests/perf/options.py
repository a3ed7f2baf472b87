#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nu_perf's options and output formats, each test with few repetitions; no figure is judged, but each must be one.
usage: options.py NU_LAUNCH NU_PERF"""
import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time

LAUNCH, PERF = sys.argv[1:3]
KEYS = ["test", "size_bytes", "outstanding", "threads", "compute_us", "reader", "transport", "unit", "count", "min", "avg",
        "p50", "p90", "p99", "p999", "max", "rate", "limit_name", "limit_p50", "limit_rate", "ratio"]
passed = failed = 0


def test(fn):
    global passed, failed
    start = time.monotonic()
    try:
        fn()
        passed += 1
        print(f"{fn.__name__}: {time.monotonic() - start:.1f} s")
    except Exception as e:  # also a key that is missing
        failed += 1
        print(f"FAIL {fn.__name__}: {type(e).__name__}: {e}")


def run(*args, nodes=0, status=0, env=None):
    cmd = [LAUNCH, "-n", str(nodes), "--no-prefix", "--time-out", "60"] if nodes else []
    r = subprocess.run([*cmd, PERF, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=90, text=True, env=dict(os.environ, UCX_MEM_EVENTS="n", **(env or {})))
    assert r.returncode == status, f"{args}: status {r.returncode}\n{r.stdout[-800:]}\n{r.stderr[-800:]}"
    return r


def rows(*args, **how):
    found = [json.loads(line) for line in run(*args, "--json", "-", **how).stdout.splitlines()]
    assert found, "no row"
    for r in found:
        assert list(r) == KEYS, list(r)
        assert r["count"] > 0 and r["unit"], r
        assert 0 <= r["min"] <= r["p50"] <= r["p90"] <= r["p99"] <= r["p999"] <= r["max"], r
        assert r["min"] <= r["avg"] <= r["max"], r
        if r["limit_name"]:
            assert r["ratio"] > 0 and (r["limit_p50"] or r["limit_rate"]), r
    return found


def tests_of_help():
    return re.findall(r"^ {16}(\w+) ", run("--help").stdout, re.M)


ALONE = {"switch": ["-n", 50], "spawn": ["-n", 50], "sync": ["-n", 50], "alloc": ["-n", 50], "sort": ["-n", 1], "call_local": ["-n", 50],
         "closure": ["-n", 50], "locate": ["-n", 100], "create": ["-n", 1], "footprint": ["-n", 200]}
PAIR = {"call_lat": ["-n", 200], "call_rate": ["-n", 2], "closure": ["-n", 50], "read": ["-n", 10], "pull": ["-n", 6],
        "migrate": ["-n", 6], "cost": ["-n", 3], "locate": ["-n", 100], "create": ["-n", 1], "footprint": ["-n", 50]}


@test
def each_test_alone():
    """and each that needs another node says so"""
    for name in tests_of_help():
        if name in ALONE:
            for r in rows("-t", name, *ALONE[name]):
                assert r["test"].split()[0] == name, r
        else:
            assert name in PAIR, f"{name} is in no list of this test"
            assert "nu_launch -n 2" in run("-t", name, status=1).stderr


@test
def each_test_on_two_nodes():
    for name in tests_of_help():
        if name in PAIR:
            rows("-t", name, *PAIR[name], nodes=2)


@test
def ranges_span_combinations():
    found = rows("-t", "read", "-s", "64K:256K", "-n", 5, nodes=2)
    assert [r["size_bytes"] for r in found] == [65536, 131072, 262144]
    found = rows("-t", "call_rate", "-O", "1:4", "-n", 1, "-d", "0,1", nodes=2)
    assert [(r["outstanding"], r["compute_us"]) for r in found] == [(o, d) for o in (1, 2, 4) for d in (0, 1)]
    assert all((r["limit_rate"] is None) == (r["compute_us"] == 0) for r in found if r["limit_name"] in (None, "plain calls on node 1"))
    found = rows("-t", "migrate", "-T", "1:2", "-n", 4, nodes=2)
    assert [(r["test"], r["threads"]) for r in found] == [(t, n) for n in (1, 2) for t in ("migrate blackout", "migrate longest stop", "migrate total")]
    assert len(rows("-t", "call_local", "-d", "0.1,1,10", "-n", 20)) == 3


@test
def each_reader():
    """also those that read only what is offered"""
    for reader in ("cma", "am", "am-offer"):
        for name in ("read", "pull", "migrate"):
            cmd = [LAUNCH, "-n", "2", "--no-prefix", "--reader", reader, PERF, "-t", name, *map(str, PAIR[name]), "--json", "-"]
            r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, text=True)
            assert r.returncode == 0 and all(json.loads(line)["reader"] == reader for line in r.stdout.splitlines()), r


@test
def over_tcp():
    for name in ("call_lat", "call_rate"):
        cmd = [LAUNCH, "-n", "2", "--no-prefix", "--transport", "tcp", PERF, "-t", name, *map(str, PAIR[name]), "--json", "-"]
        r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, text=True)
        assert r.returncode == 0 and all("tcp" in json.loads(line)["transport"] for line in r.stdout.splitlines()), r


@test
def a_move_is_six_calls():
    """asked for, begun, prepared, handed over, let go, told: each once there and back; now and then a message of something else"""
    counts = {r["test"]: r["p50"] for r in rows("-t", "cost", "-n", 20, "-s", "64K", nodes=2)}
    assert 12 <= counts["cost messages"] < 13.5, counts


@test
def tables_and_values():
    text = run("-t", "closure", "-n", 20).stdout.splitlines()
    assert text[0].startswith("# closure") and "p50[us]" in text[1] and len(text) == 3, text
    assert all(re.search(r"\[.+\]$|^outst\.$|^thr\.$|^count$", c) for c in text[1].split()), text[1]
    assert len(run("-t", "closure", "-n", 20, "-f").stdout.splitlines()) == 1
    table = list(csv.DictReader(io.StringIO(run("-t", "closure", "-n", 20, "-v", "-s", "8:32").stdout)))
    assert [int(r["size[B]"]) for r in table] == [8, 16, 32] and all(float(r["p50[us]"]) > 0 for r in table), table
    assert len(run("-t", "closure", "-n", 20, "-v", "-f").stdout.splitlines()) == 1


@test
def counts_and_files():
    with tempfile.TemporaryDirectory() as tmp:
        name = os.path.join(tmp, "a file.json")
        out = run("-t", "call_local", "-n", 30, "-w", 5, "--json", name).stdout
        with open(name) as f:
            found = [json.loads(line) for line in f]
        assert len(found) == 1 and found[0]["count"] == 30 and out.startswith("#"), (found, out)
        assert "No such file" in run("--json", os.path.join(tmp, "no/folder"), status=2).stderr


@test
def cores():
    assert run("-t", "call_local", "-n", 10, "-c", 1, env={"NU_CORES": "2"})
    assert "--cores" in run("-t", "call_lat", "-c", 3, nodes=2, status=2).stderr


@test
def wrong_usage():
    for args in (["-t", "nothing"], ["-s", "0"], ["-s", "8:4"], ["-s", "8x"], ["-n", "0"], ["-n", "-1"], ["-O", "0"], ["-d", "-1"],
                 ["-d", "1,"], ["-d", "x"], ["-T", "x"], ["-c", "0"], ["-s", "1024M"], ["--nope"], ["more"]):
        assert run(*args, status=2).stderr, args


print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
