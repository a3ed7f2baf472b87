# SPDX-License-Identifier: MIT
"""Virtual machines under plain emulation, each with an RDMA device (soft-RoCE), on one Ethernet segment.

They run Debian's kernel on the host's own root file system, read-only under a layer in memory. All that a run needs goes
to them in their initrd, so that nothing of it lies in a file; their serial ports are sockets of this process, which tells
a guest's life from the lines of its control port: `up`, `exit STATUS`, and what `rig` (guest-rig) asks for.
"""
import collections
import ctypes
import json
import os
import pathlib
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

import image
import ticks

HERE = pathlib.Path(__file__).resolve().parent
FORWARDED = ("NU_", "UCX_", "RDMAV_")
CONSOLE_LINES = 120
CRASHED, TIMED_OUT = 125, 124
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)

Options = collections.namedtuple("Options", "nodes cpus mem limit boot_limit memlock sshd out run_on accel env control tty timing",
                                 defaults=(1, 2, 2048, 300, 120, "unlimited", False, None, "all", "tcg", (), None, None, False))


class Interrupted(Exception):
    pass


def settings(options, end, modules, cwd):
    values = {"NODES": options.nodes, "MEMLOCK": options.memlock, "SSHD": "yes" if options.sshd else "",
              "MODULES": modules, "END": end, "CWD": cwd, "RUN_ON": options.run_on,
              "TTY": options.tty or ""}
    return "".join(f"{k}={shlex.quote(str(v))}\n" for k, v in values.items())


def environment(options):
    values = {k: v for k, v in os.environ.items() if k.startswith(FORWARDED)}
    if options.tty:
        values |= {"TERM": os.environ.get("TERM", "dumb"), "PS1": "nu1:\\w# "}
    for e in options.env:
        name, given, value = e.partition("=")
        values[name] = value if given else os.environ.get(name, "")
    if options.out:
        values["OUT"] = "/run/nu-vm/out"
    return "".join(f"export {k}={shlex.quote(v)}\n" for k, v in values.items())


def initrd(base, options, command, end, modules):
    """A file of the kind that has no name: the image's initrd and, behind it, an archive with this run's own files."""
    with tempfile.TemporaryDirectory() as tmp:
        config = pathlib.Path(tmp) / "config"
        (config / "bin").mkdir(parents=True)
        (config / "settings").write_text(settings(options, end, modules, os.getcwd()))
        (config / "environment").write_text(environment(options))
        (config / "command").write_text("exec " + " ".join(map(shlex.quote, command)) + "\n")
        (config / "guest-main").write_bytes((HERE / "guest-main").read_bytes())
        (config / "bin/rig").write_bytes((HERE / "guest-rig").read_bytes())
        (config / "bin/rig").chmod(0o755)
        if options.sshd:
            image.require("ssh-keygen", "sshd", "ssh")
            (config / "ssh").mkdir()
            image.call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f", config / "ssh/key")
        if options.out:
            (config / "out").mkdir()
        mine = image.archive(pathlib.Path(tmp))
    fd = os.memfd_create("initrd")
    with open(fd, "wb", closefd=False) as f:
        f.write(base.read_bytes())
        f.write(mine)
    return fd


def die_with(parent):
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setpgid(0, 0)  # Ctrl-C is for this program alone
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Port:
    """One end of a serial port or monitor of a guest; the other end is qemu's."""

    def __init__(self, guest, name, on_data):
        self.guest, self.name, self.on_data = guest, name, on_data
        self.sock, self.peer = socket.socketpair()
        self.rest = b""

    def lines(self, data):
        *whole, self.rest = (self.rest + data).split(b"\n")
        return [w.decode(errors="replace").strip("\r\0") for w in whole]

    def send(self, text):
        self.sock.sendall(text.encode() + b"\n")


