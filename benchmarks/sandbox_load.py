"""Snippets with known answers, and a load generator for /run_code."""

import asyncio
import json
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
    rate: float
    p50: float
    p99: float
    cpu_ms: float
    wrong: int
    failed: int
    done: int
    maximum: float


async def _client(port, jobs, latencies, outcome):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while jobs:
            code, answer = jobs.pop()
            body = json.dumps({"code": code, "language": "python", "run_timeout": 60}).encode()
            head = (
                "POST /run_code HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
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


async def load(port, snippets, in_flight, count, pid=None, seconds=None):
    """Keep so many requests in flight until the jobs are done or the time is up."""
    if seconds is None:
        jobs = [snippets[i % len(snippets)] for i in range(count)]
    else:
        jobs = _Endless(snippets, seconds)
    latencies, outcome = [], {"wrong": 0, "failed": 0}
    cpu = tree_cpu(pid) if pid else 0.0
    started = time.perf_counter()
    clients = [_client(port, jobs, latencies, outcome) for _ in range(in_flight)]
    await asyncio.gather(*clients)
    wall = time.perf_counter() - started
    cpu = tree_cpu(pid) - cpu if pid else 0.0
    latencies.sort()
    return Result(
        rate=len(latencies) / wall,
        p50=statistics.median(latencies),
        p99=latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))],
        cpu_ms=cpu / len(latencies) * 1e3,
        wrong=outcome["wrong"],
        failed=outcome["failed"],
        done=len(latencies),
        maximum=latencies[-1],
    )


class _Endless:
    def __init__(self, snippets, seconds):
        self.snippets, self.end, self.taken = snippets, time.monotonic() + seconds, 0

    def __bool__(self):
        return time.monotonic() < self.end

    def pop(self):
        self.taken += 1
        return self.snippets[self.taken % len(self.snippets)]
