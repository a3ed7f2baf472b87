# SPDX-License-Identifier: MIT
"""Nu for gdb: a node's proclets and their user-level threads, in a live process or a core file.

	(gdb) source nu-gdb.py
	nu node             who this node is, and what each core runs
	nu proclets         every proclet that is here, was here, or is on its way
	nu threads [ID]     threads of all proclets, or of one; what each waits for
	nu bt THREAD|all    the stack of one thread, or of each; parked and blocked ones too
	nu thread THREAD    frame 0 stays where gdb is; from frame 1 on the frames are that thread's: frame, up, info locals
	nu thread off       back to the kernel's thread

A THREAD is an address as `nu threads` prints it. A thread that does not run lies in memory with its registers on its
own stack; an unwinder hands these to gdb, so nothing is written to the process, and a core file does as well.
Preemption by signal is passed to the program silently.
"""
import re
import struct

import gdb
import gdb.unwinder

PREEMPT_SIGNAL = "SIGURG"

# By what gdb calls the architecture: stack pointer, program counter, registers of a saved context with their offsets
# from it, its size (switch-ARCH.S).
LAYOUTS = {
    "i386:x86-64": ("rsp", "rip", {"r15": 8, "r14": 16, "r13": 24, "r12": 32, "rbx": 40, "rbp": 48, "rip": 56}, 64),
    "aarch64": ("sp", "pc", {"x29": 0, "x30": 8, "pc": 8} | {f"x{n}": 16 + 8 * (n - 19) for n in range(19, 29)}, 176),
}


# ---- reading the runtime's structures ----

def value(text):
    return gdb.parse_and_eval(text)


def pointer_to(name):
    return gdb.lookup_type(name).pointer()


def member_offset(type_name, member):
    field = next(f for f in gdb.lookup_type(type_name).fields() if f.name == member)
    return field.bitpos // 8


def entries(head, type_name, member):
    """The objects of an intrusive list, with a bound, since memory may be torn."""
    at, offset, kind = head["next"], member_offset(type_name, member), pointer_to(type_name)
    end = int(head.address)
    for _ in range(1 << 20):
        if int(at) == end or not int(at):
            return
        yield gdb.Value(int(at) - offset).cast(kind).dereference()
        at = at["next"]


def string(v):
    try:
        return v.string() if int(v) else ""
    except gdb.error:
        return "?"


def enum_name(type_name, number, prefix):
    for f in gdb.lookup_type(type_name).fields():
        if f.enumval == int(number):
            return f.name[len(prefix):].lower().replace("_", " ")
    return str(int(number))


def symbol(address):
    text = gdb.execute(f"info symbol {int(address):#x}", to_string=True).strip()
    return text.split(" in section")[0].replace(" + ", "+") if "in section" in text else f"{int(address):#x}"


def method_name(m):
    try:
        return f"{string(m['class_name'])}.{string(m['name'])}" if int(m) else ""
    except gdb.error:
        return "?"


def proclets():
    return entries(value("nu_proclets"), "struct nu_proclet", "all_link")


def threads_of(p):
    return entries(p["threads"], "struct nu_thread", "proclet_link")


def class_name(p):
    try:
        head = p["head"]
        if not int(head):
            return "(node)" if not int(p["heap"]) and proclet_state(p) == "present" else "-"
        return string(head["cls"]["name"]) if int(head["cls"]) else "(main)"
    except gdb.error:
        return "?"


def number(v):
    """An integer, also out of an _Atomic one, which gdb does not convert by itself."""
    return int(v.cast(gdb.lookup_type("unsigned long")))


def proclet_state(p):
    return enum_name("enum nu_proclet_state", number(p["state"]), "NU_PROCLET_")


def all_threads():
    for p in proclets():
        for t in threads_of(p):
            yield p, t


def find_thread(address):
    for _, t in all_threads():
        if int(t.address) == address:
            return t
    raise gdb.GdbError(f"no thread at {address:#x}: see 'nu threads'")


def cores():
    sched = value("nu_sched")
    for i in range(int(sched["ncores"])):
        if int(sched["cores"][i]):
            yield sched["cores"][i].dereference()


