"""Tells how programs ended, once the files that are wanted of them have been copied."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Status
from ctpo.sandbox.jail.jail import Jail
from ctpo.sandbox.server.clock import out_of_memory_kills, read
from ctpo.sandbox.server.helpers import start_collecting
from ctpo.sandbox.server.poller import Poller
from ctpo.sandbox.server.slot import Collecting, Event, Slot, Task
from ctpo.sandbox.server.verdict import verdict

Tell = Callable[[Task, wire.Header, Sequence[int]], None]


class Reports:
    """Reports of a fork server's programs.

    Args:
        jail: How they are confined.
        proc: Descriptor of /proc, opened before the file tree was entered.
        poller: Where to have the ends of processes waited for.
        tell: Takes a job, its answer and descriptors of an archive of files, if any.
    """

    def __init__(self, jail: Jail, proc: int, poller: Poller[Event | None], tell: Tell) -> None:
        self._jail = jail
        self._proc = proc
        self._poller = poller
        self._tell = tell
        self._kills = out_of_memory_kills(proc)

    def verdict(self, job: Task, code: int, peak: int, cpu: float, cpu_limit: float) -> Status:
        """The status of a program that the sandbox did not end itself; see `verdict.verdict`."""
        status = verdict(
            code,
            peak=peak,
            most_memory=self._most_memory(job.header),
            cpu=cpu,
            cpu_limit=cpu_limit,
            timeout=job.header["timeout"],
            confined=self._jail.filter is not None,
        )
        return "memory" if status == "sandbox-failure" and self._out_of_memory() else status

    def finish(self, slot: Slot, answer: wire.Header) -> None:
        """Report how a program ended; where files are wanted, once they have been copied."""
        job = slot.job
        assert job is not None
        slot.clock = slot.program = None
        job.empty_inputs()
        if job.names < 0:
            self.settle(slot, answer)
            return
        archive = os.memfd_create("ctpo-files", os.MFD_CLOEXEC)
        process = start_collecting(slot.scratch.path, job.names, archive)
        slot.collecting = Collecting(process, archive, answer)
        self._poller.add(process.end, Event(slot, process))

    def settle(self, slot: Slot, answer: wire.Header, files: Sequence[int] = ()) -> None:
        """Report a program's end."""
        job, slot.job = slot.job, None
        assert job is not None
        self._tell(job, answer, files)
        job.close()

    def collected(self, slot: Slot) -> None:
        """Files have been copied; report the program that left them."""
        assert slot.collecting is not None
        (process, archive, answer), slot.collecting = slot.collecting, None
        well = os.wait4(process.pid, 0)[1] == 0
        self._poller.close(process)
        if not well:
            answer |= {"status": "sandbox-failure", "return_code": None}
            answer["failure"] = "the files it left could not be copied"
        self.settle(slot, answer, (archive,) if well else ())
        os.close(archive)

    def _out_of_memory(self) -> bool:
        """Whether it has killed a process since the last look, as a program can bring about."""
        before, self._kills = self._kills, out_of_memory_kills(self._proc)
        return self._kills > before

    def _most_memory(self, header: wire.Header) -> int:
        """What a program can use at most; with a low limit, what it started with counts."""
        if header["memory_bytes"] is None:
            return self._jail.plan.memory_bytes
        resident = int(read(self._proc, "self/statm").split()[1]) * resource.getpagesize()
        return min(self._jail.plan.memory_bytes, resident + int(header["memory_bytes"]))
