#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The documents against the tree: commands, options, variables, files, functions. usage: check.py SOURCE BUILD"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SRC, BUILD = map(pathlib.Path, sys.argv[1:3])
README = (SRC / "README.md").read_text()
MAP = (SRC / "ARCHITECTURE.md").read_text()
HABITS = (SRC / "CONTRIBUTING.md").read_text()
CHANGES = (SRC / "CHANGELOG.md").read_text()
HEADERS = ["nu.h", "nu_class.h", "nu_thread.h"]  # what programs see
LAYERS = ["core", "sched", "rpc", "rdma", "ctrl"]
ENV = dict(os.environ, UCX_MEM_EVENTS="n", UCX_LOG_LEVEL="error")
passed = failed = 0


def test(fn):
    global passed, failed
    missing = fn()
    if missing:
        failed += 1
        print(f"FAIL {fn.__name__}: {fn.__doc__}\n" + "\n".join(f"     | {m}" for m in missing))
    else:
        passed += 1


def output(*cmd, timeout=120):
    r = subprocess.run([str(c) for c in cmd], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENV,
                       cwd=BUILD, timeout=timeout)
    return r.returncode, r.stdout.decode(errors="replace")


def page_text(path):
    return re.sub(r"\\f[BIRP]|\\&|\\/", "", path.read_text()).replace("\\-", "-").replace('" "', " ").replace('"', "")


