# SPDX-License-Identifier: MIT
"""What guests boot: Debian's kernel, unpacked, and an initrd, both made once and kept in the user's cache."""
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
META = "linux-image-amd64"  # the cloud flavour has no rdma_rxe
# Loaded in this order; rdma_rxe wants the hash crc32 to be there first.
MODULES = ["crc32_generic", "crc32_pclmul", "virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "virtio_net",
           "rdma_rxe", "rdma_ucm"]
# What of the package's modules is kept: hardware, of which guests have none, is most of it.
KEPT = ["arch", "crypto", "lib", "net", "fs/9p", "fs/configfs", "fs/fscache", "fs/fuse", "fs/netfs", "fs/overlayfs",
        "drivers/char/virtio_console.ko", "drivers/infiniband/core", "drivers/infiniband/sw", "drivers/infiniband/ulp",
        "drivers/net/*.ko", "drivers/virtio"]
SIGNED = b"~Module signature appended~\n"


class Unavailable(Exception):
    """The kernel cannot be had here: a reason to skip, not to fail."""


def call(*cmd, **kw):
    r = subprocess.run([str(c) for c in cmd], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
    if r.returncode:
        raise Unavailable(f"{cmd[0]} {cmd[1]}: {r.stderr.decode(errors='replace').strip() or r.returncode}")
    return r.stdout


def require(*programs):
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")


def find():
    """The newest image in the cache, made if there is none. A dict of paths: kernel, initrd, modules."""
    require("qemu-system-x86_64", "busybox")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "nu"
    recipe = hashlib.sha256((HERE / "guest-init").read_bytes() + pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    have = sorted(cache.glob(f"vm-*-{recipe}"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name[:-13])])
    image = have[-1] if have else make(cache, recipe)
    return {"kernel": image / "vmlinux", "initrd": image / "initrd", "modules": next((image / "lib/modules").iterdir())}


def make(cache, recipe):
    require("apt-get", "apt-cache", "dpkg-deb", "depmod", "modprobe", "cpio")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as tmp:
        tmp = pathlib.Path(tmp)
        package = download(tmp)
        tree = tmp / "image"
        tree.mkdir()
        unpack(package, tree)
        release = next((tree / "lib/modules").iterdir()).name
        (tree / "vmlinux").write_bytes(decompress((tree / f"boot/vmlinuz-{release}").read_bytes()))
        shutil.rmtree(tree / "boot")
        make_initrd(tree, release)
        tree.chmod(0o755)
        image = cache / f"vm-{release}-{recipe}"
        try:
            tree.rename(image)  # all at once: two may be at it
        except OSError:
            if not (image / "initrd").exists():
                raise
    return image


def download(directory):
    """The kernel's package, by apt, whose lists a fresh machine may lack."""
    def names():
        out = call("apt-cache", "depends", META).decode()
        return re.findall(r"^\s*Depends: (linux-image-\S+)", out, re.M)

    options = ["-qq", "-o", "APT::Sandbox::User=root"] if os.getuid() == 0 else ["-qq"]
    for last in (False, True):
        try:
            name = names()[0]
            call("apt-get", *options, "download", name, cwd=directory)
            return next(directory.glob("*.deb"))
        except (Unavailable, IndexError) as e:
            if last:
                raise Unavailable(f"no kernel package: {e}") from e
            as_root = [] if os.getuid() == 0 else ["sudo", "-n"]
            subprocess.run(as_root + ["apt-get", "update", "-qq"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)


def unpack(package, tree):
    wanted = ["./boot/vmlinuz-*", "./lib/modules/*/modules.*"] + [f"./lib/modules/*/kernel/{k}" for k in KEPT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "-C", str(tree), "--no-same-owner", "--wildcards",
                        "--no-wildcards-match-slash", *wanted], stdin=tar.stdout,
                       check=True)
    if tar.returncode:
        raise Unavailable("dpkg-deb cannot read the kernel's package")


def decompress(image):
    """The kernel within a bzImage (Documentation/x86/boot.rst). The emulator would take five seconds for it at each boot."""
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    try:
        kernel = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(image[start:start + length])
    except lzma.LZMAError:
        return image  # compressed otherwise: boots too
    return kernel


def make_initrd(tree, release):
    call("depmod", "-b", tree, release)
    root = tree / "initrd.d"
    for d in ("bin", "config", "dev", "layer", "lower", "modules", "newroot", "proc", "sys"):
        (root / d).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin")
    shutil.copy(HERE / "guest-init", root / "init")
    (root / "init").chmod(0o755)
    order = []
    for name in MODULES:
        deps = call("modprobe", "-d", tree, "-S", release, "--show-depends", name).decode()
        order += [pathlib.Path(p) for p in re.findall(r"^insmod (\S+)", deps, re.M)]
    for path in dict.fromkeys(order):
        (root / "modules" / path.name).write_bytes(without_signature(path.read_bytes()))
    (root / "modules/order").write_text("".join(f"{p.name}\n" for p in dict.fromkeys(order)))
    (tree / "initrd").write_bytes(archive(root))
    shutil.rmtree(root)


def without_signature(module):
    """To check it takes the emulator longer than to load the module."""
    if not module.endswith(SIGNED):
        return module
    length = struct.unpack(">I", module[-len(SIGNED) - 4:-len(SIGNED)])[0]
    return module[:-len(SIGNED) - 12 - length]


def archive(directory):
    names = sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))
    r = subprocess.run(["cpio", "-o", "-H", "newc", "-0", "--quiet", "-R", "0:0"], cwd=directory, check=True,
                       input=b"\0".join(n.encode() for n in names), stdout=subprocess.PIPE)
    return r.stdout
