"""Run a test command many times in a row, to find the tests that pass or fail by luck.

Of ten runs three share the processors with a neighbour that keeps all of them busy, and three are
in a random order with other random numbers. Stops at the first that fails and says how to repeat
it. As `make test-repeat` calls it:

    python tests/repeat.py 10 python -m pytest -n 2
"""

import contextlib
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    loops = [
        # They end with us, however we end.
        subprocess.Popen(
            [sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]
        )
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main(count: int, command: list[str]) -> int:
    for number in range(1, count + 1):
        more: list[str] = []
        kind = "as usual"
        neighbour: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if number % 3 == 2:
            kind, neighbour = "beside a busy neighbour", busy_neighbour()
        elif number % 3 == 0:
            seed = random.SystemRandom().randrange(2**32)
            kind = f"in random order, seed {seed}"
            more = ["-p", "randomly", f"--randomly-seed={seed}"]
        print(f"== run {number} of {count}, {kind}", flush=True)
        started = time.monotonic()
        with neighbour:
            code = subprocess.call([*command, *more])
        print(f"== {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
        if code:
            print(f"run {number} failed, {kind}; again with:\n  {shlex.join([*command, *more])}")
            return code
    print(f"== {count} runs, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