def row_cells(text, heading):
    """First cells of the table under a heading."""
    part = text.split(heading, 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", part, re.M)


# ---- commands ----

# Each command of the documents, and what runs it.
HANDLED = [
    (r"\./dev (demo|test|build|perf|lint|sanitize|vm|help)\b.*", "dev"),
    (r"nu_launch -n N .*PROG ARGS.*", "help:ctrl/nu_launch"),
    (r"nu_ctl nodes\|.*", "help:ctrl/nu_ctl"),
    (r"nu_perf -t TEST", "help:perf/nu_perf"),
    (r"nu_ctl (nodes|proclets|stats)", "suite cluster"),
    (r"nu_info( -j)?", "suite abuse"),
    (r"kvstore", "help:samples/kvstore"),
    (r"gcc -std=gnu17 prog\.c .*pkg-config.*nu\)", "suite package"),
    (r"nu_launch -n 3 \./prog", "suite package"),
    (r"nu_launch --?[a-z-]+.*", "options:ctrl/nu_launch"),
    (r"gdb .*", "suite gdb"),
    (r"valgrind .*", "suite abuse"),
    (r"perf record .*", "suite abuse"),
]


def commands():
    found = set()
    for text in (README, MAP, HABITS, CHANGES):
        text = re.sub(r"^```c$.*?^```$", "", text, flags=re.M | re.S)
        found |= set(re.findall(r"^    ((?:\./dev|nu_|build/)[^\n#]*)", text, re.M))
        found |= set(re.findall(r"`((?:\./dev |nu_launch |nu_ctl |nu_perf |gcc |gdb |valgrind |perf record )[^`]+)`", text))
    return sorted(c.strip().replace("\\|", "|") for c in found)


@test
def every_command_is_run_by_something():
    """commands in README.md, ARCHITECTURE.md, CONTRIBUTING.md and CHANGELOG.md that no test knows"""
    return [c for c in commands() if not any(re.fullmatch(p, c) for p, _ in HANDLED)]


@test
def dev_knows_its_commands():
    """`./dev X` of the documents that ./dev's usage does not have"""
    _, usage = output(SRC / "dev", "help")
    named = {m for c in commands() for m in re.findall(r"^\./dev (\w+)", c)}
    return sorted(n for n in named if n != "help" and not re.search(rf"^  {n}\b", usage, re.M))


@test
def dev_names_every_suite():
    """suites of the build that ./dev's usage does not name, or the other way round"""
    _, usage = output(SRC / "dev", "help")
    listed = set(re.search(r"one: (\w+(?:,\s+\w+)*)", usage).group(1).replace(",", " ").split())
    tests = json.loads(output("meson", "introspect", "--tests", BUILD)[1])
    have = {s.split(":")[-1] for t in tests for s in t["suite"]} - {"script"}
    return sorted(listed ^ have)


@test
def tools_have_what_is_said_of_them():
    """options and words of README's table of tools that --help does not have"""
    bad = []
    for tool in ("ctrl/nu_launch", "ctrl/nu_ctl", "ctrl/nu_info", "perf/nu_perf", "samples/kvstore"):
        status, text = output(BUILD / tool, "--help")
        if status:
            bad.append(f"{tool} --help: status {status}")
        name = tool.split("/")[-1]
        for c in commands():
            if not c.startswith(name + " "):
                continue
            for o in re.findall(r"--?[a-z][a-z-]*", c):
                if not re.search(rf"(^|[\s,]){re.escape(o)}\b", text):
                    bad.append(f"{name}: {o}")
    verbs = re.search(r"`nu_ctl ([a-z A-Z|\\]+)`", README).group(1).replace("\\", "").split("|")
    help_text = output(BUILD / "ctrl/nu_ctl", "--help")[1]
    return bad + [f"nu_ctl {v}" for v in verbs if not re.search(rf"^  {v.split()[0]}\b", help_text, re.M)]


# ---- options and man pages ----

@test
def man_pages_have_every_option():
    """options of --help that the tool's man page does not have, and the other way round"""
    bad = []
    for tool, page in (("ctrl/nu_launch", "nu_launch.1"), ("ctrl/nu_ctl", "nu_ctl.1"), ("ctrl/nu_info", "nu_info.1"), ("perf/nu_perf", "nu_perf.1"),
                       ("samples/kvstore", "kvstore.1")):
        help_options = set(re.findall(r"(?:^|\s)(--?[a-zA-Z][a-z-]*)", output(BUILD / tool, "--help")[1], re.M))
        page_body = page_text(SRC / "man" / page)
        page_options = set(re.findall(r"(?:^|[\s,(])(--?[a-zA-Z][a-z-]*)", page_body, re.M))
        bad += [f"{page} lacks {o}" for o in help_options - page_options]
        bad += [f"{page} has {o}, the tool has not" for o in page_options - help_options
                if re.search(rf"^\.BR? {re.escape(o)}\b", page_body, re.M)]
    return bad


@test
def man_pages_have_every_function():
    """public functions and macros that no man page names"""
    text = "\n".join(page_text(p) for p in (SRC / "man").glob("*.[37]"))
    internal = {"nu_errno_location", "nu_run_image", "nu_image_add", "nu_call", "nu_call_async", "nu_create", "nu_create_async", "nu_future_wait"}
    names = set()
    for h in HEADERS:
        header = (SRC / "core" / h).read_text().replace("__must_check", "")
        names |= {re.search(r"\b(nu_\w+)\s*\(", d).group(1) for d in re.findall(r"^NU_API\b([^;]*);", header, re.M)}
    return sorted(n for n in names - internal if not re.search(rf"\b{n}\b", text))


# ---- contracts ----

def contracts(header):
    """Each NU_API function of a header: its name, whether it returns an int, and the comment that stands right above it, or ''."""
    for m in re.finditer(r"^NU_API\b([^;{]*?)\b(nu_\w+)\s*\([^;]*;", header, re.M):
        above = header[:m.start()]
        own = re.search(r"/\*(?:(?!\*/).)*\*/\n\Z", above[max(above.rfind("/*"), 0):], re.S)
        yield m.group(2), m.group(1).replace("__must_check", "").split() == ["int"], own.group(0) if own else ""


def gaps(header):
    """What the comments of a header's functions lack."""
    for name, returns_int, comment in contracts(header):
        if not comment:
            yield f"{name}: no comment of its own"
        elif "Context: " not in comment:
            yield f"{name}: no Context:"
        elif returns_int and not re.search(r"Errors: .*-E[A-Z]+ ", comment, re.S):
            yield f"{name}: no Errors:"
        elif re.search(r"(?:^/\*\s*|[.:] )(?:Who|What|Whoever)\b", comment.replace("\n *", "")):
            yield f"{name}: a sentence begins with who, what or whoever"


@test
def every_function_has_its_contract():
    """public functions without a comment that says Context: and, if they return an int, Errors:"""
    return [f"{h}: {gap}" for h in HEADERS for gap in gaps((SRC / "core" / h).read_text())]


@test
def no_contract_can_be_taken_out():
    """public functions whose comment, Context: or Errors: can go without every_function_has_its_contract() seeing it"""
    bad, found = [], 0
    for h in HEADERS:
        header = (SRC / "core" / h).read_text()
        found += header.count("\nNU_API ")
        for name, returns_int, comment in contracts(header):
            found -= 1
            for part in ["Context:"] + ["Errors:"] * returns_int + [comment]:
                if not part or not any(g.startswith(f"{name}:") for g in gaps(header.replace(comment, comment.replace(part, "")))):
                    bad.append(f"{h}: {name}: {part.splitlines()[0] if part else 'no comment'}")
    return bad + ([f"{found} functions are not seen"] if found else [])


# ---- examples ----

def examples():
    """Whole programs in the documents: name and text."""
    for i, text in enumerate(re.findall(r"^```c$\n(.*?)^```$", README, re.M | re.S)):
        yield f"README.md example {i + 1}", text
    for page in sorted((SRC / "man").glob("*.[37]")):
        for i, text in enumerate(re.findall(r"^\.EX$\n(.*?)^\.EE$", page.read_text(), re.M | re.S)):
            if "#include" in text:
                yield f"{page.name} example {i + 1}", text.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


@test
def every_example_compiles_and_runs():
    """programs in README.md and man pages that do not compile without a word, or fail on two nodes"""
    bad, made = [], 0
    with tempfile.TemporaryDirectory() as tmp:
        for name, text in examples():
            prog = pathlib.Path(tmp) / f"example{made}"
            prog.with_suffix(".c").write_text(text)
            status, said = output("gcc", "-std=gnu17", "-Wall", "-Wextra", "-Wno-unused-parameter", f"-I{BUILD}/inc", "-o", prog, f"{prog}.c",
                                  f"-L{BUILD}", "-lnu", f"-Wl,-rpath,{BUILD}")
            if not status and not said:
                status, said = output(BUILD / "ctrl/nu_launch", "-n", "2", "--cores", "1", "--time-out", "30", prog)
                said = said if status else ""
            if status or said:
                bad.append(f"{name}: status {status}: {said[:400]}")
            made += 1
    return bad if made >= 3 else bad + [f"only {made} examples were found"]


@test
def small_samples_are_in_the_table():
    """small programs of samples/meson.build that README.md's table lacks, or the other way round, or of 60 lines and more"""
    built = set(re.findall(r"'(\w+)'", re.search(r"foreach name : \[(.*?)\]", (SRC / "samples/meson.build").read_text(), re.S).group(1)))
    listed = set(re.findall(r"^\| `samples/(\w+)\.c` \|", README, re.M))
    long = [n for n in built if len((SRC / "samples" / f"{n}.c").read_text().splitlines()) >= 60]
    return sorted(built ^ listed) + sorted(f"{n}.c is long" for n in long)


# ---- environment ----

@test
def variables_of_the_habits_are_in_the_table():
    """variables that CONTRIBUTING.md and CHANGELOG.md name and README.md does not list"""
    table = README.split("## Environment", 1)[1].split("\n## ", 1)[0]
    return sorted(v for v in set(re.findall(r"`(NU_[A-Z_]+)=", HABITS + CHANGES)) if f"`{v}`" not in table)


@test
def the_version_has_its_changes():
    """CHANGELOG.md: nothing on top for what is to come, or no part for the version of meson.build"""
    version = re.search(r"version: '([\d.]+)'", (SRC / "meson.build").read_text()).group(1)
    parts = re.findall(r"^## (\S+)", CHANGES, re.M)
    return [] if parts[0] == "Unreleased" and version in parts else [f"{version}: {parts}"]


@test
def environment_variables_are_in_the_table():
    """variables that the code reads and README.md does not list, or the other way round"""
    code = "\n".join(p.read_text() for d in LAYERS + ["samples", "perf"] for p in (SRC / d).rglob("*.c"))
    read = set(re.findall(r'getenv\("(NU_\w+)"\)', code)) | set(re.findall(r'_env = getenv\("(NU_\w+)"\)', code))
    read |= set(re.findall(r'"(NU_(?:LOG|STACK_KIB|SPIN_US|PIN|BOOT_TIMEOUT_S|CORES|MEM|FAULT|FAULT_LOG|[A-Z_]+_ENV))"', code))
    listed = {v for cell in row_cells(README, "## Environment") for v in re.findall(r"`(NU_\w+)`", cell)}
    return sorted(f"{v} is not in README.md" for v in read - listed) + sorted(f"{v} is not in the code" for v in listed - read)


# ---- the map ----

def rooms():
    """Names in backquotes in the table of folders, by folder."""
    part = MAP.split("## Folders", 1)[1].split("\n## ", 1)[0]
    found = {}
    for folder, cell in re.findall(r"^\| `(\w+)/` \| (.*) \|$", part, re.M):
        names = []
        for quoted in re.findall(r"`([^`]+)`", cell):
            names += quoted.split()
        found[folder] = names
    return found


def as_pattern(name):
    return re.escape(name).replace(r"\*", ".*").replace("ARCH", r"(x86_64|aarch64)")


@test
def every_room_on_the_map_exists():
    """names in ARCHITECTURE.md's table of folders with no file of that name"""
    bad = []
    for folder, names in rooms().items():
        have = [p.name for p in (SRC / folder).iterdir()]
        for n in names:
            pattern = "^" + as_pattern(n.rstrip("/")) + r"($|[.\-])"
            if not any(re.match(pattern, h) for h in have):
                bad.append(f"{folder}/{n}")
    return bad


@test
def every_file_is_on_the_map():
    """source files whose room ARCHITECTURE.md's table of folders does not name"""
    bad = []
    for folder, names in rooms().items():
        for f in sorted((SRC / folder).iterdir()):
            if f.suffix not in (".c", ".S") or f.name.endswith("_stub.c"):
                continue
            if not any(re.match("^" + as_pattern(n) + r"([._\-]|$)", f.name) for n in names):
                bad.append(f"{folder}/{f.name}")
    return bad


@test
def files_and_links_in_the_documents_exist():
    """paths named in the documents that are not there"""
    paths = set(re.findall(r"`((?:core|sched|rpc|rdma|ctrl|samples|perf|tests|man)/[\w./-]+)`", README + MAP + HABITS + CHANGES))
    return sorted(p for p in paths if not (SRC / p).exists() and not (BUILD / p).exists())


@test
def functions_in_the_map_exist():
    """functions that ARCHITECTURE.md names and no file has"""
    code = "\n".join(p.read_text(errors="replace") for d in LAYERS for p in (SRC / d).rglob("*.[chS]"))
    return sorted(n for n in set(re.findall(r"`(\w+)\(\)`", MAP)) if not re.search(rf"\b{n}\b", code) and n.startswith("nu_"))


print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
