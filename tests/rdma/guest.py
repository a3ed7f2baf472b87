# SPDX-License-Identifier: MIT
"""The tests of run.py, within guests. usage: guest.py BUILD one|two [NAME...], on the first guest of the run

Under emulation everything takes ten to twenty times as long as on the host: the limits here are for that, and for a busy
host on top; nothing is measured.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

BUILD, SOURCE = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).resolve().parents[2]
LAUNCH, INFO, KVSTORE = BUILD / "ctrl/nu_launch", BUILD / "ctrl/nu_info", BUILD / "samples/kvstore"
UNITS = [BUILD / "tests" / f"test_rdma_{name}" for name in ("verbs", "verbs_faults")]
tests = {"one": [], "two": []}


class Fail(Exception):
    pass


class Skip(Exception):
    pass


def test(run):
    return lambda fn: tests[run].append(fn)


def check(good, why):
    if not good:
        raise Fail(why)


def output(*cmd, limit=120, env=None, status=0):
    """What a command says, on both streams. A status other than the one expected (None: any) fails the test."""
    line = ["env", *[f"{k}={v}" for k, v in (env or {}).items()], *map(str, cmd)]
    try:
        r = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit)
    except subprocess.TimeoutExpired as e:
        raise Fail(f"still ran after {limit} s: {' '.join(line[1:])}\n{(e.stdout or b'').decode(errors='replace')}") from e
    text = r.stdout.decode(errors="replace")
    if status is not None:
        check(r.returncode == status, f"status {r.returncode}: {' '.join(line[1:])}\n{text}")
    return text


def poll(what, condition, limit=60):
    end = time.monotonic() + limit
    while not condition():
        check(time.monotonic() < end, f"{what}: not within {limit} s")
        time.sleep(0.1)


def on(node, *cmd, **kw):
    return output("ssh", f"nu{node}", *cmd, **kw)


def port_state():
    return re.search(r"state:\s+(\w+)", output("ibv_devinfo", "-d", "rxe0")).group(1)


def answers():
    return subprocess.run(["busybox", "ping", "-c1", "-W1", "nu2"], stdout=subprocess.DEVNULL, check=False).returncode == 0


def need_verbs():
    if not all(u.exists() for u in UNITS):
        raise Skip("this build has no reader by verbs")


# ---- one guest ----

@test("one")
def device_is_active():
    check(port_state() == "PORT_ACTIVE", f"rxe0 is {port_state()}")
    text = output("ibv_devinfo", "-v", "-d", "rxe0")
    check("GID[" in text, "rxe0 has no GID\n" + text)


@test("one")
def nu_info_finds_the_device():
    told = json.loads(output(INFO, "-j"))
    check("rxe0" in json.dumps(told["rdma"]), json.dumps(told["rdma"], indent=1))


@test("one")
def unit_tests_on_a_device():
    need_verbs()
    for unit in UNITS:
        passes(unit)


def passes(unit):
    """On a device no test may be skipped."""
    with tempfile.TemporaryDirectory() as tmp:
        report = pathlib.Path(tmp) / "report.json"
        text = output(unit, f"--json={report}", "--jobs=1", limit=400, status=None)
        cases = [t for s in json.loads(report.read_text())["test_suites"] for t in s["tests"]]
    bad = [t["name"] for t in cases if t["status"] != "PASSED"]
    check(cases and not bad, f"{', '.join(bad) or 'no tests'}\n{text}")


def cluster(program, *args, options=(), launcher=(LAUNCH,), env=(), **kw):
    return output(*launcher, "--cores", "1", "--mem", "256M", "--no-prefix", "--time-out", "110", "--reader", "verbs", *options,
                  BUILD / f"tests/cluster/cluster_{program}", *args, env={"NU_LOG": "info", **dict(env)}, limit=130, **kw)


def ucx_over_rdma():
    """Options and environment for messages over RDMA, too. UCX's datagrams get lost over soft-RoCE's IPv4 GIDs (its own
    ucx_perftest gives up there), and it makes all connections by them."""
    gids = pathlib.Path("/sys/class/infiniband/rxe0/ports/1/gids")
    local = [g.name for g in sorted(gids.iterdir(), key=lambda g: int(g.name)) if g.read_text().startswith("fe80:")]
    check(local, "the device has no GID of IPv6")
    return ["--transport", "rc_verbs,ud_verbs"], {"UCX_IB_GID_INDEX": local[0]}


def sent():
    """Packets that the device has sent, by its own count."""
    return int(pathlib.Path("/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts").read_text())


def only_verbs(text, nodes=2):
    """Every node said that it reads each other one so, and none another way."""
    ways = re.findall(r"reads the memory of node \d+ through (\w+)", text)
    check(ways == ["verbs"] * nodes * (nodes - 1), f"readers: {ways}\n{text}")


@test("one")
def conservation_by_reads():
    """threads in every state, in proclets that are moved by RDMA READ and by nothing else"""
    need_verbs()
    before = sent()
    only_verbs(cluster("conserve", 8, 200, options=["-n", "2"]))
    check(sent() - before > 200, f"the device sent {sent() - before} packets in 200 moves")


@test("one")
def moves_by_reads():
    """what moves refuse, heaps that grow, a node without room, drains: with heaps of up to 4 MiB, since larger ones take minutes"""
    need_verbs()
    only_verbs(cluster("move", 4, options=["-n", "2", "--cores", "2"]))


@test("one")
def synchronisation_by_reads():
    """threads that wait for one another and for timers, on both sides of moves by RDMA READ"""
    need_verbs()
    only_verbs(cluster("sync", options=["-n", "3"]), nodes=3)


@test("one")
def references_by_reads():
    """counts of references to proclets that are moved by RDMA READ meanwhile"""
    need_verbs()
    only_verbs(cluster("refs", options=["-n", "3"]), nodes=3)


@test("one")
def steered_by_nu_ctl():
    """nu_ctl's moves, drains and restores of a job that reads so"""
    need_verbs()
    before = sent()
    text = output("python3", SOURCE / "tests/cluster/operate.py", LAUNCH, BUILD / "ctrl/nu_ctl", BUILD / "tests/cluster/cluster_serve",
                  BUILD / "samples/accumulator", "--reader", "verbs", "--mem", "256M", env={"NU_LOG": "error"}, limit=200)
    check(re.search(r"^\d+ passed, 0 failed$", text, re.M), text)
    check(sent() - before > 20, f"the device sent {sent() - before} packets in 20 moves")


