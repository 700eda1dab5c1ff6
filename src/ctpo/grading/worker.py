"""The process in which formulas are compared: one JSON line in, one JSON line out.

It is a process of its own because sympy can run for hours or fill the memory on a short formula,
and it can neither be stopped from a thread nor held to a memory limit there.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import sys

MEMORY_BYTES = 2 * 1024**3


_EQUAL = {"right": True, "wrong": False, "could-not-tell": None}


def main() -> None:
    """Answers requests until standard input closes.

    Two clocks run over a request. The one of processor time ends the process when the request's own
    limit is used up, so that a verdict does not depend on how busy the machine is. The other, by
    the wall, is the parent's; the alarm here only sees to it that no orphan stays.
    """
    # Libraries print; what they print must not get between our lines.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    from ctpo.grading.judge import judge
    from ctpo.grading.symbolic import Symbolic

    os.dup2(nothing, 2)
    logging.disable(logging.CRITICAL)
    sys.set_int_max_str_digits(0)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    print(json.dumps({"ready": True}), file=replies)

    for line in sys.stdin:
        request = json.loads(line)
        # The default action of both signals ends the process, even inside C code.
        signal.setitimer(signal.ITIMER_PROF, request["timeout"])
        signal.alarm(math.ceil(request["hard_timeout"]) + 5)
        reply: dict[str, bool | str | int | None]
        try:
            found = judge(request["answer"], request["gold"], Symbolic())
            reply = {"equal": _EQUAL[found.outcome], "reason": found.reason}
        except MemoryError:
            reply = {"equal": None, "reason": "out of memory"}
        except Exception as error:
            # sympy raises all kinds on odd input; none of them says that the answer is wrong.
            reply = {"equal": None, "reason": f"{type(error).__name__}: {error}"[:200]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        reply["memory"] = _resident_bytes()
        print(json.dumps(reply), file=replies)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0  # not Linux: then the number of calls alone decides when a worker is replaced


if __name__ == "__main__":
    main()