def sides():
    """Of kernel threads whose user-level thread stayed in a library when another one took over the core: carrier.c."""
    sched = value("nu_sched")
    for i in range(int(sched["ncores"]), sched["cores"].type.range()[1] + 1):
        if int(sched["cores"][i]) and number(sched["cores"][i].dereference()["current"]):
            yield sched["cores"][i].dereference()


def runs_on(t):
    """The core, or what stands for one, that runs @t just now, or None."""
    for c in [*cores(), *sides()]:
        if number(c["current"]) == int(t.address):
            return c
    return None


def thread_text(t):
    core = runs_on(t)
    state = enum_name("enum nu_thread_state", t["state"], "NU_THREAD_")
    if core is not None:
        return f"running on core {int(core['index'])}"
    if state == "blocked":
        wait = enum_name("enum nu_wait", t["wait"], "NU_WAIT_")
        if wait.startswith("reply"):
            return f"waits for {method_name(t['wait_method'])} of {int(t['wait_target']):#x}"
        return f"waits: {wait}"
    return state


def what_it_does(t):
    served = method_name(t["serve_method"])
    return f"method {served}" if served else f"thread {symbol(t['fn'])}"


# ---- stacks ----

class ThreadUnwinder(gdb.unwinder.Unwinder):
    """Says that frame 0 was called by the thread that was asked for."""

    def __init__(self):
        super().__init__("nu-thread")
        self.thread = None
        self.pc = self.sp = None

    def choose(self, thread):
        self.thread = None
        gdb.invalidate_cached_frames()
        if thread is not None:
            frame = gdb.newest_frame()
            self.sp_name, self.pc_name, self.saved, self.size = layout()
            self.sp, self.pc = int(frame.read_register(self.sp_name)), int(frame.pc())
            self.thread = thread
            gdb.invalidate_cached_frames()

    def __call__(self, pending):
        if self.thread is None:
            return None
        sp = pending.read_register(self.sp_name)
        pc = pending.read_register(self.pc_name)
        if int(sp) != self.sp or int(pc) != self.pc:
            return None
        base = int(self.thread["sp"])
        info = pending.create_unwind_info(FrameId(sp, pc))
        word = gdb.lookup_type("unsigned long")
        memory = gdb.selected_inferior().read_memory(base, self.size)
        for name, offset in self.saved.items():
            number = struct.unpack_from("<Q", memory, offset)[0]
            kind = pending.read_register(name).type
            info.add_saved_register(name, gdb.Value(number).cast(word).cast(kind))
        info.add_saved_register(self.sp_name, gdb.Value(base + self.size).cast(word).cast(sp.type))
        return info


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


def layout():
    arch = gdb.newest_frame().architecture().name()
    if arch not in LAYOUTS:
        raise gdb.GdbError(f"the layout of a saved context on {arch} is not known here")
    return LAYOUTS[arch]


unwinder = ThreadUnwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def kernel_thread_of(core):
    tid = int(core["tid"])
    for k in gdb.selected_inferior().threads():
        if k.ptid[1] == tid:
            return k
    return None


def backtrace_running(core):
    k, here = kernel_thread_of(core), gdb.selected_thread()
    if k is None:
        return f"   (kernel thread {int(core['tid'])} of its core is not known to gdb)\n"
    k.switch()
    try:
        return gdb.execute("bt", to_string=True)
    finally:
        here.switch()


def backtrace(t):
    core = runs_on(t)
    if core is not None:
        return backtrace_running(core)
    chosen = unwinder.thread
    unwinder.choose(t)
    try:
        text = gdb.execute("bt", to_string=True)
    finally:
        unwinder.choose(chosen)
    lines = [re.sub(r"^#(\d+) ", lambda m: f"#{int(m.group(1)) - 1} ", line) for line in text.splitlines(True)]
    # Frame 0 is gdb's own place; it can take more lines than one.
    first = next((i for i, line in enumerate(lines) if line.startswith("#0 ")), None)
    return "".join(lines[first:]) if first is not None else "   (its stack cannot be read)\n"


# ---- commands ----

class Nu(gdb.Command):
    """Nu: proclets and user-level threads of this node. See 'help nu bt' and its kin."""

    def __init__(self):
        super().__init__("nu", gdb.COMMAND_DATA, prefix=True)


