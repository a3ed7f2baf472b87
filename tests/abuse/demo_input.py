#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Odd files and options for the demo. usage: demo_input.py BUILD"""
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile

from odd import main, run

BUILD = pathlib.Path(sys.argv[1])
LAUNCH, KVSTORE = BUILD / "ctrl/nu_launch", BUILD / "samples/kvstore"
TMP = pathlib.Path(tempfile.mkdtemp(prefix="nu input "))
ENV = dict(os.environ, UCX_MEM_EVENTS="n", UCX_LOG_LEVEL="error", NU_LOG="warn")
LOAD = ["--seconds", "0.5", "--shards", "8", "--clients", "2", "--plot", "none", "--drain", "1@0.1", "--restore", "1@0.3"]
MEMORY = ["--mem", "2G"]


def demo(*options, load=LOAD, timeout=120):
    return run([LAUNCH, "-n", "2", "--no-prefix", "--time-out", "110", *MEMORY, KVSTORE, *load, *options], env=ENV, apart=True,
               timeout=timeout)


def loads(data, records, lines, **how):
    """The demo with a file of @data: so many records are loaded, and all of them verified."""
    f = TMP / "file"
    f.write_bytes(data)
    r = demo("--file", f, **how)
    r.must(0, f"loaded {records} records ({lines} lines", f"verified {records} of {records} keys, lost 0, wrong 0")
    assert not r.err, r.err
    return r


def refused(status, text, *options):
    """One clear line on stderr, nothing on stdout."""
    r = demo(*options)
    r.must(status)
    assert r.err.count("\n") == 1 and r.err.startswith("kvstore: ") and text in r.err, r.err
    assert not r.out, r.out


def empty_lines():
    loads(b"\n\n\none\n\n\ntwo\n\n", 3, 8)  # the empty key is a key


def an_empty_file():
    loads(b"", 0, 0).must(0, "no records, so no load")


def no_final_newline():
    loads(b"a\tx\nb\ty", 2, 2)


def dos_line_ends():
    loads(b"a\tx\r\nb\ty\r\n", 2, 2)


def binary_bytes():
    noise = random.Random(7).randbytes(20000)
    lines = noise.split(b"\n")
    count = len(lines) - (not lines[-1])
    keys = {line.split(b"\t")[0] for line in lines[:count]}
    loads(noise, len(keys), count)
    loads(b"\0\0\0\t\0\n\xff\xfe\t\x80\n\0\n", 3, 3)


def duplicate_keys():
    # What is verified is the last of each: any other would count as wrong.
    text = b"".join(b"k%d\tv%d\n" % (n % 10, n) for n in range(1000))
    loads(text, 10, 1000)


def only_tabs():
    loads(b"\t\n\t\t\n\t\t\t\n", 1, 3)


def very_long_lines():
    loads(b"x" * 100_000 + b"\t" + b"y" * 900_000 + b"\nshort\n", 2, 2)


def a_line_that_is_too_long():
    limit = 16 << 20
    f = TMP / "long"
    with f.open("wb") as out:
        out.write(b"fine\n" + b"x" * (limit + (1 << 20)) + b"\n")
    r = demo("--file", f)
    r.must(1, "line 2 is longer than the most")
    assert r.err.count("\n") == 1, r.err


def a_million_records():
    text = b"".join(b"key%d\tvalue%d\n" % (n, n) for n in range(1_000_000))
    f = TMP / "million"
    f.write_bytes(text)
    r = demo("--file", f, "--value-bytes", "0", "--shards", "64")
    r.must(0, "loaded 1000000 records", "verified 1000000 of 1000000 keys, lost 0, wrong 0")


def no_such_file():
    refused(1, "/no/such/file: No such file or directory", "--file", "/no/such/file")


def a_folder():
    refused(1, "Is a directory", "--file", TMP)


def an_endless_file():
    # It ends where the main proclet's heap does.
    r = demo("--file", "/dev/zero")
    r.must(1, "do not fit into the main proclet's heap")
    assert not r.out, r.out


def bad_options():
    good = TMP / "good"
    good.write_text("a\nb\n")
    for options in (["--shards", "0"], ["--shards", "x"], ["--clients", "-1"], ["--seconds", "nan"], ["--zipf", "1e999"],
                    ["--drain", "1"], ["--drain", "9@1"], ["--restore", "1@-1"], ["--value-bytes", "99999999999999"],
                    ["--nonsense"], ["stray"], ["--file"]):
        r = demo("--file", good, *options)
        assert r.status == 2, f"{options}: status {r.status}: {r.err}"
        assert r.err.startswith("kvstore: ") and r.err.count("\n") <= 2 and not r.out, f"{options}: {r.err}{r.out}"


def a_plot_that_cannot_be_written():
    good = TMP / "good"
    good.write_text("a\nb\n")
    r = demo("--file", good, "--plot", "/no/such/folder/plot.png")
    r.must(1, "lost 0, wrong 0", "/no/such/folder/plot")


try:
    main([empty_lines, an_empty_file, no_final_newline, dos_line_ends, binary_bytes, duplicate_keys, only_tabs,
          very_long_lines, a_line_that_is_too_long, a_million_records, no_such_file, a_folder, an_endless_file,
          bad_options, a_plot_that_cannot_be_written])
finally:
    shutil.rmtree(TMP)
