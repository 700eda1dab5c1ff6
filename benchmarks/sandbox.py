"""The sandbox behind its HTTP server, beside `python -c` in bubblewrap and firejail behind FastAPI.

One run, side by side, on loopback: executions per second, CPU-ms per execution, p50 and p99, at 1,
8, 64 and 512 requests in flight, for four kinds of programs; the medians of several rounds, and the
ratios. Every answer is compared with the right one. Each side starts anew for each measurement,
which ends when its time is up: what is not answered by then is counted as unfinished, and as slower
than all that is. `library` is the sandbox without HTTP, which nothing here is to be compared with.

    make bench-sandbox ARGS="--rounds 3 --levels 1,64"
"""

import argparse
import asyncio
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from sandbox_load import SNIPPETS, load, load_library

from ctpo.sandbox import Sandbox

# Requests of a round: enough for some seconds of work, few enough for the slower side.
FAST = {1: 300, 8: 800, 64: 2000, 512: 3000}
SLOW = {
    "print": {1: 40, 8: 100, 64: 320, 512: 1024},
    "sympy": {1: 6, 8: 24, 64: 128, 512: 512},
    "numpy": {1: 20, 8: 64, 64: 256, 512: 512},
    "mixed": {1: 20, 8: 60, 64: 256, 512: 512},
}


def joining(name):
    """Have a server and all it starts counted together, which its process tree cannot do for
    processes that nobody waits for; None where control groups are not there or not ours."""
    group = Path("/sys/fs/cgroup/cpuacct") / f"ctpo-bench-{os.getpid()}-{name}"
    with contextlib.suppress(OSError):
        group.mkdir()
        return group
    return None


def join(group):
    return group and (lambda: (group / "tasks").write_text(str(os.getpid())))


@contextlib.contextmanager
def ours(group=None):
    command = [sys.executable, "-c", "from ctpo.cli import main; main()", "sandbox", "serve"]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True, preexec_fn=join(group)
    ) as process:
        for line in process.stdout:
            if "missing" in line:
                print(line, end="")  # figures of a lower step of the ladder are others
            if found := re.search(r"listening at http://[^:]+:(\d+)", line):
                break
        yield int(found[1]), process.pid
        process.terminate()


@contextlib.contextmanager
def plain(jail, group=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("plain_server.py")
    with subprocess.Popen(
        [sys.executable, script, str(port), jail], preexec_fn=join(group)
    ) as process:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port, process.pid
        process.kill()  # it may have hundreds of programs to wait for


@contextlib.contextmanager
def counting(name, start):
    """A server, and a function that gives the CPU seconds of all it started so far, if it can."""
    group = joining(name)
    try:
        with start(group) as (port, pid):
            yield port, pid, group and (lambda: int((group / "cpuacct.usage").read_text()) / 1e9)
    finally:
        while group and (left := (group / "tasks").read_text().split()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)  # what a server that was killed left
            time.sleep(0.05)
        if group:
            group.rmdir()


def measure(side, kind, level, seconds):
    """One measurement of one side."""
    snippets = SNIPPETS[kind]
    count = (FAST if side in ("ctpo", "library") else SLOW[kind])[level]
    if side == "library":
        with Sandbox(preload=["numpy", "mpmath", "sympy"]) as sandbox:
            asyncio.run(load_library(sandbox, snippets, min(level, 4), 8, seconds))  # warm
            return asyncio.run(load_library(sandbox, snippets, level, count, seconds))
    start = ours if side == "ctpo" else functools.partial(plain, side)
    with counting(side, start) as (port, pid, cpu):
        asyncio.run(load(port, snippets, min(level, 4), 8))  # warm
        before = cpu and cpu()
        result = asyncio.run(load(port, snippets, level, count, pid, seconds))
        if cpu:
            result.cpu_ms = (cpu() - before) / max(1, result.done) * 1e3
        return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--levels", default="1,8,64,512")
    parser.add_argument("--kinds", default=",".join(SNIPPETS))
    parser.add_argument("--sides", default="ctpo,bwrap,firejail,library")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each measurement")
    options = parser.parse_args()
    sides = options.sides.split(",")
    for jail in {"bwrap", "firejail"} & set(sides):
        if not shutil.which(jail):
            print(f"{jail} is not installed and is left out")
            sides.remove(jail)
    if trial := joining("trial"):
        trial.rmdir()
    else:
        print("no control groups to count with: CPU-ms of the jails are too low")
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f} before\n")
    for kind in options.kinds.split(","):
        for level in map(int, options.levels.split(",")):
            results = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side in sides:
                    results[side].append(measure(side, kind, level, options.seconds))
            show(kind, level, results)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


def show(kind, level, results):
    def middle(name, attribute):
        return statistics.median(getattr(r, attribute) for r in results[name])

    for name, rs in results.items():
        rates = [r.rate for r in rs]
        ratio = ""
        if name not in ("ctpo", "library") and "ctpo" in results:
            rate = middle("ctpo", "rate") / middle(name, "rate")
            cpu = middle(name, "cpu_ms") / middle("ctpo", "cpu_ms")
            ratio = f"  rate {rate:5.1f}×  CPU {cpu:5.1f}×"
        wrong, unfinished = sum(r.wrong + r.failed for r in rs), sum(r.unfinished for r in rs)
        print(
            f"{kind:6} {level:4} in flight  {name:9} {middle(name, 'rate'):8.1f}/s "
            f"({min(rates):.1f}–{max(rates):.1f})  {middle(name, 'cpu_ms'):7.1f} CPU-ms  "
            f"p50 {middle(name, 'p50') * 1e3:7.0f} ms  p99 {middle(name, 'p99') * 1e3:7.0f} ms  "
            f"{wrong} wrong, {unfinished} unfinished{ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