class NuNode(gdb.Command):
    """Who this node is, and what each core runs."""

    def __init__(self):
        super().__init__("nu node", gdb.COMMAND_STATUS)

    def invoke(self, arg, from_tty):
        node = value("nu_node")
        print(f"node {int(node['self'])} of {int(node['count'])}, {int(node['cores'])} core(s)")
        for c in cores():
            t = number(c["current"])
            what = f"runs thread {t:#x}" if t else ("sleeps" if number(c["sleeping"]) else "is in the scheduler")
            print(f"core {int(c['index'])}: kernel thread {int(c['tid'])} {what}, {number(c['nqueued'])} queued")
        for c in sides():
            print(f"no core: kernel thread {int(c['tid'])} runs thread {number(c['current']):#x} in a library")


class NuProclets(gdb.Command):
    """Every proclet that is here, was here, or is on its way: id, class, state, threads, heap."""

    def __init__(self):
        super().__init__("nu proclets", gdb.COMMAND_STATUS)

    def invoke(self, arg, from_tty):
        print(f"{'proclet':<20} {'class':<16} {'state':<10} {'threads':>7} {'heap KiB':>9}  notes")
        for p in proclets():
            notes, state = [], proclet_state(p)
            if state == "moved":
                notes.append(f"went to node {int(p['moved_to'])}")
            if number(p["frozen"]):
                notes.append("frozen")
            if int(p["nheld"]):
                notes.append(f"{int(p['nheld'])} messages held")
            if p["hold_output"]:
                notes.append("its output is held")
            print(f"{number(p['id']):<#20x} {class_name(p):<16} {state:<10} {int(p['nthreads']):>7} "
                  f"{int(p['mapped_bytes']) >> 10:>9}  {', '.join(notes)}".rstrip())


class NuThreads(gdb.Command):
    """Threads of all proclets, or of the one with the id given."""

    def __init__(self):
        super().__init__("nu threads", gdb.COMMAND_STATUS)

    def invoke(self, arg, from_tty):
        wanted = int(value(arg)) if arg.strip() else None
        print(f"{'thread':<18} {'proclet':<20} {'class':<16} state")
        for p, t in all_threads():
            if wanted is None or number(p["id"]) == wanted:
                print(f"{int(t.address):<#18x} {number(p['id']):<#20x} {class_name(p):<16} {thread_text(t)}; "
                      f"{what_it_does(t)}")


class NuBt(gdb.Command):
    """The stack of one thread, or of each: nu bt THREAD|all."""

    def __init__(self):
        super().__init__("nu bt", gdb.COMMAND_STACK)

    def invoke(self, arg, from_tty):
        if not arg.strip():
            raise gdb.GdbError("nu bt THREAD|all")
        if arg.strip() != "all":
            gdb.write(backtrace(find_thread(int(value(arg)))))
            return
        for p, t in list(all_threads()):
            print(f"thread {int(t.address):#x} of proclet {number(p['id']):#x} ({class_name(p)}): {thread_text(t)}; "
                  f"{what_it_does(t)}")
            gdb.write(backtrace(t) + "\n")


class NuThread(gdb.Command):
    """Frames of one thread from frame 1 on, for up, frame, info locals: nu thread THREAD|off."""

    def __init__(self):
        super().__init__("nu thread", gdb.COMMAND_STACK)

    def invoke(self, arg, from_tty):
        if arg.strip() == "off":
            unwinder.choose(None)
            return
        if not arg.strip():
            raise gdb.GdbError("nu thread THREAD|off")
        t = find_thread(int(value(arg)))
        core = runs_on(t)
        if core is not None:
            k = kernel_thread_of(core)
            if k is None:
                raise gdb.GdbError(f"kernel thread {int(core['tid'])} is not known to gdb")
            unwinder.choose(None)
            k.switch()
            return
        unwinder.choose(t)
        gdb.execute("frame 1")


def forget(event):
    unwinder.thread = None


for command in (Nu, NuNode, NuProclets, NuThreads, NuBt, NuThread):
    command()
gdb.events.cont.connect(forget)
gdb.execute(f"handle {PREEMPT_SIGNAL} nostop noprint pass", to_string=True)
