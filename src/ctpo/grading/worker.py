"""The process in which formulas are compared: one JSON line in, one JSON line out.

It is a process of its own because sympy can run for hours or fill the memory on a short formula,
and because math-verify cannot be used from a thread.
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

# The parent kills a worker that is late. Should the parent be gone by then, the alarm does it.
GRACE_SECONDS = 5


def main() -> None:
    """Answers requests until standard input closes."""
    # Libraries print; what they print must not get between our lines.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    from ctpo.grading.symbolic import Undecided, equal

    os.dup2(nothing, 2)
    logging.disable(logging.CRITICAL)
    sys.set_int_max_str_digits(0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(json.dumps({"ready": True}), file=replies)

    for line in sys.stdin:
        request = json.loads(line)
        # The default action of the alarm ends the process even inside C code.
        signal.alarm(math.ceil(request["timeout"]) + GRACE_SECONDS)
        reply: dict[str, bool | str]
        try:
            reply = {"equal": equal(request["left"], request["right"])}
        except Undecided as undecided:
            reply = {"undecided": str(undecided)}
        except MemoryError:
            reply = {"undecided": "out of memory"}
        except Exception as error:
            # sympy raises all kinds on odd input; none of them says that the answer is wrong.
            reply = {"undecided": f"{type(error).__name__}: {error}"[:200]}
        signal.alarm(0)
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
