"""Work on what a program left, in processes of its own: it takes time, and sees its content."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable

from ctpo.sandbox import archive
from ctpo.sandbox.jail import kernel
from ctpo.sandbox.jail.jail import limit
from ctpo.sandbox.jail.plan import COLLECTED_BYTES
from ctpo.sandbox.jail.scratch import delete_tree
from ctpo.sandbox.server.slot import Process

_MOST_CPU_SECONDS = 300


def start_collecting(directory: str, names: int, into: int) -> Process:
    """Start copying files that a program left.

    Args:
        directory: Where they are.
        names: Descriptor of the list of their names, as JSON.
        into: Descriptor of the file that becomes their archive.
    """

    def collect() -> None:
        wanted = json.loads(os.pread(names, os.fstat(names).st_size, 0))
        archive.collect(directory, wanted, COLLECTED_BYTES, into)

    return _start(collect)


def start_deleting(directory: str) -> Process:
    """Start deleting a directory."""
    return _start(lambda: delete_tree(directory))


def _start(work: Callable[[], object]) -> Process:
    pid = kernel.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            limit(resource.RLIMIT_CPU, _MOST_CPU_SECONDS, _MOST_CPU_SECONDS)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return Process(pid)