class Guest:
    def __init__(self, rig, node):
        self.rig, self.node, self.status, self.asked = rig, node, None, None
        self.console = collections.deque(maxlen=CONSOLE_LINES)
        self.up = self.idle = self.killed = False
        self.open_outputs = 2
        self.ports = {n: Port(self, n, getattr(self, "on_" + n)) for n in ("control", "out", "err", "console", "monitor")}
        if rig.options.tty and node == 1:
            self.ports["tty"] = Port(self, "tty", self.on_tty)
        self.log = open(os.path.join(rig.options.out, f"log.{node}"), "wb") if rig.options.out else None
        self.process = None

    def start(self, wires, kernel, initrd_fd):
        o = self.rig.options
        cmd = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35",
               "-smp", str(o.cpus), "-m", str(o.mem), "-kernel", str(kernel), "-initrd", f"/proc/self/fd/{initrd_fd}",
               "-append", self.append(), "-device", "virtio-serial-pci,max_ports=8"]
        cmd += ["-accel", "kvm", "-cpu", "host"] if o.accel == "kvm" else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        for name, port in self.ports.items():
            cmd += ["-chardev", f"socket,id={name},fd={port.peer.fileno()}"]
        cmd += ["-serial", "chardev:console", "-mon", "chardev=monitor,mode=control"]
        if "tty" in self.ports:
            cmd += ["-device", "virtconsole,nr=0,chardev=tty"]
        for nr, name in enumerate(("control", "out", "err"), 1):
            cmd += ["-device", f"virtserialport,nr={nr},chardev={name},name={name}"]
        cmd += ["-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"]
        if o.out:
            path = os.path.abspath(o.out).replace(",", ",,")
            cmd += ["-virtfs", f"local,path={path},mount_tag=out,security_model=none"]
        cmd += self.network(wires)
        keep = [initrd_fd] + [p.peer.fileno() for p in self.ports.values()] + [w.fileno() for w in wires]
        parent = os.getpid()
        self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=self.ports["console"].peer,
                                        stderr=self.ports["console"].peer, pass_fds=keep,
                                        preexec_fn=lambda: die_with(parent))
        for port in self.ports.values():
            port.peer.close()
        self.ports["monitor"].send('{"execute": "qmp_capabilities"}')

    def append(self):
        # nokaslr: the kernel is not relocated when booted unpacked. notests, blacklist, rodata: slow under emulation.
        clock = f"tsc=reliable tsc_early_khz={self.rig.tsc_khz}" if self.rig.tsc_khz else "clocksource=hpet"
        return (f"console=ttyS0 quiet panic=-1 oops=panic mitigations=off nowatchdog nokaslr {clock} no_timer_check "
                f"random.trust_cpu=on cryptomgr.notests rodata=off net.ifnames=0 NODE={self.node} initcall_blacklist="
                "crypto_kdf108_init,init_blk_tracer,load_system_certificate_list,i8042_init,init_ima,init_zswap")

    def network(self, wires):
        """Two guests have a wire between them; of more, the first one's qemu is the hub."""
        net = []
        for i, w in enumerate(wires):
            net += ["-netdev", f"stream,id=wire{i},server=off,addr.type=fd,addr.str={w.fileno()}"]
        end = "wire0"
        if not wires:
            net = ["-netdev", "user,id=wire0,restrict=on"]  # to nobody, but the link is up
        elif len(wires) > 1:
            end = "segment"
            net += ["-netdev", "hubport,id=segment,hubid=0"]
            for i in range(len(wires)):
                net += ["-netdev", f"hubport,id=port{i},hubid=0,netdev=wire{i}"]
        mac = f"52:54:00:4e:55:{self.node:02x}"
        return net + ["-device", f"virtio-net-pci,id=eth0,netdev={end},mac={mac},host_mtu=9000"]

    # ---- what comes from the guest ----

    def on_control(self, data):
        for line in self.ports["control"].lines(data):
            verb, *args = line.split()
            if verb == "up":
                self.up = True
                self.rig.guest_up()
            elif verb == "exit":
                self.asked = int(args[0])
            elif verb == "idle":
                self.idle = True
            else:
                self.ports["control"].send(self.rig.request(line))
        self.maybe_over()

    def on_out(self, data):
        self.output(self.ports["out"], sys.stdout.buffer, data)

    def on_err(self, data):
        self.output(self.ports["err"], sys.stderr.buffer, data)

    def output(self, port, stream, data):
        data, mark = port.rest + data, b"\0" + self.rig.end.encode()
        ended = mark in data
        if ended:
            data, port.rest = data.split(mark)[0], b""
        else:  # keeps back what may be the beginning of the mark and, of several guests, of a line
            cut = data.find(b"\0", max(0, len(data) - len(mark)))
            if self.rig.prefix and not self.log:
                cut = data.rfind(b"\n") + 1
            cut = len(data) if cut < 0 else cut
            data, port.rest = data[:cut], data[cut:]
        self.write(stream, data)
        if ended:
            self.open_outputs -= 1
            self.maybe_over()

    def write(self, stream, data):
        if self.log:
            self.log.write(data)
            self.log.flush()
        elif data:
            if self.rig.prefix:
                head = f"nu{self.node}| ".encode()
                data = b"".join(head + line + b"\n" for line in data.removesuffix(b"\n").split(b"\n"))
            stream.write(data)
            stream.flush()

    def on_console(self, data):
        self.console.extend(self.ports["console"].lines(data))

    def on_monitor(self, data):
        for line in self.ports["monitor"].lines(data):
            reply = json.loads(line)
            if "error" in reply:
                print(f"vm: nu{self.node}: monitor: {reply['error'].get('desc')}", file=sys.stderr)

    def on_tty(self, data):
        os.write(1, data)

    def maybe_over(self):
        if self.asked is not None and (not self.open_outputs or "tty" in self.ports):
            self.status = self.asked
            self.process.kill()

    # ---- what is done to it ----

    def set_link(self, up):
        self.ports["monitor"].send(json.dumps({"execute": "set_link", "arguments": {"name": "eth0", "up": up}}))

    def cut_power(self):
        self.killed = True
        self.process.kill()

    def report(self, what):
        print(f"vm: nu{self.node} {what}; the end of its console:", file=sys.stderr)
        rest = [self.ports["console"].rest.decode(errors="replace")]
        for line in [text for text in [*self.console, *rest] if text.strip()]:
            print(f"  nu{self.node}: {line}", file=sys.stderr)


