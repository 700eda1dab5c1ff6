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
        groups = {name: joining(name) for name in ("ctpo", *jails)}
        for group in filter(None, groups.values()):
            stack.callback(lambda group=group: (time.sleep(1), group.rmdir()))
        if None in groups.values():
            print("no control groups to count with: CPU-ms of the jails are too low")
        sides = {"ctpo": (*stack.enter_context(ours(groups["ctpo"])), groups["ctpo"])}
        for jail in jails:
            sides[jail] = (*stack.enter_context(plain(jail, groups[jail])), groups[jail])
        for kind in options.kinds.split(","):
            for level in map(int, options.levels.split(",")):
                compare(sides, kind, level, options.rounds)


def compare(sides, kind, level, rounds):
    results = {name: [] for name in sides}
    for port, *_ in sides.values():
        asyncio.run(load(port, SNIPPETS[kind], min(level, 4), 8))  # warm
    for _ in range(rounds if level < 512 else 1):
        for name, (port, pid, group) in sides.items():
            count = (FAST if name == "ctpo" else SLOW[kind])[level]
            before = group and int((group / "cpuacct.usage").read_text())
            result = asyncio.run(load(port, SNIPPETS[kind], level, count, pid))
            if group:
                used = int((group / "cpuacct.usage").read_text()) - before
                result.cpu_ms = used / 1e6 / result.done
            results[name].append(result)

    def middle(name, attribute):
        return statistics.median(getattr(r, attribute) for r in results[name])

    for name, rs in results.items():
        rates = [r.rate for r in rs]
        ratio = ""
        if name != "ctpo":
            rate = middle("ctpo", "rate") / middle(name, "rate")
            cpu = middle(name, "cpu_ms") / middle("ctpo", "cpu_ms")
            ratio = f"  rate {rate:5.1f}×  CPU {cpu:5.1f}×"
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
