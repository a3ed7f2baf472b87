#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Limits: the same near, far and after a move; said once, with the limit; and silence where nothing failed."""
import re
import sys

from abuse import Job, check, done

LAUNCH, PROG, CTL = sys.argv[1:4]
MAX = 16 << 20
EMSGSIZE, EINVAL = -90, -22


def job(*args, options=(), nodes=2, env=None):
    return Job([LAUNCH, "-n", nodes, "--cores", "1", "--no-prefix", "--time-out", "60", *options, PROG, *args], env)


def alone(*args, env=None):
    return Job([PROG, *args], env)


def wanted(outcomes, places):
    return [rf"^{where} {re.escape(what)}: {ret}, {got}$" for where in places for what, (ret, got) in outcomes.items()]


# ---- sizes ----
SIZES = {
    "bytes fit": (0, MAX - 16), "string fits": (0, MAX - 24), "vector fits": (0, MAX // 8 - 2),
    "result fits": (0, MAX), "result after one too large": (0, 5), "creation fits": (0, 0),
}
TOO_LARGE = {  # and what is said of each
    "bytes too large": "big.take", "string too large": "big.take_str", "vector too large": "big.take_vec",
    "vector that wraps": "big.take_vec", "two too large": "big.take_two",
    "closure's argument too large": "big.apply", "asynchronous argument too large": "big.take", "creation too large": "big.init",
    "asynchronous creation too large": "big.init",
}
RESULT_TOO_LARGE = {
    "result too large": "big.give", "result that wraps": "big.give", "string result too large": "big.give_str",
    "vector result too large": "big.give_vec", "vector result that wraps": "big.give_vec",
    "closure's result too large": "big.apply", "asynchronous result too large": "big.give", None: "big.give_later",
}
SIZES |= {what: (EMSGSIZE, 0) for what in [*TOO_LARGE, *RESULT_TOO_LARGE] if what}


def said_once(places):
    """Each refusal has one line."""
    def look(job):
        limit = "the limit of 16777216 bytes"
        for what, table in ("arguments are", TOO_LARGE), (r"result of \d+ bytes is", RESULT_TOO_LARGE):
            lines = re.findall(rf"^nu: node \d: call (\S+): its {what} larger than {limit}", job.text, re.M)
            want = sorted([*table.values()] * places)
            if sorted(lines) != want:
                return f"its {what} too large: said of {sorted(lines)}, want {want}"
        return None
    return look


for transport in "shm", "tcp":
    check(f"sizes {transport}", job("sizes", options=["--transport", transport, "--mem", "512M"]), 0,
          [*wanted(SIZES, ["near", "far", "moved"]), r"^all others have ended: 1$"], also=said_once(3))
check("sizes alone", alone("sizes", env={"NU_MEM": "512M"}), 0, [*wanted(SIZES, ["near"]), r"^all others have ended: 1$"],
      also=said_once(1))

# ---- what is not there ----
NULLS = {
    "nu_out_str(NULL)": (0, 0), "nu_out_str(NULL) after another": (0, 0), "nu_out_bytes(NULL, 3)": (EINVAL, 0),
    "nu_out_bytes(NULL, 0)": (0, 0), "nu_bytes(NULL, 5)": (0, 0), "nu_str(NULL)": (0, 0), "no place for a number": (0, 0),
    "no place for bytes": (0, 0), "no place for a reference": (0, 0), "no place for a new proclet": (EINVAL, 0),
    "no place for a strong reference": (EINVAL, 0), "a future": (0, 0), "no place for a future's": (0, 0), "its place": (0, 7),
    "no future": (EINVAL, 0), "no reference": (0, 0), "no thread to join": (EINVAL, 0), "no thread to detach": (EINVAL, 0),
    "no counters": (EINVAL, 0), "no nodes": (EINVAL, 0),
}
LINE = r"call big.give_null: its result is NULL with a length of 3 bytes"
check("nulls", job("nulls"), 0, [*wanted(NULLS, ["near", "far", "moved"]), LINE, r"^all others have ended: 1$"])
check("nulls alone", alone("nulls"), 0, [*wanted(NULLS, ["near"]), LINE, r"^all others have ended: 1$"])
check("no main function", alone("no-main"), 0, [r"^nu_run: -22$"])

# ---- the main proclet's capacity ----
for capacity in 1, 3 << 20, 4 << 30, (4 << 30) + 1, 1 << 40:
    check(f"main_capacity_bytes {capacity}", job("capacity", capacity, nodes=2), 0, [r"^ran$"], [r"nu: "])
check("more than 1 GiB in it", alone("capacity", 4 << 30, 5 << 28, env={"NU_MEM": "4G"}), 0, [r"^ran$", r"^allocated$"], [r"nu: "])
for capacity in (1 << 40) + 1, 2**64 - 1:
    check(f"main_capacity_bytes {capacity}", alone("capacity", capacity), 1,
          [rf"^nu: node 0: a proclet's capacity of {capacity} bytes is above the limit of 1 TiB", r"node 0:? cannot start: "],
          [r"^ran$"])
# ---- a heap that the node's memory ends: silent while there is some, one line when there is none ----
for mib, each in (256, 1 << 16), (1024, 1 << 16):
    check(f"15/16 of {mib} MiB in one heap", alone("fill", each, (mib << 20) * 15 // 16, env={"NU_MEM": f"{mib}M"}), 0,
          [rf"^{mib * 960} KiB of {mib * 960}$"], [r"nu: "])
check("more than there is", alone("fill", 1 << 16, 300 << 20, env={"NU_MEM": "256M"}), 0, [r"^\d+ KiB of 307200$"],
      also=lambda j: None if len(j.lines(r"^nu: ")) == 1 else "not one line")

# ---- times in options and in the environment ----
TOO_LONG = 2**63, 2**64 - 1, 2**64, "1e300", "inf"
for value in 0, -1, "nan", "", "1x", *TOO_LONG:
    check(f"--time-out {value}", job("ran", options=["--time-out", value]), 2,
          [r"--time-out takes a number of seconds, above 0 and up to 1e9, not"], [r"^ran$"])
    check(f"nu_ctl --time-out {value}", Job([CTL, "--time-out", value, "status"]), 2,
          [r"--time-out takes a number of seconds from 1 to 86400, not"])
for value in 20, "1e9":
    check(f"--time-out {value}", job("ran", options=["--time-out", value]), 0, [r"^ran$"])
for value in -1, "nan", 1, *TOO_LONG:
    check(f"--host-time-out {value}", job("ran", options=["--host-time-out", value]), 2, [r"--host-time-out"], [r"^ran$"])
for value in 0, *TOO_LONG:
    check(f"NU_BOOT_TIMEOUT_S {value}", job("ran", env={"NU_BOOT_TIMEOUT_S": str(value)}), 0, [r"^ran$"], [r"nu: "])
done()