class Rig:
    """A run of one or several guests: `run()` is all of it."""

    def __init__(self, options, command):
        self.options, self.command = options, command
        self.end = secrets.token_hex(16)
        self.prefix = options.nodes > 1 and options.run_on == "all"
        self.selector = selectors.DefaultSelector()
        self.tsc_khz = ticks.tsc_khz()
        self.guests, self.begin, self.up_after = [], time.monotonic(), None

    def run(self):
        """The first status that is not 0, of the lowest node."""
        try:
            self.start()
            while not self.over():
                self.step()
        finally:
            for g in self.guests:
                if g.process:
                    g.process.kill()
                    g.process.wait()
        return next((g.status for g in self.guests if g.status), 0)

    def start(self):
        boot = image.find()
        self.begin = time.monotonic()
        fd = initrd(boot["initrd"], self.options, self.command, self.end, boot["modules"])
        pairs = [socket.socketpair() for _ in range(self.options.nodes - 1)]
        wires = [[a for a, _ in pairs]] + [[b] for _, b in pairs]
        for node in range(1, self.options.nodes + 1):
            g = Guest(self, node)
            self.guests.append(g)
            g.start(wires[node - 1], boot["kernel"], fd)
            for p in g.ports.values():
                self.selector.register(p.sock, selectors.EVENT_READ, p)
            self.selector.register(os.pidfd_open(g.process.pid), selectors.EVENT_READ, g)
        for w in sum(wires, []):
            w.close()
        os.close(fd)
        if self.options.control:
            self.listen(self.options.control)
        if self.options.tty:
            self.selector.register(0, selectors.EVENT_READ, None)

    def step(self):
        limit = self.options.limit if self.up_after else min(self.options.limit, self.options.boot_limit)
        left = self.begin + limit - time.monotonic()
        ready = self.selector.select(max(0, min(left, 5)))
        for key, _ in ready:
            if isinstance(key.data, Port):
                self.read(key.data)
            elif callable(key.data):
                key.data()
            elif key.data is None:
                self.guests[0].ports["tty"].sock.sendall(os.read(0, 4096))
        for key, _ in ready:  # after its last words
            if isinstance(key.data, Guest):
                self.ended(key)
        if left <= 0:
            self.out_of_time(limit)

    def read(self, port):
        try:
            data = port.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if data:
            port.on_data(data)
        else:
            self.selector.unregister(port.sock)

    def ended(self, key):
        g = key.data
        self.selector.unregister(key.fileobj)
        os.close(key.fileobj)
        for p in g.ports.values():  # what is still in the sockets
            while p.sock in self.selector.get_map():
                self.read(p)
        g.process.wait()
        if g.status is None and g.asked is not None:
            g.status = g.asked
        if g.status is None and not g.killed:
            g.status = CRASHED
            g.report("crashed" if g.up else "did not boot")
        elif g.killed:
            g.status = 0

    def over(self):
        return all(g.status is not None or g.idle for g in self.guests) or \
            any(g.status == CRASHED for g in self.guests)

    def out_of_time(self, limit):
        for g in self.guests:
            if g.status is None and not g.idle:
                g.status = TIMED_OUT
                g.report(f"still ran after {limit} s" if g.up else f"was not up after {limit} s")

    def guest_up(self):
        if all(g.up for g in self.guests):
            self.up_after = time.monotonic() - self.begin
            if self.options.timing:
                print(f"vm: up after {self.up_after:.1f} s", file=sys.stderr, flush=True)
            for g in self.guests:
                g.ports["control"].send("go")

    # ---- requests, from guests and from outside ----

    def request(self, line):
        try:
            verb, node, *args = line.split()
            g = self.guests[int(node) - 1] if int(node) > 0 else None
            if verb == "link" and args in (["up"], ["down"]):
                g.set_link(args == ["up"])
            elif verb == "kill" and not args:
                g.cut_power()
            else:
                return f"not understood: {line}"
        except (ValueError, IndexError, AttributeError):
            return f"not understood: {line}"
        return "ok"

    def listen(self, directory):
        """DIRECTORY/control, reached by its directory's descriptor: a socket's name holds 107 bytes."""
        self.control_dir = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(f"/proc/self/fd/{self.control_dir}/control")
        self.server.listen()
        self.selector.register(self.server, selectors.EVENT_READ, self.serve)

    def serve(self):
        client, _ = self.server.accept()
        with client:
            client.settimeout(5)
            try:
                client.sendall(self.request(client.makefile().readline()).encode() + b"\n")
            except OSError:
                pass


def ask(directory, words):
    """What --control does: hands a request to a run."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(f"/proc/self/fd/{fd}/control")
        s.sendall(" ".join(words).encode() + b"\n")
        return s.makefile().readline().strip()