@test("one")
def messages_over_rdma():
    """calls, answers, closures and moves whose messages UCX carries over reliable connections"""
    need_verbs()
    transport, env = ucx_over_rdma()
    only_verbs(cluster("calls", "verbs", options=["-n", "2", *transport], env=env))


@test("one")
def benchmarks_of_reads():
    """what READs and moves are held against is measured; a heap that has grown is offered in few windows"""
    need_verbs()

    def rows(*what):
        text = output(LAUNCH, "-n", "2", "--cores", "1", "--mem", "256M", "--no-prefix", "--time-out", "80", "--reader", "verbs",
                      BUILD / "perf/nu_perf", *what, "--json", "-", limit=90)
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return {r["test"]: r for r in found}

    read = rows("-t", "read", "-s", "64K", "-O", "4", "-n", "2")["read"]
    check(read["limit_name"] == "bare READ" and read["limit_p50"] > 0 and read["p50"] > 0, read)
    cost = rows("-t", "cost", "-s", "8M", "-n", "2")
    check(cost["cost windows bound"]["p50"] == 3, cost)
    check(cost["cost read requests"]["p50"] >= 8, cost)


@test("one")
def memlock_too_small():
    """the limit holds for root, too, without a capability"""
    need_verbs()
    bare = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=1048576:1048576", LAUNCH]
    text = cluster("move", options=["-n", "2"], launcher=bare, status=None)
    check(re.search(r"RLIMIT_MEMLOCK is 1024 KiB.* \d+ MiB would be locked", text), text)


