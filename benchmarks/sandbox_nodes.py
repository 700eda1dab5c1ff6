"""Several sandbox servers behind a plain load balancer: throughput, and whether clients get shares.

Servers as on so many nodes, but sharing this machine's processors, and haproxy before them, which
knows nothing of programs. One server with as many workers is measured beside. Then two clients at
once, one with sixteen times as many requests in flight as the other.

    python benchmarks/sandbox_nodes.py [--servers 4] [--seconds 15]
"""

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from sandbox_load import SNIPPETS, load

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
frontend programs
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance leastconn
    option httpchk GET /health
    http-reuse always
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def server(workers):
    command = [sys.executable, "-c", "from ctpo.cli import main; main()", "sandbox", "serve"]
    with subprocess.Popen(
        [*command, "--port", "0", "--workers", str(workers)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if found := re.search(r"listening at http://[^:]+:(\d+)", line):
                break
        yield int(found[1])
        process.terminate()


@contextlib.contextmanager
def balancer(ports):
    """haproxy before these servers; gives its port."""
    port = free_port()
    lines = [f"    server node{i} 127.0.0.1:{p} check inter 5s" for i, p in enumerate(ports)]
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "haproxy.cfg"
        config.write_text(CONFIG.format(port=port) + "\n".join(lines) + "\n")
        with subprocess.Popen(["haproxy", "-q", "-db", "-f", str(config)]) as process:
            while True:
                assert process.poll() is None, "haproxy ended"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield port
            process.terminate()


def executions(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.findall(
            r"^ctpo_sandbox_executions_total\{.*\} (\d+)", answer.read().decode(), re.M
        )
    return sum(map(int, found))


async def two_clients(port, in_flight, seconds):
    return await asyncio.gather(
        *(
            load(port, SNIPPETS["mixed"], n, 0, seconds=seconds, name=name)
            for name, n in (("large", in_flight), ("small", in_flight // 16))
        )
    )


def show(what, result):
    print(
        f"{what:34} {result.rate:7.1f}/s  p50 {result.p50 * 1e3:6.0f} ms  "
        f"p99 {result.p99 * 1e3:6.0f} ms  {result.wrong + result.failed} wrong",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="of each server")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each measurement")
    options = parser.parse_args()
    if not shutil.which("haproxy"):
        sys.exit("haproxy is not installed; on Debian and Ubuntu it is the package haproxy")
    processors = len(os.sched_getaffinity(0))
    print(f"{processors} processors, load {os.getloadavg()[0]:.1f} before\n")
    wrong = 0

    def measured(what, port, kind="mixed"):
        nonlocal wrong
        asyncio.run(load(port, SNIPPETS[kind], 8, 40))  # warm
        result = asyncio.run(
            load(port, SNIPPETS[kind], options.in_flight, 0, None, options.seconds)
        )
        show(what, result)
        wrong += result.wrong + result.failed

    with server(options.servers * options.workers) as port:
        for kind in ("print", "mixed"):
            measured(f"one server, {kind}", port, kind)
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(server(options.workers)) for _ in range(options.servers)]
        port = stack.enter_context(balancer(ports))
        for kind in ("print", "mixed"):
            measured(f"{options.servers} servers balanced, {kind}", port, kind)
        before = [executions(each) for each in ports]
        pair = asyncio.run(two_clients(port, options.in_flight, options.seconds))
        for name, result in zip(("large", "small"), pair, strict=True):
            show(f"two clients at once, the {name}", result)
            wrong += result.wrong + result.failed
        shares = [executions(each) - old for each, old in zip(ports, before, strict=True)]
        print(
            f"programs by server: {shares}, largest over smallest {max(shares) / min(shares):.2f}"
        )
    print(f"\nload {os.getloadavg()[0]:.1f} after")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
