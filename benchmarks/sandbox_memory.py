"""What a hostile program can hold of the machine's memory beyond its limit, way by way.

Prints a Markdown table. It puts itself into a memory cgroup of its own, and so needs root; what it
shows is the kernel's own count of all that the sandbox's processes hold, files in memory included.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ctpo.sandbox import Sandbox

_LIMIT_MB, _SECONDS = 512, 8.0
_END = "\nimport time; print('held', flush=True); time.sleep(1.5)"
_FILL = """
def fill(write, size):
    try:
        while True: write(b"x" * size)
    except BlockingIOError: pass
"""
WAYS = {
    "ordinary memory": "x = []\ntry:\n    while True: x.append(bytearray(1 << 20))\n"
    "except MemoryError: pass",
    "socket pairs with larger buffers": _FILL
    + """
import socket
kept = []
try:
    while True:
        for s in kept.append(socket.socketpair()) or kept[-1]:
            try: s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 26)
            except OSError: pass
            s.setblocking(False)
            fill(s.send, 65536)
except OSError: pass""",
    "larger pipes": _FILL
    + """
import fcntl, os
try:
    while True:
        r, w = os.pipe()
        try: fcntl.fcntl(w, 1031, 1 << 20)
        except OSError: pass
        os.set_blocking(w, False)
        fill(lambda data: os.write(w, data), 65536)
except OSError: pass""",
    "locks of files": """
import fcntl, os, struct
f = os.open("x", os.O_RDWR | os.O_CREAT)
for i in range(400_000):
    for command in (6, 37):
        try: fcntl.fcntl(f, command, struct.pack("hhqqi4x", i % 2, 0, 2 * i, 1, 0))
        except OSError: pass""",
    "pending signals": """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 64))
for _ in range(300_000): os.kill(os.getpid(), 40)""",
    "page tables": """
import ctypes
mmap = ctypes.CDLL(None).mmap
mmap.restype, long = ctypes.c_void_p, ctypes.c_long
for i in range(60_000):
    page = mmap(long((1 << 40) + (i << 30)), long(4096), 3, 0x100022, -1, long(0))
    if page in (None, (1 << 64) - 1): break
    ctypes.c_char.from_address(page).value = b"x" """,
    "its directory": "for i in range(99):\n    try: open(str(i), 'wb').write(bytes(1 << 20))\n"
    "    except OSError: break",
    "epoll": """
import os, select
polls, pipes = [], []
try:
    for _ in range(120): polls.append(select.epoll())
    while True: pipes += os.pipe()
except OSError: pass
for e in polls:
    for p in pipes: e.register(p)""",
    "threads": """
import threading, time
threading.stack_size(32768)
try:
    while True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
except (RuntimeError, MemoryError): pass""",
}
WAYS["its directory, socket pairs and ordinary memory at once"] = "\n".join(
    WAYS[way] for way in ("its directory", "socket pairs with larger buffers", "ordinary memory")
)


def main() -> None:
    with _own_cgroup() as count:
        _measure(count)


def _measure(count: Path) -> None:
    print(f"| way, under a limit of {_LIMIT_MB} MiB | held at most, MiB | end |\n|---|---|---|")
    with Sandbox(workers=1, timeout=_SECONDS, memory_mb=_LIMIT_MB) as sandbox:
        sandbox.run("print(1)")
        for way, code in WAYS.items():
            time.sleep(0.5)
            before = most = int(count.read_text())
            future = sandbox.submit(code + _END)
            while not future.done():
                most = max(most, int(count.read_text()))
                time.sleep(0.01)
            execution = future.result()
            print(f"| {way} | {(most - before) >> 20} | {execution.status} |", flush=True)


@contextlib.contextmanager
def _own_cgroup() -> Iterator[Path]:
    """Be in a new cgroup; the file that says what it holds."""
    groups = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").open())
    if "memory" in groups:
        parent = Path("/sys/fs/cgroup/memory" + groups["memory"].strip())
        name = "memory.usage_in_bytes"
    else:
        parent, name = Path("/sys/fs/cgroup" + groups[""].strip()), "memory.current"
    group = parent / f"ctpo-{os.getpid()}"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield group / name
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


if __name__ == "__main__":
    main()