# ---- two guests ----

@test("two")
def hosts_reach_each_other():
    poll("nu2 answers", answers)
    check(on(2, "hostname").strip() == "nu2", "ssh nu2 is not at nu2")
    check("unlimited" in on(2, "ulimit -l"), "ulimit -l is not unlimited behind ssh")


@test("two")
def reads_between_hosts():
    """RDMA READ by the tool that others are measured with"""
    bw = ["ib_read_bw", "-F", "-d", "rxe0", "-s", "65536", "-n", "50"]
    with subprocess.Popen(["ssh", "nu2", *bw], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            poll("ib_read_bw listens", lambda: ":18515" in on(2, "ss -ltn"))
            text = output(*bw, "nu2")
            check(re.search(r"^ *65536 +50 +", text, re.M), text)
            server.wait(60)
        finally:
            server.kill()


@test("two")
def cable_pulled():
    for node, back in (1, lambda: port_state() == "PORT_ACTIVE"), (2, lambda: True):
        output("rig", "link", node, "down")
        poll(f"nu2 is away while the cable of nu{node} is out", lambda: not answers())
        if node == 1:
            poll("the port is down", lambda: port_state() == "PORT_DOWN")
        output("rig", "link", node, "up")
        poll(f"nu2 is back when the cable of nu{node} is in", lambda: answers() and back())
    check("not understood" in output("rig", "link", 3, "down", status=1), "a cable of no guest")


@test("two")
def loss_and_delay():
    """the kernel's netem, which other tests rely on"""
    netem(2, "delay 50ms")
    try:
        text = output("busybox", "ping", "-c3", "-W10", "nu2")
        took = float(re.search(r"min/avg/max = ([\d.]+)", text).group(1))
        check(took >= 50, f"a delay of 50 ms is one of {took} ms\n{text}")
    finally:
        no_netem(2)


def netem(node, what):
    on(node, f"tc qdisc replace dev eth0 root netem {what}")


def no_netem(node):
    on(node, "tc qdisc del dev eth0 root")


def kvstore(*options, **kw):
    records = pathlib.Path("/tmp/records")
    records.write_text("".join(f"key{i}\tvalue {i}\n" for i in range(400)))
    on(2, f"test -e {records} || seq 0 399 | sed 's/.*/key&\\tvalue &/' >{records}")
    text = output(LAUNCH, "--hosts", "nu1,nu2", "--cores", "2", "--mem", "256M", "--time-out", "140", *options, KVSTORE,
                  "--file", records, "--shards", "12", "--clients", "2", "--seconds", "10", "--drain", "1@2", "--restore",
                  "1@5", "--plot", "none", limit=160, **kw)
    return text


@test("two")
def demo_over_two_hosts():
    """the key-value store, one host of which is emptied under load"""
    need_verbs()
    only_verbs(kvstore("--reader", "verbs", env={"NU_LOG": "info"}))


@test("two")
def demo_without_sockets():
    """the same, its messages over RDMA, too"""
    need_verbs()
    transport, env = ucx_over_rdma()
    text = kvstore("--reader", "verbs", *transport, env={"NU_LOG": "info", **env})
    only_verbs(text)
    check(re.search(r"node 1 on host 1: UCX, since --transport says so", text), text)


@test("two")
def demo_with_loss_and_delay():
    need_verbs()
    for node in 1, 2:
        netem(node, "loss 1% delay 2ms")
    try:
        kvstore("--reader", "verbs")
    finally:
        for node in 1, 2:
            no_netem(node)


@test("two")
def cable_pulled_while_proclets_move():
    """Moves under way fail or wait; no call is lost or run twice"""
    need_verbs()
    before = sent()
    with subprocess.Popen(["env", "NU_LOG=info", LAUNCH, "--hosts", "nu1,nu2", "--cores", "1", "--mem", "256M", "--time-out", "150",
                           "--host-time-out", "60", "--reader", "verbs", BUILD / "tests/cluster/cluster_conserve", "12", "300"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as job:
        try:
            poll("proclets move", lambda: sent() - before > 500 or job.poll() is not None, 100)
            running = job.poll() is None
            output("rig", "link", 2, "down")
            for _ in range(4):  # as long as four pings take to be given up
                check(not answers(), "nu2 answers without a cable")
            output("rig", "link", 2, "up")
            text = job.communicate(timeout=170)[0].decode(errors="replace")
        finally:
            job.kill()
            output("rig", "link", 2, "up")
    check(running, f"the job ended before the cable was pulled\n{text}")
    found = re.search(r"(\d+) moves .*; (\d+) increments counted, (\d+) acknowledged, 0 errors", text)
    check(found and found[2] == found[3] and int(found[1]) > 0, text)


GIVEN_UP = "it will be made anew"  # a queue pair


def cables(state):
    for node in 1, 2:
        output("rig", "link", node, state)


@test("two")
def cable_pulled_while_a_heap_is_read():
    """The move is undone, nothing of the proclet is lost, and the next move works"""
    need_verbs()
    said = pathlib.Path("/tmp/cable.out")
    with said.open("w") as out, subprocess.Popen(
            ["env", "NU_LOG=info", LAUNCH, "--hosts", "nu1,nu2", "--cores", "1", "--mem", "256M", "--time-out", "160", "--host-time-out",
             "60", "--no-prefix", "--reader", "verbs", BUILD / "tests/cluster/cluster_cable"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT) as job:
        def has(text):
            return text in said.read_text(errors="replace") or job.poll() is not None
        try:
            poll("the heap moves", lambda: has("to and fro"), 100)
            for _ in range(5):  # a pull may fall between two moves
                before = sent()
                poll("the heap is read", lambda: sent() - before > 100 or has("cut: "), 60)
                # Long enough for the device of who reads to give up: it sends again for seconds.
                cables("down")
                try:
                    poll("a READ is given up", lambda: GIVEN_UP in said.read_text(errors="replace") or has("cut: "), 15)
                except Fail:
                    pass
                cables("up")
                poll("nu2 is back", answers)
                try:
                    poll("the move has failed", lambda: has("cut: "), 10)
                    break
                except Fail:
                    pass
            job.wait(timeout=170)
        finally:
            job.kill()
            cables("up")
    text = said.read_text(errors="replace")
    check(job.returncode == 0 and "1 passed, 0 failed" in text, text)
    if "\nnot cut: " in text:
        raise Skip("no READ was under way whenever the cables were out")
    check("one was undone" in text, text)


# ----

def panic():
    """The last thing: how the rig reports it is run.py's to check."""
    print("two: all done", flush=True)
    subprocess.run(["ssh", "nu2", "echo c >/proc/sysrq-trigger"], check=False, timeout=60)
    time.sleep(60) # the rig ends with the guest


def main():
    run, names = sys.argv[2], sys.argv[3:]
    for fn in tests[run]:
        if names and fn.__name__ not in names:
            continue
        name, begin = f"{run}: {fn.__name__.replace('_', ' ')}", time.monotonic()
        try:
            fn()
            print(f"ok {name}, {time.monotonic() - begin:.0f} s", flush=True)
        except Skip as e:
            print(f"SKIP {name}: {e}", flush=True)
        except Fail as e:
            print(f"FAIL {name}: {e}", flush=True)
        except Exception as e:  # a test's own mistake
            print(f"FAIL {name}: {type(e).__name__}: {e}", flush=True)
    if run == "two":
        panic()
    print(f"{run}: all done", flush=True)
    return 3 # so that the rig has a status to pass on


sys.exit(main())
