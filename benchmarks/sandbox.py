"""The sandbox behind its HTTP server, beside `python -c` in bubblewrap and firejail behind FastAPI.

One run, side by side, on loopback: executions per second, CPU-ms per execution, p50 and p99, at 1,
8, 64 and 512 requests in flight, for four kinds of programs; the medians of several rounds, and the
ratios. Every answer is compared with the right one.

    make bench-sandbox ARGS="--rounds 3 --levels 1,64"
"""

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from sandbox_load import SNIPPETS, load

# Requests of a round: enough for some seconds of work, few enough for the slower side.
FAST = {1: 200, 8: 600, 64: 1500, 512: 2500}
SLOW = {
    "print": {1: 20, 8: 60, 64: 150, 512: 600},
    "sympy": {1: 4, 8: 16, 64: 64, 512: 512},
    "numpy": {1: 8, 8: 32, 64: 96, 512: 512},
    "mixed": {1: 10, 8: 30, 64: 100, 512: 512},
}


@contextlib.contextmanager
def ours():
    command = [sys.executable, "-c", "from ctpo.cli import main; main()", "sandbox", "serve"]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if found := re.search(r"listening at http://[^:]+:(\d+)", line):
                break
        yield int(found[1]), process.pid
        process.terminate()


@contextlib.contextmanager
def plain(jail):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("plain_server.py")
    with subprocess.Popen([sys.executable, script, str(port), jail]) as process:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port, process.pid
        process.terminate()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--levels", default="1,8,64,512")
    parser.add_argument("--kinds", default=",".join(SNIPPETS))
    parser.add_argument("--jails", default="bwrap,firejail")
    options = parser.parse_args()
    jails = [jail for jail in options.jails.split(",") if shutil.which(jail)]
    for jail in set(options.jails.split(",")) - set(jails):
        print(f"{jail} is not installed and is left out")
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f} before\n")
    with contextlib.ExitStack() as stack:
        sides = {"ctpo": stack.enter_context(ours())}
        sides |= {jail: stack.enter_context(plain(jail)) for jail in jails}
        for kind in options.kinds.split(","):
            for level in map(int, options.levels.split(",")):
                compare(sides, kind, level, options.rounds)


def compare(sides, kind, level, rounds):
    results = {name: [] for name in sides}
    for port, _ in sides.values():
        asyncio.run(load(port, SNIPPETS[kind], min(level, 4), 8))  # warm
    for _ in range(rounds if level < 512 else 1):
        for name, (port, pid) in sides.items():
            count = (FAST if name == "ctpo" else SLOW[kind])[level]
            results[name].append(asyncio.run(load(port, SNIPPETS[kind], level, count, pid)))

    def middle(name, attribute):
        return statistics.median(getattr(r, attribute) for r in results[name])

    for name, rs in results.items():
        rates = [r.rate for r in rs]
        ratio = f"  {middle('ctpo', 'rate') / middle(name, 'rate'):5.1f}×" if name != "ctpo" else ""
        wrong = sum(r.wrong + r.failed for r in rs)
        print(
            f"{kind:6} {level:4} in flight  {name:9} {middle(name, 'rate'):8.1f}/s "
            f"({min(rates):.1f}–{max(rates):.1f})  {middle(name, 'cpu_ms'):7.1f} CPU-ms  "
            f"p50 {middle(name, 'p50') * 1e3:7.0f} ms  p99 {middle(name, 'p99') * 1e3:7.0f} ms  "
            f"{wrong} wrong{ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
