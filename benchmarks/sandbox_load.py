"""Snippets with known answers, and a load generator for /run_code."""

import asyncio
import functools
import json
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

SNIPPETS = {
    "print": [("print(1)", "1\n")],
    "sympy": [("import sympy\nprint(sympy.factorint(360))", "{2: 3, 3: 2, 5: 1}\n")],
    "numpy": [("import numpy as np\nprint(int(np.arange(10).sum()))", "45\n")],
    # What models write when they reason with a tool, shortened.
    "mixed": [
        (
            "from sympy import symbols, solve\nx = symbols('x')\nprint(solve(x**2 - 5*x + 6, x))",
            "[2, 3]\n",
        ),
        (
            "import math\ncount = 0\nfor n in range(1, 2000):\n"
            "    if math.gcd(n, 30) == 1:\n        count += 1\nprint(count)",
            "534\n",
        ),
        (
            "from fractions import Fraction\ns = sum(Fraction(1, k*(k+1)) for k in range(1, 100))\n"
            "print(s)",
            "99/100\n",
        ),
        (
            "from itertools import permutations\n"
            "print(sum(1 for p in permutations(range(6)) if p[0] < p[-1]))",
            "360\n",
        ),
        (
            "import numpy as np\nA = np.array([[2, 1], [1, 3]])\nprint(np.linalg.det(A).round(6))",
            "5.0\n",
        ),
        (
            "def f(n):\n    return n if n < 2 else f(n-1) + f(n-2)\nprint(f(18))",
            "2584\n",
        ),
        (
            "from sympy import *\nx = Symbol('x')\nprint(integrate(x*sin(x), (x, 0, pi)))",
            "pi\n",
        ),
        ("print(sum(int(d) for d in str(2**1000)))", "1366\n"),
        ("x = 1\nprint(y)", ""),
        (
            "import re, collections\nw = re.findall('[a-z]+', 'a bb a ccc bb a')\n"
            "print(collections.Counter(w).most_common(1))",
            "[('a', 3)]\n",
        ),
    ],
}


@dataclass
class Result:
    """What came of a load; times in seconds, those of requests that were not answered infinite."""

    rate: float
    p50: float
    p99: float
    cpu_ms: float
    wrong: int
    failed: int
    done: int
    unfinished: int
    maximum: float


async def _client(port, name, jobs, latencies, outcome):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while jobs:
            code, answer = jobs.pop()
            body = json.dumps({"code": code, "language": "python", "run_timeout": 60}).encode()
            head = (
                "POST /run_code HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                f"x-ctpo-client: {name}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            started = time.perf_counter()
            writer.write(head.encode() + body)
            header = await reader.readuntil(b"\r\n\r\n")
            length = int(header.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            text = await reader.readexactly(length)
            latencies.append(time.perf_counter() - started)
            if not header.startswith(b"HTTP/1.1 200"):
                outcome["failed"] += 1
                continue
            result = json.loads(text).get("run_result") or {}
            outcome["wrong"] += result.get("stdout") != answer
    finally:
        writer.close()


def tree_cpu(root):
    """CPU seconds of a process, its living descendants and those they have reaped."""
    total, unseen = 0, [root]
    while unseen:
        pid = unseen.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
            for task in os.listdir(f"/proc/{pid}/task"):
                unseen += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            continue
    return total / os.sysconf("SC_CLK_TCK")


async def load(port, snippets, in_flight, count, pid=None, seconds=None, name="bench"):
    """Keep so many requests in flight until `count` are answered or the time is up.

    With a count, what is unanswered when the time is up counts as unfinished. With a count of 0,
    no request is begun after that time, and those that were are waited for.
    """
    jobs = [snippets[i % len(snippets)] for i in range(count)] or _Endless(snippets, seconds)
    limit = seconds if count else None
    return await _measure(functools.partial(_client, port, name), jobs, in_flight, pid, limit)


async def load_library(sandbox, snippets, in_flight, count, seconds):
    """As `load`, of a sandbox in this process."""

    async def client(jobs, latencies, outcome):
        while jobs:
            code, answer = jobs.pop()
            started = time.perf_counter()
            execution = await sandbox.arun(code, timeout=60.0)
            latencies.append(time.perf_counter() - started)
            outcome["failed"] += execution.status == "sandbox-failure"
            outcome["wrong"] += execution.stdout != answer

    jobs = [snippets[i % len(snippets)] for i in range(count)]
    return await _measure(client, jobs, in_flight, os.getpid(), seconds)


async def _measure(client, jobs, in_flight, pid, seconds):
    latencies, outcome = [], {"wrong": 0, "failed": 0}
    asked = len(jobs)
    cpu = tree_cpu(pid) if pid else 0.0
    started = time.perf_counter()
    clients = [asyncio.ensure_future(client(jobs, latencies, outcome)) for _ in range(in_flight)]
    _, late = await asyncio.wait(clients, timeout=seconds)
    wall = time.perf_counter() - started
    cpu = tree_cpu(pid) - cpu if pid else 0.0
    done = sorted(latencies)
    for each in late:
        each.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for each in set(clients) - late:
        each.result()  # an error of a client's is one of the measurement
    unfinished = asked - len(done) if late else 0
    done_or_not = done + [math.inf] * unfinished
    return Result(
        rate=len(done) / wall,
        p50=statistics.median_low(done_or_not),
        p99=done_or_not[min(len(done_or_not) - 1, int(0.99 * len(done_or_not)))],
        cpu_ms=cpu / max(1, len(done)) * 1e3,
        wrong=outcome["wrong"],
        failed=outcome["failed"],
        done=len(done),
        unfinished=unfinished,
        maximum=done_or_not[-1],
    )


class _Endless:
    def __init__(self, snippets, seconds):
        self.snippets, self.end, self.taken = snippets, time.monotonic() + seconds, 0

    def __len__(self):
        return 0  # none that could be missed

    def __bool__(self):
        return time.monotonic() < self.end

    def pop(self):
        self.taken += 1
        return self.snippets[self.taken % len(self.snippets)]
