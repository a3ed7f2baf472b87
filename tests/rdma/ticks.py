# SPDX-License-Identifier: MIT
"""The rate of this machine's time-stamp counter, which is the guests' too: on a busy host they measure anything but it."""
import ctypes
import mmap
import platform
import time

RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
SAMPLES = 50


def tsc_khz():
    """None where there is no such counter."""
    if platform.machine() != "x86_64":
        return None
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(RDTSC)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def sample():
        """Counter and clock, from the try that was interrupted least."""
        best = None
        for _ in range(SAMPLES):
            before, ticks, after = time.monotonic_ns(), read(), time.monotonic_ns()
            if best is None or after - before < best[0]:
                best = after - before, ticks, (before + after) / 2
        return best[1:]

    first = sample()
    time.sleep(0.02)
    last = sample()
    return round((last[0] - first[0]) * 1e6 / (last[1] - first[1]))
