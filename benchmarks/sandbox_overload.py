"""Many more requests than the server can work off: slower answers, and not one wrong.

make overload-sandbox ARGS="--seconds 120 --in-flight 2000"
"""

import argparse
import asyncio
import os
import resource
import sys
import time

from sandbox import ours
from sandbox_load import SNIPPETS, load
from sandbox_watch import held


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--in-flight", type=int, default=2000)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with ours() as (port, pid):
        # The same crowd once before, so that what it makes a server set aside is there already.
        asyncio.run(load(port, SNIPPETS["mixed"], options.in_flight, 2 * options.in_flight))
        time.sleep(3)
        before = held(pid)
        result = asyncio.run(
            load(port, SNIPPETS["mixed"], options.in_flight, 0, pid, options.seconds)
        )
        time.sleep(3)
        after = held(pid)
    print(
        f"{options.in_flight} in flight for {options.seconds:.0f} s on two processors: "
        f"{result.done} answers, {result.rate:.0f}/s, {result.wrong} wrong, "
        f"{result.failed} refused, p50 {result.p50:.1f} s, p99 {result.p99:.1f} s, "
        f"slowest {result.maximum:.1f} s"
    )
    print(f"before {before}\nafter  {after}")
    sys.exit(bool(result.wrong or result.failed))


if __name__ == "__main__":
    main()
