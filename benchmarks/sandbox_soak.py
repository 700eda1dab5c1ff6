"""Programs without end, a third of them hostile, and sessions; everything stays flat.

make soak-sandbox ARGS="--count 200000"
"""

import argparse
import os
import sys
import time
from collections import Counter

from sandbox_load import SNIPPETS
from sandbox_watch import held

from ctpo.sandbox import Sandbox, SessionOver
from ctpo.sandbox.attacks import attacks

BOUNDED = [
    "while True: pass",
    "x = bytearray(1 << 31)",
    "while True: print('x' * 1000)",
    "import os; os.abort()",
    "import os; os.closerange(0, 256)",
    "import os\nfor i in range(6000): open(str(i), 'w')",
    # Claims to have been killed from outside, which would stop a training.
    "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nwhile True: pass",
    "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    # Memory that the kernel keeps for it, trees that are hard to clear away, locks, threads.
    "import socket\nfor _ in range(200):\n p = socket.socketpair()\n p[0].setblocking(False)\n"
    " try:\n  while True: p[0].send(bytes(65536))\n except OSError: pass",
    "import os\nfor _ in range(1000): os.mkdir('d'); os.chdir('d')",
    "import os\nfor i in range(300): os.mkdir(str(i), 0o300); open(f'{i}/x', 'w').close()",
    "import fcntl, os\nfcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX)",
    "import threading, time\n"
    "for _ in range(60): threading.Thread(target=time.sleep, args=(9,)).start()",
    "import os\nos.utime('.', (1, 1)); os.chmod('.', 0)",
]
SESSION = [
    ("x = 20", ""),
    ("import threading, time\n"
     "threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()", ""),
    ("import os\nkept = os.dup(0)", ""),
    ("print(x + 1)", "21\n"),
]  # fmt: skip


def hostile():
    """Programs that try something; those that take long by design are left out."""
    return BOUNDED + [
        "import ctypes, os, socket, struct, sys, time, types\n" + attack.code
        for attack in attacks()
        if attack.kind in ("remains", "privileges") and "T." not in attack.code
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--chunk", type=int, default=5000)
    options = parser.parse_args()
    innocent = [*SNIPPETS["mixed"], *SNIPPETS["print"] * 10]
    guilty = hostile()
    wrong, sessions, statuses, started = 0, 0, Counter(), time.monotonic()
    with Sandbox(timeout=0.3, preload=["numpy", "sympy"]) as sandbox:
        for start in range(0, options.count, options.chunk):
            asked = [
                (guilty[i // 3 % len(guilty)], None) if i % 3 == 0 else innocent[i % len(innocent)]
                for i in range(start, min(start + options.chunk, options.count))
            ]
            for (_, answer), execution in zip(
                asked, sandbox.run_many([code for code, _ in asked]), strict=True
            ):
                statuses[execution.status] += 1
                wrong += execution.status == "sandbox-failure"
                wrong += answer is not None and execution.stdout != answer
            for _ in range(options.chunk // 100):
                sessions += 1
                with sandbox.session() as session:
                    try:
                        answers = [session.run(code).stdout for code, _ in SESSION]
                    except SessionOver as error:
                        answers = [str(error)]
                    wrong += answers != [answer for _, answer in SESSION]
            time.sleep(0.5)
            seconds = time.monotonic() - started
            count = start + len(asked)
            now = held(os.getpid())
            print(
                f"{count:7} programs, {sessions} sessions, {seconds:5.0f} s, {wrong} wrong, {now}"
            )
            sys.stdout.flush()
        print(f"{options.count / seconds:.0f}/s; {dict(statuses)}; {sandbox.restarts} restarts")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
