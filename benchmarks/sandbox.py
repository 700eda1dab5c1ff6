"""The sandbox: programs per second, alone and 64 at a time, beside a plain `python -c`."""

import statistics
import subprocess
import sys
import time

from ctpo.sandbox import Sandbox

PROGRAM = "print(sum(k**3 for k in range(12, 57)))"
ANSWER = str(sum(k**3 for k in range(12, 57))) + "\n"
ROUNDS = 7


def rate(count: int, run) -> float:  # noqa: ANN001
    started = time.perf_counter()
    outputs = run(count)
    assert outputs == [ANSWER] * count
    return count / (time.perf_counter() - started)


def plain(count: int) -> list[str]:
    command = [sys.executable, "-c", PROGRAM]
    return [subprocess.run(command, capture_output=True, text=True).stdout for _ in range(count)]


def main() -> None:
    with Sandbox() as sandbox:
        sides = {
            "plain python -c, one at a time": lambda: rate(16, plain),
            "sandbox, one at a time": lambda: rate(
                32, lambda n: [sandbox.run(PROGRAM).stdout for _ in range(n)]
            ),
            "sandbox, 64 at a time": lambda: rate(
                64, lambda n: [e.stdout for e in sandbox.run_many([PROGRAM] * n)]
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, measure in sides.items():
                rates[name].append(measure())
    for name, values in rates.items():
        print(
            f"{name:32} {statistics.median(values):7.0f} programs/s   "
            f"from {min(values):.0f} to {max(values):.0f}"
        )


if __name__ == "__main__":
    main()
