"""Hundreds of thousands of programs, one in twenty hostile; everything stays flat.

make soak-sandbox ARGS="--count 200000"
"""

import argparse
import os
import sys
import time
from collections import Counter

from sandbox_load import SNIPPETS
from sandbox_watch import held

from ctpo.sandbox import Sandbox
from ctpo.sandbox.attacks import attacks

SLOW = ("threads", "disk", "memory bit by bit", "memory across children", "a shell")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200_000)
    options = parser.parse_args()
    innocent = [*SNIPPETS["mixed"], *SNIPPETS["print"] * 10]
    hostile = ["while True: pass", "x = bytearray(1 << 31)", "while True: print('x' * 1000)"]
    hostile += ["import os; os.abort()", "import os; os.closerange(0, 256)"]
    hostile += ["import os\nfor i in range(6000): open(str(i), 'w')"]
    hostile += [
        "import ctypes, os, socket, struct, sys, time, types\n" + attack.code
        for attack in attacks()
        if attack.kind in ("remains", "privileges") and "T." not in attack.code
    ]
    wrong, statuses, started = 0, Counter(), time.monotonic()
    with Sandbox(timeout=0.3, preload=["numpy", "sympy"]) as sandbox:
        shown = []
        for start in range(0, options.count, 5000):
            codes, answers = [], []
            for i in range(start, min(start + 5000, options.count)):
                code, answer = (
                    (hostile[i // 20 % len(hostile)], None)
                    if i % 20 == 0
                    else innocent[i % len(innocent)]
                )
                codes.append(code)
                answers.append(answer)
            for answer, execution in zip(answers, sandbox.run_many(codes), strict=True):
                statuses[execution.status] += 1
                wrong += execution.status == "sandbox-failure"
                wrong += answer is not None and execution.stdout != answer
            time.sleep(0.5)
            shown.append(held(os.getpid()))
            seconds = time.monotonic() - started
            print(f"{start + len(codes):7} programs, {seconds:5.0f} s, {wrong} wrong, {shown[-1]}")
            sys.stdout.flush()
        print(f"{options.count / seconds:.0f}/s; {dict(statuses)}; {sandbox.restarts} restarts")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
